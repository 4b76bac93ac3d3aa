//! The step *feed*: new entries into `/unowned`.
//!
//! Promise: each transaction expects the version of `/unowned` that the one before left, so that a repeated one fails.
//! Sequences are the leader's own.

use model::{
    entry::{EntryName, Priority, Spot},
    name::Name,
};
use zookeeper_client as zk;
use zookeeper_client::{Client, MultiWriteError, MultiWriteResult};

use crate::{
    batch::{self, ANY_VERSION, IN_FLIGHT, check_size, guard_failed, operation_bytes},
    error::{Error, is_lost_reply},
    layout::{Place, UNOWNED, WorkerNumber, parent},
    leader::Leader,
    rights::Kind,
    roots::{self, Counter},
};

/// What is to be fed; the leader gives it its sequence.
#[derive(Clone, Debug, PartialEq)]
pub struct NewEntry {
    /// Of the job.
    pub priority: Priority,
    /// Where the data is from.
    pub dataset: Name,
    /// What the first subtask works on.
    pub spot: Spot,
    /// The node that keeps its blocks; none where all nodes reach them alike.
    pub host: Option<Name>,
    /// [`Place::Unowned`], or [`Place::Done`] for an end that needs no worker.
    pub place: Place,
    /// Data of the znode: a `model::znode::EntryData` or `DoneData`.
    pub data: Vec<u8>,
}

/// Consecutive entries that go into one transaction.
struct Chunk {
    names: Vec<EntryName>,
    /// Position of the first among what is fed.
    first: usize,
    /// Workers to wake once all is in; with the last transaction.
    wake: Vec<WorkerNumber>,
}

impl Chunk {
    /// The counter once this is in.
    fn next(&self) -> u64 {
        self.names.last().map_or(0, |name| name.sequence + 1)
    }
}

/// Why a feed did not go through at once.
enum Trouble {
    /// Not known how far it went.
    Lost(zk::Error),
    /// The counter is not what was expected.
    Moved,
    /// A root is missing.
    RootMissing,
    /// A name is taken by something foreign.
    Taken(String),
    /// A worker to be woken is no more.
    Vanished(WorkerNumber),
}

impl Leader {
    /// Feeds entries, in transactions as large as they may be, and wakes workers with the last of them.
    ///
    /// `Ok` names what is in, a prefix of `entries` in their order: all of it, unless ZooKeeper refused the rest for
    /// good. After an `Err` the term is over, nothing is in, or [`Error::outcome_unknown`]. A worker that can't be
    /// woken never fails a feed. Dropped half-way, any prefix may be in: [`Leader::census`] tells.
    ///
    /// # Errors
    /// [`Error::Deposed`] when the candidate is gone; [`Error::TooLarge`] before anything was sent;
    /// [`Error::TermOver`], [`Error::Disconnected`], [`Error::NoAuth`].
    pub async fn feed(
        &mut self,
        entries: Vec<NewEntry>,
        wake: &[WorkerNumber],
    ) -> Result<Vec<EntryName>, Error> {
        for entry in &entries {
            if matches!(entry.place, Place::Owned(_)) {
                let failure = zk::Error::BadArguments(&"an entry is fed into /unowned or /done");
                return Err(Error::refused(entry.place.path(), failure));
            }
            check_size(UNOWNED, &entry.data)?;
        }
        if !self.certain {
            self.look().await?;
        }
        self.load_workers(wake).await?;
        let mut fed = Vec::with_capacity(entries.len());
        match self.feed_all(&entries, &mut fed, wake).await {
            Ok(()) => Ok(fed),
            Err(failure) if failure.session_lost() || failure.outcome_unknown() || fed.is_empty() => {
                Err(failure)
            }
            Err(failure) => {
                tracing::warn!(%failure, fed = fed.len(), of = entries.len(), "could not feed all");
                Ok(fed)
            }
        }
    }

    async fn feed_all(
        &mut self,
        entries: &[NewEntry],
        fed: &mut Vec<EntryName>,
        wake: &[WorkerNumber],
    ) -> Result<(), Error> {
        let (mut losses, mut troubles, mut leap) = (0, 0, 1);
        loop {
            let mut chunks = self.chunks(entries, fed.len());
            let Some(last) = chunks.last_mut() else {
                return Ok(());
            };
            if last.first + last.names.len() == entries.len() {
                last.wake = wake.to_vec();
            }
            let Some((trouble, open)) = self.feed_round(entries, chunks, fed).await? else {
                continue;
            };
            // Each worker vanishes once; that counts for nobody's patience.
            troubles += u32::from(!matches!(trouble, Trouble::Vanished(_)));
            if troubles > MOST_TROUBLES {
                return Err(Error::Contended {
                    path: UNOWNED.to_string(),
                    tries: troubles,
                });
            }
            if let Trouble::Lost(failure) = &trouble {
                self.term.after_loss(&mut losses, UNOWNED, failure).await?;
                self.term.sync().await?;
            }
            let before = Counter {
                next: self.next,
                version: self.version,
            };
            self.look().await?;
            match trouble {
                Trouble::Lost(_) => self.adopt(before, open, fed)?,
                Trouble::Taken(path) => {
                    tracing::warn!(
                        path,
                        "an entry's name is taken by something foreign; leaving a gap"
                    );
                    self.next += leap;
                    leap *= 2;
                }
                Trouble::Vanished(worker) => {
                    tracing::debug!(%worker, "can't be woken");
                    self.forget_worker(worker);
                }
                Trouble::Moved | Trouble::RootMissing => {}
            }
        }
    }

