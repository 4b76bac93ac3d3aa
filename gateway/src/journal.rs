//! The way of submitted jobs into the audit log: behind the answer, many at once.
//!
//! Promise: what was noted is written within [`PATIENCE`] of the end of the gateway, and nothing waits for it until
//! [`NOTES_MAX`] are unwritten. What ends the process at once loses the notes of the last moment: the jobs themselves are recorded.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use control::{Answer, Control};
use model::{JobId, JobSpec, Processor};
use pki::Peer;
use storage::Change;
use tokio::{sync::mpsc, task::JoinHandle, time::timeout};
use tokio_util::sync::CancellationToken;

/// Most notes that are not written yet.
const NOTES_MAX: usize = 10_000;

/// Most notes that are written at once.
const TOGETHER: usize = 500;

/// How long the last notes are waited for.
const PATIENCE: Duration = Duration::from_secs(1);

/// Most characters of a command or query.
const TEXT_CHARS: usize = 500;

/// Takes notes; clones write into the same log.
#[derive(Clone)]
pub(crate) struct Journal {
    notes: mpsc::Sender<Change>,
}

/// The task that writes them.
pub(crate) struct Writer {
    closing: CancellationToken,
    writing: JoinHandle<()>,
}

/// A journal and what writes it.
pub(crate) fn open(control: Control) -> (Journal, Writer) {
    let (notes, noted) = mpsc::channel(NOTES_MAX);
    let closing = CancellationToken::new();
    let writing = tokio::spawn(write(control, noted, closing.clone()));
    (Journal { notes }, Writer { closing, writing })
}

async fn write(control: Control, mut noted: mpsc::Receiver<Change>, closing: CancellationToken) {
    let mut batch = Vec::with_capacity(TOGETHER);
    loop {
        let count = tokio::select! {
            count = noted.recv_many(&mut batch, TOGETHER) => count,
            // Then what is there is given, and after it nothing.
            () = closing.cancelled(), if !noted.is_closed() => {
                noted.close();
                continue;
            }
        };
        if count == 0 {
            return;
        }
        control.log_changes(&batch).await;
        batch.clear();
    }
}

impl Writer {
    /// Takes no more notes and writes the last ones.
    pub(crate) async fn close(mut self) {
        self.closing.cancel();
        if timeout(PATIENCE, &mut self.writing).await.is_err() {
            tracing::error!("the last changes are not in the audit log: MongoDB does not answer");
        }
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.writing.abort();
    }
}

impl Journal {
    /// Notes jobs that were submitted together, by the first of them.
    pub(crate) async fn submitted(&self, peer: &Peer, jobs: &[JobId], first: &JobSpec) {
        let Some(id) = jobs.first() else { return };
        let text = what(&first.processor);
        let details = match jobs.len() {
            1 => format!("over {}: {text}", first.dataset),
            number => format!("{number} jobs, the first over {}: {text}", first.dataset),
        };
        self.note(peer, "job.submit", id.to_string(), details).await;
    }

    /// Notes jobs that were to be submitted together, when MongoDB has not told which are there.
    pub(crate) async fn perhaps_submitted(&self, peer: &Peer, jobs: usize, first: &JobSpec) {
        let text = what(&first.processor);
        let details = format!(
            "none or some of {jobs} jobs, the first over {}: {text}",
            first.dataset
        );
        self.note(peer, "job.submit", "unknown".to_string(), details)
            .await;
    }

    /// Notes a query, by the job that answers it.
    pub(crate) async fn asked(&self, peer: &Peer, answer: &Answer, sql: &str) {
        let job = match answer {
            Answer::Recorded(job) => job.id.to_string(),
            Answer::NoRows(_) => String::new(),
            Answer::Submitted { job, .. } => job.to_string(),
        };
        self.note(peer, "query.ask", job, cut(sql)).await;
    }

    async fn note(&self, peer: &Peer, what: &str, subject: String, details: String) {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let change = Change {
            at_ms: i64::try_from(since.as_millis()).unwrap_or(i64::MAX),
            who: peer.to_string(),
            what: what.to_string(),
            subject,
            details,
        };
        if let Err(mpsc::error::SendError(change)) = self.notes.send(change).await {
            tracing::error!(?change, "not in the audit log: the gateway has stopped");
        }
    }
}

fn what(processor: &Processor) -> String {
    match processor {
        Processor::Noop => "nothing".to_string(),
        Processor::Command(command) => match &command.reduce {
            Some(reduce) => cut(&format!("{}, then {reduce}", command.map)),
            None => cut(&command.map),
        },
        Processor::Query(query) => cut(&query.sql),
    }
}

fn cut(text: &str) -> String {
    text.chars().take(TEXT_CHARS).collect()
}
