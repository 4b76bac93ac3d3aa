//! Time zones behind a time of day.

/// Seconds east of UTC of the zone that stands at a place, and where it ends. Without a zone: none, and no bytes. `None`
/// for an abbreviation that stands for several zones, for any choice of them would be a wrong time for somebody.
#[inline]
pub(super) fn zone(text: &[u8], at: usize) -> Option<(i64, usize)> {
    let none = (0, at);
    match text.get(at) {
        Some(b'Z' | b'z') => Some((0, at + 1)),
        Some(b'+' | b'-') => Some(numeric(text, at).unwrap_or(none)),
        Some(b'U' | b'G') => named(text, at).unwrap_or(Some(none)),
        Some(b' ') => match text.get(at + 1) {
            Some(b'+' | b'-') => Some(numeric(text, at + 1).unwrap_or(none)),
            Some(b'A'..=b'Z') => named(text, at + 1).unwrap_or(Some(none)),
            _ => Some(none),
        },
        _ => Some(none),
    }
}

/// `+hh`, `+hhmm` or `+hh:mm`.
fn numeric(text: &[u8], at: usize) -> Option<(i64, usize)> {
    let two = |at: usize| match *text.get(at..at + 2)? {
        [tens @ b'0'..=b'9', ones @ b'0'..=b'9'] => {
            Some(i64::from(tens - b'0') * 10 + i64::from(ones - b'0'))
        }
        _ => None,
    };
    let hours = two(at + 1)?;
    let mut end = at + 3;
    let minutes_at = if text.get(end) == Some(&b':') {
        end + 1
    } else {
        end
    };
    let minutes = two(minutes_at).inspect(|_| end = minutes_at + 2).unwrap_or(0);
    if hours > 15 || minutes > 59 || text.get(end).is_some_and(u8::is_ascii_alphanumeric) {
        return None;
    }
    let seconds = hours * 3600 + minutes * 60;
    Some((if text[at] == b'-' { -seconds } else { seconds }, end))
}

/// A zone by its abbreviation as the time zone database has it, which is what programs print; `None` for any other word,
/// `Some(None)` for one that is ambiguous.
fn named(text: &[u8], at: usize) -> Option<Option<(i64, usize)>> {
    let word = text.get(at..(at + 5).min(text.len()))?;
    let length = word.iter().take_while(|byte| byte.is_ascii_uppercase()).count();
    if !(3..=4).contains(&length) || word.get(length).is_some_and(u8::is_ascii_alphanumeric) {
        return None;
    }
    let quarters = match &word[..length] {
        b"UTC" | b"GMT" | b"WET" => 0,
        b"BST" | b"CET" | b"WAT" | b"WEST" => 4,
        b"CAT" | b"CEST" | b"EET" | b"SAST" => 8,
        b"EAT" | b"EEST" | b"IDT" | b"MSK" => 12,
        b"PKT" => 20,
        b"WIB" => 28,
        b"AWST" | b"HKT" | b"WITA" => 32,
        b"JST" | b"KST" | b"WIT" => 36,
        b"ACST" => 38,
        b"AEST" => 40,
        b"ACDT" => 42,
        b"AEDT" => 44,
        b"NZST" => 48,
        b"NZDT" => 52,
        b"NDT" => -10,
        b"ADT" => -12,
        b"NST" => -14,
        b"AST" | b"EDT" => -16,
        b"CDT" | b"EST" => -20,
        b"MDT" => -24,
        b"MST" | b"PDT" => -28,
        b"AKDT" | b"PST" => -32,
        b"AKST" => -36,
        b"HST" => -40,
        // America and China; India, Ireland and Israel.
        b"CST" | b"IST" => return Some(None),
        _ => return None,
    };
    Some(Some((quarters * 900, at + length)))
}

/// Whether it is a zone in brackets, as Java writes it behind the offset that says the same: `[Europe/Berlin]`.
pub(super) fn is_in_brackets(text: &[u8]) -> bool {
    matches!(text, [b'[', inside @ .., b']'] if inside == b"UTC" || inside == b"GMT" || inside.contains(&b'/'))
}
