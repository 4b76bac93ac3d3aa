//! What one core makes of lines of each format, beside what it can copy; and what planning takes.

use std::{
    fmt::Write as _,
    hint::black_box,
    time::{Duration, Instant},
};

use anyhow::Context as _;
use model::processor::{Query, QueryTable};
use serde::Serialize;
use sql::{BlockRows, Origin};

use super::{
    super::{
        access_log::{self, Site, Until},
        sample::Sample,
    },
    questions::QUESTIONS,
};

/// What is parsed at once, as large as a block.
const BYTES: u64 = 8 << 20;
const ROUNDS: usize = 9;

/// A format, and how fast it is.
#[derive(Debug, Serialize)]
pub(super) struct Parsed {
    pub(super) what: &'static str,
    pub(super) bytes_per_s: f64,
}

const ORIGIN: Origin = Origin {
    block: 0,
    begins_file: true,
    now_us: 1_700_000_000_000_000,
};

/// Each format with a column or two, as queries want them.
///
/// # Errors
/// A format that is none.
pub(super) fn measure() -> anyhow::Result<Vec<Parsed>> {
    let mut log = Vec::new();
    access_log::write(&mut log, Until::Bytes(BYTES), 1, Site::Busy)?;
    let regex =
        r#"regex:^(?<host>\S+) \S+ \S+ \[(?<time>[^\]]+)\] "(?<request>[^"]*)" (?<status>\d+) (?<bytes>\d+)"#;
    let (json, logfmt, csv, syslog) = (written(json), written(logfmt), written(csv), written(syslog));
    let text = written(text);
    let cases: [(&str, &str, &[u8], &[&str]); 13] = [
        ("access, count(*)", "access", &log, &[]),
        ("access, status", "access", &log, &["status"]),
        ("access, path and bytes", "access", &log, &["path", "bytes"]),
        (
            "access, time and request time",
            "access",
            &log,
            &["time", "request_time"],
        ),
        ("access, host and status", "access", &log, &["host", "status"]),
        ("json, status and path", "json", &json, &["status", "path"]),
        ("logfmt, status and path", "logfmt", &logfmt, &["status", "path"]),
        ("csv, status and path", "csv", &csv, &["status", "path"]),
        ("syslog, app", "syslog", &syslog, &["app"]),
        ("text, message", "text", &text, &["message"]),
        ("text, time and level", "text", &text, &["time", "level"]),
        ("text with joined lines, level", "text:joined", &text, &["level"]),
        ("a regular expression, status", regex, &log, &["status"]),
    ];
    let mut all = Vec::new();
    for (what, format, text, columns) in cases {
        let table = sql::named(format, text)?.table;
        let place = |name: &&str| {
            let found = table.columns.iter().position(|column| column.name == **name);
            found.with_context(|| format!("{what} has no column {name}"))
        };
        let places = columns
            .iter()
            .map(place)
            .collect::<anyhow::Result<Vec<usize>>>()?;
        let took = median(|| {
            black_box(BlockRows::parse(&table, black_box(text), &places, ORIGIN).map(drop)).ok();
        });
        all.push(Parsed {
            what,
            bytes_per_s: text.len() as f64 / took.as_secs_f64(),
        });
    }
    Ok(all)
}

/// What one core copies from memory to memory, in bytes per second.
pub(super) fn memory_bytes_per_s() -> f64 {
    let from = vec![1u8; 256 << 20];
    let mut to = vec![0u8; from.len()];
    let took = median(|| {
        to.copy_from_slice(black_box(&from));
        black_box(&mut to);
    });
    from.len() as f64 / took.as_secs_f64()
}

/// Planning the third question anew.
///
/// # Errors
/// None that is expected.
pub(super) async fn planning() -> anyhow::Result<Duration> {
    let mut log = Vec::new();
    access_log::write(&mut log, Until::Lines(100), 1, Site::Busy)?;
    let table = sql::named("access", &log)?.table;
    let runtime = sql::Runtime::for_planning();
    let mut all = Sample::default();
    for round in 0..ROUNDS {
        let query = Query {
            sql: QUESTIONS[2].sawmill.replace("{table}", "access"),
            tables: vec![QueryTable {
                name: "access".into(),
                table: table.clone(),
                lower_half: None,
            }],
            time_zone: "UTC".into(),
            // Another moment is another plan.
            now_us: ORIGIN.now_us + round as i64,
            version: sql::VERSION.into(),
            ..Query::default()
        };
        let begin = Instant::now();
        runtime.check(&query).await?;
        all.push(begin.elapsed());
    }
    Ok(all.median())
}

fn median(mut work: impl FnMut()) -> Duration {
    let timed = (0..ROUNDS).map(|_| {
        let begin = Instant::now();
        work();
        begin.elapsed()
    });
    timed.collect::<Sample>().median()
}

/// Lines until there are enough bytes.
fn written(line: impl Fn(&mut String, u64)) -> Vec<u8> {
    let mut text = String::new();
    let mut number = 0;
    while (text.len() as u64) < BYTES {
        line(&mut text, number);
        number += 1;
    }
    text.into_bytes()
}

fn status(number: u64) -> u64 {
    [200, 200, 200, 304, 404, 500][(number % 6) as usize]
}

fn json(to: &mut String, number: u64) {
    let status = status(number);
    let _ = writeln!(
        to,
        r#"{{"time":"2025-05-17T10:05:{:02}Z","level":"info","request":{{"host":"10.0.0.{}","method":"GET"}},"path":"/items/{}","status":{status},"took":0.{:03}}}"#,
        number % 60,
        number % 250,
        number % 2000,
        number % 1000
    );
}

fn logfmt(to: &mut String, number: u64) {
    let status = status(number);
    let _ = writeln!(
        to,
        "time=2025-05-17T10:05:{:02}Z level=info host=10.0.0.{} path=/items/{} status={status} msg=\"request was served\" took=0.{:03}",
        number % 60,
        number % 250,
        number % 2000,
        number % 1000
    );
}

fn csv(to: &mut String, number: u64) {
    if number == 0 {
        to.push_str("time,host,path,status,message,took\n");
    }
    let status = status(number);
    let _ = writeln!(
        to,
        "2025-05-17T10:05:{:02}Z,10.0.0.{},/items/{},{status},\"served, at last\",0.{:03}",
        number % 60,
        number % 250,
        number % 2000,
        number % 1000
    );
}

fn text(to: &mut String, number: u64) {
    let level = ["INFO", "INFO", "WARN", "ERROR"][(number % 4) as usize];
    let _ = writeln!(
        to,
        "2025-05-17 10:{:02}:{:02},{:03} {level} request {number} of user=u{} was served to 10.0.0.{} from /items/{}",
        number / 60 % 60,
        number % 60,
        number % 1000,
        number % 500,
        number % 250,
        number % 2000
    );
}

fn syslog(to: &mut String, number: u64) {
    let _ = writeln!(
        to,
        "Jun 14 15:16:{:02} combo sshd(pam_unix)[{}]: authentication failure; logname= uid=0 tty=NODEVssh rhost=10.0.0.{}",
        number % 60,
        number % 30_000,
        number % 250
    );
}
