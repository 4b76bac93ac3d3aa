//! Conservation: for every job, submitted = recorded + failed + cancelled + waiting + in flight, each once.
//!
//! Promise: [`look`] compares what was listed in takeover order (`/unowned`, `/owned/*`, `/done`, then the documents) and
//! names whatever breaks the rule; [`confirmed`] keeps what two looks agree on, since a single look of a running mill
//! sees entries on the move. No promise about work that never got into a document or a znode: nobody can see it.
//! Called by `control`.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    fmt,
};

use serde::{Deserialize, Serialize};

use crate::{
    job::{Counts, JobId, JobState},
    lifecycle,
    outcome::Run,
};

/// Where an entry was seen.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Place {
    /// In `/unowned`.
    Unowned,
    /// In the folder of this name under `/owned`.
    Owned(String),
    /// In `/done`.
    Done,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unowned => f.write_str("/unowned"),
            Self::Owned(folder) => write!(f, "/owned/{folder}"),
            Self::Done => f.write_str("/done"),
        }
    }
}

/// One entry as it was seen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sighting {
    /// Where.
    pub place: Place,
    /// Name of the znode.
    pub entry: String,
    /// Whose subtasks it has.
    pub job: JobId,
    /// Which.
    pub run: Run,
}

/// What the documents say about a job; read after the entries.
#[derive(Clone, Debug)]
pub struct JobFacts {
    /// Its id.
    pub id: JobId,
    /// Its state, read before `results`.
    pub state: JobState,
    /// Subtasks before the merge.
    pub blocks: u32,
    /// Whether a merge follows.
    pub merges: bool,
    /// The counts, read before `results`.
    pub counts: Counts,
    /// The counts, read after `results`; the same for a final job.
    pub counts_after: Counts,
    /// Every subtask below this index should have a result; read before `results`.
    pub low_water: u32,
    /// Indexes of its result documents, ascending.
    pub results: Vec<u32>,
    /// Whether retention may have removed its results.
    pub expired: bool,
}

impl JobFacts {
    /// All its subtasks.
    pub fn subtasks(&self) -> u64 {
        u64::from(self.blocks) + u64::from(self.merges)
    }

    fn is_recorded(&self, index: u32) -> bool {
        self.results.binary_search(&index).is_ok()
    }
}

/// How the subtasks of one job, or of all, add up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tally {
    /// What was asked for.
    pub submitted: u64,
    /// With a result.
    pub recorded: u64,
    /// Failed for good.
    pub failed: u64,
    /// Will not run.
    pub cancelled: u64,
    /// Not yet fed, or between two attempts.
    pub waiting: u64,
    /// In one of the three places.
    pub in_flight: u64,
}

impl Tally {
    /// Adds `other` member by member.
    pub fn add(&mut self, other: &Self) {
        self.submitted += other.submitted;
        self.recorded += other.recorded;
        self.failed += other.failed;
        self.cancelled += other.cancelled;
        self.waiting += other.waiting;
        self.in_flight += other.in_flight;
    }
}

/// What breaks the rule, in a word.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Breach {
    /// A subtask is in more than one entry or place.
    Twice,
    /// A subtask is recorded and yet in flight.
    RecordedInFlight,
    /// An entry belongs to a job that is final, or was never admitted.
    WrongState,
    /// An entry belongs to no job.
    UnknownJob,
    /// An entry or a result has an index that its job does not have.
    OutOfRange,
    /// The counts of a job are not the number of its results.
    Miscounted,
    /// A subtask below the low-water mark of its job has no result: the next leader would not run it.
    LowWater,
    /// A job waits although nothing keeps it from running.
    Stalled,
    /// A final job with subtasks that never ended.
    Lost,
    /// A job all of whose subtasks ended and that is not final.
    Unfinished,
}

/// One thing that breaks the rule.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Finding {
    /// Which way.
    pub breach: Breach,
    /// Of which job.
    pub job: JobId,
    /// What was seen and where; the same in two looks when nothing moves.
    pub what: String,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "job {}: {}", self.job, self.what)
    }
}

