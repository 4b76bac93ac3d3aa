//! Views: queries whose answer is kept current. What of their datasets is in the answer, and what comes next.
//!
//! A view keeps the merged state of the blocks that it covers, one partial result that stands for all of them. A refresh
//! is a job over the blocks that are new, whose merge adds to that state. When covered blocks have left, or a dataset
//! has been made anew, so is the state: from all blocks that are there.

pub mod ranges;
#[cfg(test)]
mod tests;

use std::{ops::Range, time::Duration};

use uuid::Uuid;

use self::ranges::{bridged, count, joined, without};
use crate::{
    Failure, FailureKind, Job, JobId, JobSpec, JobState, Name, Parts, Priority, Processor,
    parts::{BadParts, MOST_PARTS, Source},
    processor::{Merged, Query, Refresh},
    table::{Format, Table},
};

/// Most blocks that a view may leave out: they are named one by one, and with more something else is wrong.
pub const MOST_LEFT_OUT: usize = 500;
/// First pause after a refresh that failed; each one more doubles it.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
/// Longest pause after refreshes that failed.
const LONGEST_PAUSE: Duration = Duration::from_secs(300);

/// What a user wants of a view.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ViewState {
    /// Kept current.
    Active,
    /// As it is.
    Paused,
    /// To be removed, with its answer, once nothing is under way.
    Removed,
}

impl ViewState {
    /// As written in documents.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Active => "active",
            Self::Paused => "paused",
            Self::Removed => "removed",
        }
    }

    /// Reads what [`ViewState::as_str`] wrote.
    pub fn read(text: &str) -> Option<Self> {
        let all = [Self::Active, Self::Paused, Self::Removed];
        all.into_iter().find(|state| state.as_str() == text)
    }
}

/// What of a dataset is in the answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Covered {
    /// Name of the dataset.
    pub dataset: Name,
    /// Its incarnation.
    pub id: Uuid,
    /// Numbers of the blocks, in order.
    pub blocks: Vec<Range<u32>>,
    /// The generation in which these numbers were read last.
    pub generation: u32,
}

/// A block that is not in the answer because the query failed on it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeftOut {
    /// Number of the dataset among those of the query.
    pub table: u32,
    /// Its incarnation.
    pub dataset: Uuid,
    /// Number of the block in it.
    pub block: u32,
    /// Why.
    pub why: String,
}

/// A query whose answer is kept current.
#[derive(Clone, Debug, PartialEq)]
pub struct View {
    /// Its name, and that of the collection with its answer.
    pub name: Name,
    /// Its incarnation. What is stored with it lies under this id.
    pub id: Uuid,
    /// The query, with its tables as they were when the view was made.
    pub query: Query,
    /// How urgent its refreshes are.
    pub priority: Priority,
    /// Shortest time between two refreshes, in milliseconds.
    pub every_ms: u64,
    /// What is wanted of it.
    pub state: ViewState,
    /// The datasets of the query, in its order.
    pub covered: Vec<Covered>,
    /// The merged state of what is covered; none before the first refresh.
    pub merged: Option<Merged>,
    /// The refresh that has not ended.
    pub under_way: Option<JobId>,
    /// Blocks that are left out.
    pub left_out: Vec<LeftOut>,
    /// Refreshes that failed since one succeeded.
    pub failures: u32,
    /// Why the last one did.
    pub error: Option<String>,
    /// Milliseconds since 1970 UTC.
    pub created_ms: i64,
    /// When the last refresh was submitted; none to submit the next at once.
    pub tried_ms: Option<i64>,
    /// When a refresh last succeeded.
    pub refreshed_ms: Option<i64>,
    /// Counts the changes of the document.
    pub revision: u64,
}

/// A dataset of a view as it stands.
#[derive(Clone, Debug)]
pub struct Standing {
    /// Its blocks.
    pub source: Source,
    /// How its lines become rows, where that is known.
    pub table: Option<Table>,
    /// Its void numbers, in order.
    pub void: Vec<Range<u32>>,
    /// The generation in which blocks were last taken out of it; 0: never.
    pub cut: u32,
}

/// None where there is no dataset of its name.
pub type Seen = Option<Standing>;

impl View {
    /// A view of which nothing is computed yet.
    pub fn new(name: Name, id: Uuid, query: Query, covered: Vec<Covered>, created_ms: i64) -> Self {
        Self {
            name,
            id,
            query,
            priority: Priority::DEFAULT,
            every_ms: 0,
            state: ViewState::Active,
            covered,
            merged: None,
            under_way: None,
            left_out: Vec::new(),
            failures: 0,
            error: None,
            created_ms,
            tried_ms: None,
            refreshed_ms: None,
            revision: 0,
        }
    }

    /// Whether a refresh may be submitted at this moment, if there is anything to do.
    pub fn may_refresh(&self, now_ms: i64) -> bool {
        let next = self.tried_ms.map(|tried| {
            let pause = self.every_ms.max(self.pause_ms());
            tried.saturating_add_unsigned(pause)
        });
        self.state == ViewState::Active && self.under_way.is_none() && next.is_none_or(|next| next <= now_ms)
    }

