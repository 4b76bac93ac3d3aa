//! Submitting: one job, or a stream of them.

use api::v1;
use control::{Control, wire};
use futures::StreamExt as _;
use model::{JobId, JobSpec, Processor};
use pki::Peer;
use tonic::{Code, Status, Streaming};

use super::told;
use crate::{feed::Feed, journal::Journal, refuse};

/// Jobs of a stream that are written at once, where so many are there.
const TOGETHER: usize = 1000;

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

impl Submitter {
    /// Submits what comes, as much at once as is there, and acknowledges it in its order. What comes next is read while
    /// that is written.
    pub(super) async fn stream(
        self,
        requests: Streaming<v1::SubmitRequest>,
        feed: Feed<v1::SubmitReply>,
    ) -> Result<(), Status> {
        let mut batches = requests.ready_chunks(TOGETHER);
        let mut batch = batches.next().await;
        while let Some(requests) = batch {
            let (specs, refused) = self.read(requests);
            let submitting = self.submit(specs, &feed);
            batch = match refused {
                None => tokio::try_join!(submitting, async { Ok(batches.next().await) })?.1,
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
        match self.control.submit_many(specs.clone()).await {
            Ok(ids) => {
                self.journal.submitted(&self.peer, &ids, &first).await;
                feed.put_all(ids.into_iter().map(reply).collect()).await
            }
            // Some may be there; nobody knows which.
            Err(error @ control::Error::Storage(_)) => Err(told(error)),
            // Nothing was written.
            Err(_) => {
                for spec in specs {
                    let id = self.control.submit(spec.clone()).await.map_err(told)?;
                    self.journal.submitted(&self.peer, &[id], &spec).await;
                    feed.put(reply(id)).await?;
                }
                Ok(())
            }
        }
    }
}
