//! The command line over a gateway: the same story told over the stores and over a gateway alone gives the same words and exit
//! codes.
#![cfg(feature = "sql")]
#![allow(clippy::unwrap_used)]

use std::fmt::Write as _;

use testkit::{
    Mill, Space,
    mill::{self, DEADLINE},
    process::{Output, Process, Recipe},
    wait,
};

const BY_STATUS: &str =
    "SELECT status, count(*) AS n, sum(bytes) AS sent FROM access GROUP BY status ORDER BY status";
const SUM: &str = "awk '{n += $1} END {print n + 0}'";

/// How a command reaches the mill.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Way {
    Stores,
    Gateway,
}

/// A mill, and what was told on the way.
struct Story {
    mill: Mill,
    way: Way,
    told: Vec<String>,
}

fn access_log(lines: u32) -> String {
    let mut log = String::new();
    for number in 0..lines {
        let status = if number % 3 == 0 { 500 } else { 200 };
        writeln!(
            log,
            "10.0.0.{} - - [17/May/2015:10:05:{:02} +0000] \"GET /{} HTTP/1.1\" {status} {number}",
            number % 7,
            number % 60,
            number % 5
        )
        .unwrap();
    }
    log
}

impl Story {
    async fn begin(way: Way) -> Self {
        Self {
            mill: Mill::start().await,
            way,
            told: Vec::new(),
        }
    }

    fn recipe(&self, args: &[&str]) -> Recipe {
        match self.way {
            Way::Stores => self.mill.recipe(args),
            Way::Gateway => self.mill.recipe_by_gateway(args),
        }
    }

    /// What was told, without what differs from run to run.
    fn note(&mut self, args: &[&str], output: &Output) {
        let plain = |text: &str| plain(text, &self.mill);
        self.told.push(format!(
            "$ sawmill {}\n{}[exit {}]\n{}",
            plain(&args.join(" ")),
            plain(&output.stdout),
            output.status.code().unwrap_or(-1),
            plain(&output.stderr)
        ));
    }

    async fn tell(&mut self, args: &[&str]) {
        let output = self.recipe(args).output(DEADLINE).await;
        self.note(args, &output);
    }

    /// As [`Story::tell`], with queries on standard input.
    async fn type_in(&mut self, text: &str, args: &[&str]) {
        let typed = self.mill.file("typed.sql", text.as_bytes());
        let output = self.recipe(args).input(typed).output(DEADLINE).await;
        self.note(args, &output);
    }

    async fn datasets(&mut self) {
        let log = self.mill.file("access.log", access_log(900).as_bytes());
        let more = self
            .mill
            .file("app.log", b"level=info took=1\nlevel=warn took=2.5 x=1\n");
        let missing = self.mill.files.path().join("missing.log").display().to_string();
        self.tell(&["dataset", "list"]).await;
        self.tell(&["dataset", "add", "access", &log, "--block-size", "8KiB"])
            .await;
        self.tell(&["dataset", "add", "app", &more, "--output", "json"])
            .await;
        self.tell(&["dataset", "add", "app", &more]).await;
        self.tell(&["dataset", "add", "app", &more, "--types", "x=text", "--again"])
            .await;
        self.tell(&["dataset", "add", "access", &missing]).await;
        self.tell(&["dataset", "add", "other", &log, "--format", "nonsense"])
            .await;
        self.tell(&["dataset", "add", "other", "nowhere://x"]).await;
        self.tell(&["dataset", "list"]).await;
        self.tell(&["dataset", "show", "access", "--limit", "2"]).await;
        self.tell(&["dataset", "show", "app", "--output", "json"]).await;
        self.tell(&["dataset", "schema", "access"]).await;
        self.tell(&["dataset", "schema", "acces"]).await;
        self.tell(&["dataset", "head", "access", "-n", "2"]).await;
        self.tell(&["dataset", "head", "app", "--output", "json"]).await;
        self.tell(&["dataset", "set", "app", "--keep", "30d", "--types", "x=text"])
            .await;
        self.tell(&["dataset", "set", "app", "--types", "nothing=text"])
            .await;
        self.tell(&["dataset", "set", "app"]).await;
        self.growing().await;
    }

