//! The date at the beginning of a time stamp.

use super::calendar::{is_weekday, month};

/// A date as it is written, up to where the time of day begins.
#[derive(Debug)]
pub(super) struct Date {
    /// Bytes before the time of day.
    pub(super) length: usize,
    pub(super) year: Option<i64>,
    pub(super) month: i64,
    pub(super) day: i64,
    /// Whether the name of the day of the week stands before it: then the year may stand behind the time.
    pub(super) weekday: bool,
}

struct Cursor<'a> {
    text: &'a [u8],
    at: usize,
}

impl Cursor<'_> {
    fn peek(&self) -> Option<u8> {
        self.text.get(self.at).copied()
    }

    /// Passes over one of these bytes.
    fn one_of(&mut self, bytes: &[u8]) -> Option<u8> {
        let byte = self.peek().filter(|byte| bytes.contains(byte))?;
        self.at += 1;
        Some(byte)
    }

    /// A number of at most so many digits that ends behind them.
    fn number(&mut self, most: usize) -> Option<i64> {
        let length = digits(&self.text[self.at..]);
        let value = number(&self.text[self.at..self.at + length])?;
        self.at += length;
        (length <= most).then_some(value)
    }

    /// The name of a month.
    fn month(&mut self) -> Option<i64> {
        let month = month(self.text.get(self.at..self.at + 3)?)?;
        self.at += 3;
        Some(month)
    }

    /// A number of four digits.
    fn year(&mut self) -> Option<i64> {
        (digits(&self.text[self.at..]) == 4).then(|| self.number(4))?
    }
}

/// How many digits a text begins with.
fn digits(text: &[u8]) -> usize {
    text.iter().take_while(|byte| byte.is_ascii_digit()).count()
}

/// Digits as a number; none where there are none, or more than 9.
fn number(text: &[u8]) -> Option<i64> {
    if text.is_empty() || text.len() > 9 {
        return None;
    }
    Some(text.iter().fold(0, |sum, byte| sum * 10 + i64::from(byte - b'0')))
}

/// The year behind a time of day: `14:32:52 2000`.
pub(super) fn year_behind(text: &[u8], at: usize) -> Option<[u8; 4]> {
    let [b' ', year @ ..] = text.get(at..at + 5)? else {
        return None;
    };
    (digits(year) == 4).then(|| year.try_into().ok())?
}

/// What [`year_behind`] found, as a number.
pub(super) fn year(digits: [u8; 4]) -> Option<i64> {
    number(&digits)
}

/// Reads a date.
pub(super) fn read(text: &[u8]) -> Option<Date> {
    let mut cursor = Cursor { text, at: 0 };
    let weekday = text.first_chunk::<3>().is_some_and(|name| is_weekday(name));
    if weekday {
        cursor.at = 3;
        cursor.one_of(b",");
        cursor.one_of(b" ")?;
    }
    let (year, month, day) = match cursor.peek()? {
        b'0'..=b'9' => numeric(&mut cursor)?,
        _ => month_first(&mut cursor)?,
    };
    Some(Date {
        length: cursor.at,
        year,
        month,
        day,
        weekday,
    })
}

type Parts = (Option<i64>, i64, i64);

/// `Oct 11 `, `Oct  1 `, `Oct 11 2000 `, `Oct 11, 2000 `
fn month_first(cursor: &mut Cursor<'_>) -> Option<Parts> {
    let month = cursor.month()?;
    cursor.one_of(b" ")?;
    cursor.one_of(b" ");
    let day = cursor.number(2)?;
    cursor.one_of(b",");
    cursor.one_of(b" ")?;
    let Some(year) = cursor.year() else {
        return Some((None, month, day));
    };
    cursor.one_of(b",");
    cursor.one_of(b" ")?;
    Some((Some(year), month, day))
}

/// What begins with a digit.
fn numeric(cursor: &mut Cursor<'_>) -> Option<Parts> {
    let length = digits(&cursor.text[cursor.at..]);
    let first = cursor.number(8)?;
    let parts = match (length, cursor.peek()?) {
        // `2000-10-11T`, `2000/10/11 `
        (4, separator @ (b'-' | b'/' | b'.')) => {
            cursor.at += 1;
            let month = cursor.number(2)?;
            cursor.one_of(&[separator])?;
            let day = cursor.number(2)?;
            cursor.one_of(b" Tt\t")?;
            return Some((Some(first), month, day));
        }
        // `1011 `, as klog has it
        (4, b' ') => (None, first / 100, first % 100),
        // `001011 `
        (6, b' ') => {
            let of_century = first / 10_000;
            let year = of_century + if of_century < 70 { 2000 } else { 1900 };
            (Some(year), first / 100 % 100, first % 100)
        }
        // `20001011 `
        (8, b' ' | b'T' | b'-') => (Some(first / 10_000), first / 100 % 100, first % 100),
        // `11/Oct/2000:`, `11-Oct-2000 `
        (1 | 2, separator @ (b'/' | b'-')) => {
            cursor.at += 1;
            let month = cursor.month()?;
            cursor.one_of(&[separator])?;
            let year = cursor.year()?;
            cursor.one_of(b" :T")?;
            return Some((Some(year), month, first));
        }
        // `11.10.2000 `: with points the day comes first wherever dates are written so.
        (1 | 2, b'.') => {
            cursor.at += 1;
            let month = cursor.number(2)?;
            cursor.one_of(b".")?;
            let year = cursor.year()?;
            cursor.one_of(b" ")?;
            return Some((Some(year), month, first));
        }
        // `11 Oct 2000 `, `11 Oct `
        (1 | 2, b' ') => {
            cursor.at += 1;
            let month = cursor.month()?;
            cursor.one_of(b" ")?;
            let year = cursor.year();
            if year.is_some() {
                cursor.one_of(b" ")?;
            }
            return Some((year, month, first));
        }
        _ => return None,
    };
    cursor.at += 1;
    Some(parts)
}
