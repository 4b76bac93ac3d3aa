//! Jobs, and what the leader writes.

use super::*;
use crate::{Error, JobFilter, Progress};

#[tokio::test]
async fn jobs_come_back_as_they_were_submitted() {
    let fresh = Fresh::new().await;
    let mut jobs = vec![job(3, true), job(0, false)];
    jobs[1].spec.processor = Processor::Noop;
    fresh.store.submit(jobs.clone()).await.unwrap();
    fresh.store.submit(jobs.clone()).await.unwrap();
    assert_eq!(fresh.job(jobs[0].id).await, jobs[0]);
    assert_eq!(fresh.job(jobs[1].id).await, jobs[1]);
    assert_eq!(fresh.documents("jobs").await, 2);
    assert_eq!(fresh.store.job(JobId(Uuid::from_u128(9))).await.unwrap(), None);
}

#[tokio::test]
async fn more_jobs_than_one_command_takes_are_submitted() {
    let fresh = Fresh::new().await;
    let jobs: Vec<Job> = (0..2500).map(|_| job(1, false)).collect();
    fresh.store.submit(jobs.clone()).await.unwrap();
    assert_eq!(fresh.documents("jobs").await, 2500);
    let ids: Vec<JobId> = jobs.iter().map(|job| job.id).collect();
    let epoch = fresh.store.take_epoch("test").await.unwrap();
    fresh.store.admit(&ids, epoch).await.unwrap();
    assert_eq!(fresh.store.active().await.unwrap().len(), 2500);
    assert_eq!(fresh.store.progress(&ids).await.unwrap().len(), 2500);
}

#[tokio::test]
async fn prefixes_and_last_find_jobs() {
    let fresh = Fresh::new().await;
    assert!(matches!(
        fresh.store.resolve("last").await,
        Err(Error::NotFound { .. })
    ));
    let mut jobs = vec![job(1, false), job(1, false), job(1, false)];
    for (job, id) in jobs.iter_mut().zip([0xab00, 0xab01, 0xcd00_u128]) {
        job.id = JobId(Uuid::from_u128(id << 96));
    }
    fresh.store.submit(jobs.clone()).await.unwrap();
    assert_eq!(fresh.store.resolve("last").await.unwrap(), jobs[2].id);
    assert_eq!(fresh.store.resolve("0000cd").await.unwrap(), jobs[2].id);
    assert_eq!(fresh.store.resolve("0000AB01-0").await.unwrap(), jobs[1].id);
    assert_eq!(
        fresh.store.resolve(&jobs[0].id.to_string()).await.unwrap(),
        jobs[0].id
    );
    assert!(
        matches!(fresh.store.resolve("0000ab0").await, Err(Error::Ambiguous { matches, .. }) if matches.len() == 2)
    );
    for unknown in ["0000ef", "hello", ""] {
        assert!(
            matches!(fresh.store.resolve(unknown).await, Err(Error::NotFound { .. })),
            "{unknown:?}"
        );
    }
}

#[tokio::test]
async fn lists_the_newest_first_and_what_was_asked() {
    let fresh = Fresh::new().await;
    let mut jobs = vec![job(1, false), job(1, false), job(1, false)];
    jobs[1].spec.dataset = name("other");
    fresh.store.submit(jobs.clone()).await.unwrap();
    let epoch = fresh.store.take_epoch("test").await.unwrap();
    fresh.store.admit(&[jobs[2].id], epoch).await.unwrap();
    let list = async |filter: JobFilter| {
        let found = fresh.store.list(&filter).await.unwrap();
        found
            .into_iter()
            .map(|found| jobs.iter().position(|job| job.id == found.id).unwrap())
            .collect::<Vec<_>>()
    };
    assert_eq!(list(JobFilter::default()).await, [2, 1, 0]);
    assert_eq!(
        list(JobFilter {
            limit: Some(2),
            ..Default::default()
        })
        .await,
        [2, 1]
    );
    assert_eq!(
        list(JobFilter {
            limit: Some(0),
            ..Default::default()
        })
        .await,
        [0_usize; 0]
    );
    assert_eq!(
        list(JobFilter {
            states: vec![JobState::Pending],
            ..Default::default()
        })
        .await,
        [1, 0]
    );
    assert_eq!(
        list(JobFilter {
            dataset: Some(name("other")),
            ..Default::default()
        })
        .await,
        [1]
    );
}

