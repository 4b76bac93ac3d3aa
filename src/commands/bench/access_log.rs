//! A made-up access log in the combined format, for trying out and measuring where no real one is at hand.
//!
//! Promise: the same seed gives the same bytes; status codes, methods, paths, sizes and agents are spread about as on a
//! small web site. No promise that it fools anybody.

use std::io::{self, Write};

/// Status codes and how many of 1000 requests end with them.
const STATUS: [(u16, u32); 9] = [
    (200, 870),
    (304, 55),
    (404, 30),
    (301, 22),
    (206, 10),
    (500, 4),
    (403, 3),
    (499, 3),
    (416, 3),
];
const PATHS: [&str; 12] = [
    "/",
    "/favicon.ico",
    "/style/main.css",
    "/images/logo.png",
    "/blog/",
    "/blog/tags/queue?flav=rss20",
    "/projects/",
    "/presentations/2025/slides.pdf",
    "/robots.txt",
    "/search?q=log+batches",
    "/api/v1/items",
    "/articles/how-to-split-a-log-without-copying-it/",
];
const AGENTS: [&str; 5] = [
    "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0",
    "Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_7) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/138.0.0.0 Safari/537.36",
    "Mozilla/5.0 (compatible; Examplebot/2.1; +http://example.com/bot.html)",
    "curl/8.14.1",
    "UniversalFeedParser/4.2-pre-314-svn +http://feedparser.org/",
];
/// 17 May 2015, a Sunday; the log starts at its midnight.
const FIRST_DAY: u64 = 17;
/// Requests that share a second.
const LINES_A_SECOND: u64 = 12;

/// Dice whose rolls never change with the release of a library.
///
/// Source: Steele, Lea and Flood, "Fast Splittable Pseudorandom Number Generators", 2014 (`SplitMix64`).
struct Dice(u64);

impl Dice {
    fn roll(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.roll() % bound
    }
}

/// Whose log it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Site {
    /// A dozen paths, hosts that hardly come back.
    Small,
    /// 10,000 hosts and 2,000 paths, asked for by Zipf's law, and how long each request took.
    Busy,
}

/// When to stop writing lines.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Until {
    /// After so many lines.
    Lines(u64),
    /// After the line that reaches so many bytes.
    Bytes(u64),
}

/// Writes an access log; returns its lines and bytes.
///
/// # Errors
/// Those of `to`.
pub(crate) fn write(to: &mut impl Write, until: Until, seed: u64, site: Site) -> io::Result<(u64, u64)> {
    let mut dice = Dice(seed);
    let (mut lines, mut bytes) = (0, 0);
    let mut line = Vec::with_capacity(512);
    let busy = (site == Site::Busy).then(Busy::new);
    let more = |lines: u64, bytes: u64| match until {
        Until::Lines(wanted) => lines < wanted,
        Until::Bytes(wanted) => bytes < wanted,
    };
    while more(lines, bytes) {
        line.clear();
        match &busy {
            Some(busy) => busy.write_line(&mut line, lines, &mut dice)?,
            None => write_line(&mut line, lines, &mut dice)?,
        }
        to.write_all(&line)?;
        lines += 1;
        bytes += line.len() as u64;
    }
    Ok((lines, bytes))
}

fn write_line(to: &mut Vec<u8>, number: u64, dice: &mut Dice) -> io::Result<()> {
    let second = number / LINES_A_SECOND;
    let (day, hour, minute) = (FIRST_DAY + second / 86_400, second / 3600 % 24, second / 60 % 60);
    let [a, b, ..] = dice.roll().to_be_bytes();
    let status = pick_status(dice.below(1000) as u32);
    let method = if dice.below(40) == 0 { "POST" } else { "GET" };
    let path = PATHS[dice.below(PATHS.len() as u64) as usize];
    let size = if status == 304 {
        0
    } else {
        180 + dice.below(89_820)
    };
    let agent = AGENTS[dice.below(AGENTS.len() as u64) as usize];
    // Visitors come back: few different last bytes.
    let (c, d) = (dice.below(8), 1 + dice.below(31));
    writeln!(
        to,
        "{a}.{b}.{c}.{d} - - [{:02}/May/2015:{hour:02}:{minute:02}:{:02} +0000] \"{method} {path} HTTP/1.1\" {status} {size} \"-\" \"{agent}\"",
        (day - 1) % 31 + 1,
        second % 60,
    )
}

