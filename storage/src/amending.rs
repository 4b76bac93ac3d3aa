//! Changes of the blocks of a dataset that are more than blocks behind its last: some are taken out, or come back.
//!
//! Pages are never changed. A block that is taken out is covered by a void one from a generation on, as small blocks are by
//! the one that they were merged into ([`crate::compacted`]); a block that comes back covers that again. So jobs go on to
//! read what they were submitted over.
//!
//! What `sawmill dataset add` did last is kept in the document of the dataset, as far as it takes to take it back.

use std::ops::Range;

use bson::{Bson, Document, doc};
use model::{Block, compaction::MOST_SPAN, table::Table};
use serde::{Deserialize, Serialize};

use crate::{
    Dataset, Error, Store,
    compacted::Cover,
    datasets::{Page, concurrent, portions, unknown},
    leaving::as_read,
    schema::{COMPACTED, TAKEN_OUT_FORMAT, signed},
};

/// Covers that are written by one command.
const COVERS_TOGETHER: usize = 10_000;

/// What is to change of the blocks of a dataset at once.
#[derive(Clone, Debug, Default)]
pub struct Amendment {
    /// Blocks that are taken out, with their numbers, in order.
    pub out: Vec<(u32, Block)>,
    /// Blocks that were taken out and come back, with the numbers that they had.
    pub back: Vec<(u32, Block)>,
    /// Blocks that come behind the last one.
    pub added: Vec<Block>,
}

/// What was added last to a dataset, and what that was before.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Revision {
    /// Number of the first block that was added.
    pub first: u32,
    /// One past that of the last.
    pub until: u32,
    /// Numbers of the blocks that were taken out for them.
    #[serde(default)]
    pub out: Vec<u32>,
    /// The generation of the dataset since.
    pub generation: u32,
    /// How often its table had changed since.
    pub table_revision: u64,
    /// How its lines became rows before, and why.
    #[serde(default)]
    pub table: Option<Table>,
    /// See there.
    #[serde(default)]
    pub table_why: Option<String>,
    /// Whether there was no dataset before.
    #[serde(default)]
    pub made: bool,
}

impl Revision {
    /// Why it can't be taken back, if something else has changed of its dataset since.
    pub fn obstacle(&self, now: &Dataset) -> Option<&'static str> {
        if now.blocks != self.until {
            Some("blocks were added since by somebody else, an agent perhaps")
        } else if now.generation != self.generation {
            Some("blocks of it were merged or taken out since")
        } else if now.first > self.first {
            Some("blocks that it added have left since")
        } else if now.table_revision != self.table_revision {
            Some("the types of its columns were changed since")
        } else {
            None
        }
    }
}

