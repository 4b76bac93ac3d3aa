//! What agents ship: blocks go into the block store, then into their dataset, exactly once.
//!
//! An agent counts its blocks 1, 2, 3, … by dataset, and a number always means the same bytes. An object is written and
//! synced before a dataset names it; the transaction that appends it to its dataset raises the agent's mark there from
//! the number before. So a block that was sent twice, to whichever workers, is registered once, and none is left out.

use std::{collections::HashMap, sync::Arc};

use bson::{Document, RawDocument, doc};
use bytes::Bytes;
use model::{Block, Codec, Content, FORMAT, Name};
use mongodb::{ClientSession, error::Error as Driver};
use object_store::{ObjectStoreExt as _, PutMode, PutOptions, PutPayload};
use uuid::Uuid;

use crate::{
    Dataset, Error, Store,
    clock::are_apart,
    copies::Original,
    datasets::{Page, concurrent, pages},
    error::{DUPLICATE_KEY, code, is_transient},
    files,
    leaving::own_folder,
    objects,
    rows::Query,
    schema::{self, SHIPPED, count, date, int, now_ms, signed},
    transaction::{TRIES, pause},
};

/// Milliseconds of a day in UTC.
const DAY_MS: i64 = 86_400_000;
/// Datasets of which it is remembered who appends; beyond, those that nobody waits for are forgotten.
const TURNS: usize = 1024;

/// Where blocks come from and go to.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Shipment {
    /// The agent.
    pub agent: Name,
    /// What its numbers belong to: its state directory, or the numbering that came after it ([`Store::end_numbering`]).
    pub instance: Uuid,
    /// The dataset, which is made where there is none.
    pub dataset: Name,
}

/// A block that is stored and not yet registered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ShippedBlock {
    /// Its number: 1, 2, 3, … in its [`Shipment`].
    pub sequence: u64,
    /// As [`Store::put_block`] gave it.
    pub block: Block,
    /// Its lines.
    pub lines: u64,
    /// Bytes of its lines.
    pub raw_bytes: u64,
}

/// What became of [`Store::register_shipped`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Registration {
    /// All are registered, those given among them.
    Registered {
        /// Up to this sequence.
        mark: u64,
        /// The incarnation of the dataset in which the last one is; none where that was not kept.
        incarnation: Option<Uuid>,
    },
    /// All up to this sequence are registered, and what was given does not follow it: nothing was changed.
    Gap(u64),
}

/// What an agent has shipped to a dataset.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shipped {
    /// From where to where.
    pub shipment: Shipment,
    /// How far that is registered.
    pub mark: LaneMark,
    /// In all.
    pub total: Volume,
    /// Since midnight UTC.
    pub today: Volume,
    /// When a block was registered last, in milliseconds since 1970 UTC.
    pub at_ms: i64,
}

/// How much was shipped.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Volume {
    /// Blocks.
    pub blocks: u64,
    /// Lines.
    pub lines: u64,
    /// Bytes of the lines.
    pub raw_bytes: u64,
    /// Bytes as stored.
    pub stored_bytes: u64,
}

/// Names and values as they are written, behind a prefix.
const TOTAL: [&str; 4] = ["blocks", "lines", "raw_bytes", "stored_bytes"];
const TODAY: [&str; 4] = ["day_blocks", "day_lines", "day_raw_bytes", "day_stored_bytes"];

impl Volume {
    fn of(blocks: &[ShippedBlock]) -> Self {
        let sum = |of: fn(&ShippedBlock) -> u64| blocks.iter().map(of).fold(0, u64::saturating_add);
        Self {
            blocks: blocks.len() as u64,
            lines: sum(|block| block.lines),
            raw_bytes: sum(|block| block.raw_bytes),
            stored_bytes: sum(|block| block.block.stored_bytes()),
        }
    }

    /// Both together.
    #[must_use]
    pub fn plus(self, other: Self) -> Self {
        Self {
            blocks: self.blocks.saturating_add(other.blocks),
            lines: self.lines.saturating_add(other.lines),
            raw_bytes: self.raw_bytes.saturating_add(other.raw_bytes),
            stored_bytes: self.stored_bytes.saturating_add(other.stored_bytes),
        }
    }

