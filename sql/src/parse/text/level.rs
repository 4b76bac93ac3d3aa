//! The words for how serious a message is.

/// Longest of the words.
const MOST_BYTES: usize = 11;

/// The level that a word means, in any case.
pub(super) fn named(word: &[u8]) -> Option<&'static str> {
    if !(3..=MOST_BYTES).contains(&word.len()) {
        return None;
    }
    let mut lower = [0; MOST_BYTES];
    let lower = &mut lower[..word.len()];
    lower.copy_from_slice(word);
    lower.make_ascii_lowercase();
    Some(match &*lower {
        b"trace" | b"trc" | b"verbose" | b"finest" | b"finer" => "TRACE",
        b"debug" | b"dbg" | b"fine" | b"debug1" | b"debug2" | b"debug3" | b"debug4" | b"debug5" => "DEBUG",
        b"info" | b"inf" | b"information" => "INFO",
        b"notice" | b"note" => "NOTICE",
        b"warn" | b"warning" | b"wrn" => "WARN",
        b"error" | b"err" | b"severe" => "ERROR",
        b"critical" | b"crit" | b"alert" => "CRITICAL",
        b"fatal" | b"ftl" | b"emerg" | b"emergency" | b"panic" => "FATAL",
        _ => return None,
    })
}

/// The level that a letter means, as in `[W]` or `W0102`.
pub(super) fn lettered(letter: u8) -> Option<&'static str> {
    Some(match letter {
        b'T' | b'V' => "TRACE",
        b'D' => "DEBUG",
        b'I' => "INFO",
        b'N' => "NOTICE",
        b'W' => "WARN",
        b'E' => "ERROR",
        b'C' => "CRITICAL",
        b'F' => "FATAL",
        _ => return None,
    })
}

/// The level of a priority of syslog, whose lowest three bits are the severity (RFC 5424, section 6.2.1).
pub(super) fn of_priority(priority: u16) -> &'static str {
    match priority % 8 {
        0 => "FATAL",
        1 | 2 => "CRITICAL",
        3 => "ERROR",
        4 => "WARN",
        5 => "NOTICE",
        6 => "INFO",
        _ => "DEBUG",
    }
}
