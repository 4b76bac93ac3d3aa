//! An agent that does as it is told.

use api::{
    transport,
    v1::{
        AgentHello, BlockHeader, BlockRefusal, LeaveReason, ShipHello, ShipReply, ShipRequest,
        ingest_client::IngestClient, ship_reply, ship_request::Message,
    },
};
use coordination::{Attachment, clients};
use model::{
    FORMAT,
    znode::{ClientData, WorkerOffer},
};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Request, Status, Streaming};
use uuid::Uuid;

use crate::{SOON, Yard, name};

/// What an agent was told.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Heard {
    Welcome,
    Stored(String, u64),
    Refused(u64, BlockRefusal),
    Paused(bool),
    Leave(LeaveReason),
    Error(Code),
    End,
}

/// The agent web7.
pub(crate) struct Agent {
    requests: Option<mpsc::Sender<ShipRequest>>,
    replies: Result<Streaming<ShipReply>, Status>,
    pub(crate) marks: Vec<(String, u64)>,
}

/// A block of one line, which has its number.
pub(crate) fn block(dataset: &str, sequence: u64) -> (BlockHeader, Vec<u8>) {
    let text = format!("line {sequence}\n");
    let packed = zstd::bulk::compress(text.as_bytes(), 1).unwrap();
    let (mut header, packed) = raw(dataset, sequence, &packed);
    header.raw_bytes = text.len() as u64;
    (header, packed)
}

/// A block of these bytes.
pub(crate) fn raw(dataset: &str, sequence: u64, bytes: &[u8]) -> (BlockHeader, Vec<u8>) {
    let header = BlockHeader {
        dataset: dataset.into(),
        sequence,
        stored_bytes: bytes.len() as u64,
        raw_bytes: 7,
        lines: 1,
        stored_checksum: blake3::hash(bytes).as_bytes().to_vec().into(),
        verify: sequence.is_multiple_of(2),
        ..BlockHeader::default()
    };
    (header, bytes.to_vec())
}

impl Agent {
    /// Has the leader offer the worker to a connection that waits.
    pub(crate) async fn offer(yard: &Yard, instance: u128, incarnation: u64) {
        let data = ClientData {
            v: FORMAT,
            agent: name("web7"),
            instance: Uuid::from_u128(instance),
            incarnation,
            host: "web7".into(),
            version: "0".into(),
            zone: String::new(),
            avoid: Vec::new(),
            offer: None,
        };
        let attached = clients::attach(&yard.term, &data).await.unwrap();
        assert!(matches!(attached, Attachment::Attached(_)), "{attached:?}");
        let waiting = yard.leader.waiting().await.unwrap();
        let offer = WorkerOffer {
            worker: yard.worker.number().0,
            node: name("node1"),
            endpoint: yard.address.clone(),
            number: 1,
        };
        assert!(yard.leader.offer(&waiting[0], &offer).await.unwrap());
    }

    /// Connects without asking a dispatcher.
    pub(crate) async fn connect(address: &str, instance: u128, incarnation: u64, worker: u64) -> Self {
        Self::connect_to(address, Self::hello(instance, incarnation, worker)).await
    }

    /// What it says first.
    pub(crate) fn hello(instance: u128, incarnation: u64, worker: u64) -> ShipHello {
        ShipHello {
            agent: Some(AgentHello {
                protocol: api::PROTOCOL,
                agent: "web7".into(),
                instance: Uuid::from_u128(instance).as_bytes().to_vec().into(),
                incarnation,
                ..AgentHello::default()
            }),
            worker,
            once: false,
            acknowledged: Vec::new(),
            placement: None,
        }
    }

    /// Connects with this hello.
    pub(crate) async fn connect_to(address: &str, hello: ShipHello) -> Self {
        let mut client = IngestClient::connect(format!("http://{address}")).await.unwrap();
        let (requests, stream) = mpsc::channel(16);
        let hello = ShipRequest {
            message: Some(Message::Hello(hello)),
        };
        requests.send(hello).await.unwrap();
        let mut request = Request::new(ReceiverStream::new(stream));
        let token = std::fs::read_to_string(transport::token_file(address.parse().unwrap()).unwrap());
        let shown = format!("Bearer {}", token.unwrap().trim());
        request
            .metadata_mut()
            .insert("authorization", shown.parse().unwrap());
        let replies = client.ship(request).await;
        Self {
            requests: Some(requests),
            replies: replies.map(tonic::Response::into_inner),
            marks: Vec::new(),
        }
    }

    /// Is offered the worker, as the connection before, and welcomed there.
    pub(crate) async fn welcome(yard: &Yard, instance: u128, incarnation: u64) -> Self {
        Self::offer(yard, instance, incarnation - 1).await;
        let worker = yard.worker.number().0;
        let mut agent = Self::connect(&yard.address, instance, incarnation, worker).await;
        assert_eq!(agent.hear().await, Heard::Welcome);
        agent
    }

    pub(crate) async fn send(&self, (header, bytes): (BlockHeader, Vec<u8>)) {
        let requests = self.requests.as_ref().unwrap();
        let mut messages = vec![Message::Block(header)];
        messages.extend(bytes.chunks(9).map(|chunk| Message::Chunk(chunk.to_vec().into())));
        for message in messages {
            let message = Some(message);
            // What ends the stream may come before the last chunk.
            let _ = requests.send(ShipRequest { message }).await;
        }
    }

    /// Sends nothing more, and listens on.
    pub(crate) fn finish(&mut self) {
        self.requests = None;
    }

    pub(crate) async fn hear(&mut self) -> Heard {
        let replies = match &mut self.replies {
            Ok(replies) => replies,
            Err(status) => return Heard::Error(status.code()),
        };
        let reply = tokio::time::timeout(SOON, replies.message()).await;
        let reply = match reply.expect("an answer") {
            Ok(Some(reply)) => reply.message.unwrap(),
            Ok(None) => return Heard::End,
            Err(status) => return Heard::Error(status.code()),
        };
        match reply {
            ship_reply::Message::Welcome(welcome) => {
                let registered = welcome.registered.into_iter();
                self.marks = registered.map(|one| (one.dataset, one.sequence)).collect();
                Heard::Welcome
            }
            ship_reply::Message::Stored(stored) => Heard::Stored(stored.dataset, stored.sequence),
            ship_reply::Message::Refused(refused) => Heard::Refused(refused.sequence, refused.why()),
            ship_reply::Message::Orders(orders) => Heard::Paused(orders.paused),
            ship_reply::Message::Leave(leave) => Heard::Leave(leave.why()),
        }
    }

    pub(crate) async fn until_stored(&mut self, dataset: &str, sequence: u64) {
        loop {
            match self.hear().await {
                Heard::Stored(of, mark) if of == dataset && mark >= sequence => return,
                Heard::Stored(..) => {}
                other => panic!("{other:?} where block {sequence} of {dataset} was to be stored"),
            }
        }
    }

    pub(crate) async fn until_leave(&mut self) -> LeaveReason {
        loop {
            match self.hear().await {
                Heard::Leave(why) => return why,
                Heard::Stored(..) => {}
                other => panic!("{other:?} where it was to leave"),
            }
        }
    }
}
