//! Small shipped blocks become large ones while queries, a view and a job go on over them, and leaders die.
#![cfg(feature = "sql")]
#![allow(clippy::unwrap_used)]

use std::{
    fmt::Write as _,
    path::Path,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use model::Name;
use serde_json::{Value, json};
use storage::Store;
use testkit::{
    Space,
    mill::{self, DEADLINE},
    process::{Output, Process},
    wait,
};

const BY_FILE: &str = "SELECT _file, _host, count(*) AS lines, count(DISTINCT n) AS different, sum(n) AS sum FROM app \
     GROUP BY _file, _host ORDER BY _file";
/// Longer than what was replaced is let alone, in milliseconds.
const MINUTES: i64 = 120_000;

/// Roles as processes of their own.
struct Roles {
    space: Space,
    files: tempfile::TempDir,
    store: Store,
    ports: [u16; 2],
    dispatchers: [Option<Process>; 2],
    shipped: usize,
    lines: u64,
}

impl Roles {
    async fn new() -> Self {
        let space = Space::new().await;
        let files = tempfile::tempdir().unwrap();
        let url = format!("file://{}/store", files.path().display());
        let config = storage::Config::new(space.mongodb(), url);
        Self {
            store: Store::open(&config).await.unwrap(),
            space,
            files,
            ports: [servers::free_port().unwrap(), servers::free_port().unwrap()],
            dispatchers: [None, None],
            shipped: 0,
            lines: 0,
        }
    }

    async fn start(&self, role: &[&str], env: &[(&str, String)]) -> Process {
        let recipe = mill::settled(Process::sawmill(&self.space), self.files.path());
        let recipe = env
            .iter()
            .fold(recipe, |recipe, (key, value)| recipe.env(key, value));
        let mut process = recipe.args(role).start();
        let line = format!("{} started", role[0]);
        process.wait_for_line(&line, DEADLINE).await;
        process
    }

    async fn dispatcher(&mut self, which: usize) {
        let listen = ("SAWMILL_LISTEN", format!("127.0.0.1:{}", self.ports[which]));
        self.dispatchers[which] = Some(self.start(&["dispatcher"], &[listen]).await);
    }

    fn by_gateway(&self, args: &[&str]) -> testkit::process::Recipe {
        let servers = self.ports.map(|port| format!("127.0.0.1:{port}")).join(",");
        Process::binary("sawmill")
            .env("SAWMILL_SERVER", servers)
            .args(args)
    }

    async fn command(&self, args: &[&str]) -> Output {
        let recipe = mill::settled(Process::sawmill(&self.space), self.files.path());
        recipe.args(args).output(DEADLINE).await
    }

    async fn told(&self, args: &[&str]) -> String {
        self.command(args).await.code(0).stdout
    }

    async fn json(&self, args: &[&str]) -> Value {
        let text = self.told(&[args, &["--output", "json"]].concat()).await;
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"))
    }

    /// Ships a file of its own in blocks of few lines.
    async fn ship(&mut self, lines: u64) {
        let path = self.files.path().join(format!("{}.log", self.shipped));
        self.shipped += 1;
        let mut text = String::new();
        for _ in 0..lines {
            self.lines += 1;
            writeln!(text, "{{\"n\":{},\"pad\":\"{}\"}}", self.lines, "x".repeat(1000)).unwrap();
        }
        std::fs::write(&path, text).unwrap();
        let (path, state) = (path.display().to_string(), self.files.path().join("ship"));
        let args = [
            "ship",
            &path,
            "--dataset",
            "app",
            "--block-size",
            "4KiB",
            "--name",
            "web7",
        ];
        let recipe = self.by_gateway(&args).args(["--state", state.to_str().unwrap()]);
        let _ = recipe.output(DEADLINE).await.code(0);
    }

    /// What each file has, computed anew.
    async fn by_file(&self) -> Vec<Value> {
        let args = ["query", BY_FILE, "--no-reuse", "--output", "json"];
        let rows = self.told(&args).await;
        rows.lines()
            .map(|row| serde_json::from_str(row).unwrap())
            .collect()
    }

    /// All lines are there, each once.
    async fn is_whole(&self) {
        let rows = self.by_file().await;
        let sum = |key: &str| rows.iter().map(|row| row[key].as_u64().unwrap()).sum::<u64>();
        assert_eq!(rows.len(), self.shipped, "{rows:?}");
        let expected = (self.lines, self.lines, self.lines * (self.lines + 1) / 2);
        assert_eq!((sum("lines"), sum("different"), sum("sum")), expected);
    }

    async fn shown(&self) -> Value {
        self.json(&["dataset", "show", "app"]).await["dataset"].clone()
    }

    async fn blocks(&self) -> u64 {
        self.shown().await["blocks"].as_u64().unwrap()
    }

    async fn until_current(&self) -> Value {
        wait::until_ok("the view to be current", DEADLINE, async || {
            let view = self.json(&["view", "show", "sums"]).await["view"].clone();
            let current =
                view["lag_blocks"] == 0 && view["under_way"].is_null() && !view["merged_by"].is_null();
            if current { Ok(view) } else { Err(view.to_string()) }
        })
        .await
    }

    /// Objects of blocks in the store.
    fn objects(&self) -> usize {
        files(&self.files.path().join("store/blocks"))
    }

    /// Removes what is not read any more, as the leader does a minute later.
    async fn clean(&self) {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis();
        let later = i64::try_from(now).unwrap() + MINUTES;
        self.store.let_leave(later).await.unwrap();
    }

    async fn leader(&self) -> usize {
        wait::until("somebody to lead", DEADLINE, async || {
            let status = self.json(&["status"]).await;
            let pid = status["leader"]["pid"].as_u64()?;
            let is_it = |one: &Option<Process>| one.as_ref().is_some_and(|one| u64::from(one.pid()) == pid);
            self.dispatchers.iter().position(is_it)
        })
        .await
    }
}

fn files(folder: &Path) -> usize {
    let Ok(entries) = std::fs::read_dir(folder) else {
        return 0;
    };
    let paths = entries.map(|entry| entry.unwrap().path());
    paths
        .map(|path| if path.is_dir() { files(&path) } else { 1 })
        .sum()
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_notices_but_by_the_number_of_blocks() {
    let mut roles = Roles::new().await;
    roles.dispatcher(0).await;
    let _watcher = roles.start(&["watcher"], &[]).await;
    let slots = ["compute", "--allow-exec", "--slots", "2", "--name", "n1"];
    let _compute = roles.start(&slots, &[]).await;
    roles.ship(300).await;
    roles.ship(100).await;
    let many = roles.blocks().await;
    assert!(many > 30, "{many} blocks");
    let before = roles.by_file().await;
    roles.is_whole().await;
    let made = [
        "view",
        "create",
        "sums",
        "SELECT _file, count(*) AS lines, sum(n) AS sum FROM app GROUP BY _file ORDER BY _file",
    ];
    roles.told(&made).await;
    let view = roles.until_current().await;

    // A job that takes a while reads on what was there when it was submitted.
    let slow = ["run", "--dataset", "app", "--map", "sleep 0.3; cat", "--no-wait"];
    let slow = roles.json(&slow).await["job"].as_str().unwrap().to_string();
    let told = roles
        .by_gateway(&["dataset", "compact", "app"])
        .output(DEADLINE)
        .await
        .code(0)
        .stdout;
    assert_eq!(told, format!("dataset app: {many} blocks became 1\n"));
    assert_eq!(roles.by_file().await, before);
    let shown = roles.shown().await;
    assert_eq!(
        (&shown["blocks"], &shown["compacted"]),
        (&json!(1), &json!(many - 1))
    );
    let job = roles.json(&["job", "show", &slow]).await["job"].clone();
    assert_ne!(job["state"], "SUCCESSFUL", "it was over before");
    // Nothing of what it reads is removed.
    roles.clean().await;
    assert_eq!(roles.objects() as u64, many + 1);
    wait::until_true("the end of the slow job", DEADLINE, async || {
        roles.json(&["job", "show", &slow]).await["job"]["state"] == "SUCCESSFUL"
    })
    .await;
    let output = roles.told(&["job", "output", &slow]).await;
    assert_eq!(output.lines().count() as u64, roles.lines);
    roles.clean().await;
    assert_eq!(roles.objects(), 1);
    roles.is_whole().await;

    // The view is as it was, and goes on with what comes.
    let now = roles.until_current().await;
    assert_eq!(now["merged_by"], view["merged_by"], "it was not made anew");
    roles.ship(50).await;
    let now = roles.until_current().await;
    let refresh = roles
        .json(&["job", "show", now["merged_by"].as_str().unwrap()])
        .await;
    let new = roles.blocks().await - 1;
    assert!(
        refresh["job"]["subtasks"].as_u64().unwrap() <= new + 1,
        "only what is new"
    );
    let plain = roles
        .told(&["query", made[3], "--no-reuse", "--output", "json"])
        .await;
    assert_eq!(
        roles.told(&["view", "output", "sums", "--output", "json"]).await,
        plain
    );
    let told = roles.told(&["dataset", "compact", "app"]).await;
    assert_eq!(told, format!("dataset app: {} blocks became 1\n", new + 1));
    roles.is_whole().await;
    assert_eq!(roles.until_current().await["merged_by"], now["merged_by"]);
    assert_eq!(
        roles.told(&["view", "output", "sums", "--output", "json"]).await,
        plain
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn leaders_that_die_leave_the_old_or_the_new() {
    let mut roles = Roles::new().await;
    roles.dispatcher(0).await;
    roles.dispatcher(1).await;
    let _watcher = roles.start(&["watcher"], &[]).await;
    let _compute = roles
        .start(&["compute", "--slots", "2", "--name", "n1"], &[])
        .await;
    for moment in 0..4 {
        roles.ship(200).await;
        let leader = roles.leader().await;
        let compacting = roles.by_gateway(&["dataset", "compact", "app"]).start();
        // From before it is asked for until it may be done.
        tokio::time::sleep(Duration::from_millis(40 * moment)).await;
        roles.dispatchers[leader].take().unwrap().kill9();
        roles.dispatcher(leader).await;
        roles.is_whole().await;
        drop(compacting);
        roles.told(&["dataset", "compact", "app"]).await;
        roles.is_whole().await;
        assert_eq!(roles.blocks().await, 1);
    }
    roles.clean().await;
    // What the last one left behind goes when the next takes office.
    let dataset = roles
        .store
        .get(&Name::new("app").unwrap())
        .await
        .unwrap()
        .unwrap();
    assert!(dataset.generation >= 4);
    roles
        .store
        .clone()
        .sweep_compacted(storage::Epoch(u64::MAX))
        .await
        .unwrap();
    assert_eq!(roles.objects(), 1);
    roles.is_whole().await;
}
