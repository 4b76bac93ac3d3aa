//! How much to feed: the tree stays O(slots), however long the backlog.

/// Bounds of what is in ZooKeeper at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// Entries that may wait in `/unowned`.
    pub window: usize,
    /// Entries fed and not yet recorded: what waits, what is owned, and what no watcher has recorded.
    pub in_flight: usize,
}

/// Smallest window: with few slots a round trip must still be hidden.
const SMALLEST_WINDOW: usize = 8;

/// The bounds for live workers with `slots` slots together: a window of `factor` times the slots, and in flight
/// the window, the slots, and as much again that waits for its watcher. Without slots nothing is fed.
pub fn bounds(slots: u32, factor: u32) -> Bounds {
    if slots == 0 {
        return Bounds {
            window: 0,
            in_flight: 0,
        };
    }
    let slots = slots as usize;
    let window = (slots * factor.max(1) as usize).max(SMALLEST_WINDOW);
    Bounds {
        window,
        in_flight: 2 * (window + slots),
    }
}

/// How many entries to feed now.
///
/// Refills only below the low-water mark, half a window, so that entries go out in batches.
/// `higher_priority` tells that a job more urgent than all that wait has arrived: it may exceed a full window once.
pub fn allowance(bounds: Bounds, waiting: usize, in_flight: usize, higher_priority: bool) -> usize {
    let unrecorded = bounds.in_flight.saturating_sub(in_flight);
    let room = bounds.window.saturating_sub(waiting);
    if higher_priority && unrecorded > 0 {
        return room.max(bounds.window).min(unrecorded.max(1));
    }
    if waiting > bounds.window / 2 {
        0
    } else {
        room.min(unrecorded)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn nothing_without_slots() {
        assert_eq!(allowance(bounds(0, 2), 0, 0, true), 0);
    }

    #[test]
    fn refills_in_batches_and_stops_when_nothing_is_recorded() {
        let bounds = bounds(16, 2);
        assert_eq!(
            bounds,
            Bounds {
                window: 32,
                in_flight: 96
            }
        );
        assert_eq!(allowance(bounds, 17, 20, false), 0);
        assert_eq!(allowance(bounds, 16, 20, false), 16);
        assert_eq!(allowance(bounds, 0, 96, false), 0);
        assert_eq!(allowance(bounds, 32, 40, true), 32);
    }

    proptest! {
        #[test]
        fn never_more_in_flight_than_bounded(slots in 0u32..5000, waiting in 0usize..20_000, in_flight in 0usize..40_000, higher: bool) {
            let bounds = bounds(slots, 2);
            let fed = allowance(bounds, waiting, in_flight, higher);
            prop_assert!(fed == 0 || in_flight + fed <= bounds.in_flight);
            prop_assert!(higher || fed == 0 || waiting + fed <= bounds.window);
        }
    }
}
