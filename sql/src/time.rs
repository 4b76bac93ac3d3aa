//! Points in time as logs write them, in microseconds since 1970 UTC.

use jiff::{Timestamp, civil, tz::TimeZone};

/// How a format writes time.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Style {
    /// `10/Oct/2000:13:55:36 -0700`
    Access,
    /// `Oct 11 22:14:15`, in the year that puts it at or before this moment, give or take a day.
    Bsd {
        /// The moment of the query.
        now_us: i64,
    },
    /// `2000-10-10T13:55:36.123-07:00`, with a blank instead of the `T`, a comma instead of the point, or without a zone
    /// (then UTC).
    Iso,
}

pub(crate) const DAY_US: i64 = 24 * 3600 * 1_000_000;

impl Style {
    /// Reads a time; none for what is no such.
    pub(crate) fn read(self, text: &[u8]) -> Option<i64> {
        match self {
            Self::Access => access(text),
            Self::Bsd { now_us } => bsd(text, now_us),
            Self::Iso => iso(text),
        }
    }
}

fn digits(text: &[u8]) -> Option<i64> {
    if text.is_empty() || text.len() > 9 {
        return None;
    }
    text.iter().try_fold(0i64, |sum, byte| {
        byte.is_ascii_digit().then(|| sum * 10 + i64::from(byte - b'0'))
    })
}

fn month(name: &[u8]) -> Option<i64> {
    const NAMES: [&[u8]; 12] = [
        b"Jan", b"Feb", b"Mar", b"Apr", b"May", b"Jun", b"Jul", b"Aug", b"Sep", b"Oct", b"Nov", b"Dec",
    ];
    (1..)
        .zip(NAMES)
        .find(|(_, known)| *known == name)
        .map(|(number, _)| number)
}

/// Days from 1970-01-01 to a date of the proleptic Gregorian calendar (Howard Hinnant, "chrono-Compatible Low-Level Date
/// Algorithms", `days_from_civil`); none for a day that the month does not have.
fn days(year: i64, month: i64, day: i64) -> Option<i64> {
    let leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    let length = match month {
        2 => 28 + i64::from(leap),
        4 | 6 | 9 | 11 => 30,
        1..=12 => 31,
        _ => return None,
    };
    if !(1..=length).contains(&day) {
        return None;
    }
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let of_era = year.rem_euclid(400);
    let of_year = (153 * (month + if month > 2 { -3 } else { 9 }) + 2) / 5 + day - 1;
    Some(era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year - 719_468)
}

#[inline]
fn clock(text: &[u8]) -> Option<i64> {
    let [h1, h2, b':', m1, m2, b':', s1, s2] = *text else {
        return None;
    };
    if ![h1, h2, m1, m2, s1, s2].iter().all(u8::is_ascii_digit) {
        return None;
    }
    let two = |tens: u8, ones: u8| i64::from(tens - b'0') * 10 + i64::from(ones - b'0');
    let (hour, minute, second) = (two(h1, h2), two(m1, m2), two(s1, s2));
    (hour < 24 && minute < 60 && second <= 60).then_some(hour * 3600 + minute * 60 + second)
}

fn access(text: &[u8]) -> Option<i64> {
    let (date, rest) = text.split_at_checked(11)?;
    let [d1, d2, b'/', name @ .., b'/', _, _, _, _] = date else {
        return None;
    };
    let days = days(digits(&date[7..])?, month(name)?, digits(&[*d1, *d2])?)?;
    let [b':', time @ ..] = rest else { return None };
    let (time, zone) = time.split_at_checked(8)?;
    let offset = match zone {
        [b' ', sign @ (b'+' | b'-'), h1, h2, m1, m2] => {
            let seconds = digits(&[*h1, *h2])? * 3600 + digits(&[*m1, *m2])? * 60;
            if *sign == b'-' { -seconds } else { seconds }
        }
        _ => return None,
    };
    Some((days * 86_400 + clock(time)? - offset) * 1_000_000)
}

/// Reads the times of an access log, of which most have the day and the zone of the one before.
#[derive(Default)]
pub(crate) struct AccessClock {
    date: [u8; 11],
    zone: [u8; 6],
    /// The midnight at which that day began in that zone, in seconds since 1970 UTC.
    midnight: i64,
}

impl AccessClock {
    /// As [`Style::Access`] reads it.
    #[inline]
    pub(crate) fn read(&mut self, text: &[u8]) -> Option<i64> {
        let (Some(&date), Some(&zone)) = (text.first_chunk::<11>(), text.last_chunk::<6>()) else {
            return access(text);
        };
        if text.len() != 26 {
            return access(text);
        }
        let time = text.get(12..20)?;
        if date != self.date || zone != self.zone {
            let at = access(text)?;
            (self.date, self.zone) = (date, zone);
            self.midnight = at / 1_000_000 - clock(time)?;
            return Some(at);
        }
        if text[11] != b':' {
            return None;
        }
        Some((self.midnight + clock(time)?) * 1_000_000)
    }
}

