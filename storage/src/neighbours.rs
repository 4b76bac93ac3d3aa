//! Blocks that nodes keep themselves, seen from any process: read where they are, else fetched from who keeps them.
//!
//! Promise: what is read has the bytes that were registered: each copy is compared with its checksum, and a broken one is
//! passed over for the next; a node that finds its own copy broken or missing mends it from another.

use std::{
    fs::File,
    io::{Read as _, Seek as _, SeekFrom},
    sync::Arc,
    time::{Duration, SystemTime},
};

use bson::doc;
use bytes::Bytes;
use futures::future::{BoxFuture, join_all};
use model::{
    Block, Codec, Content, Name,
    place::{BlockKey, NodeUrl, Placement},
};

use crate::{
    BlockReader, Error, LocalStore, Shipment, Store,
    blocks::decoded,
    copies::Original,
    local::{blocking, checked},
    rows::Query,
    schema::{BLOCKS, now_ms},
};

/// Blocks that were put within this time are not swept: they may be about to be registered.
const YOUNG: Duration = Duration::from_secs(3600);

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

    /// Writes a block of so many bytes, which a node keeps, into a file. What came is for the caller to check.
    ///
    /// # Errors
    /// Why it is not to be had there.
    fn get<'a>(
        &'a self,
        node: &'a Name,
        key: &'a BlockKey,
        bytes: u64,
        into: File,
    ) -> BoxFuture<'a, Result<(), String>>;
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

impl<'a> Wanted<'a> {
    fn original(&self) -> Original<'a> {
        Original {
            url: self.url,
            range: 0..self.size,
            size: self.size,
            mtime_ms: self.mtime_ms,
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
        let mut file = self.kept_file(&wanted).await?;
        let failed = |source| Error::Io {
            doing: "can't read",
            path: url.into(),
            source,
        };
        file.seek(SeekFrom::Start(*start)).map_err(failed)?;
        let remaining = end - start;
        decoded(*codec, BlockReader::File { file, remaining }, url)
    }

    /// All of a block, from here or from another node.
    async fn kept_file(&self, wanted: &Wanted<'_>) -> Result<File, Error> {
        let Wanted {
            at, size, checksum, ..
        } = wanted;
        let mut told: Vec<String> = Vec::new();
        let own = self.local.as_ref().filter(|own| at.hosts.contains(own.node()));
        if let Some(own) = own {
            match own.open_checked(&at.key, *size, *checksum).await {
                Ok(file) => return Ok(file),
                Err(error) => {
                    tracing::warn!(node = %own.node(), "this node's copy of a block is not usable: {error}");
                    told.push(format!("{}: {error}", own.node()));
                }
            }
        }
        if let Some(copy) = self.copies().and_then(|copies| copies.found(&wanted.original())) {
            match checked(copy, *size, *checksum, wanted.url).await {
                Ok(file) => return Ok(file),
                Err(error) => tracing::debug!("a copy is fetched anew: {error}"),
            }
        }
        let others = at
            .hosts
            .iter()
            .filter(|host| own.is_none_or(|own| own.node() != *host));
        for host in others {
            match self.fetch_kept(host, wanted).await {
                Ok(file) => {
                    if let (Some(own), Some(checksum)) = (own, *checksum) {
                        mend(own, &at.key, &file, checksum).await;
                    }
                    return Ok(file);
                }
                Err(why) => {
                    tracing::debug!(node = %host, "a block is not to be had from a node: {why}");
                    told.push(format!("{host}: {why}"));
                }
            }
        }
        Err(Error::NoHost {
            key: at.key.to_string(),
            why: told.join("; "),
        })
    }

    /// Fetches a block from a node that keeps it, into the copies of this one where it has any.
    async fn fetch_kept(&self, host: &Name, wanted: &Wanted<'_>) -> Result<File, String> {
        let Some(neighbours) = &self.neighbours else {
            return Err("this process does not fetch blocks from nodes".to_string());
        };
        let copies = self.copies();
        let copy = copies.and_then(|copies| Some((copies, copies.begin()?)));
        let file = match &copy {
            Some((_, copy)) => copy.reopen(),
            None => tempfile::tempfile(),
        };
        let failed = |error: std::io::Error| format!("it can't be copied here: {error}");
        let file = file.map_err(failed)?;
        let into = file.try_clone().map_err(failed)?;
        neighbours.get(host, &wanted.at.key, wanted.size, into).await?;
        let file = checked(file, wanted.size, wanted.checksum, wanted.url).await;
        let file = file.map_err(|error| error.to_string())?;
        if let Some((copies, copy)) = copy {
            copies.keep(copy, &wanted.original());
        }
        Ok(file)
    }

