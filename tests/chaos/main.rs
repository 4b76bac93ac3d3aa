//! Chaos: a cluster of real processes under load, hit by random faults with real signals, and then the ledger.
//!
//! Nothing may be lost, recorded twice or stuck; answers and outputs are right; an agent's lines come in once. One run is
//! named by its seed: it gives the order of faults, their victims and lengths, not the instants.
//!
//! `plan` says what is done, `yard` has the processes and does it, `load` gives them work, `watch` looks at the tree meanwhile,
//! `check` compares at the end. In the environment, for `scripts/chaos` (`just chaos`) and for a run again:
//!
//! | variable | default |
//! |---|---|
//! | `SAWMILL_CHAOS_SEED` | the clock |
//! | `SAWMILL_CHAOS_SECONDS` | 60: for so long faults begin |
//! | `SAWMILL_CHAOS_FAULTS` | `kill,freeze,stop`; others need what `scripts/chaos` makes and names in the variables below |
//! | `SAWMILL_CHAOS_SESSION_MS` | 2000: the session timeout |
//! | `SAWMILL_CHAOS_ALONE` | unset; `1`: one fault at a time, far apart, to measure times |
//! | `SAWMILL_CHAOS_NAMESPACES` | for `cut`: the first three numbers of the addresses of the network namespaces |
//! | `SAWMILL_CHAOS_CLOCK` | for `ahead`, `behind`: the library that sets the clock of a process |
//! | `SAWMILL_CHAOS_SMALL_DISK` | for `full`: where the third node keeps blocks |
#![allow(clippy::unwrap_used)]

mod check;
mod load;
mod plan;
mod watch;
mod yard;

use std::{
    collections::BTreeMap,
    path::PathBuf,
    str::FromStr,
    sync::Arc,
    time::{Duration, SystemTime},
};

use tokio::{task::JoinSet, time::Instant};
use tokio_util::sync::CancellationToken;

use crate::{
    load::Load,
    plan::{How, Plan},
    watch::Watch,
    yard::Yard,
};

/// How long jobs may take to end when there are no more faults: what healing finds after `heal_after` is among them.
const DRAIN: Duration = Duration::from_secs(150);
/// Whether there are queries and views.
const SQL: bool = cfg!(feature = "sql");
/// A query in peace.
const ANSWER: Duration = Duration::from_secs(60);

/// What the environment asks for.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    pub(crate) seed: u64,
    seconds: u64,
    hows: Vec<How>,
    pub(crate) session: Duration,
    alone: bool,
    /// The network of the namespaces that roles run in.
    pub(crate) namespaces: Option<String>,
    /// The library that sets the clocks of roles.
    pub(crate) clock: Option<PathBuf>,
    /// A small disk for the third node.
    pub(crate) small_disk: Option<PathBuf>,
}

fn from_environment<T: FromStr>(name: &str, default: T) -> T {
    match std::env::var(name) {
        Ok(text) => text.parse().unwrap_or_else(|_| panic!("bad {name}: {text:?}")),
        Err(_) => default,
    }
}

