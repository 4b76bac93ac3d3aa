//! `sawmill.v1.Queue`: jobs.

mod submit;

use api::{
    transport::holder,
    v1::{self, queue_server::Queue},
};
use control::{Control, wire};
use futures::TryStreamExt as _;
use model::Job;
use pki::Peer;
use storage::{JobFilter, Progress};
use tokio::sync::watch;
use tonic::{Request, Response, Status, Streaming};

use crate::{
    feed::{Answers, Feed, Feeds},
    journal::Journal,
    refuse,
    room::{Room, Taken},
};

/// Most failures that are listed at once: they are told to people.
const MOST_FAILURES: u32 = 1000;

/// Jobs, blocks and the like that are listed at once at most: they are in memory until the client has taken them.
pub(crate) const MOST_LISTED: u32 = 100_000;

/// Lists of up to so many take no place of their own: they are a megabyte or so.
pub(crate) const SHORT_LIST: u32 = 1000;

/// The service.
pub(crate) struct Service {
    control: Control,
    feeds: Feeds,
    room: Room,
    journal: Journal,
}

impl Service {
    pub(crate) fn new(control: Control, feeds: Feeds, room: Room, journal: Journal) -> Self {
        Self {
            control,
            feeds,
            room,
            journal,
        }
    }

    fn submitter(&self, peer: Peer) -> submit::Submitter {
        submit::Submitter {
            control: self.control.submitting_for(&peer.to_string()),
            journal: self.journal.clone(),
            peer,
        }
    }

    async fn job(&self, request: &v1::JobReference) -> Result<Job, Status> {
        self.control.job(&request.reference).await.map_err(told)
    }
}

/// The status of an error.
pub(crate) fn told(error: control::Error) -> Status {
    wire::status(&error)
}

#[tonic::async_trait]
impl Queue for Service {
    async fn submit(&self, request: Request<v1::SubmitRequest>) -> Result<Response<v1::SubmitReply>, Status> {
        let peer = refuse::asker(&request);
        let spec = submit::spec(&peer, request.into_inner())?;
        let job = self.submitter(peer).one(spec).await?;
        Ok(Response::new(submit::reply(job)))
    }

    type SubmitStreamStream = Answers<v1::SubmitReply>;

    async fn submit_stream(
        &self,
        request: Request<Streaming<v1::SubmitRequest>>,
    ) -> Result<Response<Self::SubmitStreamStream>, Status> {
        let peer = refuse::asker(&request);
        let submitter = self.submitter(peer);
        let answers = self
            .feeds
            .stream(|feed| submitter.stream(request.into_inner(), feed));
        Ok(Response::new(answers))
    }

    async fn get_job(&self, request: Request<v1::JobReference>) -> Result<Response<v1::Job>, Status> {
        let job = self.job(request.get_ref()).await?;
        Ok(Response::new((&job).into()))
    }

    type ListJobsStream = Answers<v1::Job>;

    async fn list_jobs(
        &self,
        request: Request<v1::ListJobsRequest>,
    ) -> Result<Response<Self::ListJobsStream>, Status> {
        let filter = wire::filter(request.get_ref()).map_err(|error| wire::malformed(&error))?;
        let filter = JobFilter {
            limit: filter.limit.map(|limit| limit.min(MOST_LISTED)),
            ..filter
        };
        let taken = match filter.limit {
            Some(0..=SHORT_LIST) => None,
            _ => Some(self.room.list(&holder(&request)).await?),
        };
        let jobs = self.control.jobs(&filter).await.map_err(told)?;
        Ok(Response::new(self.feeds.stream(async move |feed: Feed<_>| {
            let _taken = taken;
            for job in &jobs {
                feed.put(job.into()).await?;
            }
            Ok(())
        })))
    }

    type WatchJobStream = Answers<v1::JobProgress>;

    async fn watch_job(
        &self,
        request: Request<v1::JobReference>,
    ) -> Result<Response<Self::WatchJobStream>, Status> {
        let job = self.job(request.get_ref()).await?;
        let control = self.control.clone();
        Ok(Response::new(
            self.feeds.stream(|feed| follow(control, job, feed)),
        ))
    }

    async fn cancel_job(&self, request: Request<v1::JobReference>) -> Result<Response<v1::Job>, Status> {
        let peer = refuse::asker(&request);
        let job = self.job(request.get_ref()).await?;
        refuse::may_cancel(&peer, &job)?;
        let job = self.control.cancel(&job.id.to_string()).await;
        let job = job.map_err(told)?;
        let (who, id) = (peer.to_string(), job.id.to_string());
        self.control.log(&who, "job.cancel", &id, String::new()).await;
        Ok(Response::new((&job).into()))
    }

    type JobOutputStream = Answers<v1::Chunk>;

