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
const BLOCK_FRAME_BYTES: usize = 240;

/// Bytes of blocks that go into one entry of a query before it is known how long its blocks take: about a tenth of a second.
const GUESSED_BYTES: u64 = 128 << 20;
/// Nodes that keep all of these blocks, in the order of the first; none where all nodes reach all of them alike.
fn common_hosts(blocks: &[Block]) -> Vec<Name> {
    let mut blocks = blocks.iter();
    let mut common = blocks.next().map(Block::hosts).unwrap_or_default();
    for block in blocks {
        if common.is_empty() {
            break;
        }
        let hosts = block.hosts();
        common.retain(|host| hosts.contains(host));
    }
    common
}

/// How many of the first blocks some node keeps all of, or nodes keep none of.
fn kept_together(blocks: &[Block]) -> usize {
    let mut common = blocks.first().map(Block::hosts).unwrap_or_default();
    if common.is_empty() {
        return blocks.iter().take_while(|block| block.hosts().is_empty()).count();
    }
    let together = blocks.iter().take_while(|block| {
        let hosts = block.hosts();
        common.retain(|host| hosts.contains(host));
        !common.is_empty()
    });
    together.count()
}

/// The node that an entry over these blocks is meant for: one that keeps all of them and lives, and has not failed it.
fn host_of(blocks: &[Block], live: &[Name], avoid: &[Name]) -> Option<Name> {
    let hosts = common_hosts(blocks);
    let good = hosts
        .iter()
        .find(|host| live.contains(host) && !avoid.contains(host));
    good.cloned()
}

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
        self.ending = Some(Ending::new(JobState::Failed, Some(error)));
        false
    }

    /// Shortens a portion that goes on behind the end of a part: the blocks of an entry follow one another in one dataset.
    pub(crate) fn within_part(&mut self, portion: Portion) -> Portion {
        match self.job.parts.at(portion.run.first) {
            Some(place) if place.left < portion.run.count => self.shorten(portion, place.left),
            _ => portion,
        }
    }

    /// How many of these blocks, from the first on, go into one entry of at most `most` subtasks; at least one.
    pub(crate) fn fitting(&self, blocks: &[Block], most: u32) -> usize {
        let (mut bytes, mut to_read) = (0, 0);
        let most_to_read = if self.is_guessed() {
            GUESSED_BYTES
        } else {
            u64::MAX
        };
        let together = kept_together(blocks).min(most as usize);
        let fitting = blocks.iter().take(together).take_while(|block| {
            bytes += BLOCK_FRAME_BYTES + block.written_bytes();
            to_read += bytes_to_read(block);
            bytes <= BLOCK_BYTES && to_read <= most_to_read
        });
        fitting.count().max(1)
    }

    /// Shortens a portion to what goes into one entry of at most `most` subtasks. One that runs alone stays as it was.
    pub(crate) fn trim(
        &mut self,
        portion: Portion,
        mut blocks: Vec<Block>,
        most: u32,
    ) -> (Portion, Vec<Block>) {
        let count = self.fitting(&blocks, most);
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
    pub(crate) fn entry(
        &self,
        portion: &Portion,
        blocks: Vec<Block>,
        (workers, live): (usize, &[Name]),
    ) -> Planned {
        let avoid: Vec<Name> = portion.avoid.iter().filter(|_| workers > 1).cloned().collect();
        let host = host_of(&blocks, live, &avoid);
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
            past: portion.past.clone(),
            processor: self.job.spec.processor.clone(),
            max_attempts: self.job.spec.retry.max_attempts,
            reuse: self.job.spec.reuse,
            skip_missing: self.job.spec.skip_missing,
            avoid,
            at,
            blocks,
        };
        self.planned(portion, host, Place::Unowned, znode::encode(&data))
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
            past: portion.past.clone(),
            node: None,
            busy_us: 0,
            ends,
        };
        self.planned(portion, None, Place::Done, znode::encode(&data))
    }

    fn planned(&self, portion: &Portion, host: Option<Name>, place: Place, data: Vec<u8>) -> Planned {
        let (dataset, spot) = self.subject(portion);
        let entry = NewEntry {
            priority: self.job.spec.priority,
            dataset,
            spot,
            host,
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

#[cfg(test)]
mod tests {
    use model::limits::BUNDLE_SUBTASKS;

    use super::*;

    fn block(hosts: &str) -> Block {
        let key = "blocks/m/d/a/00000000-0000-4000-8000-00000000000a/000000000001.zst";
        let url = match hosts {
            "" => "file:///x".to_string(),
            hosts => format!("node://{hosts}/{key}"),
        };
        Block {
            content: Content::Object {
                url,
                start: 0,
                end: 1,
                codec: Codec::Zstd,
                size: 1,
                mtime_ms: 0,
                mark: None,
            },
            checksum: None,
            raw_bytes: None,
            made: None,
            registered_ms: None,
        }
    }

    #[test]
    fn the_largest_entry_of_answers_fits() {
        let end = |index| End {
            first: u32::MAX - index,
            count: 1,
            outcome: Outcome::Reused {
                job: JobId(uuid::Uuid::max()),
                index: u32::MAX,
                waited: false,
            },
        };
        let ends: Vec<End> = (0..BUNDLE_SUBTASKS).map(end).collect();
        let data = DoneData {
            v: FORMAT,
            job: JobId(uuid::Uuid::max()),
            run: Run {
                first: u32::MAX,
                count: BUNDLE_SUBTASKS,
                attempt: u32::MAX,
            },
            past: Default::default(),
            node: None,
            busy_us: u64::MAX,
            ends,
        };
        assert!(znode::encode(&data).len() <= ENTRY_BYTES);
    }

    #[test]
    fn blocks_of_one_entry_have_a_node_in_common() {
        let names =
            |names: &[&str]| -> Vec<Name> { names.iter().map(|name| Name::new(*name).unwrap()).collect() };
        for (blocks, together, host) in [
            (vec!["a", "a", "b"], 2, Some("a")),
            (vec!["a,b", "b,c", "c,a"], 2, Some("b")),
            (vec!["", "", "a"], 2, None),
            (vec!["a", ""], 1, Some("a")),
            (vec!["x", "x"], 2, None),
            (vec!["x,b"], 1, Some("b")),
            (vec![], 0, None),
        ] {
            let blocks: Vec<Block> = blocks.into_iter().map(block).collect();
            assert_eq!(kept_together(&blocks), together, "{blocks:?}");
            let live = names(&["a", "b", "c"]);
            let found = host_of(&blocks[..together], &live, &[]);
            assert_eq!(found.as_ref().map(Name::as_str), host, "{blocks:?}");
        }
        let blocks = [block("a,b")];
        assert_eq!(
            host_of(&blocks, &names(&["a", "b"]), &names(&["a"]))
                .unwrap()
                .as_str(),
            "b"
        );
    }
}
