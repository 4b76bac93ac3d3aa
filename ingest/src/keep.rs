//! `sawmill.v1.Blocks`: the blocks that this node keeps in a directory of its own, for the other nodes.
//!
//! Promise: only nodes of the mill get anything; what they send is bounded, checked and synced before it is acknowledged;
//! one that does not read what it asked for is let go of.

use std::{
    fs::File,
    io::{Read as _, Seek as _, SeekFrom},
    sync::Arc,
    time::Duration,
};

use api::{
    refusal,
    transport::peer,
    v1::{
        GetBlockReply, GetBlockRequest, PutBlockHeader, PutBlockReply, PutBlockRequest,
        blocks_server::Blocks, put_block_request::Message,
    },
};
use model::place::BlockKey;
use pki::Role;
use storage::LocalStore;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Request, Response, Status, Streaming, codegen::Bytes};

use crate::arrival::BLOCK_BYTES;

/// Bytes of a chunk that is sent.
const CHUNK_BYTES: usize = 256 * 1024;
/// Most bytes of a chunk that is taken.
const CHUNK_BYTES_MAX: usize = 1 << 20;
/// Chunks of one block that wait to be sent.
const QUEUE: usize = 4;
/// Blocks that are put at once: each is in memory.
const PUTS: usize = 8;
/// Blocks that are read at once.
const GETS: usize = 64;
/// How long a block may take to arrive, and how long its turn may be waited for.
const PUT_TIME: Duration = Duration::from_secs(60);
/// How long a reader may leave a chunk unread.
const SLOW_READER: Duration = Duration::from_secs(30);

/// The service.
pub(crate) struct Keeper {
    local: LocalStore,
    puts: Arc<Semaphore>,
    gets: Arc<Semaphore>,
}

impl Keeper {
    pub(crate) fn new(local: LocalStore) -> Self {
        Self {
            local,
            puts: Arc::new(Semaphore::new(PUTS)),
            gets: Arc::new(Semaphore::new(GETS)),
        }
    }
}

fn check<T>(request: &Request<T>, roles: &[Role]) -> Result<(), Status> {
    let peer = peer(request);
    if roles.contains(&peer.role) {
        return Ok(());
    }
    let message = format!("{peer} may not reach the blocks of nodes: ask a dispatcher");
    Err(refusal(Code::PermissionDenied, "PERMISSION_DENIED", message, []))
}

fn bad(message: impl Into<String>) -> Status {
    refusal(Code::InvalidArgument, "BAD_BLOCK", message, [])
}

/// Refuses what is meant for another node: what it keeps is not here, and nobody would look here for what is put.
fn is_meant(own: &model::Name, node: &str) -> Result<(), Status> {
    if own.as_str() == node {
        return Ok(());
    }
    let node: String = node.chars().take(100).collect();
    let message = format!(
        "this is node {own}, not {node:?}: set advertise of each node to an address at which others reach that node alone"
    );
    Err(refusal(Code::FailedPrecondition, "OTHER_NODE", message, []))
}

fn key(text: &str) -> Result<BlockKey, Status> {
    text.parse()
        .map_err(|error: model::place::BadKey| bad(error.to_string()))
}

fn stored(failure: &storage::Error) -> Status {
    let (code, reason) = match failure {
        storage::Error::Corrupt { .. } => (Code::DataLoss, "CORRUPT"),
        failure if failure.is_not_found() => (Code::NotFound, "NO_SUCH_BLOCK"),
        _ => (Code::Unavailable, "STORE_AWAY"),
    };
    refusal(code, reason, failure.to_string(), [])
}

async fn turn(of: &Arc<Semaphore>) -> Result<OwnedSemaphorePermit, Status> {
    let busy = |_| {
        let message = "this node gives and takes as many blocks as it can: try again";
        refusal(Code::ResourceExhausted, "BUSY", message, [])
    };
    let acquired = tokio::time::timeout(PUT_TIME, Arc::clone(of).acquire_owned()).await;
    acquired
        .map_err(busy)?
        .map_err(|_| Status::unavailable("this node stops"))
}

