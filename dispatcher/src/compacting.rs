//! Has runs of small blocks merged, one run at a time, beside everything else.
//!
//! What takes long, reading the blocks and writing the new object, is done by a task of its own. The leader's loop only
//! puts the new block in the place of the run, in one transaction; since it is the loop that looks after views as well, no
//! view goes on meanwhile. A term that ends takes its task with it; what that left behind the next leader removes.

use std::time::{Duration, Instant};

use storage::{Compaction, Cursors, Epoch, Error as Failed, Found, Store};
use tokio::task::JoinHandle;

use crate::{Error, leading::Leading};

/// Pause before datasets are looked at again where nothing was to be done.
const IDLE_PAUSE: Duration = Duration::from_secs(2);
/// Pause between two compactions: a store has other things to do too.
const BUSY_PAUSE: Duration = Duration::from_millis(50);
/// Pause after a store did not do what it should.
const FAILED_PAUSE: Duration = Duration::from_secs(30);
/// Pause before the same dataset is tried again where a view went on meanwhile.
const REFUSED_PAUSE: Duration = Duration::from_secs(1);
/// How often that may be so before a compaction that somebody asked for is taken to be done.
const REFUSALS: u32 = 20;
/// How often objects are looked for that leaders before left behind.
const SWEEP_INTERVAL: Duration = Duration::from_secs(3600);

/// The compaction that is under way, and when the next is looked for.
#[derive(Default)]
pub(crate) struct Compacting {
    task: Option<Task>,
    cursors: Option<Cursors>,
    not_before: Option<Instant>,
    swept_at: Option<Instant>,
    /// Compactions in a row that a view kept from being.
    refused: u32,
}

/// Ends with who holds it.
struct Task(JoinHandle<(Cursors, Result<Found, Failed>)>);

impl Drop for Task {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Compacting {
    fn pause(&mut self, pause: Duration) {
        self.not_before = Some(Instant::now() + pause);
    }
}

async fn look(
    store: Store,
    epoch: Epoch,
    mut cursors: Cursors,
    sweep: bool,
) -> (Cursors, Result<Found, Failed>) {
    if sweep {
        match store.sweep_compacted(epoch).await {
            Ok(0) => {}
            Ok(objects) => tracing::info!(objects, "removed what unfinished compactions left behind"),
            Err(error) => return (cursors, Err(error)),
        }
    }
    let found = match store.now_ms().await {
        Ok(now_ms) => store.find_compaction(epoch, &mut cursors, now_ms).await,
        Err(error) => Err(error),
    };
    (cursors, found)
}

impl Leading {
    /// Looks for a run of small blocks to merge, or puts the new block in its place. A store that fails only postpones.
    pub(crate) async fn compact(&mut self) -> Result<(), Error> {
        let compacting = &mut self.compacting;
        if let Some(mut task) = compacting.task.take_if(|task| task.0.is_finished()) {
            let Ok((cursors, found)) = (&mut task.0).await else {
                tracing::error!("looking for blocks to compact failed");
                compacting.pause(FAILED_PAUSE);
                return Ok(());
            };
            compacting.cursors = Some(cursors);
            let done = match found {
                Ok(found) => self.take(found).await,
                Err(error) => Err(error.into()),
            };
            match done {
                Ok(()) => {}
                Err(error) if error.is_deposed() => return Err(error),
                Err(error) => {
                    tracing::warn!("blocks are not compacted for now: {error}");
                    self.compacting.pause(FAILED_PAUSE);
                }
            }
            return Ok(());
        }
        let due = compacting.not_before.is_none_or(|at| at <= Instant::now());
        if compacting.task.is_none() && due {
            let swept = compacting.swept_at;
            let sweep = swept.is_none_or(|at| at.elapsed() >= SWEEP_INTERVAL);
            if sweep {
                compacting.swept_at = Some(Instant::now());
            }
            let cursors = compacting.cursors.take().unwrap_or_default();
            let looking = look(self.store.clone(), self.epoch, cursors, sweep);
            compacting.task = Some(Task(tokio::spawn(looking)));
        }
        Ok(())
    }

    async fn take(&mut self, found: Found) -> Result<(), Error> {
        for dataset in &found.done {
            self.store.end_compacting(dataset).await?;
        }
        self.compacting.pause(match found.more {
            true => BUSY_PAUSE,
            false => IDLE_PAUSE,
        });
        let Some(compaction) = found.compaction else {
            return Ok(());
        };
        if self.store.compact(self.epoch, &compaction).await? {
            self.compacting.refused = 0;
            tell(&compaction);
            return Ok(());
        }
        tracing::debug!(dataset = %compaction.dataset().name, "not compacted: it or a view has changed meanwhile");
        self.compacting.refused += 1;
        if compaction.dataset().compacting && self.compacting.refused >= REFUSALS {
            self.compacting.refused = 0;
            self.store.end_compacting(compaction.dataset()).await?;
        }
        if let Some(cursors) = &mut self.compacting.cursors {
            cursors.put_off(&compaction, self.store.now_ms().await?);
        }
        self.compacting.pause(REFUSED_PAUSE);
        Ok(())
    }
}

fn tell(compaction: &Compaction) {
    let range = compaction.range();
    tracing::info!(
        dataset = %compaction.dataset().name,
        blocks = compaction.blocks(),
        first = range.start,
        end = range.end,
        bytes = compaction.raw_bytes(),
        "compacted blocks into one"
    );
}