    /// A file that grows, what is taken back of it, and what is taken out.
    async fn growing(&mut self) {
        let log = self.mill.file("growing.log", b"level=info\nlevel=wa");
        self.tell(&["dataset", "add", "growing", &log]).await;
        let _ = self
            .mill
            .file("growing.log", b"level=info\nlevel=warn\nlevel=info\n");
        self.tell(&["dataset", "show", "growing"]).await;
        let count = [
            "query",
            "SELECT level, count(*) AS n FROM growing GROUP BY 1 ORDER BY 1",
        ];
        self.tell(&count).await;
        self.tell(&["dataset", "refresh", "growing"]).await;
        self.tell(&count).await;
        self.tell(&["dataset", "undo", "growing"]).await;
        self.tell(&["dataset", "undo", "growing"]).await;
        self.tell(&["dataset", "refresh", "growing", "--output", "json"])
            .await;
        self.tell(&["dataset", "remove", "growing", "--file", &log]).await;
        self.tell(&["dataset", "remove", "growing", "--file", &log]).await;
        self.tell(&["dataset", "show", "growing", "--output", "json"])
            .await;
        self.tell(&["dataset", "remove", "growing"]).await;
        self.tell(&["dataset", "add", "growing", &log, "--block-size", "5"])
            .await;
    }

    async fn jobs(&mut self) {
        self.tell(&["run", "--dataset", "access", "--map", "wc -l", "--reduce", SUM])
            .await;
        self.tell(&["job", "output", "last"]).await;
        self.tell(&["job", "show", "last"]).await;
        self.tell(&["job", "wait", "last"]).await;
        self.tell(&["job", "cancel", "last"]).await;
        self.tell(&["run", "--dataset", "access", "--map", "wc -l", "--output", "json"])
            .await;
        self.tell(&["run", "--dataset", "access", "--map", ""]).await;
        self.tell(&["run", "--dataset", "nothing", "--map", "wc"]).await;
        let one = self.mill.file("one.log", b"a line\n");
        self.tell(&["dataset", "add", "one", &one]).await;
        let failing = "echo no room >&2; exit 3";
        self.tell(&["run", "--dataset", "one", "--retries", "0", "--map", failing])
            .await;
        self.tell(&["job", "show", "last", "--output", "json"]).await;
        self.tell(&["job", "output", "last"]).await;
        self.tell(&["job", "list"]).await;
        self.tell(&["job", "list", "--state", "FAILED", "--dataset", "one"])
            .await;
        self.tell(&["job", "show", "nonsense"]).await;
        self.tell(&["run", "--dataset", "access", "--map", "sleep 600", "--no-wait"])
            .await;
        // What it is told of the job is the same only when the leader has taken it.
        wait::until_true("the job to be admitted", DEADLINE, async || {
            let list = ["job", "list", "--limit", "1", "--output", "json"];
            self.mill.command(&list).await.stdout.contains("STAGING")
        })
        .await;
        self.tell(&["job", "wait", "last", "--timeout", "1ms"]).await;
        self.tell(&["job", "cancel", "last"]).await;
        self.tell(&["job", "wait", "last"]).await;
    }

    async fn queries(&mut self) {
        let names = self
            .mill
            .file("names.csv", b"status,name\n200,fine\n500,broken\n");
        let with = format!("names={names}");
        self.tell(&["explain", BY_STATUS]).await;
        self.tell(&["query", BY_STATUS]).await;
        self.tell(&["query", BY_STATUS]).await;
        self.tell(&["explain", BY_STATUS, "--output", "json"]).await;
        self.tell(&["query", "EXPLAIN SELECT count(*) FROM access WHERE status > 600"])
            .await;
        self.tell(&["query", BY_STATUS, "--output", "csv", "--no-reuse"])
            .await;
        let joined =
            "SELECT name, count(*) AS n FROM access JOIN names USING (status) GROUP BY name ORDER BY name";
        self.tell(&["query", joined, "--with", &with]).await;
        self.tell(&["query", BY_STATUS, "--with", &with]).await;
        self.tell(&["query", BY_STATUS, "--into", "kept"]).await;
        self.tell(&["query", BY_STATUS, "--into", "no/such"]).await;
        self.tell(&["query", "SELECT nothing FROM access"]).await;
        self.tell(&["query", "SELECT FROM WHERE"]).await;
        self.tell(&["query", "SELECT 1"]).await;
        self.tell(&["query", "SELECT count(*) FROM nothing"]).await;
        self.tell(&["query", "SELECT status, row_number() OVER () FROM access"])
            .await;
        self.tell(&[
            "query",
            "SELECT sum(bytes) AS x FROM access WHERE status = 500",
            "--no-wait",
        ])
        .await;
        self.tell(&["job", "wait", "last"]).await;
        self.tell(&["job", "output", "last", "--output", "json"]).await;
        let typed = "\\d\n\\d app\n\\o csv\nSELECT count(*) AS n FROM app; SELECT wrong FROM app;";
        self.type_in(typed, &["query"]).await;
    }