/// Hosts of a busy site.
const HOSTS: u64 = 10_000;
/// Paths of a busy site.
const BUSY_PATHS: usize = 2_000;
/// Requests to a busy site that share a second.
const BUSY_LINES_A_SECOND: u64 = 60;

struct Busy {
    paths: Vec<String>,
    /// For each path how much of all requests goes to it and those before it, of [`u32::MAX`].
    up_to: Vec<u64>,
}

impl Busy {
    fn new() -> Self {
        let weight = |rank: usize| 1.0 / (rank + 1) as f64;
        let all: f64 = (0..BUSY_PATHS).map(weight).sum();
        let mut sum = 0.0;
        let up_to = (0..BUSY_PATHS).map(|rank| {
            sum += weight(rank) / all;
            (sum * f64::from(u32::MAX)) as u64
        });
        let path = |rank: usize| match rank % 4 {
            0 => format!("/api/v1/items/{rank}"),
            1 => format!("/articles/{}/how-to-read-{rank}-logs", rank % 37),
            2 => format!("/static/css/theme-{rank}.css"),
            _ => format!("/shop/category-{}/product-{rank}?ref=home", rank % 23),
        };
        Self {
            paths: (0..BUSY_PATHS).map(path).collect(),
            up_to: up_to.collect(),
        }
    }

    fn write_line(&self, to: &mut Vec<u8>, number: u64, dice: &mut Dice) -> io::Result<()> {
        let second = number / BUSY_LINES_A_SECOND;
        let (day, hour, minute) = (FIRST_DAY + second / 86_400, second / 3600 % 24, second / 60 % 60);
        // Some hosts come often, most now and then.
        let host = dice.below(HOSTS).min(dice.below(HOSTS));
        let rolled = dice.below(u32::MAX.into());
        let path = &self.paths[self
            .up_to
            .partition_point(|&up_to| up_to < rolled)
            .min(BUSY_PATHS - 1)];
        let status = pick_status(dice.below(1000) as u32);
        let size = if status == 304 {
            0
        } else {
            180 + dice.below(89_820)
        };
        let agent = AGENTS[dice.below(AGENTS.len() as u64) as usize];
        let method = if dice.below(40) == 0 { "POST" } else { "GET" };
        // Most take some milliseconds, few take seconds.
        let (a, b, c) = (dice.below(40), dice.below(40), dice.below(2500));
        let took_ms = 1 + a * b / 8 + if dice.below(50) == 0 { c } else { 0 };
        let referer = if dice.below(3) == 0 {
            "https://www.example.com/"
        } else {
            "-"
        };
        writeln!(
            to,
            "10.{}.{}.{} - - [{:02}/May/2015:{hour:02}:{minute:02}:{:02} +0000] \"{method} {path} HTTP/1.1\" {status} {size} \"{referer}\" \"{agent}\" {}.{:03}",
            host / 2500,
            host / 50 % 50,
            host % 50,
            (day - 1) % 31 + 1,
            second % 60,
            took_ms / 1000,
            took_ms % 1000,
        )
    }
}

fn pick_status(mut mark: u32) -> u16 {
    for (status, weight) in STATUS {
        if mark < weight {
            return status;
        }
        mark -= weight;
    }
    200
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_have_the_status_in_the_ninth_field_and_repeat_by_seed() {
        let mut first = Vec::new();
        let (lines, bytes) = write(&mut first, Until::Lines(2000), 7, Site::Small).unwrap();
        assert_eq!((lines, bytes), (2000, first.len() as u64));
        let text = String::from_utf8(first.clone()).unwrap();
        for line in text.lines() {
            let status = line.split_whitespace().nth(8).unwrap();
            assert!(
                STATUS.iter().any(|(known, _)| known.to_string() == status),
                "{line}"
            );
        }
        let mut second = Vec::new();
        write(&mut second, Until::Lines(2000), 7, Site::Small).unwrap();
        assert_eq!(first, second);
    }

    #[test]
    fn stops_at_the_line_that_reaches_the_bytes() {
        let mut to = Vec::new();
        let (_, bytes) = write(&mut to, Until::Bytes(10_000), 1, Site::Busy).unwrap();
        assert!((10_000..10_600).contains(&bytes) && to.ends_with(b"\n"));
    }

    #[test]
    fn the_weights_make_a_thousand() {
        assert_eq!(STATUS.iter().map(|(_, weight)| weight).sum::<u32>(), 1000);
    }
}
