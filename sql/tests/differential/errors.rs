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
        (
            "SELECT status + host FROM access",
            "an integer and a text can't be computed with +: convert one",
        ),
        (
            "SELECT time + 5 FROM access",
            "a time and an integer can't be computed with +: add or subtract an interval",
        ),
        (
            "SELECT 1 FROM access WHERE time > 5",
            "a time and an integer can't be compared by >",
        ),
        (
            "SELECT 1 FROM access WHERE host LIKE 5",
            "a text and an integer can't be compared by LIKE",
        ),
        (
            "SELECT 1 FROM access WHERE time > 'yesterday'",
            "'yesterday' is no time such as",
        ),
        (
            "SELECT 1 FROM access WHERE status = 'ok'",
            "'ok' is not an integer: write one, or have TRY_CAST(x AS BIGINT)",
        ),
        (
            "SELECT 1 FROM access WHERE host",
            "access.host is a text, no condition",
        ),
        (
            "SELECT time - INTERVAL 'x' FROM access",
            "'x' is no interval such as",
        ),
        (
            "SELECT host, count(*) FROM access",
            "access.host is neither grouped by nor",
        ),
        (
            "SELECT host FROM access a JOIN access b ON a.host = b.host",
            "several tables have a column host",
        ),
        (
            "SELECT host AS a, status AS a FROM access",
            "two columns have one name",
        ),
        ("SELECT NOT host FROM access", "got text"),
        (
            "SELECT * FROM my-logs",
            "a name with a hyphen is quoted: \"my-logs\"",
        ),
        (
            "SELECT 1 FROM access WHERE host = \"10.0.0.1\"",
            "a text is in single quotes: '10.0.0.1'",
        ),
        (" -- nothing", "the query is empty"),
        ("SELEKT", "SELEKT"),
        ("SELECT * FROM access WHERE", "Expected: an expression"),
        (
            "SELECT sum(host) FROM access",
            "sum does not take (text): convert",
        ),
        ("SELECT cuont(*) FROM access", "Did you mean"),
    ] {
        let query = Query {
            sql: text.into(),
            ..both.query("SELECT 1 FROM access")
        };
        let error = both.runtime.check(&query).await.unwrap_err().to_string();
        assert!(error.contains(told) && !error.contains('\n'), "{text}: {error}");
        for noise in [
            "Diagnostic",
            "ParserError",
            "Internal error",
            "backtrace",
            "bug",
            "Int64 ",
            "Utf8",
        ] {
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
async fn names_that_need_quotes_are_shown_with_them() {
    let both = Both::new();
    for (text, told) in [
        ("SELECT user-id FROM access", "did you mean \"user-id\"?"),
        ("SELECT req.id FROM access", "did you mean \"req.id\"?"),
        ("SELECT user.id FROM access", "a name with a dot is quoted"),
        ("SELECT userName FROM access", "did you mean \"userName\"?"),
        ("SELECT username FROM access", "did you mean \"userName\"?"),
    ] {
        let mut query = both.query(text);
        for (place, name) in ["user-id", "req.id", "userName"].into_iter().enumerate() {
            query.tables[0].table.columns[place].name = name.into();
        }
        let error = both.runtime.check(&query).await.unwrap_err().to_string();
        assert!(error.contains(told), "{text}: {error}");
    }
}

/// What shows only when the lines are read.
#[tokio::test]
async fn what_fails_on_the_lines_says_so() {
    let both = Both::new();
    for (text, told) in [
        (
            "SELECT 1/0 FROM access",
            "a division by zero: divide by nullif(x, 0)",
        ),
        (
            "SELECT sum(bytes % (status - 200)) FROM access",
            "a division by zero",
        ),
        (
            "SELECT CAST(host AS BIGINT) FROM access",
            "'10.0.0.0' is not an integer",
        ),
        (
            "SELECT to_timestamp(host) FROM access",
            "'10.0.0.0' is no time such as",
        ),
        (
            "SELECT to_timestamp(host, '%Y') FROM access",
            "'10.0.0.0' is no time of the format '%Y'",
        ),
        ("SELECT CAST(bytes AS SMALLINT) FROM access", "does not fit"),
        (
            "SELECT input_file_name() FROM access",
            "_file, _block and _line tell",
        ),
    ] {
        let query = both.query(text);
        both.runtime.check(&query).await.unwrap();
        let error = both.partials(&query).await.unwrap_err().to_string();
        assert!(error.contains(told), "{text}: {error}");
    }
}

#[tokio::test]
async fn no_rows_need_no_block() {
    let both = Both::new();
    for (text, is_empty) in [
        ("SELECT host FROM access LIMIT 0", true),
        (
            "SELECT host, count(*) FROM access GROUP BY host ORDER BY 2 LIMIT 0",
            true,
        ),
        ("SELECT host FROM access WHERE 1 = 0", true),
        ("SELECT count(*) FROM access WHERE 1 = 0", false),
        ("SELECT host FROM access LIMIT 1", false),
    ] {
        let answer = both.runtime.no_rows(&both.query(text)).await.unwrap();
        assert_eq!(answer.is_some(), is_empty, "{text}");
    }
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
    for (ending, text, told) in [
        (Some("csv"), "a,b\n1,2\n2,3\n3,4\n4,5\n5,6\n6,7\n3\n", "line 7"),
        (None, "", "no columns are found"),
        (None, "one word\n", "no columns are found"),
    ] {
        let refused = match sql::small_table("t", ending, text.as_bytes()) {
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
