//! The way of a process to the blocks that nodes keep: live workers by ZooKeeper, blocks by gRPC.
//!
//! Promise: a node that is away is told so at once, and one that is silent after seconds; connections and the list of live
//! workers are shared and kept. Nothing is connected before it is needed.

use std::{
    collections::HashMap,
    io::Write,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use api::{
    transport::{self, Channel, Security},
    v1::{
        GetBlockReply, GetBlockRequest, PutBlockHeader, PutBlockRequest, blocks_client::BlocksClient,
        put_block_request::Message,
    },
};
use coordination::{Term, live_workers};
use futures::future::BoxFuture;
use model::{Name, place::BlockKey};
use storage::{Kept, Missed};
use tokio::{sync::Mutex as Turn, time::timeout};
use tonic::codegen::Bytes;

/// How long it is believed which workers live.
const FRESH: Duration = Duration::from_secs(1);
/// How long it may take to find out.
const LOOK: Duration = Duration::from_secs(10);
/// How long a whole block may take to be put: short enough that another node takes it within the minute that agents wait.
const PUT: Duration = Duration::from_secs(20);
/// How long the next piece of a block may take to come.
const PIECE: Duration = Duration::from_secs(20);
/// Bytes of a chunk.
const CHUNK_BYTES: usize = 256 * 1024;

/// The other nodes of a mill; clones share what is connected.
#[derive(Clone)]
pub struct Neighbours {
    inner: Arc<Inner>,
}

struct Inner {
    zookeeper: coordination::Config,
    security: Security,
    /// One looks, the others wait for what it finds.
    seen: Turn<Seen>,
    /// Connections by endpoint.
    channels: Mutex<HashMap<String, Channel>>,
}

#[derive(Default)]
struct Seen {
    term: Option<Term>,
    live: Option<(Instant, Result<Arc<Live>, String>)>,
}

/// The nodes that live, or lived when ZooKeeper answered last.
struct Live {
    nodes: Vec<Node>,
    is_old: bool,
}

/// A live node that takes connections.
#[derive(Clone, Debug)]
struct Node {
    name: Name,
    endpoint: String,
    keeps: bool,
}

impl Neighbours {
    /// Over the workers that ZooKeeper knows.
    pub fn new(zookeeper: coordination::Config, security: Security) -> Self {
        let inner = Inner {
            zookeeper,
            security,
            seen: Turn::default(),
            channels: Mutex::default(),
        };
        Self {
            inner: Arc::new(inner),
        }
    }

    async fn live(&self) -> Result<Arc<Live>, String> {
        let mut seen = self.inner.seen.lock().await;
        if let Some((at, live)) = &seen.live
            && at.elapsed() < FRESH
        {
            return live.clone();
        }
        let looked = timeout(LOOK, self.look(&mut seen)).await;
        let looked = looked.unwrap_or_else(|_| Err(format!("ZooKeeper does not answer within {LOOK:?}")));
        let live = match (looked, seen.live.take()) {
            (Ok(nodes), _) => Ok(Arc::new(Live { nodes, is_old: false })),
            // Most of them live on while ZooKeeper is away.
            (Err(_), Some((_, Ok(last)))) => Ok(Arc::new(Live {
                nodes: last.nodes.clone(),
                is_old: true,
            })),
            (Err(why), _) => Err(format!("which nodes live is not known: {why}")),
        };
        seen.live = Some((Instant::now(), live.clone()));
        live
    }

    async fn look(&self, seen: &mut Seen) -> Result<Vec<Node>, String> {
        let told = |error: coordination::Error| error.to_string();
        if seen.term.as_ref().is_some_and(|term| term.why().is_some()) {
            seen.term = None;
        }
        let term = match seen.term.take() {
            Some(term) => term,
            None => Term::begin(&self.inner.zookeeper).await.map_err(told)?,
        };
        let workers = live_workers(&term).await;
        seen.term = Some(term);
        let node = |worker: model::znode::WorkerData| {
            Some(Node {
                name: worker.node,
                endpoint: worker.endpoint?,
                keeps: worker.local_store,
            })
        };
        // The latest incarnation of a node stands last.
        let mut nodes: Vec<Node> = workers
            .map_err(told)?
            .into_iter()
            .filter_map(|(_, worker)| node(worker))
            .collect();
        nodes.reverse();
        Ok(nodes)
    }

    async fn client(&self, name: &Name) -> Result<BlocksClient<Channel>, Missed> {
        let live = self.live().await.map_err(Missed::Failed)?;
        let Some(node) = live.nodes.iter().find(|node| node.name == *name) else {
            return Err(match live.is_old {
                false => Missed::Gone("it is away".to_string()),
                true => Missed::Failed("it was away before ZooKeeper fell silent".to_string()),
            });
        };
        if !node.keeps {
            let why = "it lives, but keeps no blocks: its setting local_store is not set";
            return Err(Missed::Gone(why.to_string()));
        }
        let endpoint = node.endpoint.clone();
        let known = self.channels().get(&endpoint).cloned();
        let channel = match known {
            Some(channel) => channel,
            None => {
                let channel = transport::connect(&endpoint, &self.inner.security).await;
                let channel = channel.map_err(|error| Missed::Failed(error.to_string()))?;
                let mut channels = self.channels();
                channels.retain(|known, _| live.nodes.iter().any(|node| node.endpoint == *known));
                channels.insert(endpoint, channel.clone());
                channel
            }
        };
        Ok(BlocksClient::new(channel))
    }

    fn channels(&self) -> std::sync::MutexGuard<'_, HashMap<String, Channel>> {
        self.inner.channels.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn put_there(&self, node: &Name, block: Kept<'_>) -> Result<(), String> {
        let mut client = self.client(node).await.map_err(|missed| missed.to_string())?;
        let header = PutBlockHeader {
            key: block.key.to_string(),
            bytes: block.bytes.iter().map(|bytes| bytes.len() as u64).sum(),
            checksum: block.checksum.as_bytes().to_vec().into(),
            verify: block.verify,
            node: node.to_string(),
        };
        let chunks: Vec<Message> = block.bytes.iter().flat_map(chunks).map(Message::Chunk).collect();
        let messages = [Message::Header(header)].into_iter().chain(chunks);
        let requests = messages.map(|message| PutBlockRequest {
            message: Some(message),
        });
        let requests = futures::stream::iter(requests.collect::<Vec<_>>());
        let put = client.put(requests).await;
        put.map(drop).map_err(|status| transport::why(&status))
    }

    async fn get_from(
        &self,
        node: &Name,
        key: &BlockKey,
        bytes: u64,
        into: &mut (dyn Write + Send),
    ) -> Result<(), Missed> {
        let late = |_| Missed::Failed(format!("nothing came within {PIECE:?}"));
        let mut client = self.client(node).await?;
        let request = GetBlockRequest {
            key: key.to_string(),
            start: 0,
            end: 0,
            node: node.to_string(),
        };
        let opened = timeout(PIECE, client.get(request)).await.map_err(late)?;
        let mut replies = opened.map_err(|status| missed(&status))?.into_inner();
        let mut left = bytes;
        while let Some(GetBlockReply { chunk, block_bytes }) = timeout(PIECE, replies.message())
            .await
            .map_err(late)?
            .map_err(|status| missed(&status))?
        {
            if block_bytes != bytes || chunk.len() as u64 > left {
                let why = format!("its copy has {block_bytes} bytes, and not {bytes}");
                return Err(Missed::Broken(why));
            }
            left -= chunk.len() as u64;
            into.write_all(&chunk).map_err(Missed::Here)?;
        }
        if left > 0 {
            return Err(Missed::Failed(format!("it stopped {left} bytes before the end")));
        }
        Ok(())
    }
}

/// Only a node that says so itself does not have a block.
fn missed(status: &tonic::Status) -> Missed {
    let why = transport::why(status);
    match status.code() {
        tonic::Code::NotFound => Missed::Gone(why),
        _ => Missed::Failed(why),
    }
}

fn chunks(bytes: &Bytes) -> impl Iterator<Item = Bytes> + use<> {
    let bytes = bytes.clone();
    let starts = (0..bytes.len()).step_by(CHUNK_BYTES);
    starts.map(move |start| bytes.slice(start..(start + CHUNK_BYTES).min(bytes.len())))
}

impl storage::Neighbours for Neighbours {
    fn nodes(&self) -> BoxFuture<'_, Result<Vec<Name>, String>> {
        Box::pin(async {
            let live = self.live().await?;
            Ok(live
                .nodes
                .iter()
                .filter(|node| node.keeps)
                .map(|node| node.name.clone())
                .collect())
        })
    }

    fn put<'a>(&'a self, node: &'a Name, block: Kept<'a>) -> BoxFuture<'a, Result<(), String>> {
        Box::pin(async move {
            let put = timeout(PUT, self.put_there(node, block)).await;
            put.unwrap_or_else(|_| Err(format!("no answer within {PUT:?}")))
        })
    }

    fn get<'a>(
        &'a self,
        node: &'a Name,
        key: &'a BlockKey,
        bytes: u64,
        into: &'a mut (dyn Write + Send),
    ) -> BoxFuture<'a, Result<(), Missed>> {
        Box::pin(self.get_from(node, key, bytes, into))
    }
}

impl std::fmt::Debug for Neighbours {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Neighbours").finish_non_exhaustive()
    }
}
