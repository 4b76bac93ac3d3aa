//! The places of connections on a port: who may stay, and who makes room for others.
//!
//! Promise: who comes always gets a place to say who it is, whatever others hold: when these places are taken, the address
//! that has most of them loses the one that has been silent longest. Once it is known who it is, a connection keeps
//! its place for as long as it lasts, within what its identity may have. No promise that somebody behind the same address as a
//! flood is not pushed out before saying who it is.

use std::{
    collections::{BTreeMap, HashMap},
    net::{IpAddr, Ipv6Addr, SocketAddr},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use tokio::{
    sync::{Semaphore, oneshot},
    time::Instant,
};
use tonic::Status;

use super::limits::{Limits, UNKNOWN_CALLS};

/// After how long somebody without a place may try again.
const AGAIN: Duration = Duration::from_secs(1);

/// All places of a port.
#[derive(Debug)]
pub(super) struct Places {
    limits: Limits,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    next: u64,
    /// Those of whom nothing is known, in the order in which they came.
    unknown: BTreeMap<u64, Unknown>,
    /// Who has the others.
    known: HashMap<u64, String>,
    /// How many each has.
    of: HashMap<String, usize>,
}

#[derive(Debug)]
struct Unknown {
    address: SocketAddr,
    /// When it came, or last asked for the health.
    active: Instant,
    until: Instant,
    end: oneshot::Sender<&'static str>,
}

/// Ends a connection, with why.
pub(super) type End = oneshot::Receiver<&'static str>;

/// A connection that was told to end.
#[derive(Debug)]
pub(super) struct Ended {
    pub(super) address: SocketAddr,
    pub(super) why: &'static str,
}

/// The place of one connection, given back when it is dropped.
#[derive(Debug)]
pub struct Place {
    places: Arc<Places>,
    id: u64,
    is_known: AtomicBool,
    /// Calls at once for what strangers may ask.
    pub(super) few: Arc<Semaphore>,
}

impl Places {
    pub(super) fn new(limits: Limits) -> Arc<Self> {
        Arc::new(Self {
            limits,
            state: Mutex::default(),
        })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A place for whoever connects, and who had to make room for it.
    pub(super) fn admit(self: &Arc<Self>, address: SocketAddr) -> (Arc<Place>, End, Option<Ended>) {
        let (end, ending) = oneshot::channel();
        let now = Instant::now();
        let mut state = self.state();
        let ended = match state.unknown.len() < self.limits.unknown {
            true => None,
            false => state.make_room(),
        };
        let id = state.next;
        state.next += 1;
        let unknown = Unknown {
            address,
            active: now,
            until: now + self.limits.first_credential,
            end,
        };
        state.unknown.insert(id, unknown);
        drop(state);
        let place = Place {
            places: Arc::clone(self),
            id,
            is_known: AtomicBool::new(false),
            few: Arc::new(Semaphore::new(UNKNOWN_CALLS)),
        };
        (Arc::new(place), ending, ended)
    }

    /// Ends one of those of whom nothing is known.
    pub(super) fn make_room(&self) -> Option<Ended> {
        self.state().make_room()
    }

    /// Whether it is unknown of anybody who it is.
    pub(super) fn has_unknown(&self) -> bool {
        !self.state().unknown.is_empty()
    }

    /// Ends those that have not said in time who they are.
    pub(super) fn end_the_late(&self) -> Vec<Ended> {
        let now = Instant::now();
        let mut state = self.state();
        let late = state.unknown.iter().filter(|(_, unknown)| unknown.until <= now);
        let late: Vec<u64> = late.map(|(id, _)| *id).collect();
        let why = "it showed neither a certificate nor a good token in time, or its identity has too many connections";
        late.into_iter().filter_map(|id| state.end(id, why)).collect()
    }
}

impl State {
    fn make_room(&mut self) -> Option<Ended> {
        let mut of: HashMap<IpAddr, usize> = HashMap::new();
        for unknown in self.unknown.values() {
            *of.entry(source(unknown.address)).or_default() += 1;
        }
        let most = of.values().copied().max()?;
        let of_most = self.unknown.iter();
        let of_most = of_most.filter(|(_, unknown)| of.get(&source(unknown.address)) == Some(&most));
        let silent = of_most.min_by_key(|(_, unknown)| unknown.active);
        let id = silent.map(|(id, _)| *id)?;
        self.end(
            id,
            "it made room for others: too many connections without a certificate or a good token",
        )
    }

    fn end(&mut self, id: u64, why: &'static str) -> Option<Ended> {
        let Unknown { address, end, .. } = self.unknown.remove(&id)?;
        // One that is gone needs no word.
        end.send(why).unwrap_or_default();
        Some(Ended { address, why })
    }
}

/// From where somebody comes: hosts have a whole /64 of IPv6.
fn source(address: SocketAddr) -> IpAddr {
    match address.ip().to_canonical() {
        IpAddr::V6(ip) => IpAddr::V6(Ipv6Addr::from_bits(ip.to_bits() & !u128::from(u64::MAX))),
        ip => ip,
    }
}

impl Place {
    /// Whether it is known who is at the other end.
    pub(super) fn is_known(&self) -> bool {
        self.is_known.load(Ordering::Acquire)
    }

    /// Tells who is at the other end; from then on nobody ends the connection.
    ///
    /// # Errors
    /// RESOURCE_EXHAUSTED where that one, or all together, have as many as they may: it stays unknown.
    pub(super) fn known(&self, who: &str) -> Result<(), Status> {
        if self.is_known() {
            return Ok(());
        }
        let limits = self.places.limits;
        let mut state = self.places.state();
        if state.known.contains_key(&self.id) {
            return Ok(());
        }
        let own = state.of.get(who).copied().unwrap_or_default();
        let message = if own >= limits.connections_each {
            format!("{who} has {own} connections already: close some, or send more calls over each")
        } else if state.known.len() >= limits.connections {
            let all = limits.connections;
            format!("there are {all} connections already: try again later, or another server")
        } else {
            state.unknown.remove(&self.id);
            state.known.insert(self.id, who.to_string());
            *state.of.entry(who.to_string()).or_default() += 1;
            self.is_known.store(true, Ordering::Release);
            return Ok(());
        };
        Err(crate::busy("TOO_MANY_CONNECTIONS", message, AGAIN))
    }

    /// Tells that the health was asked for: a load balancer keeps its connection.
    pub(super) fn asked_for_health(&self) {
        if self.is_known() {
            return;
        }
        let now = Instant::now();
        let until = now + self.places.limits.health_idle;
        if let Some(unknown) = self.places.state().unknown.get_mut(&self.id) {
            (unknown.active, unknown.until) = (now, until);
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut state = self.places.state();
        state.unknown.remove(&self.id);
        let Some(who) = state.known.remove(&self.id) else {
            return;
        };
        if let Some(own) = state.of.get_mut(&who) {
            *own -= 1;
            if *own == 0 {
                state.of.remove(&who);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn places(limits: Limits) -> Arc<Places> {
        Places::new(limits)
    }

    fn from(text: &str) -> SocketAddr {
        text.parse().unwrap()
    }

    #[tokio::test(start_paused = true)]
    async fn who_has_most_makes_room_and_who_asks_for_the_health_last() {
        let all = places(Limits {
            unknown: 3,
            ..Limits::default()
        });
        let (_alone, mut alone, _) = all.admit(from("10.0.0.1:1"));
        let (first, mut ends_last, _) = all.admit(from("10.0.0.2:1"));
        tokio::time::advance(Duration::from_secs(1)).await;
        let (_second, mut ends_first, _) = all.admit(from("10.0.0.2:2"));
        tokio::time::advance(Duration::from_secs(1)).await;
        first.asked_for_health();
        let (_third, _end, ended) = all.admit(from("10.0.0.2:3"));
        assert_eq!(ended.unwrap().address, from("10.0.0.2:2"));
        assert!(ends_first.try_recv().is_ok());
        assert!(ends_last.try_recv().is_err() && alone.try_recv().is_err());
        // The other addresses of a host of IPv6 are none of their own.
        assert_eq!(source(from("[2001:db8::1]:1")), source(from("[2001:db8::2]:1")));
    }

    #[tokio::test(start_paused = true)]
    async fn who_does_not_say_in_time_who_it_is_is_ended() {
        let all = places(Limits::default());
        let (silent, mut end, _) = all.admit(from("10.0.0.1:1"));
        let (known, mut stays, _) = all.admit(from("10.0.0.1:2"));
        let (asking, mut asks, _) = all.admit(from("10.0.0.1:3"));
        known.known("user anna").unwrap();
        asking.asked_for_health();
        tokio::time::advance(super::super::FIRST_CREDENTIAL).await;
        let ended: Vec<_> = all
            .end_the_late()
            .into_iter()
            .map(|ended| ended.address)
            .collect();
        assert_eq!(ended, [from("10.0.0.1:1")]);
        assert!(end.try_recv().is_ok() && asks.try_recv().is_err() && stays.try_recv().is_err());
        tokio::time::advance(super::super::HEALTH_IDLE).await;
        assert_eq!(all.end_the_late().len(), 1);
        assert!(asks.try_recv().is_ok() && stays.try_recv().is_err());
        drop((silent, known, asking));
        assert!(!all.has_unknown());
        assert!(all.state().known.is_empty() && all.state().of.is_empty());
    }

    #[test]
    fn one_identity_has_its_share_and_all_have_an_end() {
        let all = places(Limits {
            connections: 3,
            connections_each: 2,
            ..Limits::default()
        });
        let admitted: Vec<_> = (1..=5)
            .map(|port| all.admit(SocketAddr::from(([10, 0, 0, 1], port))))
            .collect();
        let place = |number: usize| &admitted[number].0;
        place(0).known("anna").unwrap();
        place(0).known("anna").unwrap();
        place(1).known("anna").unwrap();
        let refused = place(2).known("anna").unwrap_err();
        assert_eq!(crate::reason(&refused).as_deref(), Some("TOO_MANY_CONNECTIONS"));
        place(3).known("bert").unwrap();
        assert!(place(4).known("carl").is_err());
        drop(admitted);
        assert!(all.state().of.is_empty());
    }
}
