//! The conservation check over both stores.

use std::time::Duration;

use coordination::{Place, Snapshot, Term};
use futures::{StreamExt as _, TryStreamExt as _, stream};
use model::{
    Job, JobId, JobState,
    audit::{self, Breach, Finding, JobFacts, Look, Sighting, Tally},
};
use serde::{Deserialize, Serialize};
use storage::JobFilter;

use crate::{Control, Error, stalled::stalled};

/// Pause between the two looks: what only moved has moved on after it.
const PAUSE: Duration = Duration::from_millis(1500);
/// Jobs whose results are read at the same time.
const AT_ONCE: usize = 16;

/// What the check found.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct AuditReport {
    /// Whether everything adds up.
    pub clean: bool,
    /// How many jobs were looked at.
    pub jobs: usize,
    /// All jobs together.
    pub total: Tally,
    /// Jobs that have not ended, and those that break the rule.
    pub of_jobs: Vec<JobTally>,
    /// What breaks the rule, seen in two looks.
    pub findings: Vec<Finding>,
    /// What does not belong under the three roots; harmless, and left alone.
    pub strange: Vec<String>,
}

/// How the subtasks of one job add up.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct JobTally {
    /// The job.
    pub job: JobId,
    /// Its state.
    pub state: JobState,
    /// Its sums.
    #[serde(flatten)]
    pub tally: Tally,
}

struct Seen {
    look: Look,
    states: Vec<(JobId, JobState)>,
    strange: Vec<String>,
}

impl Control {
    /// Checks that for every job submitted = recorded + failed + cancelled + waiting + in flight, each once.
    ///
    /// Everything is listed in the order of a takeover; what looks wrong is looked at a second time after a moment, and
    /// only what is still wrong in the same way is told. A mill may run meanwhile.
    ///
    /// # Errors
    /// [`Error::Coordination`], [`Error::Storage`].
    pub async fn audit(&self) -> Result<AuditReport, Error> {
        if let Some(remote) = self.remote() {
            return remote.audit().await;
        }
        let term = self.term().await?;
        let seen = self.looks(&term).await;
        let stalled = stalled(&term, self.store()?).await;
        term.close().await;
        let Seen {
            mut look,
            states,
            strange,
        } = seen?;
        look.findings.extend(stalled?.into_iter().map(|job| {
            Finding {
                breach: Breach::Stalled,
                job,
                what: "it waits, nothing of it is in flight, and a worker that may run it has a free slot"
                    .to_string(),
            }
        }));
        let broken = |job: &JobId| look.findings.iter().any(|finding| finding.job == *job);
        let of_jobs = look
            .tallies
            .iter()
            .zip(&states)
            .filter(|((job, _), (_, state))| !state.is_final() || broken(job));
        Ok(AuditReport {
            clean: look.findings.is_empty(),
            jobs: look.tallies.len(),
            total: look.total(),
            of_jobs: of_jobs
                .map(|(&(job, tally), &(_, state))| JobTally { job, state, tally })
                .collect(),
            findings: look.findings,
            strange,
        })
    }

    async fn looks(&self, term: &Term) -> Result<Seen, Error> {
        let first = self.look(term).await?;
        if first.look.findings.is_empty() {
            return Ok(first);
        }
        tokio::time::sleep(PAUSE).await;
        let mut second = self.look(term).await?;
        second.look = audit::confirmed(&first.look, second.look);
        Ok(second)
    }

    async fn look(&self, term: &Term) -> Result<Seen, Error> {
        let snapshot = Snapshot::take(term).await?;
        let (sightings, mut strange) = sightings(term, &snapshot).await?;
        strange.extend(
            snapshot
                .census
                .strange
                .iter()
                .map(|strange| format!("{}: {}", strange.path, strange.why)),
        );
        let jobs = self.store()?.list(&JobFilter::default()).await?;
        let states = jobs.iter().map(|job| (job.id, job.state)).collect();
        let facts: Vec<JobFacts> = stream::iter(jobs)
            .map(|job| self.facts(job))
            .buffered(AT_ONCE)
            .try_collect()
            .await?;
        Ok(Seen {
            look: audit::look(&facts, &sightings),
            states,
            strange,
        })
    }

    async fn facts(&self, job: Job) -> Result<JobFacts, Error> {
        let nothing_can_be = job.state == JobState::Pending;
        let results = if nothing_can_be {
            Vec::new()
        } else {
            self.store()?.result_ids_from(job.id, 0).await?
        };
        let counts_after = if job.state.is_final() || nothing_can_be {
            job.counts
        } else {
            self.store()?
                .progress(&[job.id])
                .await?
                .first()
                .map_or(job.counts, |progress| progress.counts)
        };
        let now_ms = self.store()?.now_ms().await?;
        let retention = i64::try_from(self.stores()?.retention_results.as_millis()).unwrap_or(i64::MAX);
        Ok(JobFacts {
            id: job.id,
            state: job.state,
            blocks: job.blocks,
            merges: job.has_merge(),
            counts: job.counts,
            counts_after,
            low_water: job.low_water,
            results,
            expired: job
                .finished_ms
                .is_some_and(|finished| finished.saturating_add(retention) < now_ms),
        })
    }
}

/// The entries with what they say of themselves; those that can't be read are strange.
async fn sightings(term: &Term, snapshot: &Snapshot) -> Result<(Vec<Sighting>, Vec<String>), Error> {
    let mut sightings = Vec::new();
    let mut strange = Vec::new();
    for (name, place, header) in snapshot.read_headers(term).await? {
        let place_of = match place {
            Place::Unowned => audit::Place::Unowned,
            Place::Owned(worker) => audit::Place::Owned(worker.to_string()),
            Place::Done => audit::Place::Done,
        };
        match header {
            Ok(data) => {
                sightings.push(Sighting {
                    place: place_of,
                    entry: name.to_string(),
                    job: data.job,
                    run: data.run,
                });
            }
            Err(why) => strange.push(format!("{}: {why}", place.entry(&name))),
        }
    }
    Ok((sightings, strange))
}
