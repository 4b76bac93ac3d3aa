//! What a worker knows of the entries that wait in `/unowned`.

use std::{
    collections::{HashMap, HashSet},
    time::{Duration, Instant},
};

use model::{
    EntryName, Name,
    claim::{Choice, Seen, choose},
    rendezvous,
    znode::EntryData,
};

/// The entries seen to wait, since when, and the data of those that were read.
#[derive(Default)]
pub(crate) struct Shelf {
    seen: HashMap<EntryName, Waiting>,
    /// Live nodes, this one among them.
    pub(crate) nodes: Vec<Name>,
}

struct Waiting {
    since: Instant,
    nearest: bool,
    data: Option<Box<EntryData>>,
    /// Not for this node: undecodable, or its requirements do not fit.
    unusable: bool,
}

impl Shelf {
    /// Takes note of a listing.
    pub(crate) fn list(&mut self, listed: Vec<EntryName>, me: &Name, now: Instant) {
        if self.seen.len() != listed.len() || !listed.iter().all(|name| self.seen.contains_key(name)) {
            let present: HashSet<&EntryName> = listed.iter().collect();
            self.seen.retain(|name, _| present.contains(name));
        }
        for name in listed {
            if !self.seen.contains_key(&name) {
                let nearest = self.is_nearest(&name, me);
                self.seen.insert(
                    name,
                    Waiting {
                        since: now,
                        nearest,
                        data: None,
                        unusable: false,
                    },
                );
            }
        }
    }

    /// Whether this node is the one to reach for an entry: it keeps its blocks, or is the nearest where nobody does.
    fn is_nearest(&self, name: &EntryName, me: &Name) -> bool {
        if let Some(host) = &name.host {
            // It lived when the entry was fed; should it have died since, its entries become anybody's after a while.
            return host == me;
        }
        let key = name.locality_key();
        self.nodes.len() < 2
            || rendezvous::nearest(key.as_bytes(), &self.nodes).is_none_or(|nearest| nearest == me)
    }

    /// Which entries to reach for after a listing, the best first, and when to look again at what is left to others.
    pub(crate) fn choose(
        &self,
        room: usize,
        wait: Duration,
        now: Instant,
    ) -> (Vec<EntryName>, Option<Duration>) {
        self.choose_among(|_| true, room, wait, now)
    }

    /// Which entries to reach for without listing again: those that nobody else reaches for yet.
    pub(crate) fn choose_own(&self, room: usize, wait: Duration, now: Instant) -> Vec<EntryName> {
        let sole = self.nodes.len() < 2;
        let own = |waiting: &Waiting| waiting.nearest && (sole || now - waiting.since < wait);
        self.choose_among(own, room, wait, now).0
    }

    fn choose_among(
        &self,
        usable: impl Fn(&Waiting) -> bool,
        room: usize,
        wait: Duration,
        now: Instant,
    ) -> (Vec<EntryName>, Option<Duration>) {
        let seen: Vec<Seen<'_>> = self
            .seen
            .iter()
            .filter(|(_, waiting)| !waiting.unusable && usable(waiting))
            .map(|(name, waiting)| Seen {
                name,
                age: now - waiting.since,
                nearest: waiting.nearest,
            })
            .collect();
        let Choice { take, look_again_in } = choose(&seen, room, wait);
        (
            take.into_iter().map(|i| seen[i].name.clone()).collect(),
            look_again_in,
        )
    }

    /// The data of an entry, if it was read before.
    pub(crate) fn data(&self, name: &EntryName) -> Option<&EntryData> {
        self.seen.get(name)?.data.as_deref()
    }

    pub(crate) fn keep_data(&mut self, name: &EntryName, data: EntryData) {
        if let Some(waiting) = self.seen.get_mut(name) {
            waiting.data = Some(Box::new(data));
        }
    }

    pub(crate) fn age(&self, name: &EntryName, now: Instant) -> Duration {
        self.seen
            .get(name)
            .map_or(Duration::ZERO, |waiting| now - waiting.since)
    }

    /// Marks an entry that this node will never claim.
    pub(crate) fn pass_over(&mut self, name: &EntryName) {
        if let Some(waiting) = self.seen.get_mut(name) {
            waiting.unusable = true;
        }
    }

    /// Takes an entry out: it is claimed, or gone.
    pub(crate) fn take(&mut self, name: &EntryName) -> Option<EntryData> {
        self.seen.remove(name)?.data.map(|data| *data)
    }
}