impl Settings {
    fn read() -> Self {
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap();
        let hows = from_environment("SAWMILL_CHAOS_FAULTS", "kill,freeze,stop".to_string());
        let how = |word| How::of(word).unwrap_or_else(|| panic!("bad SAWMILL_CHAOS_FAULTS: {word:?}"));
        let hows: Vec<How> = hows.split(',').map(how).collect();
        let given = |name, needs: &[How]| {
            let given = std::env::var(name).ok();
            let needed = hows.iter().any(|how| needs.contains(how));
            assert!(
                given.is_some() || !needed,
                "{needs:?} need {name}: see scripts/chaos"
            );
            given
        };
        Self {
            namespaces: given("SAWMILL_CHAOS_NAMESPACES", &[How::Cut]),
            clock: given("SAWMILL_CHAOS_CLOCK", &[How::Ahead, How::Behind]).map(PathBuf::from),
            small_disk: given("SAWMILL_CHAOS_SMALL_DISK", &[How::Full]).map(PathBuf::from),
            seed: from_environment("SAWMILL_CHAOS_SEED", now.as_secs()),
            seconds: from_environment("SAWMILL_CHAOS_SECONDS", 60),
            hows,
            session: Duration::from_millis(from_environment("SAWMILL_CHAOS_SESSION_MS", 2_000)),
            alone: std::env::var_os("SAWMILL_CHAOS_ALONE").is_some(),
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_lost_in_chaos() {
    let settings = Settings::read();
    println!(
        "chaos: seed {} (SAWMILL_CHAOS_SEED={} runs it again)",
        settings.seed, settings.seed
    );
    let files = tempfile::Builder::new()
        .prefix("sawmill-chaos-")
        .tempdir()
        .unwrap();
    let yard = Yard::start(settings.clone(), files.path()).await;
    let watch = Arc::new(Watch::new(settings.session));
    let load = Arc::new(Load::prepare(&yard).await);
    let (working, looking) = (CancellationToken::new(), CancellationToken::new());
    let mut tasks = JoinSet::new();
    let watching = (Arc::clone(&watch), yard.zookeeper.clone(), looking.clone());
    tasks.spawn(async move { watching.0.run(watching.1, watching.2).await });
    tasks.spawn(Arc::clone(&yard).supervise(looking.clone()));
    let writing = tokio::spawn(Arc::clone(&load).write(working.clone()));
    if SQL {
        load.make_view().await;
    }
    let mut at_work = JoinSet::new();
    at_work.spawn(Arc::clone(&load).submit(working.clone()));
    if SQL {
        at_work.spawn(Arc::clone(&load).ask(working.clone()));
    }

    let begun = Instant::now();
    let faults = inject(&yard, &watch, begun).await;
    println!(
        "chaos: {} faults in {:.0?}: {faults:?}",
        faults.values().sum::<u32>(),
        begun.elapsed()
    );
    working.cancel();
    let lines = writing.await.unwrap();
    while let Some(ended) = at_work.join_next().await {
        ended.unwrap();
    }
    let begun = Instant::now();
    check::drain(&yard, &load, DRAIN).await;
    println!(
        "chaos: all that was under way had ended after {:.1?}; {}",
        begun.elapsed(),
        load.told()
    );
    watch.close();
    if let idle @ [_, ..] = load.idle().as_slice() {
        yard.violates(format!("there was no load of these sorts: {}", idle.join(", ")));
    }
    if SQL {
        if !load.is_answered(1_000, ANSWER).await {
            yard.violates("a query is not answered in peace".to_string());
        }
        load.check_lines(lines, ANSWER).await;
        println!("chaos: {lines} lines of the agent");
        // The check asked: what that fed is to be recorded too.
        check::drain(&yard, &load, DRAIN).await;
    }
    println!("chaos: {}", check::ledger(&yard, &load).await);
    check::audit(&yard, &watch).await;
    looking.cancel();
    while let Some(ended) = tasks.join_next().await {
        ended.unwrap();
    }
    yard.end().await;
    check::empty(&yard).await;
    println!("chaos: {}", watch.report());
    for what in yard.ended() {
        println!("chaos: {what}");
    }
    let violations = [watch.violations(), yard.violations()].concat();
    if !violations.is_empty() {
        let files = files.keep();
        panic!(
            "seed {}: {} violations; files and logs are in {}\n{}",
            settings.seed,
            violations.len(),
            files.display(),
            violations.join("\n")
        );
    }
}

/// Does one strike after the other; gives how often each fault was done.
async fn inject(yard: &Arc<Yard>, watch: &Arc<Watch>, begun: Instant) -> BTreeMap<String, u32> {
    let Settings {
        seed,
        seconds,
        hows,
        session,
        alone,
        ..
    } = &yard.settings;
    let mut counts = BTreeMap::new();
    for strike in Plan::new(*seed, hows, *session, *alone) {
        if begun.elapsed() > Duration::from_secs(*seconds) {
            break;
        }
        let mut together = JoinSet::new();
        for fault in strike.faults {
            println!("chaos: {:5.1} s {fault}", begun.elapsed().as_secs_f64());
            *counts
                .entry(format!("{} {}", fault.victim.kind(), fault.how.as_str()))
                .or_default() += 1;
            let (yard, watch) = (Arc::clone(yard), Arc::clone(watch));
            together.spawn(async move { yard.strike(fault, &watch).await });
        }
        while let Some(done) = together.join_next().await {
            done.unwrap();
        }
        tokio::time::sleep(strike.pause).await;
    }
    counts
}
