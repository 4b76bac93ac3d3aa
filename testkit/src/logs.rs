//! Made-up log lines for tests.

use std::fmt::Write as _;

/// So many lines of an access log, one a second from 10:00 on 17 May 2015: 7 hosts, 5 paths, every third line with the
/// status 500, the others with 200, and the number of the line as its bytes.
///
/// # Panics
/// For more than an hour of lines.
pub fn access(lines: u32) -> String {
    assert!(lines <= 3600, "{lines} lines are more than an hour");
    let mut log = String::new();
    for number in 0..lines {
        let status = if number % 3 == 0 { 500 } else { 200 };
        let time = format!("17/May/2015:10:{:02}:{:02} +0000", number / 60, number % 60);
        writeln!(
            log,
            "10.0.0.{} - - [{time}] \"GET /{} HTTP/1.1\" {status} {number}",
            number % 7,
            number % 5
        )
        .expect("a string takes what is written");
    }
    log
}
