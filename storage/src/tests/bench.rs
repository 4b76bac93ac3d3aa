//! How fast ends are recorded: `cargo test --release -p sawmill-storage -- --ignored --nocapture bench`.

use std::time::Instant;

use super::*;

/// Documents per transaction.
const BATCH: u32 = 1000;

async fn measure(fresh: &Fresh, jobs: u32, subtasks: u32, in_flight: usize) -> f64 {
    let mut ids = Vec::new();
    for _ in 0..jobs {
        ids.push(fresh.admitted(subtasks / jobs, false).await);
    }
    let text = "x".repeat(200);
    let mut batches = Vec::new();
    for from in (0..subtasks / jobs).step_by(BATCH as usize) {
        for &id in &ids {
            // Entries of a hundred, as a busy mill makes them.
            let entries = (from..from + BATCH).step_by(100);
            let ends = |from: u32| (from..from + 100).map(|index| end(index, 1, ok(&text))).collect();
            batches.push(entries.map(|from| done(id, 1, ends(from))).collect::<Vec<_>>());
        }
    }
    let begin = Instant::now();
    let batches = std::sync::Arc::new(tokio::sync::Mutex::new(batches.into_iter()));
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..in_flight {
        let (store, batches) = (fresh.store.clone(), batches.clone());
        tasks.spawn(async move {
            loop {
                let Some(batch) = batches.lock().await.next() else {
                    break;
                };
                store.record(items(batch)).await.unwrap();
            }
        });
    }
    tasks.join_all().await;
    let rate = f64::from(subtasks) / begin.elapsed().as_secs_f64();
    for id in ids {
        assert_eq!(fresh.job(id).await.state, JobState::Successful);
    }
    rate
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "a measurement"]
async fn bench_recording() {
    let fresh = Fresh::new().await;
    measure(&fresh, 1, 20_000, 2).await;
    for (jobs, in_flight) in [(1, 1), (1, 2), (2, 2), (1, 3)] {
        let rate = measure(&fresh, jobs, 100_000, in_flight).await;
        println!("{jobs} jobs, {in_flight} batches in flight: {rate:.0} documents/s");
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "a measurement"]
async fn bench_small_jobs() {
    let fresh = Fresh::new().await;
    let jobs: Vec<Job> = (0..50_000).map(|_| job(1, false)).collect();
    let ids: Vec<JobId> = jobs.iter().map(|job| job.id).collect();
    let begin = Instant::now();
    let mut lap = begin;
    let mut say = |what: &str| {
        println!(
            "{what}: {:.0} jobs/s",
            ids.len() as f64 / lap.elapsed().as_secs_f64()
        );
        lap = Instant::now();
    };
    fresh.store.submit(jobs).await.unwrap();
    say("submit");
    let epoch = fresh.store.take_epoch("test").await.unwrap();
    loop {
        let some: Vec<JobId> = fresh
            .store
            .pending(1000, None)
            .await
            .unwrap()
            .iter()
            .map(|job| job.id)
            .collect();
        if some.is_empty() {
            break;
        }
        fresh.store.admit(&some, epoch).await.unwrap();
    }
    say("pending and admit");
    for some in ids.chunks(1000) {
        fresh
            .record(some.iter().map(|&id| succeeded(id, 0, 1)).collect())
            .await;
    }
    say("record");
    for some in ids.chunks(1000) {
        fresh.store.progress(some).await.unwrap();
    }
    say("progress");
}
