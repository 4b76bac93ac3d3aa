//! The same questions kept current: partial results merged into one a few at a time, which is all that a view keeps.

use sql::Runtime;

use crate::{aggregates, both::Both, queries};

/// DataFusion merges states in one way where memory has a limit, as on nodes.
fn limited() -> Both {
    Both::in_steps(Runtime::new(1 << 30, &std::env::temp_dir()))
}

/// And in another where it has none.
fn unlimited() -> Both {
    Both::in_steps(Runtime::for_planning())
}

async fn written_agree(both: &Both) {
    let all = [queries::WRITTEN, queries::GATHERED, queries::TABLES];
    for text in all.into_iter().flatten() {
        both.agree(text).await;
    }
}

async fn aggregates_agree(both: &Both) {
    aggregates::exact_agree(both).await;
    aggregates::near_agree(both).await;
}

#[tokio::test]
async fn written_queries_agree() {
    written_agree(&unlimited()).await;
}

#[tokio::test]
async fn written_queries_agree_where_memory_is_limited() {
    written_agree(&limited()).await;
}

#[tokio::test]
async fn all_aggregates_agree() {
    aggregates_agree(&unlimited()).await;
}

#[tokio::test]
async fn all_aggregates_agree_where_memory_is_limited() {
    aggregates_agree(&limited()).await;
}

/// What is kept does not grow with the number of blocks, where blocks reduce their rows.
#[tokio::test]
async fn what_is_merged_is_no_larger_than_one_block_gives() {
    let both = limited();
    for text in [
        "SELECT status, count(*), sum(bytes) FROM access GROUP BY status",
        "SELECT avg(bytes), approx_distinct(host) FROM access",
        "SELECT DISTINCT status, method FROM access",
        "SELECT host, path FROM access ORDER BY bytes DESC, host, path LIMIT 30",
        "SELECT _raw FROM access LIMIT 30",
    ] {
        let query = both.query(text);
        let partials = both.partials(&query).await.unwrap();
        let largest = partials.iter().map(Vec::len).max().unwrap();
        let merged = sql::merge(&both.runtime, &query, &partials.concat()[..])
            .await
            .unwrap();
        let most = largest + largest / 4;
        assert!(merged.len() <= most, "{text}: {} of {largest}", merged.len());
    }
}
