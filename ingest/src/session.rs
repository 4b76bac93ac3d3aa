//! One agent that ships: what it sends is stored, registered in order and acknowledged, until it leaves or is sent away.

mod blocks;
mod welcome;

pub(crate) use blocks::check_frames;

use std::{collections::HashMap, sync::Arc, time::Duration};

use api::{
    refusal,
    v1::{
        AgentReport, BlockRefusal, BlockRefused, Leave, LeaveReason, Orders, Placed, ShipReply, ShipRequest,
        Stored, ship_reply::Message,
    },
};
use coordination::{Acceptance, Lost, Refusal, Worker};
use model::{Name, znode::ClientData};
use pki::Peer;
use storage::{AgentLoad, Store};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore, mpsc, watch},
    task::JoinSet,
};
use tonic::{Code, Status, Streaming};
use uuid::Uuid;

use self::blocks::RegisterEnd;
use crate::{
    Limits,
    arrival::{self, Arrival, Arrived, Rooms, permits},
    hello,
    lane::{Intake, Lane},
    post::Post,
};

/// Arrivals that wait to be looked at.
const ARRIVALS: usize = 4;
/// Most datasets of one agent at a time.
const MOST_LANES: usize = 1024;
/// How long an agent may leave an answer unread.
const SLOW_READER: Duration = Duration::from_secs(30);
/// How long what is under way may take once the agent sends nothing more.
const LAST_ANSWERS: Duration = Duration::from_secs(60);
/// A report is kept this often; in between the latest waits.
const REPORT_INTERVAL: Duration = Duration::from_secs(1);

/// What all sessions of a worker share.
#[derive(Clone)]
pub(crate) struct Shared {
    pub(crate) store: Store,
    pub(crate) node: Name,
    pub(crate) limits: Limits,
    pub(crate) memory: Arc<Semaphore>,
    /// Blocks that are being stored at once.
    pub(crate) puts: Arc<Semaphore>,
    /// Agents that are to ship nothing.
    pub(crate) paused: watch::Receiver<Arc<std::collections::HashSet<Name>>>,
    pub(crate) post: Post,
}

pub(crate) type Replies = mpsc::Sender<Result<ShipReply, Status>>;

/// An agent whose hello has been heard.
pub(crate) struct Session {
    shared: Shared,
    worker: Worker,
    data: ClientData,
    peer: Peer,
    replies: Replies,
    lanes: HashMap<Name, Lane<OwnedSemaphorePermit>>,
    /// What the numbers of a dataset belong to, where that is not the instance.
    numberings: HashMap<Name, Uuid>,
    placing: JoinSet<blocks::Placed>,
    registering: JoinSet<RegisterEnd>,
    reporting: JoinSet<()>,
    report: Option<AgentReport>,
    paused: bool,
}

/// Why a session ends.
enum End {
    /// The agent has gone, or reads nothing.
    Gone,
    /// The agent is sent away.
    Leave(LeaveReason, &'static str),
    /// With an error.
    Status(Status),
}

impl From<Status> for End {
    fn from(status: Status) -> Self {
        Self::Status(status)
    }
}

impl Session {
    /// Takes the agent over, if the leader has offered this worker to it.
    ///
    /// # Errors
    /// What the agent is told; it is not held then.
    pub(crate) async fn accept(
        shared: Shared,
        worker: Worker,
        ship: &api::v1::ShipHello,
        peer: Peer,
        replies: Replies,
    ) -> Result<Self, Status> {
        let data = hello::ship_data(ship, &peer, worker.number().0)?;
        if let Some(agent) = &ship.agent {
            let mill = shared.store.mill().await;
            hello::check_mill(agent, mill.map_err(|failure| unavailable("MongoDB", &failure))?)?;
        }
        if ship.once {
            welcome::check_once(&shared.store, ship, &peer).await?;
        }
        match worker.accept(&data).await {
            Ok(Acceptance::Held) => {}
            Ok(Acceptance::Refused(why)) => return Err(refused(&why)),
            Err(failure) => return Err(unavailable("ZooKeeper", &failure)),
        }
        let mut session = Self {
            shared,
            worker,
            data,
            peer,
            replies,
            lanes: HashMap::new(),
            numberings: HashMap::new(),
            placing: JoinSet::new(),
            registering: JoinSet::new(),
            reporting: JoinSet::new(),
            report: None,
            paused: false,
        };
        match session.welcome(ship).await {
            Ok(()) => Ok(session),
            Err(status) => {
                session.release().await;
                Err(status)
            }
        }
    }

    /// The agent that this is.
    pub(crate) fn agent(&self) -> &Name {
        &self.data.agent
    }

