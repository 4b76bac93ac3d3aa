//! A whole mill in one process, `sawmill dev`, on the shared servers, and commands against it.

use crate::{
    Space,
    process::{Output, Process, Recipe},
    wait,
};
use mongodb::bson::{Document, doc};
use serde_json::Value;
use std::path::Path;
use std::time::Duration;
use tempfile::TempDir;

/// Nothing of a story takes long; a busy machine may.
pub const DEADLINE: Duration = Duration::from_secs(60);

/// All roles in one process, with a block store and scratch files of its own.
#[derive(Debug)]
pub struct Mill {
    /// Its chroot and database.
    pub space: Space,
    /// Where its files are; tests may add theirs.
    pub files: TempDir,
    /// `HOST:PORT` of its gateway.
    pub server: String,
    process: Process,
}

/// Settings of a short session and of folders below `dir`.
pub fn settled(recipe: Recipe, dir: &Path) -> Recipe {
    recipe
        .env("SAWMILL_STORE", format!("file://{}", dir.join("store").display()))
        .env("SAWMILL_SCRATCH", dir.join("scratch"))
        .env("SAWMILL_SESSION_TIMEOUT", "2s")
        .env("SAWMILL_STOP_GRACE", "1s")
}

impl Mill {
    /// Starts it and waits until it is ready.
    pub async fn start() -> Self {
        let files = tempfile::tempdir().expect("a folder for the mill");
        Self::start_again(Space::new().await, files).await
    }

    /// Starts it where one has been before, see [`Mill::stop`].
    pub async fn start_again(space: Space, files: TempDir) -> Self {
        let mut process = settled(Process::sawmill(&space), files.path())
            .args(["dev", "--slots", "2", "--data-dir"])
            .arg(files.path().join("data"))
            .start();
        process.wait_for_line("ready", DEADLINE).await;
        let told = process.stdout();
        let gateway = told.lines().find_map(|line| line.strip_prefix("gateway"));
        let server = gateway.expect("it tells where its gateway is").trim().to_string();
        Self {
            space,
            files,
            server,
            process,
        }
    }

    /// A command against it that has not started yet.
    pub fn recipe(&self, args: &[&str]) -> Recipe {
        settled(Process::sawmill(&self.space), self.files.path()).args(args)
    }

    /// A command that has not started yet and knows nothing but the gateway: the stores are where nobody answers.
    pub fn recipe_by_gateway(&self, args: &[&str]) -> Recipe {
        Process::binary("sawmill")
            .env("SAWMILL_SERVER", &self.server)
            .env("SAWMILL_ZOOKEEPER", "127.0.0.1:1")
            .env("SAWMILL_MONGODB", "mongodb://127.0.0.1:1/nobody")
            .args(args)
    }

    /// What a command gave.
    pub async fn command(&self, args: &[&str]) -> Output {
        self.recipe(args).output(DEADLINE).await
    }

    /// The standard output of a command that must succeed.
    pub async fn told(&self, args: &[&str]) -> String {
        self.command(args).await.code(0).stdout
    }

    /// The JSON document that a command prints.
    pub async fn json(&self, args: &[&str]) -> Value {
        let text = self.told(&[args, &["--output", "json"]].concat()).await;
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"))
    }

    /// The rows of an answer.
    pub async fn rows(&self, sql: &str) -> Vec<Value> {
        let text = self.told(&["query", sql, "--output", "json"]).await;
        let row = |line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"));
        text.lines().map(row).collect()
    }

    /// The newest job, as `job list` shows it.
    pub async fn newest(&self) -> Value {
        self.json(&["job", "list", "--limit", "1"]).await[0].clone()
    }

    /// Writes a file and gives its path.
    pub fn file(&self, name: &str, bytes: &[u8]) -> String {
        let path = self.files.path().join(name);
        std::fs::write(&path, bytes).expect("a file of the test");
        path.display().to_string()
    }

    /// Adds a dataset of one file, cut into many small blocks.
    pub async fn add(&self, name: &str, text: &str, options: &[&str]) -> Output {
        let path = self.file(&format!("{name}.log"), text.as_bytes());
        let fixed = ["dataset", "add", name, &path, "--block-size", "4KiB"];
        self.command(&[&fixed, options].concat()).await
    }

    /// All documents of a collection of its database, by `_id`.
    pub async fn documents(&self, collection: &str) -> Vec<Document> {
        let all = self.space.mongo().await.collection::<Document>(collection);
        let found = all.find(Document::new()).sort(doc! { "_id": 1 }).await;
        let mut found = found.expect("MongoDB finds");
        let mut documents = Vec::new();
        while found.advance().await.expect("MongoDB goes on") {
            documents.push(found.deserialize_current().expect("a document"));
        }
        documents
    }

    /// Puts a document into a collection of its database, as another program does.
    pub async fn insert(&self, collection: &str, document: &Value) {
        let document = mongodb::bson::serialize_to_document(document).expect("a document");
        let collection = self.space.mongo().await.collection::<Document>(collection);
        collection.insert_one(document).await.expect("MongoDB inserts");
    }

    /// Waits until no entry is left anywhere in the tree.
    pub async fn until_empty(&self) {
        wait::until_equal(
            "the tree to be empty",
            DEADLINE,
            Vec::<String>::new(),
            async || {
                let tree = self.space.tree().await;
                tree.into_keys().filter(|path| path.contains("/entry-")).collect()
            },
        )
        .await;
    }

    /// SIGTERM, and a clean end; gives what it leaves.
    pub async fn stop(mut self) -> (Space, TempDir) {
        self.process.terminate();
        let ended = self.process.wait_exit(DEADLINE).await;
        assert!(ended.success(), "{}", self.process.stderr());
        (self.space, self.files)
    }
}