#[tokio::test]
async fn pending_jobs_come_by_priority_then_age() {
    let fresh = Fresh::new().await;
    let mut jobs: Vec<Job> = (0..4).map(|_| job(1, false)).collect();
    jobs[2].spec.priority = Priority::new(999).unwrap();
    jobs[3].spec.priority = Priority::new(0).unwrap();
    fresh.store.submit(jobs.clone()).await.unwrap();
    let ids = async |limit| {
        let pending = fresh.store.pending(limit, None).await.unwrap();
        pending
            .into_iter()
            .map(|found| jobs.iter().position(|job| job.id == found.id).unwrap())
            .collect::<Vec<_>>()
    };
    assert_eq!(ids(10).await, [2, 0, 1, 3]);
    assert_eq!(ids(2).await, [2, 0]);
    assert_eq!(ids(0).await, [0_usize; 0]);
    let above = fresh.store.pending(10, Some(Priority::DEFAULT)).await.unwrap();
    assert_eq!(above.iter().map(|job| job.id).collect::<Vec<_>>(), [jobs[2].id]);
    fresh.store.request_cancel(jobs[2].id).await.unwrap();
    assert_eq!(ids(10).await, [2, 0, 1, 3]);
    assert!(fresh.store.pending(1, None).await.unwrap()[0].cancel_requested);
}

#[tokio::test]
async fn a_job_is_admitted_once_and_shows_its_progress() {
    let fresh = Fresh::new().await;
    let job = fresh.admitted(4, false).await;
    let staged = fresh.job(job).await;
    assert_eq!(staged.state, JobState::Staging);
    assert!(staged.admitted_ms.is_some());
    let later = fresh.store.take_epoch("test").await.unwrap();
    fresh.store.admit(&[job], later).await.unwrap();
    assert_eq!(fresh.job(job).await, staged, "only pending jobs are admitted");
    fresh.record(vec![succeeded(job, 0, 1)]).await;
    assert!(fresh.store.request_cancel(job).await.unwrap());
    let counts = Counts {
        ok: 1,
        busy_us: 1000,
        ..Counts::default()
    };
    let expected = Progress {
        id: job,
        state: JobState::Running,
        counts,
        cancel_requested: true,
    };
    assert_eq!(fresh.store.progress(&[job]).await.unwrap(), [expected]);
    assert_eq!(
        fresh
            .store
            .progress(&[job, JobId(Uuid::from_u128(1))])
            .await
            .unwrap(),
        [expected]
    );
    assert_eq!(fresh.store.progress(&[]).await.unwrap(), []);
}

#[tokio::test(flavor = "multi_thread")]
async fn epochs_are_never_given_twice() {
    let fresh = Fresh::new().await;
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..8 {
        let store = fresh.store.clone();
        tasks.spawn(async move { store.take_epoch("somebody").await.unwrap().0 });
    }
    let mut epochs = tasks.join_all().await;
    epochs.sort_unstable();
    assert_eq!(epochs, (1..=8).collect::<Vec<_>>());
}

