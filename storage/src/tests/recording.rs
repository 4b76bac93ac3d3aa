//! Exactly once, whatever is repeated, collides or is refused.

use std::time::Duration;

use bson::doc;

use model::outcome::{Death, Evidence};

use super::*;
use crate::schema::{FAILURES, JOBS, LEADER, RESULTS};

/// Far less than the minute after which MongoDB itself ends a forgotten transaction.
const SOON: Duration = Duration::from_secs(20);

/// What a process leaves behind that is killed inside a transaction: nobody aborts it.
async fn die_inside_a_transaction(dead: &Store, collection: &str, filter: bson::Document) {
    let mut session = dead.known_session().await.unwrap();
    session.start_transaction().await.unwrap();
    let touch = doc! { "$inc": { "writes": 1_i64 } };
    let held = dead
        .documents(collection)
        .update_one(filter, touch)
        .session(&mut session)
        .await
        .unwrap();
    assert_eq!(held.matched_count, 1, "nothing is held");
    std::mem::forget(session);
}

#[tokio::test]
async fn the_transaction_of_a_dead_watcher_blocks_nobody_for_long() {
    let fresh = Fresh::new().await;
    let job = fresh.admitted(1, false).await;
    die_inside_a_transaction(
        &fresh.other().await,
        JOBS,
        doc! { "_id": crate::schema::uuid(job) },
    )
    .await;
    let recorded = fresh.store.record(items(vec![succeeded(job, 0, 1)]));
    let recorded = tokio::time::timeout(SOON, recorded)
        .await
        .expect("it is still blocked")
        .unwrap();
    assert_eq!(recorded.refused, []);
    assert_eq!(fresh.job(job).await.state, JobState::Successful);
}

#[tokio::test]
async fn the_transaction_of_a_dead_leader_blocks_no_successor_for_long() {
    let fresh = Fresh::new().await;
    let before = fresh.store.take_epoch("dead").await.unwrap();
    die_inside_a_transaction(&fresh.other().await, LEADER, doc! {}).await;
    let taken = tokio::time::timeout(SOON, fresh.store.take_epoch("next"))
        .await
        .expect("it is still blocked");
    assert!(taken.unwrap() > before);
}

#[tokio::test]
async fn the_transaction_of_a_dead_watcher_holds_up_no_leader_and_no_other_watcher() {
    let fresh = Fresh::new().await;
    let job = fresh.admitted(1, false).await;
    let before = doc! { "_id": crate::schema::uuid(job) };
    die_inside_a_transaction(&fresh.other().await, JOBS, before).await;
    let (leader, watcher) = (fresh.other().await, fresh.other().await);
    let epoch = leader.take_epoch("next").await.unwrap();
    // A plain update keeps transactions from even failing on some servers, so all three wait for each other.
    let ids = [job];
    let both = async {
        tokio::join!(
            leader.adopt(&ids, epoch),
            watcher.record(items(vec![succeeded(job, 0, 1)])),
        )
    };
    let (adopted, recorded) = tokio::time::timeout(SOON, both)
        .await
        .expect("they are still held up");
    adopted.unwrap();
    recorded.unwrap();
    assert_eq!(fresh.job(job).await.state, JobState::Successful);
}

#[tokio::test]
async fn a_takeover_holds_no_job_while_it_waits_for_a_transaction() {
    let fresh = Fresh::new().await;
    let ids = [fresh.admitted(1, false).await, fresh.admitted(1, false).await];
    let leader = fresh.other().await;
    let epoch = leader.take_epoch("next").await.unwrap();
    // Only who has one says that it is held up.
    leader.known_session().await.unwrap();
    let [first, second] = ids.map(|job| doc! { "_id": crate::schema::uuid(job) });
    let touch = doc! { "$inc": { "writes": 1_i64 } };
    let documents = fresh.store.documents(JOBS);
    let mut session = fresh.store.client().start_session().await.unwrap();
    session.start_transaction().await.unwrap();
    let write = documents.update_one(first, touch.clone());
    write.session(&mut session).await.unwrap();
    let transaction = async {
        super::leading::until_held_up(&fresh).await;
        let write = documents.update_one(second, touch);
        // The takeover may have been there first, which ends the transaction.
        let _ = write.session(&mut session).await;
        let _ = session.abort_transaction().await;
    };
    let both = async { tokio::join!(leader.adopt(&ids, epoch), transaction) };
    let (adopted, ()) = tokio::time::timeout(SOON, both)
        .await
        .expect("they wait for each other");
    adopted.unwrap();
}

