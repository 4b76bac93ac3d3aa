//! What type the values of a column have, learned from those that were seen.
//!
//! Promise: a column is a number only where a number keeps all that was seen. Ids that are written with digits stay text:
//! `01730` is no 1730, and `12e4567` is no power of ten.

use model::table::ColumnType;

use crate::{columns::numbers, time::is_stamp};

/// What the values of a column have been so far.
#[derive(Clone, Debug, Default)]
pub(crate) struct Seen {
    kind: Option<ColumnType>,
    /// The first value that looks like a number and is not kept by one.
    odd: Option<Odd>,
    /// The first integer that a float does not keep.
    wide: Option<String>,
}

/// A value that looks like a number and is text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Odd {
    pub(crate) value: String,
    pub(crate) why: &'static str,
}

/// A column of text whose values all look like numbers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeptAsText {
    /// Its name.
    pub column: String,
    /// A value that a number would not keep.
    pub example: String,
    /// What it is about that value, such as `has a leading zero`.
    pub why: &'static str,
}

enum Written {
    As(ColumnType),
    Odd(&'static str),
}

const LEADING_ZERO: &str = "has a leading zero";
const PLUS: &str = "has a plus in front";
const BEYOND_INTEGERS: &str = "does not fit into an integer of 64 bits";
const BEYOND_FLOATS: &str = "has digits that a float does not keep";
const LIKE_AN_ID: &str = "may be an id with an e among its digits";
const NOT_FINITE: &str = "is no finite number";

impl Seen {
    /// One of which the type is known.
    pub(crate) fn of(kind: ColumnType) -> Self {
        Self {
            kind: Some(kind),
            ..Self::default()
        }
    }

    /// Takes a value: one that is `quoted` in a format whose quotes tell text from numbers, or any other.
    pub(crate) fn value(&mut self, text: &[u8], quoted: bool) {
        let written = if quoted {
            Written::As(of_text(text))
        } else {
            bare(text)
        };
        self.take(text, written);
    }

    /// Takes a number of JSON, which has no leading zeros and may have any exponent.
    pub(crate) fn number(&mut self, text: &[u8]) {
        self.take(text, number(text));
    }

    fn take(&mut self, text: &[u8], written: Written) {
        let shown = || String::from_utf8_lossy(text).into_owned();
        let kind = match written {
            Written::Odd(why) => {
                self.odd.get_or_insert_with(|| Odd { value: shown(), why });
                return;
            }
            Written::As(kind) => kind,
        };
        if kind == ColumnType::Integer && self.wide.is_none() && numbers::float(text).is_none() {
            self.wide = Some(shown());
        }
        self.kind = Some(match (self.kind, kind) {
            (None, kind) => kind,
            (Some(before), kind) if before == kind => kind,
            (Some(ColumnType::Integer | ColumnType::Float), ColumnType::Integer | ColumnType::Float) => {
                ColumnType::Float
            }
            _ => ColumnType::Text,
        });
    }

    /// The type that keeps all values; none where there was none.
    pub(crate) fn kind(&self) -> Option<ColumnType> {
        match self.kind {
            _ if self.odd.is_some() => Some(ColumnType::Text),
            Some(ColumnType::Float) if self.wide.is_some() => Some(ColumnType::Text),
            kind => kind,
        }
    }

