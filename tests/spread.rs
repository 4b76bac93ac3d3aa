//! Files that nodes keep themselves: spread, worked on where they are, and there when a node is not.
#![cfg(feature = "sql")]
#![allow(clippy::unwrap_used)]

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use serde_json::Value;
use testkit::{
    Space,
    process::{Output, Process, Recipe},
    wait,
};

const SOON: Duration = Duration::from_secs(60);
const NODES: [&str; 3] = ["rack1-a", "rack1-b", "rack2-c"];
const FILES: usize = 12;
const LINES: usize = 50;

/// Three nodes that keep blocks, as processes.
struct Yard {
    space: Space,
    folder: tempfile::TempDir,
    server: String,
    processes: BTreeMap<&'static str, Process>,
}

impl Yard {
    async fn new() -> Self {
        let (space, folder) = (Space::new().await, tempfile::tempdir().unwrap());
        let server = format!("127.0.0.1:{}", servers::free_port().unwrap());
        let mut yard = Self {
            space,
            folder,
            server,
            processes: BTreeMap::new(),
        };
        let listen = yard.server.clone();
        let dispatcher = yard
            .recipe()
            .env("SAWMILL_LISTEN", listen)
            .arg("dispatcher")
            .start();
        yard.started("dispatcher", dispatcher, "dispatcher started").await;
        let watcher = yard.recipe().arg("watcher").start();
        yard.started("watcher", watcher, "watcher started").await;
        for node in NODES {
            yard.node(node).await;
        }
        yard
    }

    fn recipe(&self) -> Recipe {
        testkit::mill::settled(Process::sawmill(&self.space), self.folder.path())
            .env("SAWMILL_SESSION_TIMEOUT", "2s")
            // Nobody takes what another keeps, unless that one is away.
            .env("SAWMILL_LOCALITY_WAIT", "10s")
    }

    async fn started(&mut self, name: &'static str, mut process: Process, line: &str) {
        process.wait_for_line(line, SOON).await;
        self.processes.insert(name, process);
    }

    async fn node(&mut self, name: &'static str) {
        let of = |what: &str| self.folder.path().join(format!("{name}/{what}"));
        fs::create_dir_all(of("scratch")).unwrap();
        let recipe = self.recipe().env("SAWMILL_SCRATCH", of("scratch"));
        let recipe = recipe.args(["compute", "--allow-exec", "--slots", "2", "--name", name]);
        let process = recipe.arg("--local-store").arg(of("kept")).start();
        self.started(name, process, "compute started").await;
        wait::until_true("the node to be registered", SOON, async || {
            self.live().await.contains(name)
        })
        .await;
    }

    async fn live(&self) -> BTreeSet<String> {
        let told = self.told(&["status", "--output", "json"]).await;
        let status: Value = serde_json::from_str(&told).unwrap();
        let workers = status["workers"].as_array().unwrap();
        let live = workers.iter().filter(|worker| worker["alive"] == true);
        live.map(|worker| worker["node"].as_str().unwrap().to_string())
            .collect()
    }

    async fn kill(&mut self, name: &'static str) {
        self.processes.remove(name).unwrap().kill9();
        wait::until_true("the node to be gone", SOON, async || {
            !self.live().await.contains(name)
        })
        .await;
    }

    async fn command(&self, args: &[&str]) -> Output {
        let recipe = self.recipe().env("SAWMILL_SERVER", &self.server);
        recipe.args(args).output(2 * SOON).await
    }

    async fn told(&self, args: &[&str]) -> String {
        self.command(args).await.code(0).stdout
    }

    /// Ships all files, and gives the nodes that keep each.
    async fn ship(&self, dataset: &str, args: &[&str]) -> Vec<Vec<String>> {
        let told = self
            .shipped("state", dataset, &[args, &["--output", "json"]].concat())
            .await
            .code(0);
        let files: Value = serde_json::from_str(&told.stdout).unwrap();
        let nodes = |file: &Value| {
            let nodes = file["nodes"].as_array().unwrap_or_else(|| panic!("{file}"));
            nodes
                .iter()
                .map(|node| node.as_str().unwrap().to_string())
                .collect()
        };
        files.as_array().unwrap().iter().map(nodes).collect()
    }

    async fn shipped(&self, state: &str, dataset: &str, args: &[&str]) -> Output {
        let state = self.folder.path().join(state);
        let recipe = self.recipe().env("SAWMILL_SERVER", &self.server);
        let recipe = recipe.args(["ship", "--dataset", dataset, "--name", "web7"]);
        let recipe = recipe.arg("--state").arg(state).args(args);
        recipe
            .args((0..FILES).map(|file| self.log(file)))
            .output(2 * SOON)
            .await
    }

    fn log(&self, file: usize) -> PathBuf {
        self.folder.path().join(format!("{file:02}.log"))
    }