    /// Sends the next transactions; gives the first trouble with what it left open.
    async fn feed_round(
        &mut self,
        entries: &[NewEntry],
        chunks: Vec<Chunk>,
        fed: &mut Vec<EntryName>,
    ) -> Result<Option<(Trouble, Vec<Chunk>)>, Error> {
        let client = self.term.client()?;
        self.certain = false;
        // From here on requests are under way.
        let mut sent = Vec::with_capacity(chunks.len());
        for (k, mut chunk) in (0i32..).zip(chunks) {
            let reply = self.send(&client, entries, &mut chunk, self.version.wrapping_add(k))?;
            sent.push((chunk, reply));
        }
        let mut sent = sent.into_iter();
        while let Some((chunk, reply)) = sent.next() {
            let trouble = match self.term.wait(reply).await? {
                Ok(_) => {
                    (self.next, self.version) = (chunk.next(), self.version.wrapping_add(1));
                    fed.extend(chunk.names);
                    continue;
                }
                Err(MultiWriteError::RequestFailed { source }) if is_lost_reply(&source) => {
                    Trouble::Lost(source)
                }
                Err(MultiWriteError::RequestFailed { source }) => {
                    return Err(Error::refused(UNOWNED, source));
                }
                Err(MultiWriteError::OperationFailed { index, source }) => {
                    self.judge(entries, &chunk, index, source)?
                }
            };
            // Those behind expect a version that never came: they are lost or fail, too.
            let open = std::iter::once(chunk)
                .chain(sent.map(|(chunk, _)| chunk))
                .collect();
            return Ok(Some((trouble, open)));
        }
        self.certain = true;
        Ok(None)
    }

    /// The transactions for the entries from `first` on, as many as go out at once.
    fn chunks(&self, entries: &[NewEntry], first: usize) -> Vec<Chunk> {
        let chroot = self.term.chroot();
        let open: Vec<usize> = (first..entries.len()).collect();
        let weigh = |i: usize| {
            (
                1,
                operation_bytes(chroot, UNOWNED, entries[i].data.len() + NAME_BYTES),
            )
        };
        let mut chunks = Vec::new();
        let mut sequence = self.next;
        for run in batch::split(&open, 2, weigh).take(IN_FLIGHT) {
            let mut names = Vec::with_capacity(run.len());
            for &i in run {
                let NewEntry {
                    priority,
                    dataset,
                    spot,
                    host,
                    ..
                } = &entries[i];
                names.push(EntryName {
                    priority: *priority,
                    dataset: dataset.clone(),
                    spot: *spot,
                    host: host.clone(),
                    sequence,
                });
                sequence += 1;
            }
            chunks.push(Chunk {
                first: run[0],
                names,
                wake: Vec::new(),
            });
        }
        chunks
    }

    fn send<'c>(
        &self,
        client: &'c Client,
        entries: &[NewEntry],
        chunk: &mut Chunk,
        version: i32,
    ) -> Result<impl Future<Output = Result<Vec<MultiWriteResult>, MultiWriteError>> + Send + use<'c>, Error>
    {
        let options = self.term.persistent(Kind::Leaf);
        let mut writer = client.new_multi_writer();
        let mut add = || {
            writer.add_check_version(&self.guard, ANY_VERSION)?;
            writer.add_set_data(UNOWNED, &roots::data(chunk.next()), Some(version))?;
            for (name, entry) in chunk.names.iter().zip(&entries[chunk.first..]) {
                writer.add_create(&entry.place.entry(name), &entry.data, &options)?;
            }
            chunk.wake = self.add_wakes(&mut writer, &chunk.wake)?;
            Ok(())
        };
        add().map_err(|failure: zk::Error| Error::refused(UNOWNED, failure))?;
        Ok(writer.commit())
    }

    /// What a refused transaction means.
    fn judge(
        &self,
        entries: &[NewEntry],
        chunk: &Chunk,
        index: usize,
        source: zk::Error,
    ) -> Result<Trouble, Error> {
        match (index, source) {
            (0, source) => Err(guard_failed(&self.guard, source)),
            (1, zk::Error::BadVersion) => Ok(Trouble::Moved),
            (1, zk::Error::NoNode) => Ok(Trouble::RootMissing),
            (1, source) => Err(Error::refused(UNOWNED, source)),
            (index, zk::Error::NoNode) if index >= 2 + chunk.names.len() => Ok(chunk
                .wake
                .get(index - 2 - chunk.names.len())
                .map_or(Trouble::Moved, |&worker| Trouble::Vanished(worker))),
            (index, source) => {
                let at = (index - 2).min(chunk.names.len() - 1);
                let path = entries[chunk.first + at].place.entry(&chunk.names[at]);
                match source {
                    zk::Error::NodeExists => Ok(Trouble::Taken(path)),
                    zk::Error::NoNode => Ok(Trouble::RootMissing),
                    source => Err(Error::refused(parent(&path), source)),
                }
            }
        }
    }

    /// After lost replies: what is in, by what the counter says now.
    fn adopt(&mut self, before: Counter, open: Vec<Chunk>, fed: &mut Vec<EntryName>) -> Result<(), Error> {
        let went_through = self.version.wrapping_sub(before.version);
        let count = usize::try_from(went_through)
            .ok()
            .filter(|&count| count <= open.len());
        let expected = count.map(|count| open[..count].last().map_or(before.next, Chunk::next));
        let (Some(count), true) = (count, expected == Some(self.next)) else {
            // Somebody else wrote the counter meanwhile, by hand: only a census can tell.
            return Err(Error::Disconnected {
                path: UNOWNED.to_string(),
                losses: 1,
            });
        };
        fed.extend(open.into_iter().take(count).flat_map(|chunk| chunk.names));
        Ok(())
    }
}

/// Bytes that the name of an entry takes at most.
const NAME_BYTES: usize = 2 * model::limits::NAME_CHARS + 64;
/// How often one feed may be disturbed before it gives up.
const MOST_TROUBLES: u32 = 20;
