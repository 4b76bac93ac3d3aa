//! Asking a dispatcher for a worker.

use std::time::Duration;

use api::{
    transport,
    v1::{
        AgentHello, AttachReply, AttachRequest, WorkerOffer, attach_reply, attach_request,
        registry_client::RegistryClient,
    },
};
use tokio::{
    sync::mpsc,
    time::{Instant, interval, sleep_until, timeout},
};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Status, Streaming};
use tracing::debug;

use super::{Over, Rate, Uplink};
use crate::Error;

/// The stream to a dispatcher, which holds the agent while this lives.
pub(super) struct Attached {
    _requests: mpsc::Sender<AttachRequest>,
    _replies: Streaming<AttachReply>,
}

impl Uplink {
    /// Waits at a dispatcher for a worker.
    pub(super) async fn attach(
        &self,
        server: &str,
        hello: &AgentHello,
    ) -> Result<(Attached, WorkerOffer), Over> {
        let timing = &self.config.timing;
        let failed = |why: String| Over::Unattached(format!("dispatcher {server}: {why}"));
        let late = |_| failed(format!("no answer within {:?}", timing.connect));
        let connecting = timeout(timing.connect, transport::connect(server, &self.config.security));
        let channel = connecting
            .await
            .map_err(late)?
            .map_err(|error| match error.is_hopeless() {
                true => Over::Hopeless(error.to_string()),
                false => Over::Unattached(error.to_string()),
            })?;
        let (requests, outgoing) = mpsc::channel(4);
        requests
            .send(request(attach_request::Message::Hello(hello.clone())))
            .await
            .map_err(|_| failed("the stream is closed".to_string()))?;
        let mut client = RegistryClient::new(channel);
        let mut replies = timeout(timing.connect, client.attach(ReceiverStream::new(outgoing)))
            .await
            .map_err(late)?
            .map_err(|status| self.unattached(server, &status, |why| format!("dispatcher {server}: {why}")))?
            .into_inner();
        debug!(server, "asks for a worker");
        let offer = self
            .offered(server, &requests, &mut replies, !hello.avoid.is_empty())
            .await;
        let offer = offer.map_err(|over| match over {
            Over::Unattached(why) => failed(why),
            over => over,
        })?;
        let attached = Attached {
            _requests: requests,
            _replies: replies,
        };
        Ok((attached, offer))
    }

    /// What a refusal means: who ships once does not wait until somebody grants it the right.
    fn unattached(&self, server: &str, status: &Status, place: impl FnOnce(String) -> String) -> Over {
        if let Some(other) = self.other_mill(status, server) {
            return other;
        }
        let why = place(transport::why(status));
        let is_final = matches!(
            status.code(),
            Code::PermissionDenied | Code::Unauthenticated | Code::InvalidArgument
        );
        if self.once && is_final {
            return Over::Fatal(Error::Refused { why });
        }
        Over::Unattached(why)
    }

    async fn offered(
        &self,
        server: &str,
        requests: &mpsc::Sender<AttachRequest>,
        replies: &mut Streaming<AttachReply>,
        avoids: bool,
    ) -> Result<WorkerOffer, Over> {
        let timing = &self.config.timing;
        let patience = Instant::now() + timing.offer;
        let mut rate = Rate::new(&self.shared);
        let mut reports = interval(timing.report.max(Duration::from_millis(1)));
        loop {
            tokio::select! {
                reply = replies.message() => match reply {
                    Ok(Some(AttachReply { message })) => match message {
                        Some(attach_reply::Message::Offer(offer)) => return Ok(offer),
                        Some(attach_reply::Message::Orders(orders)) => self.shared.pause(orders.paused),
                        Some(attach_reply::Message::Attached(attached)) => {
                            debug!(dispatcher = attached.dispatcher, "held by a dispatcher");
                        }
                        None => {}
                    },
                    Ok(None) => return Err(Over::Unattached("it ended the stream".to_string())),
                    Err(status) => return Err(self.unattached(server, &status, |why| why)),
                },
                _ = reports.tick() => {
                    let report = rate.report(&self.shared, timing.report.as_secs_f64());
                    // A full queue means that the next report will do.
                    requests.try_send(request(attach_request::Message::Report(report))).unwrap_or_default();
                }
                () = sleep_until(patience), if avoids || self.once => return Err(Over::NoOffer),
            }
        }
    }
}

fn request(message: attach_request::Message) -> AttachRequest {
    AttachRequest {
        message: Some(message),
    }
}
