//! Remembering what is registered, and letting the spool go for it.

use std::time::Duration;

use tracing::{debug, warn};

use super::{Follower, Now};
use crate::{
    journal,
    snapshot::{Kept, Snapshot},
};

/// Shortest time between two snapshots: a busy agent writes one for many blocks.
const KEEP_EVERY: Duration = Duration::from_millis(500);
/// How long a file that is gone is remembered, in milliseconds: longer than rotated files are compressed after.
const REMEMBER_MS: i64 = 14 * 24 * 3600 * 1000;
/// Most streams that are remembered without a file.
const MOST_GONE: usize = 20_000;

impl Follower {
    /// Takes over what was acknowledged, writes it down once in a while (or `at_once`), and clears the spool of it.
    pub(crate) fn keep(&mut self, now: Now, at_once: bool) {
        let alone = !self.keeping.is_safe();
        for (header, incarnation) in self.spool.take_acknowledged() {
            for position in &header.positions {
                if let Some(stream) = self.streams.get_mut(&position.stream) {
                    stream.note_registered(position, incarnation);
                    stream.alone |= alone;
                }
            }
            self.registered.insert(header.dataset.clone(), header.sequence);
            self.unkept.push(header);
        }
        if !at_once && now.at < self.next_keep {
            return;
        }
        if self.unkept.is_empty() {
            // A lane may have changed all the same.
            if let Err(error) = self.spool.keep_lanes() {
                debug!(dir = %self.dir.display(), "can't keep what is known of datasets: {error}");
            }
            return;
        }
        self.next_keep = now.at + KEEP_EVERY;
        self.forget_old(now);
        let snapshot = Snapshot::new(self.registered.clone(), self.kept());
        // Only help for a mill that is restored: without it the lines of these blocks are not read again.
        if let Err(error) = journal::append(&self.dir, &self.disk, &self.unkept) {
            debug!(dir = %self.dir.display(), "can't take down where lines lay: {error}");
        }
        let written = self
            .spool
            .keep_lanes()
            .and_then(|()| snapshot.write(&self.dir, &self.disk));
        match written.and_then(|()| self.spool.remove(&self.unkept)) {
            Ok(()) => self.unkept.clear(),
            Err(error) => {
                warn!(dir = %self.dir.display(), "can't keep what is registered, tried again soon: {error}")
            }
        }
    }

    fn kept(&self) -> Vec<Kept> {
        let kept = self.streams.values().filter_map(|stream| {
            // How far it is registered, and where it is now.
            let mut position = stream.registered.clone()?;
            position.key = stream.key;
            position.path = stream.path.to_string();
            Some(Kept {
                position,
                gone_ms: stream.gone_ms,
                incarnation: stream.incarnation,
                alone: stream.alone,
            })
        });
        kept.collect()
    }

    fn forget_old(&mut self, now: Now) {
        let gone = self
            .streams
            .values()
            .filter(|stream| stream.gone_ms.is_some())
            .count();
        let mut surplus = gone.saturating_sub(MOST_GONE);
        self.streams.retain(|_, stream| {
            let Some(gone_ms) = stream.gone_ms else {
                return true;
            };
            let is_registered = stream.registered_offset() == stream.offset;
            let is_old = now.wall_ms - gone_ms > REMEMBER_MS || surplus > 0;
            let forgotten = is_old && is_registered;
            surplus -= usize::from(forgotten && surplus > 0);
            !forgotten
        });
    }
}
