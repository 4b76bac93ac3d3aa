//! Agents and shipments as processes of this program.

use std::{
    ffi::OsString,
    path::{Path, PathBuf},
    process::Stdio,
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail, ensure};
use control::AgentState;
use model::Name;
use servers::hold::{Held, Program};
use storage::Volume;
use tokio::time::sleep;

use crate::commands::bench::rig::Rig;

/// How long anything here may take.
const PATIENCE: Duration = Duration::from_secs(120);
/// Pause between two looks at MongoDB.
const PAUSE: Duration = Duration::from_millis(10);

/// A following agent; it ends when this process does.
pub(super) struct Agent {
    held: Held,
    name: Name,
    log: PathBuf,
}

impl Agent {
    /// Follows `pattern` into `dataset`; back when it has a worker.
    pub(super) async fn start(
        rig: &Rig,
        server: &str,
        name: &str,
        dataset: &str,
        pattern: &Path,
    ) -> anyhow::Result<Self> {
        let dir = rig.dir.path().join(name);
        std::fs::create_dir_all(&dir).with_context(|| format!("cannot make {}", dir.display()))?;
        let program = std::env::current_exe().context("cannot tell where this program is")?;
        let program = Program::new(program, &dir, "agent.log")
            .arguments([
                "agent",
                "run",
                "--server",
                server,
                "--name",
                name,
                "--dataset",
                dataset,
                "--state",
            ])
            .argument(dir.join("state"))
            .argument(pattern);
        let held = Held::start(&program).await?;
        let (name, log) = (Name::new(name)?, program.log);
        let mut agent = Self { held, name, log };
        let ships = async |agent: &Self| {
            let agents = rig.control.agents().await?;
            Ok(agents
                .iter()
                .any(|found| found.name == agent.name && found.state == AgentState::Shipping))
        };
        agent.until("it ships", ships).await?;
        Ok(agent)
    }

    pub(super) fn pid(&self) -> u32 {
        self.held.pid()
    }

    /// What is registered of it.
    pub(super) async fn registered(&self, rig: &Rig) -> anyhow::Result<Volume> {
        let shipped = rig.parts.store.shipped(Some(&self.name)).await?;
        Ok(shipped.first().map(|shipped| shipped.total).unwrap_or_default())
    }

    /// Looks again and again until `done`.
    pub(super) async fn until(
        &mut self,
        what: &str,
        done: impl AsyncFn(&Self) -> anyhow::Result<bool>,
    ) -> anyhow::Result<()> {
        let deadline = Instant::now() + PATIENCE;
        while !done(self).await? {
            if let Some(status) = self.held.ended() {
                bail!(
                    "agent {} ended with {status}: see {}",
                    self.name,
                    self.log.display()
                );
            }
            ensure!(
                Instant::now() < deadline,
                "agent {}: not in {} s that {what}",
                self.name,
                PATIENCE.as_secs()
            );
            sleep(PAUSE).await;
        }
        Ok(())
    }

    pub(super) async fn stop(mut self) {
        self.held.stop().await;
    }
}

/// Runs a command of this program that asks the gateway; how long it took.
pub(super) async fn command(server: &str, args: &[OsString]) -> anyhow::Result<Duration> {
    let program = std::env::current_exe().context("cannot tell where this program is")?;
    let mut command = tokio::process::Command::new(program);
    command
        .args(args)
        .args(["--server", server])
        .stdin(Stdio::null())
        .kill_on_drop(true);
    let begin = Instant::now();
    let output = command.output().await?;
    let took = begin.elapsed();
    ensure!(
        output.status.success(),
        "{args:?} ended with {}: {}",
        output.status,
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(took)
}
