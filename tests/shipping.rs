//! Lines of many growing and rotating files come into a dataset by themselves, each once, whatever dies on the way.
#![cfg(feature = "sql")]
#![allow(clippy::unwrap_used)]

use std::{
    fs::{self, File, OpenOptions},
    io::Write as _,
    path::{Path, PathBuf},
    time::Duration,
};

use serde_json::Value;
use tempfile::TempDir;
use testkit::{
    Mill, Space,
    process::{Output, Process},
    wait,
};

/// A busy machine needs patience.
const DEADLINE: Duration = Duration::from_secs(90);
const FILES: usize = 200;

/// Roles as processes of their own, to be killed one by one.
struct Cluster {
    space: Space,
    files: TempDir,
    servers: String,
    ports: [u16; 2],
    dispatchers: [Option<Process>; 2],
    workers: [Option<Process>; 2],
    agent: Option<Process>,
    _watcher: Process,
}

impl Cluster {
    async fn start() -> Self {
        let space = Space::new().await;
        let files = tempfile::tempdir().unwrap();
        fs::create_dir(files.path().join("logs")).unwrap();
        let ports = [servers::free_port().unwrap(), servers::free_port().unwrap()];
        let servers = format!("127.0.0.1:{},127.0.0.1:{}", ports[0], ports[1]);
        let watcher = testkit::mill::settled(Process::sawmill(&space), files.path())
            .arg("watcher")
            .start();
        let mut cluster = Self {
            space,
            files,
            servers,
            ports,
            dispatchers: [None, None],
            workers: [None, None],
            agent: None,
            _watcher: watcher,
        };
        for which in 0..2 {
            cluster.start_dispatcher(which);
            cluster.start_worker(which);
        }
        cluster.start_agent();
        cluster
    }

    fn start_dispatcher(&mut self, which: usize) {
        let recipe = testkit::mill::settled(Process::sawmill(&self.space), self.files.path())
            .env("SAWMILL_LISTEN", format!("127.0.0.1:{}", self.ports[which]));
        self.dispatchers[which] = Some(recipe.arg("dispatcher").start());
    }

    fn start_worker(&mut self, which: usize) {
        let recipe = testkit::mill::settled(Process::sawmill(&self.space), self.files.path())
            .env("SAWMILL_NODE", format!("n{which}"))
            .env("SAWMILL_SLOTS", "1");
        self.workers[which] = Some(recipe.arg("compute").start());
    }

    fn start_agent(&mut self) {
        let pattern = self.logs().join("*.log*");
        let recipe = Process::binary("sawmill")
            .env("SAWMILL_SERVER", &self.servers)
            .args(["agent", "--dataset", "grown", "--name", "web7", "--age", "200ms"])
            .args(["--state", self.files.path().join("agent").to_str().unwrap()])
            .arg(pattern);
        self.agent = Some(recipe.start());
    }

    fn logs(&self) -> PathBuf {
        self.files.path().join("logs")
    }

    async fn command(&self, args: &[&str]) -> Output {
        let recipe = testkit::mill::settled(Process::sawmill(&self.space), self.files.path());
        recipe.args(args).output(DEADLINE).await
    }

    async fn rows(&self, sql: &str) -> Vec<Value> {
        let told = self.command(&["query", sql, "--output", "json"]).await;
        if told.stderr.contains("no such dataset") {
            return Vec::new();
        }
        let told = told.code(0);
        told.stdout
            .lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect()
    }

    /// How many lines are registered by now.
    async fn registered(&self) -> u64 {
        let rows = self.rows("SELECT count(*) AS n FROM grown").await;
        rows.first().map_or(0, |row| row["n"].as_u64().unwrap())
    }

    async fn until_registered(&self, lines: u64) {
        wait::until_true("lines to be registered", DEADLINE, async || {
            self.registered().await >= lines
        })
        .await;
    }

    /// The dispatcher that leads, by its process.
    async fn leader(&self) -> usize {
        let mut leads = None;
        wait::until_true("somebody to lead", DEADLINE, async || {
            let status = self.command(&["status", "--output", "json"]).await.code(0);
            let status: Value = serde_json::from_str(&status.stdout).unwrap();
            let pid = status["leader"]["pid"].as_u64();
            let ours = self
                .dispatchers
                .iter()
                .map(|one| one.as_ref().map(|one| u64::from(one.pid())));
            leads = ours.into_iter().position(|one| one.is_some() && one == pid);
            leads.is_some()
        })
        .await;
        leads.unwrap()
    }
}

/// Files that grow and rotate, with the number of lines that each has got.
struct Writer {
    folder: PathBuf,
    lines: [u64; FILES],
    rotated: u32,
}

impl Writer {
    fn path(&self, file: usize) -> PathBuf {
        self.folder.join(format!("f{file}.log"))
    }

    /// Adds some lines to each file.
    fn grow(&mut self, by: u64) {
        for file in 0..FILES {
            let mut to = OpenOptions::new()
                .create(true)
                .append(true)
                .open(self.path(file))
                .unwrap();
            let from = self.lines[file];
            let text: String = (from..from + by)
                .map(|seq| format!("{{\"file\":{file},\"seq\":{seq}}}\n"))
                .collect();
            to.write_all(text.as_bytes()).unwrap();
            self.lines[file] += by;
        }
    }

    /// Every fourth file is renamed, every fourth copied and truncated.
    fn rotate(&mut self) {
        self.rotated += 1;
        for file in 0..FILES {
            let path = self.path(file);
            let old = self.folder.join(format!("f{file}.log.{}", self.rotated));
            match file % 4 {
                0 => fs::rename(&path, old).unwrap(),
                1 => {
                    fs::copy(&path, old).unwrap();
                    File::options()
                        .write(true)
                        .open(&path)
                        .unwrap()
                        .set_len(0)
                        .unwrap();
                }
                _ => {}
            }
        }
    }

