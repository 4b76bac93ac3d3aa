//! Blocks that nodes keep themselves, seen from any process: read where they are, else fetched from who keeps them.
//!
//! Promise: what is read has the bytes that were registered: each copy is compared with its checksum, and a broken one is
//! passed over for the next; a node that finds its own copy broken or missing mends it from another.

use std::{
    fs::File,
    io::{self, Read as _, Seek as _, SeekFrom, Write},
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use futures::future::{BoxFuture, join_all};
use model::{
    Block, Codec, Content, Name,
    place::{BlockKey, NodeUrl, Placement},
};

use crate::{
    BlockReader, Error, LocalStore, Shipment, Store, blocks::decoded, copies::Original, local::checked,
};

/// For how long other nodes are chosen for a block: with the last put it stays below the minute that agents wait.
const ANOTHER: Duration = Duration::from_secs(30);

/// The other nodes of the mill, as far as they keep blocks.
pub trait Neighbours: Send + Sync + std::fmt::Debug {
    /// The live nodes that keep blocks in directories of their own.
    ///
    /// # Errors
    /// Why that is not known now.
    fn nodes(&self) -> BoxFuture<'_, Result<Vec<Name>, String>>;

    /// Has a node keep a block.
    ///
    /// # Errors
    /// Why it does not.
    fn put<'a>(&'a self, node: &'a Name, block: Kept<'a>) -> BoxFuture<'a, Result<(), String>>;

    /// Writes a block of so many bytes, which a node keeps, and never more. What came is for the caller to check.
    ///
    /// # Errors
    /// Why it is not to be had there.
    fn get<'a>(
        &'a self,
        node: &'a Name,
        key: &'a BlockKey,
        bytes: u64,
        into: &'a mut (dyn Write + Send),
    ) -> BoxFuture<'a, Result<(), Missed>>;
}

/// Why a node does not give a block.
#[derive(Debug, thiserror::Error)]
pub enum Missed {
    /// It is away, or does not have the block.
    #[error("{0}")]
    Gone(String),
    /// What it has is not the block that was registered.
    #[error("{0}")]
    Broken(String),
    /// It may have it, and give it later.
    #[error("{0}")]
    Failed(String),
    /// What came can't be written here.
    #[error("it can't be copied here: {0}")]
    Here(#[source] io::Error),
}

/// A block that a node is to keep.
#[derive(Clone, Debug)]
pub struct Kept<'a> {
    /// Under what.
    pub key: &'a BlockKey,
    /// Its bytes.
    pub bytes: &'a [Bytes],
    /// The checksum of these.
    pub checksum: blake3::Hash,
    /// Whether it is to be read back and compared.
    pub verify: bool,
}

/// A block as [`Content`] tells it, and where it is.
struct Wanted<'a> {
    url: &'a str,
    at: NodeUrl,
    size: u64,
    mtime_ms: i64,
    /// Of all its bytes.
    checksum: Option<blake3::Hash>,
}

/// All the bytes of a block.
enum Whole {
    File(File),
    Memory(Vec<u8>),
}

impl Whole {
    fn bytes(&self) -> io::Result<Vec<u8>> {
        match self {
            Self::Memory(bytes) => Ok(bytes.clone()),
            Self::File(file) => {
                let (mut file, mut bytes) = (file.try_clone()?, Vec::new());
                file.rewind()?;
                file.read_to_end(&mut bytes)?;
                file.rewind()?;
                Ok(bytes)
            }
        }
    }

    /// From the byte `start` up to `end`.
    fn reader(self, start: u64, end: u64) -> io::Result<BlockReader> {
        match self {
            Self::File(mut file) => {
                file.seek(SeekFrom::Start(start))?;
                let remaining = end - start;
                Ok(BlockReader::File { file, remaining })
            }
            Self::Memory(mut bytes) => {
                bytes.truncate(usize::try_from(end).unwrap_or(usize::MAX));
                let start = usize::try_from(start).unwrap_or(usize::MAX).min(bytes.len());
                bytes.drain(..start);
                Ok(BlockReader::bytes(bytes))
            }
        }
    }
}

