//! Beginning anew: the three roots with nothing in them, while nobody works on them.
//!
//! Promise: a role or agent that is connected, or connects meanwhile, makes [`recreate`] refuse. Where all znodes fit into
//! one transaction, either all of it happens or nothing; with more, the first transaction removes the offices, so that no
//! role that was looked for in vain can have come before it.
//! Called by the harness, and by `sawmill init --acl` for the check.

use model::limits::MULTI_OPS;
use zookeeper_client as zk;
use zookeeper_client::MultiWriteError;

use crate::{
    batch::{self, Step},
    error::{Error, is_lost_reply},
    layout::{OWNED, Office, ROOTS, UNOWNED},
    listing::{self, Found},
    rights::Kind,
    roots::{self, Counters},
    term::Term,
};

/// How often the tree is looked at again while others change it.
const ROUNDS: u32 = 20;

/// Fails when a role or an agent is connected.
///
/// # Errors
/// [`Error::LiveSessions`]; [`Error::TermOver`], [`Error::Disconnected`], [`Error::NoAuth`].
pub async fn check_idle(term: &Term) -> Result<(), Error> {
    refuse_live(&look(term).await?)
}

/// Deletes the three roots with all that is in them, whoever put it there, and creates them anew.
///
/// The counters go on where they were, so that no name is used twice. With `force` also while roles are connected: they
/// notice and begin new terms. Dropped half-way, some of it may be deleted; repeat it.
///
/// # Errors
/// [`Error::LiveSessions`] when a role or an agent is connected and `force` is not given; nothing is changed then, unless it
/// connected while more than [`MULTI_OPS`] znodes were being deleted. [`Error::Contended`] when others change the tree
/// faster than this deletes it; [`Error::TermOver`], [`Error::Disconnected`], [`Error::NoAuth`].
pub async fn recreate(term: &Term, force: bool) -> Result<(), Error> {
    let mut losses = 0;
    for _ in 0..ROUNDS {
        let found = look(term).await?;
        if !force {
            refuse_live(&found)?;
        }
        let counters = Counters {
            sequence: counter(term, UNOWNED).await?,
            worker: counter(term, OWNED).await?,
        };
        match replace(term, found, counters).await? {
            Attempt::Done => return Ok(()),
            Attempt::Changed => {}
            Attempt::Lost(failure) => term.after_loss(&mut losses, OWNED, &failure).await?,
        }
    }
    Err(Error::Contended {
        path: OWNED.to_string(),
        tries: ROUNDS,
    })
}

/// The roots and all below them, parents before children.
async fn look(term: &Term) -> Result<Vec<Found>, Error> {
    let mut found = Vec::new();
    for root in ROOTS {
        listing::below(term, root, &mut found).await?;
    }
    Ok(found)
}

/// Refuses what is done only while nobody is connected.
pub(crate) fn refuse_live(found: &[Found]) -> Result<(), Error> {
    let live = found.iter().filter(|znode| znode.owner != 0);
    let mut paths: Vec<String> = live.map(|znode| znode.path.clone()).collect();
    paths.sort();
    if paths.is_empty() {
        Ok(())
    } else {
        Err(Error::LiveSessions { paths })
    }
}

async fn counter(term: &Term, root: &str) -> Result<u64, Error> {
    match roots::read(term, root).await {
        Ok(counter) => Ok(counter.next),
        Err(Error::RootMissing { .. } | Error::BadData { .. }) => Ok(0),
        Err(failure) => Err(failure),
    }
}

/// What became of a transaction.
enum Attempt {
    Done,
    /// The tree is not as it was found: look again.
    Changed,
    /// Nobody knows: look again.
    Lost(zk::Error),
}

/// Deletes what was found and creates the roots.
async fn replace(term: &Term, found: Vec<Found>, counters: Counters) -> Result<Attempt, Error> {
    // Whoever registers as a worker changes the version, whoever stands for an office is below what is deleted.
    let owned = found.iter().find(|znode| znode.path == OWNED);
    let owned = owned.map(|znode| znode.version);
    let of_office = |path: &str| Office::ALL.iter().any(|office| path.starts_with(office.path()));
    let deepest_first = found.into_iter().rev().map(|znode| znode.path);
    let (mut deletes, rest): (Vec<String>, Vec<String>) = deepest_first.partition(|path| of_office(path));
    let (roots, middle): (Vec<String>, Vec<String>) =
        rest.into_iter().partition(|path| ROOTS.contains(&path.as_str()));
    let new = roots::all(counters);
    let mut guard = owned;
    if deletes.len() + middle.len() + roots.len() + new.len() < MULTI_OPS {
        deletes.extend(middle);
    } else {
        match transaction(term, guard.take(), &deletes, &[]).await? {
            Attempt::Done => deletes.clear(),
            other => return Ok(other),
        }
        let steps: Vec<Step> = middle
            .into_iter()
            .map(|delete| Step { delete, create: None })
            .collect();
        // What is gone is as good; what stands in the way is seen by the transaction after it.
        batch::carry_out(term, None, &steps).await?;
    }
    deletes.extend(roots);
    transaction(term, guard, &deletes, &new).await
}

/// All or nothing: checks the version of `/owned`, deletes, creates.
async fn transaction(
    term: &Term,
    owned: Option<i32>,
    deletes: &[String],
    creates: &[(&str, Vec<u8>)],
) -> Result<Attempt, Error> {
    let mut paths: Vec<&str> = owned.iter().map(|_| OWNED).collect();
    let reply = {
        let client = term.client()?;
        let mut writer = client.new_multi_writer();
        if let Some(version) = owned {
            let added = writer.add_check_version(OWNED, version);
            added.map_err(|failure| Error::refused(OWNED, failure))?;
        }
        for path in deletes {
            let added = writer.add_delete(path, None);
            added.map_err(|failure| Error::refused(path, failure))?;
            paths.push(path);
        }
        for (path, data) in creates {
            let added = writer.add_create(path, data, &term.persistent(Kind::of(path)));
            added.map_err(|failure| Error::refused(*path, failure))?;
            paths.push(path);
        }
        term.wait(writer.commit()).await?
    };
    use zk::Error as E;
    match reply {
        Ok(_) => Ok(Attempt::Done),
        Err(MultiWriteError::OperationFailed {
            source: E::NoNode | E::NodeExists | E::NotEmpty | E::BadVersion,
            ..
        }) => Ok(Attempt::Changed),
        Err(MultiWriteError::OperationFailed { index, source }) => {
            Err(Error::refused(paths.get(index).copied().unwrap_or(OWNED), source))
        }
        Err(MultiWriteError::RequestFailed { source }) if is_lost_reply(&source) => Ok(Attempt::Lost(source)),
        Err(MultiWriteError::RequestFailed { source }) => Err(Error::refused(OWNED, source)),
    }
}
