//! What stands in front of the message of a line: a time stamp and a level, in either order.
//!
//! Nothing of a line is lost but these two and what separates them from the message: where other words stand in front of
//! them or between them, the message begins at these words.

use memchr::memchr;

use super::level;
use crate::time::Clock;

/// A time stamp begins within so many bytes.
const STAMP_WITHIN: usize = 64;
/// Brackets of more bytes are part of the message.
const BRACKETS_WITHIN: usize = 64;
/// Between the stamp and the level stand at most so many words: a thread, the number of a process, the name of a logger.
const MOST_BETWEEN: usize = 4;

/// What stands in front of a message, and where that begins.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Head {
    /// In microseconds since 1970 UTC.
    pub(crate) time_us: Option<i64>,
    /// In capitals.
    pub(crate) level: Option<&'static str>,
    /// Where the message begins.
    pub(crate) message: usize,
}

/// Reads what stands in front of messages, of which most begin as the one before.
pub(crate) struct Heads {
    clock: Clock,
}

/// A word that may stand between the time stamp and the message.
enum Word {
    /// The level, with its end; `alone`: nothing else stands within its brackets.
    Level {
        level: &'static str,
        end: usize,
        alone: bool,
    },
    /// Something behind which the level may stand.
    Other { end: usize },
    /// A part of the message.
    Message,
}

impl Heads {
    /// `yearless_now` is the moment near which times without a year are; none where stamps have a year.
    pub(crate) fn new(yearless_now: Option<i64>) -> Self {
        Self {
            clock: Clock::new(yearless_now),
        }
    }

    /// Whether a line has a time stamp and is not indented, so that it does not belong to what is above it.
    pub(crate) fn begins_record(&mut self, line: &[u8]) -> bool {
        !line.first().is_none_or(u8::is_ascii_whitespace) && self.read(line).time_us.is_some()
    }

    /// What stands in front of the message of a line.
    #[inline]
    pub(crate) fn read(&mut self, line: &[u8]) -> Head {
        if let Some((time, end)) = self.clock.read(line) {
            return behind(line, time, end, None);
        }
        self.read_further(line)
    }

    /// As [`Heads::read`] for a line that does not begin with a time stamp.
    fn read_further(&mut self, line: &[u8]) -> Head {
        let (priority, begin) = priority(line);
        let opened = opened(line, begin);
        if let Some((time, end)) = self.stamp(line, opened) {
            return behind(line, time, end, priority);
        }
        let (level, end) = match word(line, opened, true) {
            Word::Level { level, end, alone } if alone => (Some(level), end),
            // `W0102 15:04:05.678`
            _ => match line.get(opened).copied().and_then(level::lettered) {
                Some(level) if self.stamp(line, opened + 1).is_some() => (Some(level), opened + 1),
                // `W, [2024-01-02 …`
                Some(level) if line[opened + 1..].starts_with(b", [") => (Some(level), opened + 3),
                _ => (None, opened),
            },
        };
        let behind_level = opened_behind(line, end);
        if level.is_some()
            && let Some((time, end)) = self.stamp(line, behind_level)
        {
            return Head {
                time_us: Some(time),
                level,
                message: separated(line, end),
            };
        }
        if let Some((time, end)) = self.first_stamp(line, opened) {
            // Words stand in front of it.
            let found = behind(line, time, end, level.or(priority));
            return Head { message: 0, ..found };
        }
        if let Some(level) = level {
            return Head {
                time_us: None,
                level: Some(level),
                message: separated(line, end),
            };
        }
        let (level, _) = level_behind(line, opened);
        let message = match (priority, level) {
            (Some(_), None) => begin,
            _ => 0,
        };
        Head {
            time_us: None,
            level: level.or(priority),
            message,
        }
    }

    fn stamp(&mut self, line: &[u8], at: usize) -> Option<(i64, usize)> {
        let (time, length) = self.clock.read(line.get(at..)?)?;
        Some((time, at + length))
    }

    /// The first time stamp at the beginning of a word; a number alone is most likely none.
    fn first_stamp(&mut self, line: &[u8], from: usize) -> Option<(i64, usize)> {
        let within = &line[..line.len().min(STAMP_WITHIN)];
        let begins = |at: usize| {
            let before = at.checked_sub(1).map(|before| line[before]);
            let is_number = line[at..].iter().take(10).all(u8::is_ascii_digit);
            !is_number && before.is_none_or(|before| b" \t[(<\"'=|;,".contains(&before))
        };
        (from..within.len())
            .filter(|&at| (within[at].is_ascii_digit() || within[at].is_ascii_uppercase()) && begins(at))
            .find_map(|at| self.stamp(line, at))
    }
}