    async fn job_output(
        &self,
        request: Request<v1::JobOutputRequest>,
    ) -> Result<Response<Self::JobOutputStream>, Status> {
        let who = holder(&request);
        let request = request.into_inner();
        let job = self.control.job(&request.reference).await.map_err(told)?;
        if request.answer && is_refresh(&job) {
            let taken = self.room.answer(&who).await?;
            let making = self.room.plan(&who).await?;
            let answer = self.control.answer(&job).await.map_err(told)?;
            drop(making);
            return Ok(Response::new(chunks(&self.feeds, answer, taken)));
        }
        let mut output = self.control.output(&job).await.map_err(told)?;
        Ok(Response::new(self.feeds.stream(async move |feed: Feed<_>| {
            while let Some(bytes) = output.try_next().await.map_err(told)? {
                let bytes = bytes::Bytes::from(bytes);
                put_chunks(&feed, bytes).await?;
            }
            Ok(())
        })))
    }

    type WatchAnswerStream = Answers<v1::AnswerSoFar>;

    async fn watch_answer(
        &self,
        request: Request<v1::JobReference>,
    ) -> Result<Response<Self::WatchAnswerStream>, Status> {
        let job = self.job(request.get_ref()).await?;
        let taken = self.room.follow(&holder(&request))?;
        let mut answers = self.control.answers_so_far(&job).await.map_err(told)?;
        Ok(Response::new(self.feeds.stream(async move |feed: Feed<_>| {
            let _taken = taken;
            while let Some(answer) = answers.try_next().await.map_err(told)? {
                put_answer(&feed, answer.into()).await?;
            }
            Ok(())
        })))
    }

    async fn list_failures(
        &self,
        request: Request<v1::ListFailuresRequest>,
    ) -> Result<Response<v1::ListFailuresReply>, Status> {
        let request = request.get_ref();
        let job = self.control.job(&request.reference).await.map_err(told)?;
        let limit = request.limit.min(MOST_FAILURES);
        let failures = self.control.failed_attempts(&job, limit).await.map_err(told)?;
        let stderr = self.control.stderr_tails(&job, limit).await.map_err(told)?;
        Ok(Response::new(v1::ListFailuresReply {
            failures: failures.iter().map(wire::attempt_message).collect(),
            stderr: stderr.into_iter().map(wire::stderr_message).collect(),
        }))
    }

    async fn obstacles(
        &self,
        request: Request<v1::JobReference>,
    ) -> Result<Response<v1::ObstaclesReply>, Status> {
        let _taken = self.room.look(&holder(&request)).await?;
        let job = self.job(request.get_ref()).await?;
        let obstacles = self.control.obstacles(job.id).await.map_err(told)?;
        Ok(Response::new(v1::ObstaclesReply { obstacles }))
    }

    async fn sample_job(
        &self,
        request: Request<v1::JobReference>,
    ) -> Result<Response<v1::JobSample>, Status> {
        let _taken = self.room.plan(&holder(&request)).await?;
        let job = self.job(request.get_ref()).await?;
        let (blocks, lines) = self.control.lines_of(&job).await.map_err(told)?;
        Ok(Response::new(v1::JobSample { blocks, lines }))
    }
}

fn is_refresh(job: &Job) -> bool {
    match &job.spec.processor {
        model::Processor::Query(query) => query.refresh.is_some(),
        _ => false,
    }
}

/// Tells each change of a job, and at last its end. A client that is slow misses changes in between.
async fn follow(control: Control, job: Job, feed: Feed<v1::JobProgress>) -> Result<(), Status> {
    let subtasks = job.subtasks();
    let (moved, mut moves) = watch::channel(None::<Progress>);
    let waiting = control.wait(job.id, None, |progress| {
        moved.send_replace(Some(*progress));
    });
    tokio::pin!(waiting);
    let ended = loop {
        tokio::select! {
            biased;
            ended = &mut waiting => break ended.map_err(told)?,
            _ = moves.changed() => {
                let progress = *moves.borrow_and_update();
                if let Some(progress) = progress {
                    feed.put(wire::progress_message(&progress, subtasks)).await?;
                }
            }
        }
    };
    let last = v1::JobProgress {
        ended: Some((&ended).into()),
        ..wire::progress_message(&Progress::from(&ended), subtasks)
    };
    feed.put(last).await
}

/// Bytes of one message of a stream of bytes.
const CHUNK_BYTES: usize = 256 << 10;

/// Puts bytes into a feed, in messages that are not too long.
async fn put_chunks(feed: &Feed<v1::Chunk>, mut bytes: bytes::Bytes) -> Result<(), Status> {
    while !bytes.is_empty() {
        let data = bytes.split_to(bytes.len().min(CHUNK_BYTES));
        feed.put(v1::Chunk { data }).await?;
    }
    Ok(())
}

/// Puts one answer of several into a feed.
async fn put_answer(feed: &Feed<v1::AnswerSoFar>, mut bytes: bytes::Bytes) -> Result<(), Status> {
    loop {
        let data = bytes.split_to(bytes.len().min(CHUNK_BYTES));
        let end = bytes.is_empty();
        feed.put(v1::AnswerSoFar { data, end }).await?;
        if end {
            return Ok(());
        }
    }
}

/// What is in memory, as a stream; the place that it takes is free again when all of it is taken.
pub(crate) fn chunks(feeds: &Feeds, bytes: Vec<u8>, taken: Taken) -> Answers<v1::Chunk> {
    feeds.stream(async move |feed: Feed<_>| {
        let put = put_chunks(&feed, bytes.into()).await;
        drop(taken);
        put
    })
}