    /// The value for which a column of nothing but numbers is text.
    pub(crate) fn odd(self) -> Option<Odd> {
        let wide = |value| Odd {
            value,
            why: BEYOND_FLOATS,
        };
        match self.kind {
            None | Some(ColumnType::Integer) => self.odd,
            Some(ColumnType::Float) => self.odd.or(self.wide.map(wide)),
            Some(_) => None,
        }
    }
}

/// Whether a text is rather a value than the name of a column.
pub(crate) fn is_value(text: &[u8]) -> bool {
    !matches!(bare(text), Written::As(ColumnType::Text))
}

fn of_text(text: &[u8]) -> ColumnType {
    if is_stamp(text) {
        ColumnType::Timestamp
    } else {
        ColumnType::Text
    }
}

fn bare(text: &[u8]) -> Written {
    if matches!(text, b"true" | b"false") {
        return Written::As(ColumnType::Boolean);
    }
    let Some(value) = std::str::from_utf8(text).ok().and_then(|text| text.parse().ok()) else {
        return Written::As(of_text(text));
    };
    let _: f64 = value;
    let digits = text.strip_prefix(b"-").unwrap_or(text);
    match digits {
        [b'+', ..] => Written::Odd(PLUS),
        [b'0', b'0'..=b'9', ..] => Written::Odd(LEADING_ZERO),
        [b'0'..=b'9', ..] if is_like_an_id(digits) => Written::Odd(LIKE_AN_ID),
        [b'0'..=b'9', ..] => number(text),
        [b'.', ..] => Written::As(ColumnType::Text),
        _ => Written::Odd(NOT_FINITE),
    }
}

/// Digits, an `e` and digits, as hexadecimal ids have it. Programs that print floats so put a point or a sign in.
fn is_like_an_id(digits: &[u8]) -> bool {
    let mut parts = digits.splitn(2, |byte| matches!(byte, b'e' | b'E'));
    let is_digits = |part: Option<&[u8]>| part.is_some_and(|part| part.iter().all(u8::is_ascii_digit));
    is_digits(parts.next()) && is_digits(parts.next())
}

fn number(text: &[u8]) -> Written {
    let digits = text.strip_prefix(b"-").unwrap_or(text);
    if numbers::integer(text).is_some() {
        Written::As(ColumnType::Integer)
    } else if digits.iter().all(u8::is_ascii_digit) {
        Written::Odd(BEYOND_INTEGERS)
    } else if numbers::float(text).is_some() {
        Written::As(ColumnType::Float)
    } else {
        Written::Odd(BEYOND_FLOATS)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(values: &[&str]) -> (Option<ColumnType>, Option<(String, &'static str)>) {
        let mut seen = Seen::default();
        values
            .iter()
            .for_each(|value| seen.value(value.as_bytes(), false));
        (seen.kind(), seen.odd().map(|odd| (odd.value, odd.why)))
    }

    #[test]
    fn numbers_are_numbers() {
        let cases: [(&[&str], ColumnType); 9] = [
            (&["1", "-7", "0", "9223372036854775807"], ColumnType::Integer),
            (&["1", "1.5"], ColumnType::Float),
            (
                &["0.5", "1e-05", "1.5e300", "0.30000000000000004"],
                ColumnType::Float,
            ),
            (&["true", "false"], ColumnType::Boolean),
            (&["2024-01-01T00:00:00Z"], ColumnType::Timestamp),
            (&["1", "x"], ColumnType::Text),
            (&["01730", "x"], ColumnType::Text),
            (&["nan", "Anna"], ColumnType::Text),
            (&[".", "-", "1.2.3"], ColumnType::Text),
        ];
        for (values, kind) in cases {
            assert_eq!(seen(values), (Some(kind), None), "{values:?}");
        }
        assert_eq!(seen(&[]), (None, None));
    }

    #[test]
    fn ids_stay_ids_and_it_is_told_why() {
        for (values, example, why) in [
            (&["90210", "01730"][..], "01730", LEADING_ZERO),
            (
                &["12345678901234567890", "1"],
                "12345678901234567890",
                BEYOND_INTEGERS,
            ),
            (&["1234567", "12e4567", "765e321"], "12e4567", LIKE_AN_ID),
            (&["1e5"], "1e5", LIKE_AN_ID),
            (&["+4512345678"], "+4512345678", PLUS),
            (&["1.5", "inf"], "inf", NOT_FINITE),
            (&["NaN", "-inf", "2"], "NaN", NOT_FINITE),
            (&["007.5"], "007.5", LEADING_ZERO),
            (&["9007199254740993", "1.5"], "9007199254740993", BEYOND_FLOATS),
            (&["0.1234567890123456789"], "0.1234567890123456789", BEYOND_FLOATS),
            (&["1.5e400"], "1.5e400", BEYOND_FLOATS),
        ] {
            let told = Some((example.to_string(), why));
            assert_eq!(seen(values), (Some(ColumnType::Text), told), "{values:?}");
        }
    }

    #[test]
    fn a_number_of_json_is_one_where_it_is_kept() {
        let kind = |text: &str| {
            let mut seen = Seen::default();
            seen.number(text.as_bytes());
            seen.kind()
        };
        assert_eq!(kind("1e5"), Some(ColumnType::Float));
        assert_eq!(kind("-0"), Some(ColumnType::Integer));
        assert_eq!(kind("18446744073709551615"), Some(ColumnType::Text));
        assert_eq!(kind("1e400"), Some(ColumnType::Text));
    }
}
