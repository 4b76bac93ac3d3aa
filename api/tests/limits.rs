//! What strangers and single identities can take of a port, over real sockets: others always find room.
#![allow(clippy::unwrap_used)]

mod office;

use std::{
    convert::Infallible,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::{Duration, Instant},
};

use api::{
    transport::{self, Calls, Channel, FewFromStrangers, Limits, Security, bind, connect},
    v1::{
        GetBlockReply, GetBlockRequest, PutBlockReply, PutBlockRequest,
        blocks_client::BlocksClient,
        blocks_server::{Blocks, BlocksServer},
    },
};
use futures::{StreamExt as _, stream::BoxStream};
use http_body::Frame;
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpSocket, TcpStream},
    sync::{Notify, mpsc, watch},
    task::JoinHandle,
    time::timeout,
};
use tokio_rustls::{TlsConnector, client::TlsStream};
use tonic::{
    Code, Request, Response, Status, Streaming,
    body::Body,
    codegen::{Bytes, http},
    transport::Endpoint,
};
use tonic_health::pb::{HealthCheckRequest, health_client::HealthClient};
use tower::{Service as _, ServiceExt as _};

use office::{Office, trusting};

/// How long anything is waited for.
const DEADLINE: Duration = Duration::from_secs(20);

/// Longer than any test: for limits that are not to be reached.
const NEVER: Duration = Duration::from_secs(600);

const GET: &str = "/sawmill.v1.Blocks/Get";
const PUT: &str = "/sawmill.v1.Blocks/Put";

/// Most bytes of a message to the service of these tests.
const MESSAGE_BYTES: usize = 1 << 20;

/// Gives, by the key that is asked for, answers that a client may leave unread or that never come.
#[derive(Clone)]
struct Shelf {
    /// Answers that are being made.
    making: Arc<watch::Sender<usize>>,
    go_on: Arc<Notify>,
}

struct Making(Arc<watch::Sender<usize>>);

impl Drop for Making {
    fn drop(&mut self) {
        self.0.send_modify(|making| *making -= 1);
    }
}

fn chunk(bytes: usize) -> Result<GetBlockReply, Status> {
    Ok(GetBlockReply {
        chunk: vec![7; bytes].into(),
        ..Default::default()
    })
}

#[tonic::async_trait]
impl Blocks for Shelf {
    type GetStream = BoxStream<'static, Result<GetBlockReply, Status>>;

    async fn put(
        &self,
        request: Request<Streaming<PutBlockRequest>>,
    ) -> Result<Response<PutBlockReply>, Status> {
        let mut stream = request.into_inner();
        while stream.message().await?.is_some() {}
        Ok(Response::new(PutBlockReply {}))
    }

    async fn get(&self, request: Request<GetBlockRequest>) -> Result<Response<Self::GetStream>, Status> {
        self.making.send_modify(|making| *making += 1);
        let making = Making(Arc::clone(&self.making));
        let go_on = Arc::clone(&self.go_on);
        if request.get_ref().key == "kept" {
            let stream = futures::stream::iter([chunk(MESSAGE_BYTES * 8)]).boxed();
            let mut response: Response<Self::GetStream> = Response::new(stream);
            response.extensions_mut().insert(Arc::new(making));
            return Ok(response);
        }
        let stream: Self::GetStream = match request.get_ref().key.as_str() {
            "endless" => futures::stream::repeat_with(move || {
                let _making = &making;
                chunk(64 << 10)
            })
            .boxed(),
            "one large" => futures::stream::iter([chunk(3 << 20)])
                .chain(futures::stream::once(async move {
                    let _making = making;
                    chunk(1)
                }))
                .boxed(),
            "quiet" => futures::stream::iter([chunk(1)])
                .chain(futures::stream::once(async move {
                    let _making = making;
                    go_on.notified().await;
                    chunk(2)
                }))
                .boxed(),
            _ => futures::stream::iter([chunk(1)]).boxed(),
        };
        Ok(Response::new(stream))
    }
}

/// A port with a health service and a shelf; ends with the test.
struct Served {
    address: String,
    shelf: Shelf,
    office: Office,
    task: JoinHandle<()>,
}