    /// Has nodes keep a block, as `placement` says, synced. Safe to repeat; other nodes may be chosen then, and what nobody
    /// names is swept. With `verify` every copy is read back and compared.
    ///
    /// # Errors
    /// [`Error::Misplaced`] where there are no nodes for it; [`Error::Unplaced`] where one of them does not take it;
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
        let mut live = match &self.neighbours {
            Some(neighbours) => neighbours.nodes().await.map_err(unplaced)?,
            None => Vec::new(),
        };
        live.extend(own.map(|own| own.node().clone()));
        let hosts = placement.choose(key.as_str(), own.map(LocalStore::node), &live)?;
        let length: u64 = bytes.iter().map(|bytes| bytes.len() as u64).sum();
        let puts = hosts.iter().map(|host| {
            let kept = Kept {
                key: &key,
                bytes: &bytes,
                checksum,
                verify,
            };
            async move {
                self.put_at(host, kept)
                    .await
                    .map_err(|why| format!("{host}: {why}"))
            }
        });
        let failed: Vec<String> = join_all(puts).await.into_iter().filter_map(Result::err).collect();
        if !failed.is_empty() {
            return Err(unplaced(failed.join("; ")));
        }
        Ok(Block {
            content: Content::Object {
                url: NodeUrl { hosts, key }.to_string(),
                start: 0,
                end: length,
                codec: Codec::Zstd,
                size: length,
                mtime_ms: now_ms(),
            },
            checksum: Some(checksum.to_hex().to_string()),
            raw_bytes: None,
            made: None,
        })
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

    /// Removes what this node keeps and no dataset names any more; gives how many blocks that were. Costs a look through
    /// all blocks where it keeps any.
    ///
    /// # Errors
    /// [`Error::Mongo`], [`Error::Decode`], [`Error::Io`].
    pub async fn sweep_local(&self) -> Result<u64, Error> {
        let mill = self.mill().await?.to_string();
        let Some(own) = self.local.clone().filter(|own| own.has_any(&mill)) else {
            return Ok(0);
        };
        let before = SystemTime::now() - YOUNG;
        let named = self.named_here(own.node()).await?;
        blocking(move || {
            let swept = own.sweep(&mill, before, |key| named.contains(&digest(key)));
            swept.map_err(|source| Error::Io {
                doing: "can't sweep",
                path: own.node().as_str().into(),
                source,
            })
        })
        .await
    }

    /// Digests of the keys that datasets name as kept by a node: of millions it would be too much to remember more.
    async fn named_here(&self, node: &Name) -> Result<std::collections::HashSet<[u8; 16]>, Error> {
        let name = node.as_str().replace('.', "\\.");
        let pattern = doc! { "$regex": format!("^node://([^/]*,)?{name}[,/]") };
        let filter = doc! { "blocks.content.object.url": pattern };
        let query = Query::new(BLOCKS, "looking which blocks a node keeps", filter);
        let mut pages = self.find(query.fields(&["blocks.content.object.url"])).await?;
        let mut named = std::collections::HashSet::new();
        while let Some(page) = pages.next().await? {
            urls_of(page, |url| {
                if let Some(url) = NodeUrl::parse(url) {
                    named.insert(digest(&url.key));
                }
            });
        }
        Ok(named)
    }
}

fn digest(key: &BlockKey) -> [u8; 16] {
    let hash = blake3::hash(key.as_str().as_bytes());
    let mut digest = [0; 16];
    digest.copy_from_slice(&hash.as_bytes()[..16]);
    digest
}

/// Gives the URLs in a page of blocks.
fn urls_of(page: &bson::RawDocument, mut take: impl FnMut(&str)) {
    let blocks = page.get_array("blocks").into_iter().flatten().flatten();
    for block in blocks {
        let url = || {
            let content = block.as_document()?.get_document("content").ok()?;
            content.get_document("object").ok()?.get_str("url").ok()
        };
        if let Some(url) = url() {
            take(url);
        }
    }
}

/// Puts a good copy in the place of a broken one.
async fn mend(own: &LocalStore, key: &BlockKey, good: &File, checksum: blake3::Hash) {
    let read = good.try_clone().and_then(|mut good| {
        let mut bytes = Vec::new();
        good.rewind()?;
        good.read_to_end(&mut bytes)?;
        good.rewind()?;
        Ok(bytes)
    });
    let mended = match read {
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
}
