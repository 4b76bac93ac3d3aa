//! Days and the names of months.

/// Days from 1970-01-01 to a date of the proleptic Gregorian calendar (Howard Hinnant, "chrono-Compatible Low-Level Date
/// Algorithms", `days_from_civil`); none for a day that the month does not have.
pub(super) fn days(year: i64, month: i64, day: i64) -> Option<i64> {
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

/// The number of a month from its English name of three letters.
pub(super) fn month(name: &[u8]) -> Option<i64> {
    const NAMES: [&[u8]; 12] = [
        b"Jan", b"Feb", b"Mar", b"Apr", b"May", b"Jun", b"Jul", b"Aug", b"Sep", b"Oct", b"Nov", b"Dec",
    ];
    (1..)
        .zip(NAMES)
        .find(|(_, known)| *known == name)
        .map(|(number, _)| number)
}

/// Whether it is the English name of a day of the week, of three letters.
pub(super) fn is_weekday(name: &[u8]) -> bool {
    matches!(name, b"Mon" | b"Tue" | b"Wed" | b"Thu" | b"Fri" | b"Sat" | b"Sun")
}

#[cfg(test)]
mod tests {
    use jiff::civil;

    use super::*;

    #[test]
    fn days_agree_with_the_calendar() {
        for day in (-200_000..200_000).step_by(97) {
            let date = civil::date(1970, 1, 1).saturating_add(jiff::Span::new().days(day));
            let (year, month, of_month) = (date.year().into(), date.month().into(), date.day().into());
            assert_eq!(days(year, month, of_month), Some(day));
        }
    }
}
