//! The dispatcher that leads: taking office, counting, listing.
//!
//! Promise: each of its writes checks its candidate, so that a deposed leader's writes fail. Its steps are in
//! [`crate::feed`], [`crate::recover`] and [`crate::revoke`]. Called by the dispatcher that leads.

use std::{
    collections::HashMap,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use model::znode::WorkerData;

use crate::{
    batch::{self, Fate, Step},
    census::{self, Census, Header},
    election::Candidacy,
    error::Error,
    layout::{DONE, OWNED, UNOWNED, WorkerNumber},
    roots::{self, Counters},
    term::Term,
};

/// The dispatcher that leads.
#[derive(Debug)]
pub struct Leader {
    pub(crate) term: Term,
    pub(crate) candidacy: Candidacy,
    /// Path of the candidate: the guard of every write.
    pub(crate) guard: String,
    pub(crate) next: u64,
    /// Version of `/unowned` that the next feed expects.
    pub(crate) version: i32,
    /// False while a feed is under way: should it be dropped half-way, the next one looks first.
    pub(crate) certain: bool,
    /// One more than the highest worker number seen: recreated roots count on from there.
    next_worker: AtomicU64,
    /// Data of workers that were woken or listed, with the wake-up counter as last written.
    pub(crate) workers: Mutex<HashMap<WorkerNumber, WorkerData>>,
}

impl Leader {
    /// Takes office: reads the counter, recreates missing roots. Call it when [`Candidacy::until_leading`] returned.
    ///
    /// # Errors
    /// [`Error::Deposed`], [`Error::TermOver`], [`Error::Disconnected`], [`Error::NoAuth`], [`Error::BadData`].
    pub async fn take_office(term: &Term, candidacy: &Candidacy) -> Result<Self, Error> {
        let mut leader = Self {
            term: term.clone(),
            candidacy: candidacy.clone(),
            guard: candidacy.path(),
            next: 0,
            version: 0,
            certain: false,
            next_worker: AtomicU64::new(0),
            workers: Mutex::new(HashMap::new()),
        };
        leader.look().await?;
        leader
            .next_worker
            .fetch_max(roots::behind_highest(term, OWNED).await?, Ordering::Relaxed);
        Ok(leader)
    }

    /// The sequence that the next entry gets.
    pub fn next_sequence(&self) -> u64 {
        self.next
    }

    /// Reads the counter again, checks that the candidate is ours, recreates missing roots.
    pub(crate) async fn look(&mut self) -> Result<(), Error> {
        let counter = match roots::read(&self.term, UNOWNED).await {
            Err(Error::RootMissing { .. }) => {
                self.mend().await?;
                roots::read(&self.term, UNOWNED).await?
            }
            counter => {
                self.candidacy.check().await?;
                counter?
            }
        };
        // `/done` may be missing alone.
        let done = self.term.ask(DONE, |client| client.check_stat(DONE)).await?;
        if done.map_err(|failure| Error::refused(DONE, failure))?.is_none() {
            self.mend().await?;
        }
        self.next = self.next.max(counter.next);
        self.version = counter.version;
        self.certain = true;
        Ok(())
    }

    /// Recreates missing roots, with counters that go on where they were.
    pub(crate) async fn mend(&self) -> Result<(), Error> {
        self.candidacy.check().await?;
        let counters = Counters {
            sequence: self.next,
            worker: self.next_worker.load(Ordering::Relaxed),
        };
        tracing::warn!("a root is missing in ZooKeeper; recreating it");
        roots::ensure(&self.term, counters).await
    }

    /// Carries out guarded steps; recreates `/done` should it be missing.
    pub(crate) async fn move_all(&self, steps: &[Step]) -> Result<Vec<Fate>, Error> {
        match batch::carry_out(&self.term, Some(&self.guard), steps).await {
            Err(Error::RootMissing { .. }) => {
                self.mend().await?;
                batch::carry_out(&self.term, Some(&self.guard), steps).await
            }
            fates => fates,
        }
    }

    /// Lists the three places in the order of a takeover.
    ///
    /// Each entry is listed once, in the last place it was seen in. A missing root is recreated.
    ///
    /// # Errors
    /// [`Error::Deposed`] when a root and the candidate are gone; [`Error::TermOver`], [`Error::Disconnected`],
    /// [`Error::NoAuth`].
    pub async fn census(&self) -> Result<Census, Error> {
        let census = match census::census(&self.term, self.next).await {
            Err(Error::RootMissing { .. }) => {
                self.mend().await?;
                census::census(&self.term, self.next).await?
            }
            census => census?,
        };
        let mut workers = self.workers.lock().unwrap_or_else(PoisonError::into_inner);
        workers.retain(|number, _| {
            census
                .workers
                .binary_search_by_key(number, |view| view.number)
                .is_ok()
        });
        for view in &census.workers {
            self.next_worker
                .fetch_max(view.number.0.saturating_add(1), Ordering::Relaxed);
            if let Ok(data) = &view.data {
                workers.entry(view.number).or_insert_with(|| data.clone()).wake = data.wake;
            }
        }
        Ok(census)
    }

    /// Reads what the entries of a census are: job, run and past, each where it is now. What was recorded meanwhile
    /// is left out.
    ///
    /// # Errors
    /// [`Error::TermOver`], [`Error::Disconnected`], [`Error::NoAuth`].
    pub async fn read_headers(&self, census: &Census) -> Result<Vec<Header>, Error> {
        census::read_headers(&self.term, census).await
    }

    /// How many znodes are in `/unowned`; 0 where it is missing.
    ///
    /// # Errors
    /// [`Error::TermOver`], [`Error::Disconnected`].
    pub async fn unowned_count(&self) -> Result<usize, Error> {
        match self
            .term
            .ask(UNOWNED, |client| client.check_stat(UNOWNED))
            .await?
        {
            Ok(stat) => Ok(stat.map_or(0, |stat| usize::try_from(stat.num_children).unwrap_or(0))),
            Err(failure) => Err(Error::refused(UNOWNED, failure)),
        }
    }
}
