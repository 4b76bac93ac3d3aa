//! Why a job stands still: what a user who waits should know.

use model::{JobId, JobState};

use crate::{Control, Error, Status};

impl Control {
    /// What keeps a job from going on, each with what to do about it; nothing when it just runs long.
    ///
    /// # Errors
    /// [`Error::Coordination`] when ZooKeeper does not answer, [`Error::Storage`].
    pub async fn obstacles(&self, id: JobId) -> Result<Vec<String>, Error> {
        let job = self.job(&id.to_string()).await?;
        let status = match self.status().await {
            Ok(status) => status,
            Err(error @ Error::Coordination(_)) => return Ok(vec![error.to_string()]),
            Err(error) => return Err(error),
        };
        let mut obstacles = missing_roles(&status);
        let needs_exec = !job.spec.processor.requirements().is_empty();
        let workers: Vec<_> = status.workers.iter().filter(|worker| worker.alive).collect();
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
