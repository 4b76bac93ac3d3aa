//! Samples of durations and what is told of them.

use std::time::Duration;

use serde::Serialize;

/// Measured durations.
#[derive(Clone, Debug, Default)]
pub(super) struct Sample(Vec<Duration>);

/// What is told of a sample, in milliseconds.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub(super) struct Spread {
    /// Half of the measurements took at most this.
    pub(super) p50_ms: f64,
    /// 99 of 100 took at most this.
    pub(super) p99_ms: f64,
    /// The longest.
    pub(super) max_ms: f64,
}

impl Sample {
    /// Adds a measurement.
    pub(super) fn push(&mut self, took: Duration) {
        self.0.push(took);
    }

    /// The smallest measurement that at least `share` (0.0 to 1.0) of all do not exceed (nearest rank); zero without any.
    pub(super) fn quantile(&self, share: f64) -> Duration {
        let mut sorted = self.0.clone();
        sorted.sort_unstable();
        let rank = (share.clamp(0.0, 1.0) * sorted.len() as f64).ceil() as usize;
        sorted.get(rank.saturating_sub(1)).copied().unwrap_or_default()
    }

    /// The middle one.
    pub(super) fn median(&self) -> Duration {
        self.quantile(0.5)
    }

    /// p50, p99 and maximum.
    pub(super) fn spread(&self) -> Spread {
        let ms = |share| self.quantile(share).as_secs_f64() * 1000.0;
        Spread {
            p50_ms: ms(0.5),
            p99_ms: ms(0.99),
            max_ms: ms(1.0),
        }
    }
}

impl FromIterator<Duration> for Sample {
    fn from_iter<I: IntoIterator<Item = Duration>>(durations: I) -> Self {
        Self(durations.into_iter().collect())
    }
}

/// How many a second.
pub(super) fn rate(count: u64, took: Duration) -> f64 {
    count as f64 / took.as_secs_f64().max(1e-9)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_measurements_by_nearest_rank() {
        let sample: Sample = (1..=100).rev().map(Duration::from_millis).collect();
        assert_eq!(
            sample.spread(),
            Spread {
                p50_ms: 50.0,
                p99_ms: 99.0,
                max_ms: 100.0
            }
        );
        let three: Sample = [3, 1, 2].map(Duration::from_millis).into_iter().collect();
        assert_eq!(three.median(), Duration::from_millis(2));
        assert_eq!(Sample::default().median(), Duration::ZERO);
    }
}
