//! A column that comes later leaves alone what is recorded of queries that do not read it.
#![allow(clippy::unwrap_used)]

use model::{
    processor::{Query, QueryTable},
    table::{ColumnType, Table},
};

async fn fingerprint(sql: &str, table: &Table) -> [u8; 32] {
    let query = Query {
        sql: sql.into(),
        tables: vec![QueryTable {
            name: "t".into(),
            table: table.clone(),
            lower_half: None,
        }],
        time_zone: "UTC".into(),
        now_us: 0,
        version: sql::VERSION.into(),
        ..Query::default()
    };
    let runtime = sql::Runtime::for_planning();
    runtime.fingerprints(&query).await.unwrap()[0].unwrap()
}

#[tokio::test]
async fn fingerprints_hash_what_is_read() {
    let table = sql::detect(b"{\"a\":1,\"b\":\"x\"}\n").table;
    let grown = sql::grow(&table, b"{\"a\":1,\"c\":2}\n").unwrap().table;
    let mut retyped = grown.clone();
    sql::retype(&mut retyped, &[("a".into(), ColumnType::Float)]).unwrap();
    assert_eq!(grown.columns.len(), 3);
    for (sql, grown_differs, retyped_differs) in [
        ("SELECT a, count(*) FROM t GROUP BY a", false, true),
        ("SELECT max(b) FROM t", false, false),
        ("SELECT _raw FROM t WHERE b = 'x'", false, false),
        ("SELECT _error FROM t", true, true),
    ] {
        let before = fingerprint(sql, &table).await;
        let after = fingerprint(sql, &grown).await;
        assert_eq!(before != after, grown_differs, "{sql}");
        assert_eq!(
            after != fingerprint(sql, &retyped).await,
            retyped_differs,
            "{sql}"
        );
    }
}
