//! Where to go next: which dispatcher, which workers not to, and when.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use crate::Timing;

/// What was learned of the ways to the mill.
pub(super) struct Route {
    servers: Vec<String>,
    server: usize,
    avoided: BTreeMap<u64, Instant>,
    failures: u32,
    avoid: Duration,
    retry: (Duration, Duration),
}

impl Route {
    pub(super) fn new(servers: &[String], timing: &Timing) -> Self {
        Self {
            servers: servers.to_vec(),
            server: 0,
            avoided: BTreeMap::new(),
            failures: 0,
            avoid: timing.avoid,
            retry: timing.retry,
        }
    }

    /// The dispatcher to ask.
    pub(super) fn server(&self) -> &str {
        self.servers.get(self.server).map_or("", String::as_str)
    }

    /// Workers that are not wanted now.
    pub(super) fn avoided(&mut self) -> Vec<u64> {
        self.avoided.retain(|_, since| since.elapsed() < self.avoid);
        self.avoided.keys().copied().collect()
    }

    /// A dispatcher gave no worker: the next one is asked.
    pub(super) fn server_failed(&mut self) {
        self.server = (self.server + 1) % self.servers.len().max(1);
        self.failures = self.failures.saturating_add(1);
    }

    /// A worker could not be used.
    pub(super) fn avoid(&mut self, worker: u64) {
        self.avoided.insert(worker, Instant::now());
        self.failures = self.failures.saturating_add(1);
    }

    /// A worker sent the agent away, which is no failure: another is asked for at once.
    pub(super) fn move_on(&mut self, worker: u64) {
        self.avoided.insert(worker, Instant::now());
    }

    /// Those that are avoided are the only ones there are.
    pub(super) fn forget_avoided(&mut self) {
        self.avoided.clear();
    }

    /// A worker took blocks.
    pub(super) fn succeeded(&mut self) {
        self.failures = 0;
    }

    /// Tries in a row that led nowhere.
    pub(super) fn failures(&self) -> u32 {
        self.failures
    }

    /// How long to wait before the next try: twice as long after each failure, and never the same for two agents, by `dice`
    /// from 0 to 1.
    pub(super) fn pause(&self, dice: f64) -> Duration {
        let (first, longest) = self.retry;
        let doubled = first.saturating_mul(1 << self.failures.saturating_sub(1).min(20));
        doubled.min(longest).mul_f64(0.5 + dice.clamp(0.0, 1.0) / 2.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failures_lead_on_and_make_patient() {
        let servers = ["a:1", "b:1"].map(str::to_string);
        let mut route = Route::new(&servers, &Timing::default());
        assert_eq!(route.server(), "a:1");
        assert!(route.pause(1.0) <= Duration::from_millis(200));
        route.server_failed();
        assert_eq!(route.server(), "b:1");
        route.avoid(7);
        route.move_on(3);
        assert_eq!((route.avoided(), route.failures()), (vec![3, 7], 2));
        assert_eq!(route.pause(1.0), Duration::from_millis(400));
        (0..100).for_each(|_| route.server_failed());
        assert_eq!(
            (route.pause(0.0), route.pause(1.0)),
            (Duration::from_secs(5), Duration::from_secs(10))
        );
        route.forget_avoided();
        route.succeeded();
        assert_eq!((route.avoided(), route.failures()), (vec![], 0));
    }

    #[test]
    fn an_avoided_worker_is_so_for_a_while() {
        let timing = Timing {
            avoid: Duration::ZERO,
            ..Timing::default()
        };
        let mut route = Route::new(&["a:1".to_string()], &timing);
        route.avoid(7);
        assert!(route.avoided().is_empty());
    }
}
