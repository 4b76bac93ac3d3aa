//! From a portion of a job to the entry that is fed.

use coordination::{NewEntry, Place};
use model::{
    Block, Codec, Content, End, FORMAT, JobId, JobState, Name, Outcome, Processor, Spot,
    ledger::Portion,
    limits::{COMMAND_BYTES, ENTRY_BYTES},
    outcome::Run,
    znode,
    znode::{At, DoneData, EntryData},
};

use crate::{
    active::{Active, Ending},
    feeding::Planned,
};

/// What blocks may take of an entry; the rest is for the processor and the frame.
const BLOCK_BYTES: usize = ENTRY_BYTES - COMMAND_BYTES - 8 * 1024;
/// What a block takes in an entry beside its own bytes and URL.
const BLOCK_FRAME_BYTES: usize = 160;

/// Bytes of blocks that go into one entry of a query before it is known how long its blocks take: about a tenth of a second.
const GUESSED_BYTES: u64 = 128 << 20;
/// What a compressed block is guessed to become, as a multiple.
const DECOMPRESSED: u64 = 8;

/// Bytes of lines in a block, as far as can be told without reading it.
fn bytes_to_read(block: &Block) -> u64 {
    match &block.content {
        Content::Object {
            codec: Codec::None, ..
        }
        | Content::Inline(_) => block.stored_bytes(),
        Content::Object { .. } => block.stored_bytes().saturating_mul(DECOMPRESSED),
    }
}

impl Active {
    /// Whether something could be fed.
    pub(crate) fn may_feed(&self, now: std::time::Duration) -> bool {
        self.ledger.next_retry().is_some_and(|due| due <= now) || !self.ledger.only_retries()
    }

    /// Whether all blocks of a portion are there; without them the job can't go on, and is ended with the reason.
    pub(crate) fn is_complete(&mut self, portion: &Portion, blocks: &[Block]) -> bool {
        let run = portion.run;
        let (dataset, spot) = self.subject(portion);
        let Spot::Block(first) = spot else {
            return true;
        };
        if blocks.len() == run.count as usize {
            return true;
        }
        let last = first + run.count - 1;
        let error = format!("blocks {first} to {last} of dataset {dataset} are gone from MongoDB");
        self.ending = Some(Ending {
            state: JobState::Failed,
            error: Some(error),
        });
        false
    }

    /// Shortens a portion that goes on behind the end of a part: the blocks of an entry follow one another in one dataset.
    pub(crate) fn within_part(&mut self, portion: Portion) -> Portion {
        match self.job.parts.at(portion.run.first) {
            Some(place) if place.left < portion.run.count => self.shorten(portion, place.left),
            _ => portion,
        }
    }

    /// Shortens a portion whose blocks do not fit into one entry.
    pub(crate) fn trim(&mut self, portion: Portion, mut blocks: Vec<Block>) -> (Portion, Vec<Block>) {
        let (mut bytes, mut to_read) = (0, 0);
        let most_to_read = if self.is_guessed() {
            GUESSED_BYTES
        } else {
            u64::MAX
        };
        let fitting = blocks.iter().take_while(|block| {
            bytes += BLOCK_FRAME_BYTES + block.written_bytes();
            to_read += bytes_to_read(block);
            bytes <= BLOCK_BYTES && to_read <= most_to_read
        });
        let count = fitting.count().max(1);
        if count >= blocks.len() || portion.past.alone() {
            return (portion, blocks);
        }
        blocks.truncate(count);
        (self.shorten(portion, count as u32), blocks)
    }

    /// The first `count` subtasks of a portion; the rest goes back into the book.
    fn shorten(&mut self, portion: Portion, count: u32) -> Portion {
        let rest = Run {
            first: portion.run.first + count,
            count: portion.run.count - count,
            ..portion.run
        };
        self.ledger.put_back_portion(Portion {
            run: rest,
            ..portion.clone()
        });
        Portion {
            run: Run { count, ..portion.run },
            ..portion
        }
    }

    /// The entry of a portion, for `/unowned`.
    pub(crate) fn entry(&self, portion: &Portion, blocks: Vec<Block>, workers: usize) -> Planned {
        let avoid: Vec<Name> = portion.avoid.iter().filter(|_| workers > 1).cloned().collect();
        let is_query = matches!(self.job.spec.processor, Processor::Query(_));
        let at = self.job.parts.at(portion.run.first).map(|place| At {
            table: place.table,
            block: place.block,
            dataset: is_query.then_some(place.dataset),
        });
        // Left out where it says nothing, as it always was.
        let usual = At {
            table: 0,
            block: portion.run.first,
            dataset: None,
        };
        let at = at.filter(|at| *at != usual);
        let data = EntryData {
            v: FORMAT,
            job: self.job.id,
            run: portion.run,
            past: portion.past,
            processor: self.job.spec.processor.clone(),
            max_attempts: self.job.spec.retry.max_attempts,
            reuse: self.job.spec.reuse,
            skip_missing: self.job.spec.skip_missing,
            avoid,
            at,
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
        let (dataset, spot) = self.subject(portion);
        let entry = NewEntry {
            priority: self.job.spec.priority,
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
