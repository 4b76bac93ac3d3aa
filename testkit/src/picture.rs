//! The three places as of one instant: ZooKeeper answers all parts of one multi-read from the same state.

use std::collections::{BTreeMap, BTreeSet};

pub use zookeeper_client::Error;
use zookeeper_client::{Client, MultiReadResult};

/// What is in the tree, by the names of znodes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Picture {
    /// In `/unowned`.
    pub unowned: Vec<String>,
    /// In `/done`.
    pub done: Vec<String>,
    /// Candidates, the one that leads first.
    pub dispatchers: Vec<String>,
    /// Candidates.
    pub watchers: Vec<String>,
    /// In the folders of workers that were known before: entries, agents, `alive`.
    pub workers: BTreeMap<String, Vec<String>>,
    /// The sequence that the next entry gets.
    pub next: Option<u64>,
    /// Roots that are not there.
    pub missing: Vec<&'static str>,
}

/// Takes pictures, and learns from each which workers to look at in the next.
#[derive(Debug)]
pub struct Camera {
    client: Client,
    workers: BTreeSet<String>,
    pids: BTreeMap<String, u32>,
}

impl Camera {
    /// A session at this connection string; `None` where nobody answers.
    pub async fn connect(cluster: &str) -> Option<Camera> {
        let client = Client::connect(cluster).await.ok()?;
        let owned = client.list_children("/owned").await.ok()?;
        Some(Camera {
            client,
            workers: folders(owned),
            pids: BTreeMap::new(),
        })
    }

    /// One atomic look. Workers that registered since the last are not in it, but in the next.
    ///
    /// # Errors
    /// What the client says.
    pub async fn take(&mut self) -> Result<Picture, Error> {
        const FOLDERS: [&str; 5] = [
            "/unowned",
            "/done",
            "/owned/dispatcher",
            "/owned/watcher",
            "/owned",
        ];
        let mut reader = self.client.new_multi_reader();
        reader.add_get_data("/unowned")?;
        for folder in FOLDERS {
            reader.add_get_children(folder)?;
        }
        for worker in &self.workers {
            reader.add_get_children(&format!("/owned/{worker}"))?;
        }
        let mut answers = reader.commit().await?.into_iter();
        let mut picture = Picture::default();
        if let Some(MultiReadResult::Data { data, .. }) = answers.next() {
            let data: serde_json::Value = serde_json::from_slice(&data).unwrap_or_default();
            picture.next = data["next"].as_u64();
        }
        let mut lists: Vec<Option<Vec<String>>> = answers
            .map(|answer| match answer {
                MultiReadResult::Children { children } => Some(children),
                _ => None,
            })
            .collect();
        let of_workers = lists.split_off(FOLDERS.len());
        for (root, at) in [("/unowned", 0), ("/done", 1), ("/owned", 4)] {
            if lists[at].is_none() {
                picture.missing.push(root);
            }
        }
        let mut lists = lists.into_iter().map(Option::unwrap_or_default);
        let mut sorted = || {
            let mut list = lists.next().unwrap_or_default();
            list.sort();
            list
        };
        picture.unowned = sorted();
        picture.done = sorted();
        picture.dispatchers = sorted();
        picture.watchers = sorted();
        let known = std::mem::take(&mut self.workers);
        let found = known.into_iter().zip(of_workers);
        picture.workers = found.filter_map(|(worker, list)| Some((worker, list?))).collect();
        self.workers = folders(sorted());
        Ok(picture)
    }

    /// The process that registered as a worker or stands for an office; `path` is below `/owned`.
    ///
    /// # Errors
    /// What the client says.
    pub async fn pid(&mut self, path: &str) -> Result<Option<u32>, Error> {
        if !self.pids.contains_key(path) {
            match self.client.get_data(&format!("/owned/{path}")).await {
                Ok((data, _)) => {
                    let data: serde_json::Value = serde_json::from_slice(&data).unwrap_or_default();
                    let pid = data["pid"].as_u64().and_then(|pid| u32::try_from(pid).ok());
                    self.pids.extend(pid.map(|pid| (path.to_owned(), pid)));
                }
                Err(Error::NoNode) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(self.pids.get(path).copied())
    }
}

impl Picture {
    /// All entries with their places.
    pub fn entries(&self) -> impl Iterator<Item = (&str, &str)> {
        let unowned = self.unowned.iter().map(|name| (name.as_str(), "/unowned"));
        let done = self.done.iter().map(|name| (name.as_str(), "/done"));
        let owned = self
            .workers
            .iter()
            .flat_map(|(worker, names)| names.iter().map(move |name| (name.as_str(), worker.as_str())));
        unowned
            .chain(owned)
            .chain(done)
            .filter(|(name, _)| name.starts_with("entry-"))
    }
}

fn folders(owned: Vec<String>) -> BTreeSet<String> {
    owned
        .into_iter()
        .filter(|name| name.starts_with("worker-"))
        .collect()
}

/// The sequence at the end of the name of an entry.
pub fn sequence(entry: &str) -> Option<u64> {
    entry.rsplit_once('-')?.1.parse().ok()
}