    fn read(document: &RawDocument, keys: [&str; 4]) -> Self {
        let [blocks, lines, raw_bytes, stored_bytes] = keys.map(|key| count(document, key));
        Self {
            blocks,
            lines,
            raw_bytes,
            stored_bytes,
        }
    }

    fn write(&self, keys: [&str; 4], into: &mut Document) {
        let values = [self.blocks, self.lines, self.raw_bytes, self.stored_bytes];
        for (key, value) in keys.into_iter().zip(values) {
            into.insert(key, signed(value));
        }
    }
}

/// How far a numbering is registered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LaneMark {
    /// The dataset.
    pub dataset: Name,
    /// All up to this sequence are registered.
    pub registered: u64,
    /// The incarnation of the dataset in which the last one is; none where that was not kept.
    pub incarnation: Option<Uuid>,
    /// The numbering that came after it: nothing more is registered in this one.
    pub next: Option<Uuid>,
}

/// The mark of a shipment.
#[derive(Clone, Copy, Default)]
struct Mark {
    exists: bool,
    registered: u64,
    incarnation: Option<Uuid>,
    next: Option<Uuid>,
    total: Volume,
    day: i64,
    today: Volume,
}

impl Mark {
    fn read(document: &RawDocument) -> Self {
        Self {
            exists: true,
            registered: count(document, "registered"),
            incarnation: uuid(document, "incarnation"),
            next: uuid(document, "next"),
            total: Volume::read(document, TOTAL),
            day: int(document, "day").unwrap_or(0),
            today: Volume::read(document, TODAY),
        }
    }

    fn of(self, dataset: Name) -> LaneMark {
        LaneMark {
            dataset,
            registered: self.registered,
            incarnation: self.incarnation,
            next: self.next,
        }
    }

    fn today_at(&self, now_ms: i64) -> Volume {
        if self.day == now_ms.div_euclid(DAY_MS) {
            self.today
        } else {
            Volume::default()
        }
    }

    fn after(&self, blocks: &[ShippedBlock], into: Uuid, now_ms: i64) -> Self {
        let more = Volume::of(blocks);
        Self {
            exists: true,
            registered: blocks.last().map_or(self.registered, |block| block.sequence),
            incarnation: Some(into),
            next: None,
            total: self.total.plus(more),
            day: now_ms.div_euclid(DAY_MS),
            today: self.today_at(now_ms).plus(more),
        }
    }
}

impl Shipment {
    fn key(&self) -> String {
        format!("{}/{}/{}", self.agent, self.instance, self.dataset)
    }

    fn document(&self) -> Document {
        doc! {
            "_id": self.key(),
            "v": i64::from(FORMAT),
            "agent": self.agent.as_str(),
            "instance": self.instance.to_string(),
            "dataset": self.dataset.as_str(),
        }
    }

    pub(crate) fn object(&self, mill: &str, sequence: u64) -> String {
        let Self {
            agent,
            instance,
            dataset,
        } = self;
        format!(
            "{}{dataset}/{agent}/{instance}/{sequence:012}.zst",
            own_folder(mill)
        )
    }
}

