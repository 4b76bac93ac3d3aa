//! A dispatcher and a worker in this process, which keep the rules of the protocol and break them when told to.

use std::{
    collections::{BTreeMap, VecDeque},
    net::TcpListener,
    pin::Pin,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
};

use api::v1::{
    AgentInfo, AgentReference, AttachReply, AttachRequest, Attached, AuditReply, AuditRequest, BlockHeader,
    BlockRefusal, BlockRefused, Leave, LeaveReason, ListAgentsReply, ListAgentsRequest, ListWorkersReply,
    ListWorkersRequest, Orders, Registered, SetAgentRequest, ShipHello, ShipReply, ShipRequest, StatusReply,
    StatusRequest, Stored, Welcome, WorkerOffer, attach_reply, attach_request, ingest_server,
    registry_server, ship_reply, ship_request,
};
use futures::{Stream, StreamExt as _};
use tokio::{sync::mpsc, task::JoinHandle};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};

/// What the worker does with the next block instead of storing it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Says that it arrived broken.
    Corrupt,
    /// Says that the store does not take it.
    Store,
    /// Stores it, and does not say so: the connection ends.
    LoseAnswer,
    /// Ends the connection.
    Disconnect,
    /// Says nothing any more.
    Hang,
    /// Sends the agent to another worker.
    Leave,
    /// Says that no node keeps it.
    NoNode,
    /// None: it is stored.
    Pass,
}

#[derive(Clone, Default)]
pub struct State {
    pub faults: VecDeque<Fault>,
    /// Up to where blocks are registered, by dataset and numbering (that of the instance is empty).
    pub registered: BTreeMap<(String, Vec<u8>), u64>,
    /// The numbering that each dataset counts in.
    pub numberings: BTreeMap<String, Vec<u8>>,
    /// What came after a numbering that ended.
    pub ended: BTreeMap<(String, Vec<u8>), Vec<u8>>,
    /// The incarnation of each dataset.
    pub incarnations: BTreeMap<String, u128>,
    /// Which mill it is.
    pub id: u128,
    /// The lines of each dataset.
    pub raw: BTreeMap<String, Vec<u8>>,
    /// What is avoided and the incarnation, of each hello to the dispatcher.
    pub hellos: Vec<(Vec<u64>, u64)>,
    pub connections: u32,
    pub verified: u64,
    pub reports: u32,
    pub paused: bool,
    /// A dataset that may not be shipped to.
    pub forbidden: Option<String>,
    /// Every block arrives broken.
    pub breaks_all: bool,
    /// The dispatcher offers a worker that is not there.
    pub bad_offers: u32,
}

#[derive(Clone)]
pub struct Mill {
    pub state: Arc<Mutex<State>>,
    pub address: String,
    _task: Arc<Task>,
}

struct Task(JoinHandle<()>);

impl Drop for Task {
    fn drop(&mut self) {
        self.0.abort();
    }
}

#[derive(Clone)]
struct Service {
    state: Arc<Mutex<State>>,
    address: String,
    away: Arc<AtomicBool>,
}

impl Mill {
    pub async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        listener.set_nonblocking(true).unwrap();
        let listener = tokio::net::TcpListener::from_std(listener).unwrap();
        let state = Arc::new(Mutex::new(State {
            id: 1,
            ..State::default()
        }));
        let service = Service {
            state: Arc::clone(&state),
            address: address.clone(),
            away: Arc::default(),
        };
        let router = api::transport::server()
            .add_service(registry_server::RegistryServer::new(service.clone()))
            .add_service(ingest_server::IngestServer::new(service));
        let incoming = tokio_stream::wrappers::TcpListenerStream::new(listener);
        let task = tokio::spawn(async move {
            router.serve_with_incoming(incoming).await.unwrap();
        });
        Self {
            state,
            address,
            _task: Arc::new(Task(task)),
        }
    }

    pub fn look<T>(&self, look: impl FnOnce(&mut State) -> T) -> T {
        look(&mut self.state.lock().unwrap())
    }

    pub fn break_next(&self, faults: &[Fault]) {
        self.look(|state| state.faults.extend(faults));
    }

    pub fn text(&self, dataset: &str) -> String {
        let raw = self.look(|state| state.raw.get(dataset).cloned());
        String::from_utf8(raw.unwrap_or_default()).unwrap()
    }
}

