//! Many moves in few transactions: guarded, pipelined, repeated with care.
//!
//! A [`Step`] takes one entry out of its place and puts it into the next, in one transaction with its neighbours.
//! Whatever happens to the neighbours, each step ends with a [`Fate`]. A transaction that fails names its culprit: it
//! is dropped and the rest repeated; after two failures the rest goes singly. A lost reply means unknown: look what
//! moved, then repeat what did not.

use model::limits::{MULTI_BYTES, MULTI_OPS};
use zookeeper_client as zk;
use zookeeper_client::{Client, MultiWriteError, MultiWriteResult};

use crate::{
    error::{Error, is_lost_reply},
    layout::parent,
    rights::Kind,
    term::Term,
};

/// One move of one entry.
#[derive(Clone, Debug)]
pub(crate) struct Step {
    /// What is deleted; it must exist.
    pub(crate) delete: String,
    /// What is created in the same transaction; it must not exist.
    pub(crate) create: Option<(String, Vec<u8>)>,
}

/// What became of a [`Step`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    /// Done by us.
    Moved,
    /// What was to be deleted was not there: somebody else moved it.
    Gone,
    /// After a lost reply it is no longer where it was, and not where we sent it: moved by us and on from there, or
    /// by somebody else.
    Left,
    /// ZooKeeper refuses this step as long as something foreign is in its way.
    Stuck(String),
}

/// Transactions under way at once: enough to hide the round trip, few enough that a lost connection costs little.
pub(crate) const IN_FLIGHT: usize = 16;
/// After so many failures of one transaction what is left of it goes singly.
const FAILURES_BEFORE_SINGLY: u32 = 2;

/// Bytes that one operation takes in a request beside path and data, rounded up: header, lengths, ACL, flags. The ACL of
/// roles with long names adds 400 bytes: with `MULTI_OPS` of them a request is still below the megabyte that ZooKeeper takes.
const OPERATION_BYTES: usize = 96;

/// Bytes of one operation in a request to a server that knows `chroot`.
pub(crate) fn operation_bytes(chroot: &str, path: &str, data: usize) -> usize {
    OPERATION_BYTES + chroot.len() + path.len() + data
}

/// Largest data that fits into one transaction with its guard.
pub(crate) const MOST_DATA_BYTES: usize = MULTI_BYTES - 4096;

/// Refuses data that no transaction can carry.
pub(crate) fn check_size(path: &str, data: &[u8]) -> Result<(), Error> {
    if data.len() <= MOST_DATA_BYTES {
        Ok(())
    } else {
        Err(Error::TooLarge {
            path: path.to_string(),
            bytes: data.len(),
            limit: MOST_DATA_BYTES,
        })
    }
}

/// Cuts items into consecutive runs that each fit into one transaction beside `fixed` operations.
pub(crate) fn split<T: Copy>(
    items: &[T],
    fixed: usize,
    weigh: impl Fn(T) -> (usize, usize),
) -> impl Iterator<Item = &[T]> {
    let mut rest = items;
    std::iter::from_fn(move || {
        let (mut operations, mut bytes, mut taken) = (fixed, fixed * 512, 0);
        for &item in rest {
            let (more_operations, more_bytes) = weigh(item);
            let fits = operations + more_operations <= MULTI_OPS && bytes + more_bytes <= MULTI_BYTES;
            if taken > 0 && !fits {
                break;
            }
            operations += more_operations;
            bytes += more_bytes;
            taken += 1;
        }
        let (run, after) = rest.split_at(taken);
        rest = after;
        (taken > 0).then_some(run)
    })
}

/// Steps that go into one transaction, by position.
struct Chunk {
    steps: Vec<usize>,
    failures: u32,
}

