//! The two threads: the one that follows files, and the one that packs blocks.

use std::{
    io,
    sync::{
        Arc,
        atomic::Ordering,
        mpsc::{Receiver, SyncSender, TrySendError, sync_channel},
    },
    thread,
    time::{Duration, Instant},
};

use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;
use tracing::{error, warn};

use super::{Shared, wall_ms};
use crate::{
    Error,
    block::CutBlock,
    follow::{Follower, Now, Wake},
    object::Packer,
    wake::Folders,
};

/// Shortest time between two turns that have nothing to catch up with: a file that is written to all the time is not
/// looked at more often.
const TURN_EVERY: Duration = Duration::from_millis(50);
/// Shortest time between two looks for new files that changes of directories ask for.
const SCAN_EVERY: Duration = Duration::from_millis(250);
/// Between two tries to write to a disk that is full.
const RETRY_WRITE: Duration = Duration::from_secs(1);

/// What an agent is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mode {
    /// Follows files until it is stopped.
    Follow,
    /// Ships files as they are.
    Once {
        /// Also what was shipped before.
        again: bool,
    },
}

type Ends = (oneshot::Receiver<()>, oneshot::Receiver<Follower>);

/// Starts both. The first receiver tells when all that was read is in the spool after a stop, the second gives the follower
/// back when `shipped` is cancelled and all is written down.
pub(super) fn start(
    follower: Follower,
    shared: &Arc<Shared>,
    shipped: &CancellationToken,
    poll: Duration,
) -> Result<Ends, Error> {
    let (blocks, to_pack) = sync_channel(1);
    let (spooled, when_spooled) = oneshot::channel();
    let (kept, when_kept) = oneshot::channel();
    let packing = Arc::clone(shared);
    let cancelled = shipped.clone();
    let packer = Packer::new().map_err(Error::Thread)?;
    spawn("agent-pack", move || {
        pack(packer, &to_pack, &packing, &cancelled);
        // Nobody may wait for it any more.
        spooled.send(()).unwrap_or_default();
    })?;
    let shared = Arc::clone(shared);
    let shipped = shipped.clone();
    spawn("agent-follow", move || {
        let mut follower = follower;
        let clock = Clock(Instant::now());
        follow(&mut follower, &shared, &blocks, &clock);
        drop(blocks);
        while !shipped.is_cancelled() {
            follower.keep(clock.now(), false);
            shared.following.send_replace(follower.following());
            shared.waker.wait(poll);
        }
        follower.keep(clock.now(), true);
        shared.following.send_replace(follower.following());
        kept.send(follower).unwrap_or_default();
    })?;
    Ok((when_spooled, when_kept))
}

fn spawn(name: &str, work: impl FnOnce() + Send + 'static) -> Result<(), Error> {
    let started = thread::Builder::new().name(name.to_string()).spawn(work);
    started.map(drop).map_err(Error::Thread)
}

struct Clock(Instant);

impl Clock {
    fn now(&self) -> Now {
        Now {
            at: self.0.elapsed(),
            wall_ms: wall_ms(),
        }
    }
}

/// Follows until it is to stop, and then cuts and hands over what is open.
fn follow(follower: &mut Follower, shared: &Shared, blocks: &SyncSender<CutBlock>, clock: &Clock) {
    let mut folders = Folders::new(&shared.waker);
    let mut wake = Wake::default();
    let mut last_scan = Duration::ZERO;
    if follower.is_once() {
        until_met(follower, shared, clock);
    }
    while !shared.stopping.load(Ordering::Relaxed) {
        let now = clock.now();
        let may_scan = now.at.saturating_sub(last_scan) >= SCAN_EVERY || last_scan.is_zero();
        let wants_scan = wake.scan;
        wake.scan &= may_scan;
        if wake.scan {
            last_scan = now.at;
        }
        let turn = follower.turn(now, &wake, shared.is_paused());
        if turn.has_scanned && !follower.is_once() {
            folders.watch(follower.folders());
        }
        shared.following.send_replace(follower.following());
        let has_room = hand_over(follower, blocks);
        let is_done = follower.is_once() && follower.is_read();
        if is_done {
            break;
        }
        let pause = match (turn.is_behind, has_room) {
            (true, true) => Duration::ZERO,
            // Nudged when there is room.
            _ => turn
                .next
                .saturating_sub(clock.now().at)
                .min(if wants_scan && !wake.scan {
                    SCAN_EVERY
                } else {
                    Duration::MAX
                }),
        };
        let mut next = shared.waker.wait(pause);
        let rest = TURN_EVERY.saturating_sub(clock.now().at.saturating_sub(now.at));
        if !turn.is_behind && !rest.is_zero() {
            thread::sleep(rest);
            let more = shared.waker.wait(Duration::ZERO);
            next.paths.extend(more.paths);
            next.scan |= more.scan;
        }
        next.scan |= wants_scan && !wake.scan;
        wake = next;
    }
    follower.cut_all();
    while let Some(block) = follower.take_ready() {
        if blocks.send(block).is_err() {
            return;
        }
    }
    shared.following.send_replace(follower.following());
}

/// What a shipment before has left is shipped first, and what the mill has is learned: then it is known what files lack.
fn until_met(follower: &mut Follower, shared: &Shared, clock: &Clock) {
    loop {
        follower.keep(clock.now(), true);
        match shared.datasets().filter(|_| shared.spool.is_empty()) {
            // What was acknowledged since the look before the last one.
            Some(datasets) => {
                follower.keep(clock.now(), true);
                return follower.meet(&datasets);
            }
            None if shared.stopping.load(Ordering::Relaxed) => {
                // Only to name them.
                follower.turn(clock.now(), &Wake::default(), true);
                return;
            }
            None => drop(shared.waker.wait(RETRY_WRITE)),
        }
    }
}

/// Hands cut blocks to the thread that packs; false when it has enough.
fn hand_over(follower: &mut Follower, blocks: &SyncSender<CutBlock>) -> bool {
    while let Some(block) = follower.take_ready() {
        match blocks.try_send(block) {
            Ok(()) => {}
            Err(TrySendError::Full(block) | TrySendError::Disconnected(block)) => {
                follower.put_back(block);
                return false;
            }
        }
    }
    true
}

/// Packs blocks and puts them into the spool, as often as it takes; ends with the other thread, or when `cancelled`.
fn pack(mut packer: Packer, blocks: &Receiver<CutBlock>, shared: &Shared, cancelled: &CancellationToken) {
    for block in blocks {
        let object = match packer.pack(&block) {
            Ok(object) => object,
            Err(failure) => {
                // It has memory for the worst case, so this is a broken invariant: nothing after it may be shipped.
                error!("can't compress a block: {failure}");
                return;
            }
        };
        let mut told = false;
        while let Err(failure) = shared.spool.commit(&block, &object) {
            tell_once(&mut told, &failure);
            if cancelled.is_cancelled() {
                return;
            }
            thread::sleep(RETRY_WRITE);
        }
        shared.waker.nudge();
    }
}

fn tell_once(told: &mut bool, failure: &io::Error) {
    if !std::mem::replace(told, true) {
        warn!(
            "can't write to the spool, tried again every {RETRY_WRITE:?}, nothing is read meanwhile: {failure}"
        );
    }
}
