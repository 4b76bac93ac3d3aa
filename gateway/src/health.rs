//! What the health service says: SERVING while the stores answer.

use std::{convert::Infallible, time::Duration};

use storage::Store;
use tokio::time::{sleep, timeout};
use tonic_health::{ServingStatus, server::HealthReporter};

use crate::session::Session;

/// How often the stores are asked.
const INTERVAL: Duration = Duration::from_secs(1);
/// How long MongoDB may take.
const PATIENCE: Duration = Duration::from_secs(2);
/// The services whose health is told by name; the empty name stands for all.
const SERVICES: [&str; 5] = [
    "",
    "sawmill.v1.Catalog",
    "sawmill.v1.Queue",
    "sawmill.v1.Registry",
    "sawmill.v1.Worker",
];

/// Until the stores have answered once.
pub(crate) async fn begin(health: &HealthReporter) {
    set(health, ServingStatus::NotServing).await;
}

async fn set(health: &HealthReporter, status: ServingStatus) {
    for service in SERVICES {
        health.set_service_status(service, status).await;
    }
}

/// Keeps the health up to date, until it is dropped.
pub(crate) async fn watch(store: &Store, session: &Session, health: &HealthReporter) -> Infallible {
    let mut told = None;
    loop {
        let mongodb = timeout(PATIENCE, store.ping()).await;
        let zookeeper = session.term().is_some_and(|term| term.is_connected());
        let status = match (mongodb, zookeeper) {
            (Ok(Ok(())), true) => ServingStatus::Serving,
            _ => ServingStatus::NotServing,
        };
        if told != Some(status) {
            set(health, status).await;
            tracing::info!(%status, "health");
            told = Some(status);
        }
        sleep(INTERVAL).await;
    }
}
