//! A mill of separate processes with TLS everywhere and a user of ZooKeeper for each role: who has a certificate does what
//! it says, and nothing else; who is no role sees nothing of ZooKeeper.
#![cfg(feature = "sql")]
#![allow(clippy::unwrap_used)]

use std::{fs, path::PathBuf};

use serde_json::Value;
use tempfile::TempDir;
use testkit::{
    Space,
    mill::{DEADLINE, settled},
    process::{Output, Process, Recipe},
    wait,
};

struct Mill {
    space: Space,
    files: TempDir,
    server: String,
    _roles: Vec<Process>,
}

impl Mill {
    async fn start() -> Self {
        let space = Space::new().await;
        let files = tempfile::tempdir().unwrap();
        let server = format!("127.0.0.1:{}", servers::free_port().unwrap());
        let mut mill = Self {
            space,
            files,
            server,
            _roles: Vec::new(),
        };
        let local = ["--host", "127.0.0.1"];
        mill.pki(&["init", "ca"]).await;
        mill.issue(&["dispatcher", "d1"], &local).await;
        mill.issue(&["worker", "node1"], &local).await;
        mill.issue(&["agent", "web7"], &["--dataset", "access"]).await;
        mill.issue(&["user", "anna"], &["--queue", "default", "--may-exec"])
            .await;
        mill.issue(&["admin", "root"], &[]).await;
        mill.issue(&["user", "dora"], &["--may-manage", "datasets,views"])
            .await;
        mill.issue(&["user", "ben"], &["--queue", "default"]).await;
        let users = mill.path("users").display().to_string();
        let told = mill.on_stores(None, &["init", "--acl", &users]).output(DEADLINE);
        assert!(told.await.code(0).stdout.contains("7 znodes are open to"));
        let role = |identity: &str, user: &str, args: &[&str]| {
            mill.on_stores(Some(user), args)
                .env("SAWMILL_IDENTITY", mill.path(identity))
                .env("SAWMILL_LISTEN", &mill.server)
                .start()
        };
        let roles = vec![
            role("d1", "dispatcher", &["dispatcher"]),
            role("node1", "worker", &["compute", "--allow-exec"]),
            mill.on_stores(Some("watcher"), &["watcher"]).start(),
        ];
        mill._roles = roles;
        mill
    }

