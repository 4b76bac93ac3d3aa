//! Tasks over a real connection, with real commands under real guards.
#![allow(clippy::unwrap_used)]

use std::{fs::Permissions, os::unix::fs::PermissionsExt as _, time::Duration};

use api::{
    transport::{self, Channel, Security},
    v1::{
        ListTasksRequest, StartTaskRequest, Task, TaskOutputRequest, TaskRequest, TaskState,
        task_output_reply::Message, worker_client::WorkerClient, worker_server::WorkerServer,
    },
};
use model::Name;
use pki::{Peer, Rights, Role};
use tasks::{Config, Limits, Tasks};
use tempfile::TempDir;
use testkit::{process, wait};
use tokio_util::task::AbortOnDropHandle;
use tonic::{Code, Request};

const DEADLINE: Duration = Duration::from_secs(30);

struct Worker {
    tasks: Tasks,
    client: WorkerClient<Channel>,
    _folder: TempDir,
    _server: AbortOnDropHandle<()>,
}

async fn worker(allow_exec: bool, limits: Limits) -> Worker {
    let folder = tempfile::tempdir().unwrap();
    let config = Config {
        node: Name::new("n1").unwrap(),
        allow_exec,
        guard: engine::Guard::new(process::binary("sawmill")),
        folder: folder.path().join("tasks"),
        limits,
    };
    let tasks = Tasks::new(config).unwrap();
    let listener = transport::bind("127.0.0.1:0", &Security::Plain).await.unwrap();
    let address = listener.address().to_string();
    let serving = transport::server()
        .add_service(WorkerServer::new(tasks.clone()))
        .serve_with_incoming(listener.incoming());
    let server = tokio::spawn(async move { serving.await.unwrap() });
    let channel = transport::connect(&address, &Security::Plain).await.unwrap();
    Worker {
        tasks,
        client: WorkerClient::new(channel),
        _folder: folder,
        _server: AbortOnDropHandle::new(server),
    }
}

/// The folder of the tasks of a node, among everybody's temporary files.
fn config(folder: &std::path::Path) -> Config {
    Config {
        node: Name::new("n1").unwrap(),
        allow_exec: true,
        guard: engine::Guard::new(process::binary("sawmill")),
        folder: folder.join("sawmill-tasks-n1"),
        limits: Limits::default(),
    }
}

#[test]
fn what_tasks_print_is_kept_where_nobody_else_reads_or_writes() {
    let shared = tempfile::tempdir().unwrap();
    let config = config(shared.path());
    let mode = |path: &std::path::Path| path.metadata().unwrap().permissions().mode() & 0o7777;
    Tasks::new(config.clone()).unwrap();
    assert_eq!(mode(&config.folder), 0o700);
    // What an earlier run has left, of a release that left it open to be read.
    std::fs::write(config.folder.join("old.out"), "printed").unwrap();
    std::fs::set_permissions(&config.folder, Permissions::from_mode(0o755)).unwrap();
    Tasks::new(config.clone()).unwrap();
    assert_eq!(mode(&config.folder), 0o700);
    assert_eq!(std::fs::read_dir(&config.folder).unwrap().count(), 0);
    // Another user may have made it, and may have put a link in the place of a file to come.
    std::fs::set_permissions(&config.folder, Permissions::from_mode(0o777)).unwrap();
    let refused = Tasks::new(config.clone()).unwrap_err().to_string();
    assert!(
        refused.contains("sawmill-tasks-n1") && refused.contains("others may write"),
        "{refused}"
    );
    std::fs::remove_dir(&config.folder).unwrap();
    let elsewhere = shared.path().join("elsewhere");
    std::fs::create_dir(&elsewhere).unwrap();
    std::fs::write(elsewhere.join("theirs"), "").unwrap();
    std::os::unix::fs::symlink(&elsewhere, &config.folder).unwrap();
    let refused = Tasks::new(config).unwrap_err().to_string();
    assert!(refused.contains("symbolic link"), "{refused}");
    assert!(elsewhere.join("theirs").exists());
}

fn order(command: &str) -> StartTaskRequest {
    StartTaskRequest {
        command: command.into(),
        ..StartTaskRequest::default()
    }
}