/// What becomes of the revision that is kept with a dataset.
enum Last<'a> {
    /// This one is, and how far it has come.
    Keep(&'a mut Revision),
    /// None is.
    Forget,
    /// It is taken back, and its table with it.
    TakeBack(&'a Revision),
}

impl Store {
    /// Adds blocks, and takes out others in their place, as one revision that can be taken back; `before` is the dataset as
    /// it was before anything was done for that, none where there was none. Large lists go in several transactions: after
    /// an error the first of them may be there.
    ///
    /// # Errors
    /// [`Error::NotFound`]; [`Error::Concurrent`] where the numbers of blocks mean something else since `dataset` was read;
    /// [`Error::Mongo`].
    pub async fn revise(
        &self,
        dataset: &Dataset,
        amendment: &Amendment,
        before: Option<&Dataset>,
    ) -> Result<(), Error> {
        let mut revision = Revision {
            first: dataset.blocks,
            until: dataset.blocks,
            out: amendment.out.iter().map(|(number, _)| *number).collect(),
            generation: dataset.generation,
            table_revision: dataset.table_revision,
            table: before.and_then(|before| before.table.clone()),
            table_why: before.and_then(|before| before.table_why.clone()),
            made: before.is_none(),
        };
        let mut portions = portions(&amendment.added)?.into_iter();
        let first = portions.next().unwrap_or_default();
        self.amend(dataset, amendment, &first, Last::Keep(&mut revision))
            .await?;
        for portion in portions {
            let more = Amendment::default();
            self.amend(dataset, &more, &portion, Last::Keep(&mut revision))
                .await?;
        }
        Ok(())
    }

    /// Takes blocks out of a dataset as it was read; what was added last can then not be taken back any more.
    ///
    /// # Errors
    /// As [`Store::revise`].
    pub async fn take_out(&self, dataset: &Dataset, out: Vec<(u32, Block)>) -> Result<(), Error> {
        let amendment = Amendment {
            out,
            ..Amendment::default()
        };
        self.amend(dataset, &amendment, &[], Last::Forget).await
    }

    /// Takes back what was added last to a dataset as it was read: its blocks go out, those that went out for them come
    /// back, and its table is what it was. A dataset that was made so is removed.
    ///
    /// # Errors
    /// [`Error::Irrevocable`] with the reason; as [`Store::revise`] and [`Store::remove`].
    pub async fn take_back(&self, dataset: &Dataset) -> Result<(), Error> {
        let irrevocable = |why: &'static str| Error::Irrevocable {
            name: dataset.name.to_string(),
            why,
        };
        let Some(revision) = &dataset.last else {
            return Err(irrevocable("the last that was done to it was not to add files"));
        };
        if let Some(why) = revision.obstacle(dataset) {
            return Err(irrevocable(why));
        }
        if revision.made {
            return self.remove(&dataset.name).await;
        }
        let added = self
            .numbered(dataset.edition(), revision.first..revision.until)
            .await?;
        let mut back = Vec::with_capacity(revision.out.len());
        for run in runs(revision.out.iter().copied()) {
            let blocks = self.appended(dataset.id, run.clone()).await?;
            back.extend(run.zip(blocks).filter(|(number, _)| *number >= dataset.first));
        }
        let amendment = Amendment {
            out: added.blocks,
            back,
            added: Vec::new(),
        };
        self.amend(dataset, &amendment, &[], Last::TakeBack(revision))
            .await
    }

    /// Does it in one transaction, with `pages` behind the last block.
    async fn amend(
        &self,
        dataset: &Dataset,
        amendment: &Amendment,
        pages: &[Page],
        mut last: Last<'_>,
    ) -> Result<(), Error> {
        let name = &dataset.name;
        let doing = format!("changing dataset {name}");
        let covers = amendment.covers(dataset.generation + 1, self.now_ms().await?);
        let covers = covers.iter().map(|cover| cover.document(dataset.id));
        let covers = covers.collect::<Result<Vec<_>, _>>()?;
        let until = match &last {
            Last::Keep(revision) => Some(revision.until),
            Last::Forget | Last::TakeBack(_) => None,
        };
        let amending = async {
            let mut transaction = self.transaction(&doing);
            loop {
                let now = self.get(name).await?.filter(|now| now.id == dataset.id);
                let now = now.ok_or_else(|| unknown(name))?;
                let is_renumbered = (now.generation, now.first) != (dataset.generation, dataset.first);
                if !covers.is_empty() && is_renumbered {
                    return Err(concurrent(name));
                }
                let mut change = amendment.change(&now, pages);
                match &mut last {
                    // What others added at the same time must not be taken back with it.
                    Last::Keep(revision) if until == Some(now.blocks) => {
                        revision.until = now.blocks + Page::count(pages);
                        revision.generation = now.generation + u32::from(!covers.is_empty());
                        let kept = bson::serialize_to_document(revision).map_err(|why| Error::Decode {
                            what: format!("what was added to dataset {name}"),
                            why: why.to_string(),
                        })?;
                        change.set.insert("last", kept);
                    }
                    Last::Keep(_) | Last::Forget => drop(change.unset.insert("last", 1)),
                    Last::TakeBack(revision) => {
                        change.unset.insert("last", 1);
                        change.put_table(&now, revision)?;
                    }
                }
                let session = transaction.begin().await?;
                let changed = async {
                    let is_there = self
                        .change_in(&mut *session, &now, pages, change.filter(&now), change.update())
                        .await?;
                    if is_there {
                        for some in covers.chunks(COVERS_TOGETHER) {
                            let compacted = self.raw(COMPACTED);
                            compacted.insert_many(some).session(&mut *session).await?;
                        }
                    }
                    Ok(is_there)
                };
                let step = self.appended_step(changed.await, (), name, &doing);
                if let Some(()) = transaction.end(step).await? {
                    return Ok(());
                }
            }
        };
        self.patiently(amending).await
    }
}