    fn pause_ms(&self) -> u64 {
        let pause = match self.failures {
            0 => Duration::ZERO,
            failures => (FIRST_PAUSE * (1 << (failures - 1).min(10))).min(LONGEST_PAUSE),
        };
        u64::try_from(pause.as_millis()).unwrap_or(u64::MAX)
    }

    /// Blocks of the datasets that are neither covered nor left out.
    pub fn lag_blocks(&self, seen: &[Seen]) -> u64 {
        let missing = self.missing(seen, self.is_outdated(seen));
        missing.iter().map(|ranges| count(ranges)).sum()
    }

    /// Why the view can't be brought up to date as its datasets stand.
    pub fn obstacle(&self, seen: &[Seen]) -> Option<String> {
        let mut all = self.covered.iter().zip(seen).zip(&self.query.tables);
        all.find_map(|((covered, seen), pinned)| {
            let name = &covered.dataset;
            match seen {
                None => Some(format!("there is no dataset {name} any more")),
                Some(Standing {
                    source, table: None, ..
                }) if source.id != covered.id => Some(format!(
                    "it is not known yet how the lines of dataset {name} are written"
                )),
                Some(Standing {
                    table: Some(table), ..
                }) if table.format.is_yearless() && pinned.table.format != table.format => Some(format!(
                    "dataset {name} was made anew with lines of another format: make the view anew"
                )),
                Some(_) => None,
            }
        })
    }

    /// The job that brings the view up to date, for a mill of which queries have this version; none where nothing is to
    /// be done.
    ///
    /// # Errors
    /// [`BadParts`] for more blocks than a job can run over.
    pub fn refresh(
        &self,
        seen: &[Seen],
        version: &str,
        id: JobId,
        now_ms: i64,
    ) -> Result<Option<Job>, BadParts> {
        if !self.may_refresh(now_ms) || self.obstacle(seen).is_some() {
            return Ok(None);
        }
        let anew = self.merged.is_none()
            || self.failures > 0
            || self.query.version != version
            || self.is_outdated(seen);
        let missing = self.missing(seen, anew);
        let void: Vec<&[Range<u32>]> = seen
            .iter()
            .map(|seen| seen.as_ref().map_or(&[][..], |seen| &seen.void))
            .collect();
        let mut ranges = bridged(missing, &void, MOST_PARTS);
        if !anew && ranges.iter().all(Vec::is_empty) {
            return Ok(None);
        }
        // More parts would be joined across blocks that are covered already.
        let mut room = MOST_PARTS;
        for ranges in &mut ranges {
            ranges.truncate(room);
            room -= ranges.len();
        }
        let sources = seen.iter().flatten().map(|seen| seen.source).collect();
        let parts = Parts::selected(sources, ranges)?;
        let query = Query {
            into: Some(self.name.to_string()),
            refresh: Some(Refresh {
                before: self.merged.filter(|_| !anew),
            }),
            ..self.restated(seen, version)
        };
        let mut names = self.covered.iter().map(|covered| covered.dataset.clone());
        let Some(first) = names.next() else {
            return Ok(None);
        };
        let spec = JobSpec {
            also: names.collect(),
            priority: self.priority,
            reuse: query.is_reusable(),
            max_failed: u32::try_from(MOST_LEFT_OUT).unwrap_or(u32::MAX),
            ..JobSpec::new(first, Processor::Query(query))
        };
        Ok(Some(Job::new(id, spec, parts, now_ms)))
    }

    /// Takes over what a refresh gave, or why it gave nothing; `failed` has the subtasks that failed for good.
    pub fn ended(&mut self, job: &Job, failed: &[(u32, Failure)]) {
        self.under_way = None;
        if job.state == JobState::Successful {
            self.take(job);
            return;
        }
        let before = self.left_out.len();
        for (index, failure) in failed {
            if let Some(place) = job.parts.at(*index)
                && is_of_block(failure.kind)
            {
                self.left_out.push(LeftOut {
                    table: place.table,
                    dataset: place.dataset,
                    block: place.block,
                    why: failure.message.clone(),
                });
            }
        }
        if self.left_out.len() > MOST_LEFT_OUT {
            self.left_out.truncate(MOST_LEFT_OUT);
            self.state = ViewState::Paused;
            self.error = Some(format!("the query fails on more than {MOST_LEFT_OUT} blocks"));
        } else if self.left_out.len() > before {
            // The others go in at once, from what is recorded of them.
            self.tried_ms = None;
        } else {
            let why = failed.first().map(|(_, failure)| failure.message.clone());
            let why = why.or_else(|| job.error.clone());
            self.failed(why.unwrap_or_else(|| format!("job {} is {}", job.id, job.state)));
        }
    }

    /// Takes note of a refresh that came to nothing: the next one waits, and makes the view anew.
    pub fn failed(&mut self, why: String) {
        self.under_way = None;
        self.failures = self.failures.saturating_add(1);
        self.error = Some(why);
    }

    /// Has blocks that are left out tried again, and whatever is to be done done at once.
    pub fn resume(&mut self) {
        self.state = ViewState::Active;
        self.left_out.clear();
        self.failures = 0;
        self.error = None;
        self.tried_ms = None;
    }