/// What stands behind a time stamp.
#[inline]
fn behind(line: &[u8], time: i64, end: usize, priority: Option<&'static str>) -> Head {
    let begin = separated(line, end);
    let (level, end) = level_behind(line, begin);
    Head {
        time_us: Some(time),
        level: level.or(priority),
        message: end.unwrap_or(begin),
    }
}

/// The level among the first words from a place on, and where the message begins when nothing else stands before it.
#[inline]
fn level_behind(line: &[u8], begin: usize) -> (Option<&'static str>, Option<usize>) {
    let mut at = begin;
    for number in 0..=MOST_BETWEEN {
        match word(line, at, number == 0) {
            Word::Level { level, end, alone } => {
                let message = (number == 0 && alone).then(|| separated(line, end));
                return (Some(level), message);
            }
            Word::Other { end } => at = separated(line, end),
            Word::Message => break,
        }
    }
    (None, None)
}

/// What the word is that begins here; `first`: only what separates stands before it.
#[inline]
fn word(line: &[u8], at: usize, first: bool) -> Word {
    let Some(&byte) = line.get(at) else {
        return Word::Message;
    };
    match byte {
        b'[' | b'(' | b'<' => bracketed(line, at),
        b'0'..=b'9' | b'#' => {
            let is_number = |byte: &&u8| byte.is_ascii_digit() || b"#.:,".contains(byte);
            let length = line[at..].iter().take_while(is_number).count();
            match line.get(at + length) {
                None | Some(b' ' | b'\t' | b']' | b')' | b'|') => Word::Other { end: at + length },
                Some(_) => Word::Message,
            }
        }
        b'a'..=b'z' | b'A'..=b'Z' => lettered(line, at, first),
        _ => Word::Message,
    }
}

/// `[error]`, `[core:error]`, `[main]`.
fn bracketed(line: &[u8], at: usize) -> Word {
    let closing = match line[at] {
        b'[' => b']',
        b'(' => b')',
        _ => b'>',
    };
    let inside = &line[at + 1..line.len().min(at + BRACKETS_WITHIN)];
    let Some(length) = memchr(closing, inside) else {
        return Word::Message;
    };
    let (inside, end) = (inside[..length].trim_ascii(), at + 1 + length + 1);
    let whole = match inside {
        [letter] => level::lettered(*letter),
        _ => level::named(inside),
    };
    if let Some(level) = whole {
        return Word::Level {
            level,
            end,
            alone: true,
        };
    }
    let last = inside.rsplit(|&byte| byte == b':').next().unwrap_or_default();
    match level::named(last) {
        Some(level) => Word::Level {
            level,
            end,
            alone: false,
        },
        None => Word::Other { end },
    }
}

/// `INFO`, `error:`, `level=info`, or the name of a logger between hyphens.
fn lettered(line: &[u8], at: usize, first: bool) -> Word {
    let word = &line[at..];
    let length = word
        .iter()
        .take_while(|byte| byte.is_ascii_alphanumeric() || **byte == b'_')
        .count();
    let (word, rest) = word.split_at(length);
    if let (b"level" | b"lvl" | b"severity" | b"loglevel", [b'=' | b':', value @ ..]) = (word, rest) {
        let value = value.strip_prefix(b"\"").unwrap_or(value);
        let given = value
            .iter()
            .take_while(|byte| byte.is_ascii_alphanumeric())
            .count();
        if let Some(level) = level::named(&value[..given]) {
            let end = line.len() - value.len() + given;
            let quoted = usize::from(line.get(end) == Some(&b'"'));
            return Word::Level {
                level,
                end: end + quoted,
                alone: true,
            };
        }
    }
    if let Some(level) = level::named(word) {
        let ends = matches!(
            rest,
            [] | [b' ' | b'\t' | b':' | b',' | b'|' | b';' | b']' | b')', ..]
        );
        let is_set_apart = || {
            let before = at.checked_sub(1).map(|before| line[before]);
            rest.starts_with(b"  ")
                || rest.starts_with(b" - ")
                || rest.starts_with(b" | ")
                || matches!(rest, [b'\t' | b':' | b',' | b'|', ..])
                || (matches!(before, Some(b'\t' | b'|')) && ends)
        };
        // In small letters it is a word like any other, unless it is set apart.
        if ends && (word.iter().all(|byte| !byte.is_ascii_lowercase()) || (first && is_set_apart())) {
            return Word::Level {
                level,
                end: at + length,
                alone: true,
            };
        }
        return Word::Message;
    }
    let name = memchr(b' ', &line[at..]).map_or(line.len(), |length| at + length);
    if line[..at].ends_with(b" - ") && line[name..].starts_with(b" - ") {
        return Word::Other { end: name };
    }
    Word::Message
}