#[tokio::test]
async fn a_deposed_leader_writes_nothing() {
    let fresh = Fresh::new().await;
    let old = fresh.store.take_epoch("old").await.unwrap();
    let (admitted, pending, cancelled) = (job(5, false), job(5, false), job(5, false));
    fresh
        .store
        .submit(vec![admitted.clone(), pending.clone(), cancelled.clone()])
        .await
        .unwrap();
    fresh.store.admit(&[admitted.id], old).await.unwrap();
    fresh.store.request_cancel(cancelled.id).await.unwrap();
    let new = fresh.store.take_epoch("new").await.unwrap();
    assert_eq!(new, epoch(old.0 + 1));
    fresh.store.adopt(&[admitted.id], new).await.unwrap();
    fresh.store.adopt(&[admitted.id], old).await.unwrap();
    let before = fresh.store.list(&JobFilter::default()).await.unwrap();

    let zero = Counts::default();
    let end = async |id, epoch| {
        fresh
            .store
            .end_job(id, epoch, JobState::Failed, 5, Some("x".into()), &zero)
            .await
    };
    assert!(
        matches!(fresh.store.admit(&[pending.id], old).await, Err(Error::Deposed { epoch }) if epoch == old.0)
    );
    assert!(matches!(
        fresh.store.cancel_pending(old).await,
        Err(Error::Deposed { .. })
    ));
    fresh
        .store
        .set_low_water(vec![(admitted.id, 3)], old)
        .await
        .unwrap();
    assert!(!end(admitted.id, old).await.unwrap());
    assert!(matches!(end(pending.id, old).await, Err(Error::Deposed { .. })));
    assert_eq!(fresh.store.list(&JobFilter::default()).await.unwrap(), before);

    fresh
        .store
        .set_low_water(vec![(admitted.id, 3), (pending.id, 0)], new)
        .await
        .unwrap();
    fresh
        .store
        .set_low_water(vec![(admitted.id, 2)], new)
        .await
        .unwrap();
    assert_eq!(fresh.job(admitted.id).await.low_water, 3);
    assert_eq!(fresh.store.cancel_pending(new).await.unwrap(), 1);
    assert_eq!(fresh.store.cancel_pending(new).await.unwrap(), 0);
    let cancelled = fresh.job(cancelled.id).await;
    assert_eq!(
        (cancelled.state, cancelled.counts.cancelled),
        (JobState::Cancelled, 5)
    );
    assert!(cancelled.finished_ms.is_some());
    assert!(end(admitted.id, new).await.unwrap());
    assert!(end(pending.id, new).await.unwrap());
    let failed = fresh.job(pending.id).await;
    assert_eq!(
        (failed.state, failed.error.as_deref()),
        (JobState::Failed, Some("x"))
    );
    assert!(!end(pending.id, new).await.unwrap(), "it has ended");
}

#[tokio::test]
async fn a_job_is_not_ended_over_an_end_that_was_not_seen() {
    let fresh = Fresh::new().await;
    let job = fresh.admitted(5, false).await;
    let seen = fresh.counts(job).await;
    fresh
        .record(vec![done(
            job,
            1,
            vec![end(0, 1, Outcome::Dead(failure("first")))],
        )])
        .await;
    let mine = epoch(1);
    let end = async |seen: &Counts| {
        fresh
            .store
            .end_job(job, mine, JobState::Failed, 4, None, seen)
            .await
            .unwrap()
    };
    assert!(!end(&seen).await);
    assert!(end(&fresh.counts(job).await).await);
    let ended = fresh.job(job).await;
    assert_eq!((ended.state, ended.counts.cancelled), (JobState::Failed, 4));
    assert_eq!(ended.error.as_deref(), Some("block 0: first"), "the reason stays");
}