    fn take(&mut self, job: &Job) {
        let Processor::Query(query) = &job.spec.processor else {
            return;
        };
        let anew = query.refresh.is_none_or(|refresh| refresh.before.is_none());
        for (table, (covered, source)) in (0..).zip(self.covered.iter_mut().zip(job.parts.sources())) {
            let parts = job.parts.parts().iter().filter(|part| part.table == table);
            let mut blocks: Vec<_> = parts.map(|part| part.range()).collect();
            if !anew {
                blocks.append(&mut covered.blocks);
            }
            covered.id = source.id;
            covered.generation = source.generation;
            covered.blocks = joined(blocks);
        }
        let ids: Vec<_> = job
            .parts
            .sources()
            .iter()
            .map(|source| (source.id, source.first))
            .collect();
        self.left_out.retain(|out| {
            ids.get(out.table as usize)
                .is_some_and(|(id, first)| out.dataset == *id && out.block >= *first)
        });
        self.query = Query {
            refresh: None,
            ..query.clone()
        };
        self.merged = Some(Merged {
            job: job.id,
            index: job.blocks,
        });
        self.refreshed_ms = job.finished_ms;
        self.failures = 0;
        self.error = None;
    }

    /// The blocks that are to go into the answer, by dataset: all that belong there when it is made anew.
    fn missing(&self, seen: &[Seen], anew: bool) -> Vec<Vec<Range<u32>>> {
        let wanted = self.wanted(seen);
        let all = wanted.iter().zip(&self.covered);
        all.map(|(wanted, covered)| without(wanted, if anew { &[] } else { &covered.blocks }))
            .collect()
    }

    /// The blocks that belong into the answer, by dataset.
    fn wanted(&self, seen: &[Seen]) -> Vec<Vec<Range<u32>>> {
        let of_table = |(table, seen): (u32, &Seen)| {
            let Some(Standing { source, void, .. }) = seen else {
                return Vec::new();
            };
            let out = self
                .left_out
                .iter()
                .filter(|out| out.table == table && out.dataset == source.id);
            let out = out.map(|out| out.block..out.block.saturating_add(1));
            let out = joined(out.chain(void.iter().cloned()).collect());
            let all = source.first..source.blocks.max(source.first);
            without(&[all], &out)
        };
        (0..).zip(seen).map(of_table).collect()
    }

    /// Whether the merged state stands for what is not there any more, or was read otherwise.
    fn is_outdated(&self, seen: &[Seen]) -> bool {
        let mut all = self.covered.iter().zip(seen).zip(&self.query.tables);
        all.any(|((covered, seen), pinned)| {
            let Some(Standing {
                source, table, cut, ..
            }) = seen
            else {
                return false;
            };
            let have_left = covered
                .blocks
                .first()
                .is_some_and(|range| range.start < source.first);
            let is_reshaped = table
                .as_ref()
                .is_some_and(|table| is_reshaped(&pinned.table, table));
            let were_taken_out = covered.generation < *cut;
            covered.id != source.id || have_left || were_taken_out || is_reshaped
        })
    }

    /// The query for datasets as they stand and for this version. Tables stay as they were pinned, unless their dataset was
    /// made anew or its lines are read otherwise.
    fn restated(&self, seen: &[Seen], version: &str) -> Query {
        let mut query = self.query.clone();
        for ((table, covered), seen) in query.tables.iter_mut().zip(&self.covered).zip(seen) {
            let mut changed = query.version != version;
            if let Some(Standing {
                source,
                table: Some(now),
                ..
            }) = seen
                && (source.id != covered.id || is_reshaped(&table.table, now))
                && table.table != *now
            {
                table.table = now.clone();
                changed = true;
            }
            if changed {
                // What is recorded of blocks under the fingerprint was computed otherwise.
                table.lower_half = table.lower_half.as_deref().map(|half| {
                    let half = half.split('/').next().unwrap_or_default();
                    let how = format!("{version} {:?}", table.table);
                    let digest = blake3::hash(how.as_bytes()).to_hex();
                    format!("{half}/{}", &digest[..16])
                });
            }
        }
        query.version = version.to_string();
        query
    }
}

/// Whether the lines of a dataset mean something else since its table was pinned: of separated values, where the number
/// of values in a line tells whether it parses. Of all others new columns change nothing for the old ones.
fn is_reshaped(pinned: &Table, now: &Table) -> bool {
    let is_separated = matches!(pinned.format, Format::Separated { .. });
    is_separated && (pinned.columns.len() != now.columns.len() || pinned.least != now.least)
}

/// Whether a failure is one of the block, and not of the nodes that tried.
fn is_of_block(kind: FailureKind) -> bool {
    match kind {
        FailureKind::Start | FailureKind::Store | FailureKind::Refused | FailureKind::Away => false,
        FailureKind::Exit
        | FailureKind::Signal
        | FailureKind::Timeout
        | FailureKind::OutputLimit
        | FailureKind::Read
        | FailureKind::Missing
        | FailureKind::Changed
        | FailureKind::Query
        | FailureKind::Memory
        | FailureKind::Deaths => true,
    }
}
