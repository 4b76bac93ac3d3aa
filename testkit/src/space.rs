//! Where one test works: a chroot and a database that nobody else uses.

use crate::servers::{self, Addresses, Servers};
use ::servers::{MongoOptions, ZooKeeperOptions};
use mongodb::bson::Document;
use std::collections::BTreeMap;
use std::time::Duration;
use zookeeper_client::{Acls, Client, CreateMode};

/// How long cleaning up may take at the end of a test; what is left then goes with the servers.
const CLEAN_UP: Duration = Duration::from_secs(5);

/// A chroot and a database of one test.
///
/// On shared servers both are removed when this is dropped (best effort: the servers go after the run anyway). The drop
/// blocks its thread for some milliseconds.
#[derive(Debug)]
pub struct Space {
    addresses: Addresses,
    name: String,
    servers: Option<Servers>,
}

impl Space {
    /// A fresh space on the servers shared by this run. The chroot exists and is empty; the database does not exist yet.
    ///
    /// # Panics
    /// When the servers cannot be started or reached.
    pub async fn new() -> Space {
        Space::create(servers::shared().await, None).await
    }

    /// A fresh space on servers of its own, which [`Space::servers`] gives for killing, freezing and restarting. They take
    /// about two seconds to start.
    ///
    /// # Panics
    /// When the servers cannot be started.
    pub async fn private() -> Space {
        Space::private_with(servers::zookeeper_options(), servers::mongo_options()).await
    }

    /// As [`Space::private`], with options of the caller; begin with [`servers::zookeeper_options`] and
    /// [`servers::mongo_options`].
    ///
    /// # Panics
    /// When the servers cannot be started.
    pub async fn private_with(zookeeper: ZooKeeperOptions, mongo: MongoOptions) -> Space {
        let servers = Servers::start_with(zookeeper, mongo).await;
        Space::create(servers.addresses(), Some(servers)).await
    }

    async fn create(addresses: Addresses, servers: Option<Servers>) -> Space {
        // Short enough for a database (63 bytes), the same for both stores so that either tells of the other.
        let name = format!("t-{}", uuid::Uuid::new_v4().simple());
        let space = Space {
            addresses,
            name,
            servers,
        };
        let client = connect(&space.addresses.zookeeper).await;
        client
            .create(
                &space.chroot(),
                b"",
                &CreateMode::Persistent.with_acls(Acls::anyone_all()),
            )
            .await
            .expect("the chroot of the test");
        space
    }

    /// The connection string of ZooKeeper with the chroot: `127.0.0.1:port/t-…`.
    pub fn zookeeper(&self) -> String {
        self.zookeeper_through(self.zookeeper_address())
    }

    /// The connection string of ZooKeeper with the chroot, but by way of this `host:port`, which is that of a
    /// [`crate::proxy::Proxy`].
    pub fn zookeeper_through(&self, address: impl std::fmt::Display) -> String {
        format!("{address}{}", self.chroot())
    }

    /// `host:port` of ZooKeeper, the target for a [`crate::proxy::Proxy`].
    pub fn zookeeper_address(&self) -> &str {
        &self.addresses.zookeeper
    }

    /// The chroot: `/t-…`.
    pub fn chroot(&self) -> String {
        format!("/{}", self.name)
    }

    /// The connection string of MongoDB with the database as its path.
    pub fn mongodb(&self) -> String {
        with_database(&self.addresses.mongodb, &self.name)
    }

    /// The connection string of MongoDB with the database, but by way of this `host:port`.
    pub fn mongodb_through(&self, address: impl std::fmt::Display) -> String {
        self.mongodb()
            .replacen(self.mongodb_address(), &address.to_string(), 1)
    }

    /// `host:port` of MongoDB, the target for a [`crate::proxy::Proxy`].
    pub fn mongodb_address(&self) -> &str {
        let uri = &self.addresses.mongodb;
        let rest = uri.split_once("://").map_or(uri.as_str(), |(_, rest)| rest);
        rest.split(['/', '?']).next().unwrap_or(rest)
    }

    /// The name of the database.
    pub fn database(&self) -> &str {
        &self.name
    }

    /// The servers of a private space.
    ///
    /// # Panics
    /// When the space is on shared servers, which nobody may kill.
    pub fn servers(&mut self) -> &mut Servers {
        self.servers
            .as_mut()
            .expect("only Space::private() has servers of its own")
    }

    /// A fresh session on the chroot, for looking and for mischief.
    ///
    /// # Panics
    /// When ZooKeeper does not answer.
    pub async fn zookeeper_client(&self) -> Client {
        connect(&self.zookeeper()).await
    }

    /// The database through a fresh driver.
    ///
    /// # Panics
    /// When the connection string does not parse.
    pub async fn mongo(&self) -> mongodb::Database {
        let client = mongodb::Client::with_uri_str(self.mongodb())
            .await
            .expect("a connection string");
        client.database(&self.name)
    }

    /// Takes all documents out of the database, by collection, as `mongodump` takes them; nothing is left of it.
    ///
    /// # Panics
    /// When MongoDB does not answer.
    pub async fn take_documents(&self) -> BTreeMap<String, Vec<Document>> {
        let database = self.mongo().await;
        let mut all = BTreeMap::new();
        for name in database.list_collection_names().await.expect("the collections") {
            let found = database.collection::<Document>(&name).find(Document::new()).await;
            let mut found = found.expect("MongoDB finds");
            let mut documents = Vec::new();
            while found.advance().await.expect("MongoDB goes on") {
                documents.push(found.deserialize_current().expect("a document"));
            }
            all.insert(name, documents);
        }
        database.drop().await.expect("dropping the database");
        all
    }