    /// What works on the stores, as a user of ZooKeeper.
    fn on_stores(&self, user: Option<&str>, args: &[&str]) -> Recipe {
        let recipe = settled(Process::sawmill(&self.space), self.files.path()).args(args);
        match user {
            Some(user) => recipe.env("SAWMILL_ZOOKEEPER_AUTH_FILE", self.path("users").join(user)),
            None => recipe,
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.files.path().join(name)
    }

    async fn pki(&self, args: &[&str]) {
        let recipe = Process::binary("sawmill").arg("pki").args(args);
        let _ = recipe.directory(self.files.path()).output(DEADLINE).await.code(0);
    }

    async fn issue(&self, who: &[&str; 2], rights: &[&str]) {
        self.pki(&[&["issue"], &who[..], &["--out", who[1]], rights].concat())
            .await;
    }

    /// Somebody's command, who knows the gateway and nothing else.
    fn recipe(&self, who: &str, args: &[&str]) -> Recipe {
        Process::binary("sawmill")
            .env("SAWMILL_SERVER", &self.server)
            .env("SAWMILL_IDENTITY", self.path(who))
            .args(args)
    }

    async fn told(&self, who: &str, args: &[&str]) -> Output {
        self.recipe(who, args).output(DEADLINE).await
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn certificates_say_who_does_what() {
    let mill = Mill::start().await;
    wait::until_true(
        "the node to be there under the name of its certificate",
        DEADLINE,
        async || {
            let status = mill.told("anna", &["status", "--output", "json"]).await.stdout;
            let status: Value = serde_json::from_str(&status).unwrap_or_default();
            status["workers"][0]["node"] == "node1"
        },
    )
    .await;
    fs::write(mill.path("access.log"), "{\"n\":1}\n{\"n\":2}\n").unwrap();
    let log = mill.path("access.log").display().to_string();
    let other = mill.path("other").display().to_string();
    let strays = [
        ("access", "web8", "not of agent web8"),
        ("secrets", "web7", "secrets"),
    ];
    for (dataset, name, why) in strays {
        let args = [
            "ship",
            &log,
            "--dataset",
            dataset,
            "--name",
            name,
            "--state",
            &other,
        ];
        let refused = mill.told("web7", &args).await.code(1);
        assert!(refused.stderr.contains(why), "{why}: {}", refused.stderr);
        fs::remove_dir_all(&other).unwrap();
    }
    let state = mill.path("agent").display().to_string();
    let follow = ["--state", &state, "--age", "100ms", &log];
    let _agent = mill
        .recipe("web7", &[&["agent", "--dataset", "access"], &follow[..]].concat())
        .start();

    let count = [
        "query",
        "SELECT count(*) AS n, max(_host) IS NOT NULL AS h FROM access",
        "--output",
        "csv",
    ];
    wait::until_equal(
        "both lines, asked over the gateway",
        DEADLINE,
        "n,h\n2,true\n".to_string(),
        async || mill.told("ben", &count).await.stdout,
    )
    .await;
    let run = ["run", "--dataset", "access", "--map", "wc -l"];
    assert_eq!(mill.told("anna", &run).await.code(0).stdout.trim(), "2");
    let refused = mill.told("ben", &run).await.code(1);
    assert!(refused.stderr.contains("user ben may not"), "{}", refused.stderr);
    let task = ["task", "start", "node1", "echo here", "--follow"];
    assert_eq!(mill.told("anna", &task).await.code(0).stdout, "here\n");
    let _ = mill.told("ben", &task).await.code(1);
    let refused = mill.told("web7", &["dataset", "list"]).await.code(1);
    assert!(
        refused.stderr.contains("agent web7 may not"),
        "{}",
        refused.stderr
    );

    // What belongs to all takes rights of their own, and so do the jobs of others.
    for args in [
        &["dataset", "remove", "access"][..],
        &["dataset", "set", "access", "--keep", "1s"],
        &["dataset", "compact", "access"],
        &["dataset", "add", "access", &log],
        &["agent", "pause", "web7"],
        &[
            "view",
            "create",
            "v",
            "SELECT count(*) FROM access",
            "--every",
            "1s",
        ],
        &["query", "SELECT count(*) AS n FROM access", "--into", "shared"],
    ] {
        let refused = mill.told("anna", args).await.code(1).stderr;
        assert!(
            refused.contains("that takes a user with `--may-manage"),
            "{args:?}: {refused}"
        );
    }
    let keep = ["dataset", "set", "access", "--keep", "30d"];
    let _ = mill.told("dora", &keep).await.code(0);
    let long = ["run", "--dataset", "access", "--map", "sleep 600", "--no-wait"];
    let _ = mill.told("anna", &long).await.code(0);
    let refused = mill.told("ben", &["job", "cancel", "last"]).await.code(1).stderr;
    assert!(
        refused.contains("user ben may not cancel job") && refused.contains("is of user anna"),
        "{refused}"
    );
    let _ = mill.told("anna", &["job", "cancel", "last"]).await.code(0);

    let listed = mill.told("anna", &["dataset", "list"]).await.code(0).stdout;
    assert!(!listed.contains("secrets"), "{listed}");

    let whole = mill.on_stores(Some("admin"), &["doctor"]).output(DEADLINE).await;
    let whole = whole.code(0).stdout;
    assert!(whole.contains("each role has its own"), "{whole}");
    let audit = mill
        .on_stores(Some("watcher"), &["doctor", "--audit"])
        .output(DEADLINE);
    let _ = audit.await.code(0);
    let paused = mill.on_stores(Some("admin"), &["agent", "pause", "web7"]);
    let _ = paused.output(DEADLINE).await.code(0);
    for args in [
        &["token", "create", "nightly"][..],
        &["token", "list"],
        &["audit", "list"],
    ] {
        let _ = mill.told("root", args).await.code(0);
        let refused = mill.told("anna", args).await.code(1).stderr;
        assert!(refused.contains("that takes an administrator"), "{refused}");
    }
    let changes = mill
        .on_stores(None, &["audit", "list"])
        .output(DEADLINE)
        .await
        .code(0);
    for change in ["zookeeper.acl", "agent.pause", "token.create", "task.start"] {
        assert!(changes.stdout.contains(change), "{}", changes.stdout);
    }
    for (user, args) in [
        (None, &["status"][..]),
        (Some("worker"), &["dispatcher", "--listen", "127.0.0.1:0"]),
    ] {
        let refused = mill.on_stores(user, args).output(DEADLINE).await.code(1);
        assert!(refused.stderr.contains("no right to /"), "{}", refused.stderr);
    }

    // New passwords, while roles have the old ones.
    let fresh = mill.path("fresh");
    fs::create_dir(&fresh).unwrap();
    fs::copy(mill.path("users").join("admin"), fresh.join("admin")).unwrap();
    let folder = fresh.display().to_string();
    let refused = mill.on_stores(None, &["init", "--acl", &folder]).output(DEADLINE);
    let refused = refused.await.code(1).stderr;
    assert!(
        refused.contains("/owned/dispatcher/") && refused.contains("--force"),
        "{refused}"
    );
    assert_eq!(
        fs::read_dir(&fresh).unwrap().count(),
        1,
        "a refusal writes no files"
    );
    let _ = mill.told("anna", &["status"]).await.code(0);

    let plain = Process::binary("sawmill")
        .env("SAWMILL_SERVER", &mill.server)
        .arg("status");
    let plain = plain.output(DEADLINE).await.code(1);
    assert!(plain.stderr.contains("TLS"), "{}", plain.stderr);
    let open = settled(Process::sawmill(&mill.space), mill.files.path())
        .args(["dispatcher", "--listen", "0.0.0.0:0"])
        .output(DEADLINE)
        .await
        .code(2);
    assert!(open.stderr.contains("--insecure"), "{}", open.stderr);
}