    async fn views(&mut self) {
        self.tell(&["view", "list"]).await;
        self.tell(&["view", "create", "by_status", BY_STATUS]).await;
        self.tell(&["view", "create", "by_status", BY_STATUS]).await;
        self.tell(&[
            "view",
            "create",
            "never",
            "SELECT now() AS t, count(*) AS n FROM access",
        ])
        .await;
        self.until_covered("by_status").await;
        self.tell(&["view", "list"]).await;
        self.tell(&["view", "show", "by_status"]).await;
        self.tell(&["view", "show", "by_statu"]).await;
        self.tell(&["view", "output", "by_status"]).await;
        self.tell(&["job", "output", "last"]).await;
        self.tell(&["query", BY_STATUS, "--into", "by_status"]).await;
        self.tell(&["view", "pause", "by_status"]).await;
        self.tell(&["view", "resume", "by_status", "--output", "json"])
            .await;
        self.tell(&["view", "remove", "by_status"]).await;
        self.tell(&["view", "show", "by_status"]).await;
    }

    async fn until_covered(&self, view: &str) {
        wait::until_true("the view to cover its dataset", DEADLINE, async || {
            let shown = self.recipe(&["view", "show", view, "--output", "json"]);
            let shown = shown.output(DEADLINE).await.code(0).stdout;
            let shown: serde_json::Value = serde_json::from_str(&shown).unwrap();
            shown["view"]["lag_blocks"] == 0 && shown["view"]["refreshed_at"].is_string()
        })
        .await;
    }

    async fn end(&mut self) {
        self.mill.until_empty().await;
        self.tell(&["doctor", "--audit"]).await;
        self.tell(&["status"]).await;
        self.tell(&["dataset", "remove", "app"]).await;
        self.tell(&["dataset", "remove", "app"]).await;
    }
}

/// The words of a text by line, without what differs from mill to mill: ids, times, durations, places.
fn plain(text: &str, mill: &Mill) -> String {
    let places = [
        (mill.files.path().display().to_string(), "DIR"),
        (mill.space.database().to_string(), "DATABASE"),
    ];
    let mut text = text.to_string();
    for (place, word) in places {
        text = text.replace(&place, word);
    }
    let mut lines = String::new();
    for line in text.lines() {
        let mut words: Vec<String> = line.split_whitespace().map(word).collect();
        words.dedup_by(|a, b| a == "SPAN" && b == "SPAN");
        lines += &words.join(" ");
        lines.push('\n');
    }
    lines
}

/// A word, or what kind of word it is where it differs from run to run.
fn word(word: &str) -> String {
    let bare = word.trim_matches(|c: char| "\",():;.`".contains(c));
    let is_time = bare.len() > 20 && bare.contains('T') && bare.ends_with('Z');
    let number = bare.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let is_span = number.len() < bare.len()
        && !number.is_empty()
        && ["ms", "s", "m", "us"].contains(&&bare[number.len()..])
        && number.chars().all(|c| c.is_ascii_digit());
    let kind = if uuid::Uuid::parse_str(bare).is_ok() {
        "ID"
    } else if is_time {
        "TIME"
    } else if is_span {
        return "SPAN".into();
    } else {
        return word.to_string();
    };
    word.replace(bare, kind)
}

/// What is measured, or counts what runs by itself: not the same in two mills.
fn comparable(told: &str) -> String {
    const MEASURED: [&str; 11] = [
        "\"submitted_by\"",
        "\"busy_us\"",
        "busy ",
        "mongodb ",
        "leader ",
        "watchers ",
        "\"mtime_ms\"",
        "\"version\"",
        "took ",
        "\"finished_ms\"",
        "worker-",
    ];
    let lines = told.lines().filter(|line| {
        let line = line.trim_start();
        !MEASURED.iter().any(|measured| line.starts_with(measured))
    });
    lines.collect::<Vec<_>>().join("\n")
}

