//! rsync over loopback, as a daemon: a file to another directory of the same disk, synced.

use std::{
    path::{Path, PathBuf},
    process::Stdio,
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail, ensure};
use servers::hold::{Held, Program};
use tokio::time::sleep;

/// rsync without compression.
pub(super) const PLAIN: &str = "rsync over loopback, synced";
/// rsync with the compression of agents.
pub(super) const COMPRESSED: &str = "rsync over loopback, synced, zstd";
/// What makes the second of the first.
pub(super) const COMPRESS: [&str; 3] = ["--compress", "--compress-choice=zstd", "--compress-level=1"];

/// How long the daemon may take to listen.
const START: Duration = Duration::from_secs(10);
/// Pause between two looks.
const PAUSE: Duration = Duration::from_millis(20);

/// Says what to install where rsync is missing.
pub(super) async fn check() -> anyhow::Result<()> {
    let found = tokio::process::Command::new("rsync")
        .arg("--version")
        .stdin(Stdio::null())
        .output()
        .await;
    match found {
        Ok(output) if output.status.success() => Ok(()),
        _ => bail!("this compares with rsync, which was not found: apt-get install rsync"),
    }
}

/// A daemon with one module.
pub(super) struct Daemon {
    held: Held,
    port: u16,
    into: PathBuf,
    copies: u32,
}

impl Daemon {
    pub(super) async fn start(dir: &Path) -> anyhow::Result<Self> {
        let into = dir.join("into");
        std::fs::create_dir_all(&into).with_context(|| format!("cannot make {}", into.display()))?;
        let port = servers::free_port()?;
        let config = dir.join("rsyncd.conf");
        let text = format!(
            "use chroot = no\npid file = {}\n[into]\npath = {}\nread only = no\n{}",
            dir.join("rsyncd.pid").display(),
            into.display(),
            // Root's daemon would write as nobody.
            if nix::unistd::geteuid().is_root() {
                "uid = root\ngid = root\n"
            } else {
                ""
            },
        );
        std::fs::write(&config, text).with_context(|| format!("cannot write {}", config.display()))?;
        let program = Program::new("rsync", dir, "rsyncd.log")
            .arguments(["--daemon", "--no-detach", "--address=127.0.0.1"])
            .argument(format!("--port={port}"))
            .argument(format!("--config={}", config.display()));
        let mut held = Held::start(&program).await?;
        let deadline = Instant::now() + START;
        while tokio::net::TcpStream::connect(("127.0.0.1", port)).await.is_err() {
            ensure!(
                Instant::now() < deadline && held.ended().is_none(),
                "the rsync daemon does not listen: see {}",
                program.log.display()
            );
            sleep(PAUSE).await;
        }
        Ok(Self {
            held,
            port,
            into,
            copies: 0,
        })
    }

    /// Copies a file under a name that is not there, from the start of the command to its end.
    pub(super) async fn copy(&mut self, file: &Path, more: &[&str]) -> anyhow::Result<Duration> {
        self.copies += 1;
        let name = format!("copy-{}", self.copies);
        let mut command = tokio::process::Command::new("rsync");
        command
            .args(["--fsync", "--whole-file"])
            .args(more)
            .arg(file)
            .arg(format!("rsync://127.0.0.1:{}/into/{name}", self.port))
            .stdin(Stdio::null())
            .kill_on_drop(true);
        let begin = Instant::now();
        let output = command.output().await.context("cannot run rsync")?;
        let took = begin.elapsed();
        ensure!(
            output.status.success(),
            "rsync ended with {}: {}",
            output.status,
            String::from_utf8_lossy(&output.stderr)
        );
        let copy = self.into.join(name);
        let (from, to) = (std::fs::metadata(file)?.len(), std::fs::metadata(&copy)?.len());
        ensure!(from == to, "rsync copied {to} of {from} bytes");
        std::fs::remove_file(copy)?;
        Ok(took)
    }

    pub(super) async fn stop(&mut self) {
        self.held.stop().await;
    }
}
