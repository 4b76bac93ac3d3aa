//! The blocks of one agent and dataset on their way: what may come next, what is to be registered. Pure.

use std::collections::BTreeMap;

use storage::ShippedBlock;
use uuid::Uuid;

/// Most blocks registered in one transaction.
const BATCH: usize = 64;

/// What to do with a block that has arrived.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Intake {
    /// It is registered already.
    Known,
    /// It is under way already, and will be answered.
    UnderWay,
    /// To be stored, as this attempt.
    Store(u64),
    /// One before it is missing.
    Gap,
}

/// Blocks of one dataset in the order of their sequences. `T` goes with each that is not answered.
#[derive(Debug)]
pub(crate) struct Lane<T> {
    registered: u64,
    incarnation: Option<Uuid>,
    next: u64,
    attempts: u64,
    under_way: BTreeMap<u64, (u64, T)>,
    stored: BTreeMap<u64, ShippedBlock>,
    registering: bool,
}

impl<T> Lane<T> {
    /// A lane of which all up to `registered` are registered, the last one in this incarnation of the dataset.
    pub(crate) fn new(registered: u64, incarnation: Option<Uuid>) -> Self {
        Self {
            registered,
            incarnation,
            next: registered.saturating_add(1),
            attempts: 0,
            under_way: BTreeMap::new(),
            stored: BTreeMap::new(),
            registering: false,
        }
    }

    /// All up to this one are registered.
    pub(crate) fn registered(&self) -> u64 {
        self.registered
    }

    /// The incarnation of the dataset in which the last one was registered.
    pub(crate) fn incarnation(&self) -> Option<Uuid> {
        self.incarnation
    }

    /// Whether nothing is under way.
    pub(crate) fn is_idle(&self) -> bool {
        self.under_way.is_empty() && !self.registering
    }

    /// Takes a block in, or says why not; `with` is kept until it is answered.
    pub(crate) fn arrive(&mut self, sequence: u64, with: T) -> Intake {
        if sequence <= self.registered {
            Intake::Known
        } else if sequence < self.next {
            Intake::UnderWay
        } else if sequence > self.next {
            Intake::Gap
        } else {
            self.attempts += 1;
            self.next = self.next.saturating_add(1);
            self.under_way.insert(sequence, (self.attempts, with));
            Intake::Store(self.attempts)
        }
    }

    /// Whether an attempt at a block still counts.
    pub(crate) fn counts(&self, sequence: u64, attempt: u64) -> bool {
        self.under_way
            .get(&sequence)
            .is_some_and(|(current, _)| *current == attempt)
    }

    /// Notes that a block is stored; nothing when that attempt does not count any more.
    pub(crate) fn note_stored(&mut self, attempt: u64, block: ShippedBlock) {
        if self.counts(block.sequence, attempt) {
            self.stored.insert(block.sequence, block);
        }
    }

    /// The blocks to register now, in order; none while others are being registered, or where the next is not stored.
    pub(crate) fn next_batch(&mut self) -> Option<Vec<ShippedBlock>> {
        if self.registering {
            return None;
        }
        let following = (self.registered + 1..).zip(&self.stored);
        let batch: Vec<ShippedBlock> = following
            .take_while(|(sequence, (stored, _))| sequence == *stored)
            .map(|(_, (_, block))| block.clone())
            .take(BATCH)
            .collect();
        self.registering = !batch.is_empty();
        self.registering.then_some(batch)
    }

    /// Notes that all up to `mark` are registered, the last one in this incarnation of the dataset.
    pub(crate) fn note_registered(&mut self, mark: u64, incarnation: Option<Uuid>) {
        self.registering = false;
        self.incarnation = incarnation;
        self.registered = self.registered.max(mark);
        self.next = self.next.max(self.registered.saturating_add(1));
        self.under_way = self.under_way.split_off(&(self.registered + 1));
        self.stored = self.stored.split_off(&(self.registered + 1));
    }

    /// Drops the blocks from `sequence` on, which are to be sent again; gives those that were under way.
    pub(crate) fn fall_back(&mut self, sequence: u64) -> Vec<u64> {
        self.stored.split_off(&sequence);
        self.next = self.next.min(sequence);
        self.under_way.split_off(&sequence).into_keys().collect()
    }

    /// Nothing was registered: `mark` is where the agent goes on. Gives the blocks that were under way.
    pub(crate) fn begin_at(&mut self, mark: u64) -> Vec<u64> {
        self.registering = false;
        let dropped = self.fall_back(0);
        (self.registered, self.next) = (mark, mark.saturating_add(1));
        dropped
    }
}

#[cfg(test)]
mod tests {
    use model::Block;

    use super::*;

    fn block(sequence: u64) -> ShippedBlock {
        ShippedBlock {
            sequence,
            block: Block::inline("x"),
            lines: 1,
            raw_bytes: 1,
        }
    }

    fn sequences(batch: Option<Vec<ShippedBlock>>) -> Vec<u64> {
        batch.into_iter().flatten().map(|block| block.sequence).collect()
    }

    #[test]
    fn blocks_are_registered_in_order_however_they_are_stored() {
        let mut lane = Lane::new(3, None);
        assert_eq!(lane.arrive(3, ()), Intake::Known);
        assert_eq!(lane.arrive(5, ()), Intake::Gap);
        let attempts: Vec<Intake> = (4..8).map(|sequence| lane.arrive(sequence, ())).collect();
        assert_eq!(attempts, [1, 2, 3, 4].map(Intake::Store));
        assert_eq!(lane.arrive(6, ()), Intake::UnderWay);
        lane.note_stored(2, block(5));
        assert!(sequences(lane.next_batch()).is_empty());
        lane.note_stored(1, block(4));
        assert_eq!(sequences(lane.next_batch()), [4, 5]);
        lane.note_stored(3, block(6));
        assert!(
            sequences(lane.next_batch()).is_empty(),
            "one transaction at a time"
        );
        lane.note_registered(5, None);
        assert_eq!(sequences(lane.next_batch()), [6]);
        lane.note_registered(6, None);
        assert!(!lane.is_idle() && lane.registered() == 6);
    }

    #[test]
    fn what_follows_a_broken_block_is_sent_again() {
        let mut lane = Lane::new(0, None);
        for sequence in 1..=4 {
            lane.arrive(sequence, ());
        }
        lane.note_stored(1, block(1));
        lane.note_stored(3, block(3));
        assert_eq!(sequences(lane.next_batch()), [1]);
        assert_eq!(lane.fall_back(2), [2, 3, 4]);
        assert_eq!(lane.arrive(3, ()), Intake::Gap);
        assert_eq!(lane.arrive(2, ()), Intake::Store(5));
        assert_eq!(lane.arrive(3, ()), Intake::Store(6));
        lane.note_registered(1, None);
        // An answer to the attempt before.
        lane.note_stored(3, block(3));
        assert!(!lane.counts(3, 3));
        lane.note_stored(5, block(2));
        assert_eq!(sequences(lane.next_batch()), [2]);
        // Somebody else has registered more, or less.
        assert_eq!(lane.begin_at(7), [2, 3]);
        assert_eq!(lane.arrive(8, ()), Intake::Store(7));
        assert_eq!(lane.arrive(2, ()), Intake::Known);
    }
}