impl Store {
    /// Keeps the bytes of a block in the block store, synced. Safe to repeat: what is there already is compared and
    /// left as it is. With `verify` what was written is read back and compared as well. Where the store is no local disk
    /// the bytes are also kept among the copies of this node, so that its queries need not fetch them.
    ///
    /// Dropped half-way, the object may be there; nothing names it.
    ///
    /// # Errors
    /// [`Error::Object`] when the store does not take it; [`Error::Corrupt`] when it gives back something else;
    /// [`Error::Mongo`], [`Error::Decode`] when the identity of the database is not known yet.
    pub async fn put_block(
        &self,
        shipment: &Shipment,
        sequence: u64,
        bytes: Vec<Bytes>,
        checksum: blake3::Hash,
        verify: bool,
    ) -> Result<Block, Error> {
        let object = shipment.object(self.mill().await?, sequence);
        let (key, url) = (self.root().key(&object), self.root().url(&object));
        let store = self.root().store();
        let failed = |source| Error::Object {
            doing: "can't write",
            url: url.clone(),
            source: Box::new(source),
        };
        let length: u64 = bytes.iter().map(|bytes| bytes.len() as u64).sum();
        let payload = PutPayload::from_iter(bytes.iter().cloned());
        let create = PutOptions::from(PutMode::Create);
        let written = match store.put_opts(&key, payload.clone(), create).await {
            Ok(_) => true,
            // Another look at what is there may replace it, but only where it is not what it should be.
            Err(object_store::Error::AlreadyExists { .. }) if self.is_there(&object, checksum).await? => {
                false
            }
            Err(object_store::Error::AlreadyExists { .. } | object_store::Error::NotImplemented { .. }) => {
                store.put(&key, payload).await.map_err(failed)?;
                true
            }
            Err(source) => return Err(failed(source)),
        };
        if written && verify && !self.is_there(&object, checksum).await? {
            return Err(Error::Corrupt { url });
        }
        let (size, mtime_ms) = objects::head(&**store, &key, &url).await?.size_and_mtime;
        if size != length {
            return Err(Error::Corrupt { url });
        }
        if files::path_of(&url).is_none()
            && let Some(copies) = self.shared_copies()
        {
            let warmed = (url.clone(), bytes);
            // A disk that takes no copies costs only them.
            let _ = tokio::task::spawn_blocking(move || {
                let (url, bytes) = warmed;
                let original = Original {
                    url: &url,
                    range: 0..length,
                    size,
                    mtime_ms,
                    version: None,
                };
                copies.warm(&bytes, &original);
            })
            .await;
        }
        Ok(Block {
            content: Content::Object {
                url,
                start: 0,
                end: length,
                codec: Codec::Zstd,
                size,
                mtime_ms,
                mark: None,
            },
            checksum: Some(checksum.to_hex().to_string()),
            raw_bytes: None,
            made: None,
            registered_ms: None,
        })
    }

    /// Whether an object has the bytes of this checksum.
    pub(crate) async fn is_there(&self, object: &str, checksum: blake3::Hash) -> Result<bool, Error> {
        let (key, url) = (self.root().key(object), self.root().url(object));
        let failed = |source| objects::unreadable(&url, source);
        let found = self.root().store().get(&key).await.map_err(failed)?;
        let bytes = found.bytes().await.map_err(failed)?;
        let hashed = tokio::task::spawn_blocking(move || blake3::hash(&bytes)).await;
        Ok(hashed.is_ok_and(|hash| hash == checksum))
    }

    /// Appends stored blocks to their dataset and raises the mark of their shipment, in one transaction; makes the
    /// dataset where there is none. What is registered already is left out, so it may be repeated, also after an error.
    ///
    /// `blocks` follow one another without gaps.
    ///
    /// # Errors
    /// [`Error::Concurrent`] when others append all the time, [`Error::Mongo`].
    pub async fn register_shipped(
        &self,
        shipment: &Shipment,
        blocks: &[ShippedBlock],
    ) -> Result<Registration, Error> {
        let turn = self.shipping_turn(&shipment.dataset);
        let _mine = turn.lock().await;
        let doing = format!("registering blocks of agent {}", shipment.agent);
        let registering = async {
            let mut transaction = self.transaction(&doing);
            loop {
                let mark = self.mark(shipment).await?;
                let new: Vec<ShippedBlock> = blocks
                    .iter()
                    .filter(|block| block.sequence > mark.registered)
                    .cloned()
                    .collect();
                if new.is_empty() {
                    return Ok(Registration::Registered {
                        mark: mark.registered,
                        incarnation: mark.incarnation,
                    });
                }
                let follow = (mark.registered + 1..)
                    .zip(&new)
                    .all(|(next, block)| next == block.sequence);
                if !follow || mark.next.is_some() {
                    return Ok(Registration::Gap(mark.registered));
                }
                let dataset = self.made(&shipment.dataset).await?;
                let now_ms = self.now_ms().await?;
                let after = mark.after(&new, dataset.id, now_ms);
                let given = new.into_iter().map(|block| Block {
                    raw_bytes: Some(block.raw_bytes),
                    registered_ms: registered_ms(&block.block, now_ms),
                    ..block.block
                });
                let given: Vec<Block> = given.collect();
                let (pages, marks) = (pages(&given)?, (&mark, &after));
                let session = transaction.begin().await?;
                let done = self
                    .register_once(session, shipment, &dataset, &pages, marks)
                    .await;
                let registered = Registration::Registered {
                    mark: after.registered,
                    incarnation: after.incarnation,
                };
                let step = self.appended_step(done, registered, &shipment.dataset, &doing);
                if let Some(registered) = transaction.end(step).await? {
                    return Ok(registered);
                }
            }
        };
        self.patiently(registering).await
    }

