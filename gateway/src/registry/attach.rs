//! Agents that have no worker: each is held in `/unowned` for as long as its stream lives, and told what the leader decides.

use std::time::Duration;

use api::{
    refusal,
    transport::peer,
    v1::{self, AttachReply, AttachRequest, attach_reply, attach_request},
};
use coordination::{Attached, Attachment, Change, Term, clients};
use futures::stream::BoxStream;
use model::znode::ClientData;
use storage::{AgentSeen, Store};
use tokio::{sync::mpsc, task::JoinSet};
use tokio_stream::{StreamExt as _, wrappers::ReceiverStream};
use tokio_util::sync::CancellationToken;
use tonic::{Code, Request, Response, Status, Streaming};

use super::Service;

/// How long an agent may take to say who it is.
const HELLO_TIME: Duration = Duration::from_secs(10);
/// Replies that wait to be sent to one agent.
const REPLIES: usize = 8;
/// How long an agent may leave a reply unread.
const SLOW_READER: Duration = Duration::from_secs(30);
/// How often it is looked whether a user has paused the agent.
const ORDERS_INTERVAL: Duration = Duration::from_secs(2);

/// How long it may take to note that an agent was seen.
const NOTE_TIME: Duration = Duration::from_secs(5);
/// How long that look may take: offers wait for it.
const ORDERS_TIME: Duration = Duration::from_millis(300);

type Replies = mpsc::Sender<Result<AttachReply, Status>>;

/// Holds an agent in `/unowned` for as long as its stream lives, and passes on what the leader decides.
///
/// # Errors
/// Without ZooKeeper; for a hello that is none, or of another than the peer.
pub(super) async fn attach(
    service: &Service,
    request: Request<Streaming<AttachRequest>>,
) -> Result<Response<BoxStream<'static, Result<AttachReply, Status>>>, Status> {
    let Some(term) = service.session.term() else {
        return Err(ingest::unavailable(
            "ZooKeeper",
            &"this dispatcher has no session",
        ));
    };
    let peer = peer(&request);
    let mut stream = request.into_inner();
    let hello = first(&mut stream).await?;
    let data = ingest::client_data(&hello, &peer)?;
    if let Err(status) = ingest::check_protocol(&hello) {
        // Told to the agent, and to who looks for those that are out of step.
        note(&service.store, seen(&data, &hello)).await;
        return Err(status);
    }
    // While MongoDB is away the worker looks.
    if let Ok(Ok(mill)) = tokio::time::timeout(ORDERS_TIME, service.store.mill()).await {
        ingest::check_mill(&hello, mill)?;
    }
    let (replies, heard) = mpsc::channel(REPLIES);
    let waiting = Waiting {
        seen: seen(&data, &hello),
        data,
        store: service.store.clone(),
        name: service.name.clone(),
        replies,
        reporting: JoinSet::new(),
        report: None,
        paused: false,
    };
    let stop = service.stop.clone();
    // On its own, so that it lets go of the agent however the connection ends.
    service.sessions.spawn(waiting.hold(term, stream, stop));
    Ok(Response::new(Box::pin(ReceiverStream::new(heard))))
}

async fn first(stream: &mut Streaming<AttachRequest>) -> Result<v1::AgentHello, Status> {
    let bad = |code, message: &str| refusal(code, "BAD_HELLO", message, []);
    let message = tokio::time::timeout(HELLO_TIME, stream.message())
        .await
        .map_err(|_| bad(Code::DeadlineExceeded, "no hello came"))??;
    match message.and_then(|message| message.message) {
        Some(attach_request::Message::Hello(hello)) => Ok(hello),
        _ => Err(bad(Code::InvalidArgument, "the first message is no hello")),
    }
}

/// An agent without a worker.
struct Waiting {
    data: ClientData,
    seen: AgentSeen,
    store: Store,
    /// How this dispatcher is called.
    name: String,
    replies: Replies,
    reporting: JoinSet<()>,
    report: Option<v1::AgentReport>,
    paused: bool,
}

/// The agent has gone, or reads nothing.
struct Gone;

impl Waiting {
    async fn hold(mut self, term: Term, stream: Streaming<AttachRequest>, stop: CancellationToken) {
        let attached = match clients::attach(&term, &self.data).await {
            Ok(Attachment::Attached(attached)) => attached,
            Ok(Attachment::Refused(why)) => {
                tracing::info!(agent = %self.data.agent, "an agent is refused: {why}");
                return self.end(ingest::refused(&why)).await;
            }
            Err(failure) => return self.end(ingest::unavailable("ZooKeeper", &failure)).await,
        };
        tracing::info!(agent = %self.data.agent, "an agent waits for a worker");
        let mut attached = *attached;
        let over = term.ended();
        tokio::select! {
            biased;
            () = stop.cancelled() => self.end(Status::unavailable("this dispatcher stops")).await,
            () = over.cancelled() => self.end(ingest::unavailable("ZooKeeper", &"the session is over")).await,
            _ = self.serve(&mut attached, stream) => {}
        }
        if let Err(failure) = attached.detach().await {
            tracing::debug!(agent = %self.data.agent, "an agent is let go of with the session: {failure}");
        }
    }

