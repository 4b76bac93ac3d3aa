//! A gateway in this process over real stores: what any client finds there.
#![allow(clippy::unwrap_used)]

use std::time::Duration;

use api::{
    transport::{self, Channel, Security},
    v1::{self, JobReference, catalog_client::CatalogClient, job_spec::Processor, queue_client::QueueClient},
};
use control::Control;
use futures::{StreamExt as _, stream};
use gateway::{Config, Gateway, Limits, Parts};
use model::Name;
use pki::{Managed, Peer, Rights, Role};
use testkit::{Space, wait};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tonic::{Code, Request};
use tonic_health::pb::{
    HealthCheckRequest, health_check_response::ServingStatus, health_client::HealthClient,
};
use tonic_reflection::pb::{
    v1::{
        ServerReflectionRequest, server_reflection_client::ServerReflectionClient,
        server_reflection_request::MessageRequest, server_reflection_response::MessageResponse,
    },
    v1alpha,
};

const SOON: Duration = Duration::from_secs(30);

struct Served {
    _space: Space,
    files: tempfile::TempDir,
    control: Control,
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
    let parts = Parts {
        control: control.clone(),
    };
    let running = tokio::spawn(gateway.run(parts, stop.clone()));
    let channel = transport::connect(&channel, &Security::Plain).await.unwrap();
    Served {
        _space: space,
        files,
        control,
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

    // As older clients ask, for a file that describes the services.
    let mut earlier = v1alpha::server_reflection_client::ServerReflectionClient::new(served.channel.clone());
    let ask = v1alpha::ServerReflectionRequest {
        host: String::new(),
        message_request: Some(
            v1alpha::server_reflection_request::MessageRequest::FileContainingSymbol(
                "sawmill.v1.Queue".into(),
            ),
        ),
    };
    let answer = earlier.server_reflection_info(stream::iter([ask])).await.unwrap();
    let answer = answer.into_inner().next().await.unwrap().unwrap();
    assert!(
        matches!(
            answer.message_response,
            Some(v1alpha::server_reflection_response::MessageResponse::FileDescriptorResponse(_))
        ),
        "{answer:?}"
    );

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

impl Served {
    fn queue(&self) -> QueueClient<Channel> {
        QueueClient::new(self.channel.clone())
    }

    fn catalog(&self) -> CatalogClient<Channel> {
        CatalogClient::new(self.channel.clone())
    }

    /// A file of two lines.
    fn file(&self) -> String {
        let path = self.files.path().join("log");
        std::fs::write(&path, "a\nb\n").unwrap();
        path.display().to_string()
    }

    /// `authorization` of a user with these rights.
    async fn token(&self, name: &str, rights: Rights) -> String {
        let peer = Peer {
            role: Role::User,
            name: Name::new(name).unwrap(),
            rights,
        };
        let day = Duration::from_secs(24 * 3600);
        let (token, _) = self.control.create_token(&peer, day, "test").await.unwrap();
        format!("Bearer {}", token.expose())
    }
}

fn adding(dataset: &str, place: String) -> v1::AddFilesRequest {
    v1::AddFilesRequest {
        dataset: dataset.into(),
        places: vec![place],
        ..Default::default()
    }
}

fn over(dataset: &str, processor: Processor) -> v1::SubmitRequest {
    v1::SubmitRequest {
        spec: Some(v1::JobSpec {
            dataset: dataset.into(),
            processor: Some(processor),
            ..Default::default()
        }),
    }
}

/// A request that shows a token.
fn shown<T>(token: &str, message: T) -> Request<T> {
    let mut request = Request::new(message);
    request
        .metadata_mut()
        .insert("authorization", token.parse().unwrap());
    request
}

fn noop() -> Processor {
    Processor::Noop(v1::Noop {})
}

fn command() -> Processor {
    Processor::Command(v1::Command {
        map: "wc -l".into(),
        ..Default::default()
    })
}

fn of(reference: &str) -> JobReference {
    JobReference {
        reference: reference.into(),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn jobs_of_a_stream_are_acknowledged_in_order_up_to_the_first_that_is_refused() {
    let served = serve(Limits::default()).await;
    served
        .catalog()
        .add_files(adding("log", served.file()))
        .await
        .unwrap();
    let wrong = over("nothing", noop());
    let mut asked: Vec<_> = (0..700).map(|_| over("log", noop())).collect();
    asked.push(wrong);
    asked.push(over("log", noop()));
    let acknowledged = served.queue().submit_stream(stream::iter(asked)).await.unwrap();
    let acknowledged: Vec<_> = acknowledged.into_inner().collect().await;
    let (last, jobs) = acknowledged.split_last().unwrap();
    let refused = last.as_ref().unwrap_err();
    assert_eq!(api::reason(refused).as_deref(), Some("NO_SUCH_DATASET"));
    let ids: Vec<String> = jobs.iter().map(|job| job.as_ref().unwrap().job.clone()).collect();
    assert_eq!(ids.len(), 700);
    assert!(ids.is_sorted(), "later jobs have later ids");
    let list = v1::ListJobsRequest {
        limit: Some(u32::MAX),
        ..Default::default()
    };
    let listed = served.queue().list_jobs(list).await.unwrap().into_inner();
    assert_eq!(listed.count().await, 700, "what followed was not submitted");

    // A job is watched from where it stands.
    let mut watched = served.queue().watch_job(of("last")).await.unwrap().into_inner();
    let progress = watched.next().await.unwrap().unwrap();
    assert_eq!(progress.state(), v1::JobState::Pending);
    assert_eq!(progress.subtasks, 1);
    let no_output = v1::JobOutputRequest {
        reference: "last".into(),
        answer: false,
    };
    let refused = served.queue().job_output(no_output).await.unwrap_err();
    assert_eq!(
        (refused.code(), api::reason(&refused).as_deref()),
        (Code::FailedPrecondition, Some("NO_RESULT"))
    );
    served.stop().await;
    let told = loop {
        match watched.next().await {
            Some(Ok(_)) => {}
            Some(Err(status)) => break Some(status),
            None => break None,
        }
    };
    assert!(told.is_some(), "a stream that ends with its gateway says so");
}

#[tokio::test(flavor = "multi_thread")]
async fn rights_are_asked_for_by_every_method() {
    let served = serve(Limits::default()).await;
    served
        .catalog()
        .add_files(adding("log", served.file()))
        .await
        .unwrap();
    let queues = Rights {
        queues: vec!["default".into()],
        ..Rights::default()
    };
    let exec = Rights {
        may_exec: true,
        ..queues.clone()
    };
    let manager = Rights {
        manages: [Managed::Datasets].into(),
        ..queues.clone()
    };
    let all = Rights {
        manages: Managed::ALL.into(),
        ..exec.clone()
    };
    // Whether it may look, submit, submit a command, name files to be read, change a dataset.
    for (name, rights, may) in [
        ("looker", Rights::default(), [true, false, false, false, false]),
        ("user", queues, [true, true, false, false, false]),
        ("runner", exec, [true, true, true, false, false]),
        ("manager", manager, [true, true, false, false, true]),
        ("all", all, [true, true, true, true, true]),
    ] {
        let token = served.token(name, rights).await;
        let add = |mut request: Request<()>| {
            request
                .metadata_mut()
                .insert("authorization", token.parse().unwrap());
            Ok(request)
        };
        let mut queue = QueueClient::with_interceptor(served.channel.clone(), add);
        let mut catalog = CatalogClient::with_interceptor(served.channel.clone(), add);
        let listed = queue.list_jobs(v1::ListJobsRequest::default()).await.map(drop);
        let submitted = queue.submit(over("log", noop())).await.map(drop);
        let ran = queue.submit(over("log", command())).await.map(drop);
        let added = catalog.add_files(adding("log", served.file())).await.map(drop);
        let setting = v1::SetDatasetRequest {
            name: "log".into(),
            ..v1::SetDatasetRequest::default()
        };
        let changed = catalog.set_dataset(setting).await.map(drop);
        for (result, may) in [listed, submitted, ran, added, changed].into_iter().zip(may) {
            match result {
                Ok(()) => assert!(may, "{name}"),
                Err(refused) => {
                    assert!(!may, "{name}: {refused}");
                    assert_eq!(refused.code(), Code::PermissionDenied, "{name}");
                }
            }
        }
    }
    let filter = storage::ChangeFilter {
        limit: 100,
        ..Default::default()
    };
    let changes = served.control.changes(&filter).await.unwrap();
    let by_user = changes
        .iter()
        .find(|change| change.who == "user manager")
        .unwrap();
    assert_eq!(
        (by_user.what.as_str(), by_user.subject.as_str()),
        ("dataset.set", "log")
    );
    served.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn users_cancel_their_own_jobs_and_change_nothing_of_others() {
    let served = serve(Limits::default()).await;
    served
        .catalog()
        .add_files(adding("log", served.file()))
        .await
        .unwrap();
    let queues = Rights {
        queues: vec!["default".into()],
        may_exec: true,
        ..Rights::default()
    };
    let jobs = Rights {
        manages: [Managed::Jobs].into(),
        ..Rights::default()
    };
    let (anna, ben) = (
        served.token("anna", queues.clone()).await,
        served.token("ben", queues).await,
    );
    let carl = served.token("carl", jobs).await;
    let mut queue = served.queue();
    let mut jobs = Vec::new();
    for _ in 0..2 {
        let submitted = queue.submit(shown(&anna, over("log", noop()))).await;
        jobs.push(submitted.unwrap().into_inner().job);
    }
    let [first, second] = jobs.try_into().unwrap();
    let found = queue.get_job(shown(&ben, of(&first))).await.unwrap().into_inner();
    assert_eq!(found.submitted_by.as_deref(), Some("user anna"));
    let refused = queue.cancel_job(shown(&ben, of(&first))).await.unwrap_err();
    assert_eq!(refused.code(), Code::PermissionDenied, "{refused}");
    assert!(refused.message().contains("is of user anna"), "{refused}");
    assert!(
        !queue
            .get_job(of(&first))
            .await
            .unwrap()
            .into_inner()
            .cancel_requested
    );
    let cancelled = queue
        .cancel_job(shown(&anna, of(&first)))
        .await
        .unwrap()
        .into_inner();
    assert!(cancelled.cancel_requested);
    let cancelled = queue
        .cancel_job(shown(&carl, of(&second)))
        .await
        .unwrap()
        .into_inner();
    assert!(cancelled.cancel_requested);

    // One that was submitted on the stores by nobody who is known is for those who may cancel all.
    let spec = model::JobSpec::new(Name::new("log").unwrap(), model::Processor::Noop);
    let orphan = served.control.submit(spec).await.unwrap().to_string();
    let refused = queue.cancel_job(shown(&anna, of(&orphan))).await.unwrap_err();
    assert_eq!(refused.code(), Code::PermissionDenied, "{refused}");
    assert!(queue.cancel_job(of(&orphan)).await.is_ok());

    // An answer in a collection may take the place of somebody else's.
    let question = v1::Question {
        sql: "SELECT count(*) FROM log".into(),
        into: Some("shared".into()),
        ..v1::Question::default()
    };
    let refused = served.catalog().ask(shown(&anna, question)).await.unwrap_err();
    assert!(refused.message().contains("--may-manage views"), "{refused}");
    let log = v1::DatasetReference { name: "log".into() };
    let refused = served
        .catalog()
        .remove_dataset(shown(&anna, log))
        .await
        .unwrap_err();
    assert!(refused.message().contains("--may-manage datasets"), "{refused}");
    assert!(served.control.dataset(&Name::new("log").unwrap()).await.is_ok());
    served.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_wrong_is_named_and_nothing_is_believed() {
    let served = serve(Limits::default()).await;
    let (mut queue, mut catalog) = (served.queue(), served.catalog());
    let relative = catalog
        .add_files(adding("log", "../etc/passwd".into()))
        .await
        .unwrap_err();
    let named = catalog
        .add_files(adding("a/b", "/var/log/x".into()))
        .await
        .unwrap_err();
    let empty = queue.submit(v1::SubmitRequest::default()).await.unwrap_err();
    let none = queue
        .submit(v1::SubmitRequest {
            spec: Some(v1::JobSpec::default()),
        })
        .await
        .unwrap_err();
    let query = Processor::Query(v1::Query {
        document_json: "{".repeat(1000),
        ..Default::default()
    });
    let query = queue.submit(over("log", query)).await.unwrap_err();
    for refused in [relative, named, empty, none, query] {
        assert_eq!(refused.code(), Code::InvalidArgument, "{refused}");
        assert_eq!(api::reason(&refused).as_deref(), Some("MALFORMED"), "{refused}");
    }
    let long = queue.get_job(of(&"x".repeat(5 << 20))).await.unwrap_err();
    assert_eq!(long.code(), Code::OutOfRange, "{long}");
    let small = queue.get_job(of(&"x".repeat(100 << 10))).await.unwrap_err();
    assert_eq!(api::reason(&small).as_deref(), Some("TOO_LARGE"), "{small}");
    let missing = queue.get_job(of("nothing")).await.unwrap_err();
    assert_eq!(api::reason(&missing).as_deref(), Some("NO_SUCH_JOB"));
    served.stop().await;
}
