//! A mill of real processes for the fault tests: start, kill, and compare what was submitted with what is recorded.

use std::{
    collections::BTreeMap,
    process::ExitStatus,
    time::{Duration, Instant},
};

use control::Control;
use futures::TryStreamExt;
use model::{Block, Job, JobId, JobSpec, JobState, Name, Processor, processor::Command, retry::RetryPolicy};
use testkit::{
    Space,
    process::{self, Process, Seen},
    wait,
};

/// Session timeout of the roles under test.
pub(crate) const SESSION: Duration = Duration::from_millis(2000);
/// Deadline of whatever must happen soon.
pub(crate) const SOON: Duration = Duration::from_secs(60);

/// Roles as processes over stores of their own chroot and database.
pub(crate) struct Mill {
    pub(crate) space: Space,
    pub(crate) control: Control,
    processes: BTreeMap<String, Process>,
    remains: Vec<Seen>,
    scratch: tempfile::TempDir,
}

impl Mill {
    /// On the servers that all tests share.
    pub(crate) async fn new() -> Self {
        Self::over(Space::new().await).await
    }

    /// On servers of its own, which the test may kill.
    pub(crate) async fn private() -> Self {
        Self::over(Space::private().await).await
    }

    async fn over(space: Space) -> Self {
        let scratch = tempfile::tempdir().unwrap();
        let store = format!("file://{}/store", scratch.path().display());
        let storage = storage::Config::new(space.mongodb(), store);
        let store = storage::Store::open(&storage).await.unwrap();
        store.init().await.unwrap();
        let control = Control::open(zookeeper(&space), store);
        Self {
            space,
            control,
            processes: BTreeMap::new(),
            remains: Vec::new(),
            scratch,
        }
    }

    /// How to connect to its ZooKeeper.
    pub(crate) fn zookeeper(&self) -> coordination::Config {
        zookeeper(&self.space)
    }

    fn recipe(&self) -> process::Recipe {
        Process::sawmill(&self.space)
            .env("SAWMILL_SESSION_TIMEOUT", format!("{}ms", SESSION.as_millis()))
            .env(
                "SAWMILL_STORE",
                format!("file://{}/store", self.scratch.path().display()),
            )
            .env("SAWMILL_HEAL_AFTER", "3s")
    }

    /// A command against it that has not started yet.
    #[cfg(feature = "sql")]
    pub(crate) fn command(&self, args: &[&str]) -> process::Recipe {
        self.recipe().args(args)
    }

    pub(crate) async fn dispatcher(&mut self, name: &str) {
        let process = self.recipe().arg("dispatcher").start();
        self.started(name, process, "dispatcher started").await;
    }

    pub(crate) async fn watcher(&mut self, name: &str) {
        let process = self.recipe().arg("watcher").start();
        self.started(name, process, "watcher started").await;
    }

    /// A watcher that aborts after its first transaction, before it clears `/done`.
    pub(crate) async fn watcher_that_aborts(&mut self, name: &str) {
        let process = self
            .recipe()
            .env("SAWMILL_FAILPOINT_WATCHER_ABORT_AFTER", "1")
            .arg("watcher")
            .start();
        self.started(name, process, "watcher started").await;
    }

    pub(crate) async fn compute(&mut self, name: &str, slots: u32) {
        self.compute_with(name, slots, &[]).await;
    }

    pub(crate) async fn compute_with(&mut self, name: &str, slots: u32, env: &[(&str, &str)]) {
        let mut recipe = self.recipe();
        for (key, value) in env {
            recipe = recipe.env(key, value);
        }
        let slots = slots.to_string();
        let process = recipe
            .args(["compute", "--allow-exec", "--name", name, "--slots", &slots])
            .start();
        self.started(name, process, "compute started").await;
    }

    async fn started(&mut self, name: &str, mut process: Process, line: &str) {
        process.wait_for_line(line, SOON).await;
        self.processes.insert(name.to_string(), process);
    }

    pub(crate) fn process(&mut self, name: &str) -> &mut Process {
        self.processes.get_mut(name).unwrap()
    }

    /// kill -9, remembering what the process had started.
    pub(crate) fn kill(&mut self, name: &str) {
        let mut process = self.processes.remove(name).unwrap();
        self.remains.extend(process::descendants(process.pid()));
        process.kill9();
    }

    /// SIGTERM; the exit status and how long it took.
    pub(crate) async fn terminate(&mut self, name: &str) -> (ExitStatus, Duration) {
        let mut process = self.processes.remove(name).unwrap();
        self.remains.extend(process::descendants(process.pid()));
        let begun = Instant::now();
        process.terminate();
        (process.wait_exit(SOON).await, begun.elapsed())
    }

    /// A process that ended by itself, or was killed by a subtask.
    pub(crate) async fn ended(&mut self, name: &str) -> ExitStatus {
        self.processes.remove(name).unwrap().wait_exit(SOON).await
    }

