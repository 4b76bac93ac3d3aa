//! What an agent is told at first: which mill this is, and how far its numberings are registered.

use std::collections::{BTreeMap, BTreeSet};

use api::{
    refusal,
    v1::{Orders, Registered, ShipHello, Welcome, ship_reply::Message},
};
use model::{Name, place::Placement};
use pki::Peer;
use storage::{AgentSeen, LaneMark, Shipment, Store};
use tonic::{Code, Status, codegen::Bytes};
use uuid::Uuid;

use super::{Session, unavailable};
use crate::{hello, lane::Lane};

/// A UUID as it is sent; nothing for none.
pub(super) fn bytes(uuid: Option<Uuid>) -> Bytes {
    uuid.map_or_else(Bytes::new, |uuid| Bytes::copy_from_slice(uuid.as_bytes()))
}

fn away(failure: storage::Error) -> Status {
    unavailable("MongoDB", &failure)
}

/// Whether what ships files once can be taken at all, asked before it reads any of them.
///
/// # Errors
/// PERMISSION_DENIED, FAILED_PRECONDITION, INVALID_ARGUMENT.
pub(super) async fn check_once(store: &Store, ship: &ShipHello, peer: &Peer) -> Result<(), Status> {
    let datasets = ship.agent.as_ref().map(hello::datasets).unwrap_or_default();
    if let Some(dataset) = datasets.iter().find(|dataset| !peer.may_ship_to(dataset)) {
        return Err(refusal(
            Code::PermissionDenied,
            api::NOT_ALLOWED,
            format!("{peer} may not ship to dataset {dataset}"),
            [("dataset", dataset.to_string())],
        ));
    }
    let Some(placement) = ship.placement.clone() else {
        return Ok(());
    };
    let placement = Placement::try_from(placement)
        .map_err(|error| refusal(Code::InvalidArgument, "BAD_HELLO", error.to_string(), []))?;
    let checked = store.check_placement(&placement).await;
    checked.map_err(|error| refusal(Code::FailedPrecondition, api::NO_NODE, error.to_string(), []))
}

impl Session {
    /// Tells the agent what it needs to know before it sends anything.
    pub(super) async fn welcome(&mut self, ship: &ShipHello) -> Result<(), Status> {
        let store = self.shared.store.clone();
        let agent = ship.agent.as_ref();
        let datasets = agent.map(hello::datasets).unwrap_or_default();
        let seen = AgentSeen {
            agent: self.data.agent.clone(),
            instance: self.data.instance,
            incarnation: self.data.incarnation,
            host: self.data.host.clone(),
            version: self.data.version.clone(),
            protocol: api::PROTOCOL,
            zone: self.data.zone.clone(),
            worker: Some((self.worker.number().0, self.shared.node.clone())),
            datasets: datasets.clone(),
            once: ship.once,
        };
        store.note_agent(&seen).await.map_err(away)?;
        let known = store.agent(&self.data.agent).await.map_err(away)?;
        let mill = store.mill().await.map_err(away)?;
        let welcome = Welcome {
            window: self.shared.limits.window_bytes,
            registered: self.registered_of(ship, datasets).await?,
            node: self.shared.node.to_string(),
            mill: bytes(Uuid::parse_str(mill).ok()),
        };
        let gone = |_| Status::cancelled("the agent has gone");
        self.say(Message::Welcome(welcome)).await.map_err(gone)?;
        if known.is_some_and(|known| known.paused) {
            self.paused = true;
            self.say(Message::Orders(Orders { paused: true }))
                .await
                .map_err(gone)?;
        }
        Ok(())
    }

    /// How far each dataset is registered that the agent tells of and may ship to; opens their lanes. A numbering of which more
    /// was acknowledged than is there ends. One that tells of none learns of all that it has shipped to.
    async fn registered_of(
        &mut self,
        ship: &ShipHello,
        datasets: Vec<Name>,
    ) -> Result<Vec<Registered>, Status> {
        let store = self.shared.store.clone();
        let marks = store.marks(&self.data.agent, self.data.instance).await;
        let mut marks: BTreeMap<Name, LaneMark> = marks
            .map_err(away)?
            .into_iter()
            .map(|mark| (mark.dataset.clone(), mark))
            .collect();
        if ship.acknowledged.len() > hello::MOST_DATASETS {
            let message = format!("more than {} datasets", hello::MOST_DATASETS);
            return Err(refusal(Code::InvalidArgument, "BAD_HELLO", message, []));
        }
        if !datasets.is_empty() || !ship.acknowledged.is_empty() {
            let told = ship.acknowledged.iter().map(|told| told.dataset.as_str());
            let told: BTreeSet<&str> = told.chain(datasets.iter().map(Name::as_str)).collect();
            marks.retain(|dataset, _| told.contains(dataset.as_str()));
        }
        for told in &ship.acknowledged {
            let Ok(dataset) = Name::new(told.dataset.as_str()) else {
                continue;
            };
            // What it may not ship to it may not end either.
            if !self.peer.may_ship_to(&dataset) {
                continue;
            }
            if let Some(numbering) = hello::uuid(&told.numbering)? {
                self.numberings.insert(dataset.clone(), numbering);
            }
            let shipment = self.shipment(&dataset);
            let ended = store.end_numbering(&shipment, told.sequence).await;
            marks.insert(dataset, ended.map_err(away)?);
        }
        for dataset in datasets {
            marks.entry(dataset.clone()).or_insert(LaneMark {
                dataset,
                registered: 0,
                incarnation: None,
                next: None,
            });
        }
        let mut registered = Vec::with_capacity(marks.len());
        marks.retain(|dataset, _| self.peer.may_ship_to(dataset));
        for (dataset, mark) in marks {
            registered.push(self.open_lane(dataset, &mark).await?);
        }
        Ok(registered)
    }

    async fn open_lane(&mut self, dataset: Name, mark: &LaneMark) -> Result<Registered, Status> {
        let store = self.shared.store.clone();
        let mut now = mark.clone();
        if let Some(next) = mark.next {
            tracing::warn!(
                agent = %self.data.agent, %dataset, registered = mark.registered,
                "more blocks were acknowledged to an agent than are registered, as after a restore: it begins another numbering"
            );
            self.numberings.insert(dataset.clone(), next);
            let shipment: Shipment = self.shipment(&dataset);
            now = store.lane_mark(&shipment).await.map_err(away)?;
        }
        let current = store.get(&dataset).await.map_err(away)?;
        let registered = Registered {
            dataset: dataset.to_string(),
            sequence: mark.registered,
            incarnation: bytes(mark.incarnation),
            current: bytes(current.map(|current| current.id)),
            next: bytes(mark.next),
            next_sequence: if mark.next.is_some() { now.registered } else { 0 },
        };
        let lane = Lane::new(now.registered, now.incarnation);
        self.lanes.insert(dataset, lane);
        Ok(registered)
    }
}