/// `<34>`: the level that it means, and where it ends.
fn priority(line: &[u8]) -> (Option<&'static str>, usize) {
    let number = |inside: &[u8]| {
        let end = memchr(b'>', &inside[..inside.len().min(4)])?;
        let number: u16 = std::str::from_utf8(&inside[..end]).ok()?.parse().ok()?;
        Some((level::of_priority(number), end + 2))
    };
    match line.strip_prefix(b"<").and_then(number) {
        Some((level, end)) => (Some(level), end),
        None => (None, 0),
    }
}

/// The first place from here on that is neither blank nor opens a bracket in front of a digit or a name of a day.
fn opened(line: &[u8], from: usize) -> usize {
    let blanks = |from: usize| {
        let blank = |byte: &&u8| byte.is_ascii_whitespace();
        from + line[from..].iter().take_while(blank).count()
    };
    let at = blanks(from);
    match &line[at..] {
        [b'[' | b'(' | b'<', next, ..] if next.is_ascii_digit() || is_day(&line[at + 1..]) => at + 1,
        _ => at,
    }
}

/// As [`opened`], behind what separates.
fn opened_behind(line: &[u8], from: usize) -> usize {
    opened(line, separated(line, from))
}

fn is_day(text: &[u8]) -> bool {
    const NAMES: [&[u8; 3]; 19] = [
        b"Mon", b"Tue", b"Wed", b"Thu", b"Fri", b"Sat", b"Sun", b"Jan", b"Feb", b"Mar", b"Apr", b"May",
        b"Jun", b"Jul", b"Aug", b"Sep", b"Oct", b"Nov", b"Dec",
    ];
    text.first_chunk::<3>().is_some_and(|name| NAMES.contains(&name))
}