#[tonic::async_trait]
impl Blocks for Keeper {
    type GetStream = ReceiverStream<Result<GetBlockReply, Status>>;

    async fn put(
        &self,
        request: Request<Streaming<PutBlockRequest>>,
    ) -> Result<Response<PutBlockReply>, Status> {
        check(&request, &[Role::Worker, Role::Admin])?;
        let mut stream = request.into_inner();
        let first = tokio::time::timeout(PUT_TIME, stream.message()).await;
        let first = first.map_err(|_| Status::deadline_exceeded("no header came"))??;
        let Some(Message::Header(header)) = first.and_then(|first| first.message) else {
            return Err(bad("the first message is no header"));
        };
        is_meant(self.local.node(), &header.node)?;
        let key = key(&header.key)?;
        if header.bytes == 0 || header.bytes > BLOCK_BYTES {
            return Err(bad(format!(
                "a block of {} bytes: it may have 1 to {BLOCK_BYTES}",
                header.bytes
            )));
        }
        let checksum = <[u8; 32]>::try_from(&header.checksum[..]);
        let checksum = checksum.map_err(|_| bad("a checksum has 32 bytes"))?.into();
        let _turn = turn(&self.puts).await?;
        let arrived = tokio::time::timeout(PUT_TIME, arrive(&mut stream, &header)).await;
        let bytes = arrived.map_err(|_| Status::deadline_exceeded("the block did not come"))??;
        let put = self.local.put(&key, bytes, checksum, header.verify).await;
        put.map_err(|failure| stored(&failure))?;
        Ok(Response::new(PutBlockReply {}))
    }

    async fn get(&self, request: Request<GetBlockRequest>) -> Result<Response<Self::GetStream>, Status> {
        check(
            &request,
            &[Role::Worker, Role::Dispatcher, Role::Watcher, Role::Admin],
        )?;
        let GetBlockRequest {
            key: text,
            start,
            end,
            node,
        } = request.into_inner();
        is_meant(self.local.node(), &node)?;
        let key = key(&text)?;
        let turn = turn(&self.gets).await?;
        let opened = self.local.open_block(&key).await;
        let (mut file, block_bytes) = opened.map_err(|failure| stored(&failure))?;
        let end = if end == 0 { block_bytes } else { end };
        if start > end || end > block_bytes {
            return Err(bad(format!("bytes {start} to {end} of a block of {block_bytes}")));
        }
        file.seek(SeekFrom::Start(start))
            .map_err(|error| Status::internal(error.to_string()))?;
        let (replies, stream) = mpsc::channel(QUEUE);
        tokio::spawn(async move {
            let _turn = turn;
            give(file, end - start, block_bytes, replies).await;
        });
        Ok(Response::new(ReceiverStream::new(stream)))
    }
}

async fn arrive(
    stream: &mut Streaming<PutBlockRequest>,
    header: &PutBlockHeader,
) -> Result<Vec<Bytes>, Status> {
    let (mut missing, mut bytes) = (header.bytes, Vec::new());
    while missing > 0 {
        let Some(Message::Chunk(chunk)) = stream.message().await?.and_then(|message| message.message) else {
            return Err(bad("the block ends early"));
        };
        let length = chunk.len() as u64;
        if chunk.is_empty() || chunk.len() > CHUNK_BYTES_MAX || length > missing {
            return Err(bad(format!(
                "a chunk of {length} bytes where {missing} are missing"
            )));
        }
        missing -= length;
        bytes.push(chunk);
    }
    Ok(bytes)
}

