//! What is refused says why.

use model::processor::Query;

use crate::both::Both;

#[tokio::test]
async fn what_is_wrong_says_so() {
    let both = Both::new();
    for (text, told) in [
        ("SELECT nothing FROM access", "no column named nothing"),
        ("SELECT statu FROM access", "did you mean status?"),
        ("SELECT a.statu FROM access a", "did you mean status?"),
        ("SELECT status FROM acces", "did you mean access?"),
        ("SELECT status FROM elsewhere", "there are access"),
        ("INSERT INTO access VALUES (1)", "no question"),
        ("DELETE FROM access", "no question"),
        ("SELECT status INTO copy FROM access", "no question"),
        ("SET x = 1", "no question"),
        ("DROP TABLE access", "DROP TABLE"),
        ("COPY access TO 'file.csv'", "COPY"),
        ("EXPLAIN SELECT status FROM access", "sawmill explain"),
        ("DESCRIBE access", "dataset show"),
        ("SELECT 1; SELECT 2", "one query"),
        ("SELECT status + host FROM access", "Cannot coerce"),
        (" -- nothing", "the query is empty"),
        ("SELEKT", "SELEKT"),
        ("SELECT * FROM access WHERE", "Expected: an expression"),
        ("SELECT sum(host) FROM access", "argument types 'sum(Utf8View)'"),
        ("SELECT cuont(*) FROM access", "Did you mean"),
    ] {
        let query = Query {
            sql: text.into(),
            ..both.query("SELECT 1 FROM access")
        };
        let error = both.runtime.check(&query).await.unwrap_err().to_string();
        assert!(error.contains(told) && !error.contains('\n'), "{text}: {error}");
        for noise in ["Diagnostic", "ParserError", "Internal error", "backtrace", "bug"] {
            assert!(!error.contains(noise), "{text}: {error}");
        }
    }
    let other = Query {
        version: "0".into(),
        ..both.query("SELECT count(*) FROM access")
    };
    let refused = both.runtime.check(&other).await.unwrap_err().to_string();
    assert!(refused.contains("bring all nodes"), "{refused}");
    let nowhere = Query {
        time_zone: "Nowhere/X".into(),
        ..both.query("SELECT count(*) FROM access")
    };
    let refused = both.runtime.check(&nowhere).await.unwrap_err().to_string();
    assert!(refused.contains("is no time zone"), "{refused}");
}

#[tokio::test]
async fn what_gathers_rows_says_why_and_stops_at_the_limit() {
    let both = Both::new();
    for (text, told) in [
        ("SELECT lag(host) OVER (ORDER BY time) FROM access", "window"),
        (
            "SELECT a.host FROM access a JOIN app b ON a.host = b.host",
            "join of datasets",
        ),
        ("SELECT * FROM hosts LEFT JOIN access USING (host)", "keeps rows"),
        (
            "SELECT host FROM access WHERE bytes > (SELECT avg(bytes) FROM access)",
            "subquery",
        ),
    ] {
        let query = Query {
            gather_rows: None,
            ..both.query(text)
        };
        let error = both.runtime.check(&query).await.unwrap_err().to_string();
        assert!(
            error.contains(told) && error.contains("--gather"),
            "{text}: {error}"
        );
    }
    // 3000 lines: a block has more than 100, no two of them more than 1000.
    let window = "SELECT lag(host) OVER (ORDER BY time) FROM access";
    let sorted = "SELECT host FROM access ORDER BY time";
    for (text, most, on_block, fails) in [
        (window, 100, true, true),
        (window, 1000, false, true),
        (window, 3000, false, false),
        (sorted, 1000, false, true),
        (sorted, 3000, false, false),
        ("SELECT host FROM access", 10, false, false),
    ] {
        let query = Query {
            gather_rows: Some(most),
            ..both.query(text)
        };
        let partials = both.partials(&query).await;
        assert_eq!(partials.is_err(), on_block, "{text}");
        let Ok(partials) = partials else { continue };
        let merged = sql::upper(&both.runtime, &query, &partials.concat()[..]).await;
        match merged {
            Err(sql::Error::TooManyRows { most: told }) => assert!(fails && told == most, "{text}"),
            other => assert!(!fails && other.is_ok(), "{text}: {other:?}"),
        }
    }
}

#[tokio::test]
async fn small_tables_must_be_right() {
    let both = Both::new();
    let query = both.query("SELECT count(*) FROM access JOIN codes ON status = code");
    let table = &query.with[0];
    let elsewhere = sql::Runtime::for_planning();
    assert_eq!(elsewhere.missing(&query), [table]);
    let missing = elsewhere.check(&query).await.unwrap_err();
    assert!(matches!(missing, sql::Error::Missing(_)), "{missing}");
    let other = elsewhere
        .keep(table, b"code,name,bad\n1,x,true\n")
        .unwrap_err()
        .to_string();
    assert!(other.contains("not those that were sent"), "{other}");
    for (text, told) in [
        ("a,b\n1,2\n2,3\n3,4\n4,5\n5,6\n6,7\n3\n", "line 7"),
        ("", "no columns are found"),
        ("one word\n", "no columns are found"),
    ] {
        let refused = match sql::small_table("t", None, text.as_bytes()) {
            Err(error) => error,
            Ok(read) => {
                let mut table = table.clone();
                table.table = read;
                table.checksum = sql::checksum(text.as_bytes());
                elsewhere.keep(&table, text.as_bytes()).unwrap_err()
            }
        };
        assert!(refused.to_string().contains(told), "{text}: {refused}");
    }
    // One column, and types of all lines.
    let one = sql::small_table("t", Some("csv"), b"host\n1\n2\nx\n").unwrap();
    assert_eq!(one.columns.len(), 1);
    assert_eq!(one.columns[0].kind.name(), "text");
}