/// The first place from here on that does not only separate.
#[inline]
fn separated(line: &[u8], from: usize) -> usize {
    let mut at = from;
    loop {
        at += match &line[at.min(line.len())..] {
            [b' ' | b'\t' | b']' | b')' | b'|' | b':' | b',' | b';', ..] | [b'-', b' ' | b'-', ..] => 1,
            _ => return at,
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn us(text: &str) -> i64 {
        text.parse::<jiff::Timestamp>().unwrap().as_microsecond()
    }

    #[test]
    fn stamp_level_and_message_come_apart() {
        let at = us("2024-03-12T10:00:07Z");
        for (line, level, message) in [
            (
                "2024-03-12 10:00:07 INFO user=0 logged in",
                "INFO",
                "user=0 logged in",
            ),
            ("2024-03-12T10:00:07Z WARNING: low", "WARN", "low"),
            ("2024-03-12 10:00:07 - ERROR - it broke", "ERROR", "it broke"),
            ("[2024-03-12 10:00:07] [error] it broke", "ERROR", "it broke"),
            (
                "2024-03-12 10:00:07 [error] 12#12: *0 open() failed",
                "ERROR",
                "12#12: *0 open() failed",
            ),
            (
                "[Tue Mar 12 10:00:07 2024] [core:error] [pid 7] AH1: no",
                "ERROR",
                "[core:error] [pid 7] AH1: no",
            ),
            (
                "2024-03-12T10:00:07Z\tinfo\tmain.go:12\tready",
                "INFO",
                "main.go:12\tready",
            ),
            ("2024-03-12 10:00:07 | debug | x", "DEBUG", "x"),
            ("2024-03-12T10:00:07Z level=warn msg=x", "WARN", "msg=x"),
            (
                "2024-03-12 10:00:07 [main] ERROR c.e.Task - no",
                "ERROR",
                "[main] ERROR c.e.Task - no",
            ),
            (
                "2024-03-12 10:00:07 - app.db - WARNING - slow",
                "WARN",
                "app.db - WARNING - slow",
            ),
            (
                "2024-03-12T10:00:07Z 0 [Warning] [MY-1] old",
                "WARN",
                "0 [Warning] [MY-1] old",
            ),
            (
                "[2024-03-12T10:00:07][INFO ][o.e.n.Node] up",
                "INFO",
                "[o.e.n.Node] up",
            ),
            ("INFO 2024-03-12 10:00:07 started", "INFO", "started"),
            ("[INFO] [2024-03-12 10:00:07] started", "INFO", "started"),
            (
                "W, [2024-03-12T10:00:07 #7]  WARN -- : old",
                "WARN",
                "#7]  WARN -- : old",
            ),
            ("<11>2024-03-12T10:00:07Z host su: no", "ERROR", "host su: no"),
        ] {
            let head = Heads::new(None).read(line.as_bytes());
            assert_eq!(head.time_us, Some(at), "{line}");
            assert_eq!(
                (head.level, &line[head.message..]),
                (Some(level), message),
                "{line}"
            );
        }
    }

    #[test]
    fn a_word_of_the_message_is_no_level() {
        for (line, message) in [
            ("2024-03-12 10:00:07 user said ERROR", "user said ERROR"),
            ("2024-03-12 10:00:07 error rates are low", "error rates are low"),
            ("2024-03-12 10:00:07 INFO-BOX opened", "INFO-BOX opened"),
            ("2024-03-12 10:00:07 -5 degrees", "-5 degrees"),
            ("2024-03-12 10:00:07", ""),
        ] {
            let head = Heads::new(None).read(line.as_bytes());
            assert_eq!((head.level, &line[head.message..]), (None, message), "{line}");
            assert!(head.time_us.is_some(), "{line}");
        }
    }

    #[test]
    fn without_a_stamp_the_level_may_begin_the_line() {
        for (line, level, message) in [
            ("ERROR: no such file", Some("ERROR"), "no such file"),
            ("[warn] no such file", Some("WARN"), "no such file"),
            (
                "10:00:07.123 [main] INFO x",
                Some("INFO"),
                "10:00:07.123 [main] INFO x",
            ),
            ("<4>low", Some("WARN"), "low"),
            ("Error reading x", None, "Error reading x"),
            ("job finished, ok", None, "job finished, ok"),
            ("    at a.B.c(B.java:7)", None, "    at a.B.c(B.java:7)"),
            ("", None, ""),
            ("[", None, "["),
            ("<", None, "<"),
        ] {
            let head = Heads::new(None).read(line.as_bytes());
            assert_eq!(
                (head.time_us, head.level, &line[head.message..]),
                (None, level, message),
                "{line}"
            );
        }
    }

    #[test]
    fn words_in_front_of_the_stamp_stay_in_the_message() {
        let line = "http 2024-03-12T10:00:07Z app/lb/50dc 192.0.2.0:2817";
        let head = Heads::new(None).read(line.as_bytes());
        assert_eq!(
            (head.time_us, head.message),
            (Some(us("2024-03-12T10:00:07Z")), 0)
        );
        let far = format!("{} 2024-03-12T10:00:07Z", "x".repeat(STAMP_WITHIN));
        assert_eq!(Heads::new(None).read(far.as_bytes()), Head::default());
    }

    #[test]
    fn a_year_is_near_the_moment_of_the_query() {
        let mut heads = Heads::new(Some(us("2024-03-01T00:00:00Z")));
        let head = heads.read(b"<34>Feb  9 22:14:15 host su: no");
        assert_eq!(head.time_us, Some(us("2024-02-09T22:14:15Z")));
        assert_eq!(head.level, Some("CRITICAL"));
        let klog = heads.read(b"W0209 22:14:15.5 7 a.go:3] no");
        assert_eq!(klog.level, Some("WARN"));
        assert_eq!(klog.time_us, Some(us("2024-02-09T22:14:15.5Z")));
    }

    #[test]
    fn what_is_indented_or_has_no_stamp_begins_no_record() {
        let mut heads = Heads::new(None);
        assert!(heads.begins_record(b"2024-03-12 10:00:07 x"));
        for line in ["\tat a.B", "", "Caused by: x", "  2024-03-12 10:00:07 x"] {
            assert!(!heads.begins_record(line.as_bytes()), "{line}");
        }
    }
}