/// Reads and sends, chunk by chunk; ends with the one who asked.
async fn give(
    mut file: File,
    mut left: u64,
    block_bytes: u64,
    replies: mpsc::Sender<Result<GetBlockReply, Status>>,
) {
    loop {
        let length = usize::try_from(left).unwrap_or(CHUNK_BYTES).min(CHUNK_BYTES);
        let read = tokio::task::spawn_blocking(move || {
            let mut chunk = vec![0; length];
            let read = file.read_exact(&mut chunk);
            read.map(|()| (file, chunk))
        });
        let reply = match read.await {
            Ok(Ok((read, chunk))) => {
                file = read;
                left -= chunk.len() as u64;
                Ok(GetBlockReply {
                    chunk: chunk.into(),
                    block_bytes,
                })
            }
            Ok(Err(error)) => {
                let _ = replies.try_send(Err(Status::data_loss(format!("reading the block: {error}"))));
                return;
            }
            Err(_) => return,
        };
        let sent = tokio::time::timeout(SLOW_READER, replies.send(reply)).await;
        if !matches!(sent, Ok(Ok(()))) || left == 0 {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use api::transport::ConnectInfo;
    use futures::StreamExt as _;
    use model::Name;
    use pki::{Peer, Rights};

    use super::*;

    const KEY: &str = "blocks/m/access/web7/00000000-0000-4000-8000-00000000000a/000000000001.zst";

    fn asked(role: Role, key: &str, start: u64, end: u64) -> Request<GetBlockRequest> {
        let key = key.to_string();
        let mut request = Request::new(GetBlockRequest {
            key,
            start,
            end,
            node: "a".to_string(),
        });
        let peer = Peer {
            role,
            name: Name::new("x").unwrap(),
            rights: Rights::default(),
        };
        let tcp = tonic::transport::server::TcpConnectInfo {
            local_addr: None,
            remote_addr: None,
        };
        let info = ConnectInfo {
            peer,
            tcp,
            is_private: true,
            needs_token: false,
            local: None,
            place: None,
        };
        request.extensions_mut().insert(info);
        request
    }

    async fn text(keeper: &Keeper, request: Request<GetBlockRequest>) -> Result<String, Code> {
        let replies = keeper.get(request).await.map_err(|status| status.code())?;
        let mut replies = replies.into_inner();
        let mut text = Vec::new();
        while let Some(reply) = replies.next().await {
            text.extend_from_slice(&reply.map_err(|status| status.code())?.chunk);
        }
        Ok(String::from_utf8(text).unwrap())
    }

    #[tokio::test]
    async fn blocks_are_for_nodes_of_the_mill_and_nothing_else_is_given() {
        let folder = tempfile::tempdir().unwrap();
        let local = LocalStore::open(folder.path(), &Name::new("a").unwrap()).unwrap();
        let bytes = vec![Bytes::from_static(b"0123456789")];
        let checksum = blake3::hash(b"0123456789");
        local
            .put(&KEY.parse().unwrap(), bytes, checksum, true)
            .await
            .unwrap();
        let keeper = Keeper::new(local);
        for role in [Role::Worker, Role::Dispatcher, Role::Watcher, Role::Admin] {
            assert_eq!(text(&keeper, asked(role, KEY, 2, 5)).await, Ok("234".to_string()));
        }
        for role in [Role::User, Role::Agent] {
            assert_eq!(
                text(&keeper, asked(role, KEY, 0, 0)).await,
                Err(Code::PermissionDenied)
            );
        }
        for role in [Role::User, Role::Agent, Role::Dispatcher, Role::Watcher] {
            assert!(check(&asked(role, KEY, 0, 0), &[Role::Worker, Role::Admin]).is_err());
        }
        let mut astray = asked(Role::Worker, KEY, 0, 0);
        astray.get_mut().node = "b".to_string();
        assert_eq!(text(&keeper, astray).await, Err(Code::FailedPrecondition));
        let ask = async |key: &str, start, end| text(&keeper, asked(Role::Worker, key, start, end)).await;
        assert_eq!(ask(KEY, 0, 0).await, Ok("0123456789".to_string()));
        assert_eq!(ask(KEY, 10, 10).await, Ok(String::new()));
        assert_eq!(ask(KEY, 0, 11).await, Err(Code::InvalidArgument));
        assert_eq!(ask(KEY, 5, 2).await, Err(Code::InvalidArgument));
        let other = KEY.replace("0001", "0002");
        assert_eq!(ask(&other, 0, 0).await, Err(Code::NotFound));
        for bad in [
            "",
            "../../etc/passwd",
            "/etc/passwd",
            "node",
            &KEY.replace("access", ".."),
        ] {
            assert_eq!(ask(bad, 0, 0).await, Err(Code::InvalidArgument), "{bad}");
        }
    }
}