impl State {
    /// What an agent is told of its datasets: a numbering of which it knows more than is here ends.
    fn compare(&mut self, hello: &ShipHello) -> Vec<Registered> {
        let agent = hello.agent.as_ref().unwrap();
        let mut told: BTreeMap<String, (u64, Vec<u8>)> = BTreeMap::new();
        for dataset in &agent.datasets {
            told.insert(dataset.clone(), (0, Vec::new()));
        }
        for one in &hello.acknowledged {
            told.insert(one.dataset.clone(), (one.sequence, one.numbering.to_vec()));
        }
        let mut registered = Vec::new();
        for (dataset, (sequence, numbering)) in told {
            let lane = (dataset.clone(), numbering.clone());
            let mark = self.registered.get(&lane).copied().unwrap_or(0);
            if mark < sequence && !self.ended.contains_key(&lane) {
                let next = (u128::from(self.connections) + 1).to_be_bytes().to_vec();
                self.ended.insert(lane.clone(), next);
            }
            let next = self.ended.get(&lane).cloned();
            let now = next.clone().unwrap_or(numbering);
            self.numberings.insert(dataset.clone(), now.clone());
            let bytes = |incarnation: Option<&u128>| {
                incarnation.map(|incarnation| incarnation.to_be_bytes().to_vec())
            };
            let current = bytes(self.incarnations.get(&dataset)).unwrap_or_default();
            registered.push(Registered {
                sequence: mark,
                incarnation: current.clone().into(),
                current: current.into(),
                next_sequence: match next {
                    Some(_) => self.registered.get(&(dataset.clone(), now)).copied().unwrap_or(0),
                    None => 0,
                },
                next: next.unwrap_or_default().into(),
                dataset,
            });
        }
        registered
    }
}

type Replies<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

#[tonic::async_trait]
impl registry_server::Registry for Service {
    type AttachStream = Replies<AttachReply>;

    async fn attach(
        &self,
        request: Request<Streaming<AttachRequest>>,
    ) -> Result<Response<Self::AttachStream>, Status> {
        let mut requests = request.into_inner();
        let Some(Ok(AttachRequest {
            message: Some(attach_request::Message::Hello(hello)),
        })) = requests.next().await
        else {
            return Err(Status::invalid_argument("no hello"));
        };
        let reply = |message| {
            Ok(AttachReply {
                message: Some(message),
            })
        };
        let offer = {
            let mut state = self.state.lock().unwrap();
            state.hellos.push((hello.avoid.clone(), hello.incarnation));
            let bad = state.bad_offers > 0;
            state.bad_offers = state.bad_offers.saturating_sub(1);
            let worker = (1..).find(|worker| !hello.avoid.contains(worker)).unwrap();
            WorkerOffer {
                worker,
                node: "n".to_string(),
                endpoint: if bad {
                    "127.0.0.1:1".to_string()
                } else {
                    self.address.clone()
                },
            }
        };
        let attached = attach_reply::Message::Attached(Attached {
            dispatcher: "candidate-1".to_string(),
        });
        let replies = futures::stream::iter([reply(attached), reply(attach_reply::Message::Offer(offer))]);
        let rest = futures::stream::unfold(requests, |mut requests| async move {
            while let Some(Ok(_)) = requests.next().await {}
            None
        });
        Ok(Response::new(Box::pin(replies.chain(rest))))
    }

    async fn list_workers(
        &self,
        _: Request<ListWorkersRequest>,
    ) -> Result<Response<ListWorkersReply>, Status> {
        Err(Status::unimplemented("for agents alone"))
    }

    async fn list_agents(&self, _: Request<ListAgentsRequest>) -> Result<Response<ListAgentsReply>, Status> {
        Err(Status::unimplemented("for agents alone"))
    }

    async fn set_agent(&self, _: Request<SetAgentRequest>) -> Result<Response<AgentInfo>, Status> {
        Err(Status::unimplemented("for agents alone"))
    }

    async fn remove_agent(&self, _: Request<AgentReference>) -> Result<Response<AgentInfo>, Status> {
        Err(Status::unimplemented("for agents alone"))
    }

    async fn status(&self, _: Request<StatusRequest>) -> Result<Response<StatusReply>, Status> {
        Err(Status::unimplemented("for agents alone"))
    }

    async fn audit(&self, _: Request<AuditRequest>) -> Result<Response<AuditReply>, Status> {
        Err(Status::unimplemented("for agents alone"))
    }
}

#[tonic::async_trait]
impl ingest_server::Ingest for Service {
    type ShipStream = Replies<ShipReply>;

    async fn ship(
        &self,
        request: Request<Streaming<ShipRequest>>,
    ) -> Result<Response<Self::ShipStream>, Status> {
        let (replies, outgoing) = mpsc::channel(64);
        let service = self.clone();
        let requests = request.into_inner();
        tokio::spawn(async move {
            let ended = service.serve(requests, &replies).await;
            if let Err(status) = ended {
                replies.send(Err(status)).await.unwrap_or_default();
            }
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(outgoing))))
    }
}

/// A block of which not all has come.
struct Arriving {
    header: BlockHeader,
    data: Vec<u8>,
}