    /// Puts documents into the database.
    ///
    /// # Panics
    /// When MongoDB does not answer, or has some of them.
    pub async fn put_documents(&self, all: BTreeMap<String, Vec<Document>>) {
        let database = self.mongo().await;
        for (name, documents) in all.into_iter().filter(|(_, documents)| !documents.is_empty()) {
            let put = database
                .collection::<Document>(&name)
                .insert_many(documents)
                .await;
            put.expect("inserting documents");
        }
    }

    /// All nodes under the chroot with their data, by path: `/owned/dispatcher/candidate-0000000001` → its data as text.
    /// `/` itself is not in it. A picture of a moving tree may show a node twice or not at all.
    ///
    /// # Panics
    /// When ZooKeeper does not answer.
    pub async fn tree(&self) -> BTreeMap<String, String> {
        let client = self.zookeeper_client().await;
        let mut found = BTreeMap::new();
        let mut todo = vec![String::new()];
        while let Some(parent) = todo.pop() {
            let path = if parent.is_empty() { "/" } else { &parent };
            let children = match client.list_children(path).await {
                Err(zookeeper_client::Error::NoNode) => continue,
                children => children.expect("listing the tree"),
            };
            for child in children {
                let child = format!("{parent}/{child}");
                match client.get_data(&child).await {
                    Err(zookeeper_client::Error::NoNode) => {}
                    answer => {
                        let (data, _) = answer.expect("reading the tree");
                        found.insert(child.clone(), String::from_utf8_lossy(&data).into_owned());
                        todo.push(child);
                    }
                }
            }
        }
        found
    }

    /// Creates a persistent node that anybody may change. `path` is inside the chroot, its parent exists.
    ///
    /// # Panics
    /// When ZooKeeper does not answer or the node exists.
    pub async fn put(&self, path: &str, data: &str) {
        let client = self.zookeeper_client().await;
        let options = CreateMode::Persistent.with_acls(Acls::anyone_all());
        client
            .create(path, data.as_bytes(), &options)
            .await
            .expect("creating a node");
    }

    /// Deletes a node and all below it; one that is gone already is fine. `path` is inside the chroot.
    ///
    /// # Panics
    /// When ZooKeeper does not answer, or nodes are added faster than they are deleted.
    pub async fn delete_tree(&self, path: &str) {
        let client = self.zookeeper_client().await;
        delete_tree(&client, path).await.expect("deleting a tree");
    }
}

impl Drop for Space {
    fn drop(&mut self) {
        if self.servers.is_some() {
            return;
        }
        // A drop cannot wait, and the runtime of the test may be gone: a thread with a runtime of its own can.
        let (addresses, name) = (self.addresses.clone(), self.name.clone());
        let cleaning = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            let Ok(runtime) = runtime else { return };
            runtime.block_on(async {
                let work = async {
                    tokio::join!(
                        remove_chroot(&addresses, &name),
                        remove_database(&addresses, &name)
                    )
                };
                let _ = tokio::time::timeout(CLEAN_UP, work).await;
            });
        });
        let _ = cleaning.join();
    }
}

async fn remove_chroot(addresses: &Addresses, name: &str) {
    if let Ok(client) = Client::connect(&addresses.zookeeper).await {
        let _ = delete_tree(&client, &format!("/{name}")).await;
    }
}

async fn remove_database(addresses: &Addresses, name: &str) {
    if let Ok(client) = mongodb::Client::with_uri_str(&addresses.mongodb).await {
        let _ = client.database(name).drop().await;
    }
}

async fn connect(cluster: &str) -> Client {
    Client::connect(cluster)
        .await
        .unwrap_or_else(|error| panic!("zookeeper at {cluster}: {error}"))
}

/// Deletes the children before the parent, again and again while somebody adds some.
async fn delete_tree(client: &Client, path: &str) -> Result<(), zookeeper_client::Error> {
    const ROUNDS: usize = 20;
    for _ in 0..ROUNDS {
        let mut todo = vec![path.to_owned()];
        let mut order = Vec::new();
        while let Some(parent) = todo.pop() {
            if let Ok(children) = client.list_children(&parent).await {
                todo.extend(
                    children
                        .iter()
                        .map(|child| format!("{}/{child}", parent.trim_end_matches('/'))),
                );
            }
            order.push(parent);
        }
        // Requests go out when the method is called: all at once, then the answers.
        let deletes: Vec<_> = order.iter().rev().map(|path| client.delete(path, None)).collect();
        let mut result = Ok(());
        for delete in deletes {
            result = delete.await;
        }
        match result {
            Ok(()) | Err(zookeeper_client::Error::NoNode) => return Ok(()),
            Err(zookeeper_client::Error::NotEmpty) => {}
            Err(error) => return Err(error),
        }
    }
    Err(zookeeper_client::Error::NotEmpty)
}

/// Puts a database into a connection string that has none.
fn with_database(uri: &str, database: &str) -> String {
    let (base, query) = uri
        .split_once('?')
        .map_or((uri, None), |(base, query)| (base, Some(query)));
    let base = base.trim_end_matches('/');
    match query {
        Some(query) => format!("{base}/{database}?{query}"),
        None => format!("{base}/{database}"),
    }
}

#[cfg(test)]
mod tests {
    use super::with_database;

    #[test]
    fn a_database_goes_before_the_query() {
        assert_eq!(with_database("mongodb://h:1/?a=b", "d"), "mongodb://h:1/d?a=b");
        assert_eq!(with_database("mongodb://h:1", "d"), "mongodb://h:1/d");
        assert_eq!(with_database("mongodb://h:1/", "d"), "mongodb://h:1/d");
    }
}
