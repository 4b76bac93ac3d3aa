//! What `*` stands for.

use model::{processor::Query, table::Table};

use crate::both::Both;

#[tokio::test]
async fn stars_leave_out_what_every_dataset_has() {
    let both = Both::new();
    const ACCESS: &str =
        "host,ident,user,time,method,path,protocol,status,bytes,referer,user_agent,request_time";
    const APP: &str = "code,host,level,time,took";
    let with_app = |columns: &str| format!("{columns},{APP}");
    let cases: [(&str, String); 24] = [
        ("SELECT * FROM access", ACCESS.into()),
        ("SELECT access.* FROM access", ACCESS.into()),
        ("SELECT a.* FROM access AS a WHERE _line = 1", ACCESS.into()),
        (
            "SELECT *, _file, _host FROM access",
            format!("{ACCESS},_file,_host"),
        ),
        (
            "SELECT * FROM access ORDER BY _block, _line LIMIT 1",
            ACCESS.into(),
        ),
        ("SELECT * EXCLUDE (host) FROM app", "code,level,time,took".into()),
        (
            "SELECT * EXCEPT (_raw, host) FROM app",
            "code,level,time,took".into(),
        ),
        ("SELECT * REPLACE (code + 1 AS code) FROM app", APP.into()),
        ("SELECT _raw FROM (SELECT *, _raw FROM app)", "_raw".into()),
        ("SELECT * FROM (SELECT _raw, host FROM app)", "_raw,host".into()),
        ("SELECT * FROM (SELECT * FROM app) x", APP.into()),
        ("SELECT * FROM app UNION ALL SELECT * FROM app", APP.into()),
        ("WITH app AS (SELECT * FROM app) SELECT * FROM app", APP.into()),
        (
            "WITH x AS (SELECT _line FROM app), app AS (SELECT * FROM x) SELECT * FROM app",
            "_line".into(),
        ),
        (
            "SELECT * FROM codes JOIN app USING (code)",
            "name,bad,code,host,level,time,took".into(),
        ),
        (
            "SELECT c.*, app.* FROM codes c JOIN app ON c.code = app.code",
            format!("code,name,bad,{APP}"),
        ),
        (
            "SELECT x.*, y.* FROM access x JOIN app y ON x.host = y.host",
            with_app(ACCESS),
        ),
        (
            "SELECT * FROM access x JOIN app y ON x.host = y.host",
            with_app(ACCESS),
        ),
        ("SELECT * FROM access, app", with_app(ACCESS)),
        (
            "SELECT * FROM access FULL JOIN app ON access.host = app.host",
            with_app(ACCESS),
        ),
        (
            "SELECT * FROM access JOIN app USING (host)",
            format!("{ACCESS},code,level,time,took"),
        ),
        ("SELECT * FROM app LEFT SEMI JOIN access USING (host)", APP.into()),
        ("SELECT count(*) FROM app", "count(*)".into()),
        (
            "SELECT host FROM app WHERE EXISTS (SELECT * FROM codes WHERE codes.code = app.code)",
            "host".into(),
        ),
    ];
    for (text, columns) in cases {
        assert_eq!(columns_of(&both, &both.query(text)).await, columns, "{text}");
    }
}

#[tokio::test]
async fn of_lines_that_are_only_lines_the_line_stays() {
    let both = Both::new();
    let mut query = both.query("SELECT * FROM app");
    query.tables[0].table = Table {
        format: model::table::Format::Raw,
        columns: Vec::new(),
        least: None,
    };
    assert_eq!(columns_of(&both, &query).await, "_raw");
}

async fn columns_of(both: &Both, query: &Query) -> String {
    // Over nothing.
    let answer = sql::upper(&both.runtime, query, &[]).await;
    let answer = answer.unwrap_or_else(|error| panic!("{}: {error}", query.sql));
    let mut header = Vec::new();
    sql::render(&answer, sql::Rendering::Csv, &mut header).unwrap();
    String::from_utf8(header)
        .unwrap()
        .lines()
        .next()
        .unwrap()
        .to_string()
}
