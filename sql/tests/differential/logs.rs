//! What is asked about.

use std::fmt::Write as _;

use rand::{RngExt, SeedableRng, rngs::StdRng};

const LINES: u32 = 3000;

/// A small table.
pub(crate) const CODES: &str = "code,name,bad\n200,fine,false\n304,\"not, modified\",false\n404,gone,true\n500,broken,true\n999,never,\n";
/// Another one; one host is there twice, some are not.
pub(crate) const HOSTS: &str = r#"{"host":"10.0.0.0","country":"de","weight":1.5}
{"host":"10.0.0.1","country":"fr","weight":2}
{"host":"10.0.0.2","country":"de","weight":0.25}
{"host":"10.0.0.2","country":"dk","weight":4}
{"host":"10.0.0.30","country":null,"weight":1}
{"host":"10.9.9.9","country":"xx","weight":1}
"#;

/// An access log with lines that do not parse, empty columns and hosts of uneven weight.
pub(crate) fn access() -> String {
    let mut dice = StdRng::seed_from_u64(7);
    let mut log = String::new();
    for number in 0..LINES {
        if number % 97 == 13 {
            log += "this is no line of an access log\n";
            continue;
        }
        let host = dice.random_range(0..40u32) * dice.random_range(0..3u32);
        let path = dice.random_range(0..25u32);
        let status = [200, 200, 200, 304, 404, 500][dice.random_range(0..6usize)];
        let bytes = match dice.random_range(0..10u32) {
            0 => "-".to_string(),
            _ => dice.random_range(0..100_000u32).to_string(),
        };
        let (hour, minute, second) = (number / 600 % 24, number / 10 % 60, number % 10 * 6);
        let method = ["GET", "GET", "POST"][dice.random_range(0..3usize)];
        writeln!(
            log,
            "10.0.0.{host} - - [17/May/2015:{hour:02}:{minute:02}:{second:02} +0000] \"{method} /p/{path} HTTP/1.1\" \
             {status} {bytes} \"-\" \"agent {}\" 0.{:03}",
            host % 5,
            dice.random_range(0..1000u32)
        )
        .unwrap();
    }
    log
}

/// What an application says of requests by the same hosts, as JSON.
pub(crate) fn app() -> String {
    let mut dice = StdRng::seed_from_u64(8);
    let mut log = String::new();
    for number in 0..LINES / 10 {
        let (hour, minute) = (number / 60, number % 60);
        let host = dice.random_range(0..50u32);
        let level = ["info", "info", "warn", "error"][dice.random_range(0..4usize)];
        let took = match dice.random_range(0..5u32) {
            0 => "null".to_string(),
            _ => format!("{}.5", dice.random_range(0..900u32)),
        };
        let code = [200, 404, 500][dice.random_range(0..3usize)];
        writeln!(
            log,
            r#"{{"time":"2015-05-17T{hour:02}:{minute:02}:30Z","level":"{level}","host":"10.0.0.{host}","took":{took},"code":{code}}}"#
        )
        .unwrap();
    }
    log
}
