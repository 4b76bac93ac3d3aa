//! Points in time as logs write them, in microseconds since 1970 UTC.
//!
//! A stamp is read whatever its shape is: `2000-10-10T13:55:36.123-07:00`, `2000/10/10 13:55:36`,
//! `10/Oct/2000:13:55:36 -0700`, `Tue Oct 10 13:55:36 2000`, `Oct 10 13:55:36`, `971211336.123` and their like; without a
//! zone it is UTC. What could be read in two ways, such as `01/02/2000`, is not taken.

use jiff::{Timestamp, tz::TimeZone};

use self::{calendar::days, zone::zone};

mod calendar;
mod date;
mod zone;

pub(crate) const DAY_US: i64 = 24 * 3600 * 1_000_000;
const SECOND_US: i64 = 1_000_000;

/// Whether a text is a time stamp with a year and nothing else. A number is none here, for most numbers are something else.
pub(crate) fn is_stamp(text: &[u8]) -> bool {
    let is_number = text.iter().all(|byte| byte.is_ascii_digit() || *byte == b'.');
    !is_number && Clock::new(None).whole(text).is_some()
}

/// Reads time stamps, of which most are written as the one before and are of its day.
#[derive(Clone, Debug)]
pub(crate) struct Clock {
    /// Whether stamps with a year count.
    with_year: bool,
    /// The moment of the query, where stamps without a year count: such a stamp is in the year that puts it at or before
    /// this moment, give or take a day.
    yearless_now: Option<i64>,
    last: Day,
}

/// A day as it was written.
#[derive(Clone, Debug, Default)]
struct Day {
    /// What stands before the time of day.
    text: [u8; 24],
    /// So many bytes; none: there is no such day.
    length: usize,
    /// When it began in UTC, in seconds since 1970.
    midnight: i64,
    /// The year, where it stands behind the time.
    year_behind: Option<[u8; 4]>,
}

impl Clock {
    /// One for stamps with a year, or for stamps without one when the moment of the query is given.
    pub(crate) fn new(yearless_now: Option<i64>) -> Self {
        Self {
            with_year: yearless_now.is_none(),
            yearless_now,
            last: Day::default(),
        }
    }

    /// One for stamps with and without a year.
    pub(crate) fn either(now_us: i64) -> Self {
        Self {
            with_year: true,
            ..Self::new(Some(now_us))
        }
    }

    /// Reads the time stamp at the beginning of a text, and how many bytes it has. No letter or digit stands behind it.
    #[inline]
    pub(crate) fn read(&mut self, text: &[u8]) -> Option<(i64, usize)> {
        let day = &self.last;
        if day.length > 0
            && text.get(..day.length) == Some(&day.text[..day.length])
            && let Some(found) = day.time(text)
        {
            return Some(found);
        }
        self.anew(text)
    }

    /// Reads a text that is a time stamp and nothing else.
    #[inline]
    pub(crate) fn whole(&mut self, text: &[u8]) -> Option<i64> {
        let (at, length) = self.read(text)?;
        (length == text.len() || zone::is_in_brackets(&text[length..])).then_some(at)
    }

    fn anew(&mut self, text: &[u8]) -> Option<(i64, usize)> {
        if let Some(found) = since_1970(text) {
            return self.with_year.then_some(found);
        }
        let date = date::read(text)?;
        let (time_us, at) = time_of_day(text, date.length)?;
        let (mut year, mut year_behind) = (date.year, None);
        if year.is_none() && date.weekday {
            let (_, at) = zone(text, at)?;
            year_behind = date::year_behind(text, at);
            year = year_behind.and_then(date::year);
        }
        let (day, is_sure) = match (year, self.yearless_now) {
            (Some(year), _) if self.with_year => (days(year, date.month, date.day)?, true),
            (None, Some(now_us)) => {
                let (day, is_sure) = year_of(date.month, date.day, time_us, now_us)?;
                // Another stamp of that day may have its year behind the time.
                (day, is_sure && !date.weekday)
            }
            _ => return None,
        };
        let mut read = Day {
            length: date.length,
            midnight: day * 86_400,
            year_behind,
            ..Day::default()
        };
        let found = read.time(text)?;
        if let Some(known) = read.text.get_mut(..date.length)
            && is_sure
        {
            known.copy_from_slice(&text[..date.length]);
            self.last = read;
        }
        Some(found)
    }
}

impl Day {
    /// Reads the stamp from the time of day on.
    #[inline]
    fn time(&self, text: &[u8]) -> Option<(i64, usize)> {
        let (time_us, at) = time_of_day(text, self.length)?;
        let (east, mut at) = zone(text, at)?;
        if let Some(year) = self.year_behind {
            if date::year_behind(text, at) != Some(year) {
                return None;
            }
            at += 1 + year.len();
        }
        let is_over = text.get(at).is_none_or(|byte| !byte.is_ascii_alphanumeric());
        is_over.then_some(((self.midnight - east) * SECOND_US + time_us, at))
    }
}

/// The day on which a stamp without a year was written, and whether any time of that day would be in that year.
fn year_of(month: i64, day: i64, time_us: i64, now_us: i64) -> Option<(i64, bool)> {
    let now = Timestamp::from_microsecond(now_us).ok()?.to_zoned(TimeZone::UTC);
    let this_year = i64::from(now.year());
    let latest = now_us + DAY_US;
    // 29 February is in the last year that had one. In the last days of December the next year may have begun elsewhere.
    let days = (-1..=8).filter_map(|back| days(this_year - back, month, day));
    let is_sure = !days
        .clone()
        .any(|day| (day * DAY_US..(day + 1) * DAY_US).contains(&latest));
    let found = days.into_iter().find(|day| day * DAY_US + time_us <= latest)?;
    Some((found, is_sure))
}