/// What is to be written to the document of a dataset.
struct Change {
    set: Document,
    unset: Document,
    inc: Document,
    /// Whether numbers of blocks come to mean something else.
    renumbers: bool,
}

impl Change {
    /// Only as it was read.
    fn filter(&self, now: &Dataset) -> Document {
        match self.renumbers {
            true => doc! { "generation": as_read(now.generation), "first": as_read(now.first) },
            false => Document::new(),
        }
    }

    fn update(self) -> Document {
        let mut update = doc! { "$set": self.set, "$inc": self.inc };
        if !self.unset.is_empty() {
            update.insert("$unset", self.unset);
        }
        if self.renumbers {
            update.insert("$max", doc! { "v": TAKEN_OUT_FORMAT });
        }
        update
    }

    fn put_table(&mut self, now: &Dataset, revision: &Revision) -> Result<(), Error> {
        if now.table == revision.table {
            return Ok(());
        }
        self.set.insert("table_revision", signed(now.table_revision + 1));
        let table = revision.table.as_ref().map(bson::serialize_to_bson);
        let table = table.transpose().map_err(|why| Error::Decode {
            what: format!("the table of dataset {}", now.name),
            why: why.to_string(),
        })?;
        let why = revision.table_why.clone().map(Bson::from);
        for (field, value) in [("table", table), ("table_why", why)] {
            match value {
                Some(value) => drop(self.set.insert(field, value)),
                None => drop(self.unset.insert(field, 1)),
            }
        }
        Ok(())
    }
}

impl Amendment {
    fn change(&self, now: &Dataset, pages: &[Page]) -> Change {
        let bytes = |blocks: &[(u32, Block)]| {
            let bytes: u64 = blocks.iter().map(|(_, block)| block.stored_bytes()).sum();
            signed(bytes)
        };
        let added: u64 = pages.iter().map(|page| page.stored_bytes).sum();
        let bytes = signed(added) + bytes(&self.back) - bytes(&self.out);
        let mut set = doc! { "blocks": i64::from(now.blocks + Page::count(pages)) };
        let mut inc = doc! { "bytes": bytes };
        let renumbers = !self.out.is_empty() || !self.back.is_empty();
        if renumbers {
            let generation = i64::from(now.generation + 1);
            set.insert("generation", generation);
            set.insert("cut", generation);
            let void = signed(self.out.len() as u64) - signed(self.back.len() as u64);
            inc.insert("void", void);
        }
        Change {
            set,
            unset: Document::new(),
            inc,
            renumbers,
        }
    }

    fn covers(&self, generation: u32, since_ms: i64) -> Vec<Cover> {
        let cover = |range: Range<u32>, block: &Block| Cover {
            at: range.start,
            range,
            generation,
            since_ms,
            block: block.clone(),
        };
        let out = runs(self.out.iter().map(|(number, _)| *number));
        let void = Block::void();
        let out = out.into_iter().map(|run| cover(run, &void));
        let back = self.back.iter();
        let back = back.map(|(number, block)| cover(*number..number + 1, block));
        out.chain(back).collect()
    }
}

/// Runs of numbers that follow one another, none longer than a cover may be.
fn runs(numbers: impl Iterator<Item = u32>) -> Vec<Range<u32>> {
    let mut runs: Vec<Range<u32>> = Vec::new();
    for number in numbers {
        match runs.last_mut() {
            Some(run) if run.end == number && number - run.start < MOST_SPAN => run.end += 1,
            _ => runs.push(number..number + 1),
        }
    }
    runs
}
