//! Looking at everything without changing anything.
//!
//! Called by `control` for status, doctor and audit.

use model::{
    Name,
    znode::{self, CandidateData, ClientData},
};

use crate::{
    census::{self, Census, Header},
    election,
    error::Error,
    layout::{Office, Place, ROOTS, UNOWNED},
    listing, roots,
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
