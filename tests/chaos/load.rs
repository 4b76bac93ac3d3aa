//! Work of every sort, of which is known what must come out: commands that succeed, fail at first, or fail for good;
//! many small subtasks; recorded results used again; queries; a view; lines that an agent follows.

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    fs::File,
    io::Write as _,
    sync::{Arc, Mutex},
    time::Duration,
};

use api::transport::Security;
use control::Control;
use model::{Block, Job, JobId, JobSpec, JobState, Name, Processor, processor::Command, retry::RetryPolicy};
use serde_json::{Value, json};
use storage::{JobFilter, Store};
use testkit::{logs, process::Recipe, wait};
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;

use crate::{
    plan::Dice,
    yard::{SOON, Yard},
};

/// Blocks of the dataset that commands run over, a line each.
const LINES: u32 = 48;
/// Blocks of the dataset with many small subtasks.
const MANY: u32 = 3_000;
/// Lines of the dataset that is queried.
const ACCESS: u32 = 2_000;
/// A request that takes longer is given up: a store is away.
const REQUEST: Duration = Duration::from_secs(5);
/// Between two looks at what is under way.
const PAUSE: Duration = Duration::from_millis(150);
/// Longest wait for the answer of one query while faults go on.
const ANSWER: Duration = Duration::from_secs(60);

/// What a job is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Work {
    /// A command that prints its block.
    Print,
    /// The same, failing in the first attempt over every fifth block.
    Flaky,
    /// The same, failing for good over one block.
    Failing,
    /// Many subtasks that do nothing.
    Many,
    /// The same, answered from recorded results where there are some.
    Reused,
}

impl Work {
    /// How many of each may be under way at once.
    const MOST: [(Self, usize); 5] = [
        (Self::Print, 2),
        (Self::Flaky, 1),
        (Self::Failing, 1),
        (Self::Many, 1),
        (Self::Reused, 1),
    ];

    /// What a job was submitted for; none for queries and refreshes of views.
    pub(crate) fn of(job: &Job) -> Option<Self> {
        match &job.spec.processor {
            Processor::Noop if job.spec.reuse => Some(Self::Reused),
            Processor::Noop => Some(Self::Many),
            Processor::Command(command) if command.map.contains("exit 4") => Some(Self::Failing),
            Processor::Command(command) if command.map.contains("exit 3") => Some(Self::Flaky),
            Processor::Command(_) => Some(Self::Print),
            _ => None,
        }
    }

    /// How it must end, and with how many subtasks that failed for good.
    pub(crate) fn expected(self) -> (JobState, u64) {
        match self {
            Self::Failing => (JobState::Failed, 1),
            _ => (JobState::Successful, 0),
        }
    }

    /// What a job that succeeded must have printed.
    pub(crate) fn output(self) -> Option<String> {
        matches!(self, Self::Print | Self::Flaky).then(|| (0..LINES).map(line).collect())
    }

    fn spec(self, dice: &mut Dice) -> JobSpec {
        let seconds = dice.choose(&["0.05", "0.2", "0.5"]);
        let before = match self {
            Self::Flaky => "if [ $SAWMILL_ATTEMPT = 1 ] && [ $((SAWMILL_BLOCK % 5)) = 0 ]; then exit 3; fi; ",
            Self::Failing => "if [ $SAWMILL_BLOCK = 7 ]; then exit 4; fi; ",
            _ => "",
        };
        let (dataset, processor) = match self {
            Self::Many | Self::Reused => ("many", Processor::Noop),
            _ => {
                let command = Command {
                    map: format!("{before}sleep {seconds}; cat"),
                    reduce: Some("cat".into()),
                    output_limit_bytes: 1 << 20,
                    ..Command::default()
                };
                ("lines", Processor::Command(command))
            }
        };
        JobSpec {
            retry: RetryPolicy {
                max_attempts: if self == Self::Failing { 2 } else { 10 },
                initial_ms: 50,
                max_ms: 500,
            },
            reuse: self == Self::Reused,
            ..JobSpec::new(Name::new(dataset).unwrap(), processor)
        }
    }
}

fn line(number: u32) -> String {
    format!("line {number:04}\n")
}

/// Writes numbered lines, submits jobs, asks queries.
pub(crate) struct Load {
    yard: Arc<Yard>,
    store: Store,
    /// Jobs whose submission was acknowledged.
    jobs: Mutex<Vec<JobId>>,
    /// What was done how often, and what was refused.
    told: Mutex<BTreeMap<String, u32>>,
}

