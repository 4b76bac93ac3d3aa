//! When a failed subtask runs again: exponential backoff with full jitter on its upper half.
//!
//! Source: Brooker, "Exponential Backoff And Jitter", AWS Architecture Blog, 2015 ("equal jitter").

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// How often and how soon a failed subtask is tried again.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct RetryPolicy {
    /// Failed attempts that make a subtask a final failure; at least 1.
    pub max_attempts: u32,
    /// Wait after the first failure, in milliseconds.
    pub initial_ms: u64,
    /// Longest wait, in milliseconds.
    pub max_ms: u64,
}

impl Default for RetryPolicy {
    fn default() -> Self {
        Self {
            max_attempts: 3,
            initial_ms: 500,
            max_ms: 60_000,
        }
    }
}

impl RetryPolicy {
    /// How long to wait after `failed` failed attempts (1 after the first); `dice` is uniform in 0.0 to 1.0.
    ///
    /// Doubles from `initial_ms` up to `max_ms`; the dice choose between half of that and all of it.
    pub fn backoff(&self, failed: u32, dice: f64) -> Duration {
        let doublings = failed.saturating_sub(1).min(62);
        let full = self.initial_ms.saturating_mul(1 << doublings).min(self.max_ms);
        Duration::from_millis(full).mul_f64(0.5 + 0.5 * dice.clamp(0.0, 1.0))
    }

    /// Whether `failed` failed attempts end the subtask for good.
    pub fn exhausted(&self, failed: u32) -> bool {
        failed >= self.max_attempts.max(1)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn doubles_up_to_the_ceiling() {
        let policy = RetryPolicy {
            max_attempts: 3,
            initial_ms: 100,
            max_ms: 1000,
        };
        let waits: Vec<u128> = (1..=6).map(|n| policy.backoff(n, 1.0).as_millis()).collect();
        assert_eq!(waits, [100, 200, 400, 800, 1000, 1000]);
        assert_eq!(policy.backoff(1, 0.0).as_millis(), 50);
        assert!(!policy.exhausted(2) && policy.exhausted(3));
    }

    proptest! {
        #[test]
        fn stays_within_bounds(failed in any::<u32>(), dice in 0.0f64..=1.0, initial in 0u64..10_000, max in 0u64..100_000) {
            let wait = RetryPolicy { max_attempts: 1, initial_ms: initial, max_ms: max }.backoff(failed, dice);
            prop_assert!(wait <= Duration::from_millis(max));
        }
    }
}
