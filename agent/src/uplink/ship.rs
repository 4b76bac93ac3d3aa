//! Sending blocks to a worker.

use std::{
    collections::VecDeque,
    sync::Arc,
    time::{Duration, Instant},
};

use api::{
    transport,
    v1::{
        AgentHello, BlockHeader, BlockRefusal, LeaveReason, ShipHello, ShipReply, ShipRequest, WorkerOffer,
        ingest_client::IngestClient, ship_reply, ship_request,
    },
};
use model::Name;
use tokio::{
    sync::mpsc,
    time::{interval, sleep, timeout},
};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::bytes::Bytes;
use tonic::Streaming;
use tracing::{error, info, warn};

use super::{
    Over, Rate, Uplink,
    lanes::{CORRUPT_TRIES, Consequence, Lanes},
    meeting,
};
use crate::spool::Header;

/// Bytes of a message: small enough that others share the connection, and, with what is around them, below the 64 KiB from
/// which on a worker counts each message that is arriving. It counts the block already, and thousands of agents may wait.
const CHUNK_BYTES: usize = 60 << 10;
/// Messages between this task and the connection.
const QUEUE: usize = 32;
/// Longest wait without looking whether an answer is due.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// A stream to a worker that has taken this agent.
pub(super) struct Shipping {
    worker: u64,
    requests: mpsc::Sender<ShipRequest>,
    replies: Streaming<ShipReply>,
    window: u64,
    lanes: Lanes,
    begin: Instant,
    /// What of a block is not sent yet.
    outbox: VecDeque<ShipRequest>,
    /// Why a dataset is given up, once all that was sent of it is answered.
    given_up: Option<(Name, String)>,
}

impl Shipping {
    fn now(&self) -> Duration {
        self.begin.elapsed()
    }

    fn lost(&self, why: impl Into<String>) -> Over {
        Over::Worker {
            worker: self.worker,
            why: format!("worker {}: {}", self.worker, why.into()),
        }
    }
}

impl Uplink {
    /// Goes to the worker that was offered, and learns what it has.
    pub(super) async fn welcome(
        &self,
        hello: &AgentHello,
        offer: &WorkerOffer,
        server: &str,
    ) -> Result<Shipping, Over> {
        let timing = &self.config.timing;
        let worker = offer.worker;
        let failed = |why: String| Over::Worker {
            worker,
            why: format!("worker {worker} ({}) at {}: {why}", offer.node, offer.endpoint),
        };
        let late = |_| failed(format!("no answer within {:?}", timing.connect));
        let connecting = transport::connect(&offer.endpoint, &self.config.security);
        let channel = timeout(timing.connect, connecting)
            .await
            .map_err(late)?
            .map_err(|error| failed(error.to_string()))?;
        let (requests, outgoing) = mpsc::channel(QUEUE);
        let hello = ShipHello {
            agent: Some(hello.clone()),
            worker,
            once: self.once,
            acknowledged: self.acknowledged(),
            // The same nodes are asked for with each file.
            placement: (self.config.keeping.placement("", "", 0))
                .filter(|_| self.once)
                .as_ref()
                .map(Into::into),
        };
        // The queue is empty.
        requests
            .try_send(request(ship_request::Message::Hello(hello)))
            .unwrap_or_default();
        let mut client = IngestClient::new(channel);
        let opening = async {
            let mut replies = client.ship(ReceiverStream::new(outgoing)).await?.into_inner();
            let first = replies.message().await?;
            Ok::<_, tonic::Status>((replies, first.and_then(|reply| reply.message)))
        };
        let opened = timeout(timing.connect, opening).await.map_err(late)?;
        let (replies, first) = opened.map_err(|status| {
            if let Some(other) = self.other_mill(&status, server) {
                return other;
            }
            let why = transport::why(&status);
            match api::reason(&status).as_deref() {
                Some(api::NO_NODE | api::NOT_ALLOWED) if self.once => Over::Refused { worker, why },
                _ => failed(why),
            }
        })?;
        match first {
            Some(ship_reply::Message::Welcome(welcome)) => {
                info!(worker, node = welcome.node, "ships");
                self.meet(&welcome, worker, server).await?;
                Ok(Shipping {
                    worker,
                    requests,
                    replies,
                    window: welcome.window,
                    lanes: Lanes::default(),
                    begin: Instant::now(),
                    outbox: VecDeque::new(),
                    given_up: None,
                })
            }
            Some(ship_reply::Message::Leave(leave)) => Err(Over::Left {
                worker,
                why: leave.why(),
            }),
            _ => Err(failed("it did not say welcome".to_string())),
        }
    }

    /// Sends and listens until it is over.
    pub(super) async fn ship(&self, mut shipping: Shipping) -> Over {
        let over = self.exchange(&mut shipping).await;
        for (dataset, sequence) in shipping.lanes.in_doubt() {
            self.shared.spool.doubt(dataset, sequence);
        }
        match (shipping.given_up, over) {
            (Some(_), Over::Fatal(error)) => Over::Fatal(error),
            (Some((_, why)), _) => Over::Refused {
                worker: shipping.worker,
                why,
            },
            (None, over) => over,
        }
    }

