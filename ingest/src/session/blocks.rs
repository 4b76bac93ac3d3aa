//! From a block that has arrived to its acknowledgement: checked and stored side by side, registered in order.

use std::sync::Arc;

use api::v1::{BlockHeader, BlockRefusal, Placed as PlacedAt};
use model::{Name, place::Placement};
use storage::{Registration, Shipment, ShippedBlock, Store};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    task::JoinError,
};
use tonic::codegen::Bytes;

use super::{End, Session};

/// Most bytes of lines of one block: sixteen times what agents cut.
const RAW_BYTES_MAX: u64 = 1 << 30;
/// The last three of the first four bytes of a skippable frame of zstd (RFC 8878).
const SKIPPABLE: [u8; 3] = [0x2a, 0x4d, 0x18];

/// A block to be stored.
pub(super) struct Block {
    pub(super) shipment: Shipment,
    pub(super) attempt: u64,
    pub(super) header: BlockHeader,
    pub(super) bytes: Vec<Bytes>,
    pub(super) memory: OwnedSemaphorePermit,
}

/// What became of it.
pub(super) struct Placed {
    dataset: Name,
    sequence: u64,
    attempt: u64,
    end: Result<ShippedBlock, (BlockRefusal, String)>,
}

/// What became of blocks that were to be registered.
pub(super) struct RegisterEnd {
    dataset: Name,
    /// Where those lie that nodes keep.
    placed: Vec<PlacedAt>,
    end: Result<Registration, storage::Error>,
}

impl Block {
    /// Checks it and puts it into the block store.
    pub(super) async fn place(self, store: Store, puts: Arc<Semaphore>) -> Placed {
        let dataset = self.shipment.dataset.clone();
        let (sequence, attempt) = (self.header.sequence, self.attempt);
        let end = self.stored(store, puts).await;
        Placed {
            dataset,
            sequence,
            attempt,
            end,
        }
    }

    async fn stored(
        self,
        store: Store,
        puts: Arc<Semaphore>,
    ) -> Result<ShippedBlock, (BlockRefusal, String)> {
        let Self {
            shipment,
            header,
            bytes,
            memory,
            ..
        } = self;
        let corrupt = |message: String| (BlockRefusal::Corrupt, message);
        let _turn = puts.acquire().await;
        let raw_bytes = header.raw_bytes;
        let checked = tokio::task::spawn_blocking(move || {
            let (checksum, frames) = (checksum(&bytes), check_frames(&bytes, raw_bytes));
            (bytes, checksum, frames)
        });
        let (bytes, checksum, frames) = checked.await.map_err(|error| corrupt(error.to_string()))?;
        if header.stored_checksum != checksum.as_bytes()[..] {
            let message = format!("block {} has other bytes than its checksum says", header.sequence);
            return Err(corrupt(message));
        }
        if let Err(why) = frames {
            return Err(corrupt(format!("block {}: {why}", header.sequence)));
        }
        let (sequence, verify) = (header.sequence, header.verify);
        let put = match header.placement {
            None => {
                store
                    .put_block(&shipment, sequence, bytes, checksum, verify)
                    .await
            }
            Some(placement) => {
                let bad = |error: api::Malformed| (BlockRefusal::NoNode, error.to_string());
                let placement = Placement::try_from(placement).map_err(bad)?;
                let how = (checksum, verify);
                store
                    .place_block(&shipment, sequence, bytes, how, &placement)
                    .await
            }
        };
        let block = put.map_err(|failure| {
            let why = match failure {
                storage::Error::Corrupt { .. } => BlockRefusal::Corrupt,
                storage::Error::Misplaced(_) => BlockRefusal::NoNode,
                _ => BlockRefusal::Store,
            };
            (why, failure.to_string())
        })?;
        drop(memory);
        Ok(ShippedBlock {
            sequence: header.sequence,
            block,
            lines: header.lines,
            raw_bytes: header.raw_bytes,
        })
    }
}

/// Where a block lies, if nodes keep it.
fn placed(block: &ShippedBlock) -> Option<PlacedAt> {
    let hosts = block.block.hosts();
    (!hosts.is_empty()).then(|| PlacedAt {
        sequence: block.sequence,
        nodes: hosts.iter().map(ToString::to_string).collect(),
    })
}

fn checksum(bytes: &[Bytes]) -> blake3::Hash {
    let mut hasher = blake3::Hasher::new();
    for bytes in bytes {
        hasher.update(bytes);
    }
    hasher.finalize()
}