#[tokio::test]
async fn only_what_has_not_ended_can_be_cancelled() {
    let fresh = Fresh::new().await;
    let job = fresh.admitted(1, false).await;
    assert!(fresh.store.request_cancel(job).await.unwrap());
    assert!(fresh.store.request_cancel(job).await.unwrap());
    assert!(fresh.job(job).await.cancel_requested);
    fresh.record(vec![succeeded(job, 0, 1)]).await;
    assert!(!fresh.store.request_cancel(job).await.unwrap());
    let nobody = JobId(Uuid::from_u128(7));
    assert!(matches!(
        fresh.store.request_cancel(nobody).await,
        Err(Error::NotFound { .. })
    ));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_leader_gets_a_word_in_while_watchers_record() {
    let fresh = Fresh::new().await;
    let job = fresh.admitted(4000, false).await;
    let recorder = tokio::spawn({
        let store = fresh.store.clone();
        async move {
            for part in 0..80 {
                store
                    .record(items(vec![succeeded(job, part * 50, 50)]))
                    .await
                    .unwrap();
            }
        }
    });
    let leader = fresh.other().await;
    let mut mark = 0;
    while !recorder.is_finished() {
        mark += 1;
        leader.set_low_water(vec![(job, mark)], epoch(1)).await.unwrap();
    }
    recorder.await.unwrap();
    let ended = fresh.job(job).await;
    assert_eq!((ended.counts.ok, ended.low_water), (4000, mark));
}

/// Begins a transaction of somebody else that holds what `filter` finds.
async fn held(by: &Store, collection: &str, filter: bson::Document) -> mongodb::ClientSession {
    let mut session = by.client().start_session().await.unwrap();
    session.start_transaction().await.unwrap();
    let touch = bson::doc! { "$set": { "note": 1 } };
    let documents = by.documents(collection);
    let touching = documents.update_one(filter, touch);
    let held = touching.session(&mut session).await.unwrap();
    assert_eq!(held.matched_count, 1, "nothing is held");
    session
}

/// Waits until somebody has said that a write of his is held up.
pub(super) async fn until_held_up(fresh: &Fresh) {
    let is_held_up = async || {
        let signs = bson::doc! { "signs": { "$gt": 0 } };
        let sessions = fresh.store.documents(crate::schema::SESSIONS);
        sessions.count_documents(signs).await.unwrap() > 0
    };
    testkit::wait::until_true(
        "a write to be held up",
        std::time::Duration::from_secs(20),
        is_held_up,
    )
    .await;
}

#[tokio::test]
async fn a_fenced_write_waits_for_the_transaction_of_somebody_else() {
    let fresh = Fresh::new().await;
    let job = job(1, false);
    let id = job.id;
    fresh.store.submit(vec![job]).await.unwrap();
    let leader = fresh.other().await;
    let epoch = leader.take_epoch("test").await.unwrap();
    let mut somebody = held(
        &fresh.store,
        crate::schema::JOBS,
        bson::doc! { "_id": crate::schema::uuid(id) },
    )
    .await;
    let admitting = tokio::spawn(async move { leader.admit(&[id], epoch).await });
    until_held_up(&fresh).await;
    assert!(!admitting.is_finished(), "it gave up");
    somebody.commit_transaction().await.unwrap();
    admitting.await.unwrap().unwrap();
    assert_eq!(fresh.job(id).await.state, JobState::Staging);
    let next = fresh.store.take_epoch("next").await.unwrap();
    assert_eq!(next.0, epoch.0 + 1, "nobody took office meanwhile");
}

#[tokio::test]
async fn a_fenced_write_of_a_deposed_leader_leaves_no_transaction_behind() {
    let fresh = Fresh::new().await;
    let job = job(1, false);
    let id = job.id;
    fresh.store.submit(vec![job]).await.unwrap();
    let leader = fresh.other().await;
    let epoch = leader.take_epoch("test").await.unwrap();
    let next = fresh.store.take_epoch("next").await.unwrap();
    for _ in 0..3 {
        let deposed = leader.admit(&[id], epoch).await.unwrap_err();
        assert!(matches!(deposed, Error::Deposed { .. }), "{deposed}");
    }
    fresh.store.admit(&[id], next).await.unwrap();
    assert_eq!(fresh.job(id).await.state, JobState::Staging);
}

#[tokio::test]
async fn appending_waits_for_the_transaction_of_somebody_else() {
    let fresh = Fresh::new().await;
    let access = name("access");
    fresh.store.create(&access).await.unwrap();
    let appender = fresh.other().await;
    let filter = bson::doc! { "_id": "access" };
    let mut somebody = held(&fresh.store, crate::schema::DATASETS, filter).await;
    let blocks = vec![model::Block::inline("a\n")];
    let appending = tokio::spawn(async move { appender.append_blocks(&name("access"), blocks).await });
    until_held_up(&fresh).await;
    assert!(!appending.is_finished(), "it gave up");
    somebody.abort_transaction().await.unwrap();
    appending.await.unwrap().unwrap();
    assert_eq!(fresh.store.get(&access).await.unwrap().unwrap().blocks, 1);
}

#[tokio::test]
async fn sessions_of_transactions_serve_no_reads() {
    let fresh = Fresh::new().await;
    let store = &fresh.store;
    let first = store.known_session().await.unwrap();
    let id = first.id().clone();
    store.give_back(first);
    // Where the driver takes sessions of reads from.
    let mut others = Vec::new();
    for _ in 0..8 {
        others.push(store.client().start_session().await.unwrap());
    }
    assert!(others.iter().all(|other| other.id() != &id));
    assert_eq!(
        store.known_session().await.unwrap().id(),
        &id,
        "the next transaction has it"
    );
}
