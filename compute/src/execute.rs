//! Runs the subtasks of one entry, one after the other, and packs their ends for `/done`.

use std::time::Instant;

use engine::{Printed, Product, Stop, Subtask};
use model::{
    End, EntryName, FORMAT, Failure, FailureKind, Fingerprint, Name, Outcome, Output, Payload,
    limits::{ENTRY_BYTES, INLINE_SUBTASK_BYTES},
    znode::{DoneData, EntryData, OwnedData},
};
use storage::{Spill, Store};
use tokio_util::sync::CancellationToken;

use crate::said::Said;

/// What is left of [`ENTRY_BYTES`] for outputs, the rest being the frame around each of them.
const INLINE_ENTRY_BYTES: usize = ENTRY_BYTES / 4 * 3;

/// Outputs of one entry go into the block store together up to this many bytes.
const TOGETHER_BYTES: usize = 8 << 20;

/// The end of one subtask before it is decided where its output travels.
enum Ended {
    Printed {
        printed: Printed,
        fingerprint: Option<String>,
    },
    Other(Outcome),
}

/// What is recorded with an output.
struct Beside {
    fingerprint: Option<String>,
    stderr_tail: String,
}

impl Beside {
    fn ok(self, output: Output) -> Outcome {
        Outcome::Ok {
            output,
            fingerprint: self.fingerprint,
            stderr_tail: self.stderr_tail,
        }
    }
}

/// Runs `entry`; what is not done when `stop` is cancelled is handed back as returned.
pub(crate) async fn entry(
    engine: &engine::Engine,
    (store, said): (&Store, &Said),
    name: &EntryName,
    entry: EntryData,
    node: Name,
    stop: CancellationToken,
) -> DoneData {
    let begun = Instant::now();
    let mut ended = Vec::with_capacity(entry.run.count as usize);
    let at = entry.at();
    for (position, index) in entry.run.indexes().enumerate() {
        if stop.is_cancelled() {
            break;
        }
        let subtask = Subtask {
            job: entry.job,
            dataset: &name.dataset,
            table: at.table,
            incarnation: at.dataset,
            block: at.block + position as u32,
            index,
            attempt: entry.run.attempt,
        };
        let block = entry.blocks.get(position);
        let printed = match block {
            Some(block) => {
                engine
                    .run_block(subtask, &entry.processor, block, store, &stop)
                    .await
            }
            None => engine.run_merge(subtask, &entry.processor, store, &stop).await,
        };
        match printed {
            Ok(mut printed) => {
                printed.stderr_tail = said.kept(entry.job, printed.stderr_tail);
                let fingerprint = block
                    .filter(|_| entry.reuse)
                    .map(|block| Fingerprint::of(&entry.processor, at.table as usize, block).to_string());
                ended.push(Ended::Printed { printed, fingerprint });
            }
            Err(Stop::Failed(failure)) => {
                let skipped = block
                    .filter(|_| may_skip(&entry, &failure))
                    .and_then(|block| engine.left_out(subtask, &entry.processor, block));
                ended.push(match skipped {
                    // Nobody else is answered from it: the file may come back.
                    Some(product) => Ended::Printed {
                        printed: product.into(),
                        fingerprint: None,
                    },
                    None => Ended::Other(unsuccessful(&entry, failure)),
                });
            }
            Err(Stop::Cancelled) => break,
        }
    }
    let busy_us = u64::try_from(begun.elapsed().as_micros()).unwrap_or(u64::MAX);
    let mut ends = pack(store, name, &entry, ended).await;
    let done = ends.len() as u32;
    if done < entry.run.count {
        let (first, count) = (entry.run.first + done, entry.run.count - done);
        ends.push(End {
            first,
            count,
            outcome: Outcome::Returned,
        });
    }
    DoneData {
        v: FORMAT,
        job: entry.job,
        run: entry.run,
        past: entry.past.clone(),
        node: Some(node),
        busy_us,
        ends,
    }
}

/// What is recorded of an entry if running it panics: a failed attempt of each of its subtasks.
pub(crate) fn panicked(entry: &EntryData, node: &Name) -> DoneData {
    let message = "running it panicked on the node: its log has the place; please report it";
    let outcome = unsuccessful(entry, Failure::new(FailureKind::Start, message));
    DoneData::all(&OwnedData::from(entry), Some(node.clone()), outcome)
}

/// Whether a block is left out instead of failing. Once it has failed before, on another node where there is one: this
/// node may be the one that does not see the file.
fn may_skip(entry: &EntryData, failure: &Failure) -> bool {
    let last = entry.past.failed + 1 >= entry.max_attempts;
    let is_gone = matches!(failure.kind, FailureKind::Missing | FailureKind::Away);
    entry.skip_missing && is_gone && (last || entry.past.failed > 0)
}

fn unsuccessful(entry: &EntryData, failure: Failure) -> Outcome {
    if entry.past.failed + 1 >= entry.max_attempts || !failure.kind.is_worth_another() {
        Outcome::Dead(failure)
    } else {
        Outcome::Failed(failure)
    }
}

