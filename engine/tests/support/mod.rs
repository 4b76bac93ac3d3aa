//! What the tests of commands share: a runner with a guard of its own, and a look at what is left of a job.

#![allow(dead_code, unreachable_pub, missing_docs)]

use std::{
    collections::BTreeMap,
    fs,
    path::PathBuf,
    time::{Duration, Instant},
};

use engine::{
    Guard, Product, Source, Stop,
    command::{Runner, Task},
};
use model::{Failure, Name, Spot, job::JobId};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

/// What no user gave.
static NO_VARIABLES: BTreeMap<String, String> = BTreeMap::new();

/// One job whose commands can be told from all other processes by their environment.
pub struct Bench {
    pub job: JobId,
    pub dataset: Name,
    pub guard: Guard,
    pub runner: Runner,
    pub folder: tempfile::TempDir,
}

impl Bench {
    pub fn new() -> Self {
        Self::of(JobId(Uuid::new_v4()))
    }

    pub fn of(job: JobId) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let guard = Guard::new(env!("CARGO_BIN_EXE_engine-guard"));
        let runner = Runner::new(guard.clone(), folder.path());
        Self {
            job,
            dataset: "nginx".parse().unwrap(),
            guard,
            runner,
            folder,
        }
    }

    pub fn task<'a>(&'a self, line: &'a str) -> Task<'a> {
        Task {
            role: "map",
            line,
            pipefail: true,
            ok_exit: &[],
            env: &NO_VARIABLES,
            timeout: None,
            output_limit_bytes: 1 << 30,
            job: self.job,
            dataset: &self.dataset,
            spot: Spot::Block(7),
            attempt: 2,
        }
    }

    pub async fn run(&self, line: &str, input: &[u8]) -> Result<Product, Stop> {
        self.run_source(line, bytes(input)).await
    }

    pub async fn run_source(&self, line: &str, source: Source) -> Result<Product, Stop> {
        self.run_task(&self.task(line), source).await
    }

    pub async fn run_task(&self, task: &Task<'_>, source: Source) -> Result<Product, Stop> {
        let printed = self.runner.run(task, source, &CancellationToken::new()).await;
        printed.map(|printed| printed.product)
    }

    pub async fn text(&self, line: &str, input: &[u8]) -> String {
        String::from_utf8(self.run(line, input).await.unwrap().into_bytes().unwrap()).unwrap()
    }

    pub async fn failure(&self, line: &str) -> Failure {
        self.run(line, b"").await.unwrap_err().failure().unwrap()
    }

    pub fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }
}

pub fn bytes(input: &[u8]) -> Source {
    Source::Bytes(input.to_vec().into())
}

/// Processes of the job that live: every command carries the job in its environment.
pub fn alive(job: JobId) -> Vec<i32> {
    let mark = format!("SAWMILL_JOB={job}");
    let has_mark = |environ: &[u8]| {
        environ
            .split(|byte| *byte == 0)
            .any(|part| part == mark.as_bytes())
    };
    pids()
        .filter(|pid| fs::read(format!("/proc/{pid}/environ")).is_ok_and(|environ| has_mark(&environ)))
        .collect()
}

pub fn pids() -> impl Iterator<Item = i32> {
    fs::read_dir("/proc")
        .unwrap()
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
}

/// State letter and parent of a process.
pub fn stat(pid: i32) -> Option<(String, i32)> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let mut words = stat.rsplit_once(") ")?.1.split(' ');
    Some((words.next()?.to_owned(), words.next()?.parse().ok()?))
}

pub fn until(what: &str, condition: impl Fn() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while !condition() {
        assert!(Instant::now() < deadline, "waited in vain until {what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

pub async fn until_async(what: &str, condition: impl Fn() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while !condition() {
        assert!(Instant::now() < deadline, "waited in vain until {what}");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}