/// All that a task prints until its end, and how it ended.
async fn output(
    client: &mut WorkerClient<Channel>,
    asked: TaskOutputRequest,
) -> (String, String, Option<Task>) {
    let mut stream = client.task_output(asked).await.unwrap().into_inner();
    let (mut out, mut err) = (Vec::new(), Vec::new());
    let reading = async {
        while let Some(reply) = stream.message().await.unwrap() {
            match reply.message.unwrap() {
                Message::Stdout(bytes) => out.extend(bytes),
                Message::Stderr(bytes) => err.extend(bytes),
                Message::Ended(task) => return Some(task),
            }
        }
        None
    };
    let ended = tokio::time::timeout(DEADLINE, reading)
        .await
        .expect("the stream to end");
    (
        String::from_utf8(out).unwrap(),
        String::from_utf8(err).unwrap(),
        ended,
    )
}

fn of(task: &Task) -> TaskOutputRequest {
    TaskOutputRequest {
        task: task.name.clone(),
        ..TaskOutputRequest::default()
    }
}

async fn ended(client: &mut WorkerClient<Channel>, task: &Task) -> Task {
    output(client, of(task)).await.2.expect("its end")
}

#[tokio::test(flavor = "multi_thread")]
async fn output_is_read_from_the_start_by_many_and_live() {
    let mut worker = worker(true, Limits::default()).await;
    let client = &mut worker.client;
    // It prints, then waits for a file that appears once a reader has seen what it printed.
    let flag = worker._folder.path().join("go");
    let command = format!(
        "cat; echo first; echo wrong >&2; until [ -e {} ]; do sleep 0.02; done; echo last; exit 7",
        flag.display()
    );
    let started = StartTaskRequest {
        input: "given ".into(),
        ..order(&command)
    };
    let task = client.start_task(started).await.unwrap().into_inner();
    assert_eq!(task.state(), TaskState::Running);
    assert_eq!(task.owner, "admin local");
    let mut early = client.task_output(of(&task)).await.unwrap().into_inner();
    let mut seen = Vec::new();
    while seen != b"given first\n" {
        let reply = tokio::time::timeout(DEADLINE, early.message())
            .await
            .unwrap()
            .unwrap()
            .unwrap();
        if let Message::Stdout(bytes) = reply.message.unwrap() {
            seen.extend(bytes);
        }
    }
    let so_far = TaskOutputRequest {
        until_now: true,
        stdout_from: 6,
        ..of(&task)
    };
    let (out, _, end) = output(client, so_far).await;
    assert_eq!((out.as_str(), end), ("first\n", None));
    std::fs::write(&flag, "").unwrap();
    let (out, err, end) = output(client, of(&task)).await;
    assert_eq!((out.as_str(), err.as_str()), ("given first\nlast\n", "wrong\n"));
    let end = end.unwrap();
    assert_eq!((end.state(), end.exit_code), (TaskState::Exited, Some(7)));
    assert_eq!((end.stdout_bytes, end.stderr_bytes), (17, 6));
    assert!(end.ended_ms.unwrap() >= end.started_ms);
    let again = output(client, of(&task)).await;
    assert_eq!(again.0, out, "it can be read again after the end");
    let listed = client
        .list_tasks(ListTasksRequest::default())
        .await
        .unwrap()
        .into_inner();
    assert_eq!(listed.tasks, [end]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_task_is_stopped_with_all_that_it_started() {
    let mut worker = worker(true, Limits::default()).await;
    let client = &mut worker.client;
    let task = client
        .start_task(order("sleep 1000 & echo $!; wait"))
        .await
        .unwrap()
        .into_inner();
    let mut stream = client.task_output(of(&task)).await.unwrap().into_inner();
    let Some(Message::Stdout(pid)) = stream.message().await.unwrap().unwrap().message else {
        panic!("no process id")
    };
    let pid = String::from_utf8(pid.into()).unwrap().trim().to_string();
    let alive = || std::path::Path::new(&format!("/proc/{pid}")).exists();
    assert!(alive());
    let request = TaskRequest {
        task: task.name.clone(),
    };
    let stopped = client.stop_task(request.clone()).await.unwrap().into_inner();
    assert_eq!(stopped.state(), TaskState::Stopped);
    wait::until_true("the child to be gone", DEADLINE, async || !alive()).await;
    let again = client.stop_task(request).await.unwrap().into_inner();
    assert_eq!(again, stopped, "what has ended is given as it is");
    // Those that still run end with the worker.
    let task = client.start_task(order("sleep 1000")).await.unwrap().into_inner();
    worker.tasks.stop().await;
    assert_eq!(ended(client, &task).await.state(), TaskState::Stopped);
}

#[tokio::test(flavor = "multi_thread")]
async fn limits_end_a_task_and_are_told() {
    let limits = Limits {
        running: 2,
        ended: 1,
        output_bytes: 1 << 20,
    };
    let mut worker = worker(true, limits).await;
    let client = &mut worker.client;
    let talks = StartTaskRequest {
        output_limit_bytes: 1000,
        ..order("yes")
    };
    let talks = client.start_task(talks).await.unwrap().into_inner();
    let (out, _, end) = output(client, of(&talks)).await;
    assert_eq!(out.len(), 1000);
    let end = end.unwrap();
    assert_eq!(end.state(), TaskState::OutputLimit);
    assert!(end.message.contains("1000 bytes"), "{}", end.message);
    let slow = StartTaskRequest {
        timeout_ms: 50,
        ..order("sleep 1000")
    };
    let slow = client.start_task(slow).await.unwrap().into_inner();
    assert_eq!(ended(client, &slow).await.state(), TaskState::TimedOut);
    let killed = client.start_task(order("kill -9 $$")).await.unwrap().into_inner();
    let end = ended(client, &killed).await;
    assert_eq!((end.state(), end.signal), (TaskState::Signalled, Some(9)));

    let one = client.start_task(order("sleep 1000")).await.unwrap().into_inner();
    client.start_task(order("sleep 1000")).await.unwrap();
    let refused = client.start_task(order("true")).await.unwrap_err();
    assert_eq!(refused.code(), Code::ResourceExhausted, "{refused}");
    assert_eq!(api::reason(&refused).as_deref(), Some("TOO_MANY_TASKS"));
    let forgotten = client
        .get_task(TaskRequest { task: talks.name })
        .await
        .unwrap_err();
    assert_eq!(forgotten.code(), Code::NotFound);
    client.get_task(TaskRequest { task: one.name }).await.unwrap();
    for bad in ["", " ", "a\0b"] {
        let one_less = client.start_task(order(bad)).await.unwrap_err();
        assert!(
            matches!(one_less.code(), Code::InvalidArgument | Code::ResourceExhausted),
            "{one_less}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn who_asks_is_asked_for_rights() {
    let mut worker = worker(true, Limits::default()).await;
    let client = &mut worker.client;
    let user = |name: &str, may_exec| Peer {
        role: Role::User,
        name: Name::new(name).unwrap(),
        rights: Rights {
            queues: vec!["default".into()],
            may_exec,
            ..Rights::default()
        },
    };
    let (anna, ben, carl) = (user("anna", true), user("ben", true), user("carl", false));
    let as_anna = api::behalf::pass_on(order("echo secret"), &anna).unwrap();
    let task = client.start_task(as_anna).await.unwrap().into_inner();
    assert_eq!(task.owner, "user anna");
    ended(client, &task).await;
    let request = TaskRequest {
        task: task.name.clone(),
    };
    let of_ben = client
        .get_task(api::behalf::pass_on(request.clone(), &ben).unwrap())
        .await;
    assert_eq!(
        of_ben.unwrap_err().code(),
        Code::NotFound,
        "the tasks of others are not shown"
    );
    let listed = client
        .list_tasks(api::behalf::pass_on(ListTasksRequest::default(), &ben).unwrap())
        .await;
    assert_eq!(listed.unwrap().into_inner().tasks, []);
    client
        .get_task(api::behalf::pass_on(request, &anna).unwrap())
        .await
        .unwrap();
    let as_carl = api::behalf::pass_on(order("true"), &carl).unwrap();
    let refused = client.start_task(as_carl).await.unwrap_err();
    assert_eq!(refused.code(), Code::PermissionDenied);
    assert!(refused.message().contains("--may-exec"), "{refused}");
    let mut bad = Request::new(order("true"));
    bad.metadata_mut().insert("sawmill-for", "root".parse().unwrap());
    assert_eq!(
        client.start_task(bad).await.unwrap_err().code(),
        Code::InvalidArgument
    );

    let mut quiet = self::worker(false, Limits::default()).await;
    let refused = quiet.client.start_task(order("true")).await.unwrap_err();
    assert_eq!(api::reason(&refused).as_deref(), Some("NO_EXEC"));
}