/// Carries out steps, each guarded by the existence of `guard`.
///
/// Dropped half-way, any of the steps may or may not happen.
///
/// # Errors
/// [`Error::Deposed`] when the guard is gone, [`Error::TooLarge`] before anything was sent, [`Error::RootMissing`],
/// [`Error::NoAuth`], [`Error::TermOver`], [`Error::Disconnected`]; steps may have happened before.
pub(crate) async fn carry_out(term: &Term, guard: Option<&str>, steps: &[Step]) -> Result<Vec<Fate>, Error> {
    for step in steps {
        if let Some((path, data)) = &step.create {
            check_size(path, data)?;
        }
    }
    let mut fates: Vec<Option<Fate>> = vec![None; steps.len()];
    let all: Vec<usize> = (0..steps.len()).collect();
    let mut waiting = chunks(term, guard, steps, &all);
    let mut losses = 0;
    while !waiting.is_empty() {
        let round: Vec<Chunk> = waiting.drain(..waiting.len().min(IN_FLIGHT)).collect();
        let mut lost: Vec<usize> = Vec::new();
        let mut failure = None;
        {
            let client = term.client()?;
            let mut sent = Vec::with_capacity(round.len());
            for chunk in round {
                let reply = send(&client, term, guard, steps, &chunk.steps)?;
                sent.push((chunk, reply));
            }
            for (mut chunk, reply) in sent {
                match term.wait(reply).await? {
                    Ok(_) => chunk.steps.iter().for_each(|&i| fates[i] = Some(Fate::Moved)),
                    Err(MultiWriteError::OperationFailed { index, source }) => {
                        let (at, fate) = judge(guard, steps, &chunk.steps, index, source)?;
                        fates[chunk.steps.remove(at)] = Some(fate);
                        chunk.failures += 1;
                        requeue(chunk, &mut waiting);
                    }
                    Err(MultiWriteError::RequestFailed { source }) if is_lost_reply(&source) => {
                        lost.extend(&chunk.steps);
                        failure = Some(source);
                    }
                    Err(MultiWriteError::RequestFailed { source }) => {
                        return Err(Error::refused(first_path(steps, &chunk.steps), source));
                    }
                }
            }
        }
        if let Some(failure) = failure {
            term.after_loss(&mut losses, first_path(steps, &lost), &failure)
                .await?;
            look(term, steps, &lost, &mut fates).await?;
            lost.retain(|&i| fates[i].is_none());
            waiting.extend(chunks(term, guard, steps, &lost));
        }
    }
    Ok(fates.into_iter().flatten().collect())
}

fn chunks(term: &Term, guard: Option<&str>, steps: &[Step], open: &[usize]) -> Vec<Chunk> {
    let weigh = |i: usize| {
        let step = &steps[i];
        let deleting = operation_bytes(term.chroot(), &step.delete, 0);
        match &step.create {
            Some((path, data)) => (2, deleting + operation_bytes(term.chroot(), path, data.len())),
            None => (1, deleting),
        }
    };
    let runs = split(open, usize::from(guard.is_some()), weigh);
    runs.map(|run| Chunk {
        steps: run.to_vec(),
        failures: 0,
    })
    .collect()
}

fn requeue(chunk: Chunk, waiting: &mut Vec<Chunk>) {
    if chunk.steps.is_empty() {
    } else if chunk.failures < FAILURES_BEFORE_SINGLY {
        waiting.push(chunk);
    } else {
        waiting.extend(chunk.steps.iter().map(|&i| Chunk {
            steps: vec![i],
            failures: chunk.failures,
        }));
    }
}

fn first_path<'s>(steps: &'s [Step], open: &[usize]) -> &'s str {
    open.first().map_or("/", |&i| &steps[i].delete)
}

/// Sends one transaction; the request is on its way when this returns.
fn send<'c>(
    client: &'c Client,
    term: &Term,
    guard: Option<&str>,
    steps: &[Step],
    chunk: &[usize],
) -> Result<impl Future<Output = Result<Vec<MultiWriteResult>, MultiWriteError>> + Send + 'c, Error> {
    let persistent = term.persistent(Kind::Leaf);
    let mut writer = client.new_multi_writer();
    if let Some(guard) = guard {
        writer
            .add_check_version(guard, ANY_VERSION)
            .map_err(|failure| Error::refused(guard, failure))?;
    }
    for &i in chunk {
        let Step { delete, create } = &steps[i];
        writer
            .add_delete(delete, None)
            .map_err(|failure| Error::refused(delete, failure))?;
        if let Some((path, data)) = create {
            let added = writer.add_create(path, data, &persistent);
            added.map_err(|failure| Error::refused(path, failure))?;
        }
    }
    Ok(writer.commit())
}

/// As the version of a check: the znode must exist, in whatever version.
pub(crate) const ANY_VERSION: i32 = -1;

/// Finds the step that failed a transaction: its position in the chunk, and its fate.
fn judge(
    guard: Option<&str>,
    steps: &[Step],
    chunk: &[usize],
    index: usize,
    source: zk::Error,
) -> Result<(usize, Fate), Error> {
    let mut operation = index;
    if let Some(guard) = guard {
        if operation == 0 {
            return Err(guard_failed(guard, source));
        }
        operation -= 1;
    }
    for (at, &i) in chunk.iter().enumerate() {
        let Step { delete, create } = &steps[i];
        let (path, deleting) = match (operation, create) {
            (0, _) => (delete, true),
            (1, Some((path, _))) => (path, false),
            _ => {
                operation -= 1 + usize::from(create.is_some());
                continue;
            }
        };
        return match (source, deleting) {
            (zk::Error::NoNode, true) => Ok((at, Fate::Gone)),
            (zk::Error::NotEmpty, true) => Ok((at, Fate::Stuck(format!("{path} has children")))),
            (zk::Error::NodeExists, false) => Ok((at, Fate::Stuck(format!("{path} is already there")))),
            (zk::Error::NoNode, false) => Err(Error::RootMissing {
                path: parent(path).to_string(),
            }),
            (source, _) => Err(Error::refused(path, source)),
        };
    }
    Err(Error::refused(first_path(steps, chunk), source))
}

