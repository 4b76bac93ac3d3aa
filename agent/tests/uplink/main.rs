//! Agents and shipments against a dispatcher and a worker that break the rules when told to.
#![allow(clippy::unwrap_used, missing_docs, unreachable_pub)]

mod mill;

use std::{
    fs::{self, OpenOptions},
    io::Write as _,
    path::{Path, PathBuf},
    time::Duration,
};

use agent::{After, Config, Error, Fate, Source, Timing};
use api::transport::Security;
use mill::{Fault, Mill};
use model::Name;
use testkit::wait;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

const SOON: Duration = Duration::from_secs(20);

struct Place {
    dir: tempfile::TempDir,
    mill: Mill,
}

struct Running {
    cancel: CancellationToken,
    task: JoinHandle<Result<(), Error>>,
}

impl Running {
    async fn stop(self) {
        self.cancel.cancel();
        self.task.await.unwrap().unwrap();
    }
}

impl Place {
    async fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("logs")).unwrap();
        Self {
            dir,
            mill: Mill::start().await,
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join("logs").join(name)
    }

    fn config(&self, patterns: &[&str]) -> Config {
        let patterns = patterns
            .iter()
            .map(|pattern| self.path(pattern).display().to_string());
        let ms = Duration::from_millis;
        Config {
            name: Name::new("web7").unwrap(),
            host: "web7".to_string(),
            zone: String::new(),
            servers: vec!["127.0.0.1:1".to_string(), self.mill.address.clone()],
            security: Security::Plain,
            state: self.dir.path().join("state"),
            spool_bytes: 4 << 20,
            block_bytes: 64 << 10,
            age: ms(20),
            multiline_start: None,
            sources: vec![Source {
                dataset: Name::new("access").unwrap(),
                patterns: patterns.collect(),
            }],
            keeping: agent::Keeping::Shared,
            follow_links: false,
            after: After::Keep,
            stop_grace: SOON,
            timing: Timing {
                poll: ms(50),
                scan: ms(50),
                quiet: ms(100),
                report: ms(20),
                connect: Duration::from_secs(5),
                answer: Duration::from_secs(2),
                offer: ms(500),
                retry: (ms(10), ms(50)),
                ..Timing::default()
            },
        }
    }

    /// Blocks in the spool.
    fn spooled(&self) -> usize {
        let folders = fs::read_dir(self.dir.path().join("state/spool"));
        let folders = folders.into_iter().flatten().flatten();
        let files = folders.flat_map(|folder| fs::read_dir(folder.path()).into_iter().flatten().flatten());
        let is_block = |file: &fs::DirEntry| file.path().extension().is_some_and(|ending| ending == "block");
        files.filter(is_block).count()
    }

    fn start(&self, config: Config) -> Running {
        let cancel = CancellationToken::new();
        Running {
            cancel: cancel.clone(),
            task: tokio::spawn(agent::run(config, cancel)),
        }
    }

    async fn arrives(&self, text: &str) {
        wait::until_ok("all lines", SOON, async || {
            let seen = self.mill.text("access");
            match seen == text {
                true => Ok(()),
                false => Err(format!("{} of {} bytes", seen.len(), text.len())),
            }
        })
        .await;
    }

    async fn ship(&self, config: Config, again: bool) -> Vec<(PathBuf, Fate)> {
        let shipment = agent::ship(config, again, CancellationToken::new(), |_| {});
        shipment.await.unwrap().fates
    }
}

fn append(path: &Path, text: &str) {
    let mut file = OpenOptions::new().create(true).append(true).open(path).unwrap();
    file.write_all(text.as_bytes()).unwrap();
}

/// Lines that do not compress to nothing.
fn lines(first: u32, count: u32) -> String {
    (first..first + count)
        .map(|line| {
            format!(
                "line {line} {:x}\n",
                blake3::hash(&line.to_le_bytes()).as_bytes()[0]
            )
        })
        .collect()
}