impl Drop for Served {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// A port where tokens are taken, as that of a gateway.
async fn serve(limits: Limits) -> Served {
    let office = Office::new();
    let security = office.tls("d", "sawmill://dispatcher/d1");
    let listener = bind("127.0.0.1:0", &security).await.unwrap();
    let listener = listener.with_limits(limits).taking_tokens();
    let address = listener.address().to_string();
    let (_, health) = tonic_health::server::health_reporter();
    let shelf = Shelf {
        making: Arc::new(watch::channel(0).0),
        go_on: Arc::default(),
    };
    let calls = Calls::new(limits, |_| MESSAGE_BYTES);
    let router = transport::server()
        .layer(FewFromStrangers)
        .layer(calls.clone())
        .add_service(health)
        .add_service(BlocksServer::new(shelf.clone()));
    let task = tokio::spawn(async move {
        tokio::select! {
            served = router.serve_with_incoming(listener.incoming()) => served.unwrap(),
            never = calls.watch() => match never {},
        }
    });
    Served {
        address,
        shelf,
        office,
        task,
    }
}

impl Served {
    async fn as_user(&self, name: &str) -> Channel {
        let uri = format!("sawmill://user/{name}?queue=default");
        self.with(&self.office.tls(name, &uri)).await
    }

    async fn with(&self, security: &Security) -> Channel {
        connect(&self.address, security).await.unwrap()
    }

    /// A connection without a certificate, from an address of this machine.
    async fn without(&self, from: &str) -> TlsStream<TcpStream> {
        self.tries_without(from).await.unwrap()
    }

    async fn tries_without(&self, from: &str) -> std::io::Result<TlsStream<TcpStream>> {
        let mut config = trusting(&self.office).with_no_client_auth();
        config.alpn_protocols = vec![b"h2".to_vec()];
        let socket = TcpSocket::new_v4()?;
        socket.bind(format!("{from}:0").parse().unwrap())?;
        let stream = socket.connect(self.address.parse().unwrap()).await?;
        let name = ServerName::try_from("127.0.0.1").unwrap();
        TlsConnector::from(Arc::new(config)).connect(name, stream).await
    }

    /// A client without a certificate, such as a load balancer.
    async fn balancer(&self, from: &'static str) -> HealthClient<Channel> {
        let stream = self.without(from).await;
        let mut stream = Some(TokioIo::new(stream));
        let connector = tower::service_fn(move |_| {
            let stream = stream.take();
            async move { stream.ok_or_else(|| std::io::Error::other("the connection was closed")) }
        });
        let endpoint = Endpoint::from_static("http://127.0.0.1");
        let channel = endpoint.connect_with_connector(connector).await.unwrap();
        HealthClient::new(channel.into())
    }

