//! A port on loopback without TLS, over real sockets: it takes who can read the token of its user.
#![allow(clippy::unwrap_used)]

use std::{
    fs,
    time::{Duration, Instant},
};

use api::{
    rights::{Rules, WORKER},
    transport::{self, Channel, Security, bind, connect, token_file},
    v1::{
        GetBlockReply, GetBlockRequest, PutBlockReply, PutBlockRequest,
        blocks_client::BlocksClient,
        blocks_server::{Blocks, BlocksServer},
    },
};
use futures::stream::BoxStream;
use tokio::{sync::oneshot, task::JoinHandle};
use tonic::{Code, Request, Response, Status, Streaming, transport::Endpoint};
use tonic_health::pb::{HealthCheckRequest, health_client::HealthClient};

/// Refuses everything by the name of who asks.
struct Names;

#[tonic::async_trait]
impl Blocks for Names {
    type GetStream = BoxStream<'static, Result<GetBlockReply, Status>>;

    async fn put(
        &self,
        request: Request<Streaming<PutBlockRequest>>,
    ) -> Result<Response<PutBlockReply>, Status> {
        Err(Status::not_found(transport::peer(&request).to_string()))
    }

    async fn get(&self, request: Request<GetBlockRequest>) -> Result<Response<Self::GetStream>, Status> {
        assert!(
            !request.metadata().contains_key("authorization"),
            "the token goes no further"
        );
        Err(Status::not_found(transport::peer(&request).to_string()))
    }
}

struct Served {
    address: String,
    task: JoinHandle<()>,
    stop: oneshot::Sender<()>,
}

impl Served {
    async fn on(address: &str, security: &Security) -> Self {
        let listener = bind(address, security).await.unwrap();
        let address = listener.address().to_string();
        let (_, health) = tonic_health::server::health_reporter();
        let router = transport::server()
            .layer(Rules(WORKER))
            .add_service(health)
            .add_service(BlocksServer::new(Names));
        let (stop, stopped) = oneshot::channel();
        let task = tokio::spawn(async move {
            let stopped = async move { stopped.await.unwrap() };
            let serving = router.serve_with_incoming_shutdown(listener.incoming(), stopped);
            serving.await.unwrap();
        });
        Self { address, task, stop }
    }

    /// Ends its connections, too.
    async fn stop(self) {
        self.stop.send(()).unwrap();
        self.task.await.unwrap();
    }
}

/// Who the server says that we are.
async fn asked(channel: &Channel, token: Option<&str>) -> Result<String, Status> {
    let mut request = Request::new(GetBlockRequest::default());
    if let Some(token) = token {
        let shown = format!("Bearer {token}").parse().unwrap();
        request.metadata_mut().insert("authorization", shown);
    }
    let refused = BlocksClient::new(channel.clone())
        .get(request)
        .await
        .map(drop)
        .unwrap_err();
    match refused.code() {
        Code::NotFound => Ok(refused.message().to_string()),
        _ => Err(refused),
    }
}

/// As other users and programs connect: they can't read the file, or don't know of it.
async fn stranger(address: &str) -> Channel {
    let endpoint = Endpoint::from_shared(format!("http://{address}")).unwrap();
    endpoint.connect().await.unwrap().into()
}

#[tokio::test]
async fn only_who_can_read_the_token_of_the_port_is_let_in() {
    let served = Served::on("127.0.0.1:0", &Security::Plain).await;
    let file = token_file(served.address.parse().unwrap()).unwrap();
    let token = fs::read_to_string(&file).unwrap().trim().to_string();
    let own = connect(&served.address, &Security::Plain).await.unwrap();
    assert_eq!(asked(&own, None).await.unwrap(), "admin local");

    let other = stranger(&served.address).await;
    let refused = asked(&other, None).await.unwrap_err();
    assert_eq!(refused.code(), Code::Unauthenticated);
    assert_eq!(api::reason(&refused).as_deref(), Some("UNAUTHENTICATED"));
    let says = refused.message();
    assert!(
        says.contains(&file.display().to_string()) && says.contains("as that user"),
        "{says}"
    );
    let wrong = token.replace('0', "1");
    for wrong in ["", "nonsense", &wrong, &token[..token.len() - 1]] {
        let refused = asked(&other, Some(wrong)).await.unwrap_err();
        assert_eq!(refused.code(), Code::Unauthenticated, "{wrong}");
    }
    assert_eq!(asked(&other, Some(&token)).await.unwrap(), "admin local");
    // Load balancers have no tokens.
    let mut health = HealthClient::new(other);
    health.check(HealthCheckRequest::default()).await.unwrap();
    // What a caller shows itself counts, and not what is found beside it.
    assert!(asked(&own, Some("nonsense")).await.is_err());
    served.stop().await;
    assert!(!file.exists());
}

#[tokio::test]
async fn a_channel_outlives_its_server_which_comes_back_with_another_token() {
    let served = Served::on("127.0.0.1:0", &Security::Plain).await;
    let address = served.address.clone();
    let file = token_file(address.parse().unwrap()).unwrap();
    let before = fs::read_to_string(&file).unwrap();
    let own = connect(&address, &Security::Plain).await.unwrap();
    assert!(asked(&own, None).await.is_ok());
    served.stop().await;
    let again = Served::on(&address, &Security::Plain).await;
    assert_ne!(fs::read_to_string(&file).unwrap(), before);
    // The old connection may take requests until its end is seen.
    let mut answered = asked(&own, None).await;
    let deadline = Instant::now() + Duration::from_secs(10);
    while answered.is_err() && Instant::now() < deadline {
        tokio::time::sleep(Duration::from_millis(20)).await;
        answered = asked(&own, None).await;
    }
    assert_eq!(answered.unwrap(), "admin local");
    again.stop().await;
}

#[tokio::test]
async fn nobody_is_asked_where_an_operator_says_so() {
    let served = Served::on("127.0.0.1:0", &Security::Open).await;
    assert!(!token_file(served.address.parse().unwrap()).unwrap().exists());
    let other = stranger(&served.address).await;
    assert_eq!(asked(&other, None).await.unwrap(), "admin local");
    let own = connect(&served.address, &Security::Plain).await.unwrap();
    assert_eq!(asked(&own, None).await.unwrap(), "admin local");
    served.stop().await;
}

#[tokio::test]
async fn an_advertised_port_of_loopback_has_the_token_too() {
    let listener = bind("127.0.0.1:0", &Security::Plain).await.unwrap();
    let own = token_file(listener.address()).unwrap();
    let other = "127.77.0.2:1";
    let listener = listener.advertised(Some(other)).unwrap();
    let other = token_file(other.parse().unwrap()).unwrap();
    assert_eq!(
        fs::read_to_string(&other).unwrap(),
        fs::read_to_string(&own).unwrap()
    );
    let listener = listener.advertised(Some("host.example.com:1")).unwrap();
    let listener = listener.advertised(Some("10.0.0.1:1")).unwrap();
    drop(listener);
    assert!(!own.exists() && !other.exists());
}
