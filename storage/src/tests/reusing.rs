//! Results that answer without running.

use model::{Block, Fingerprint};

use super::*;
use crate::Spill;

fn print(text: &str) -> Fingerprint {
    Fingerprint::of(&Processor::Noop, 0, &Block::inline(text))
}

fn offered(output: Output, print: Fingerprint) -> Outcome {
    Outcome::Ok {
        output,
        fingerprint: Some(print.to_string()),
        stderr_tail: String::new(),
    }
}

fn reused(job: JobId, index: u32, waited: bool) -> Outcome {
    Outcome::Reused { job, index, waited }
}

#[tokio::test]
async fn finds_what_is_recorded_and_nothing_else() {
    let fresh = Fresh::new().await;
    let job = fresh.admitted(9, false).await;
    let ends = vec![
        end(0, 1, offered(inline("zero"), print("0"))),
        end(1, 1, ok("one")),
        end(2, 1, Outcome::Dead(failure("broken"))),
    ];
    fresh.record(vec![done(job, 1, ends)]).await;
    let found = fresh
        .store
        .find_reusable(&[print("0"), print("1"), print("2")])
        .await
        .unwrap();
    assert_eq!(found, [(print("0"), (job, 0))].into());
    assert!(fresh.store.find_reusable(&[]).await.unwrap().is_empty());
}

#[tokio::test]
async fn answers_count_apart_and_carry_the_output() {
    let fresh = Fresh::new().await;
    let (first, second) = (fresh.admitted(2, false).await, fresh.admitted(5, false).await);
    let ends = vec![
        end(0, 1, offered(inline("zero"), print("0"))),
        end(1, 1, Outcome::Dead(failure("broken"))),
    ];
    fresh.record(vec![done(first, 1, ends)]).await;
    let ends = vec![
        end(0, 1, reused(first, 0, false)),
        end(1, 2, reused(first, 0, true)),
        end(3, 1, reused(first, 1, false)),
        end(4, 1, reused(first, 7, false)),
    ];
    let batch = vec![done(second, 1, ends)];
    fresh.record(batch.clone()).await;
    fresh.record(batch).await;
    let counts = fresh.counts(second).await;
    assert_eq!(
        (counts.ok, counts.already, counts.executed, counts.again),
        (3, 1, 2, 2)
    );
    assert!(
        fresh
            .partials(second)
            .await
            .iter()
            .all(|partial| partial.result == Ok(inline("zero")))
    );
    let failures = fresh.store.failures_from(second, 0).await.unwrap();
    assert!(
        failures
            .iter()
            .all(|failure| failure.outcome == Outcome::Returned),
        "neither failed nor missing results answer"
    );
    let found = fresh.store.find_reusable(&[print("0")]).await.unwrap();
    assert_eq!(found[&print("0")], (first, 0), "an answer is not offered on");
}

#[tokio::test]
async fn a_reused_output_outlives_its_source() {
    use std::io::Read;
    let fresh = Fresh::new().await;
    let (first, second) = (fresh.admitted(1, false).await, fresh.admitted(1, false).await);
    let stored = fresh
        .store
        .put_output(first, "0-1", Spill::Bytes(b"large".to_vec()))
        .await
        .unwrap();
    fresh
        .record(vec![done(first, 1, vec![end(0, 1, offered(stored, print("0")))])])
        .await;
    fresh
        .record(vec![done(second, 1, vec![end(0, 1, reused(first, 0, false))])])
        .await;
    assert_eq!(fresh.store.delete_job_outputs(first).await.unwrap(), 1);
    let output = fresh.partials(second).await.remove(0).result.unwrap();
    let mut text = String::new();
    fresh
        .store
        .read_output(&output)
        .await
        .unwrap()
        .read_to_string(&mut text)
        .unwrap();
    assert_eq!(text, "large");
}