    async fn until_made(&self, making: usize) {
        let mut makes = self.shelf.making.subscribe();
        let waited = timeout(DEADLINE, makes.wait_for(|makes| *makes == making)).await;
        let makes = *self.shelf.making.borrow();
        assert!(waited.is_ok(), "{makes} answers are being made, not {making}");
    }
}

async fn healthy(client: &mut HealthClient<Channel>) -> Result<(), Status> {
    let checked = timeout(DEADLINE, client.check(HealthCheckRequest::default()));
    checked.await.unwrap().map(drop)
}

/// Holds a connection as any client of HTTP/2 does, with an answer to each sign of life, until it is closed.
fn hold(mut stream: TlsStream<TcpStream>) -> JoinHandle<()> {
    tokio::spawn(async move {
        let mut begun = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
        begun.extend([0, 0, 0, 4, 0, 0, 0, 0, 0]);
        let held = async {
            stream.write_all(&begun).await?;
            loop {
                let mut head = [0; 9];
                stream.read_exact(&mut head).await?;
                let mut body = vec![0; usize::from(head[1]) << 8 | usize::from(head[2])];
                stream.read_exact(&mut body).await?;
                if head[3] == 6 && head[4] & 1 == 0 {
                    stream.write_all(&[0, 0, 8, 6, 1, 0, 0, 0, 0]).await?;
                    stream.write_all(&body).await?;
                }
            }
        };
        let _closed: std::io::Result<Infallible> = held.await;
    })
}

/// Waits until at least so many of them are closed.
async fn until_closed(held: &[JoinHandle<()>], number: usize) {
    let deadline = Instant::now() + DEADLINE;
    let closed = || held.iter().filter(|held| held.is_finished()).count();
    while closed() < number {
        assert!(
            Instant::now() < deadline,
            "{} of {} were closed",
            closed(),
            held.len()
        );
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

fn get(key: &str) -> GetBlockRequest {
    GetBlockRequest {
        key: key.into(),
        ..Default::default()
    }
}

/// A request of almost as many bytes as there may be.
fn large() -> GetBlockRequest {
    GetBlockRequest {
        node: "n".repeat(MESSAGE_BYTES - 1000),
        ..get("short")
    }
}

/// The body of a request as it is given, piece by piece.
struct Pieces(mpsc::Receiver<Bytes>);

impl http_body::Body for Pieces {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let piece = self.0.poll_recv(context);
        piece.map(|piece| piece.map(|piece| Ok(Frame::data(piece))))
    }
}

/// Begins a message of so many bytes, of which it sends so many; gives what the server says to that.
async fn begin(
    channel: &Channel,
    path: &str,
    declared: u32,
    sent: usize,
) -> (mpsc::Sender<Bytes>, JoinHandle<Status>) {
    let (pieces, body) = mpsc::channel(4);
    let mut first = vec![0];
    first.extend(declared.to_be_bytes());
    first.extend(vec![0; sent]);
    pieces.send(first.into()).await.unwrap();
    let request = http::Request::post(format!("http://127.0.0.1{path}"))
        .version(http::Version::HTTP_2)
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .body(Body::new(Pieces(body)))
        .unwrap();
    let mut channel = channel.clone();
    let calling = tokio::spawn(async move {
        let response = channel.ready().await.unwrap().call(request).await.unwrap();
        Status::from_header_map(response.headers()).unwrap_or_else(|| Status::ok("a body"))
    });
    (pieces, calling)
}

async fn told(calling: JoinHandle<Status>) -> Status {
    timeout(DEADLINE, calling).await.unwrap().unwrap()
}

fn reason(status: &Status) -> String {
    api::reason(status).unwrap_or_else(|| format!("{status}"))
}

#[tokio::test]
async fn idle_strangers_keep_nobody_out() {
    let limits = Limits {
        unknown: 16,
        first_credential: NEVER,
        ..Limits::default()
    };
    let served = serve(limits).await;
    let mut held = Vec::new();
    for _ in 0..40 {
        held.push(hold(served.without("127.0.0.1").await));
    }
    healthy(&mut served.balancer("127.0.0.1").await).await.unwrap();
    let mut anna = BlocksClient::new(served.as_user("anna").await);
    anna.get(get("short")).await.unwrap();
    // Those that are still there are as many as there may be.
    until_closed(&held, 40 - 16).await;
}

#[tokio::test]
async fn connections_that_never_begin_tls_keep_nobody_out() {
    let limits = Limits {
        unknown: 16,
        ..Limits::default()
    };
    let served = serve(limits).await;
    let begun = Instant::now();
    let mut silent = Vec::new();
    for _ in 0..200 {
        silent.push(TcpStream::connect(&served.address).await.unwrap());
    }
    healthy(&mut served.balancer("127.0.0.1").await).await.unwrap();
    let mut anna = BlocksClient::new(served.as_user("anna").await);
    anna.get(get("short")).await.unwrap();
    let waited = begun.elapsed();
    assert!(
        waited < transport::HANDSHAKE,
        "others were waited for: {waited:?}"
    );
}

#[tokio::test]
async fn who_shows_nothing_in_time_is_closed_and_who_asks_for_the_health_is_not() {
    let limits = Limits {
        first_credential: Duration::from_millis(500),
        health_idle: NEVER,
        ..Limits::default()
    };
    let served = serve(limits).await;
    let anna = served.as_user("anna").await;
    let mut balancer = served.balancer("127.0.0.1").await;
    healthy(&mut balancer).await.unwrap();
    let held = [hold(served.without("127.0.0.1").await)];
    until_closed(&held, 1).await;
    healthy(&mut balancer).await.unwrap();
    BlocksClient::new(anna).get(get("short")).await.unwrap();
}

#[tokio::test]
async fn a_flood_from_one_address_pushes_out_nobody_at_another() {
    let limits = Limits {
        unknown: 8,
        first_credential: NEVER,
        ..Limits::default()
    };
    let served = serve(limits).await;
    let mut balancer = served.balancer("127.0.0.2").await;
    let mut held = Vec::new();
    for _ in 0..30 {
        held.push(hold(served.without("127.0.0.1").await));
    }
    until_closed(&held, 30 - 7).await;
    // This one connects once only.
    healthy(&mut balancer).await.unwrap();
}

#[tokio::test]
async fn one_identity_has_its_share_of_connections() {
    let limits = Limits {
        connections_each: 2,
        ..Limits::default()
    };
    let served = serve(limits).await;
    let anna = served.office.tls("anna", "sawmill://user/anna?queue=default");
    let (first, second) = (served.with(&anna).await, served.with(&anna).await);
    let third = served.with(&anna).await;
    for channel in [&first, &second] {
        let mut blocks = BlocksClient::new(channel.clone());
        blocks.get(get("short")).await.unwrap();
    }
    let refused = BlocksClient::new(third.clone())
        .get(get("short"))
        .await
        .unwrap_err();
    assert_eq!(
        (refused.code(), reason(&refused).as_str()),
        (Code::ResourceExhausted, "TOO_MANY_CONNECTIONS")
    );
    assert!(
        refused.message().contains("user anna has 2 connections"),
        "{refused}"
    );
    // The health, and others, have room.
    healthy(&mut HealthClient::new(third.clone())).await.unwrap();
    let mut bert = BlocksClient::new(served.as_user("bert").await);
    bert.get(get("short")).await.unwrap();
    // Once another is closed the same connection has a place.
    drop(first);
    let deadline = Instant::now() + DEADLINE;
    while let Err(refused) = BlocksClient::new(third.clone()).get(get("short")).await {
        assert!(Instant::now() < deadline, "{refused}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test]
async fn one_identity_has_its_share_of_calls_and_the_health_always_answers() {
    let limits = Limits {
        calls_each: 3,
        ..Limits::default()
    };
    let served = serve(limits).await;
    let security = served.office.tls("anna", "sawmill://user/anna?queue=default");
    let anna = served.with(&security).await;
    let mut held = Vec::new();
    for _ in 0..3 {
        let stream = BlocksClient::new(anna.clone()).get(get("quiet")).await.unwrap();
        held.push(stream.into_inner());
    }
    let other = served.with(&security).await;
    let refused = BlocksClient::new(other.clone())
        .get(get("short"))
        .await
        .unwrap_err();
    assert_eq!(
        (refused.code(), reason(&refused).as_str()),
        (Code::ResourceExhausted, "TOO_MANY_CALLS")
    );
    for channel in [&anna, &other] {
        healthy(&mut HealthClient::new(channel.clone())).await.unwrap();
    }
    let mut bert = BlocksClient::new(served.as_user("bert").await);
    bert.get(get("short")).await.unwrap();
    drop(held);
    let deadline = Instant::now() + DEADLINE;
    while let Err(refused) = BlocksClient::new(other.clone()).get(get("short")).await {
        assert!(Instant::now() < deadline, "{refused}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test]
async fn requests_that_do_not_arrive_are_ended() {
    let limits = Limits {
        arrival: Duration::from_millis(300),
        ..Limits::default()
    };
    let served = serve(limits).await;
    let anna = served.as_user("anna").await;
    for (path, sent) in [
        (GET, 0),
        (GET, 1000),
        (PUT, 1000),
        ("/grpc.health.v1.Health/Check", 1),
    ] {
        let (_pieces, calling) = begin(&anna, path, 2000, sent).await;
        let late = told(calling).await;
        assert_eq!(
            (late.code(), reason(&late).as_str()),
            (Code::DeadlineExceeded, "SLOW_SENDER"),
            "{path}, {sent}"
        );
    }
    // A message that is there does not make up for a request that has no end.
    let (_pieces, calling) = begin(&anna, GET, 0, 0).await;
    assert_eq!(reason(&told(calling).await), "SLOW_SENDER");
}

#[tokio::test]
async fn streams_may_be_silent_between_messages() {
    let limits = Limits {
        arrival: Duration::from_millis(200),
        unread: Duration::from_millis(200),
        first_credential: Duration::from_millis(200),
        ..Limits::default()
    };
    let served = serve(limits).await;
    let anna = served.as_user("anna").await;
    // An empty message, a long silence, and another one.
    let (pieces, calling) = begin(&anna, PUT, 0, 0).await;
    let mut quiet = BlocksClient::new(anna.clone())
        .get(get("quiet"))
        .await
        .unwrap()
        .into_inner();
    assert_eq!(quiet.message().await.unwrap().unwrap().chunk.len(), 1);
    let silence = tokio::time::sleep(limits.unread * 5);
    silence.await;
    served.shelf.go_on.notify_one();
    assert_eq!(quiet.message().await.unwrap().unwrap().chunk.len(), 2);
    assert!(quiet.message().await.unwrap().is_none());
    pieces.send(vec![0; 5].into()).await.unwrap();
    drop(pieces);
    let ended = told(calling).await;
    assert_eq!(ended.message(), "a body", "{ended}");
}

#[tokio::test]
async fn what_is_too_large_is_refused_before_it_is_sent() {
    let served = serve(Limits::default()).await;
    let anna = served.as_user("anna").await;
    let most = u32::try_from(MESSAGE_BYTES).unwrap();
    for path in [GET, PUT, "/grpc.health.v1.Health/Check"] {
        let (_pieces, calling) = begin(&anna, path, most + 1, 0).await;
        let refused = told(calling).await;
        assert_eq!(
            (refused.code(), reason(&refused).as_str()),
            (Code::OutOfRange, "TOO_LARGE")
        );
    }
}

#[tokio::test]
async fn unfinished_messages_of_one_identity_take_its_share_of_memory() {
    let limits = Limits {
        message_bytes: 3 << 20,
        message_bytes_each: 1 << 20,
        arrival: Duration::from_secs(1),
        ..Limits::default()
    };
    let served = serve(limits).await;
    let (anna, bert) = (served.as_user("anna").await, served.as_user("bert").await);
    let whole = 1 << 20;
    // One that goes on sending, slowly, is never late.
    let (pieces, first) = begin(&anna, PUT, whole, 1000).await;
    let trickling = tokio::spawn(async move {
        while pieces.send(vec![0].into()).await.is_ok() {
            tokio::time::sleep(limits.arrival / 10).await;
        }
    });
    for path in [GET, PUT] {
        let (_pieces, second) = begin(&anna, path, whole, 1000).await;
        // Small ones have room, and others.
        BlocksClient::new(anna.clone()).get(get("short")).await.unwrap();
        BlocksClient::new(bert.clone()).get(large()).await.unwrap();
        let refused = told(second).await;
        assert_eq!(
            (refused.code(), reason(&refused).as_str()),
            (Code::ResourceExhausted, "NO_ROOM"),
            "{path}"
        );
    }
    trickling.abort();
    first.abort();
    // All of it is given back.
    BlocksClient::new(anna).get(large()).await.unwrap();
}

#[tokio::test]
async fn answers_that_nobody_reads_are_let_go_of() {
    let limits = Limits {
        unread: Duration::from_millis(300),
        ..Limits::default()
    };
    let served = serve(limits).await;
    let anna = served.as_user("anna").await;
    let mut blocks = BlocksClient::new(anna.clone());
    let mut endless = blocks.get(get("endless")).await.unwrap().into_inner();
    served.until_made(1).await;
    served.until_made(0).await;
    // What was sent is there, and then why there is no more.
    let late = loop {
        match timeout(DEADLINE, endless.message()).await.unwrap() {
            Ok(Some(_)) => {}
            Ok(None) => panic!("the answer has an end"),
            Err(status) => break status,
        }
    };
    assert_eq!(reason(&late), "SLOW_READER", "{late}");
    // Who reads gets all, also what is given in pieces.
    let mut large = blocks.get(get("one large")).await.unwrap().into_inner();
    let mut bytes = Vec::new();
    while let Some(reply) = timeout(DEADLINE, large.message()).await.unwrap().unwrap() {
        bytes.push(reply.chunk.len());
        assert!(reply.chunk.iter().all(|byte| *byte == 7));
    }
    assert_eq!(bytes, [3 << 20, 1]);
}

#[tokio::test]
async fn what_is_put_beside_an_answer_stays_until_that_is_read_or_let_go_of() {
    for unread in [Duration::from_millis(300), NEVER] {
        let limits = Limits {
            unread,
            ..Limits::default()
        };
        let served = serve(limits).await;
        let anna = served.as_user("anna").await;
        let mut blocks = BlocksClient::new(anna).max_decoding_message_size(usize::MAX);
        let kept = blocks.get(get("kept")).await.unwrap();
        if unread == NEVER {
            assert_eq!(*served.shelf.making.borrow(), 1);
            let replies: Vec<_> = kept.into_inner().collect().await;
            assert!(replies.iter().all(Result::is_ok));
        }
        served.until_made(0).await;
    }
}

#[tokio::test]
async fn strangers_have_few_calls_at_once() {
    let served = serve(Limits::default()).await;
    let mut balancer = served.balancer("127.0.0.1").await;
    let mut watched = Vec::new();
    for _ in 0..transport::UNKNOWN_CALLS {
        watched.push(balancer.watch(HealthCheckRequest::default()).await.unwrap());
    }
    let refused = balancer.watch(HealthCheckRequest::default()).await.unwrap_err();
    assert_eq!(reason(&refused), "TOO_MANY_CALLS");
    // Another connection is another's.
    healthy(&mut served.balancer("127.0.0.1").await).await.unwrap();
}