/// Small outputs travel inside the entry while they fit; all others go to the block store first, as one object.
async fn pack(store: &Store, name: &EntryName, entry: &EntryData, ended: Vec<Ended>) -> Vec<End> {
    let mut budget = INLINE_ENTRY_BYTES;
    let mut large = Vec::new();
    let mut ends: Vec<End> = Vec::with_capacity(ended.len());
    for (first, ended) in (entry.run.first..).zip(ended) {
        let outcome = match ended {
            Ended::Other(outcome) => {
                if let Outcome::Failed(failure) | Outcome::Dead(failure) = &outcome {
                    budget = budget.saturating_sub(failure.message.len() + failure.stderr_tail.len());
                }
                outcome
            }
            Ended::Printed { printed, fingerprint } => {
                let Printed { product, stderr_tail } = printed;
                budget = budget.saturating_sub(Payload::from(&*stderr_tail).written_bytes());
                let beside = Beside {
                    fingerprint,
                    stderr_tail,
                };
                match inline(product, &mut budget) {
                    Ok(output) => beside.ok(output),
                    Err(product) => {
                        large.push((ends.len(), product, beside));
                        UNTIL_STORED
                    }
                }
            }
        };
        ends.push(End {
            first,
            count: 1,
            outcome,
        });
    }
    if !large.is_empty() {
        store_large(store, name, entry, large, &mut ends).await;
    }
    ends
}

/// Stands for an output until it is stored; always overwritten.
const UNTIL_STORED: Outcome = Outcome::Returned;

/// An output that travels inside the entry, or the product back if it is too large for that.
fn inline(product: Product, budget: &mut usize) -> Result<Output, Product> {
    match product {
        Product::Memory(bytes) if bytes.len() <= INLINE_SUBTASK_BYTES => {
            let payload = Payload(bytes);
            let written = payload.written_bytes();
            if written > *budget {
                return Err(Product::Memory(payload.0));
            }
            *budget -= written;
            Ok(Output::Inline(payload))
        }
        product => Err(product),
    }
}

async fn store_large(
    store: &Store,
    name: &EntryName,
    entry: &EntryData,
    large: Vec<(usize, Product, Beside)>,
    ends: &mut [End],
) {
    let object = format!("{}-{}-{}", name.sequence, entry.run.first, entry.run.attempt);
    let (places, products): (Vec<_>, Vec<_>) = large
        .into_iter()
        .map(|(place, product, beside)| ((place, beside), product))
        .unzip();
    let outputs = store_outputs(store, entry, &object, products).await;
    match outputs {
        Ok(outputs) => {
            for ((place, beside), output) in places.into_iter().zip(outputs) {
                ends[place].outcome = beside.ok(output);
            }
        }
        Err(failure) => {
            for (place, _) in places {
                ends[place].outcome = unsuccessful(entry, failure.clone());
            }
        }
    }
}

/// Stores outputs in order: small ones together in one object, files each in one of its own.
async fn store_outputs(
    store: &Store,
    entry: &EntryData,
    object: &str,
    products: Vec<Product>,
) -> Result<Vec<Output>, Failure> {
    let failed =
        |failure: storage::Error| Failure::new(FailureKind::Store, format!("storing the output: {failure}"));
    let mut outputs = Vec::with_capacity(products.len());
    let mut together: Vec<u8> = Vec::new();
    let mut waiting: Vec<(usize, u64, u64)> = Vec::new();
    let count = products.len();
    for (position, product) in products.into_iter().enumerate() {
        match product {
            Product::Memory(bytes) => {
                waiting.push((position, together.len() as u64, bytes.len() as u64));
                together.extend(bytes);
            }
            Product::File { file, .. } => {
                let name = format!("{object}-{position}");
                let spill = Spill::File(file);
                outputs.push((
                    position,
                    store.put_output(entry.job, &name, spill).await.map_err(failed)?,
                ));
            }
        }
        let last = position + 1 == count;
        if !waiting.is_empty() && (last || together.len() >= TOGETHER_BYTES) {
            let name = format!("{object}-{position}-all");
            let spill = Spill::Bytes(std::mem::take(&mut together));
            let whole = store.put_output(entry.job, &name, spill).await.map_err(failed)?;
            for (position, start, length) in waiting.drain(..) {
                outputs.push((position, slice(&whole, start, length)));
            }
        }
    }
    outputs.sort_unstable_by_key(|(position, _)| *position);
    Ok(outputs.into_iter().map(|(_, output)| output).collect())
}

fn slice(whole: &Output, from: u64, length: u64) -> Output {
    match whole {
        Output::Stored { object, start, .. } => Output::Stored {
            object: object.clone(),
            start: start + from,
            length,
        },
        Output::Inline(payload) => {
            let from = usize::try_from(from).unwrap_or(usize::MAX).min(payload.0.len());
            let to = from
                .saturating_add(usize::try_from(length).unwrap_or(usize::MAX))
                .min(payload.0.len());
            Output::Inline(Payload(payload.0[from..to].to_vec()))
        }
    }
}

#[cfg(test)]
mod tests {
    use model::{Block, JobId, Processor, outcome::Run};

    use super::*;

    #[test]
    fn a_panic_spends_an_attempt_of_every_subtask() {
        let node = Name::new("n").unwrap();
        let mut entry = EntryData {
            v: FORMAT,
            job: JobId("0190b5d6-0000-7000-8000-000000000000".parse().unwrap()),
            run: Run {
                first: 3,
                count: 2,
                attempt: 1,
            },
            past: Default::default(),
            processor: Processor::Noop,
            max_attempts: 2,
            reuse: false,
            skip_missing: false,
            avoid: Vec::new(),
            at: None,
            blocks: vec![Block::inline("a"), Block::inline("b")],
        };
        let done = panicked(&entry, &node);
        assert!(
            done.is_whole() && matches!(done.ends[0].outcome, Outcome::Failed(_)),
            "{done:?}"
        );
        entry.past.failed = 1;
        assert!(matches!(
            panicked(&entry, &node).ends[0].outcome,
            Outcome::Dead(_)
        ));
    }
}