    /// One try; false when the dataset or the mark is no longer as it was read.
    async fn register_once(
        &self,
        session: &mut ClientSession,
        shipment: &Shipment,
        dataset: &Dataset,
        pages: &[Page],
        (before, after): (&Mark, &Mark),
    ) -> Result<bool, Driver> {
        Ok(self.write_mark(session, shipment, before, after).await?
            && self.append_in(session, dataset, pages).await?)
    }

    async fn write_mark(
        &self,
        session: &mut ClientSession,
        shipment: &Shipment,
        before: &Mark,
        after: &Mark,
    ) -> Result<bool, Driver> {
        let mut set = doc! {
            "registered": signed(after.registered),
            "day": after.day,
            "at": date(now_ms()),
        };
        if let Some(incarnation) = after.incarnation {
            set.insert("incarnation", incarnation.to_string());
        }
        after.total.write(TOTAL, &mut set);
        after.today.write(TODAY, &mut set);
        let marks = self.documents(SHIPPED);
        if before.exists {
            let filter = doc! {
                "_id": shipment.key(), "registered": signed(before.registered), "next": { "$exists": false },
            };
            let done = marks
                .update_one(filter, doc! { "$set": set })
                .session(session)
                .await?;
            return Ok(done.matched_count > 0);
        }
        let mut mark = shipment.document();
        mark.extend(set);
        marks.insert_one(mark).session(session).await?;
        Ok(true)
    }

    async fn mark(&self, shipment: &Shipment) -> Result<Mark, Error> {
        let doing = format!("reading the mark of agent {}", shipment.agent);
        let found = self.find_by_id(SHIPPED, shipment.key(), &doing).await?;
        if let Some(found) = &found {
            schema::check_version(found, || format!("the mark {}", shipment.key()))?;
        }
        Ok(found.map_or_else(Mark::default, |found| Mark::read(&found)))
    }