#[tokio::test]
async fn recording_twice_changes_nothing() {
    let fresh = Fresh::new().await;
    let job = fresh.admitted(10, false).await;
    let lost = done(job, 1, vec![end(5, 3, Outcome::Lost)]);
    let batch = vec![succeeded(job, 0, 5), lost];
    fresh.record(batch.clone()).await;
    let once = fresh.job(job).await;
    assert_eq!(once.state, JobState::Running);
    assert_eq!(
        once.counts,
        Counts {
            ok: 5,
            again: 3,
            busy_us: 2000,
            ..Counts::default()
        }
    );
    fresh.record(batch.clone()).await;
    fresh.record(batch.into_iter().rev().collect()).await;
    assert_eq!(fresh.job(job).await, once);
    assert_eq!(fresh.documents(RESULTS).await, 5);
    assert_eq!(fresh.documents(FAILURES).await, 1);
}

#[tokio::test]
async fn the_last_end_of_a_failed_job_may_come_with_what_is_there() {
    let fresh = Fresh::new().await;
    let job = fresh.admitted(10, true).await;
    let dead = end(0, 1, Outcome::Dead(failure("exit code 2")));
    fresh
        .record(vec![done(job, 1, vec![dead]), succeeded(job, 1, 8)])
        .await;
    fresh.record(vec![succeeded(job, 5, 5)]).await;
    let ended = fresh.job(job).await;
    assert_eq!(ended.state, JobState::Failed);
    let Counts {
        ok,
        failed,
        cancelled,
        ..
    } = ended.counts;
    assert_eq!((ok, failed, cancelled), (9, 1, 1));
}

