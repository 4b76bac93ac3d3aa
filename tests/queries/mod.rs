//! The same in the middle of queries: answers are what they are without the fault.

use std::fmt::Write as _;

use coordination::{Candidacy, Office, Term, Worker};
use model::{FORMAT, JobId, Name, Requirement, znode::CandidateData, znode::WorkerData};
use storage::JobFilter;
use testkit::{process::Process, wait};

use crate::mill::{Mill, SOON};

/// Every line becomes many rows, so that a block takes a while.
const SLOW: &str = "SELECT x % 5 AS five, count(*) AS n, sum(i) AS s \
                    FROM (SELECT i, unnest(range(0, 4000)) AS x FROM lines) GROUP BY 1 ORDER BY 1";
const LINES: u64 = 4000;

fn slow_answer() -> String {
    let mut answer = String::from("five,n,s\n");
    for five in 0..5 {
        writeln!(answer, "{five},{},{}", LINES * 800, (0..LINES).sum::<u64>() * 800).unwrap();
    }
    answer
}

/// A dataset of so many lines, in small blocks.
async fn add(mill: &Mill, lines: u64, block_size: &str) {
    let file = tempfile::NamedTempFile::with_suffix(".log").unwrap();
    let text: String = (0..lines).map(|i| format!("i={i} text={i:0>90}\n")).collect();
    std::fs::write(file.path(), text).unwrap();
    // Compute nodes read it later.
    let (_, path) = file.keep().unwrap();
    let path = path.display().to_string();
    let args = ["dataset", "add", "lines", &path, "--block-size", block_size];
    let _ = mill.command(&args).output(SOON).await.code(0);
}

/// Starts a query and waits until some of its blocks are done.
async fn in_the_middle(mill: &Mill, sql: &str) -> (Process, JobId) {
    let query = mill.command(&["query", sql, "--output", "csv"]).start();
    let job = wait::until("the job of the query", SOON, async || {
        let jobs = mill.control.jobs(&JobFilter::default()).await.ok()?;
        jobs.first().map(|job| job.id)
    })
    .await;
    mill.until_in_the_middle(job, 3).await;
    (query, job)
}

