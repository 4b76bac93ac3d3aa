//! The same questions, split over many blocks and asked of plain DataFusion over all rows: the answers must agree.
#![allow(clippy::unwrap_used)]

mod aggregates;
mod both;
mod errors;
mod fingerprints;
mod functions;
mod logs;
mod queries;
mod stars;
mod views;

use both::Both;

#[tokio::test]
async fn written_queries_agree() {
    let both = Both::new();
    for text in queries::WRITTEN {
        both.agree(text).await;
    }
}

#[tokio::test]
async fn queries_of_several_cuts_agree() {
    let both = Both::new();
    for text in queries::GATHERED {
        both.agree(text).await;
    }
}

#[tokio::test]
async fn queries_over_several_tables_agree() {
    let both = Both::new();
    for text in queries::TABLES {
        both.agree(text).await;
    }
}

#[tokio::test]
async fn made_up_queries_agree() {
    let both = Both::new();
    let keys = [
        "status",
        "method",
        "host",
        "path, status",
        "substr(path, 1, 4)",
        "_block",
        "bytes % 7",
    ];
    let aggregates = [
        "count(*)",
        "sum(bytes), min(bytes)",
        "avg(request_time), max(path)",
        "count(DISTINCT path), count(bytes)",
        "stddev_pop(bytes), sum(status)",
    ];
    let conditions = [
        "",
        "WHERE bytes BETWEEN 1000 AND 50000 AND method = 'GET'",
        "WHERE NOT (host LIKE '%1')",
    ];
    let ends = ["", "HAVING count(*) > 3", "ORDER BY 1 DESC, 2 LIMIT 4"];
    for key in keys {
        for aggregate in aggregates {
            for condition in conditions {
                for end in ends {
                    // With two keys the second sorts as well, and ties are none.
                    both.agree(&format!(
                        "SELECT {key}, {aggregate} FROM access {condition} GROUP BY {key} {end}"
                    ))
                    .await;
                }
            }
        }
    }
}

/// Several sources, each with a host and a number, under all that can be made of them.
#[tokio::test]
async fn made_up_queries_over_several_sources_agree() {
    let both = Both::new();
    let sources = [
        "(SELECT host, status AS n FROM access WHERE bytes > 90000)",
        "(SELECT host, code AS n FROM app)",
        "(SELECT host, count(*) AS n FROM access GROUP BY host)",
        "(SELECT host, CAST(weight AS BIGINT) AS n FROM hosts)",
        "(SELECT host, max(took) AS n FROM app GROUP BY host ORDER BY n DESC NULLS LAST, host LIMIT 9)",
    ];
    let shapes = [
        "SELECT count(*), sum(n) FROM (SELECT * FROM {a} UNION ALL SELECT * FROM {b})",
        "SELECT host, max(n) FROM (SELECT * FROM {a} UNION SELECT * FROM {b}) GROUP BY host",
        "SELECT count(*), sum(a.n), sum(b.n) FROM {a} a JOIN {b} b ON a.host = b.host",
        "SELECT count(*), sum(a.n), count(b.n) FROM {a} a LEFT JOIN {b} b ON a.host = b.host",
        "SELECT count(*), count(a.n), count(b.n) FROM {a} a FULL JOIN {b} b ON a.host = b.host AND a.n <= b.n",
        "SELECT host, count(*) FROM {a} a WHERE host IN (SELECT host FROM {b} b) GROUP BY host",
        "SELECT count(*) FROM {a} a WHERE NOT EXISTS (SELECT 1 FROM {b} b WHERE b.host = a.host)",
        "SELECT count(*) FROM {a} a WHERE n > (SELECT avg(n) FROM {b} b)",
    ];
    for shape in shapes {
        for a in sources {
            for b in sources {
                let text = shape.replace("{a}", a).replace("{b}", b);
                // Over small tables alone nothing is split.
                if text.contains("access") || text.contains("app") {
                    let gathers = both.gathers(&text).await;
                    let text = if gathers { text + " -- gather" } else { text };
                    both.agree(&text).await;
                }
            }
        }
    }
}