/// What one look gave.
#[derive(Clone, Debug, Default)]
pub struct Look {
    /// The sums of each job, in the order given.
    pub tallies: Vec<(JobId, Tally)>,
    /// What breaks the rule, sorted.
    pub findings: Vec<Finding>,
}

impl Look {
    /// The sums of all jobs together.
    pub fn total(&self) -> Tally {
        let mut total = Tally::default();
        self.tallies.iter().for_each(|(_, tally)| total.add(tally));
        total
    }
}

/// Most indexes that one finding names.
const NAMED_INDEXES: usize = 5;

/// Compares the entries with the documents.
pub fn look(jobs: &[JobFacts], sightings: &[Sighting]) -> Look {
    let known: HashMap<JobId, &JobFacts> = jobs.iter().map(|job| (job.id, job)).collect();
    let mut seen: HashMap<JobId, Vec<&Sighting>> = HashMap::new();
    let mut findings = Vec::new();
    for sighting in sightings {
        if known.contains_key(&sighting.job) {
            seen.entry(sighting.job).or_default().push(sighting);
        } else {
            let what = format!(
                "{}/{} belongs to no job that is known",
                sighting.place, sighting.entry
            );
            findings.push(Finding {
                breach: Breach::UnknownJob,
                job: sighting.job,
                what,
            });
        }
    }
    let mut tallies = Vec::with_capacity(jobs.len());
    for job in jobs {
        let seen = seen.get(&job.id).map_or(&[] as &[_], Vec::as_slice);
        let mut findings_of_job = Findings {
            job,
            list: &mut findings,
        };
        findings_of_job.entries(seen);
        let in_flight = findings_of_job.in_flight(seen);
        findings_of_job.counts();
        let tally = tally(job, in_flight);
        findings_of_job.end(&tally);
        tallies.push((job.id, tally));
    }
    findings.sort();
    findings.dedup();
    Look { tallies, findings }
}

/// The second look with only those findings that the first has too.
#[must_use]
pub fn confirmed(first: &Look, mut second: Look) -> Look {
    second.findings.retain(|finding| first.findings.contains(finding));
    second
}

fn tally(job: &JobFacts, in_flight: u64) -> Tally {
    let Counts {
        ok: recorded,
        failed,
        cancelled,
        ..
    } = job.counts;
    let submitted = job.subtasks();
    // What ended between the listing and the counts was seen in flight and is recorded: it counts once, as recorded.
    let left = submitted.saturating_sub(recorded + failed + cancelled);
    let in_flight = in_flight.min(left);
    Tally {
        submitted,
        recorded,
        failed,
        cancelled,
        waiting: left - in_flight,
        in_flight,
    }
}

struct Findings<'a> {
    job: &'a JobFacts,
    list: &'a mut Vec<Finding>,
}

