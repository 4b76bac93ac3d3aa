//! An agent and its workers under faults: every line comes into the dataset once, whoever dies.
#![allow(clippy::unwrap_used)]

use std::{
    collections::BTreeMap,
    fs::OpenOptions,
    io::{Read as _, Write as _},
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use model::{Name, znode};
use storage::Store;
use testkit::{
    Space,
    process::{Process, Recipe},
    wait,
};

/// Session timeout of the roles.
const SESSION: Duration = Duration::from_secs(2);
const SOON: Duration = Duration::from_secs(60);
/// Files that grow.
const FILES: usize = 20;

/// Dispatchers, compute nodes and an agent as processes, and logs that grow.
struct Yard {
    space: Space,
    store: Store,
    folder: tempfile::TempDir,
    processes: BTreeMap<&'static str, Process>,
    /// Lines written so far, by file.
    written: Vec<usize>,
}

impl Yard {
    async fn new() -> Self {
        let space = Space::new().await;
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("logs")).unwrap();
        let url = format!("file://{}/store", folder.path().display());
        let store = Store::open(&storage::Config::new(space.mongodb(), url))
            .await
            .unwrap();
        store.init().await.unwrap();
        Self {
            space,
            store,
            folder,
            processes: BTreeMap::new(),
            written: vec![0; FILES],
        }
    }

    fn recipe(&self) -> Recipe {
        Process::sawmill(&self.space)
            .env("SAWMILL_SESSION_TIMEOUT", format!("{}ms", SESSION.as_millis()))
            .env("SAWMILL_LISTEN", "127.0.0.1:0")
            .env(
                "SAWMILL_STORE",
                format!("file://{}/store", self.folder.path().display()),
            )
    }

    async fn dispatcher(&mut self, name: &'static str) {
        let mut process = self.recipe().arg("dispatcher").start();
        process.wait_for_line("dispatcher started", SOON).await;
        self.processes.insert(name, process);
    }

    async fn compute(&mut self, name: &'static str) {
        let mut process = self.recipe().args(["compute", "--name", name]).start();
        process.wait_for_line("compute started", SOON).await;
        self.processes.insert(name, process);
    }

    /// `HOST:PORT` of the gateways.
    async fn servers(&self) -> String {
        let tree = self.space.tree().await;
        let candidates = tree
            .iter()
            .filter(|(path, _)| path.starts_with("/owned/dispatcher/"));
        let gateways = candidates.filter_map(|(_, data)| {
            let data: znode::CandidateData = znode::decode(data.as_bytes()).ok()?;
            data.gateway
        });
        gateways.collect::<Vec<_>>().join(",")
    }

    async fn agent(&mut self) {
        let folder = self.folder.path();
        let recipe = self
            .recipe()
            .env("SAWMILL_SERVER", self.servers().await)
            .args(["agent", "--dataset", "access", "--age", "100ms", "--name", "web7"])
            .arg("--state")
            .arg(folder.join("state"))
            .arg(folder.join("logs/*.log*"));
        self.processes.insert("web7", recipe.start());
    }

    fn kill(&mut self, name: &str) {
        self.processes.remove(name).unwrap().kill9();
    }

    /// The node that holds the agent.
    async fn holder(&self) -> Option<&'static str> {
        let tree = self.space.tree().await;
        let held = tree
            .keys()
            .find(|path| path.starts_with("/owned/") && path.ends_with("/client-web7"))?;
        let worker = Path::new(held).parent()?.to_str()?;
        let data: znode::WorkerData = znode::decode(tree.get(worker)?.as_bytes()).ok()?;
        let names = self.processes.keys();
        names.copied().find(|name| *name == data.node.as_str())
    }

    async fn until_held(&self) -> &'static str {
        wait::until("a worker for the agent", SOON, async || self.holder().await).await
    }

    async fn until_held_by_another(&self, before: &str) {
        wait::until("another worker", SOON, async || {
            self.holder().await.filter(|holder| *holder != before)
        })
        .await;
    }

    fn path(&self, file: usize) -> PathBuf {
        self.folder.path().join(format!("logs/{file}.log"))
    }

    /// Adds lines to each file, and rotates some of them.
    fn write(&mut self, lines: usize) {
        for file in 0..FILES {
            let path = self.path(file);
            if file % 4 == 1 && path.exists() {
                let rotated = format!("logs/{file}.log.{}", self.written[file]);
                std::fs::rename(&path, self.folder.path().join(rotated)).unwrap();
            }
            let mut log = OpenOptions::new().create(true).append(true).open(&path).unwrap();
            for _ in 0..lines {
                self.written[file] += 1;
                writeln!(log, "file {file} line {}", self.written[file]).unwrap();
            }
        }
    }

    /// How often each line is in the dataset.
    async fn lines(&self) -> BTreeMap<String, usize> {
        let mut lines = BTreeMap::new();
        let name = Name::new("access").unwrap();
        let Some(dataset) = self.store.get(&name).await.unwrap() else {
            return lines;
        };
        for block in self
            .store
            .blocks(dataset.edition(), 0..dataset.blocks)
            .await
            .unwrap()
        {
            let mut text = String::new();
            let mut reader = self.store.reader(&block).await.unwrap();
            reader.read_to_string(&mut text).unwrap();
            for line in text.lines() {
                *lines.entry(line.to_string()).or_default() += 1;
            }
        }
        lines
    }

    /// Waits until all that was written is in the dataset, and proves that it is there once.
    async fn until_all_is_there(&self) {
        let count: usize = self.written.iter().sum();
        wait::until_ok(format!("{count} lines"), SOON, async || {
            let lines = self.lines().await;
            if lines.len() >= count {
                return Ok(());
            }
            Err(format!("{} lines", lines.len()))
        })
        .await;
        let lines = self.lines().await;
        let twice: Vec<_> = lines.iter().filter(|(_, times)| **times != 1).collect();
        assert!(twice.is_empty(), "{twice:?}");
        for (file, count) in self.written.iter().enumerate() {
            for line in 1..=*count {
                assert!(lines.contains_key(&format!("file {file} line {line}")));
            }
        }
        assert_eq!(lines.len(), self.written.iter().sum::<usize>());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_line_comes_once_whoever_dies() {
    let mut yard = Yard::new().await;
    yard.dispatcher("d1").await;
    yard.dispatcher("d2").await;
    yard.compute("a").await;
    yard.compute("b").await;
    yard.write(50);
    yard.agent().await;
    let first = yard.until_held().await;
    yard.write(50);
    yard.until_all_is_there().await;

    // The worker dies: another one within the session timeout and a second, and what a busy machine takes besides.
    yard.write(50);
    yard.kill(first);
    let killed = Instant::now();
    yard.write(50);
    yard.until_held_by_another(first).await;
    let took = killed.elapsed();
    assert!(took < SESSION + Duration::from_secs(3), "it took {took:?}");
    yard.write(50);
    yard.until_all_is_there().await;

    // The agent dies, and comes back.
    yard.write(50);
    yard.kill("web7");
    yard.write(50);
    yard.agent().await;
    yard.until_all_is_there().await;

    // The leader dies while the worker does: the next one leads, and a new worker comes.
    yard.compute(first).await;
    let holder = yard.until_held().await;
    yard.write(50);
    yard.kill("d1");
    yard.kill(holder);
    yard.write(50);
    yard.until_held_by_another(holder).await;
    yard.write(50);
    yard.until_all_is_there().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_stood_still_does_no_harm() {
    let mut yard = Yard::new().await;
    yard.dispatcher("d1").await;
    yard.compute("a").await;
    yard.compute("b").await;
    yard.write(50);
    yard.agent().await;
    let first = yard.until_held().await;
    yard.until_all_is_there().await;
    // It neither answers nor closes its connections, and its session ends meanwhile.
    yard.write(50);
    yard.processes.get_mut(first).unwrap().freeze();
    yard.write(50);
    yard.until_held_by_another(first).await;
    yard.until_all_is_there().await;
    yard.processes.get_mut(first).unwrap().thaw();
    yard.write(50);
    yard.until_all_is_there().await;
    // What users ask for is done.
    let told = yard.recipe().args(["agent", "show", "web7", "--output", "json"]);
    let told = told.output(SOON).await.code(0);
    let shown: serde_json::Value = serde_json::from_str(&told.stdout).unwrap();
    assert_eq!(shown["state"], "shipping");
    assert_eq!(shown["total"]["lines"], yard.written.iter().sum::<usize>());
    let paused = yard.recipe().args(["agent", "pause", "web7"]);
    let paused = paused.output(SOON).await.code(0);
    assert!(paused.stdout.contains("(paused)"), "{}", paused.stdout);
    let unknown = yard.recipe().args(["agent", "show", "web8"]);
    let unknown = unknown.output(SOON).await.code(1);
    assert!(
        unknown.stderr.contains("did you mean web7?"),
        "{}",
        unknown.stderr
    );
}