    async fn exchange(&self, shipping: &mut Shipping) -> Over {
        let timing = &self.config.timing;
        let mut rate = Rate::new(&self.shared);
        let mut reports = interval(timing.report.max(Duration::from_millis(1)));
        let requests = shipping.requests.clone();
        let mut is_report_due = false;
        loop {
            // Never between the chunks of a block.
            if is_report_due && shipping.outbox.is_empty() {
                is_report_due = false;
                let report = rate.report(&self.shared, timing.report.as_secs_f64());
                shipping
                    .outbox
                    .push_back(request(ship_request::Message::Report(report)));
            }
            if shipping.outbox.is_empty()
                && let Err(over) = self.fill(shipping).await
            {
                return over;
            }
            if shipping.lanes.longest_wait(shipping.now()) > timing.answer {
                return shipping.lost(format!("no answer to a block within {:?}", timing.answer));
            }
            if let Some((dataset, why)) = &shipping.given_up
                && shipping.lanes.is_answered(dataset)
            {
                return Over::Refused {
                    worker: shipping.worker,
                    why: why.clone(),
                };
            }
            let resume = shipping.lanes.next_resume(shipping.now());
            let pause = resume.map_or(LOOK_EVERY, |at| at.saturating_sub(shipping.now()).min(LOOK_EVERY));
            tokio::select! {
                reply = shipping.replies.message() => match reply {
                    Ok(Some(reply)) => if let Err(over) = self.answered(shipping, reply) {
                        return over;
                    },
                    Ok(None) => return shipping.lost("it ended the stream"),
                    Err(status) => return shipping.lost(transport::why(&status)),
                },
                permit = requests.reserve(), if !shipping.outbox.is_empty() => match permit {
                    Ok(permit) => if let Some(next) = shipping.outbox.pop_front() {
                        permit.send(next);
                    },
                    Err(_) => return shipping.lost("the stream is closed"),
                },
                _ = reports.tick() => is_report_due = true,
                () = self.shared.spool.filled(), if shipping.outbox.is_empty() => {}
                () = sleep(pause) => {}
            }
        }
    }

    /// Puts the next block into the outbox, where there is one and the window has room for it.
    async fn fill(&self, shipping: &mut Shipping) -> Result<(), Over> {
        if self.shared.is_paused() || shipping.given_up.is_some() {
            return Ok(());
        }
        for dataset in self.shared.spool.datasets() {
            let Some(cursor) = shipping.lanes.cursor(&dataset, shipping.now()) else {
                continue;
            };
            let Some(header) = self.shared.spool.next(&dataset, cursor) else {
                continue;
            };
            let in_flight = shipping.lanes.in_flight_bytes();
            if in_flight > 0 && in_flight + header.stored_bytes > shipping.window {
                continue;
            }
            let (spool, wanted) = (Arc::clone(&self.shared.spool), Arc::clone(&header));
            let read = tokio::task::spawn_blocking(move || spool.data(&wanted)).await;
            let data = match read {
                Ok(Ok(data)) => Bytes::from(data),
                // Acknowledged meanwhile, or a disk that fails: looked at again with the next turn.
                Ok(Err(error)) => {
                    warn!(
                        dataset = dataset.as_str(),
                        sequence = header.sequence,
                        "can't read a block: {error}"
                    );
                    continue;
                }
                Err(error) => return Err(Over::Fatal(crate::Error::Panicked(error.to_string()))),
            };
            self.shared.spool.note_sent(&header);
            shipping
                .outbox
                .push_back(request(ship_request::Message::Block(self.header(&header))));
            shipping.outbox.extend(chunks(&data));
            let now = shipping.now();
            shipping
                .lanes
                .sent(&dataset, header.sequence, header.stored_bytes, now);
            return Ok(());
        }
        Ok(())
    }

    fn header(&self, header: &Header) -> BlockHeader {
        let [stored_checksum, raw_checksum] = header.checksums();
        let base = self.shared.spool.lane(&header.dataset).base;
        // As it is wished now, also for what was spooled before.
        let file = header.positions.first();
        let keeping = &self.config.keeping;
        let placement = file.and_then(|file| keeping.placement(&self.config.host, &file.born, file.stream));
        BlockHeader {
            dataset: header.dataset.to_string(),
            sequence: header.sequence.saturating_sub(base),
            stored_bytes: header.stored_bytes,
            raw_bytes: header.raw_bytes,
            lines: header.lines,
            stored_checksum: stored_checksum.into(),
            raw_checksum: raw_checksum.into(),
            read_ms: header.read_ms,
            verify: self.once || self.config.after != crate::After::Keep,
            placement: placement.as_ref().map(Into::into),
        }
    }