    async fn end(&self, status: Status) {
        let _ = tokio::time::timeout(SLOW_READER, self.replies.send(Err(status))).await;
    }

    async fn serve(
        &mut self,
        attached: &mut Attached,
        mut stream: Streaming<AttachRequest>,
    ) -> Result<(), Gone> {
        let dispatcher = self.name.clone();
        self.say(attach_reply::Message::Attached(v1::Attached { dispatcher }))
            .await?;
        self.note_seen();
        let replies = self.replies.clone();
        let mut orders = tokio::time::interval(ORDERS_INTERVAL);
        loop {
            tokio::select! {
                () = replies.closed() => return Ok(()),
                changed = attached.changed() => match changed {
                    Ok(Change::Offered(offer)) => {
                        let offer = v1::WorkerOffer {
                            worker: offer.worker,
                            node: offer.node.to_string(),
                            endpoint: offer.endpoint,
                        };
                        self.say(attach_reply::Message::Offer(offer)).await?;
                    }
                    Ok(Change::Gone) => return Ok(()),
                    Err(failure) if failure.is_retryable() => {
                        tokio::time::sleep(Duration::from_millis(100)).await;
                    }
                    Err(failure) => {
                        self.end(ingest::unavailable("ZooKeeper", &failure)).await;
                        return Ok(());
                    }
                },
                message = stream.next() => match message {
                    Some(Ok(AttachRequest { message: Some(attach_request::Message::Report(report)) })) => {
                        self.report = Some(report);
                        self.keep_report();
                    }
                    Some(Ok(_)) => {
                        self.end(refusal(Code::InvalidArgument, "BAD_HELLO", "a second hello", [])).await;
                        return Ok(());
                    }
                    Some(Err(_)) | None => return Ok(()),
                },
                _ = orders.tick() => {
                    self.keep_report();
                    self.look_for_orders().await?;
                }
            }
        }
    }

    async fn say(&self, message: attach_reply::Message) -> Result<(), Gone> {
        let reply = AttachReply {
            message: Some(message),
        };
        match tokio::time::timeout(SLOW_READER, self.replies.send(Ok(reply))).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_)) | Err(_) => Err(Gone),
        }
    }

    /// In the background: an agent gets its worker also while MongoDB is away.
    fn note_seen(&mut self) {
        let (store, seen) = (self.store.clone(), self.seen.clone());
        self.reporting.spawn(async move { note(&store, seen).await });
    }

    /// Keeps the latest report, one at a time.
    fn keep_report(&mut self) {
        while self.reporting.try_join_next().is_some() {}
        let Some(report) = self.report.take_if(|_| self.reporting.is_empty()) else {
            return;
        };
        let (store, load) = (self.store.clone(), ingest::load(&report));
        let (agent, instance) = (self.data.agent.clone(), self.data.instance);
        self.reporting.spawn(async move {
            if let Err(failure) = store.note_agent_load(&agent, instance, &load).await {
                tracing::debug!(%agent, "the report of an agent was not kept: {failure}");
            }
        });
    }

    async fn look_for_orders(&mut self) -> Result<(), Gone> {
        let looked = tokio::time::timeout(ORDERS_TIME, self.store.agent(&self.data.agent)).await;
        let Ok(Ok(Some(known))) = looked else {
            return Ok(());
        };
        let paused = known.paused;
        if paused != self.paused {
            self.paused = paused;
            self.say(attach_reply::Message::Orders(v1::Orders { paused }))
                .await?;
        }
        Ok(())
    }
}

fn seen(data: &ClientData, hello: &v1::AgentHello) -> AgentSeen {
    AgentSeen {
        agent: data.agent.clone(),
        instance: data.instance,
        incarnation: data.incarnation,
        host: data.host.clone(),
        version: data.version.clone(),
        protocol: hello.protocol,
        zone: data.zone.clone(),
        worker: None,
        datasets: ingest::datasets(hello),
        once: hello.once,
    }
}

async fn note(store: &Store, seen: AgentSeen) {
    let noted = tokio::time::timeout(NOTE_TIME, store.note_agent(&seen)).await;
    if let Ok(Err(failure)) = noted {
        tracing::debug!(agent = %seen.agent, "an agent was not noted: {failure}");
    }
}