impl<'a> Wanted<'a> {
    fn original(&self) -> Original<'a> {
        Original {
            url: self.url,
            range: 0..self.size,
            size: self.size,
            mtime_ms: self.mtime_ms,
            version: None,
        }
    }
}

impl Store {
    /// The same stores, with the blocks that this node keeps itself.
    #[must_use]
    pub fn with_local(mut self, local: LocalStore) -> Self {
        self.local = Some(local);
        self
    }

    /// The blocks that this node keeps itself, if it keeps any.
    pub fn local(&self) -> Option<&LocalStore> {
        self.local.as_ref()
    }

    /// The same stores, with a way to the blocks that other nodes keep.
    #[must_use]
    pub fn with_neighbours(mut self, neighbours: Arc<dyn Neighbours>) -> Self {
        self.neighbours = Some(neighbours);
        self
    }

    /// Opens a block that nodes keep.
    pub(crate) async fn kept_reader(&self, block: &Block) -> Result<BlockReader, Error> {
        let Content::Object {
            url,
            start,
            end,
            codec,
            size,
            mtime_ms,
            mark: _,
        } = &block.content
        else {
            return Ok(BlockReader::bytes(Vec::new()));
        };
        let bad = |why: &str| Error::BadUrl {
            url: url.clone(),
            why: why.to_string(),
        };
        let at = NodeUrl::parse(url).ok_or_else(|| bad("expected node://NODE[,NODE…]/KEY"))?;
        if start > end || end > size {
            return Err(bad("it is shorter than what is to be read of it"));
        }
        let is_whole = (*start, *end) == (0, *size);
        let checksum = block.checksum.as_ref().filter(|_| is_whole);
        let wanted = Wanted {
            url,
            at,
            size: *size,
            mtime_ms: *mtime_ms,
            checksum: checksum.and_then(|hex| blake3::Hash::from_hex(hex).ok()),
        };
        let whole = self.kept_whole(&wanted).await?;
        let failed = |source| Error::Io {
            doing: "can't read",
            path: url.into(),
            source,
        };
        let stored = whole.reader(*start, *end).map_err(failed)?;
        decoded(*codec, stored, url)
    }

    /// All of a block, from here or from another node.
    async fn kept_whole(&self, wanted: &Wanted<'_>) -> Result<Whole, Error> {
        let Wanted {
            at, size, checksum, ..
        } = wanted;
        // What each said, whether the block may be there all the same, and whether a copy is there that is corrupted.
        let (mut told, mut is_open, mut is_broken) = (Vec::new(), false, false);
        let own = self.local.as_ref().filter(|own| at.hosts.contains(own.node()));
        if let Some(own) = own {
            match own.open_checked(&at.key, *size, *checksum).await {
                Ok(file) => return Ok(Whole::File(file)),
                Err(error) => {
                    tracing::warn!(node = %own.node(), "this node's copy of a block is not usable: {error}");
                    let own_is_broken = matches!(error, Error::Corrupt { .. });
                    is_broken |= own_is_broken;
                    is_open |= !(own_is_broken || error.is_not_found());
                    told.push(format!("{}: {error}", own.node()));
                }
            }
        }
        let broken = own.zip(*checksum);
        if let Some(copy) = self.copies().and_then(|copies| copies.found(&wanted.original())) {
            match checked(copy, *size, *checksum, wanted.url).await {
                Ok(file) => return Ok(mended(broken, &at.key, Whole::File(file)).await),
                Err(error) => tracing::debug!("a copy is fetched anew: {error}"),
            }
        }
        let is_other = |host: &&Name| own.is_none_or(|own| own.node() != *host);
        for host in at.hosts.iter().filter(is_other) {
            match self.fetch_kept(host, wanted).await {
                Ok(whole) => return Ok(mended(broken, &at.key, whole).await),
                Err(why) => {
                    tracing::debug!(node = %host, "a block is not to be had from a node: {why}");
                    is_broken |= matches!(why, Missed::Broken(_));
                    is_open |= matches!(why, Missed::Failed(_) | Missed::Here(_));
                    told.push(format!("{host}: {why}"));
                }
            }
        }
        let why = told.join("; ");
        if is_open {
            return Err(Error::Io {
                doing: "can't read block",
                path: at.key.as_str().into(),
                source: io::Error::other(why),
            });
        }
        let key = at.key.to_string();
        Err(match is_broken {
            true => Error::Broken { key, why },
            false => Error::NoHost { key, why },
        })
    }

