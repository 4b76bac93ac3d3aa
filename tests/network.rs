//! What the network does to blocks between an agent and its worker: broken bytes, lines that are cut, lines on which nothing
//! moves any more. Every line is in the dataset once.
#![cfg(feature = "sql")]
#![allow(clippy::unwrap_used)]

use std::{fmt::Write as _, fs::OpenOptions, io::Write as _, path::PathBuf};

use serde_json::Value;
use tempfile::TempDir;
use testkit::{
    Space,
    mill::{DEADLINE, settled},
    process::Process,
    proxy::Proxy,
    wait,
};

/// Lines of one step: so many that they are more than what passes at once, as they can't be compressed.
const STEP: u64 = 3000;

/// A mill of processes whose worker is reached through a proxy, and an agent.
struct Mill {
    space: Space,
    files: TempDir,
    proxy: Proxy,
    server: String,
    worker: Process,
    _others: Vec<Process>,
    lines: u64,
}

impl Mill {
    async fn start() -> Self {
        let (space, files) = (Space::new().await, tempfile::tempdir().unwrap());
        let server = format!("127.0.0.1:{}", servers::free_port().unwrap());
        let listen = format!("127.0.0.1:{}", servers::free_port().unwrap());
        let proxy = Proxy::plain(&listen).await;
        let role = |arg: &str| {
            settled(Process::sawmill(&space), files.path())
                .env("SAWMILL_LISTEN", &server)
                .env("SAWMILL_WORKER_LISTEN", &listen)
                .env(
                    "SAWMILL_ADVERTISE",
                    if arg == "compute" {
                        proxy.address()
                    } else {
                        server.clone()
                    },
                )
                .arg(arg)
                .start()
        };
        let worker = role("compute");
        let mut others = vec![role("dispatcher"), role("watcher")];
        let log = files.path().join("app.log");
        std::fs::write(&log, "").unwrap();
        let agent = Process::binary("sawmill")
            .env("SAWMILL_SERVER", &server)
            .args([
                "agent",
                "--dataset",
                "sent",
                "--name",
                "web7",
                "--age",
                "100ms",
                "--state",
            ])
            .arg(files.path().join("agent"))
            .arg(&log)
            .start();
        others.push(agent);
        Self {
            space,
            files,
            proxy,
            server,
            worker,
            _others: others,
            lines: 0,
        }
    }

    fn log(&self) -> PathBuf {
        self.files.path().join("app.log")
    }

    /// Writes some lines of noise.
    fn write(&mut self) {
        let mut text = String::new();
        for seq in self.lines..self.lines + STEP {
            let noise = blake3::hash(&seq.to_le_bytes()).to_hex();
            writeln!(text, "{{\"seq\":{seq},\"noise\":\"{noise}\"}}").unwrap();
        }
        let mut log = OpenOptions::new().append(true).open(self.log()).unwrap();
        log.write_all(text.as_bytes()).unwrap();
        self.lines += STEP;
    }

    /// How many lines are in the dataset, and how many different ones.
    async fn counted(&self) -> (u64, u64) {
        let sql = "SELECT count(*) AS n, count(DISTINCT seq) AS different FROM sent";
        let told = Process::binary("sawmill")
            .env("SAWMILL_SERVER", &self.server)
            .args(["query", sql, "--output", "json"])
            .output(DEADLINE)
            .await;
        let row: Value = serde_json::from_str(told.stdout.trim()).unwrap_or_default();
        let number = |key: &str| row[key].as_u64().unwrap_or_default();
        (number("n"), number("different"))
    }

    async fn until_all_are_there(&self) {
        let all = (self.lines, self.lines);
        wait::until_equal("each line once", DEADLINE, all, async || self.counted().await).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn blocks_are_whole_and_there_once_whatever_the_network_does() {
    let mut mill = Mill::start().await;
    mill.write();
    mill.until_all_are_there().await;

    // Broken bytes: of a block, and of whatever stands at other places.
    for (flipped, after) in [60_000, 100, 20_000].into_iter().enumerate() {
        mill.proxy.flip_after(after);
        mill.write();
        mill.until_all_are_there().await;
        assert_eq!(mill.proxy.fired(), flipped + 1);
    }
    let told = mill.worker.stderr();
    assert!(told.contains("has other bytes than its checksum says"), "{told}");

    // Cut in the middle.
    let before = mill.proxy.connections();
    mill.write();
    mill.proxy.cut_all();
    mill.until_all_are_there().await;
    assert!(mill.proxy.connections() > before);

    // Half-open: the lines stay, and nothing moves on them. The worker is left, and found again.
    mill.proxy.stall();
    mill.write();
    let held = "/owned/worker-0000000000/client-web7".to_string();
    wait::until_true("the worker to let go of the agent", DEADLINE, async || {
        !mill.space.tree().await.contains_key(&held)
    })
    .await;
    mill.proxy.cut_all();
    mill.proxy.resume();
    mill.until_all_are_there().await;
}