/// What the failed check of a guard means.
pub(crate) fn guard_failed(guard: &str, source: zk::Error) -> Error {
    match source {
        zk::Error::NoNode | zk::Error::BadVersion => Error::Deposed {
            path: guard.to_string(),
        },
        source => Error::refused(guard, source),
    }
}

/// Finds out which steps happened though their reply was lost; leaves the fates of the others open.
async fn look(term: &Term, steps: &[Step], open: &[usize], fates: &mut [Option<Fate>]) -> Result<(), Error> {
    term.sync().await?;
    let sources: Vec<String> = open.iter().map(|&i| steps[i].delete.clone()).collect();
    let answers = term
        .ask_all(&sources, |client, path| client.check_stat(path))
        .await?;
    let mut moved = Vec::new();
    for (&i, answer) in open.iter().zip(answers) {
        match answer {
            Ok(Some(_)) => {}
            Ok(None) | Err(zk::Error::NoNode) => match &steps[i].create {
                Some((path, _)) => moved.push((i, path.clone())),
                None => fates[i] = Some(Fate::Gone),
            },
            Err(failure) => return Err(Error::refused(&steps[i].delete, failure)),
        }
    }
    let targets: Vec<String> = moved.iter().map(|(_, path)| path.clone()).collect();
    let found = term
        .ask_all(&targets, |client, path| client.get_data(path))
        .await?;
    for ((i, path), answer) in moved.into_iter().zip(found) {
        let ours = steps[i].create.as_ref().map(|(_, data)| data);
        fates[i] = Some(match answer {
            Ok((data, _)) if Some(&data) == ours => Fate::Moved,
            Ok(_) => Fate::Gone,
            Err(zk::Error::NoNode) => Fate::Left,
            Err(failure) => return Err(Error::refused(path, failure)),
        });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn step(n: usize) -> Step {
        Step {
            delete: format!("/unowned/{n}"),
            create: Some((format!("/done/{n}"), Vec::new())),
        }
    }

    #[test]
    fn splits_by_operations_and_bytes() {
        let items: Vec<usize> = (0..1000).collect();
        let runs: Vec<usize> = split(&items, 1, |_| (2, 10)).map(<[_]>::len).collect();
        assert_eq!(runs, [249, 249, 249, 249, 4]);
        let runs: Vec<usize> = split(&items[..9], 1, |_| (2, 128 * 1024))
            .map(<[_]>::len)
            .collect();
        assert_eq!(runs, [3, 3, 3]);
        let runs: Vec<usize> = split(&items[..2], 1, |_| (1, 2 * MULTI_BYTES))
            .map(<[_]>::len)
            .collect();
        assert_eq!(runs, [1, 1], "what is too large on its own goes alone");
        assert_eq!(split(&items[..0], 1, |_| (1, 1)).count(), 0);
    }

    #[test]
    fn the_culprit_is_found() {
        let steps: Vec<Step> = (0..3).map(step).collect();
        let judged = |index, source| judge(Some("/g"), &steps, &[0, 2], index, source);
        assert_eq!(judged(1, zk::Error::NoNode).unwrap(), (0, Fate::Gone));
        assert_eq!(judged(3, zk::Error::NoNode).unwrap(), (1, Fate::Gone));
        let (at, fate) = judged(4, zk::Error::NodeExists).unwrap();
        assert_eq!((at, fate), (1, Fate::Stuck("/done/2 is already there".into())));
        assert!(matches!(judged(0, zk::Error::NoNode), Err(Error::Deposed { path }) if path == "/g"));
        assert!(matches!(judged(2, zk::Error::NoNode), Err(Error::RootMissing { path }) if path == "/done"));
        assert!(matches!(judged(1, zk::Error::NoAuth), Err(Error::NoAuth { path }) if path == "/unowned/0"));
        assert!(
            judged(9, zk::Error::NoNode).is_err(),
            "an index beyond the operations"
        );
        let deletes = [
            Step {
                delete: "/done/1".into(),
                create: None,
            },
            Step {
                delete: "/done/2".into(),
                create: None,
            },
        ];
        assert_eq!(
            judge(None, &deletes, &[0, 1], 1, zk::Error::NoNode).unwrap(),
            (1, Fate::Gone)
        );
    }
}
