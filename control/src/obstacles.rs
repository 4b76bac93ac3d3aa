//! Why a job stands still: what a user who waits should know.

use model::{JobId, JobState, Requirement};

use crate::{Control, Error, Status, Worker};

/// Compute nodes that are named.
const NAMED: usize = 3;

impl Control {
    /// What keeps a job from going on, each with what to do about it; nothing when it just runs long.
    ///
    /// # Errors
    /// [`Error::Coordination`] when ZooKeeper does not answer, [`Error::Storage`].
    pub async fn obstacles(&self, id: JobId) -> Result<Vec<String>, Error> {
        if let Some(remote) = self.remote() {
            return remote.obstacles(id).await;
        }
        let job = self.job(&id.to_string()).await?;
        let status = match self.status().await {
            Ok(status) => status,
            Err(error @ Error::Coordination(_)) => return Ok(vec![error.to_string()]),
            Err(error) => return Err(error),
        };
        let mut obstacles = missing_roles(&status);
        let processor = &job.spec.processor;
        let needs_exec = processor.requirements().contains(&Requirement::Exec);
        let workers: Vec<_> = status.workers.iter().filter(|worker| worker.alive).collect();
        let version = processor.sql_version();
        obstacles.extend(version.and_then(|version| no_such_version(version, &workers)));
        if needs_exec && !workers.is_empty() && !workers.iter().any(|worker| worker.allow_exec) {
            obstacles.push("no compute node runs commands: start one with --allow-exec".to_string());
        }
        if obstacles.is_empty() && job.state == JobState::Pending {
            let before = status
                .jobs
                .iter()
                .filter(|other| other.priority > job.spec.priority.get())
                .count();
            if before > 0 {
                obstacles.push(format!("{before} jobs of higher priority go first"));
            }
        }
        Ok(obstacles)
    }
}

/// Says that no compute node runs the version of a query, where there are compute nodes at all.
fn no_such_version(version: &str, workers: &[&Worker]) -> Option<String> {
    if workers.is_empty()
        || workers
            .iter()
            .any(|worker| worker.sql.as_deref() == Some(version))
    {
        return None;
    }
    let others = workers.iter().take(NAMED).map(|worker| match &worker.sql {
        Some(other) => format!("{} runs {other}", worker.node),
        None => format!("{} answers no queries", worker.node),
    });
    let others = others.collect::<Vec<_>>().join(", ");
    let more = if workers.len() > NAMED { ", …" } else { "" };
    Some(format!(
        "the query was asked by version {version}, which no compute node runs ({others}{more}): bring the nodes and the \
         `sawmill` that asks to one version"
    ))
}

/// Roles that nobody plays, each with how to start one.
pub(crate) fn missing_roles(status: &Status) -> Vec<String> {
    let mut missing = Vec::new();
    if status.leader.is_none() {
        missing.push("no dispatcher leads: start one with `sawmill dispatcher`".to_string());
    }
    if status.watchers.is_empty() {
        missing.push("no watcher records: start one with `sawmill watcher`".to_string());
    }
    if !status.workers.iter().any(|worker| worker.alive) {
        missing.push("no compute node works: start one with `sawmill compute --allow-exec`".to_string());
    }
    missing
}
