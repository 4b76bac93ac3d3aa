//! A gateway in this process over real stores: what any client finds there.
#![allow(clippy::unwrap_used)]

use std::time::Duration;

use api::{
    transport::{self, Security},
    v1::{self, queue_client::QueueClient},
};
use control::Control;
use futures::{StreamExt as _, stream};
use gateway::{Config, Gateway, Limits, Parts};
use testkit::{Space, wait};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tonic::{Code, transport::Channel};
use tonic_health::pb::{
    HealthCheckRequest, health_check_response::ServingStatus, health_client::HealthClient,
};
use tonic_reflection::pb::v1::{
    ServerReflectionRequest, server_reflection_client::ServerReflectionClient,
    server_reflection_request::MessageRequest, server_reflection_response::MessageResponse,
};

const SOON: Duration = Duration::from_secs(30);

struct Served {
    _space: Space,
    _files: tempfile::TempDir,
    channel: Channel,
    stop: CancellationToken,
    running: JoinHandle<Result<(), gateway::Error>>,
}

async fn serve(limits: Limits) -> Served {
    let space = Space::new().await;
    let files = tempfile::tempdir().unwrap();
    let store = format!("file://{}", files.path().join("store").display());
    let store = storage::Store::open(&storage::Config::new(space.mongodb(), store))
        .await
        .unwrap();
    store.init().await.unwrap();
    let zookeeper = coordination::Config {
        connect: space.zookeeper(),
        ..Default::default()
    };
    let control = Control::open(zookeeper, store);
    let config = Config {
        listen: "127.0.0.1:0".into(),
        advertise: None,
        host: "localhost".into(),
        security: Security::Plain,
        limits,
    };
    let gateway = Gateway::bind(config).await.unwrap();
    let channel = gateway.address();
    let stop = CancellationToken::new();
    let running = tokio::spawn(gateway.run(Parts { control }, stop.clone()));
    let channel = transport::connect(&channel, &Security::Plain).await.unwrap();
    Served {
        _space: space,
        _files: files,
        channel,
        stop,
        running,
    }
}

impl Served {
    async fn stop(self) {
        self.stop.cancel();
        let ended = tokio::time::timeout(SOON, self.running).await;
        ended.expect("it stops").unwrap().unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn it_tells_its_services_and_its_health() {
    let served = serve(Limits::default()).await;
    let mut reflection = ServerReflectionClient::new(served.channel.clone());
    let ask = ServerReflectionRequest {
        host: String::new(),
        message_request: Some(MessageRequest::ListServices(String::new())),
    };
    let answer = reflection
        .server_reflection_info(stream::iter([ask]))
        .await
        .unwrap();
    let answer = answer.into_inner().next().await.unwrap().unwrap();
    let Some(MessageResponse::ListServicesResponse(list)) = answer.message_response else {
        panic!("{answer:?}");
    };
    let names: Vec<&str> = list.service.iter().map(|service| service.name.as_str()).collect();
    for service in ["grpc.health.v1.Health", "sawmill.v1.Queue", "sawmill.v1.Registry"] {
        assert!(names.contains(&service), "{service} is not among {names:?}");
    }

    let health = HealthClient::new(served.channel.clone());
    let serving = async || {
        let mut health = health.clone();
        let asked = HealthCheckRequest {
            service: "sawmill.v1.Queue".into(),
        };
        health.check(asked).await.unwrap().into_inner().status()
    };
    wait::until_equal("the health", SOON, ServingStatus::Serving, serving).await;
    served.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_asks_too_often_is_refused_with_a_reason() {
    let limits = Limits {
        requests_per_second: 1,
        ..Limits::default()
    };
    let served = serve(limits).await;
    let mut queue = QueueClient::new(served.channel.clone());
    let mut codes = Vec::new();
    for _ in 0..4 {
        let asked = v1::JobReference {
            reference: "last".into(),
        };
        codes.push(queue.get_job(asked).await.unwrap_err());
    }
    assert_eq!(codes[0].code(), Code::NotFound);
    assert_eq!(codes[3].code(), Code::ResourceExhausted);
    assert_eq!(api::reason(&codes[3]).as_deref(), Some("TOO_MANY_REQUESTS"));
    served.stop().await;
}