impl Service {
    async fn serve(
        &self,
        mut requests: Streaming<ShipRequest>,
        replies: &mpsc::Sender<Result<ShipReply, Status>>,
    ) -> Result<(), Status> {
        let send = async |message| {
            let reply = ShipReply {
                message: Some(message),
            };
            replies
                .send(Ok(reply))
                .await
                .map_err(|_| Status::cancelled("gone"))
        };
        let mut arriving: Option<Arriving> = None;
        self.away.store(false, Ordering::SeqCst);
        while let Some(request) = requests.message().await? {
            match request.message {
                Some(ship_request::Message::Hello(hello)) => {
                    let (registered, paused, mill) = {
                        let mut state = self.state.lock().unwrap();
                        state.connections += 1;
                        (state.compare(&hello), state.paused, state.id)
                    };
                    send(ship_reply::Message::Welcome(Welcome {
                        window: 1 << 20,
                        registered,
                        node: "n".to_string(),
                        mill: mill.to_be_bytes().to_vec().into(),
                    }))
                    .await?;
                    send(ship_reply::Message::Orders(Orders { paused })).await?;
                }
                Some(ship_request::Message::Block(header)) => {
                    assert!(arriving.is_none(), "a block within a block");
                    arriving = Some(Arriving {
                        header,
                        data: Vec::new(),
                    });
                }
                Some(ship_request::Message::Chunk(chunk)) => {
                    let block = arriving.as_mut().expect("a chunk of a block");
                    // Of larger ones a worker counts each.
                    assert!(chunk.len() < 64 << 10);
                    block.data.extend_from_slice(&chunk);
                    if block.data.len() as u64 == block.header.stored_bytes {
                        let Arriving { header, data } = arriving.take().unwrap();
                        match self.take(&header, &data)? {
                            Some(reply) => send(reply).await?,
                            None => return Ok(()),
                        }
                    }
                }
                Some(ship_request::Message::Report(_)) => {
                    assert!(arriving.is_none(), "a report within a block");
                    self.state.lock().unwrap().reports += 1;
                }
                None => {}
            }
            if self.away.load(Ordering::SeqCst) {
                std::future::pending::<()>().await;
            }
        }
        Ok(())
    }

    /// The answer to a block; none ends the stream.
    fn take(&self, header: &BlockHeader, data: &[u8]) -> Result<Option<ship_reply::Message>, Status> {
        let mut state = self.state.lock().unwrap();
        let BlockHeader {
            dataset, sequence, ..
        } = header.clone();
        let refused = |why: BlockRefusal| {
            ship_reply::Message::Refused(BlockRefused {
                dataset: dataset.clone(),
                sequence,
                why: why.into(),
                message: "as the test wants".to_string(),
            })
        };
        let numbering = state.numberings.get(&dataset).cloned().unwrap_or_default();
        let lane = (dataset.clone(), numbering);
        let registered = state.registered.get(&lane).copied().unwrap_or(0);
        let stored = |state: &mut State| {
            // The first block makes the dataset.
            let fresh = state.incarnations.len() as u128 + 100;
            let incarnation = *state.incarnations.entry(dataset.clone()).or_insert(fresh);
            ship_reply::Message::Stored(Stored {
                dataset: dataset.clone(),
                sequence: registered.max(sequence),
                incarnation: incarnation.to_be_bytes().to_vec().into(),
                placed: Vec::new(),
            })
        };
        if sequence <= registered {
            return Ok(Some(stored(&mut state)));
        }
        if state.forbidden.as_ref() == Some(&dataset) {
            return Ok(Some(refused(BlockRefusal::NotAllowed)));
        }
        if sequence != registered + 1 {
            return Ok(Some(refused(BlockRefusal::Order)));
        }
        if state.breaks_all {
            return Ok(Some(refused(BlockRefusal::Corrupt)));
        }
        let fault = state.faults.pop_front();
        match fault {
            Some(Fault::Corrupt) => return Ok(Some(refused(BlockRefusal::Corrupt))),
            Some(Fault::NoNode) => return Ok(Some(refused(BlockRefusal::NoNode))),
            Some(Fault::Store) => return Ok(Some(refused(BlockRefusal::Store))),
            Some(Fault::Disconnect) => return Err(Status::unavailable("the test disconnects")),
            Some(Fault::Hang) => {
                self.away.store(true, Ordering::SeqCst);
                return Ok(Some(ship_reply::Message::Orders(Orders { paused: false })));
            }
            Some(Fault::Leave) => {
                return Ok(Some(ship_reply::Message::Leave(Leave {
                    why: LeaveReason::Moved.into(),
                    message: String::new(),
                })));
            }
            Some(Fault::LoseAnswer | Fault::Pass) | None => {}
        }
        assert_eq!(blake3::hash(data).as_bytes()[..], header.stored_checksum);
        let raw = zstd::decode_all(data).unwrap();
        assert_eq!(blake3::hash(&raw).as_bytes()[..], header.raw_checksum);
        assert_eq!(raw.len() as u64, header.raw_bytes);
        assert_eq!(
            raw.split_inclusive(|byte| *byte == b'\n').count() as u64,
            header.lines
        );
        state.verified += u64::from(header.verify);
        state.registered.insert(lane, sequence);
        state
            .raw
            .entry(dataset.clone())
            .or_default()
            .extend_from_slice(&raw);
        let stored = stored(&mut state);
        if fault == Some(Fault::LoseAnswer) {
            return Err(Status::unavailable("the test loses the answer"));
        }
        Ok(Some(stored))
    }
}
