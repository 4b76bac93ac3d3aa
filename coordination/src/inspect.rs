//! Looking at everything without changing anything; and the harness's way to begin anew.
//!
//! Called by `control` for status, doctor and audit, and by the harness.

use model::{
    Name,
    znode::{self, CandidateData, ClientData},
};
use zookeeper_client as zk;

use crate::{
    batch::{self, Fate, Step},
    census::{self, Census, Header},
    election,
    error::Error,
    layout::{OWNED, Office, Place, ROOTS, UNOWNED, WorkerNumber},
    listing,
    roots::{self, Counters},
    term::Term,
};

/// A candidate as seen from outside.
#[derive(Clone, Debug)]
pub struct CandidateView {
    /// Name of its znode: `candidate-0000000001`.
    pub name: String,
    /// Who it is, or why that can't be read.
    pub data: Result<CandidateData, String>,
}

/// An agent as seen from outside.
#[derive(Clone, Debug)]
pub struct ClientView {
    /// Its name.
    pub name: Name,
    /// Where it is held: in `/unowned`, or by a worker.
    pub place: Place,
    /// Who it is, or why that can't be read.
    pub data: Result<ClientData, String>,
}

/// A root as seen from outside.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RootView {
    /// Its path.
    pub path: &'static str,
    /// How many children it has; none where it does not exist.
    pub children: Option<usize>,
}

/// Everything at once, for status, doctor and audit.
#[derive(Clone, Debug)]
pub struct Snapshot {
    /// What is in the three places; a missing root counts as empty.
    pub census: Census,
    /// Dispatchers in the order of their sequences; the first leads.
    pub dispatchers: Vec<CandidateView>,
    /// Watchers in the order of their sequences.
    pub watchers: Vec<CandidateView>,
    /// Agents, those that wait for a worker first.
    pub clients: Vec<ClientView>,
    /// The three roots.
    pub roots: Vec<RootView>,
}

impl Snapshot {
    /// Looks at everything.
    ///
    /// # Errors
    /// [`Error::TermOver`], [`Error::Disconnected`], [`Error::NoAuth`].
    pub async fn take(term: &Term) -> Result<Self, Error> {
        let mut views = Vec::new();
        for path in ROOTS {
            let found = listing::children(term, path).await?;
            views.push(RootView {
                path,
                children: found.map(|(names, _)| names.len()),
            });
        }
        let before = match roots::read(term, UNOWNED).await {
            Ok(counter) => counter.next,
            Err(Error::RootMissing { .. } | Error::BadData { .. }) => 0,
            Err(failure) => return Err(failure),
        };
        let census = match census::census(term, before).await {
            Err(Error::RootMissing { .. }) => Census::default(),
            census => census?,
        };
        let clients = clients(term, &census).await?;
        let dispatchers = candidates(term, Office::Dispatcher).await?;
        let watchers = candidates(term, Office::Watcher).await?;
        Ok(Self {
            census,
            dispatchers,
            watchers,
            clients,
            roots: views,
        })
    }

    /// Reads job, run and past of each entry, where it is now. What was recorded meanwhile is left out.
    ///
    /// # Errors
    /// As [`Snapshot::take`].
    pub async fn read_headers(&self, term: &Term) -> Result<Vec<Header>, Error> {
        census::read_headers(term, &self.census).await
    }
}

async fn candidates(term: &Term, office: Office) -> Result<Vec<CandidateView>, Error> {
    let all = election::listed(term, office).await?;
    let view = |candidate: election::Listed| CandidateView {
        name: candidate.name,
        data: znode::decode(&candidate.data).map_err(|why| why.to_string()),
    };
    Ok(all.into_iter().map(view).collect())
}

async fn clients(term: &Term, census: &Census) -> Result<Vec<ClientView>, Error> {
    let waiting = census.waiting.iter().map(|name| (name, Place::Unowned));
    let held = census.workers.iter().flat_map(|worker| {
        let place = Place::Owned(worker.number);
        worker.clients.iter().map(move |name| (name, place))
    });
    let all: Vec<(&Name, Place)> = waiting.chain(held).collect();
    let paths: Vec<String> = all.iter().map(|(name, place)| place.client(name)).collect();
    let found = listing::read_data(term, &paths, &listing::ReadSize::default()).await?;
    let views = all.into_iter().zip(found).filter_map(|((name, place), data)| {
        Some(ClientView {
            name: name.clone(),
            place,
            data: znode::decode(&data?).map_err(|why| why.to_string()),
        })
    });
    Ok(views.collect())
}

/// How often the tree is listed again while others add to it.
const DELETE_ROUNDS: u32 = 20;

/// Deletes the three roots with all that is in them, whoever put it there, and creates them anew.
///
/// The counters go on where they were, so that no name is used twice. Live workers and leaders notice and begin new
/// terms. Dropped half-way, some of it is deleted; repeat it.
///
/// # Errors
/// [`Error::LiveWorkers`] when a live worker holds entries and `force` is not given; nothing is changed then.
/// [`Error::Contended`] when others add faster than this deletes; [`Error::TermOver`], [`Error::Disconnected`],
/// [`Error::NoAuth`].
pub async fn recreate(term: &Term, force: bool) -> Result<(), Error> {
    match census::census(term, 0).await {
        Ok(census) => {
            let owning = census
                .workers
                .iter()
                .filter(|worker| worker.alive && !worker.entries.is_empty());
            let workers: Vec<WorkerNumber> = owning.map(|worker| worker.number).collect();
            if !workers.is_empty() && !force {
                return Err(Error::LiveWorkers { workers });
            }
        }
        Err(Error::RootMissing { .. }) => {}
        Err(failure) => return Err(failure),
    }
    let counter = async |root| match roots::read(term, root).await {
        Ok(counter) => Ok(counter.next),
        Err(Error::RootMissing { .. } | Error::BadData { .. }) => Ok(0),
        Err(failure) => Err(failure),
    };
    let counters = Counters {
        sequence: counter(UNOWNED).await?,
        worker: counter(OWNED).await?,
    };
    for _ in 0..DELETE_ROUNDS {
        let mut paths = Vec::new();
        for root in ROOTS {
            below(term, root, &mut paths).await?;
        }
        // Deepest first.
        paths.reverse();
        let steps: Vec<Step> = paths
            .into_iter()
            .map(|delete| Step { delete, create: None })
            .collect();
        let fates = batch::carry_out(term, None, &steps).await?;
        if !fates.iter().any(|fate| matches!(fate, Fate::Stuck(_))) {
            return roots::ensure(term, counters).await;
        }
    }
    Err(Error::Contended {
        path: OWNED.to_string(),
        tries: DELETE_ROUNDS,
    })
}

/// Adds a znode and all below it to `paths`, parents before children.
pub(crate) async fn below(term: &Term, top: &str, paths: &mut Vec<String>) -> Result<(), Error> {
    let mut level = vec![top.to_string()];
    while !level.is_empty() {
        let listed = term
            .ask_all(&level, |client, path| client.get_children(path))
            .await?;
        let mut next = Vec::new();
        for (path, names) in level.into_iter().zip(listed) {
            match names {
                Ok((names, _)) => {
                    next.extend(names.iter().map(|name| format!("{path}/{name}")));
                    paths.push(path);
                }
                Err(zk::Error::NoNode) => {}
                Err(failure) => return Err(Error::refused(path, failure)),
            }
        }
        level = next;
    }
    Ok(())
}