fn bsd(text: &[u8], now_us: i64) -> Option<i64> {
    let [name @ .., b' ', d1, d2, b' ', _, _, _, _, _, _, _, _] = text else {
        return None;
    };
    let day = if *d1 == b' ' {
        digits(&[*d2])
    } else {
        digits(&[*d1, *d2])
    }?;
    let (month, time) = (month(name)?, clock(&text[text.len() - 8..])?);
    let now = Timestamp::from_microsecond(now_us).ok()?.to_zoned(TimeZone::UTC);
    let at = |year: i64| Some((days(year, month, day)? * 86_400 + time) * 1_000_000);
    let this_year = i64::from(now.year());
    // 29 February is in the last year that had one.
    (0..=8)
        .filter_map(|back| at(this_year - back))
        .find(|at| *at <= now_us + DAY_US)
}

fn iso(text: &[u8]) -> Option<i64> {
    let text = std::str::from_utf8(text).ok()?;
    let comma = text.contains(',').then(|| text.replacen(',', ".", 1));
    let text = comma.as_deref().unwrap_or(text);
    // A date alone, or a number, is no point in time.
    if text.len() < 16 || !text.as_bytes()[4..].starts_with(b"-") {
        return None;
    }
    if let Ok(at) = text.parse::<Timestamp>() {
        return Some(at.as_microsecond());
    }
    let civil = text.parse::<civil::DateTime>().ok()?;
    Some(civil.to_zoned(TimeZone::UTC).ok()?.timestamp().as_microsecond())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn us(text: &str) -> i64 {
        text.parse::<Timestamp>().unwrap().as_microsecond()
    }

    #[test]
    fn access_logs() {
        assert_eq!(
            Style::Access.read(b"10/Oct/2000:13:55:36 -0700"),
            Some(us("2000-10-10T20:55:36Z"))
        );
        for bad in [
            "",
            "10/Oct/2000",
            "31/Feb/2000:13:55:36 +0000",
            "10/Oct/2000:25:55:36 +0000",
            "x",
        ] {
            assert_eq!(Style::Access.read(bad.as_bytes()), None, "{bad}");
        }
    }

    #[test]
    fn a_clock_reads_as_the_style_does() {
        let mut clock = AccessClock::default();
        for text in [
            "10/Oct/2000:13:55:36 -0700",
            "10/Oct/2000:13:55:37 -0700",
            "10/Oct/2000:13:55:37 +0100",
            "11/Oct/2000:00:00:60 +0100",
            "11/Oct/2000:24:00:00 +0100",
            "11/Oct/2000x00:00:00 +0100",
            "11/Oct/2000:0x:00:00 +0100",
            "31/Feb/2000:00:00:00 +0100",
            "31/Feb/2000:00:00:00 +0100",
            "01/Jan/1960:00:00:01 +0000",
            "01/Jan/1960:00:00:02 +0000",
            "1/Jan/1960:00:00:02 +0000",
            "",
        ] {
            assert_eq!(
                clock.read(text.as_bytes()),
                Style::Access.read(text.as_bytes()),
                "{text}"
            );
        }
    }

    #[test]
    fn bsd_takes_the_year_before_when_it_would_lie_ahead() {
        let style = Style::Bsd {
            now_us: us("2024-03-01T00:00:00Z"),
        };
        assert_eq!(style.read(b"Feb  9 22:14:15"), Some(us("2024-02-09T22:14:15Z")));
        assert_eq!(style.read(b"Oct 11 22:14:15"), Some(us("2023-10-11T22:14:15Z")));
        assert_eq!(style.read(b"Feb 29 00:00:00"), Some(us("2024-02-29T00:00:00Z")));
        assert_eq!(style.read(b"Foo 11 22:14:15"), None);
    }

    #[test]
    fn iso_in_its_variants() {
        let at = Some(us("2015-07-29T17:41:44.747Z"));
        for text in [
            "2015-07-29T17:41:44.747Z",
            "2015-07-29 17:41:44,747",
            "2015-07-29T19:41:44.747+02:00",
        ] {
            assert_eq!(Style::Iso.read(text.as_bytes()), at, "{text}");
        }
        assert_eq!(Style::Iso.read(b"2015-07-29"), None);
    }

    #[test]
    fn days_agree_with_the_calendar() {
        for day in (-200_000..200_000).step_by(97) {
            let date = civil::date(1970, 1, 1).saturating_add(jiff::Span::new().days(day));
            let (year, month, of_month) = (date.year().into(), date.month().into(), date.day().into());
            assert_eq!(days(year, month, of_month), Some(day));
        }
    }
}
