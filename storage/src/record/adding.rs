//! What ends make of a job: pure.

use bson::{RawDocument, RawDocumentBuf, cstr, rawdoc};
use model::{Counts, JobState, lifecycle};

use crate::{
    leadership::counts,
    prepare::{Effect, Piece},
    schema::{narrow, signed},
};

/// What the recorder must know of a job.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Standing {
    pub(super) blocks: u32,
    pub(super) merges: bool,
    pub(super) state: JobState,
    pub(super) counts: Counts,
    pub(super) has_error: bool,
}

/// The fields that [`Standing::read`] reads.
pub(super) fn projection() -> RawDocumentBuf {
    rawdoc! { "blocks": 1, "merges": 1, "state": 1, "counts": 1, "error": 1 }
}

impl Standing {
    /// Reads a job; none for one that can't be read, which is left alone.
    pub(super) fn read(job: &RawDocument) -> Option<Self> {
        Some(Self {
            blocks: narrow(job, "blocks")?,
            merges: job.get_bool("merges").unwrap_or(false),
            state: job.get_str("state").ok()?.parse().ok()?,
            counts: counts(job),
            has_error: job.get_str("error").is_ok(),
        })
    }

    /// Adds to `update` what to set once `counts` are what is recorded: the state, with a final one the time by MongoDB's
    /// clock and how many never ran, and the reason of the first final failure. Nothing when nothing changes.
    pub(super) fn add_changes(&self, counts: &Counts, pieces: &[&Piece], update: &mut RawDocumentBuf) {
        let mut set = RawDocumentBuf::new();
        let (state, cancelled) = lifecycle::verdict(counts, self.blocks, self.merges);
        if state != self.state {
            set.append(cstr!("state"), state.as_str());
        }
        if state.is_final() {
            update.append(cstr!("$currentDate"), rawdoc! { "finished_at": true });
            set.append(cstr!("counts.cancelled"), signed(cancelled));
        }
        if !self.has_error
            && let Some(reason) = self.first_reason(pieces)
        {
            set.append(cstr!("error"), reason);
        }
        if !set.is_empty() {
            update.append(cstr!("$set"), set);
        }
    }

    fn first_reason(&self, pieces: &[&Piece]) -> Option<String> {
        let dead = pieces.iter().filter_map(|piece| match &piece.effect {
            Effect::Dead { index, reason } => Some((*index, reason)),
            _ => None,
        });
        let (index, reason) = dead.min_by_key(|(index, _)| *index)?;
        if reason.starts_with("block ") {
            // Of a query that reads some blocks of several datasets: it knows better which one that is.
            return Some(reason.to_string());
        }
        let what = if index >= self.blocks {
            "merge".to_string()
        } else {
            format!("block {index}")
        };
        Some(format!("{what}: {reason}"))
    }
}

/// What all the ends add.
pub(super) fn sum(pieces: &[&Piece]) -> Counts {
    let mut all = Counts::default();
    for piece in pieces {
        all.add(&piece.adds());
    }
    all
}

/// The update that adds `counts`; members that are 0 are left out.
pub(super) fn increments(counts: &Counts) -> RawDocumentBuf {
    let mut inc = RawDocumentBuf::new();
    let members = [
        (cstr!("counts.ok"), counts.ok),
        (cstr!("counts.failed"), counts.failed),
        (cstr!("counts.again"), counts.again),
        (cstr!("counts.already"), counts.already),
        (cstr!("counts.executed"), counts.executed),
        (cstr!("counts.busy_us"), counts.busy_us),
    ];
    for (key, value) in members {
        if value > 0 {
            inc.append(key, signed(value));
        }
    }
    if inc.is_empty() {
        // `$inc` of nothing is an error, and the update is what shows a conflict.
        inc.append(cstr!("counts.ok"), 0_i64);
    }
    inc
}
