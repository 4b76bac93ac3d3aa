//! From a portion of a job to the entry that is fed.

use coordination::{NewEntry, Place};
use model::{
    Block, End, FORMAT, JobId, JobState, Name, Outcome,
    ledger::Portion,
    limits::{COMMAND_BYTES, ENTRY_BYTES},
    outcome::Run,
    znode,
    znode::{DoneData, EntryData},
};

use crate::{
    active::{Active, Ending},
    feeding::Planned,
};

/// What blocks may take of an entry; the rest is for the processor and the frame.
const BLOCK_BYTES: usize = ENTRY_BYTES - COMMAND_BYTES - 8 * 1024;
/// What a block takes in an entry beside its own bytes and URL.
const BLOCK_FRAME_BYTES: usize = 160;

impl Active {
    /// Whether something could be fed.
    pub(crate) fn may_feed(&self, now: std::time::Duration) -> bool {
        self.ledger.next_retry().is_some_and(|due| due <= now) || !self.ledger.only_retries()
    }

    /// Whether all blocks of a portion are there; without them the job can't go on, and is ended with the reason.
    pub(crate) fn is_complete(&mut self, portion: &Portion, blocks: &[Block]) -> bool {
        let run = portion.run;
        let is_merge = run.first == self.job.blocks;
        if is_merge || blocks.len() == run.count as usize {
            return true;
        }
        let (first, last) = (run.first, run.end() - 1);
        let error = format!(
            "blocks {first} to {last} of dataset {} are gone from MongoDB",
            self.job.spec.dataset
        );
        self.ending = Some(Ending {
            state: JobState::Failed,
            error: Some(error),
        });
        false
    }

    /// Shortens a portion whose blocks do not fit into one entry.
    pub(crate) fn trim(&mut self, portion: Portion, mut blocks: Vec<Block>) -> (Portion, Vec<Block>) {
        let mut bytes = 0;
        let fitting = blocks.iter().take_while(|block| {
            bytes += BLOCK_FRAME_BYTES + block.written_bytes();
            bytes <= BLOCK_BYTES
        });
        let count = fitting.count().max(1);
        if count >= blocks.len() || portion.past.alone() {
            return (portion, blocks);
        }
        blocks.truncate(count);
        let count = count as u32;
        let rest = Run {
            first: portion.run.first + count,
            count: portion.run.count - count,
            ..portion.run
        };
        self.ledger.put_back_portion(Portion {
            run: rest,
            ..portion.clone()
        });
        (
            Portion {
                run: Run { count, ..portion.run },
                ..portion
            },
            blocks,
        )
    }

    /// The entry of a portion, for `/unowned`.
    pub(crate) fn entry(&self, portion: &Portion, blocks: Vec<Block>, workers: usize) -> Planned {
        let avoid: Vec<Name> = portion.avoid.iter().filter(|_| workers > 1).cloned().collect();
        let data = EntryData {
            v: FORMAT,
            job: self.job.id,
            run: portion.run,
            past: portion.past,
            processor: self.job.spec.processor.clone(),
            max_attempts: self.job.spec.retry.max_attempts,
            reuse: self.job.spec.reuse,
            avoid,
            blocks,
        };
        self.planned(portion, Place::Unowned, znode::encode(&data))
    }

    /// The entry of a portion that is answered by recorded results, for `/done`.
    pub(crate) fn answer(&self, portion: &Portion, ends: &[(u32, JobId, u32)], waited: bool) -> Planned {
        let ends = ends
            .iter()
            .map(|&(first, job, index)| End {
                first,
                count: 1,
                outcome: Outcome::Reused { job, index, waited },
            })
            .collect();
        let data = DoneData {
            v: FORMAT,
            job: self.job.id,
            run: portion.run,
            past: portion.past,
            node: None,
            busy_us: 0,
            ends,
        };
        self.planned(portion, Place::Done, znode::encode(&data))
    }

    fn planned(&self, portion: &Portion, place: Place, data: Vec<u8>) -> Planned {
        let spec = &self.job.spec;
        let (priority, dataset, spot) = (spec.priority, spec.dataset.clone(), self.spot(portion));
        let entry = NewEntry {
            priority,
            dataset,
            spot,
            place,
            data,
        };
        Planned {
            turn: self.turn(),
            run: portion.run,
            entry,
        }
    }
}
