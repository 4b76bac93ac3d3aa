//! Looks at the tree all the time, atomically: each entry in one place, nothing goes back; and how long the cluster takes
//! after a fault until it works again.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Mutex,
    time::Duration,
};

use testkit::picture::{Camera, Error, Picture, sequence};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::plan::{Fault, How, Victim};

/// Between two pictures.
const PAUSE: Duration = Duration::from_millis(25);
/// A picture that takes longer is of a ZooKeeper that does not answer: a new session is tried.
const PATIENCE: Duration = Duration::from_millis(500);

#[derive(Default)]
pub(crate) struct Watch {
    seen: Mutex<SeenSoFar>,
    session: Duration,
}

#[derive(Default)]
struct SeenSoFar {
    latest: Picture,
    /// By what is below `/owned`.
    pids: BTreeMap<String, u32>,
    pictures: u64,
    /// Workers whose `alive` is gone.
    dead: BTreeSet<String>,
    highest: u64,
    /// Entries that have left `/done`.
    cleared: u64,
    pending: Vec<Pending>,
    times: BTreeMap<String, Vec<Duration>>,
    violations: BTreeSet<String>,
}

/// Something that is waited for since a fault.
struct Pending {
    what: String,
    since: Instant,
    until: Until,
}

enum Until {
    /// A worker's folder is gone: what it held is on its way to others.
    Gone(String),
    /// Another than this candidate leads, and has fed since then.
    Fed { candidate: String, next: Option<u64> },
    /// These have left `/done`.
    Cleared(BTreeSet<String>),
    /// More than so many entries have left `/done`.
    Recorded(u64),
}

impl Watch {
    pub(crate) fn new(session: Duration) -> Self {
        Self {
            session,
            ..Self::default()
        }
    }

