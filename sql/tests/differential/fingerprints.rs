//! What identifies a lower half.

use model::processor::Query;

use crate::both::{Both, NOW_US};

#[tokio::test]
async fn fingerprints_are_of_the_lower_half() {
    let both = Both::new();
    let of = async |text: &str| both.runtime.fingerprints(&both.query(text)).await.unwrap()[0];
    let base = of("SELECT status, count(*) FROM access GROUP BY status").await;
    assert!(base.is_some());
    for same in [
        "select STATUS, count(*) AS n from access group by status having count(*) > 5 order by n limit 3",
        "SELECT max(n) FROM (SELECT status, count(*) AS n FROM access GROUP BY status)",
        // Twice the same lower half is one.
        "WITH s AS (SELECT status, count(*) AS n FROM access GROUP BY status) SELECT a.n FROM s a JOIN s b ON a.n < b.n",
    ] {
        assert_eq!(of(same).await, base, "{same}");
    }
    for other in [
        "SELECT status, sum(bytes) FROM access GROUP BY status",
        "SELECT status, count(*) FROM access WHERE status > 1 GROUP BY status",
        "SELECT method, count(*) FROM access GROUP BY method",
        "SELECT status, count(*) FROM access JOIN codes ON status = code GROUP BY status",
    ] {
        assert_ne!(of(other).await, base, "{other}");
    }
    assert_eq!(of("SELECT count(*) FROM access WHERE random() < 0.5").await, None);
    // The same lines may be another block of another dataset.
    assert_eq!(of("SELECT _block, count(*) FROM access GROUP BY 1").await, None);
}

/// Pairs that look the same where something that matters is left out of what is shown.
#[tokio::test]
async fn fingerprints_tell_apart_what_looks_alike() {
    let both = Both::new();
    let of = async |text: &str| both.runtime.fingerprints(&both.query(text)).await.unwrap()[0].unwrap();
    for (one, other) in [
        (
            "SELECT CASE WHEN status > 400 THEN 1 ELSE 2 END, count(*) FROM access GROUP BY 1",
            "SELECT CASE WHEN status > 400 THEN '1' ELSE '2' END, count(*) FROM access GROUP BY 1",
        ),
        (
            "SELECT first_value(path ORDER BY time) AS x FROM access",
            "SELECT first_value(path ORDER BY time DESC) AS x FROM access",
        ),
        (
            "SELECT first_value(bytes) IGNORE NULLS AS x FROM access",
            "SELECT first_value(bytes) AS x FROM access",
        ),
        (
            "SELECT count(DISTINCT bytes) AS x, sum(bytes) FROM access",
            "SELECT count(bytes) AS x, sum(bytes) FROM access",
        ),
        (
            "SELECT sum(bytes) FILTER (WHERE status = 200) AS x FROM access",
            "SELECT sum(bytes) FILTER (WHERE status = 500) AS x FROM access",
        ),
        (
            "SELECT count(*) FROM access JOIN (VALUES (1)) v(bytes) ON access.bytes > v.bytes",
            "SELECT count(*) FROM access JOIN (VALUES (1)) v(bytes) ON access.bytes < v.bytes",
        ),
        (
            "SELECT count(*) FROM access JOIN (VALUES (1)) v(x) ON bytes > x",
            "SELECT count(*) FROM access JOIN (VALUES (2)) v(x) ON bytes > x",
        ),
        (
            "SELECT count(*) FROM access WHERE bytes > (SELECT max(code) FROM codes)",
            "SELECT count(*) FROM access WHERE bytes > (SELECT min(code) FROM codes)",
        ),
        (
            "SELECT host FROM access WHERE status = 500 LIMIT 3",
            "SELECT host FROM access WHERE status = 500 LIMIT 4",
        ),
        (
            "SELECT unnest([status, bytes]) FROM access",
            "SELECT [status, bytes] FROM access",
        ),
    ] {
        assert_ne!(of(one).await, of(other).await, "{one}\n{other}");
    }
}

#[tokio::test]
async fn each_dataset_has_a_fingerprint_of_its_own() {
    let both = Both::new();
    let of = async |text: &str| both.runtime.fingerprints(&both.query(text)).await.unwrap();
    let both_read = of("SELECT host FROM access WHERE status = 500 UNION ALL SELECT host FROM app").await;
    assert!(both_read.len() == 2 && both_read.iter().all(Option::is_some) && both_read[0] != both_read[1]);
    // What is asked of one dataset does not touch what is recorded of the other.
    let counted = "SELECT count(*) FROM access WHERE status = {} UNION ALL SELECT count(*) FROM app WHERE level = 'warn'";
    let (one, other) = (
        of(&counted.replace("{}", "200")).await,
        of(&counted.replace("{}", "404")).await,
    );
    assert_ne!(one[0], other[0]);
    assert_eq!(one[1], other[1]);
}

#[tokio::test]
async fn the_content_of_small_tables_counts_where_blocks_meet_it() {
    let both = Both::new();
    let query = |text: &str| both.query(text);
    let changed = |query: &Query| {
        let mut query = query.clone();
        let text = b"code,name,bad\n200,other,false\n";
        query.with[0].checksum = sql::checksum(text);
        both.runtime.keep(&query.with[0], text).unwrap();
        query
    };
    for (text, differs) in [
        (
            "SELECT name, count(*) FROM access JOIN codes ON status = code GROUP BY name",
            true,
        ),
        // Only the merge looks at it.
        (
            "SELECT name, n FROM (SELECT status, count(*) AS n FROM access GROUP BY status) JOIN codes ON status = code",
            false,
        ),
    ] {
        let before = query(text);
        let of = async |query: &Query| both.runtime.fingerprints(query).await.unwrap()[0].unwrap();
        let (before, after) = (of(&before).await, of(&changed(&before)).await);
        assert_eq!(before != after, differs, "{text}");
    }
}

#[tokio::test]
async fn the_moment_counts_only_where_it_is_asked_for() {
    let both = Both::new();
    let of = async |text: &str, now_us| {
        let query = Query {
            now_us,
            ..both.query(text)
        };
        both.runtime.fingerprints(&query).await.unwrap()[0].unwrap()
    };
    for (text, differs) in [
        ("SELECT count(*) FROM access", false),
        (
            "SELECT count(*) FROM access WHERE time > now() - INTERVAL '1 day'",
            true,
        ),
        (
            "SELECT count(*) FROM access WHERE time > (SELECT now() - INTERVAL '1 day')",
            true,
        ),
    ] {
        assert_eq!(
            of(text, NOW_US).await != of(text, NOW_US + 1_000_000).await,
            differs,
            "{text}"
        );
    }
}

#[tokio::test]
async fn halves_are_explained() {
    let both = Both::new();
    let text = "SELECT status, count(*) FROM access WHERE bytes > 7 GROUP BY status \
                UNION ALL SELECT code, count(*) FROM app GROUP BY code";
    let explained = both.runtime.explain(&both.query(text)).await.unwrap();
    assert_eq!(explained.lower.len(), 2);
    let text = explained.to_string();
    for part in [
        "each block of access is read for: status, bytes",
        "each block of app is read for: code",
        "lower half 0, on each block of access:\n  AggregateExec: mode=Partial",
        "Lines: of=app, columns=[code]",
        "upper half",
        "Partials: of=lower half 1",
    ] {
        assert!(text.contains(part), "{part}\n{text}");
    }
    let counted = both
        .runtime
        .explain(&both.query("SELECT count(*) FROM access"))
        .await
        .unwrap();
    assert!(counted.to_string().contains("only counted"), "{counted}");
}