/// `22:14:15`, with a fraction behind a point or comma, without seconds, with an hour of one digit or in two halves of the
/// day; in microseconds, and where it ends.
#[inline]
fn time_of_day(text: &[u8], at: usize) -> Option<(i64, usize)> {
    let (seconds, at) = match clock(text, at) {
        Some(seconds) => (seconds, at + 8),
        None => other_clock(text, at)?,
    };
    let (fraction, at) = fraction(text, at);
    match text.get(at..) {
        Some([b' ', half @ (b'A' | b'P'), b'M', ..]) => {
            let noon = 12 * 3600;
            if !(3600..13 * 3600).contains(&seconds) {
                return None;
            }
            let afternoon = if *half == b'P' { noon } else { 0 };
            Some(((seconds % noon + afternoon) * SECOND_US + fraction, at + 3))
        }
        _ => Some((seconds * SECOND_US + fraction, at)),
    }
}

/// Microseconds of a fraction of a second, of up to nine digits.
#[inline]
fn fraction(text: &[u8], at: usize) -> (i64, usize) {
    if !matches!(text.get(at..), Some([b'.' | b',', b'0'..=b'9', ..])) {
        return (0, at);
    }
    let (mut value, mut unit, mut end) = (0, 100_000, at + 1);
    while let Some(digit @ b'0'..=b'9') = text.get(end)
        && end <= at + 9
    {
        value += i64::from(digit - b'0') * unit;
        unit /= 10;
        end += 1;
    }
    (value, end)
}

/// `22:14:15` in seconds; all eight bytes are looked at together.
#[inline]
fn clock(text: &[u8], at: usize) -> Option<i64> {
    const TEMPLATE: u64 = u64::from_le_bytes(*b"00:00:00");
    const FIXED: u64 = u64::from_le_bytes([0xf0, 0xf0, 0xff, 0xf0, 0xf0, 0xff, 0xf0, 0xf0]);
    const TO_SIXTEEN: u64 = u64::from_le_bytes([6, 6, 0, 6, 6, 0, 6, 6]);
    let bytes = text.get(at..)?.first_chunk::<8>()?;
    let digits = u64::from_le_bytes(*bytes) ^ TEMPLATE;
    if (digits | digits.wrapping_add(TO_SIXTEEN)) & FIXED != 0 {
        return None;
    }
    let [h1, h2, _, m1, m2, _, s1, s2] = digits.to_le_bytes().map(i64::from);
    in_seconds(h1 * 10 + h2, m1 * 10 + m2, s1 * 10 + s2)
}

fn in_seconds(hour: i64, minute: i64, second: i64) -> Option<i64> {
    // There are leap seconds.
    (hour < 24 && minute < 60 && second <= 60).then_some(hour * 3600 + minute * 60 + second)
}

/// `22:14`, `8:14:15`, ` 8:14:15`, and `221415` behind a `T`; in seconds, and where it ends.
fn other_clock(text: &[u8], at: usize) -> Option<(i64, usize)> {
    let two = |at: usize| match *text.get(at..at + 2)? {
        [tens @ b'0'..=b'9', ones @ b'0'..=b'9'] => {
            Some(i64::from(tens - b'0') * 10 + i64::from(ones - b'0'))
        }
        _ => None,
    };
    let is_colon = |at: usize| text.get(at) == Some(&b':');
    if let (Some(hour), Some(minute), Some(second)) = (two(at), two(at + 2), two(at + 4))
        && text[..at].ends_with(b"T")
    {
        return Some((in_seconds(hour, minute, second)?, at + 6));
    }
    let (hour, at) = match two(at) {
        Some(hour) => (hour, at + 2),
        None => {
            let at = if text.get(at) == Some(&b' ') { at + 1 } else { at };
            let digit = text.get(at).filter(|byte| byte.is_ascii_digit())?;
            (i64::from(digit - b'0'), at + 1)
        }
    };
    let minute = is_colon(at).then(|| two(at + 1))??;
    match is_colon(at + 3).then(|| two(at + 4)).flatten() {
        Some(second) => Some((in_seconds(hour, minute, second)?, at + 6)),
        None => Some((in_seconds(hour, minute, 0)?, at + 3)),
    }
}

/// Seconds (with a fraction or without), milliseconds or microseconds since 1970, told apart by their digits.
fn since_1970(text: &[u8]) -> Option<(i64, usize)> {
    // From September 2001 on, when there came to be ten digits, to the year 2100.
    const PLAUSIBLE: std::ops::Range<i64> = 1_000_000_000 * SECOND_US..4_102_444_800 * SECOND_US;
    let length = text.iter().take_while(|byte| byte.is_ascii_digit()).count();
    let unit = match length {
        10 => SECOND_US,
        13 => 1000,
        16 => 1,
        _ => return None,
    };
    let number = text[..length]
        .iter()
        .fold(0, |sum, byte| sum * 10 + i64::from(byte - b'0'));
    let (fraction, end) = match length {
        10 => fraction(text, length),
        _ => (0, length),
    };
    let at = number * unit + fraction;
    let is_over = text.get(end).is_none_or(|byte| !byte.is_ascii_alphanumeric());
    (PLAUSIBLE.contains(&at) && is_over).then_some((at, end))
}

#[cfg(test)]
mod tests;
