//! A mill of separate processes with TLS everywhere: who has a certificate does what it says, and nothing else.
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
        mill.issue(&["user", "ben"], &["--queue", "default"]).await;
        let role = |identity: &str, args: &[&str]| {
            settled(Process::sawmill(&mill.space), mill.files.path())
                .env("SAWMILL_IDENTITY", mill.path(identity))
                .env("SAWMILL_LISTEN", &mill.server)
                .args(args)
                .start()
        };
        let roles = vec![
            role("d1", &["dispatcher"]),
            role("node1", &["compute", "--allow-exec"]),
            settled(Process::sawmill(&mill.space), mill.files.path())
                .arg("watcher")
                .start(),
        ];
        mill._roles = roles;
        mill
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

    let listed = mill.told("anna", &["dataset", "list"]).await.code(0).stdout;
    assert!(!listed.contains("secrets"), "{listed}");

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