    /// Takes pictures until it is stopped.
    pub(crate) async fn run(&self, zookeeper: String, stop: CancellationToken) {
        let mut camera = None;
        while !stop.is_cancelled() {
            let looked = async {
                if camera.is_none() {
                    camera = Camera::connect(&zookeeper).await;
                }
                let taken = self.look(camera.as_mut()?).await;
                taken.ok()
            };
            if !matches!(tokio::time::timeout(PATIENCE, looked).await, Ok(Some(()))) {
                camera = None;
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    async fn look(&self, camera: &mut Camera) -> Result<(), Error> {
        let picture = camera.take().await?;
        let folders = picture.workers.keys().cloned();
        let leading = picture
            .dispatchers
            .iter()
            .map(|name| format!("dispatcher/{name}"));
        let mut pids = BTreeMap::new();
        for path in folders.chain(leading) {
            if let Some(pid) = camera.pid(&path).await? {
                pids.insert(path, pid);
            }
        }
        let mut seen = self.seen.lock().unwrap();
        seen.pids = pids;
        seen.take_in(picture);
        Ok(())
    }

    /// A role was hit: waits for what shows that others do its work.
    pub(crate) fn struck(&self, fault: Fault, pid: u32, since: Instant) {
        // A short one costs no session, and nobody has to do anything.
        if matches!(fault.how, How::Freeze | How::Cut) && fault.lasts <= self.session {
            return;
        }
        let mut seen = self.seen.lock().unwrap();
        let latest = &seen.latest;
        let is_of = |path: &str| seen.pids.get(path) == Some(&pid);
        let mut untils = Vec::new();
        match fault.victim {
            Victim::Compute(_) => {
                let holds = |names: &Vec<String>| names.iter().any(|name| name.starts_with("entry-"));
                let hit = latest
                    .workers
                    .iter()
                    .filter(|(worker, names)| is_of(worker) && holds(names));
                untils.extend(hit.map(|(worker, _)| Until::Gone(worker.clone())));
            }
            Victim::Dispatcher(_) => {
                let leader = latest.dispatchers.first();
                let hit = leader.filter(|name| is_of(&format!("dispatcher/{name}")));
                untils.extend(hit.map(|candidate| Until::Fed {
                    candidate: candidate.clone(),
                    next: None,
                }));
            }
            Victim::Watcher(_) if !latest.done.is_empty() => {
                untils.push(Until::Cleared(latest.done.iter().cloned().collect()));
            }
            _ => {}
        }
        let what = format!("{} {}", fault.victim.kind(), fault.how.as_str());
        seen.pending.extend(untils.into_iter().map(|until| Pending {
            what: what.clone(),
            since,
            until,
        }));
    }

    /// A store answers again.
    pub(crate) fn back(&self, fault: Fault) {
        let mut seen = self.seen.lock().unwrap();
        let until = Until::Recorded(seen.cleared);
        seen.pending.push(Pending {
            what: format!("{} back after {}", fault.victim.kind(), fault.how.as_str()),
            since: Instant::now(),
            until,
        });
    }

    /// Nothing more is waited for: what is left is left because there is no more work.
    pub(crate) fn close(&self) {
        self.seen.lock().unwrap().pending.clear();
    }

    pub(crate) fn violations(&self) -> Vec<String> {
        self.seen.lock().unwrap().violations.iter().cloned().collect()
    }

    /// Entries that are in the tree now.
    pub(crate) fn entries(&self) -> Vec<String> {
        let seen = self.seen.lock().unwrap();
        seen.latest
            .entries()
            .map(|(name, place)| format!("{place}/{name}"))
            .collect()
    }

    /// How many pictures there were, and by fault how often and how long work stood still.
    pub(crate) fn report(&self) -> String {
        let seen = self.seen.lock().unwrap();
        let mut told = format!("{} atomic pictures of the tree\n", seen.pictures);
        told += "fault, until its work goes on        times   median      max\n";
        for (what, times) in &seen.times {
            let mut times = times.clone();
            times.sort();
            let median = times[times.len() / 2].as_secs_f64();
            let most = times.last().map_or(0.0, Duration::as_secs_f64);
            told += &format!("{what:<36} {:>5} {median:>6.2} s {most:>6.2} s\n", times.len());
        }
        told
    }
}

impl SeenSoFar {
    fn take_in(&mut self, picture: Picture) {
        self.pictures += 1;
        for root in &picture.missing {
            self.violations.insert(format!("{root} is missing"));
        }
        let mut places: BTreeMap<&str, &str> = BTreeMap::new();
        for (entry, place) in picture.entries() {
            if let Some(other) = places.insert(entry, place) {
                self.violations
                    .insert(format!("{entry} is in {other} and in {place}"));
            }
            if sequence(entry) >= picture.next {
                let next = picture.next;
                self.violations
                    .insert(format!("{entry} is beyond the next sequence {next:?}"));
            }
        }
        if picture.next < Some(self.highest) {
            let (was, is) = (self.highest, picture.next);
            self.violations
                .insert(format!("the next sequence was {was}, and then {is:?}"));
        }
        self.highest = self.highest.max(picture.next.unwrap_or(0));
        for (worker, names) in &picture.workers {
            if !names.iter().any(|name| name == "alive") {
                self.dead.insert(worker.clone());
            } else if self.dead.contains(worker) {
                self.violations.insert(format!("{worker} is alive again"));
            }
        }
        let left = self
            .latest
            .done
            .iter()
            .filter(|entry| picture.done.binary_search(entry).is_err());
        self.cleared += left.count() as u64;
        let mut pending = std::mem::take(&mut self.pending);
        pending.retain_mut(|waiting| {
            let over = match &mut waiting.until {
                Until::Gone(worker) => !picture.workers.contains_key(worker),
                Until::Fed { candidate, next } => {
                    let other = picture
                        .dispatchers
                        .first()
                        .is_some_and(|first| first != candidate);
                    if other && next.is_none() {
                        *next = picture.next;
                    }
                    next.is_some_and(|next| picture.next > Some(next))
                }
                Until::Cleared(entries) => !picture.done.iter().any(|entry| entries.contains(entry)),
                Until::Recorded(before) => self.cleared > *before,
            };
            if over {
                self.times
                    .entry(waiting.what.clone())
                    .or_default()
                    .push(waiting.since.elapsed());
            }
            !over
        });
        self.pending = pending;
        self.latest = picture;
    }
}