    /// Files below a folder of a node.
    fn files(&self, node: &str, what: &str) -> Vec<PathBuf> {
        let (mut found, mut folders) = (Vec::new(), vec![self.folder.path().join(node).join(what)]);
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(folder).into_iter().flatten() {
                let path = entry.unwrap().path();
                match path.is_dir() {
                    true => folders.push(path),
                    false => found.push(path),
                }
            }
        }
        found
    }

    fn kept(&self, node: &str, dataset: &str) -> Vec<PathBuf> {
        let folder = format!("/{dataset}/");
        let kept = self.files(node, "kept").into_iter();
        kept.filter(|path| path.to_str().unwrap().contains(&folder))
            .collect()
    }

    /// Blocks that a node has fetched from others.
    fn fetched(&self) -> usize {
        let copies = NODES.map(|node| self.files(node, "scratch/sawmill-blocks").len());
        copies.iter().sum()
    }

    /// Counts the lines by a command, which reads them anew each time.
    async fn count(&self, dataset: &str) -> Output {
        let sum = "awk '{n += $1} END {print n}'";
        self.command(&["run", "--dataset", dataset, "--map", "wc -l", "--reduce", sum])
            .await
    }
}

fn expected() -> String {
    format!("{}\n", FILES * LINES)
}

fn flip_a_byte(path: &Path) {
    let mut bytes = fs::read(path).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 0x20;
    fs::write(path, bytes).unwrap();
}

#[tokio::test]
async fn spread_files_are_worked_on_where_they_are_and_survive_a_node() {
    let mut yard = Yard::new().await;
    for file in 0..FILES {
        let lines = (0..LINES).map(|line| format!("{{\"id\": {}, \"file\": {file}}}\n", file * LINES + line));
        fs::write(yard.log(file), lines.collect::<String>()).unwrap();
    }
    // No node of such a name, and too few nodes; then the same files from the same state directory, each line once.
    let refused = yard
        .shipped("state", "one", &["--spread", "rack9-*"])
        .await
        .code(1);
    assert!(
        refused.stderr.contains("rack9-*") && refused.stderr.contains("rack1-a"),
        "{}",
        refused.stderr
    );
    let few = yard
        .shipped("state", "two", &["--spread", "rack1-*", "--copies", "3"])
        .await
        .code(1);
    assert!(few.stderr.contains("3 copies"), "{}", few.stderr);
    let unsafe_to_delete = yard
        .shipped("state", "one", &["--spread", "hash", "--delete-shipped"])
        .await
        .code(2);
    assert!(
        unsafe_to_delete.stderr.contains("--copies 2"),
        "{}",
        unsafe_to_delete.stderr
    );
    let one = yard.ship("one", &["--spread", "hash"]).await;
    assert!(one.iter().all(|nodes| nodes.len() == 1), "{one:?}");
    let by_node: BTreeSet<&String> = one.iter().flatten().collect();
    assert!(by_node.len() > 1, "all on one node: {one:?}");
    for node in NODES {
        let files = one.iter().filter(|nodes| nodes[0] == node).count();
        assert_eq!(yard.kept(node, "one").len(), files, "{node}");
    }
    // Each line once, and each block read where it is.
    let all = "SELECT count(*) AS n, count(DISTINCT id) AS ids FROM one";
    let answer = yard.told(&["query", all, "--output", "json"]).await;
    let answer: Value = serde_json::from_str(&answer).unwrap();
    assert_eq!(
        (answer["n"].as_u64(), answer["ids"].as_u64()),
        (Some(600), Some(600))
    );
    assert_eq!(yard.count("one").await.code(0).stdout, expected());
    assert_eq!(yard.fetched(), 0, "somebody took what another keeps");
    let shown = yard.told(&["dataset", "show", "one"]).await;
    assert!(shown.contains(&format!("on {}", one[0][0])), "{shown}");

    // In turns, twice each: a node may die.
    let two = yard.ship("two", &["--spread", "random", "--copies", "2"]).await;
    for node in NODES {
        assert_eq!(yard.kept(node, "two").len(), FILES * 2 / 3, "{node}: {two:?}");
    }
    let broken = yard.kept(NODES[1], "two");
    flip_a_byte(&broken[0]);
    assert_eq!(yard.count("two").await.code(0).stdout, expected());
    yard.kill(NODES[0]).await;
    assert_eq!(yard.count("two").await.code(0).stdout, expected());
    let sum = "SELECT sum(id) AS n FROM two";
    let answer: Value = serde_json::from_str(&yard.told(&["query", sum, "--output", "json"]).await).unwrap();
    assert_eq!(answer["n"].as_u64(), Some((0..600).sum()));

    // What only the dead node has is waited for, told, and there again when it is.
    assert!(one.iter().any(|nodes| nodes[0] == NODES[0]), "{one:?}");
    let failed = yard.count("one").await.code(1);
    assert!(failed.stderr.contains("rack1-a: it is away"), "{}", failed.stderr);
    let left = yard
        .told(&[
            "query",
            // A column that nobody has in memory, as blocks of the same content share what was read of them.
            "SELECT count(_raw) AS n FROM one",
            "--skip-missing",
        ])
        .await;
    assert!(!left.contains("600"), "{left}");
    yard.node(NODES[0]).await;
    assert_eq!(yard.count("one").await.code(0).stdout, expected());
}