    /// The dataset of this name, made where there is none.
    async fn made(&self, name: &Name) -> Result<Dataset, Error> {
        loop {
            if let Some(found) = self.get(name).await? {
                return Ok(found);
            }
            match self.create(name).await {
                Ok(_) | Err(Error::Exists { .. }) => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// How far the numberings of an instance of an agent are registered, by dataset.
    ///
    /// # Errors
    /// [`Error::Mongo`], [`Error::Decode`].
    pub async fn marks(&self, agent: &Name, instance: Uuid) -> Result<Vec<LaneMark>, Error> {
        let found = self.shipped_below(&format!("{agent}/{instance}")).await?;
        Ok(found.into_iter().map(|shipped| shipped.mark).collect())
    }

    /// How far one numbering is registered; nothing of one that is not known.
    ///
    /// # Errors
    /// [`Error::Mongo`], [`Error::Newer`].
    pub async fn lane_mark(&self, shipment: &Shipment) -> Result<LaneMark, Error> {
        let mark = self.mark(shipment).await?;
        Ok(mark.of(shipment.dataset.clone()))
    }

    /// Ends a numbering in which an agent knows more to be acknowledged than is registered, as after a restore from an older
    /// backup: nothing more is registered in it, and the agent goes on in another, which it is given here. May be repeated:
    /// the first one given stays. Gives the mark as it is then; it has no `next` where all that was `acknowledged` is there.
    ///
    /// # Errors
    /// [`Error::Concurrent`] while blocks are registered all the time, [`Error::Mongo`].
    pub async fn end_numbering(&self, shipment: &Shipment, acknowledged: u64) -> Result<LaneMark, Error> {
        let doing = || format!("ending a numbering of agent {}", shipment.agent);
        for tries in 1..=TRIES {
            let mark = self.mark(shipment).await?;
            if mark.next.is_some() || mark.registered >= acknowledged {
                return Ok(mark.of(shipment.dataset.clone()));
            }
            let next = doc! { "next": Uuid::new_v4().to_string() };
            let marks = self.documents(SHIPPED);
            // Whoever registers meanwhile changes the number that stands here, or finds that it has ended.
            let done = if mark.exists {
                let filter = doc! {
                    "_id": shipment.key(), "registered": signed(mark.registered), "next": { "$exists": false },
                };
                marks.update_one(filter, doc! { "$set": next }).await.map(drop)
            } else {
                let mut fresh = shipment.document();
                fresh.extend(doc! { "registered": 0_i64, "at": date(now_ms()) });
                fresh.extend(next);
                marks.insert_one(fresh).await.map(drop)
            };
            match done {
                Ok(()) => {}
                Err(error) if is_transient(&error) || code(&error) == Some(DUPLICATE_KEY) => {
                    tokio::time::sleep(pause(tries)).await;
                }
                Err(error) => return Err(self.failed(doing())(error)),
            }
        }
        Err(concurrent(&shipment.dataset))
    }

    /// What an agent has shipped, all its instances; with none, what all have.
    ///
    /// # Errors
    /// [`Error::Mongo`], [`Error::Decode`].
    pub async fn shipped(&self, agent: Option<&Name>) -> Result<Vec<Shipped>, Error> {
        match agent {
            Some(agent) => self.shipped_below(agent.as_str()).await,
            None => self.shipped_where(doc! {}).await,
        }
    }

    async fn shipped_below(&self, prefix: &str) -> Result<Vec<Shipped>, Error> {
        // '0' follows '/'.
        let range = doc! { "$gte": format!("{prefix}/"), "$lt": format!("{prefix}0") };
        self.shipped_where(doc! { "_id": range }).await
    }

    async fn shipped_where(&self, filter: Document) -> Result<Vec<Shipped>, Error> {
        let query = Query::new(SHIPPED, "reading what agents shipped", filter).sort("_id", 1);
        let mut rows = self.find(query).await?;
        let mut shipped = Vec::new();
        let now = now_ms();
        while let Some(document) = rows.next().await? {
            shipped.push(decode(document, now)?);
        }
        Ok(shipped)
    }

    /// Who appends to a dataset in this process: two transactions on one would only collide.
    fn shipping_turn(&self, dataset: &Name) -> Arc<tokio::sync::Mutex<()>> {
        let mut turns = self
            .shipping()
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        if turns.len() >= TURNS {
            turns.retain(|_, turn| Arc::strong_count(turn) > 1);
        }
        Arc::clone(turns.entry(dataset.clone()).or_default())
    }
}

/// When a block is registered, where its own time is much earlier: limits on the age of blocks go by it. Of the two the later
/// counts, as nobody knows which clock is wrong.
fn registered_ms(block: &Block, now_ms: i64) -> Option<i64> {
    let written_ms = block.newest_ms()?;
    (now_ms > written_ms && are_apart(written_ms, now_ms)).then_some(now_ms)
}

/// By dataset, who appends to it in this process.
pub(crate) type Turns = HashMap<Name, Arc<tokio::sync::Mutex<()>>>;

pub(crate) fn decode(document: &RawDocument, now_ms: i64) -> Result<Shipped, Error> {
    let key = document.get_str("_id").unwrap_or_default();
    let what = || format!("the mark {key}");
    schema::check_version(document, what)?;
    let bad = |why: String| Error::Decode { what: what(), why };
    let mut parts = key.splitn(3, '/');
    let mut part = || parts.next().unwrap_or_default();
    let shipment = Shipment {
        agent: Name::new(part()).map_err(|error| bad(error.to_string()))?,
        instance: Uuid::parse_str(part()).map_err(|error| bad(error.to_string()))?,
        dataset: Name::new(part()).map_err(|error| bad(error.to_string()))?,
    };
    let mark = Mark::read(document);
    Ok(Shipped {
        mark: mark.of(shipment.dataset.clone()),
        shipment,
        total: mark.total,
        today: mark.today_at(now_ms),
        at_ms: document
            .get_datetime("at")
            .map_or(0, bson::DateTime::timestamp_millis),
    })
}

fn uuid(document: &RawDocument, key: &str) -> Option<Uuid> {
    Uuid::parse_str(document.get_str(key).ok()?).ok()
}