    /// Works until the agent leaves or is sent away; then lets go of it.
    pub(crate) async fn work(
        mut self,
        stream: Streaming<ShipRequest>,
        mut current: watch::Receiver<Option<Worker>>,
    ) {
        let limits = self.shared.limits;
        let rooms = Rooms {
            window: Arc::new(Semaphore::new(permits(limits.window_bytes))),
            window_bytes: limits.window_bytes,
            memory: Arc::clone(&self.shared.memory),
            memory_bytes: limits.memory_bytes,
        };
        let (told, arrivals) = mpsc::channel(ARRIVALS);
        let mut reader = JoinSet::new();
        reader.spawn(arrival::read(stream, rooms, told));
        let lost = {
            let (worker, data) = (self.worker.clone(), self.data.clone());
            async move { worker.client_lost(&data).await }
        };
        let number = self.worker.number();
        let closed =
            current.wait_for(|worker| worker.as_ref().is_none_or(|worker| worker.number() != number));
        let post = self.shared.post.clone();
        let end = tokio::select! {
            biased;
            lost = lost => self.sent_away(lost),
            _ = closed => if post.is_leaving() {
                End::Leave(LeaveReason::Stopping, "the worker stops")
            } else {
                End::Leave(LeaveReason::Replaced, "the worker has lost its session")
            },
            end = self.serve(arrivals) => end,
        };
        reader.abort_all();
        match end {
            End::Gone => {}
            End::Leave(why, message) => {
                tracing::info!(agent = %self.data.agent, message, "sending an agent away");
                let leave = Leave {
                    why: why.into(),
                    message: message.into(),
                };
                let _ = self.say(Message::Leave(leave)).await;
            }
            End::Status(status) => {
                tracing::warn!(agent = %self.data.agent, "an agent's stream ends: {}", status.message());
                let _ = tokio::time::timeout(SLOW_READER, self.replies.send(Err(status))).await;
            }
        }
        self.release().await;
    }

    fn sent_away(&self, lost: Lost) -> End {
        match lost {
            Lost::Moved => End::Leave(LeaveReason::Moved, "the leader moves the agent"),
            Lost::Replaced => End::Leave(LeaveReason::Replaced, "a newer connection took over"),
            Lost::Session => End::Leave(LeaveReason::Replaced, "the worker has lost its session"),
        }
    }

    async fn serve(&mut self, mut arrivals: mpsc::Receiver<Arrival>) -> End {
        let replies = self.replies.clone();
        let mut paused = self.shared.paused.clone();
        let mut tick = tokio::time::interval(REPORT_INTERVAL);
        loop {
            let step = tokio::select! {
                () = replies.closed() => return End::Gone,
                arrival = arrivals.recv() => match arrival {
                    Some(Arrival::Block(block)) => self.take(*block).await,
                    Some(Arrival::Report(report)) => {
                        self.report = Some(report);
                        Ok(())
                    }
                    Some(Arrival::Broken(status)) => return broken(status),
                    Some(Arrival::Done) | None => return self.finish().await,
                },
                Some(end) = self.placing.join_next() => self.placed(end).await,
                Some(end) = self.registering.join_next() => self.registered(end).await,
                Ok(()) = paused.changed() => {
                    let now = paused.borrow_and_update().contains(&self.data.agent);
                    self.give_orders(now).await
                }
                _ = tick.tick() => {
                    self.keep_report();
                    Ok(())
                }
            };
            if let Err(end) = step {
                return end;
            }
        }
    }

    /// Answers what is under way; nothing more comes.
    async fn finish(&mut self) -> End {
        let answered = tokio::time::timeout(LAST_ANSWERS, async {
            while !self.lanes.values().all(Lane::is_idle) {
                let step = tokio::select! {
                    Some(end) = self.placing.join_next() => self.placed(end).await,
                    Some(end) = self.registering.join_next() => self.registered(end).await,
                    else => return Ok(()),
                };
                step?;
            }
            Ok(())
        });
        match answered.await {
            Ok(Err(end)) => end,
            Ok(Ok(())) | Err(_) => End::Gone,
        }
    }