/// Whether it is what it says: skippable frames, then one frame of zstd that tells its content, of as many bytes as the
/// header says. Whoever reads it never gets more: a small block of nothing must not fill the memory of its readers.
pub(crate) fn check_frames(bytes: &[Bytes], raw_bytes: u64) -> Result<(), String> {
    if raw_bytes > RAW_BYTES_MAX {
        return Err(format!(
            "it has {raw_bytes} bytes of lines, more than {RAW_BYTES_MAX}"
        ));
    }
    let joined;
    let mut rest: &[u8] = match bytes {
        [one] => one,
        several => {
            joined = several.concat();
            &joined
        }
    };
    loop {
        let length = zstd::zstd_safe::find_frame_compressed_size(rest)
            .map_err(|code| format!("it is no zstd: {}", zstd::zstd_safe::get_error_name(code)))?;
        let is_skippable = rest.len() >= 4 && rest[0] & 0xf0 == 0x50 && rest[1..4] == SKIPPABLE;
        let frame;
        (frame, rest) = rest.split_at(length.min(rest.len()));
        if is_skippable && !rest.is_empty() {
            continue;
        }
        return match zstd::zstd_safe::get_frame_content_size(frame) {
            Ok(Some(content)) if content == raw_bytes && rest.is_empty() => Ok(()),
            Ok(Some(content)) if rest.is_empty() => Err(format!(
                "its frame has {content} bytes, and its header says {raw_bytes}"
            )),
            _ => Err("it is not one frame that tells its size".to_string()),
        };
    }
}

impl Session {
    pub(super) fn shipment(&self, dataset: &Name) -> Shipment {
        Shipment {
            agent: self.data.agent.clone(),
            instance: self
                .numberings
                .get(dataset)
                .copied()
                .unwrap_or(self.data.instance),
            dataset: dataset.clone(),
        }
    }

    /// A block is stored, or is not.
    pub(super) async fn placed(&mut self, placed: Result<Placed, JoinError>) -> Result<(), End> {
        let Placed {
            dataset,
            sequence,
            attempt,
            end,
        } = placed.map_err(|error| End::Status(tonic::Status::internal(error.to_string())))?;
        let Some(lane) = self.lanes.get_mut(&dataset) else {
            return Ok(());
        };
        if !lane.counts(sequence, attempt) {
            return Ok(());
        }
        match end {
            Ok(block) => {
                lane.note_stored(attempt, block);
                self.register(&dataset);
                Ok(())
            }
            Err((why, message)) => {
                tracing::warn!(agent = %self.data.agent, %dataset, sequence, "a block is refused: {message}");
                let dropped = lane.fall_back(sequence);
                self.refuse_all(&dataset, &dropped, why, &message).await
            }
        }
    }

    /// The first for its reason, those behind it because they follow it.
    async fn refuse_all(
        &self,
        dataset: &Name,
        sequences: &[u64],
        why: BlockRefusal,
        message: &str,
    ) -> Result<(), End> {
        for (at, &sequence) in sequences.iter().enumerate() {
            let (why, message) = match at {
                0 => (why, message),
                _ => (BlockRefusal::Order, "a block before it was refused"),
            };
            self.refuse(dataset, sequence, why, message).await?;
        }
        Ok(())
    }

    /// Begins to register what can be.
    fn register(&mut self, dataset: &Name) {
        let Some(blocks) = self.lanes.get_mut(dataset).and_then(super::Lane::next_batch) else {
            return;
        };
        let (store, shipment) = (self.shared.store.clone(), self.shipment(dataset));
        let placed = blocks.iter().filter_map(placed).collect();
        self.registering.spawn(async move {
            let end = store.register_shipped(&shipment, &blocks).await;
            RegisterEnd {
                dataset: shipment.dataset,
                placed,
                end,
            }
        });
    }

    /// Blocks are registered, or are not.
    pub(super) async fn registered(&mut self, end: Result<RegisterEnd, JoinError>) -> Result<(), End> {
        let RegisterEnd { dataset, placed, end } =
            end.map_err(|error| End::Status(tonic::Status::internal(error.to_string())))?;
        let Some(lane) = self.lanes.get_mut(&dataset) else {
            return Ok(());
        };
        match end {
            Ok(Registration::Registered { mark, incarnation }) => {
                lane.note_registered(mark, incarnation);
                self.register(&dataset);
                self.acknowledge(&dataset, mark, placed).await
            }
            Ok(Registration::Gap(mark)) => {
                let dropped = lane.begin_at(mark);
                let message = format!("all up to block {mark} are registered, and this does not follow it");
                self.refuse_all(&dataset, &dropped, BlockRefusal::Order, &message)
                    .await
            }
            Err(failure) => {
                tracing::warn!(agent = %self.data.agent, %dataset, "blocks can't be registered: {failure}");
                // It may have been registered nevertheless: sent again, it is told so then.
                let mark = lane.registered();
                let dropped = lane.begin_at(mark);
                let message = failure.to_string();
                self.refuse_all(&dataset, &dropped, BlockRefusal::Store, &message)
                    .await
            }
        }
    }
}