impl Findings<'_> {
    fn add(&mut self, breach: Breach, what: String) {
        self.list.push(Finding {
            breach,
            job: self.job.id,
            what,
        });
    }

    /// What is wrong with each entry by itself.
    fn entries(&mut self, seen: &[&Sighting]) {
        for Sighting {
            place, entry, run, ..
        } in seen
        {
            if u64::from(run.end()) > self.job.subtasks() {
                let [end, subtasks] = [u64::from(run.end()), self.job.subtasks()];
                self.add(
                    Breach::OutOfRange,
                    format!("{place}/{entry} ends at subtask {end} of {subtasks}"),
                );
            }
            if !self.job.state.is_active() {
                self.add(
                    Breach::WrongState,
                    format!("{place}/{entry} is there, and the job is {}", self.job.state),
                );
            }
            let recorded: Vec<u32> = run
                .indexes()
                .filter(|&index| self.job.is_recorded(index))
                .collect();
            if !recorded.is_empty() {
                let what = format!(
                    "{place}/{entry} is there, and {} recorded",
                    subtasks_are(&recorded)
                );
                self.add(Breach::RecordedInFlight, what);
            }
        }
    }

    /// How many subtasks are in flight, each counted once; tells those that are in more than one place.
    fn in_flight(&mut self, seen: &[&Sighting]) -> u64 {
        let mut places: BTreeMap<u32, Vec<&Sighting>> = BTreeMap::new();
        for sighting in seen {
            for index in sighting
                .run
                .indexes()
                .filter(|&index| !self.job.is_recorded(index))
            {
                places.entry(index).or_default().push(sighting);
            }
        }
        let mut twice: BTreeMap<BTreeSet<String>, Vec<u32>> = BTreeMap::new();
        for (&index, sightings) in places.iter().filter(|(_, sightings)| sightings.len() > 1) {
            let entries = sightings
                .iter()
                .map(|sighting| format!("{}/{}", sighting.place, sighting.entry));
            twice.entry(entries.collect()).or_default().push(index);
        }
        for (entries, indexes) in twice {
            let entries: Vec<String> = entries.into_iter().collect();
            self.add(
                Breach::Twice,
                format!("{} in {}", subtasks_are(&indexes), entries.join(" and in ")),
            );
        }
        places.len() as u64
    }

    /// Whether the documents agree with each other.
    fn counts(&mut self) {
        let JobFacts {
            counts,
            counts_after,
            results,
            expired,
            ..
        } = self.job;
        let [low, high] = [counts, counts_after].map(|counts| counts.ok + counts.failed);
        let found = results.len() as u64;
        let removed = *expired && found == 0;
        if !removed && !(low..=high).contains(&found) {
            self.add(
                Breach::Miscounted,
                format!("{found} results are there, and its counts say {low}"),
            );
        }
        let below = results.partition_point(|&index| index < self.job.low_water);
        if self.job.state.is_active() && below < self.job.low_water as usize {
            let (mark, missing) = (self.job.low_water, self.job.low_water as usize - below);
            self.add(
                Breach::LowWater,
                format!("its low-water mark is {mark}, and {missing} of the subtasks below have no result; a new leader mends that"),
            );
        }
        let range = self.job.subtasks();
        let beyond: Vec<u32> = results
            .iter()
            .copied()
            .filter(|&index| u64::from(index) >= range)
            .collect();
        if !beyond.is_empty() {
            let what = format!(
                "{} recorded, and the job has {range} subtasks",
                subtasks_are(&beyond)
            );
            self.add(Breach::OutOfRange, what);
        }
    }

    /// Whether the job ended when it should have, and not before.
    fn end(&mut self, tally: &Tally) {
        let job = self.job;
        let ended = job.counts.ended();
        if job.state.is_final() && ended != tally.submitted {
            let what = format!(
                "it is {}, and {ended} of its {} subtasks have ended",
                job.state, tally.submitted
            );
            self.add(Breach::Lost, what);
        }
        let verdict = lifecycle::verdict(&job.counts_after, job.blocks, job.merges).0;
        // A job over nothing is ended by the leader, not by a record: until then it only waits.
        if job.state.is_active() && verdict.is_final() && tally.submitted > 0 {
            self.add(
                Breach::Unfinished,
                format!("it is {}, and all its subtasks have ended", job.state),
            );
        }
    }
}