    fn answered(&self, shipping: &mut Shipping, reply: ShipReply) -> Result<(), Over> {
        match reply.message {
            Some(ship_reply::Message::Stored(stored)) => {
                let Ok(dataset) = Name::new(stored.dataset.as_str()) else {
                    return Err(shipping.lost("it speaks of a dataset that is none"));
                };
                let spool = &self.shared.spool;
                let base = spool.lane(&dataset).base;
                for placed in &stored.placed {
                    if let Some(block) = spool.block(&dataset, base.saturating_add(placed.sequence)) {
                        self.shared.placed(&block, &placed.nodes);
                    }
                }
                let sequence = base.saturating_add(stored.sequence);
                let incarnation = meeting::uuid(&stored.incarnation);
                // Before the spool is empty: who waits for that must know a dataset that was just made.
                if incarnation.is_some() {
                    self.shared.note_incarnation(&dataset, incarnation);
                }
                let acknowledged = spool.acknowledge(&dataset, sequence, incarnation);
                let bytes = acknowledged.map_err(Over::Fatal)?;
                if incarnation.is_some() {
                    spool.note_incarnation(&dataset, incarnation);
                }
                shipping.lanes.stored(&dataset, sequence);
                if spool.release(&dataset) {
                    warn!(
                        dataset = dataset.as_str(),
                        "the dataset is allowed again: reading goes on"
                    );
                }
                self.shared.registered(bytes);
                Ok(())
            }
            Some(ship_reply::Message::Refused(refused)) => {
                let Ok(dataset) = Name::new(refused.dataset.as_str()) else {
                    return Err(shipping.lost("it speaks of a dataset that is none"));
                };
                let base = self.shared.spool.lane(&dataset).base;
                self.refused(
                    shipping,
                    &dataset,
                    base.saturating_add(refused.sequence),
                    refused.why(),
                    &refused.message,
                )
            }
            Some(ship_reply::Message::Orders(orders)) => {
                self.shared.pause(orders.paused);
                Ok(())
            }
            Some(ship_reply::Message::Leave(leave)) => Err(Over::Left {
                worker: shipping.worker,
                why: match leave.why() {
                    LeaveReason::Unspecified => LeaveReason::Stopping,
                    why => why,
                },
            }),
            Some(ship_reply::Message::Welcome(_)) => Err(shipping.lost("it says welcome twice")),
            None => Ok(()),
        }
    }

    fn refused(
        &self,
        shipping: &mut Shipping,
        dataset: &Name,
        sequence: u64,
        why: BlockRefusal,
        message: &str,
    ) -> Result<(), Over> {
        let now = shipping.now();
        let told = format!(
            "block {sequence} of dataset {dataset} is refused ({}): {message}",
            refusal(why)
        );
        let consequence = shipping.lanes.refused(dataset, sequence, why, now);
        let is_permanent = matches!(why, BlockRefusal::NotAllowed | BlockRefusal::NoNode);
        match consequence {
            Consequence::Again if is_permanent && self.once => {
                shipping.given_up.get_or_insert((dataset.clone(), told));
                Ok(())
            }
            Consequence::Again if why == BlockRefusal::NotAllowed => {
                if self.shared.spool.hold(dataset) {
                    warn!(
                        "{told}; nothing more is read for it until it is allowed, which is asked every minute"
                    );
                }
                Ok(())
            }
            Consequence::Again if why == BlockRefusal::Order => Ok(()),
            Consequence::Again => {
                warn!("{told}; it is sent again");
                Ok(())
            }
            Consequence::GiveUp => {
                if why != BlockRefusal::Order {
                    error!("{told}, {CORRUPT_TRIES} times");
                }
                if self.once {
                    shipping.given_up.get_or_insert((dataset.clone(), told));
                    return Ok(());
                }
                Err(Over::Refused {
                    worker: shipping.worker,
                    why: told,
                })
            }
        }
    }
}

/// Why a block is refused, in words.
fn refusal(why: BlockRefusal) -> &'static str {
    match why {
        BlockRefusal::Corrupt => "it arrived broken",
        BlockRefusal::Store => "the store does not take it now",
        BlockRefusal::Order => "it does not follow the last one",
        BlockRefusal::NotAllowed => "not allowed",
        BlockRefusal::NoNode => "no node keeps it as it is asked for",
        BlockRefusal::Unspecified => "not told why",
    }
}

fn chunks(data: &Bytes) -> impl Iterator<Item = ShipRequest> + use<> {
    let data = data.clone();
    let starts = (0..data.len()).step_by(CHUNK_BYTES);
    starts.map(move |start| {
        let end = (start + CHUNK_BYTES).min(data.len());
        request(ship_request::Message::Chunk(data.slice(start..end)))
    })
}

fn request(message: ship_request::Message) -> ShipRequest {
    ShipRequest {
        message: Some(message),
    }
}