async fn answers(mill: &Mill, mut query: Process, job: JobId) {
    let ended = query.wait_exit(3 * SOON).await;
    assert!(ended.success(), "{}", query.stderr());
    assert_eq!(query.stdout(), slow_answer());
    mill.succeeds(job).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_query_survives_its_leader_and_a_node() {
    let mut mill = Mill::new().await;
    mill.dispatcher("d1").await;
    mill.dispatcher("d2").await;
    mill.watcher("w1").await;
    mill.compute("a", 1).await;
    mill.compute("b", 1).await;
    add(&mill, LINES, "4KiB").await;
    let (query, job) = in_the_middle(&mill, SLOW).await;
    let leader = mill.leader().await;
    mill.kill(&leader);
    mill.kill("a");
    answers(&mill, query, job).await;
    assert!(
        mill.counts(job).await.again > 0,
        "nothing was lost: the fault did not happen"
    );
    mill.is_clean().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_query_that_takes_too_much_memory_fails_alone() {
    let mut mill = Mill::new().await;
    mill.dispatcher("d1").await;
    mill.watcher("w1").await;
    let memory = [("SAWMILL_QUERY_MEMORY", "24MiB")];
    mill.compute_with("a", 1, &memory).await;
    add(&mill, 200_000, "8MiB").await;
    // What can't spill fails and says so.
    let greedy = "SELECT length(string_agg(text, ',' ORDER BY i)) AS n FROM lines";
    let failed = mill.command(&["query", greedy]).output(SOON).await.code(1);
    assert!(failed.stderr.contains("needs more memory"), "{}", failed.stderr);
    // What can does; and the node is the same.
    let sorted = "SELECT i FROM lines ORDER BY text DESC";
    let sorted = mill
        .command(&["query", sorted, "--output", "csv"])
        .output(2 * SOON)
        .await
        .code(0);
    let mut rows = sorted.stdout.lines().skip(1);
    assert!(
        (0..200_000_u64)
            .rev()
            .all(|i| rows.next() == Some(&i.to_string()))
    );
    assert!(mill.process("a").ended().is_none());
    mill.is_clean().await;
}

/// Znodes that say they are of another version, and nothing behind them.
async fn of_another_version(mill: &Mill) -> (Term, Worker, Candidacy) {
    let term = Term::begin(mill.control.zookeeper().unwrap()).await.unwrap();
    let (host, version) = ("elsewhere".to_owned(), "9.9.9".to_owned());
    let worker = WorkerData {
        v: FORMAT,
        node: Name::new("newer").unwrap(),
        host: host.clone(),
        pid: 1,
        process: uuid::Uuid::nil(),
        version: version.clone(),
        slots: 8,
        capabilities: vec![Requirement::Sql, Requirement::Exec],
        sql: Some("9.9.9+other".into()),
        endpoint: None,
        zone: String::new(),
        protocol: 0,
        local_store: false,
        wake: 0,
        stop: Vec::new(),
    };
    let candidate = CandidateData {
        v: FORMAT,
        host,
        pid: 2,
        version,
        gateway: None,
    };
    let worker = Worker::register(&term, worker).await.unwrap();
    let candidacy = Candidacy::enter(&term, Office::Dispatcher, &candidate)
        .await
        .unwrap();
    (term, worker, candidacy)
}

/// Entries that nobody has claimed.
async fn unowned(mill: &Mill) -> usize {
    let paths = mill.space.tree().await.into_keys();
    paths.filter(|path| path.contains("/unowned/entry-")).count()
}

#[tokio::test(flavor = "multi_thread")]
async fn queries_go_to_nodes_of_their_version() {
    let mut mill = Mill::new().await;
    mill.dispatcher("d1").await;
    mill.watcher("w1").await;
    add(&mill, 400, "4KiB").await;
    let _others = of_another_version(&mill).await;
    let count = ["query", "SELECT count(*) AS n FROM lines", "--output", "csv"];
    let mut query = mill.command(&count).start();
    query
        .wait_for_line("waiting: the query was asked by version", SOON)
        .await;
    assert!(
        query.stderr().contains("newer runs 9.9.9+other"),
        "{}",
        query.stderr()
    );
    assert_eq!(unowned(&mill).await, 0, "it was fed");
    let status = mill.command(&["status"]).output(SOON).await.code(0).stdout;
    for told in [
        "out of step with the leader",
        "compute newer",
        "runs 9.9.9",
        "dispatcher candidate-",
    ] {
        assert!(status.contains(told), "{told}: {status}");
    }
    let status = mill.control.status().await.unwrap();
    let roles: Vec<&str> = status.out_of_step.iter().map(|one| one.role.as_str()).collect();
    assert_eq!(roles, ["dispatcher", "compute"]);
    mill.compute("a", 1).await;
    assert!(query.wait_exit(SOON).await.success());
    assert_eq!(query.stdout(), "n\n400\n");

    // One of the other version is fed, for the other node, and the one of this version leaves it there.
    let first = mill.control.jobs(&JobFilter::default()).await.unwrap().remove(0);
    let mut spec = first.spec;
    let model::Processor::Query(asked) = &mut spec.processor else {
        panic!("no query: {spec:?}");
    };
    (asked.version, asked.question) = ("9.9.9+other".into(), None);
    spec.reuse = false;
    let other = mill.control.submit(spec).await.unwrap();
    wait::until_true("entries for the other node", SOON, async || {
        unowned(&mill).await > 0
    })
    .await;
    let mine = ["query", "SELECT max(i) AS m FROM lines", "--output", "csv"];
    assert_eq!(mill.command(&mine).output(SOON).await.code(0).stdout, "m\n399\n");
    assert!(unowned(&mill).await > 0, "it was claimed");
    assert_eq!(mill.counts(other).await, model::Counts::default());
    mill.control.cancel(&other.to_string()).await.unwrap();
    mill.until_final(other).await;
    mill.is_clean().await;
}