async fn whole_story(way: Way) -> Vec<String> {
    let mut story = Story::begin(way).await;
    story.datasets().await;
    story.jobs().await;
    story.queries().await;
    story.views().await;
    story.end().await;
    let told = std::mem::take(&mut story.told);
    story.mill.stop().await;
    told
}

#[tokio::test(flavor = "multi_thread")]
async fn everything_is_told_alike_over_a_gateway() {
    let (stores, gateway) = tokio::join!(whole_story(Way::Stores), whole_story(Way::Gateway));
    for (stores, gateway) in stores.iter().zip(&gateway) {
        assert_eq!(
            comparable(gateway),
            comparable(stores),
            "over the gateway, and over the stores"
        );
    }
    let all = gateway.join("\n");
    for told in [
        "[exit 0]",
        "[exit 1]",
        "[exit 2]",
        "answered by job ID",
        "did you mean access?",
        "no room",
        "is in it already",
        "lines count once more",
        "has grown by",
        "can't be taken back",
        "every subtask is accounted for exactly once",
    ] {
        assert!(all.contains(told), "{told:?} was told nowhere in\n{all}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_needs_the_stores_says_so_and_who_is_not_there_is_named() {
    let mill = Mill::start().await;
    for args in [&["init"][..], &["doctor"], &["job", "prune"], &["bench", "queue"]] {
        let refused = mill.recipe_by_gateway(args).output(DEADLINE).await.code(2);
        assert!(
            refused.stderr.contains("--server"),
            "{args:?}: {}",
            refused.stderr
        );
    }
    tokens_and_the_audit_log(&mill).await;
    answers_so_far(&mill).await;
    let nobody = mill.recipe(&["status", "--server", "127.0.0.1:1"]);
    let refused = nobody.output(DEADLINE).await.code(1);
    assert!(refused.stderr.contains("127.0.0.1:1"), "{}", refused.stderr);
    // Another account of this machine can't read the token of the gateway's user.
    let elsewhere = mill.files.path().join("state of another user");
    for args in [
        &["status"][..],
        &["run", "--dataset", "numbers", "--map", "id"],
        &["task", "start", "node", "id"],
        &[
            "ship",
            "--dataset",
            "numbers",
            "--state",
            "x",
            &mill.file("x.log", b"x\n"),
        ],
    ] {
        let stranger = mill.recipe_by_gateway(args).env("XDG_STATE_HOME", &elsewhere);
        let refused = stranger
            .directory(mill.files.path())
            .output(DEADLINE)
            .await
            .code(1);
        let is_told = refused.stderr.contains("takes requests of its own user alone");
        assert!(is_told, "{args:?}: {}{}", refused.stdout, refused.stderr);
    }
    // The one that answers is asked.
    let servers = format!("127.0.0.1:1,{}", mill.server);
    let first = mill.recipe_by_gateway(&["status"]).env("SAWMILL_SERVER", servers);
    let _ = first.output(DEADLINE).await.code(0);
    mill.stop().await;
}

/// Made, listed, revoked and written down as on the stores themselves.
async fn tokens_and_the_audit_log(mill: &Mill) {
    let ask = async |args: &[&str]| mill.recipe_by_gateway(args).output(DEADLINE).await;
    let made = ask(&["token", "create", "nightly", "--queue", "night-*"]).await;
    let token = made.code(0).stdout.trim().to_string();
    assert!(token.starts_with("sawmill_"), "{token}");
    let (there, here) = (
        ask(&["token", "list", "--output", "json"]).await,
        mill.json(&["token", "list"]).await,
    );
    let there: serde_json::Value = serde_json::from_str(&there.code(0).stdout).unwrap();
    assert_eq!(there, here);
    assert_eq!(there[0]["queues"][0], "night-*");
    let long = ask(&["token", "create", "nightly", "--valid", "900d"]).await;
    assert!(long.code(2).stderr.contains("a year at most"));
    let id = there[0]["id"].as_str().unwrap();
    let revoked = ask(&["token", "revoke", id]).await.code(0).stdout;
    assert!(revoked.contains("nightly"), "{revoked}");
    let nobody = ask(&["token", "revoke", "nightly"]).await.code(1).stderr;
    assert!(nobody.contains("nightly"), "{nobody}");

    let args = ["audit", "list", "--output", "json", "--limit", "2"];
    let there = ask(&args).await.code(0).stdout;
    assert_eq!(there, mill.told(&args).await);
    let there: serde_json::Value = serde_json::from_str(&there).unwrap();
    assert_eq!(
        (&there[0]["what"], &there[0]["who"]),
        (&"token.revoke".into(), &"admin local".into())
    );
    assert!(there[1]["details"].as_str().unwrap().starts_with(id));
}

/// What `query --live` shows: at last the whole answer.
async fn answers_so_far(mill: &Mill) {
    use api::v1::{JobReference, queue_client::QueueClient};
    let lines: String = (0..500).map(|n| format!("{{\"n\":{n}}}\n")).collect();
    let added = mill.add("numbers", &lines, &[]).await;
    let _ = added.code(0);
    let csv = [
        "query",
        "SELECT sum(n) AS n FROM numbers",
        "--live",
        "--output",
        "csv",
    ];
    let whole = mill.recipe_by_gateway(&csv).output(DEADLINE).await.code(0).stdout;
    assert_eq!(whole, "n\n124750\n");

    let security = api::transport::Security::Plain;
    let channel = api::transport::connect(&mill.server, &security).await.unwrap();
    let mut client = QueueClient::new(channel);
    let reference = "last".to_string();
    let told = client.watch_answer(JobReference { reference }).await.unwrap();
    let (mut told, mut answers, mut answer) = (told.into_inner(), Vec::new(), Vec::new());
    while let Some(chunk) = told.message().await.unwrap() {
        answer.extend_from_slice(&chunk.data);
        if chunk.end {
            answers.push(std::mem::take(&mut answer));
        }
    }
    assert!(answer.is_empty());
    let mut text = Vec::new();
    sql::render(answers.last().unwrap(), sql::Rendering::Csv, &mut text).unwrap();
    assert_eq!(String::from_utf8(text).unwrap(), whole);

    mill.told(&["run", "--dataset", "numbers", "--map", "wc -l"])
        .await;
    let reference = "last".to_string();
    let refused = client.watch_answer(JobReference { reference }).await.unwrap_err();
    assert_eq!(refused.code(), tonic::Code::InvalidArgument);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_standby_dispatcher_serves_as_the_leader_does() {
    let space = Space::new().await;
    let files = tempfile::tempdir().unwrap();
    let role = async |args: &[&str]| {
        let mut process = mill::settled(Process::sawmill(&space), files.path())
            .env("NO_COLOR", "1")
            .args(args)
            .start();
        process
            .wait_for_line(&format!("{} started", args[0]), DEADLINE)
            .await;
        process
    };
    let mut leader = role(&["dispatcher"]).await;
    let mut standby = role(&["dispatcher"]).await;
    let _compute = role(&["compute", "--allow-exec", "--slots", "2"]).await;
    let _watcher = role(&["watcher"]).await;
    let address = async |process: &mut Process| {
        let line = process.wait_for_line("gateway listening", DEADLINE).await;
        let (_, address) = line.rsplit_once("address=").unwrap();
        address.trim().to_string()
    };
    let servers = [address(&mut leader).await, address(&mut standby).await];
    let log = files.path().join("log");
    std::fs::write(&log, "a\nb\n").unwrap();
    let log = log.display().to_string();
    for (server, dataset) in servers.iter().zip(["one", "two"]) {
        let ask = async |args: &[&str]| {
            let recipe = Process::binary("sawmill").env("SAWMILL_SERVER", server);
            recipe.args(args).output(DEADLINE).await.code(0).stdout
        };
        ask(&["dataset", "add", dataset, &log]).await;
        let lines = ask(&["run", "--dataset", dataset, "--map", "wc -l"]).await;
        assert_eq!(lines.trim(), "2");
        let answer = ask(&[
            "query",
            &format!("SELECT count(*) AS n FROM {dataset}"),
            "--output",
            "csv",
        ])
        .await;
        assert_eq!(answer, "n\n2\n");
        let status = ask(&["status", "--output", "json"]).await;
        let status: serde_json::Value = serde_json::from_str(&status).unwrap();
        assert_eq!(status["standby"].as_array().unwrap().len(), 1);
    }
    // Whoever was named second answers when the first is gone.
    leader.kill9();
    let both = Process::binary("sawmill").env("SAWMILL_SERVER", servers.join(","));
    let listed = both.args(["dataset", "list"]).output(DEADLINE).await.code(0);
    assert!(listed.stdout.contains("two"));
}