impl Load {
    /// Makes the datasets, and a view once the first lines are there.
    pub(crate) async fn prepare(yard: &Arc<Yard>) -> Self {
        let config = storage::Config::new(yard.mongodb.clone(), yard.store_url());
        let store = Store::open(&config).await.unwrap();
        for (name, count) in [("lines", LINES), ("many", MANY)] {
            let name = Name::new(name).unwrap();
            store.create(&name).await.unwrap();
            let blocks = (0..count).map(|number| Block::inline(line(number))).collect();
            store.append_blocks(&name, blocks).await.unwrap();
        }
        let path = yard.files.join("access.log");
        std::fs::write(&path, logs::access(ACCESS)).unwrap();
        let add = yard.recipe().args(["dataset", "add", "access"]).arg(path);
        let _ = add.args(["--block-size", "16KiB"]).output(SOON).await.code(0);
        Self {
            yard: Arc::clone(yard),
            store,
            jobs: Mutex::default(),
            told: Mutex::default(),
        }
    }

    pub(crate) fn store(&self) -> &Store {
        &self.store
    }

    /// Jobs whose submission was acknowledged.
    pub(crate) fn jobs(&self) -> Vec<JobId> {
        self.jobs.lock().unwrap().clone()
    }

    /// What was done, for the report.
    pub(crate) fn told(&self) -> String {
        let told = self.told.lock().unwrap();
        let all: Vec<String> = told
            .iter()
            .map(|(what, times)| format!("{what} {times}"))
            .collect();
        all.join(", ")
    }

    /// Sorts of work that were never done: what was not asked for cannot go wrong.
    pub(crate) fn idle(&self) -> Vec<String> {
        let told = self.told.lock().unwrap();
        let sorts = Work::MOST.map(|(work, _)| format!("{work:?}").to_lowercase());
        let queries = cfg!(feature = "sql").then(|| "queries".to_string());
        let all = sorts.into_iter().chain(queries);
        all.filter(|sort| !told.contains_key(sort)).collect()
    }

    /// Counts; gives how often it was so far.
    fn count(&self, what: impl Into<String>) -> u32 {
        let mut told = self.told.lock().unwrap();
        let times = told.entry(what.into()).or_default();
        *times += 1;
        *times
    }

    /// Keeps jobs of each sort under way, submitted over the gateways.
    pub(crate) async fn submit(self: Arc<Self>, stop: CancellationToken) {
        let mut dice = Dice(self.yard.settings.seed.wrapping_add(1));
        let mut gateways = None;
        while !stop.is_cancelled() {
            tokio::time::sleep(PAUSE).await;
            let Ok(Ok(unfinished)) = timeout(REQUEST, self.unfinished()).await else {
                continue;
            };
            for (work, most) in Work::MOST {
                if unfinished
                    .iter()
                    .filter(|job| Work::of(job) == Some(work))
                    .count()
                    >= most
                {
                    continue;
                }
                let submitted = async {
                    if gateways.is_none() {
                        let addresses = self.yard.gateways.join(",");
                        gateways = Some(Control::connect(&addresses, Security::Plain).await?);
                    }
                    match &gateways {
                        Some(control) => control.submit(work.spec(&mut dice)).await.map(Some),
                        None => Ok(None),
                    }
                };
                match timeout(REQUEST, submitted).await {
                    Ok(Ok(job)) => {
                        self.jobs.lock().unwrap().extend(job);
                        let _ = self.count(format!("{work:?}").to_lowercase());
                    }
                    failed => {
                        let why =
                            failed.map_or_else(|_| "late".into(), |failed| format!("{:?}", failed.err()));
                        if self.count("submissions without an answer") == 1 {
                            println!("chaos: a submission has no answer: {why}");
                        }
                        gateways = None;
                    }
                }
            }
        }
    }

    /// Jobs that have not ended.
    pub(crate) async fn unfinished(&self) -> Result<Vec<Job>, storage::Error> {
        let states = JobState::ALL
            .into_iter()
            .filter(|state| !state.is_final())
            .collect();
        let filter = JobFilter {
            states,
            ..JobFilter::default()
        };
        self.store.list(&filter).await
    }

