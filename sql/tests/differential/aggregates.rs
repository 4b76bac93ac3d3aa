//! All aggregates that DataFusion has.

use std::collections::BTreeSet;

use datafusion::execution::SessionStateBuilder;

use crate::both::Both;

/// One that has the same value whichever way it is computed.
const EXACT: &[&str] = &[
    "array_agg(bytes ORDER BY bytes, host)",
    "array_agg(DISTINCT status ORDER BY status)",
    "array_agg(path ORDER BY time DESC, path, host, bytes)",
    "avg(bytes)",
    "avg(DISTINCT bytes)",
    "bit_and(status)",
    "bit_or(bytes)",
    "bit_xor(bytes)",
    "bit_xor(DISTINCT bytes)",
    "bool_and(status < 404)",
    "bool_or(bytes > 99000)",
    "corr(bytes, request_time)",
    "count(bytes)",
    "count(*)",
    "count(DISTINCT host)",
    "count(bytes, request_time)",
    "covar_pop(bytes, request_time)",
    "covar_samp(bytes, request_time)",
    "first_value(path ORDER BY time, path, host, bytes)",
    "first_value(bytes ORDER BY bytes DESC NULLS FIRST, host)",
    "first_value(bytes ORDER BY bytes NULLS FIRST, host) IGNORE NULLS",
    "last_value(path ORDER BY time, path, host, bytes)",
    "max(bytes)",
    "max(path)",
    "max(time)",
    "median(bytes)",
    "median(request_time)",
    "median(DISTINCT bytes)",
    "min(bytes)",
    "min(host)",
    "nth_value(path, 3 ORDER BY time, path, host, bytes)",
    "nth_value(path, -2 ORDER BY time, path, host, bytes)",
    "percentile_cont(0.3) WITHIN GROUP (ORDER BY bytes)",
    "regr_avgx(bytes, request_time)",
    "regr_avgy(bytes, request_time)",
    "regr_count(bytes, request_time)",
    "regr_intercept(bytes, request_time)",
    "regr_r2(bytes, request_time)",
    "regr_slope(bytes, request_time)",
    "regr_sxx(bytes, request_time)",
    "regr_sxy(bytes, request_time)",
    "regr_syy(bytes, request_time)",
    "stddev(bytes)",
    "stddev_pop(bytes)",
    "string_agg(method, '-' ORDER BY time, path, host, bytes)",
    "string_agg(DISTINCT method, '+' ORDER BY method)",
    "sum(bytes)",
    "sum(request_time)",
    "sum(DISTINCT status)",
    "var_pop(bytes)",
    "var(bytes)",
    "any_value(method) IN ('GET', 'POST', NULL)",
    "sum(bytes) FILTER (WHERE method = 'POST')",
];

/// One that is near the exact value: the exact one, and by how much it may differ from it.
const NEAR: &[(&str, &str, f64)] = &[
    ("approx_distinct(path)", "count(DISTINCT path)", 0.05),
    ("approx_distinct(bytes)", "count(DISTINCT bytes)", 0.05),
    ("approx_median(bytes)", "median(bytes)", 0.03),
    ("approx_median(request_time)", "median(request_time)", 0.03),
    (
        "approx_percentile_cont(0.9) WITHIN GROUP (ORDER BY bytes)",
        "percentile_cont(0.9) WITHIN GROUP (ORDER BY bytes)",
        0.02,
    ),
    (
        "approx_percentile_cont_with_weight(1, 0.5) WITHIN GROUP (ORDER BY bytes)",
        "median(bytes)",
        0.03,
    ),
];

/// Of these the arguments are tested elsewhere: it needs sets of groups.
const ELSEWHERE: &[&str] = &["grouping"];

/// The function that an expression calls.
fn called(expression: &str) -> &str {
    expression.split('(').next().unwrap()
}

#[test]
fn none_is_left_out() {
    let state = SessionStateBuilder::new().with_default_features().build();
    let known: BTreeSet<&str> = EXACT
        .iter()
        .chain(NEAR.iter().map(|(near, _, _)| near))
        .map(|expression| called(expression))
        .chain(ELSEWHERE.iter().copied())
        .collect();
    let all = state
        .aggregate_functions()
        .values()
        .map(|function| function.name());
    let left_out: BTreeSet<&str> = all.filter(|name| !known.contains(name)).collect();
    assert!(left_out.is_empty(), "{left_out:?}");
}

#[tokio::test]
async fn exact_ones_agree() {
    exact_agree(&Both::new()).await;
}

pub(crate) async fn exact_agree(both: &Both) {
    for expression in EXACT {
        for rest in [
            "access",
            "access WHERE status = 999",
            "access GROUP BY method, status",
        ] {
            let keys = if rest.contains("GROUP") {
                "method, status, "
            } else {
                ""
            };
            both.agree(&format!("SELECT {keys}{expression} FROM {rest}"))
                .await;
        }
    }
    // Several that each want their rows in an order.
    both.agree(
        "SELECT status, first_value(path ORDER BY time, path, host, bytes), array_agg(bytes ORDER BY bytes, host), \
         string_agg(method, ',' ORDER BY time, path, host, bytes), count(*) FROM access GROUP BY status",
    )
    .await;
    both.agree(
        "SELECT status, method, grouping(status), grouping(method), count(*), sum(bytes) FROM access \
         GROUP BY GROUPING SETS ((status), (method), (status, method), ())",
    )
    .await;
}

#[tokio::test]
async fn approximate_ones_are_within_their_error() {
    near_agree(&Both::new()).await;
}

pub(crate) async fn near_agree(both: &Both) {
    for (near, exact, error) in NEAR {
        for condition in ["", "WHERE status = 500"] {
            let (ours, theirs) = both
                .number(&format!("SELECT {near} FROM access {condition}"))
                .await;
            let (exact, _) = both
                .number(&format!("SELECT {exact} FROM access {condition}"))
                .await;
            for found in [ours, theirs] {
                assert!(
                    (found - exact).abs() <= error * exact,
                    "{near} {condition}: {found}, exact {exact}"
                );
            }
        }
    }
}