    /// Fetches a block from a node that keeps it; into memory where there is no room for it on disk.
    async fn fetch_kept(&self, host: &Name, wanted: &Wanted<'_>) -> Result<Whole, Missed> {
        let neighbours = self
            .neighbours
            .as_deref()
            .ok_or_else(|| Missed::Failed("this process does not fetch blocks from nodes".to_string()))?;
        match self.fetch_file(neighbours, host, wanted).await {
            Err(Missed::Here(error)) => {
                tracing::warn!("a block is fetched into memory, for it can't be copied to the disk: {error}");
                fetch_bytes(neighbours, host, wanted).await.map(Whole::Memory)
            }
            fetched => fetched.map(Whole::File),
        }
    }

    /// The same into the copies of this one where it has any, else into a file without a name.
    async fn fetch_file(
        &self,
        neighbours: &dyn Neighbours,
        host: &Name,
        wanted: &Wanted<'_>,
    ) -> Result<File, Missed> {
        let copies = self.copies();
        let copy = copies.and_then(|copies| Some((copies, copies.begin()?)));
        let file = match &copy {
            Some((_, copy)) => copy.reopen(),
            None => tempfile::tempfile(),
        };
        let file = file.map_err(Missed::Here)?;
        let mut into = file.try_clone().map_err(Missed::Here)?;
        let got = neighbours.get(host, &wanted.at.key, wanted.size, &mut into);
        got.await?;
        let file = checked(file, wanted.size, wanted.checksum, wanted.url).await;
        let file = file.map_err(|error| match error {
            Error::Corrupt { .. } => Missed::Broken(error.to_string()),
            error => Missed::Here(io::Error::other(error)),
        })?;
        if let Some((copies, copy)) = copy {
            copies.keep(copy, &wanted.original());
        }
        Ok(file)
    }

    /// Has nodes keep a block, as `placement` says, synced; others are chosen for those that do not take it. Safe to repeat; other nodes may be chosen then, and what nobody
    /// names is swept. With `verify` every copy is read back and compared.
    ///
    /// # Errors
    /// [`Error::Misplaced`] where there are no nodes for it; [`Error::Unplaced`] where too few of them take it;
    /// [`Error::Mongo`], [`Error::Decode`] when the identity of the database is not known yet.
    pub async fn place_block(
        &self,
        shipment: &Shipment,
        sequence: u64,
        bytes: Vec<Bytes>,
        (checksum, verify): (blake3::Hash, bool),
        placement: &Placement,
    ) -> Result<Block, Error> {
        let object = shipment.object(self.mill().await?, sequence);
        let unplaced = |why: String| Error::Unplaced {
            key: object.clone(),
            why,
        };
        let key: BlockKey = object.parse().map_err(|error| unplaced(format!("{error}")))?;
        let own = self.local.as_ref();
        let mut live = self.keeping().await.map_err(unplaced)?;
        let length: u64 = bytes.iter().map(|bytes| bytes.len() as u64).sum();
        let kept = Kept {
            key: &key,
            bytes: &bytes,
            checksum,
            verify,
        };
        let (began, mut done, mut failed) = (Instant::now(), Vec::new(), Vec::new());
        let hosts = loop {
            let chosen = placement.choose(key.as_str(), own.map(LocalStore::node), &live);
            // Those that do not take it stay the reason.
            let hosts = match chosen {
                Err(few) if failed.is_empty() => return Err(few.into()),
                Err(_) => return Err(unplaced(failed.join("; "))),
                Ok(_) if began.elapsed() > ANOTHER => return Err(unplaced(failed.join("; "))),
                Ok(hosts) => hosts,
            };
            let missing: Vec<&Name> = hosts.iter().filter(|host| !done.contains(*host)).collect();
            let puts = missing.iter().map(|host| self.put_at(host, kept.clone()));
            for (host, put) in missing.iter().zip(join_all(puts).await) {
                match put {
                    Ok(()) => done.push((*host).clone()),
                    Err(why) => {
                        tracing::warn!(node = %host, %key, "a node does not take a block: {why}");
                        live.retain(|node| node != *host);
                        failed.push(format!("{host}: {why}"));
                    }
                }
            }
            if hosts.iter().all(|host| done.contains(host)) {
                break hosts;
            }
        };
        Ok(Block {
            content: Content::Object {
                url: NodeUrl { hosts, key }.to_string(),
                start: 0,
                end: length,
                codec: Codec::Zstd,
                size: length,
                mtime_ms: self.now_ms().await?,
                mark: None,
            },
            checksum: Some(checksum.to_hex().to_string()),
            raw_bytes: None,
            made: None,
            registered_ms: None,
        })
    }

