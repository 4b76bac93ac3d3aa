//! How many subtasks go into one entry.

use std::time::Duration;

use crate::limits::BUNDLE_SUBTASKS;

/// How long an entry should keep a slot busy: long against ZooKeeper's cost per entry, short against a death.
pub const TARGET: Duration = Duration::from_millis(250);

/// Entries are not made shorter than this for the sake of sharing: they would cost more than they run.
pub const LEAST: Duration = Duration::from_millis(20);

/// Number of subtasks for the next entry of a job; at least 1.
///
/// `mean` is the measured run time of its subtasks so far (unknown: one, to measure), `left` how many still
/// have to be fed, `slots` those of all live workers: near the end entries shrink, down to [`LEAST`], so that every slot
/// has work.
pub fn size(mean: Option<Duration>, left: u64, slots: u32) -> u32 {
    let Some(mean) = mean else { return 1 };
    let within = |time: Duration| time.as_nanos() / mean.as_nanos().max(1);
    let share = left.div_ceil(2 * u64::from(slots.max(1)));
    let shared = u128::from(share).max(within(LEAST));
    u32::try_from(within(TARGET).min(shared))
        .unwrap_or(u32::MAX)
        .clamp(1, BUNDLE_SUBTASKS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn grows_as_subtasks_get_shorter() {
        let size = |mean_us| size(Some(Duration::from_micros(mean_us)), 1_000_000, 2);
        assert_eq!(
            [size(1), size(10_000), size(100_000), size(10_000_000)],
            [BUNDLE_SUBTASKS, 25, 2, 1]
        );
    }

    #[test]
    fn measures_first_and_shares_at_the_end() {
        assert_eq!(size(None, 1_000_000, 2), 1);
        assert_eq!(size(Some(Duration::ZERO), 1_000_000, 2), BUNDLE_SUBTASKS);
        let milliseconds = |mean| size(Some(Duration::from_millis(mean)), 40, 2);
        assert_eq!([milliseconds(1), milliseconds(30), milliseconds(100)], [20, 8, 2]);
        assert_eq!(
            size(Some(Duration::from_micros(500)), 4, 2),
            40,
            "too short to be shared"
        );
        assert_eq!(size(Some(Duration::from_secs(9)), 0, 0), 1);
    }
}
