//! Which methods take a place of which kind: with none left, each is refused before it does anything.

use api::{
    transport::Security,
    v1::{
        self, admin_server::Admin as _, catalog_server::Catalog as _, queue_server::Queue as _,
        registry_server::Registry as _, worker_server::Worker as _,
    },
};
use control::Control;
use testkit::Space;
use tokio_util::sync::CancellationToken;
use tonic::Request;

use super::*;
use crate::{
    admin, catalog,
    feed::Feeds,
    journal,
    queue::{self, SHORT_LIST},
    registry,
    session::Session,
    worker,
};

/// Why a request is refused.
macro_rules! reason {
    ($service:expr, $method:ident, $message:expr) => {{
        let refused = $service.$method(Request::new($message)).await.err();
        let reason = refused.as_ref().and_then(api::reason);
        (stringify!($method), reason)
    }};
}

#[tokio::test]
async fn every_method_that_costs_much_takes_a_place() {
    let space = Space::new().await;
    let files = tempfile::tempdir().unwrap();
    let objects = format!("file://{}", files.path().display());
    let store = storage::Store::open(&storage::Config::new(space.mongodb(), objects))
        .await
        .unwrap();
    let zookeeper = coordination::Config {
        connect: space.zookeeper(),
        ..Default::default()
    };
    let control = Control::open(zookeeper, store.clone());
    let stop = CancellationToken::new();
    let feeds = Feeds::new(stop.clone(), PATIENCE);
    let (journal, _writer) = journal::open(control.clone());
    let room = Room::default();
    let queue = queue::Service::new(control.clone(), feeds.clone(), room.clone(), journal.clone());
    let catalog = catalog::Service::new(control.clone(), feeds.clone(), room.clone(), journal);
    let registry = registry::Service::new(
        control.clone(),
        Session::default(),
        store,
        room.clone(),
        "localhost:1".into(),
        stop,
    );
    let worker = worker::Service::new(control.clone(), room.clone(), Security::Plain);
    let admin = admin::Service::new(control, feeds, room.clone());
    let job = || v1::JobReference {
        reference: "last".into(),
    };
    let task = || v1::TaskRequest {
        task: "node/1".into(),
    };
    let question = || v1::Question {
        sql: "SELECT count(*) FROM access".into(),
        ..Default::default()
    };

    // Nobody waits for what is closed.
    room.looks.all.close();
    let mut reasons = vec![
        reason!(registry, status, v1::StatusRequest::default()),
        reason!(registry, audit, v1::AuditRequest::default()),
        reason!(registry, list_workers, v1::ListWorkersRequest::default()),
        reason!(registry, list_agents, v1::ListAgentsRequest::default()),
        reason!(queue, obstacles, job()),
        reason!(worker, get_task, task()),
        reason!(worker, stop_task, task()),
        reason!(worker, list_tasks, v1::ListTasksRequest::default()),
    ];
    room.lists.all.close();
    let blocks = v1::ListBlocksRequest {
        dataset: "access".into(),
        limit: SHORT_LIST + 1,
    };
    let jobs = v1::ListJobsRequest {
        limit: Some(SHORT_LIST + 1),
        ..Default::default()
    };
    reasons.extend([
        reason!(queue, list_jobs, jobs),
        reason!(catalog, list_datasets, v1::ListDatasetsRequest::default()),
        reason!(catalog, list_views, v1::ListViewsRequest::default()),
        reason!(catalog, list_blocks, blocks),
        reason!(admin, list_tokens, v1::ListTokensRequest::default()),
        reason!(admin, list_changes, v1::ListChangesRequest::default()),
    ]);
    room.planning.all.close();
    let described = v1::GetDatasetRequest {
        name: "access".into(),
        describe: true,
    };
    reasons.extend([
        reason!(queue, sample_job, job()),
        reason!(catalog, get_dataset, described),
        reason!(catalog, ask, question()),
        reason!(catalog, explain, question()),
    ]);
    room.answers.all.close();
    let head = v1::HeadRequest {
        dataset: "access".into(),
        ..Default::default()
    };
    let view = v1::ViewReference {
        name: "perhour".into(),
    };
    reasons.extend([reason!(catalog, head, head), reason!(catalog, view_answer, view)]);
    room.outputs.all.close();
    let output = v1::TaskOutputRequest {
        task: "node/1".into(),
        ..Default::default()
    };
    reasons.push(reason!(worker, task_output, output));
    for (method, reason) in reasons {
        assert_eq!(reason.as_deref(), Some("NO_ROOM"), "{method}");
    }
}
