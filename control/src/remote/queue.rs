//! Jobs, asked of a gateway.

use std::time::Duration;

use api::v1::{self, queue_client::QueueClient};
use futures::{
    StreamExt as _, TryStreamExt as _,
    stream::{self, BoxStream},
};
use model::{Job, JobId, JobSpec};
use storage::{JobFilter, Progress};
use tokio::time::{Instant, sleep, timeout_at};

use super::Remote;
use crate::{Error, FailedAttempt, StderrTail, wait::not_ended, wire};

/// Pause before a lost watch is begun anew.
const PAUSE: Duration = Duration::from_millis(500);

/// Most bytes of an answer so far: it is made of 32 MiB at most, and read by people.
const ANSWER_BYTES: usize = 256 << 20;

fn of(reference: impl ToString) -> v1::JobReference {
    v1::JobReference {
        reference: reference.to_string(),
    }
}

fn read(job: v1::Job) -> Result<Job, Error> {
    Ok(Job::try_from(job)?)
}

impl Remote {
    pub(crate) async fn job(&self, reference: &str) -> Result<Job, Error> {
        let asked = self.look(of(reference), async |channel, request| {
            QueueClient::new(channel).get_job(request).await
        });
        read(asked.await?)
    }

    pub(crate) async fn jobs(&self, filter: &JobFilter) -> Result<Vec<Job>, Error> {
        let request = wire::filter_message(filter);
        let asked = self.look(request, async |channel, request| {
            QueueClient::new(channel).list_jobs(request).await
        });
        let jobs = self.told(asked.await?).await;
        jobs.and_then(async |job| read(job)).try_collect().await
    }

    pub(crate) async fn cancel(&self, reference: &str) -> Result<Job, Error> {
        let asked = self.change(of(reference), async |channel, request| {
            QueueClient::new(channel).cancel_job(request).await
        });
        read(asked.await?)
    }

    pub(crate) async fn submit(&self, spec: &JobSpec) -> Result<JobId, Error> {
        let request = v1::SubmitRequest {
            spec: Some(spec.into()),
        };
        let asked = self.change(request, async |channel, request| {
            QueueClient::new(channel).submit(request).await
        });
        job_id(&asked.await?.job)
    }

    /// One stream; what follows a refused job is not submitted.
    pub(crate) async fn submit_many(&self, specs: Vec<JobSpec>) -> Result<Vec<JobId>, Error> {
        let count = specs.len();
        let requests = stream::iter(specs).map(|spec| v1::SubmitRequest {
            spec: Some((&spec).into()),
        });
        let asked = self.change(requests, async |channel, requests| {
            QueueClient::new(channel).submit_stream(requests).await
        });
        let mut replies = self.told(asked.await?).await;
        let mut ids = Vec::with_capacity(count);
        while let Some(reply) = replies.try_next().await? {
            ids.push(job_id(&reply.job)?);
        }
        Ok(ids)
    }

    async fn list_failures(&self, job: JobId, limit: u32) -> Result<v1::ListFailuresReply, Error> {
        let request = v1::ListFailuresRequest {
            reference: job.to_string(),
            limit,
        };
        self.look(request, async |channel, request| {
            QueueClient::new(channel).list_failures(request).await
        })
        .await
    }

    pub(crate) async fn failed_attempts(&self, job: JobId, limit: u32) -> Result<Vec<FailedAttempt>, Error> {
        let failures = self.list_failures(job, limit).await?.failures;
        Ok(failures
            .into_iter()
            .map(wire::attempt)
            .collect::<Result<_, _>>()?)
    }

    pub(crate) async fn stderr_tails(&self, job: JobId, limit: u32) -> Result<Vec<StderrTail>, Error> {
        let tails = self.list_failures(job, limit).await?.stderr;
        Ok(tails.into_iter().map(wire::stderr_tail).collect())
    }

    pub(crate) async fn obstacles(&self, job: JobId) -> Result<Vec<String>, Error> {
        let asked = self.look(of(job), async |channel, request| {
            QueueClient::new(channel).obstacles(request).await
        });
        Ok(asked.await?.obstacles)
    }

    pub(crate) async fn lines_of(&self, job: JobId) -> Result<(u64, u64), Error> {
        let asked = self.look(of(job), async |channel, request| {
            QueueClient::new(channel).sample_job(request).await
        });
        let sample = asked.await?;
        Ok((sample.blocks, sample.lines))
    }

    pub(crate) async fn output(
        &self,
        job: JobId,
        answer: bool,
    ) -> Result<BoxStream<'static, Result<Vec<u8>, Error>>, Error> {
        let request = v1::JobOutputRequest {
            reference: job.to_string(),
            answer,
        };
        let asked = self.look(request, async |channel, request| {
            QueueClient::new(channel).job_output(request).await
        });
        let chunks = self.told(asked.await?).await;
        Ok(chunks.map_ok(|chunk| chunk.data.into()).boxed())
    }

    pub(crate) async fn answer(&self, job: &Job) -> Result<Vec<u8>, Error> {
        self.output(job.id, true).await?.try_concat().await
    }

    pub(crate) async fn answers_so_far(
        &self,
        job: JobId,
    ) -> Result<BoxStream<'static, Result<Vec<u8>, Error>>, Error> {
        let asked = self.look(of(job), async |channel, request| {
            QueueClient::new(channel).watch_answer(request).await
        });
        let chunks = self.told(asked.await?).await;
        let answers = stream::try_unfold(chunks, async |mut chunks| {
            let mut answer = Vec::new();
            while let Some(chunk) = chunks.try_next().await? {
                if answer.len() + chunk.data.len() > ANSWER_BYTES {
                    let why = format!("an answer so far is longer than {ANSWER_BYTES} bytes");
                    return Err(api::Malformed::new("data", why).into());
                }
                answer.extend_from_slice(&chunk.data);
                if chunk.end {
                    return Ok(Some((answer, chunks)));
                }
            }
            Ok::<_, Error>(None)
        });
        Ok(answers.boxed())
    }

    pub(crate) async fn wait(
        &self,
        id: JobId,
        deadline: Option<Instant>,
        mut on_change: impl FnMut(&Progress),
    ) -> Result<Job, Error> {
        loop {
            let ended = match deadline {
                None => self.watch(id, &mut on_change).await,
                Some(deadline) => match timeout_at(deadline, self.watch(id, &mut on_change)).await {
                    Ok(ended) => ended,
                    Err(_) => {
                        let job = self.job(&id.to_string()).await?;
                        return if job.state.is_final() {
                            Ok(job)
                        } else {
                            Err(not_ended(&job))
                        };
                    }
                },
            };
            match ended {
                Ok(Some(job)) => return Ok(job),
                Ok(None) => {}
                Err(error) if error.is_retryable() => tracing::warn!("{error}; waiting on"),
                Err(error) => return Err(error),
            }
            sleep(PAUSE).await;
        }
    }

    /// Follows a job until it has ended; none where the stream ends before.
    async fn watch(&self, id: JobId, on_change: &mut impl FnMut(&Progress)) -> Result<Option<Job>, Error> {
        let asked = self.look(of(id), async |channel, request| {
            QueueClient::new(channel).watch_job(request).await
        });
        let mut changes = self.told(asked.await?).await;
        while let Some(change) = changes.try_next().await? {
            let (progress, ended) = wire::progress(change)?;
            on_change(&progress);
            if ended.is_some() {
                return Ok(ended);
            }
        }
        Ok(None)
    }
}

fn job_id(text: &str) -> Result<JobId, Error> {
    let id = text.parse().map_err(|error| api::Malformed::new("job", error));
    Ok(JobId(id?))
}
