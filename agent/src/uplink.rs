//! The way of blocks to the mill: a dispatcher finds a worker, the worker takes the blocks, and both may die.
//!
//! Promise: blocks of a dataset are sent in the order of their numbers, each again and again until it is acknowledged, never
//! more than the worker's window at once; a worker that can't be reached is avoided for a while, and nothing is asked for
//! faster than [`crate::Timing::retry`] says. No promise that anything is sent once only: the mill tells by the number.

mod attach;
mod lanes;
mod meeting;
mod route;
mod ship;

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use api::v1::{AgentHello, AgentReport, LeaveReason};
use tracing::{info, warn};

use self::route::Route;
use crate::{Config, Error, service::Shared, state::StateDir};

/// Connections of one start that a number is kept for: far more than can be made.
const CONNECTIONS_BITS: u32 = 24;

/// Ships what is in the spool.
pub(crate) struct Uplink {
    config: Arc<Config>,
    shared: Arc<Shared>,
    state: Arc<StateDir>,
    incarnation: u64,
    /// Ships files once: gives up where an agent would wait.
    once: bool,
}

/// Why a connection is over.
#[derive(Debug)]
enum Over {
    /// There was no worker: what the dispatcher or the way to it said.
    Unattached(String),
    /// The same, and no later try will end otherwise.
    Hopeless(String),
    /// No worker was offered although some may be left that are avoided.
    NoOffer,
    /// The worker can't be used now.
    Worker {
        worker: u64,
        why: String,
    },
    /// The worker sent us away.
    Left {
        worker: u64,
        why: LeaveReason,
    },
    /// A block is refused again and again.
    Refused {
        worker: u64,
        why: String,
    },
    Fatal(Error),
}

/// Why it is over, and whether a worker had taken anything.
struct Ended {
    over: Over,
    was_welcome: bool,
}

impl Uplink {
    pub(crate) fn new(config: Arc<Config>, shared: Arc<Shared>, state: Arc<StateDir>, once: bool) -> Self {
        Self {
            config,
            shared,
            incarnation: state.starts() << CONNECTIONS_BITS,
            state,
            once,
        }
    }

    /// Ships for ever. Dropping the future ends the connection; nothing is lost.
    ///
    /// # Errors
    /// [`Error::Outdated`], [`Error::OtherMill`]; for files that are shipped once also [`Error::NotTaken`], [`Error::Refused`].
    pub(crate) async fn run(mut self) -> Result<(), Error> {
        let mut route = Route::new(&self.config.servers, &self.config.timing);
        let mut told = String::new();
        let mut hopeless = 0;
        loop {
            self.incarnation += 1;
            let (begun, before) = (Instant::now(), self.shared.registered_bytes());
            let Ended { over, was_welcome } = self.connect_once(&mut route).await;
            // A worker that welcomes and then refuses all is no success.
            let was_of_use = self.shared.registered_bytes() > before || begun.elapsed() >= LASTING;
            if was_welcome && was_of_use {
                route.succeeded();
                told.clear();
            }
            hopeless = match over {
                Over::Hopeless(_) => hopeless + 1,
                _ => 0,
            };
            let why = self.learn(over, &mut route)?;
            if self.once && hopeless >= self.config.servers.len() {
                return Err(Error::Refused { why });
            }
            if self.once && route.failures() > ONCE_FAILURES {
                return Err(Error::NotTaken { why });
            }
            // Each reason once, not with each try.
            if !why.is_empty() && why != told {
                warn!("not shipping: {why}; tried again");
                told = why;
            }
            tokio::time::sleep(route.pause(rand::random())).await;
        }
    }

    /// What follows from the end of a connection.
    fn learn(&self, over: Over, route: &mut Route) -> Result<String, Error> {
        Ok(match over {
            Over::Fatal(error) => {
                self.state.refuse(&error);
                return Err(error);
            }
            Over::Unattached(why) | Over::Hopeless(why) => {
                route.server_failed();
                why
            }
            Over::NoOffer => {
                route.forget_avoided();
                route.server_failed();
                "no worker is offered".to_string()
            }
            Over::Worker { worker, why } => {
                route.avoid(worker);
                why
            }
            Over::Left { worker, why } => {
                info!(worker, why = leaving(why), "the worker sends this agent on");
                match why {
                    LeaveReason::Replaced => route.server_failed(),
                    _ => route.move_on(worker),
                }
                String::new()
            }
            Over::Refused { worker, why } if self.once => {
                return Err(Error::Refused {
                    why: format!("{why} (worker {worker})"),
                });
            }
            Over::Refused { worker, why } => {
                route.avoid(worker);
                why
            }
        })
    }

    fn hello(&self, avoid: Vec<u64>) -> AgentHello {
        let datasets = self
            .config
            .sources
            .iter()
            .map(|source| source.dataset.to_string());
        AgentHello {
            protocol: api::PROTOCOL,
            agent: self.config.name.to_string(),
            instance: meeting::bytes(Some(self.state.instance())),
            incarnation: self.incarnation,
            version: env!("CARGO_PKG_VERSION").to_string(),
            host: self.config.host.clone(),
            zone: self.config.zone.clone(),
            datasets: datasets.collect(),
            avoid,
            mill: meeting::bytes(self.state.mill()),
            once: self.once,
        }
    }

    async fn connect_once(&self, route: &mut Route) -> Ended {
        let hello = self.hello(route.avoided());
        let mut was_welcome = false;
        let over = match self.attach(route.server(), &hello).await {
            Err(over) => over,
            // The dispatcher holds the agent until the worker does.
            Ok((attached, offer)) => match self.welcome(&hello, &offer, route.server()).await {
                Err(over) => over,
                Ok(shipping) => {
                    drop(attached);
                    was_welcome = true;
                    self.ship(shipping).await
                }
            },
        };
        Ended { over, was_welcome }
    }
}

/// Why a worker sends an agent away, in words.
fn leaving(why: LeaveReason) -> &'static str {
    match why {
        LeaveReason::Moved => "the leader moves it",
        LeaveReason::Stopping => "the worker stops",
        LeaveReason::Replaced => "another connection took over, or the worker has lost its session",
        LeaveReason::Unspecified => "not told",
    }
}

/// A connection that lasted so long was a good one, also when there was nothing to ship.
const LASTING: Duration = Duration::from_secs(10);
/// Failed tries in a row after which files that are to be shipped once are given up: about half a minute.
const ONCE_FAILURES: u32 = 8;

/// Bytes of lines that were registered per second, lately.
struct Rate {
    last_bytes: u64,
    per_second: f64,
}

impl Rate {
    fn new(shared: &Shared) -> Self {
        Self {
            last_bytes: shared.registered_bytes(),
            per_second: 0.0,
        }
    }

    /// The report that is due `seconds` after the last one.
    fn report(&mut self, shared: &Shared, seconds: f64) -> AgentReport {
        let bytes = shared.registered_bytes();
        #[expect(clippy::cast_precision_loss, reason = "a rate is told roughly")]
        let now = (bytes - self.last_bytes) as f64 / seconds.max(0.001);
        self.last_bytes = bytes;
        // Half of it is from the last report, so that a block in between does not look like a rest.
        self.per_second = f64::midpoint(self.per_second, now);
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "finite and not negative"
        )]
        shared.report(self.per_second as u64)
    }
}