#[tokio::test]
async fn what_is_there_is_left_out_and_the_rest_is_counted() {
    let fresh = Fresh::new().await;
    let job = fresh.admitted(300, false).await;
    fresh.record(vec![succeeded(job, 100, 50)]).await;
    fresh
        .record(vec![
            succeeded(job, 0, 200),
            done(job, 1, vec![end(250, 1, Outcome::Moved)]),
        ])
        .await;
    let counts = fresh.counts(job).await;
    assert_eq!((counts.ok, counts.again), (200, 1));
    assert_eq!(fresh.indexes(job).await, (0..200).collect::<Vec<_>>());
    // A later attempt of a subtask that has its end: the first one stays.
    fresh
        .record(vec![done(job, 2, vec![end(7, 1, ok("another"))])])
        .await;
    assert_eq!(fresh.counts(job).await.ok, 200);
    assert_eq!(
        fresh.partials(job).await[7],
        Partial {
            index: 7,
            attempt: 1,
            result: Ok(inline("result 7"))
        }
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn recorders_at_once_add_up() {
    let fresh = Fresh::new().await;
    let (one, two) = (fresh.admitted(600, false).await, fresh.admitted(60, false).await);
    let stores = [
        fresh.store.clone(),
        fresh.store.clone(),
        fresh.other().await,
        fresh.other().await,
    ];
    let mut tasks = tokio::task::JoinSet::new();
    for (shift, store) in stores.into_iter().enumerate() {
        tasks.spawn(async move {
            // Each records everything, beginning elsewhere: whatever is recorded twice meets itself.
            for step in 0..20 {
                let part = (step + 5 * shift as u32) % 20;
                let again = done(one, 1, vec![end(part * 30, 2, Outcome::Returned)]);
                let batch = vec![succeeded(one, part * 30, 30), succeeded(two, part * 3, 3), again];
                store.record(items(batch)).await.unwrap();
            }
        });
    }
    tasks.join_all().await;
    for (job, blocks) in [(one, 600), (two, 60)] {
        let job = fresh.job(job).await;
        assert_eq!((job.counts.ok, job.state), (blocks, JobState::Successful));
        assert_eq!(fresh.indexes(job.id).await.len() as u64, blocks);
    }
    let counts = fresh.counts(one).await;
    // The job may have ended before the last of its repeated attempts was recorded; those then leave no trace.
    let failures = fresh.store.failures_from(one, 0).await.unwrap();
    assert_eq!(counts.again, 2 * failures.len() as u64);
    assert!(
        failures
            .iter()
            .enumerate()
            .all(|(i, failure)| failure.ordinal == 2 * i as u64),
        "{failures:?}"
    );
}

#[tokio::test]
async fn failures_are_numbered_without_gaps() {
    let fresh = Fresh::new().await;
    let job = fresh.admitted(100, true).await;
    let past = Past {
        failed: 1,
        deaths: [Evidence::None, Evidence::Suspect, Evidence::Alone]
            .map(|evidence| Death {
                process: uuid::Uuid::from_u128(7),
                evidence,
            })
            .to_vec(),
        stalls: 3,
    };
    let mut first = done(
        job,
        3,
        vec![
            end(40, 1, Outcome::Failed(failure("exit code 2"))),
            end(41, 9, Outcome::Moved),
        ],
    );
    first.past = past.clone();
    fresh
        .record(vec![first, done(job, 1, vec![end(0, 10, Outcome::Lost)])])
        .await;
    let mut direct = done(job, 2, vec![end(0, 10, Outcome::Returned)]);
    direct.node = None;
    fresh.record(vec![direct]).await;
    let all = fresh.store.failures_from(job, 0).await.unwrap();
    assert_eq!(
        all.iter().map(|failure| failure.ordinal).collect::<Vec<_>>(),
        [0, 1, 10, 20]
    );
    assert_eq!(fresh.counts(job).await.again, 30);
    assert_eq!(
        all[0].run,
        Run {
            first: 40,
            count: 1,
            attempt: 3
        }
    );
    assert_eq!(
        (&all[0].past, &all[0].outcome),
        (&past, &Outcome::Failed(failure("exit code 2")))
    );
    assert_eq!((&all[0].node, &all[3].node), (&Some(name("web7")), &None));
    assert_eq!(all[1].outcome, Outcome::Moved);
    assert_eq!(
        (&all[2].outcome, &all[3].outcome),
        (&Outcome::Lost, &Outcome::Returned)
    );
    assert_eq!(fresh.store.failures_from(job, 10).await.unwrap(), all[2..]);
    assert_eq!(fresh.store.failures_from(job, 30).await.unwrap(), []);
    assert_eq!(
        fresh.store.failures_above(job, 45).await.unwrap(),
        all[1..2],
        "a run reaches above its first"
    );
    assert_eq!(fresh.store.failures_above(job, 0).await.unwrap(), all);
    assert_eq!(fresh.store.failures(job, 2).await.unwrap(), all[2..]);
}

#[tokio::test]
async fn every_end_leaves_what_it_should() {
    let fresh = Fresh::new().await;
    let job = fresh.admitted(10, false).await;
    let bytes = Output::Inline(Payload(vec![0, 0xff, 1]));
    let stored = Output::Stored {
        object: "outputs/x/3".into(),
        start: 5,
        length: 1 << 40,
    };
    let plain = |output: &Output| Outcome::Ok {
        output: output.clone(),
        fingerprint: None,
        stderr_tail: String::new(),
    };
    let ends = vec![
        end(0, 1, ok("")),
        end(1, 1, plain(&bytes)),
        end(2, 1, plain(&stored)),
        end(3, 2, Outcome::Dead(failure("exit code 2"))),
        end(5, 3, Outcome::Cancelled),
        end(8, 1, ok("ä")),
    ];
    fresh.record(vec![done(job, 2, ends)]).await;
    let expected = [
        (0, Ok(inline(""))),
        (1, Ok(bytes)),
        (2, Ok(stored)),
        (3, Err(failure("exit code 2"))),
        (4, Err(failure("exit code 2"))),
        (8, Ok(inline("ä"))),
    ];
    let expected = expected.map(|(index, result)| Partial {
        index,
        attempt: 2,
        result,
    });
    assert_eq!(fresh.partials(job).await, expected);
    assert_eq!(
        fresh.store.result(job, 3).await.unwrap().as_ref(),
        Some(&expected[3])
    );
    assert_eq!(fresh.store.result(job, 5).await.unwrap(), None);
    let job = fresh.job(job).await;
    assert_eq!(
        (job.counts.ok, job.counts.failed, job.counts.cancelled),
        (4, 2, 0)
    );
    assert_eq!(job.error.as_deref(), Some("block 3: exit code 2"));
    assert_eq!(job.state, JobState::Running);
}

#[tokio::test]
async fn what_successful_commands_said_is_kept_with_their_results() {
    let fresh = Fresh::new().await;
    let job = fresh.admitted(4, true).await;
    let said = |text: &str| Outcome::Ok {
        output: inline("x"),
        fingerprint: None,
        stderr_tail: text.to_string(),
    };
    let ends = vec![
        end(0, 1, said("first")),
        end(1, 1, ok("y")),
        end(2, 2, said("both")),
        end(4, 1, said("the merge")),
    ];
    fresh.record(vec![done(job, 1, ends)]).await;
    let tails = async |range, limit| fresh.store.stderr_tails(job, range, limit).await.unwrap();
    let both = |index| (index, "both".to_string());
    let first = (0, "first".to_string());
    assert_eq!(tails(0..4, 10).await, [first.clone(), both(2), both(3)]);
    assert_eq!(tails(0..4, 2).await, [first, both(2)]);
    assert_eq!(tails(4..5, 1).await, [(4, "the merge".to_string())]);
}

#[tokio::test]
async fn a_closed_store_asks_nothing_more() {
    let fresh = Fresh::new().await;
    let other = fresh.store.clone();
    let job = fresh.admitted(1, false).await;
    fresh.store.close().await;
    assert!(other.job(job).await.is_err());
}

#[tokio::test]
async fn a_job_ends_with_its_last_end() {
    let fresh = Fresh::new().await;
    let job = fresh.admitted(2, true).await;
    assert_eq!(fresh.job(job).await.state, JobState::Staging);
    fresh.record(vec![succeeded(job, 0, 2)]).await;
    let merging = fresh.job(job).await;
    assert_eq!((merging.state, merging.finished_ms), (JobState::Running, None));
    assert!(model::lifecycle::merge_due(&merging.counts, 2, true));
    fresh.record(vec![succeeded(job, 2, 1)]).await;
    let ended = fresh.job(job).await;
    assert_eq!((ended.state, ended.error), (JobState::Successful, None));
    assert!(ended.finished_ms.is_some());
    // Nothing is added to a job that has ended.
    fresh
        .record(vec![
            succeeded(job, 7, 1),
            done(job, 9, vec![end(0, 1, Outcome::Lost)]),
        ])
        .await;
    assert_eq!(fresh.counts(job).await, ended.counts);
    assert_eq!(fresh.indexes(job).await, [0, 1, 2]);
}

#[tokio::test]
async fn a_failed_block_ends_the_job_when_all_have_ended() {
    let fresh = Fresh::new().await;
    let job = fresh.admitted(3, true).await;
    fresh
        .record(vec![done(
            job,
            3,
            vec![end(2, 1, Outcome::Dead(failure("late")))],
        )])
        .await;
    fresh
        .record(vec![done(
            job,
            3,
            vec![end(1, 1, Outcome::Dead(failure("first by index")))],
        )])
        .await;
    assert_eq!(fresh.job(job).await.state, JobState::Running);
    fresh.record(vec![succeeded(job, 0, 1)]).await;
    let ended = fresh.job(job).await;
    assert_eq!(ended.state, JobState::Failed);
    assert_eq!(
        (ended.counts.ok, ended.counts.failed, ended.counts.cancelled),
        (1, 2, 1)
    );
    assert_eq!(
        ended.error.as_deref(),
        Some("block 2: late"),
        "the first that was recorded"
    );
}

#[tokio::test]
async fn a_failed_merge_is_named_so() {
    let fresh = Fresh::new().await;
    let job = fresh.admitted(1, true).await;
    fresh.record(vec![succeeded(job, 0, 1)]).await;
    fresh
        .record(vec![done(
            job,
            3,
            vec![end(1, 1, Outcome::Dead(failure("exit code 1")))],
        )])
        .await;
    let ended = fresh.job(job).await;
    assert_eq!(
        (ended.state, ended.error.as_deref()),
        (JobState::Failed, Some("merge: exit code 1"))
    );
}

#[tokio::test]
async fn many_jobs_in_one_batch_end_each() {
    let fresh = Fresh::new().await;
    let jobs: Vec<Job> = (0..200).map(|_| job(1, false)).collect();
    let ids: Vec<JobId> = jobs.iter().map(|job| job.id).collect();
    fresh.store.submit(jobs).await.unwrap();
    let epoch = fresh.store.take_epoch("test").await.unwrap();
    fresh.store.admit(&ids[1..], epoch).await.unwrap();
    let mut batch: Vec<_> = ids[..198].iter().map(|&id| succeeded(id, 0, 1)).collect();
    batch.push(done(
        ids[198],
        1,
        vec![end(0, 1, Outcome::Dead(failure("broken")))],
    ));
    batch.push(done(ids[199], 1, vec![end(0, 1, Outcome::Lost)]));
    batch.push(succeeded(JobId(Uuid::now_v7()), 0, 1));
    fresh.record(batch.clone()).await;
    fresh.record(batch).await;
    let jobs = fresh.store.list(&crate::JobFilter::default()).await.unwrap();
    let state = |id| {
        jobs.iter()
            .find(|job| job.id == id)
            .map(|job| (job.state, job.counts.recorded()))
            .unwrap()
    };
    assert_eq!(state(ids[0]), (JobState::Pending, 0), "was never admitted");
    assert!(
        ids[1..198]
            .iter()
            .all(|&id| state(id) == (JobState::Successful, 1))
    );
    assert_eq!(state(ids[198]), (JobState::Failed, 1));
    assert_eq!(state(ids[199]), (JobState::Running, 1));
    assert_eq!(fresh.documents(RESULTS).await, 198);
}

#[tokio::test]
async fn cancelled_and_pending_jobs_are_left_alone() {
    let fresh = Fresh::new().await;
    let cancelled = fresh.admitted(3, false).await;
    let epoch = fresh.store.take_epoch("test").await.unwrap();
    let state = JobState::Cancelled;
    assert!(
        fresh
            .store
            .end_job(cancelled, epoch, state, 3, None, &Counts::default())
            .await
            .unwrap()
    );
    let pending = job(1, false);
    fresh.store.submit(vec![pending.clone()]).await.unwrap();
    let before = fresh.job(cancelled).await;
    fresh.record(vec![succeeded(cancelled, 0, 1)]).await;
    fresh
        .record(vec![succeeded(cancelled, 1, 1), succeeded(pending.id, 0, 1)])
        .await;
    assert_eq!(fresh.job(cancelled).await, before);
    assert_eq!(fresh.job(pending.id).await, pending);
    assert_eq!(
        (fresh.documents(RESULTS).await, fresh.documents(FAILURES).await),
        (0, 0)
    );
}

#[tokio::test]
async fn an_end_too_large_for_a_document_is_found_and_refused() {
    let fresh = Fresh::new().await;
    let job = fresh.admitted(20, false).await;
    let huge = "x".repeat(16 * 1024 * 1024);
    let ends = (0..9)
        .map(|index| end(index, 1, if index == 4 { ok(&huge) } else { ok("small") }))
        .collect();
    fresh
        .record(vec![done(job, 1, ends), succeeded(job, 9, 11)])
        .await;
    let ended = fresh.job(job).await;
    assert_eq!(
        (ended.counts.ok, ended.counts.failed, ended.state),
        (19, 1, JobState::Failed)
    );
    assert_eq!(ended.counts.busy_us, 2000);
    let culprit = fresh
        .store
        .result(job, 4)
        .await
        .unwrap()
        .unwrap()
        .result
        .unwrap_err();
    assert_eq!(culprit.kind, FailureKind::Refused);
    assert!(culprit.message.contains("more than"), "{}", culprit.message);
}

#[tokio::test]
async fn what_the_server_refuses_is_bisected() {
    let fresh = Fresh::new().await;
    let job = fresh.admitted(64, false).await;
    // Past the check on this side: what is no document at all comes back as an error of the server.
    let mut pieces = crate::prepare::pieces(items(vec![succeeded(job, 0, 64)]), &Default::default());
    let mut bytes = pieces[37].document.clone().into_bytes();
    let text = bytes
        .windows(9)
        .position(|window| window == b"result 37")
        .unwrap();
    // A string whose length reaches beyond the document.
    bytes[text - 4..text].copy_from_slice(&i32::MAX.to_le_bytes());
    pieces[37].document = bson::RawDocumentBuf::from_bytes(bytes).unwrap();
    let recorded = fresh.store.record_pieces(pieces).await.unwrap();
    assert_eq!(recorded.refused, []);
    let ended = fresh.job(job).await;
    assert_eq!((ended.counts.ok, ended.counts.failed), (63, 1));
    assert!(
        fresh
            .store
            .result(job, 37)
            .await
            .unwrap()
            .unwrap()
            .result
            .is_err()
    );
}

#[tokio::test]
async fn nothing_to_record_is_nothing() {
    let fresh = Fresh::new().await;
    let job = fresh.admitted(1, false).await;
    fresh.record(vec![]).await;
    fresh
        .record(vec![done(job, 1, vec![end(0, 1, Outcome::Cancelled)])])
        .await;
    assert_eq!(fresh.job(job).await.state, JobState::Staging);
}

#[tokio::test]
async fn a_server_that_dies_and_returns_loses_nothing() {
    let mut space = Space::private().await;
    let folder = TempDir::new().unwrap();
    let store = Store::open(&config(&space, &folder)).await.unwrap();
    store.init().await.unwrap();
    let job = job(3000, false);
    let id = job.id;
    store.submit(vec![job]).await.unwrap();
    let epoch = store.take_epoch("test").await.unwrap();
    store.admit(&[id], epoch).await.unwrap();
    let recorder = tokio::spawn({
        let store = store.clone();
        async move {
            for part in 0..300 {
                while let Err(error) = store.record(items(vec![succeeded(id, part * 10, 10)])).await {
                    assert!(error.is_retryable(), "{error:?}");
                    tokio::time::sleep(std::time::Duration::from_millis(20)).await;
                }
            }
        }
    });
    let deadline = std::time::Duration::from_secs(20);
    testkit::wait::until_true("some to be recorded", deadline, async || {
        store.progress(&[id]).await.unwrap()[0].counts.ok > 100
    })
    .await;
    space.servers().mongo.kill().await;
    assert!(!recorder.is_finished(), "it had ended before the death");
    space.servers().mongo.restart().await.unwrap();
    recorder.await.unwrap();
    let ended = store.job(id).await.unwrap().unwrap();
    assert_eq!((ended.counts.ok, ended.state), (3000, JobState::Successful));
    assert_eq!(store.result_ids_from(id, 0).await.unwrap().len(), 3000);
}