    /// The name of the process that leads.
    pub(crate) async fn leader(&mut self) -> String {
        let pids: Vec<(u32, String)> = self
            .processes
            .iter()
            .map(|(name, process)| (process.pid(), name.clone()))
            .collect();
        let control = self.control.clone();
        // The candidate of a killed leader is listed until its session is over.
        wait::until("a living leader", SOON, async || {
            let leader = control.status().await.ok()?.leader?;
            pids.iter()
                .find(|(pid, _)| *pid == leader.pid)
                .map(|(_, name)| name.clone())
        })
        .await
    }

    /// A dataset of `count` inline blocks, each its own number.
    pub(crate) async fn dataset(&self, name: &str, count: u32) -> Name {
        let name = Name::new(name).unwrap();
        let store = self.control.store().unwrap();
        store.create(&name).await.unwrap();
        let blocks = (0..count).map(|i| Block::inline(format!("{i}\n"))).collect();
        store.append_blocks(&name, blocks).await.unwrap();
        name
    }

    pub(crate) async fn submit(&self, dataset: &Name, processor: Processor) -> JobId {
        self.control.submit(spec(dataset, processor)).await.unwrap()
    }

    pub(crate) async fn counts(&self, id: JobId) -> model::Counts {
        self.control.store().unwrap().progress(&[id]).await.unwrap()[0].counts
    }

    /// Waits until at least `count` subtasks have a result, and proves that the job is not over.
    pub(crate) async fn until_in_the_middle(&self, id: JobId, count: u64) {
        wait::until_ok(format!("{count} results"), SOON, async || {
            let job = self
                .control
                .store()
                .unwrap()
                .job(id)
                .await
                .ok()
                .flatten()
                .ok_or("no answer".to_string())?;
            assert!(
                !job.state.is_final(),
                "the job was over before the fault: {:?}",
                job.counts
            );
            if job.counts.ok >= count {
                Ok(())
            } else {
                Err(format!("{:?}", job.counts))
            }
        })
        .await;
    }

    pub(crate) async fn until_final(&self, id: JobId) -> Job {
        wait::until_ok("the end of the job", 3 * SOON, async || {
            let job = self
                .control
                .store()
                .unwrap()
                .job(id)
                .await
                .ok()
                .flatten()
                .ok_or("no answer".to_string())?;
            if job.state.is_final() {
                Ok(job)
            } else {
                Err(format!("{} {:?}", job.state, job.counts))
            }
        })
        .await
    }

    /// Waits for success and compares everything: each subtask recorded once, with its own result.
    pub(crate) async fn succeeds(&self, id: JobId) -> Job {
        let job = self.until_final(id).await;
        assert_eq!(
            job.state,
            JobState::Successful,
            "{:?} {:?}",
            job.error,
            job.counts
        );
        assert_eq!(job.counts.ok, job.subtasks());
        let recorded = self
            .control
            .store()
            .unwrap()
            .result_ids_from(id, 0)
            .await
            .unwrap();
        assert_eq!(
            recorded,
            (0..u32::try_from(job.subtasks()).unwrap()).collect::<Vec<_>>()
        );
        job
    }

    /// How many entries are in a place.
    pub(crate) async fn entries(&self, place: &str) -> usize {
        let tree = self.space.tree().await;
        let entries = tree
            .keys()
            .filter(|path| path.contains(place) && path.contains("/entry-"));
        entries.count()
    }

    /// The result of a successful job.
    pub(crate) async fn output(&self, job: &Job) -> String {
        let chunks: Vec<Vec<u8>> = self
            .control
            .output(job)
            .await
            .unwrap()
            .try_collect()
            .await
            .unwrap();
        String::from_utf8(chunks.concat()).unwrap()
    }

    /// The tree holds nothing of any job, the audit is clean, and nothing that the dead started is left.
    pub(crate) async fn is_clean(&self) {
        wait::until_ok("an empty tree", SOON, async || {
            let entries: Vec<String> = self
                .space
                .tree()
                .await
                .into_keys()
                .filter(|path| path.contains("/entry-"))
                .collect();
            if entries.is_empty() {
                Ok(())
            } else {
                Err(format!("{entries:?}"))
            }
        })
        .await;
        let report = self.control.audit().await.unwrap();
        assert!(report.clean, "{:?}", report.findings);
        process::gone(&self.remains, SOON).await;
    }
}

fn zookeeper(space: &Space) -> coordination::Config {
    coordination::Config {
        connect: space.zookeeper(),
        ..Default::default()
    }
}

/// A job with quick retries.
pub(crate) fn spec(dataset: &Name, processor: Processor) -> JobSpec {
    JobSpec {
        retry: RetryPolicy {
            max_attempts: 3,
            initial_ms: 50,
            max_ms: 200,
        },
        ..JobSpec::new(dataset.clone(), processor)
    }
}

pub(crate) fn command(map: &str) -> Processor {
    Processor::Command(Command {
        map: map.into(),
        output_limit_bytes: 1 << 20,
        ..Command::default()
    })
}
