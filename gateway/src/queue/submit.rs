//! Submitting: one job, or a stream of them.

use api::v1;
use control::{Control, wire};
use futures::{FutureExt as _, StreamExt as _};
use model::{JobId, JobSpec, Processor};
use pki::Peer;
use prost::Message as _;
use tonic::{Code, Status, Streaming};

use super::told;
use crate::{feed::Feed, journal::Journal, refuse};

/// Jobs of a stream that are written at once, where so many are there.
const TOGETHER: usize = 1000;

/// From how many bytes on no more jobs of a stream are taken to be written at once: they are in memory.
const TOGETHER_BYTES: usize = 8 << 20;

/// The job that is asked for, where the peer may ask for it.
///
/// # Errors
/// INVALID_ARGUMENT, PERMISSION_DENIED.
pub(super) fn spec(peer: &Peer, request: v1::SubmitRequest) -> Result<JobSpec, Status> {
    let given = request
        .spec
        .ok_or_else(|| api::Malformed::new("spec", "it is missing"));
    let spec = given.and_then(JobSpec::try_from);
    let spec = spec.map_err(|error| wire::malformed(&error))?;
    match &spec.processor {
        Processor::Noop => {}
        Processor::Command(_) => refuse::may_exec(peer)?,
        Processor::Query(_) => {
            return Err(api::refusal(
                Code::InvalidArgument,
                "NOT_PLANNED",
                "a query is asked by sawmill.v1.Catalog/Ask, which plans it",
                [],
            ));
        }
    }
    Ok(spec)
}

pub(super) fn reply(job: JobId) -> v1::SubmitReply {
    v1::SubmitReply { job: job.to_string() }
}

/// Who submits a stream of jobs, and where.
pub(super) struct Submitter {
    pub(super) control: Control,
    pub(super) journal: Journal,
    pub(super) peer: Peer,
}

/// What comes next and all that is there already, as far as that is not too much; nothing at the end.
async fn together(requests: &mut Streaming<v1::SubmitRequest>) -> Vec<Result<v1::SubmitRequest, Status>> {
    let mut batch = Vec::from_iter(requests.next().await);
    let mut bytes = 0;
    while let Some(Ok(last)) = batch.last() {
        bytes += last.encoded_len();
        if batch.len() >= TOGETHER || bytes >= TOGETHER_BYTES {
            break;
        }
        let Some(Some(next)) = requests.next().now_or_never() else {
            break;
        };
        batch.push(next);
    }
    batch
}

impl Submitter {
    /// Submits what comes, as much at once as is there, and acknowledges it in its order. What comes next is read while
    /// that is written.
    pub(super) async fn stream(
        self,
        mut requests: Streaming<v1::SubmitRequest>,
        feed: Feed<v1::SubmitReply>,
    ) -> Result<(), Status> {
        let mut batch = together(&mut requests).await;
        while !batch.is_empty() {
            let (specs, refused) = self.read(batch);
            let submitting = self.submit(specs, &feed);
            batch = match refused {
                None => tokio::try_join!(submitting, async { Ok(together(&mut requests).await) })?.1,
                Some(status) => {
                    submitting.await?;
                    return Err(status);
                }
            };
        }
        Ok(())
    }

    /// The jobs of a batch up to the first that is refused, and why that is.
    fn read(&self, batch: Vec<Result<v1::SubmitRequest, Status>>) -> (Vec<JobSpec>, Option<Status>) {
        let mut specs = Vec::with_capacity(batch.len());
        for request in batch {
            match request.and_then(|request| spec(&self.peer, request)) {
                Ok(spec) => specs.push(spec),
                Err(status) => return (specs, Some(status)),
            }
        }
        (specs, None)
    }

    /// Submits jobs together or, where one of them is refused, those before it.
    async fn submit(&self, specs: Vec<JobSpec>, feed: &Feed<v1::SubmitReply>) -> Result<(), Status> {
        let Some(first) = specs.first().cloned() else {
            return Ok(());
        };
        match self.written(specs.clone(), first).await? {
            Ok(ids) => feed.put_all(ids.into_iter().map(reply).collect()).await,
            // Some may be there; nobody knows which.
            Err(error @ control::Error::Storage(_)) => Err(told(error)),
            // Nothing was written.
            Err(_) => {
                for spec in specs {
                    feed.put(reply(self.one(spec).await?)).await?;
                }
                Ok(())
            }
        }
    }

    /// Submits one job.
    pub(super) async fn one(&self, spec: JobSpec) -> Result<JobId, Status> {
        let ids = self.written(vec![spec.clone()], spec).await?.map_err(told)?;
        ids.first()
            .copied()
            .ok_or_else(|| Status::internal("a job was submitted without an id"))
    }

    /// Writes jobs and notes them, both or neither, also for a client that hangs up meanwhile.
    async fn written(
        &self,
        specs: Vec<JobSpec>,
        first: JobSpec,
    ) -> Result<Result<Vec<JobId>, control::Error>, Status> {
        let (control, journal, peer) = (self.control.clone(), self.journal.clone(), self.peer.clone());
        let count = specs.len();
        let writing = tokio::spawn(async move {
            let written = control.submit_many(specs).await;
            match &written {
                Ok(ids) => journal.submitted(&peer, ids, &first).await,
                Err(control::Error::Storage(_)) => journal.perhaps_submitted(&peer, count, &first).await,
                Err(_) => {}
            }
            written
        });
        writing.await.map_err(|error| Status::internal(error.to_string()))
    }
}