    /// Asks one query after the other; a wrong answer is a violation, none is not.
    pub(crate) async fn ask(self: Arc<Self>, stop: CancellationToken) {
        let mut dice = Dice(self.yard.settings.seed.wrapping_add(2));
        while !stop.is_cancelled() {
            let bound = 1 + dice.below(ACCESS);
            if self.is_answered(bound, ANSWER).await {
                let _ = self.count("queries");
            } else {
                let _ = self.count("queries without an answer");
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    /// Whether a query was answered at all.
    pub(crate) async fn is_answered(&self, bound: u32, patience: Duration) -> bool {
        let sql = format!(
            "SELECT status, count(*) AS n, sum(bytes) AS sent FROM access WHERE bytes < {bound} \
             GROUP BY status ORDER BY status"
        );
        let Some(rows) = self.rows(&["query", &sql], patience).await else {
            return false;
        };
        let (mut right, of) = (Vec::new(), |error: bool| {
            (0..bound).filter(move |n| (n % 3 == 0) == error)
        });
        for (status, error) in [(200, false), (500, true)] {
            if of(error).count() > 0 {
                let sent: u32 = of(error).sum();
                right.push(json!({ "status": status, "n": of(error).count(), "sent": sent }));
            }
        }
        if rows != right {
            self.yard.violates(format!(
                "a query below {bound} was answered {rows:?}, not {right:?}"
            ));
        }
        true
    }

    /// The rows that a command prints, over the gateways; none when it failed.
    async fn rows(&self, args: &[&str], patience: Duration) -> Option<Vec<Value>> {
        let recipe = self.by_gateway(args).args(["--output", "json"]);
        let output = self.yard.command(recipe, patience).await?;
        if !output.status.success() {
            return None;
        }
        let rows = output
            .stdout
            .lines()
            .map(|row| serde_json::from_str(row).unwrap_or_default());
        Some(rows.collect())
    }

    fn by_gateway(&self, args: &[&str]) -> Recipe {
        let recipe = self.yard.recipe().args(args);
        recipe.args(["--server", &self.yard.gateways.join(",")])
    }

    /// Writes numbered lines to a file that an agent follows, until it is stopped; gives how many.
    pub(crate) async fn write(self: Arc<Self>, stop: CancellationToken) -> u64 {
        let path = self.yard.files.join("lines/app.log");
        let mut file = File::create(path).unwrap();
        let mut lines = 0;
        while !stop.is_cancelled() {
            let mut some = String::new();
            for _ in 0..3 {
                lines += 1;
                writeln!(some, "{{\"n\":{lines}}}").unwrap();
            }
            file.write_all(some.as_bytes()).unwrap();
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        lines
    }

    /// Makes the view, as soon as the agent has shipped the first lines.
    pub(crate) async fn make_view(&self) {
        let sql = "SELECT count(*) AS n, sum(n) AS total FROM app";
        wait::until_ok("the view of what the agent ships", SOON, async || {
            let made = self
                .by_gateway(&["view", "create", "totals", sql])
                .output(SOON)
                .await;
            if made.status.success() {
                Ok(())
            } else {
                Err(made.stderr)
            }
        })
        .await;
    }

    /// Each line that was written is in the dataset once, and in the view, within `patience`.
    pub(crate) async fn check_lines(&self, lines: u64, patience: Duration) {
        // Blocks that only nodes that were down had are left out of a view until somebody says that they are back.
        let resume = self.by_gateway(&["view", "resume", "totals"]);
        let _ = self.yard.command(resume, patience).await;
        let sql =
            "SELECT count(*) AS n, count(DISTINCT n) AS different, min(n) AS least, max(n) AS most FROM app";
        let right = vec![json!({ "n": lines, "different": lines, "least": 1, "most": lines })];
        self.must_give("what the agent shipped", &["query", sql], &right, patience)
            .await;
        let right = vec![json!({ "n": lines, "total": lines * (lines + 1) / 2 })];
        self.must_give("the view", &["view", "output", "totals"], &right, patience)
            .await;
    }

    async fn must_give(&self, what: &str, args: &[&str], right: &Vec<Value>, patience: Duration) {
        let begun = Instant::now();
        let mut last = None;
        while begun.elapsed() < patience {
            last = self.rows(args, patience).await;
            if last.as_ref() == Some(right) {
                return;
            }
            tokio::time::sleep(PAUSE).await;
        }
        let last = last.map_or("nothing".into(), |rows| format!("{rows:?}"));
        self.yard.violates(format!("{what} is {last}, not {right:?}"));
    }
}
