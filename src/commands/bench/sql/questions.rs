//! The questions, in the words of each who is asked.

/// A question over an access log.
pub(super) struct Question {
    /// What it is called in reports.
    pub(super) name: &'static str,
    /// What it asks.
    pub(super) about: &'static str,
    /// In Sawmill's SQL, over the table `{table}`.
    pub(super) sawmill: &'static str,
    /// What GNU parallel runs over each block.
    pub(super) map: &'static str,
    /// What merges the outputs of the blocks.
    pub(super) reduce: &'static str,
    /// In DuckDB's SQL, over the view `log`.
    pub(super) duckdb: &'static str,
    /// In chDB's SQL, over `{log}`.
    pub(super) chdb: &'static str,
    /// How many of the first columns of the answers must agree; all but those that are estimates.
    pub(super) exact_columns: usize,
}

pub(super) const QUESTIONS: [Question; 5] = [
    Question {
        name: "Q1",
        about: "count by status",
        sawmill: "SELECT status, count(*) AS n FROM {table} GROUP BY status ORDER BY n DESC, status",
        map: "mawk '{n[$9]++} END {for (s in n) print s, n[s]}'",
        reduce: "mawk '{n[$1] += $2} END {for (s in n) print s \",\" n[s]}' | sort -t, -k2,2nr -k1,1",
        duckdb: "SELECT status, count(*) AS n FROM log GROUP BY status ORDER BY n DESC, status",
        chdb: "SELECT status, count() AS n FROM {log} GROUP BY status ORDER BY n DESC, status",
        exact_columns: 2,
    },
    Question {
        name: "Q2",
        about: "top 10 paths by bytes",
        sawmill: "SELECT path, sum(bytes) AS sent FROM {table} GROUP BY path ORDER BY sent DESC, path LIMIT 10",
        map: "mawk '{n[$7] += $10} END {for (p in n) printf \"%s %.0f\\n\", p, n[p]}'",
        reduce: "mawk '{n[$1] += $2} END {for (p in n) printf \"%s,%.0f\\n\", p, n[p]}' | sort -t, -k2,2nr | head -n 10",
        duckdb: "SELECT path, sum(size) AS sent FROM log_paths GROUP BY path ORDER BY sent DESC, path LIMIT 10",
        chdb: "SELECT splitByChar(' ', request)[2] AS path, sum(size) AS sent FROM {log} GROUP BY path ORDER BY sent DESC, path LIMIT 10",
        exact_columns: 2,
    },
    Question {
        name: "Q3",
        about: "requests and p99 of the request time by minute",
        sawmill: "SELECT date_bin(INTERVAL '1 minute', time) AS minute, count(*) AS n, approx_percentile_cont(request_time, 0.99) AS p99 \
                  FROM {table} GROUP BY minute ORDER BY minute",
        map: "mawk '{print substr($4, 2, 17), $NF}'",
        reduce: "sort -k1,1 -k2,2n | mawk '$1 != m {if (m) print m \",\" n \",\" t[int(n * 0.99)]; m = $1; n = 0} {t[n++] = $2} END {print m \",\" n \",\" t[int(n * 0.99)]}'",
        duckdb: "SELECT time_bucket(INTERVAL '1 minute', strptime(t, '[%d/%b/%Y:%H:%M:%S')) AS minute, count(*) AS n, \
                 approx_quantile(took, 0.99) AS p99 FROM log GROUP BY minute ORDER BY minute",
        chdb: "SELECT substring(t, 2, 17) AS minute, count() AS n, quantileTDigest(0.99)(took) AS p99 FROM {log} GROUP BY minute ORDER BY minute",
        exact_columns: 0,
    },
    Question {
        name: "Q4",
        about: "distinct hosts by status",
        sawmill: "SELECT status, count(DISTINCT host) AS hosts FROM {table} GROUP BY status ORDER BY hosts DESC, status",
        map: "mawk '!seen[$9 \" \" $1]++ {print $9, $1}'",
        reduce: "mawk '!seen[$0]++ {n[$1]++} END {for (s in n) print s \",\" n[s]}' | sort -t, -k2,2nr -k1,1",
        duckdb: "SELECT status, count(DISTINCT host) AS hosts FROM log GROUP BY status ORDER BY hosts DESC, status",
        chdb: "SELECT status, uniqExact(host) AS hosts FROM {log} GROUP BY status ORDER BY hosts DESC, status",
        exact_columns: 2,
    },
    Question {
        name: "Q5",
        about: "5xx by path, of paths that a regular expression finds",
        sawmill: "SELECT path, count(*) AS n FROM {table} WHERE status >= 500 AND regexp_like(path, '^/(api|shop)/.*[0-9]+') \
                  GROUP BY path ORDER BY n DESC, path LIMIT 20",
        map: "mawk '$9 >= 500 && $7 ~ /^\\/(api|shop)\\/.*[0-9]+/ {n[$7]++} END {for (p in n) print p, n[p]}'",
        reduce: "mawk '{n[$1] += $2} END {for (p in n) print p \",\" n[p]}' | LC_ALL=C sort -t, -k2,2nr -k1,1 | head -n 20",
        duckdb: "SELECT path, count(*) AS n FROM log_paths WHERE status >= 500 AND regexp_matches(path, '^/(api|shop)/.*[0-9]+') \
                 GROUP BY path ORDER BY n DESC, path LIMIT 20",
        chdb: "SELECT splitByChar(' ', request)[2] AS path, count() AS n FROM {log} WHERE status >= 500 AND match(path, '^/(api|shop)/.*[0-9]+') \
               GROUP BY path ORDER BY n DESC, path LIMIT 20",
        exact_columns: 2,
    },
];