    /// The live nodes that keep blocks.
    async fn keeping(&self) -> Result<Vec<Name>, String> {
        let mut live = match &self.neighbours {
            Some(neighbours) => neighbours.nodes().await?,
            None => Vec::new(),
        };
        live.extend(self.local.iter().map(|own| own.node().clone()));
        Ok(live)
    }

    /// Whether there are nodes for blocks that are to be placed so, as far as that is known now.
    ///
    /// # Errors
    /// [`Error::Misplaced`] where there are none, or too few.
    pub async fn check_placement(&self, placement: &Placement) -> Result<(), Error> {
        // Which ones live is asked again with each block.
        let Ok(live) = self.keeping().await else {
            return Ok(());
        };
        let own = self.local.as_ref().map(LocalStore::node);
        placement.choose("", own, &live).map(drop).map_err(Error::from)
    }

    async fn put_at(&self, host: &Name, kept: Kept<'_>) -> Result<(), String> {
        if let Some(own) = self.local.as_ref().filter(|own| own.node() == host) {
            let put = own.put(kept.key, kept.bytes.to_vec(), kept.checksum, kept.verify);
            return put.await.map_err(|error| error.to_string());
        }
        match &self.neighbours {
            Some(neighbours) => neighbours.put(host, kept).await,
            None => Err("this process does not reach other nodes".to_string()),
        }
    }
}

/// Fetches a block into memory, of which it takes no more than the bytes of the block.
async fn fetch_bytes(
    neighbours: &dyn Neighbours,
    host: &Name,
    wanted: &Wanted<'_>,
) -> Result<Vec<u8>, Missed> {
    let mut bytes = Vec::new();
    let got = neighbours.get(host, &wanted.at.key, wanted.size, &mut bytes);
    got.await?;
    let is_whole = bytes.len() as u64 == wanted.size;
    let is_same = wanted
        .checksum
        .is_none_or(|checksum| blake3::hash(&bytes) == checksum);
    if is_whole && is_same {
        return Ok(bytes);
    }
    let url = wanted.url.to_string();
    Err(Missed::Broken(Error::Corrupt { url }.to_string()))
}

/// Gives a good copy on, after it was put in the place of the broken one that a node has, if any.
async fn mended(broken: Option<(&LocalStore, blake3::Hash)>, key: &BlockKey, good: Whole) -> Whole {
    let Some((own, checksum)) = broken else {
        return good;
    };
    let mended = match good.bytes() {
        Ok(bytes) => own.put(key, vec![bytes.into()], checksum, false).await,
        Err(source) => Err(Error::Io {
            doing: "can't read",
            path: key.as_str().into(),
            source,
        }),
    };
    match mended {
        Ok(()) => tracing::info!(node = %own.node(), %key, "a copy of a block was mended"),
        Err(error) => tracing::warn!(node = %own.node(), %key, "a copy of a block can't be mended: {error}"),
    }
    good
}
