//! What goes when, and what must stay.

use std::time::Duration;

use super::*;
use crate::{
    Pruned, Retention, Spill,
    schema::{FAILURES, RESULTS},
};

const DAY: i64 = 24 * 3600 * 1000;

/// A job of two blocks with a spilled and a plain result and a failure; ended unless `runs`.
async fn lived(fresh: &Fresh, runs: bool) -> JobId {
    let job = fresh.admitted(if runs { 3 } else { 2 }, false).await;
    let output = fresh
        .store
        .put_output(job, "0-1", Spill::Bytes(b"large".to_vec()))
        .await
        .unwrap();
    let stored = Outcome::Ok {
        output,
        fingerprint: None,
        stderr_tail: String::new(),
    };
    fresh
        .store
        .put_output(job, "0-0", Spill::Bytes(b"of a lost attempt".to_vec()))
        .await
        .unwrap();
    fresh
        .record(vec![done(job, 1, vec![end(1, 1, Outcome::Lost)])])
        .await;
    fresh
        .record(vec![done(job, 1, vec![end(0, 1, stored)]), succeeded(job, 1, 1)])
        .await;
    job
}

fn objects(fresh: &Fresh, job: JobId) -> usize {
    let Ok(mills) = std::fs::read_dir(fresh.folder.path().join("outputs")) else {
        return 0;
    };
    let of_job = |mill: std::fs::DirEntry| {
        std::fs::read_dir(mill.path().join(job.to_string())).map_or(0, Iterator::count)
    };
    mills.map(|mill| of_job(mill.unwrap())).sum()
}

#[tokio::test]
async fn results_go_first_and_jobs_later() {
    let fresh = Fresh::new().await;
    let (ended, running) = (lived(&fresh, false).await, lived(&fresh, true).await);
    let now = fresh.job(ended).await.finished_ms.unwrap();
    let prune = async |days| {
        fresh
            .store
            .prune(now + days * DAY, Retention::default())
            .await
            .unwrap()
    };
    // The sweep takes the object of the lost attempt; everything else is young.
    assert_eq!(
        prune(1).await,
        Pruned {
            objects: 1,
            ..Pruned::default()
        }
    );
    assert_eq!((objects(&fresh, ended), objects(&fresh, running)), (1, 2));
    assert_eq!(
        prune(8).await,
        Pruned {
            results: 2,
            objects: 1,
            ..Pruned::default()
        }
    );
    assert_eq!(prune(9).await, Pruned::default());
    assert_eq!(fresh.job(ended).await.state, JobState::Successful);
    assert_eq!(fresh.store.failures(ended, 10).await.unwrap().len(), 1);
    assert_eq!(
        prune(31).await,
        Pruned {
            jobs: 1,
            failures: 1,
            ..Pruned::default()
        }
    );
    assert_eq!(fresh.store.job(ended).await.unwrap(), None);
    assert_eq!(fresh.counts(running).await.ok, 2);
    assert_eq!(
        (fresh.documents(RESULTS).await, fresh.documents(FAILURES).await),
        (2, 1)
    );
    assert_eq!((objects(&fresh, ended), objects(&fresh, running)), (0, 2));
}

#[tokio::test]
async fn a_job_never_goes_before_its_results() {
    let fresh = Fresh::new().await;
    let job = lived(&fresh, false).await;
    let now = fresh.job(job).await.finished_ms.unwrap();
    let retention = Retention {
        results: Duration::from_secs(90 * 24 * 3600),
        jobs: Duration::from_secs(60),
    };
    let pruned = fresh.store.prune(now + 120_000, retention).await.unwrap();
    assert_eq!(
        pruned,
        Pruned {
            results: 2,
            failures: 1,
            jobs: 1,
            objects: 2
        }
    );
    assert_eq!(fresh.documents(RESULTS).await, 0);
}

#[tokio::test]
async fn the_sweep_takes_what_no_job_has() {
    let fresh = Fresh::new().await;
    let running = lived(&fresh, true).await;
    let nobody = JobId(Uuid::now_v7());
    fresh
        .store
        .put_output(nobody, "x", Spill::Bytes(b"orphan".to_vec()))
        .await
        .unwrap();
    std::fs::create_dir_all(fresh.folder.path().join("outputs/not-a-job")).unwrap();
    std::fs::write(fresh.folder.path().join("outputs/not-a-job/x"), "foreign").unwrap();
    let now = crate::schema::now_ms();
    assert_eq!(fresh.store.sweep(now).await.unwrap(), 0, "it is young");
    assert_eq!(fresh.store.sweep(now + DAY).await.unwrap(), 1);
    assert_eq!(objects(&fresh, running), 2);
    assert!(fresh.folder.path().join("outputs/not-a-job/x").exists());
}

#[tokio::test]
async fn mills_that_share_a_block_store_sweep_nothing_of_each_other() {
    let (mine, other) = (Fresh::new().await, Fresh::new().await);
    let theirs = Store::open(&config(&other.space, &mine.folder)).await.unwrap();
    theirs.init().await.unwrap();
    let job = JobId(Uuid::now_v7());
    let output = theirs
        .put_output(job, "x", Spill::Bytes(b"kept".to_vec()))
        .await
        .unwrap();
    let later = crate::schema::now_ms() + DAY;
    assert_eq!(mine.store.sweep(later).await.unwrap(), 0);
    theirs.read_output(&output).await.unwrap();
    assert_eq!(theirs.sweep(later).await.unwrap(), 1, "its own sweep takes it");
}