    async fn say(&self, message: Message) -> Result<(), End> {
        let reply = ShipReply {
            message: Some(message),
        };
        match tokio::time::timeout(SLOW_READER, self.replies.send(Ok(reply))).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_)) | Err(_) => Err(End::Gone),
        }
    }

    async fn refuse(
        &self,
        dataset: &Name,
        sequence: u64,
        why: BlockRefusal,
        message: &str,
    ) -> Result<(), End> {
        let refused = BlockRefused {
            dataset: dataset.to_string(),
            sequence,
            why: why.into(),
            message: message.to_string(),
        };
        self.say(Message::Refused(refused)).await
    }

    async fn acknowledge(&self, dataset: &Name, sequence: u64, placed: Vec<Placed>) -> Result<(), End> {
        let incarnation = self.lanes.get(dataset).and_then(Lane::incarnation);
        let stored = Stored {
            dataset: dataset.to_string(),
            sequence,
            incarnation: welcome::bytes(incarnation),
            placed,
        };
        self.say(Message::Stored(stored)).await
    }

    async fn take(&mut self, arrived: Arrived) -> Result<(), End> {
        let (dataset, sequence) = (arrived.dataset.clone(), arrived.header.sequence);
        if !self.peer.may_ship_to(&dataset) {
            let message = format!("{} may not ship to dataset {dataset}", self.peer);
            return self
                .refuse(&dataset, sequence, BlockRefusal::NotAllowed, &message)
                .await;
        }
        if self.lanes.len() >= MOST_LANES && !self.lanes.contains_key(&dataset) {
            let message = format!("an agent ships to at most {MOST_LANES} datasets");
            return self
                .refuse(&dataset, sequence, BlockRefusal::NotAllowed, &message)
                .await;
        }
        let lane = self
            .lanes
            .entry(dataset.clone())
            .or_insert_with(|| Lane::new(0, None));
        match lane.arrive(sequence, arrived.room.window) {
            Intake::Known => {
                let mark = lane.registered();
                self.acknowledge(&dataset, mark, Vec::new()).await
            }
            Intake::UnderWay => Ok(()),
            Intake::Gap => {
                let message = format!("block {sequence} does not follow the last one");
                self.refuse(&dataset, sequence, BlockRefusal::Order, &message)
                    .await
            }
            Intake::Store(attempt) => {
                let block = blocks::Block {
                    shipment: self.shipment(&dataset),
                    attempt,
                    header: arrived.header,
                    bytes: arrived.bytes,
                    memory: arrived.room.memory,
                };
                let (store, puts) = (self.shared.store.clone(), Arc::clone(&self.shared.puts));
                self.placing.spawn(block.place(store, puts));
                Ok(())
            }
        }
    }

    async fn give_orders(&mut self, paused: bool) -> Result<(), End> {
        if self.paused == paused {
            return Ok(());
        }
        self.paused = paused;
        self.say(Message::Orders(Orders { paused })).await
    }

    fn keep_report(&mut self) {
        while self.reporting.try_join_next().is_some() {}
        let Some(report) = self.report.take_if(|_| self.reporting.is_empty()) else {
            return;
        };
        let (store, data) = (self.shared.store.clone(), self.data.clone());
        self.reporting.spawn(async move {
            let load = load(&report);
            if let Err(failure) = store.note_agent_load(&data.agent, data.instance, &load).await {
                tracing::debug!(agent = %data.agent, "the report of an agent was not kept: {failure}");
            }
        });
    }

    async fn release(&self) {
        if let Err(failure) = self.worker.release(&self.data).await {
            tracing::debug!(agent = %self.data.agent, "an agent is let go of with the session: {failure}");
        }
    }
}

/// The report of an agent, as it is kept.
pub fn load(report: &AgentReport) -> AgentLoad {
    AgentLoad {
        lag_bytes: report.lag_bytes,
        lag_ms: report.lag_ms,
        spool_bytes: report.spool_bytes,
        spool_full: report.spool_full,
        files: report.files,
        rate: report.rate,
    }
}

/// An agent that breaks the connection has gone; what it did wrong is told.
fn broken(status: Status) -> End {
    match api::reason(&status) {
        Some(_) => End::Status(status),
        None => End::Gone,
    }
}

/// What an agent is told that is not held.
pub fn refused(why: &Refusal) -> Status {
    let (code, reason) = match why {
        Refusal::OtherInstance { .. } => (Code::AlreadyExists, "NAME_TAKEN"),
        Refusal::Newer { .. } => (Code::Aborted, "REPLACED"),
        Refusal::NotOffered => (Code::FailedPrecondition, "NOT_OFFERED"),
        Refusal::Unreadable { .. } => (Code::FailedPrecondition, "UNREADABLE"),
    };
    refusal(code, reason, why.to_string(), [])
}

/// A store that is away: to be tried again, also elsewhere.
pub fn unavailable(store: &str, failure: &dyn std::fmt::Display) -> Status {
    let message = format!("{store} is not to be had: {failure}");
    refusal(Code::Unavailable, "STORE_AWAY", message, [])
}