    fn total(&self) -> u64 {
        self.lines.iter().sum()
    }
}

fn writer(folder: &Path) -> Writer {
    Writer {
        folder: folder.to_path_buf(),
        lines: [0; FILES],
        rotated: 0,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_line_is_registered_once_whoever_is_killed() {
    let mut cluster = Cluster::start().await;
    let mut writer = writer(&cluster.logs());
    writer.grow(5);
    cluster.until_registered(1).await;

    // A worker, while its agent ships.
    writer.grow(5);
    let holder = holder(&cluster).await;
    cluster.workers[holder].as_mut().unwrap().kill9();
    writer.grow(5);
    writer.rotate();
    cluster.until_registered(writer.total()).await;
    cluster.start_worker(holder);

    // The agent, in the middle of writing and rotating.
    writer.grow(5);
    cluster.agent.as_mut().unwrap().kill9();
    writer.rotate();
    writer.grow(5);
    cluster.start_agent();
    writer.grow(5);

    // The leader, and the agent and a worker together.
    let leader = cluster.leader().await;
    cluster.dispatchers[leader].as_mut().unwrap().kill9();
    writer.grow(5);
    cluster.agent.as_mut().unwrap().kill9();
    let holder = 1 - holder;
    cluster.workers[holder].as_mut().unwrap().kill9();
    writer.rotate();
    writer.grow(5);
    cluster.start_agent();
    cluster.start_worker(holder);
    cluster.start_dispatcher(leader);
    cluster.until_registered(writer.total()).await;

    let wrong = "SELECT file, count(*) AS n FROM grown GROUP BY file \
                 HAVING count(*) <> count(DISTINCT seq) OR max(seq) + 1 <> count(*) OR min(seq) <> 0";
    assert_eq!(cluster.rows(wrong).await, Vec::<Value>::new());
    assert_eq!(cluster.registered().await, writer.total());
    let files = "SELECT count(DISTINCT file) AS files, count(DISTINCT _host) AS hosts FROM grown";
    let files = cluster.rows(files).await;
    assert_eq!(
        (files[0]["files"].as_u64(), files[0]["hosts"].as_u64()),
        (Some(FILES as u64), Some(1))
    );
}

/// Which worker holds the agent.
async fn holder(cluster: &Cluster) -> usize {
    let mut found = None;
    wait::until_true("a worker to hold the agent", DEADLINE, async || {
        let tree = cluster.space.tree().await;
        let held = tree
            .keys()
            .find(|path| path.starts_with("/owned/") && path.ends_with("/client-web7"));
        let folder = held.map(|path| path.trim_end_matches("/client-web7").to_string());
        let data = folder.and_then(|folder| tree.get(&folder).cloned());
        found = data.and_then(|data| {
            let data: Value = serde_json::from_str(&data).ok()?;
            data["node"].as_str()?.strip_prefix('n')?.parse().ok()
        });
        found.is_some()
    })
    .await;
    found.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn members_that_come_later_become_columns() {
    let mill = Mill::start().await;
    let log = mill.file("app.log", b"{\"a\":1}\n");
    let _agent = Process::binary("sawmill")
        .env("SAWMILL_SERVER", &mill.server)
        .args(["agent", "--dataset", "app", "--name", "web7", "--age", "100ms"])
        .args(["--state", mill.files.path().join("agent").to_str().unwrap(), &log])
        .start();
    let asked = async |sql: &str| mill.command(&["query", sql, "--output", "csv"]).await.stdout;
    wait::until_equal("the first line", DEADLINE, "a\n1\n".to_string(), async || {
        asked("SELECT a FROM app").await
    })
    .await;
    let agents = &mill.json(&["status"]).await["agents"];
    assert_eq!(
        *agents,
        serde_json::json!({ "shipping": 1, "waiting": 0, "away": 0 })
    );
    let mut to = OpenOptions::new().append(true).open(&log).unwrap();
    to.write_all(b"{\"a\":2,\"b\":\"late\"}\n").unwrap();
    let late = "SELECT a, b FROM app WHERE b IS NOT NULL";
    wait::until_equal(
        "the new column",
        DEADLINE,
        "a,b\n2,late\n".to_string(),
        async || asked(late).await,
    )
    .await;
    assert_eq!(
        asked("SELECT a, b FROM app ORDER BY a").await,
        "a,b\n1,\n2,late\n"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn headers_of_separated_values_are_no_rows_wherever_blocks_begin() {
    let mill = Mill::start().await;
    let first = mill.file("a.csv", b"id,name\n1,one\n2,two\n");
    let second = mill.file("b.csv", b"id,name\n3,three\n");
    let state = mill.files.path().join("ship").display().to_string();
    let ship = async |files: &[&str]| {
        let args = [&["ship", "--dataset", "values", "--state", &state], files].concat();
        mill.recipe_by_gateway(&args).output(DEADLINE).await.code(0)
    };
    let _ = ship(&[&first, &second]).await;
    // The next block begins in the midst of the file.
    let mut to = OpenOptions::new().append(true).open(&first).unwrap();
    to.write_all(b"4,four\n5,five\n").unwrap();
    let _ = ship(&[&first]).await;
    let sql = "SELECT regexp_replace(_file, '.*/', '') AS file, id, name FROM values ORDER BY id";
    let told = mill.command(&["query", sql, "--output", "csv"]).await;
    assert_eq!(
        told.stdout, "file,id,name\na.csv,1,one\na.csv,2,two\nb.csv,3,three\na.csv,4,four\na.csv,5,five\n",
        "{}",
        told.stderr
    );
}