/// `subtask 3 is` or `subtasks 3, 4 and 7 more are`.
fn subtasks_are(indexes: &[u32]) -> String {
    let named: Vec<String> = indexes.iter().take(NAMED_INDEXES).map(u32::to_string).collect();
    match indexes.len() {
        1 => format!("subtask {} is", named[0]),
        count if count > NAMED_INDEXES => format!(
            "subtasks {} and {} more are",
            named.join(", "),
            count - NAMED_INDEXES
        ),
        _ => format!("subtasks {} are", named.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    const JOB: JobId = JobId(Uuid::from_u128(7));

    fn facts(state: JobState, ok: u64, results: &[u32]) -> JobFacts {
        let counts = Counts {
            ok,
            ..Counts::default()
        };
        JobFacts {
            id: JOB,
            state,
            blocks: 10,
            merges: false,
            counts,
            counts_after: counts,
            low_water: 0,
            results: results.to_vec(),
            expired: false,
        }
    }

    fn seen(place: Place, entry: &str, first: u32, count: u32) -> Sighting {
        Sighting {
            place,
            entry: entry.into(),
            job: JOB,
            run: Run {
                first,
                count,
                attempt: 1,
            },
        }
    }

    fn breaches(job: &JobFacts, sightings: &[Sighting]) -> Vec<Breach> {
        look(std::slice::from_ref(job), sightings)
            .findings
            .into_iter()
            .map(|finding| finding.breach)
            .collect()
    }

    #[test]
    fn a_running_job_adds_up() {
        let job = facts(JobState::Running, 3, &[0, 1, 4]);
        let sightings = [
            seen(Place::Unowned, "a", 2, 2),
            seen(Place::Owned("worker-1".into()), "b", 5, 1),
        ];
        let look = look(&[job], &sightings);
        assert_eq!(look.findings, []);
        let expected = Tally {
            submitted: 10,
            recorded: 3,
            in_flight: 3,
            waiting: 4,
            ..Tally::default()
        };
        assert_eq!(look.total(), expected);
    }

    #[test]
    fn every_breach_is_told() {
        let running = || facts(JobState::Running, 1, &[0]);
        let owned = || Place::Owned("worker-1".into());
        assert_eq!(
            breaches(
                &running(),
                &[seen(owned(), "a", 3, 1), seen(Place::Done, "b", 2, 2)]
            ),
            [Breach::Twice]
        );
        assert_eq!(
            breaches(&running(), &[seen(owned(), "a", 0, 2)]),
            [Breach::RecordedInFlight]
        );
        assert_eq!(
            breaches(&running(), &[seen(owned(), "a", 9, 2)]),
            [Breach::OutOfRange]
        );
        assert_eq!(
            breaches(&facts(JobState::Running, 2, &[3, 10]), &[]),
            [Breach::OutOfRange]
        );
        assert_eq!(
            breaches(&facts(JobState::Running, 2, &[3]), &[]),
            [Breach::Miscounted]
        );
        assert_eq!(
            breaches(
                &facts(JobState::Pending, 0, &[]),
                &[seen(Place::Unowned, "a", 0, 1)]
            ),
            [Breach::WrongState]
        );
        assert_eq!(
            breaches(&facts(JobState::Cancelled, 1, &[0]), &[]),
            [Breach::Lost]
        );
        let all: Vec<u32> = (0..10).collect();
        assert_eq!(breaches(&facts(JobState::Successful, 10, &all), &[]), []);
        assert_eq!(
            breaches(&facts(JobState::Running, 10, &all), &[]),
            [Breach::Unfinished]
        );
        assert_eq!(
            breaches(
                &facts(JobState::Successful, 10, &all),
                &[seen(Place::Done, "a", 3, 1)]
            ),
            [Breach::RecordedInFlight, Breach::WrongState]
        );
        let nobodys = look(&[], &[seen(Place::Done, "a", 0, 1)]);
        assert_eq!(nobodys.findings[0].breach, Breach::UnknownJob);
        assert!(nobodys.findings[0].what.starts_with("/done/a belongs"));
    }

    #[test]
    fn expired_results_and_results_on_their_way_are_no_breach() {
        let mut old = facts(JobState::Successful, 10, &[]);
        assert_eq!(breaches(&old, &[]), [Breach::Miscounted]);
        old.expired = true;
        assert_eq!(breaches(&old, &[]), []);
        let mut busy = facts(JobState::Running, 3, &[0, 1, 2, 3, 4]);
        busy.counts_after.ok = 6;
        assert_eq!(breaches(&busy, &[]), []);
    }

    #[test]
    fn only_what_two_looks_agree_on_stays() {
        let job = facts(JobState::Running, 1, &[0]);
        let stays = seen(Place::Done, "stays", 0, 1);
        let first = look(
            std::slice::from_ref(&job),
            &[
                stays.clone(),
                seen(Place::Unowned, "a", 3, 1),
                seen(Place::Done, "a", 3, 1),
            ],
        );
        let second = look(&[job], &[stays]);
        assert_eq!(first.findings.len(), 2);
        let both = confirmed(&first, second);
        assert_eq!(both.findings.len(), 1);
        assert_eq!(
            both.findings[0].to_string(),
            format!("job {JOB}: /done/stays is there, and subtask 0 is recorded")
        );
    }
}