fn shipped(bytes: u64) -> Fate {
    Fate::Shipped {
        bytes,
        nodes: Vec::new(),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn lines_arrive_once_whatever_the_worker_does() {
    let place = Place::new().await;
    let log = place.path("a.log");
    let running = place.start(place.config(&["a.log*"]));
    let mut all = String::new();
    let faults = [
        Fault::Corrupt,
        Fault::LoseAnswer,
        Fault::Disconnect,
        Fault::Corrupt,
        Fault::Leave,
        Fault::Store,
        Fault::Hang,
    ];
    for (round, fault) in faults.into_iter().enumerate() {
        place.mill.break_next(&[fault]);
        let text = lines(all.lines().count() as u32, 20_000);
        append(&log, &text);
        all += &text;
        if round == 2 {
            fs::rename(&log, place.path("a.log.1")).unwrap();
        }
        place.arrives(&all).await;
    }
    assert!(place.mill.look(|state| state.faults.is_empty()));
    wait::until_true("reports", SOON, async || {
        place.mill.look(|state| state.reports > 3)
    })
    .await;
    running.stop().await;
    let (hellos, verified) = place.mill.look(|state| (state.hellos.clone(), state.verified));
    // Sent on by the worker, it avoids that one.
    assert!(hellos.iter().any(|(avoid, _)| avoid.contains(&1)), "{hellos:?}");
    assert!(hellos.windows(2).all(|two| two[0].1 < two[1].1), "{hellos:?}");
    assert_eq!(verified, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_shipped_waits_in_the_spool_for_the_next_start() {
    let place = Place::new().await;
    let log = place.path("a.log");
    place.mill.look(|state| state.paused = true);
    let text = lines(0, 5000);
    append(&log, &text[..100]);
    let config = Config {
        stop_grace: Duration::ZERO,
        ..place.config(&["a.log"])
    };
    let running = place.start(config.clone());
    wait::until_true("the agent", SOON, async || {
        place.mill.look(|state| state.connections > 0)
    })
    .await;
    running.stop().await;
    append(&log, &text[100..]);
    place.mill.look(|state| state.paused = false);
    let second = agent::run(config.clone(), CancellationToken::new());
    let running = place.start(config);
    place.arrives(&text).await;
    // The directory has one process at a time.
    assert!(matches!(second.await, Err(Error::InUse { .. })));
    append(&log, "no line feed yet");
    append(&log, ", but now\n");
    place.arrives(&format!("{text}no line feed yet, but now\n")).await;
    running.stop().await;
    assert_eq!(
        fs::read_dir(place.dir.path().join("state/spool/access"))
            .unwrap()
            .count(),
        0
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_spool_stops_reading_and_loses_nothing() {
    let place = Place::new().await;
    let log = place.path("a.log");
    place.mill.look(|state| state.bad_offers = u32::MAX);
    // Nothing compresses these.
    let text: String = (0..30_000_u32)
        .map(|line| format!("{}\n", blake3::hash(&line.to_le_bytes()).to_hex()))
        .collect();
    append(&log, &text);
    let config = Config {
        spool_bytes: 256 << 10,
        ..place.config(&["a.log"])
    };
    let running = place.start(config);
    let spool = place.dir.path().join("state/spool/access");
    let spooled = || -> u64 {
        let files = fs::read_dir(&spool).into_iter().flatten().flatten();
        files.filter_map(|file| Some(file.metadata().ok()?.len())).sum()
    };
    wait::until_true("the spool to fill", SOON, async || spooled() > 128 << 10).await;
    // What it was found too full for is in none of its files.
    assert!(spooled() < 512 << 10, "{}", spooled());
    place.mill.look(|state| state.bad_offers = 0);
    place.arrives(&text).await;
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn rotated_files_are_removed_once_they_are_registered() {
    let place = Place::new().await;
    let log = place.path("a.log");
    let config = Config {
        after: After::MoveTo(place.dir.path().join("done")),
        ..place.config(&["a.log*"])
    };
    let running = place.start(config);
    append(&log, "one\n");
    place.arrives("one\n").await;
    fs::rename(&log, place.path("a.log.1")).unwrap();
    append(&log, "two\n");
    place.arrives("one\ntwo\n").await;
    wait::until_true("the old one to move", SOON, async || {
        place.dir.path().join("done/a.log.1").exists()
    })
    .await;
    assert!(log.exists() && !place.path("a.log.1").exists());
    running.stop().await;
    assert!(log.exists());
    assert!(place.mill.look(|state| state.verified) >= 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_shipment_knows_what_it_has_shipped() {
    let place = Place::new().await;
    let text = lines(0, 9000);
    fs::write(place.path("a.log"), &text).unwrap();
    fs::write(place.path("empty.log"), "").unwrap();
    let mut config = place.config(&["a.log", "empty.log"]);
    place.mill.break_next(&[Fault::Corrupt, Fault::LoseAnswer]);
    let bytes = text.len() as u64;
    let [a, empty] = ["a.log", "empty.log"].map(|name| place.path(name));
    let expected = vec![(a.clone(), shipped(bytes)), (empty, shipped(0))];
    assert_eq!(place.ship(config.clone(), false).await, expected);
    assert_eq!(place.mill.text("access"), text);
    assert!(place.mill.look(|state| state.verified > 0));

    config.sources[0].patterns.truncate(1);
    assert_eq!(
        place.ship(config.clone(), false).await,
        [(a.clone(), Fate::Already)]
    );
    // Only what is new of it.
    append(&a, "more");
    assert_eq!(place.ship(config.clone(), false).await, [(a.clone(), shipped(4))]);
    assert_eq!(place.mill.text("access"), format!("{text}more"));
    let again = place.ship(config.clone(), true).await;
    assert_eq!(again, [(a.clone(), shipped(bytes + 4))]);
    assert_eq!(place.mill.text("access"), format!("{text}more{text}more"));

    // Broken three times, it stays, and is shipped the next time.
    config.after = After::Delete;
    append(&a, "\nlast\n");
    place.mill.break_next(&[Fault::Corrupt; 3]);
    let fates = place.ship(config.clone(), false).await;
    assert!(
        matches!(&fates[..], [(_, Fate::Failed { why })] if why.contains("it arrived broken")),
        "{fates:?}"
    );
    assert!(a.exists());
    // Removed only when nobody has written to it for a while.
    config.timing.quiet = Duration::from_secs(1);
    append(&a, "late\n");
    let written = fs::metadata(&a).unwrap().modified().unwrap();
    let fates = place.ship(config.clone(), false).await;
    assert!(written.elapsed().unwrap() >= config.timing.quiet);
    assert!(
        matches!(&fates[..], [(_, Fate::Shipped { .. } | Fate::Already)]),
        "{fates:?}"
    );
    assert!(!a.exists() && place.mill.text("access").ends_with("more\nlast\nlate\n"));

    config.sources[0].patterns = vec![place.path("missing").display().to_string()];
    let missing = agent::ship(config, false, CancellationToken::new(), |_| {}).await;
    assert!(matches!(missing, Err(Error::BadFile { .. })));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_refused_leaves_nothing_behind() {
    let place = Place::new().await;
    let (log, text) = (place.path("a.log"), lines(0, 20_000));
    fs::write(&log, &text).unwrap();
    let config = place.config(&["a.log"]);
    let into = |dataset: &str| {
        let mut config = config.clone();
        config.sources[0].dataset = Name::new(dataset).unwrap();
        config
    };
    let refused = async |config: Config, why: &str| {
        let shipment = agent::ship(config, false, CancellationToken::new(), |_| {});
        let shipment = shipment.await.unwrap();
        let fates = &shipment.fates[..];
        assert!(
            matches!(fates, [(_, Fate::Failed { why: told })] if told.contains(why)),
            "{fates:?}"
        );
        shipment.waiting
    };
    // For its first block, and for one in the midst.
    for faults in [
        &[Fault::NoNode][..],
        &[Fault::Corrupt; 3],
        &[Fault::Pass, Fault::Pass, Fault::NoNode],
    ] {
        place.mill.break_next(faults);
        let waiting = refused(config.clone(), "refused").await;
        assert!(waiting.is_empty(), "{waiting:?}");
        assert_eq!(place.spooled(), 0);
    }
    place
        .mill
        .look(|state| state.forbidden = Some("secret".to_string()));
    assert!(refused(into("secret"), "not allowed").await.is_empty());
    // The corrected command ships each line once, into whichever dataset.
    let other = place.ship(into("other"), false).await;
    assert_eq!(other, [(log.clone(), shipped(text.len() as u64))]);
    assert_eq!(place.mill.text("other"), text);
    assert!(place.mill.text("access").len() < text.len());
    let rest = place.ship(config.clone(), false).await;
    assert!(matches!(&rest[..], [(_, Fate::Shipped { .. })]), "{rest:?}");
    assert_eq!(place.mill.text("access"), text);
    assert_eq!(place.mill.text("secret"), "");

    // A worker that has gone may have registered what it was sent: that is kept, and comes once too.
    place.mill.break_next(&[Fault::Disconnect, Fault::NoNode]);
    let waiting = refused(into("third"), "refused").await;
    assert!(waiting.values().sum::<u64>() > 0);
    assert_eq!(place.spooled() as u64, waiting.values().sum::<u64>());
    place.ship(into("third"), false).await;
    assert_eq!(place.mill.text("third"), text);
    assert_eq!(place.spooled(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_an_interrupted_shipment_has_left_comes_once_into_the_dataset_that_it_makes() {
    let place = Place::new().await;
    let text = lines(0, 20_000);
    fs::write(place.path("a.log"), &text).unwrap();
    let config = place.config(&["a.log"]);
    for (dataset, faults) in [("one", &[][..]), ("two", &[Fault::LoseAnswer])] {
        let mut config = config.clone();
        config.sources[0].dataset = Name::new(dataset).unwrap();
        place.mill.break_next(&[Fault::Hang]);
        let cancel = CancellationToken::new();
        let shipment = tokio::spawn(agent::ship(config.clone(), false, cancel.clone(), |_| {}));
        wait::until_true("blocks in the spool", SOON, async || place.spooled() > 0).await;
        cancel.cancel();
        let stopped = shipment.await.unwrap().unwrap();
        assert!(stopped.waiting.values().sum::<u64>() > 0, "{stopped:?}");
        assert_eq!(place.mill.text(dataset), "");
        place.mill.break_next(faults);
        place.ship(config, false).await;
        assert!(place.mill.text(dataset) == text, "{dataset}: not each line once");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn links_are_shipped_only_when_they_are_asked_for() {
    let place = Place::new().await;
    fs::write(place.path("secret"), "secret\n").unwrap();
    fs::write(place.path("a.log"), "a line\n").unwrap();
    let link = place.path("link.log");
    std::os::unix::fs::symlink(place.path("secret"), &link).unwrap();
    let named = place.config(&["link.log"]);
    let shipment = agent::ship(named.clone(), false, CancellationToken::new(), |_| {}).await;
    let followed = agent::run(named.clone(), CancellationToken::new()).await;
    for refused in [shipment.unwrap_err(), followed.unwrap_err()] {
        assert!(refused.is_usage() && refused.to_string().contains("--follow-links"));
    }
    let fates = place.ship(place.config(&["*.log"]), false).await;
    assert_eq!(fates, [(place.path("a.log"), shipped(7))]);
    assert_eq!(place.mill.text("access"), "a line\n");
    // Asked for, it is read, and it is no file to be removed.
    let config = Config {
        follow_links: true,
        after: After::Delete,
        ..named
    };
    let fates = place.ship(config, false).await;
    assert!(
        matches!(&fates[..], [(_, Fate::Failed { why })] if why.contains("symbolic link")),
        "{fates:?}"
    );
    assert_eq!(place.mill.text("access"), "a line\nsecret\n");
    assert!(link.exists() && place.path("secret").exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mill_that_was_restored_gets_what_it_has_lost() {
    let place = Place::new().await;
    let log = place.path("a.log");
    let config = place.config(&["a.log*"]);
    let running = place.start(config.clone());
    let first = lines(0, 20_000);
    append(&log, &first);
    place.arrives(&first).await;
    let backup = place.mill.look(|state| state.clone());
    let second = lines(20_000, 20_000);
    append(&log, &second);
    place.arrives(&format!("{first}{second}")).await;
    fs::rename(&log, place.path("a.log.1")).unwrap();
    append(&log, "third\n");
    place.arrives(&format!("{first}{second}third\n")).await;
    running.stop().await;
    // What the backup does not have is read again, from where it is by now; nothing comes twice.
    let restore = |state: &mut mill::State| {
        (state.registered, state.raw) = (backup.registered.clone(), backup.raw.clone());
        state.ended = backup.ended.clone();
    };
    place.mill.look(restore);
    append(&log, "fourth\n");
    let running = place.start(config.clone());
    let sorted = |text: &str| {
        let mut lines: Vec<String> = text.lines().map(str::to_string).collect();
        lines.sort();
        lines
    };
    let all = sorted(&format!("{first}{second}third\nfourth\n"));
    wait::until_equal("all lines, each once", SOON, all.clone(), async || {
        sorted(&place.mill.text("access"))
    })
    .await;
    // A second time, and while the agent runs: what was shipped once more is known as well.
    place.mill.look(restore);
    place.mill.break_next(&[Fault::Disconnect]);
    append(&log, "fifth\n");
    let all = sorted(&format!("{first}{second}third\nfourth\nfifth\n"));
    wait::until_equal("all lines, each once", SOON, all.clone(), async || {
        sorted(&place.mill.text("access"))
    })
    .await;
    running.stop().await;

    // Another mill: nothing is sent, and the error names both.
    let spooled = fs::read(place.path("../state/lanes.json")).unwrap();
    place.mill.look(|state| {
        *state = mill::State {
            id: 2,
            ..mill::State::default()
        }
    });
    append(&log, "sixth\n");
    let other = agent::run(config.clone(), CancellationToken::new())
        .await
        .unwrap_err();
    let told = other.to_string();
    let ids = [1, 2].map(|id| uuid::Uuid::from_u128(id).to_string());
    assert!(
        matches!(other, Error::OtherMill { .. }) && !other.is_usage(),
        "{told}"
    );
    assert!(
        ids.iter().all(|id| told.contains(id)) && told.contains("--state"),
        "{told}"
    );
    let shipped = agent::ship(config, false, CancellationToken::new(), |_| {}).await;
    assert!(matches!(shipped, Err(Error::OtherMill { .. })), "{shipped:?}");
    assert_eq!(place.mill.text("access"), "");
    assert_eq!(fs::read(place.path("../state/lanes.json")).unwrap(), spooled);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dataset_made_anew_has_nothing_of_what_was_shipped() {
    let place = Place::new().await;
    let text = lines(0, 3000);
    let [a, b] = ["a.log", "b.log"].map(|name| place.path(name));
    fs::write(&a, &text).unwrap();
    fs::write(&b, "b\n").unwrap();
    let config = place.config(&["a.log"]);
    let bytes = text.len() as u64;
    let whole = [(a.clone(), shipped(bytes))];
    assert_eq!(place.ship(config.clone(), false).await, whole);
    assert_eq!(
        place.ship(config.clone(), false).await,
        [(a.clone(), Fate::Already)]
    );
    let remove = |state: &mut mill::State| {
        state.raw.clear();
        state.incarnations.clear();
    };
    // Removed: it is shipped again; made anew in between: the same.
    place.mill.look(remove);
    assert_eq!(place.ship(config.clone(), false).await, whole);
    place.mill.look(remove);
    place
        .mill
        .look(|state| state.incarnations.insert("access".to_string(), 777));
    assert_eq!(place.ship(config.clone(), false).await, whole);
    assert_eq!(place.mill.text("access"), text);
    assert_eq!(
        place.ship(config.clone(), false).await,
        [(a.clone(), Fate::Already)]
    );

    // What was refused leaves nothing behind, for another dataset as for its own.
    fs::write(&a, "left\n").unwrap();
    place.mill.break_next(&[Fault::Corrupt; 3]);
    let fates = place.ship(config.clone(), false).await;
    assert!(matches!(&fates[..], [(_, Fate::Failed { .. })]), "{fates:?}");
    let mut other = config.clone();
    other.sources[0].dataset = Name::new("other").unwrap();
    other.sources[0].patterns = vec![b.display().to_string()];
    let shipment = agent::ship(other, false, CancellationToken::new(), |_| {})
        .await
        .unwrap();
    assert!(shipment.leftovers.is_empty());
    assert_eq!(shipment.fates, [(b, shipped(2))]);
    assert_eq!(
        (place.mill.text("access"), place.mill.text("other")),
        (text.to_string(), "b\n".to_string())
    );
    let fates = place.ship(config, false).await;
    assert!(matches!(&fates[..], [(_, Fate::Shipped { .. })]), "{fates:?}");
    assert_eq!(place.mill.text("access"), format!("{text}left\n"));
}

/// Lines that nothing compresses.
fn noise(count: u32) -> String {
    (0..count)
        .map(|line| format!("{}\n", blake3::hash(&line.to_le_bytes()).to_hex()))
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dataset_that_is_not_allowed_keeps_no_other_waiting() {
    let place = Place::new().await;
    let [open, secret] = ["open.log", "secret.log"].map(|name| place.path(name));
    place
        .mill
        .look(|state| state.forbidden = Some("secret".to_string()));
    let text = noise(30_000);
    append(&secret, &text);
    let mut config = place.config(&["open.log"]);
    config.spool_bytes = 512 << 10;
    config.sources.push(Source {
        dataset: Name::new("secret").unwrap(),
        patterns: vec![secret.display().to_string()],
    });
    let running = place.start(config);
    append(&open, &text);
    place.arrives(&text).await;
    let spooled = fs::read_dir(place.dir.path().join("state/spool/secret")).unwrap();
    let spooled: u64 = spooled.map(|file| file.unwrap().metadata().unwrap().len()).sum();
    assert!(spooled < 512 << 10, "{spooled}");
    // Once it is allowed, the next connection ships it.
    place.mill.look(|state| state.forbidden = None);
    place.mill.break_next(&[Fault::Disconnect]);
    append(&open, "more\n");
    wait::until_true("what was not allowed", SOON, async || {
        place.mill.text("secret") == text
    })
    .await;
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_is_refused_all_the_time_becomes_patient() {
    let place = Place::new().await;
    place.mill.look(|state| state.breaks_all = true);
    let log = place.path("a.log");
    append(&log, "line\n");
    let mut config = place.config(&["a.log"]);
    config.servers.remove(0);
    config.timing.retry = (Duration::from_millis(100), SOON);
    config.stop_grace = Duration::ZERO;
    let begin = std::time::Instant::now();
    let running = place.start(config);
    wait::until_true("five connections", SOON, async || {
        place.mill.look(|state| state.connections) >= 5
    })
    .await;
    // At least half of 100, 200, 400 and 800 ms; without patience each pause has 100 at most.
    assert!(
        begin.elapsed() >= Duration::from_millis(750),
        "{:?}",
        begin.elapsed()
    );
    place.mill.look(|state| state.breaks_all = false);
    place.arrives("line\n").await;
    running.stop().await;
}
