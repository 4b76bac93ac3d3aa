//! What of each dataset is on its way, and what to do about each answer. Pure: no I/O, no clock.
//!
//! After a refusal nothing more of the dataset is sent until all that is on its way is answered, since all of that is
//! refused as well; then it goes on from the first block that is not acknowledged.

use std::{
    collections::{BTreeMap, VecDeque},
    time::Duration,
};

use api::v1::BlockRefusal;
use model::Name;

/// How often one block is sent when it arrives broken.
pub(super) const CORRUPT_TRIES: u32 = 3;
/// How often the order may be mended without any block being acknowledged in between.
const ORDER_TRIES: u32 = 3;
/// First and longest pause of a dataset that the store does not take.
const STORE_PAUSE: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(30));
/// Pause of a dataset that this agent may not ship to.
const NOT_ALLOWED_PAUSE: Duration = Duration::from_secs(60);

/// All datasets of one connection. Times are since any one beginning.
#[derive(Default)]
pub(super) struct Lanes {
    lanes: BTreeMap<Name, Lane>,
    in_flight_bytes: u64,
}

#[derive(Default)]
struct Lane {
    acknowledged: u64,
    /// Sent and not answered, in order.
    unanswered: VecDeque<Sent>,
    last_sent: u64,
    /// All up to here may be registered although the store said that it can't take them now.
    doubtful: u64,
    /// A block was refused: what is unanswered is waited for.
    refused: bool,
    /// Not before this.
    resume_at: Duration,
    /// Refusals since the last acknowledgement.
    corrupt: u32,
    disordered: u32,
    store_failures: u32,
}

#[derive(Clone, Copy)]
struct Sent {
    sequence: u64,
    bytes: u64,
    at: Duration,
}

/// What follows from a refusal.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Consequence {
    /// The block is sent again, after a pause perhaps.
    Again,
    /// The worker is of no use for this block.
    GiveUp,
}

impl Lanes {
    /// Bytes of data that were sent and are not answered.
    pub(super) fn in_flight_bytes(&self) -> u64 {
        self.in_flight_bytes
    }

    /// The block behind which the next one of a dataset is to be sent; none while it waits.
    pub(super) fn cursor(&self, dataset: &Name, now: Duration) -> Option<u64> {
        let Some(lane) = self.lanes.get(dataset) else {
            return Some(0);
        };
        let waits = (lane.refused && !lane.unanswered.is_empty()) || now < lane.resume_at;
        let last = lane.unanswered.back().map_or(0, |sent| sent.sequence);
        (!waits).then_some(last.max(lane.acknowledged))
    }

    pub(super) fn sent(&mut self, dataset: &Name, sequence: u64, bytes: u64, now: Duration) {
        let lane = self.lanes.entry(dataset.clone()).or_default();
        if lane.unanswered.is_empty() {
            lane.refused = false;
        }
        lane.unanswered.push_back(Sent {
            sequence,
            bytes,
            at: now,
        });
        lane.last_sent = sequence;
        self.in_flight_bytes += bytes;
    }

    /// All up to `sequence` are acknowledged.
    pub(super) fn stored(&mut self, dataset: &Name, sequence: u64) {
        let lane = self.lanes.entry(dataset.clone()).or_default();
        while lane
            .unanswered
            .front()
            .is_some_and(|sent| sent.sequence <= sequence)
        {
            let bytes = lane.unanswered.pop_front().map_or(0, |sent| sent.bytes);
            self.in_flight_bytes = self.in_flight_bytes.saturating_sub(bytes);
        }
        lane.acknowledged = lane.acknowledged.max(sequence);
        (lane.corrupt, lane.disordered, lane.store_failures) = (0, 0, 0);
    }

    /// `sequence` is refused.
    pub(super) fn refused(
        &mut self,
        dataset: &Name,
        sequence: u64,
        why: BlockRefusal,
        now: Duration,
    ) -> Consequence {
        let lane = self.lanes.entry(dataset.clone()).or_default();
        if let Some(place) = lane.unanswered.iter().position(|sent| sent.sequence == sequence) {
            let bytes = lane.unanswered.remove(place).map_or(0, |sent| sent.bytes);
            self.in_flight_bytes = self.in_flight_bytes.saturating_sub(bytes);
        }
        // Those behind the first refused one are refused for it.
        let is_first = !std::mem::replace(&mut lane.refused, true);
        // A reason of a newer worker that this agent does not know tells nothing either.
        if matches!(why, BlockRefusal::Store | BlockRefusal::Unspecified) {
            lane.doubtful = lane.last_sent;
        }
        if !is_first {
            return Consequence::Again;
        }
        match why {
            BlockRefusal::Store | BlockRefusal::NoNode => {
                let (first, longest) = STORE_PAUSE;
                let pause = first
                    .saturating_mul(1 << lane.store_failures.min(10))
                    .min(longest);
                lane.store_failures += 1;
                lane.resume_at = now + pause;
                Consequence::Again
            }
            BlockRefusal::NotAllowed => {
                lane.resume_at = now + NOT_ALLOWED_PAUSE;
                Consequence::Again
            }
            BlockRefusal::Order => {
                lane.disordered += 1;
                consequence(lane.disordered < ORDER_TRIES)
            }
            BlockRefusal::Corrupt | BlockRefusal::Unspecified => {
                lane.corrupt += 1;
                consequence(lane.corrupt < CORRUPT_TRIES)
            }
        }
    }

    /// Whether nothing of a dataset waits for an answer.
    pub(super) fn is_answered(&self, dataset: &Name) -> bool {
        let lane = self.lanes.get(dataset);
        lane.is_none_or(|lane| lane.unanswered.is_empty())
    }

    /// Up to where blocks of each dataset were sent without it being known whether they are registered.
    pub(super) fn in_doubt(&self) -> impl Iterator<Item = (&Name, u64)> {
        self.lanes.iter().map(|(dataset, lane)| {
            let unanswered = lane.unanswered.back().map_or(0, |sent| sent.sequence);
            (dataset, unanswered.max(lane.doubtful))
        })
    }

    /// How long the block that waits longest has been without an answer.
    pub(super) fn longest_wait(&self, now: Duration) -> Duration {
        let firsts = self.lanes.values().filter_map(|lane| lane.unanswered.front());
        firsts
            .map(|sent| now.saturating_sub(sent.at))
            .max()
            .unwrap_or_default()
    }

    /// When the first dataset that pauses goes on.
    pub(super) fn next_resume(&self, now: Duration) -> Option<Duration> {
        let pauses = self.lanes.values().map(|lane| lane.resume_at);
        pauses.filter(|at| *at > now).min()
    }
}

fn consequence(again: bool) -> Consequence {
    if again {
        Consequence::Again
    } else {
        Consequence::GiveUp
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Duration = Duration::from_secs(100);

    fn dataset() -> Name {
        Name::new("access").unwrap()
    }

    fn with_three_sent() -> Lanes {
        let mut lanes = Lanes::default();
        (1..=3).for_each(|sequence| lanes.sent(&dataset(), sequence, 10, NOW));
        lanes
    }

    #[test]
    fn blocks_follow_one_another_and_are_answered_together() {
        let mut lanes = with_three_sent();
        assert_eq!(
            (lanes.cursor(&dataset(), NOW), lanes.in_flight_bytes()),
            (Some(3), 30)
        );
        assert_eq!(
            lanes.longest_wait(NOW + Duration::from_secs(9)),
            Duration::from_secs(9)
        );
        lanes.stored(&dataset(), 2);
        assert_eq!(
            (lanes.cursor(&dataset(), NOW), lanes.in_flight_bytes()),
            (Some(3), 10)
        );
        lanes.stored(&dataset(), 3);
        assert_eq!(
            (lanes.cursor(&dataset(), NOW), lanes.in_flight_bytes()),
            (Some(3), 0)
        );
        assert_eq!(lanes.longest_wait(NOW), Duration::ZERO);
    }

    #[test]
    fn after_a_refusal_the_rest_is_waited_for_and_sent_again() {
        let mut lanes = with_three_sent();
        lanes.stored(&dataset(), 1);
        assert_eq!(
            lanes.refused(&dataset(), 2, BlockRefusal::Corrupt, NOW),
            Consequence::Again
        );
        assert_eq!(lanes.cursor(&dataset(), NOW), None);
        assert_eq!(
            lanes.refused(&dataset(), 3, BlockRefusal::Order, NOW),
            Consequence::Again
        );
        assert_eq!(
            (lanes.cursor(&dataset(), NOW), lanes.in_flight_bytes()),
            (Some(1), 0)
        );
    }

    #[test]
    fn what_is_refused_is_not_in_doubt() {
        let doubt = |lanes: &Lanes| lanes.in_doubt().map(|(_, sequence)| sequence).max();
        let mut lanes = with_three_sent();
        assert_eq!((doubt(&lanes), lanes.is_answered(&dataset())), (Some(3), false));
        lanes.stored(&dataset(), 1);
        lanes.refused(&dataset(), 2, BlockRefusal::NoNode, NOW);
        assert_eq!((doubt(&lanes), lanes.is_answered(&dataset())), (Some(3), false));
        lanes.refused(&dataset(), 3, BlockRefusal::Order, NOW);
        assert_eq!((doubt(&lanes), lanes.is_answered(&dataset())), (Some(0), true));
        // The store may have taken it all the same, with what follows it.
        for why in [BlockRefusal::Store, BlockRefusal::Unspecified] {
            let mut lanes = with_three_sent();
            lanes.refused(&dataset(), 1, why, NOW);
            lanes.refused(&dataset(), 2, BlockRefusal::Order, NOW);
            lanes.refused(&dataset(), 3, BlockRefusal::Order, NOW);
            assert_eq!((doubt(&lanes), lanes.is_answered(&dataset())), (Some(3), true));
        }
    }

    #[test]
    fn three_broken_arrivals_are_enough() {
        let mut lanes = Lanes::default();
        let mut consequences = Vec::new();
        for _ in 0..3 {
            lanes.sent(&dataset(), 1, 10, NOW);
            consequences.push(lanes.refused(&dataset(), 1, BlockRefusal::Corrupt, NOW));
        }
        assert_eq!(
            consequences,
            [Consequence::Again, Consequence::Again, Consequence::GiveUp]
        );
    }

    #[test]
    fn a_store_that_is_away_is_asked_ever_less() {
        let mut lanes = Lanes::default();
        let mut pauses = Vec::new();
        for _ in 0..9 {
            lanes.sent(&dataset(), 1, 10, NOW);
            assert_eq!(
                lanes.refused(&dataset(), 1, BlockRefusal::Store, NOW),
                Consequence::Again
            );
            assert_eq!(lanes.cursor(&dataset(), NOW), None);
            pauses.push((lanes.next_resume(NOW).unwrap() - NOW).as_millis());
        }
        assert_eq!(
            pauses,
            [500, 1000, 2000, 4000, 8000, 16_000, 30_000, 30_000, 30_000]
        );
        let later = NOW + Duration::from_secs(30);
        assert_eq!(lanes.cursor(&dataset(), later), Some(0));
    }
}
