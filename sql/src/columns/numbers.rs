//! Numbers as logs write them, with a short way for the usual ones.
//!
//! Promise: what is no number that keeps each digit is none, so that no two values become one.

use std::io::Write as _;

/// Digits of which an integer of 64 bits holds any.
const SAFE_DIGITS: usize = 18;
/// Digits of which a double holds any integer exactly.
const EXACT_DIGITS: usize = 15;

/// Significant digits of which a double tells any two apart that it is given.
const KEPT_DIGITS: usize = 17;

/// An integer as it is written plainly: `007` and `+7` are none. Blanks around it do not count.
#[inline]
pub(crate) fn integer(text: &[u8]) -> Option<i64> {
    if (1..=SAFE_DIGITS).contains(&text.len())
        && let Some(value) = digits(text)
    {
        return (!is_padded(text)).then_some(value);
    }
    signed_integer(text.trim_ascii())
}

fn signed_integer(text: &[u8]) -> Option<i64> {
    let digits = text.strip_prefix(b"-").unwrap_or(text);
    if is_padded(digits) || !digits.first()?.is_ascii_digit() {
        return None;
    }
    std::str::from_utf8(text).ok()?.parse().ok()
}

/// A number whose digits a double keeps: written with as many, it is the same again. Blanks around it do not count.
#[inline]
pub(crate) fn float(text: &[u8]) -> Option<f64> {
    match plain(text) {
        Some(value) => (!is_padded(text)).then_some(value),
        None => kept(text.trim_ascii()),
    }
}

/// The same number without the leading zeros or the plus that [`integer`] and [`float`] do not take.
pub(crate) fn without_padding(text: &[u8]) -> &[u8] {
    let text = text.trim_ascii();
    let mut text = text.strip_prefix(b"+").unwrap_or(text);
    while is_padded(text) {
        text = &text[1..];
    }
    text
}

#[inline]
fn is_padded(digits: &[u8]) -> bool {
    matches!(digits, [b'0', next, ..] if next.is_ascii_digit())
}

fn kept(text: &[u8]) -> Option<f64> {
    let unsigned = text.strip_prefix(b"-").unwrap_or(text);
    if is_padded(unsigned) || !matches!(unsigned.first(), Some(b'0'..=b'9' | b'.')) {
        return None;
    }
    let value: f64 = std::str::from_utf8(text).ok()?.parse().ok()?;
    let end = memchr::memchr2(b'e', b'E', unsigned).unwrap_or(unsigned.len());
    let digits = || unsigned[..end].iter().filter(|byte| byte.is_ascii_digit());
    let leading = digits().take_while(|byte| **byte == b'0').count();
    let trailing = digits().rev().take_while(|byte| **byte == b'0').count();
    let significant = digits().count().saturating_sub(leading + trailing);
    if significant == 0 {
        return Some(value);
    }
    if significant > KEPT_DIGITS || !value.is_finite() || value == 0.0 {
        return None;
    }
    if significant <= EXACT_DIGITS && value.is_normal() {
        return Some(value);
    }
    // As `1.2345e6`, with as many digits.
    let mut again = [0; KEPT_DIGITS + 8];
    write!(&mut again[..], "{:.*e}", significant - 1, value.abs()).ok()?;
    let end = again.iter().position(|byte| *byte == b'e')?;
    let found = again[..end].iter().filter(|byte| byte.is_ascii_digit());
    digits()
        .skip(leading)
        .take(significant)
        .eq(found)
        .then_some(value)
}

#[inline]
fn digits(text: &[u8]) -> Option<i64> {
    text.iter().try_fold(0i64, |sum, &byte| {
        let digit = byte.wrapping_sub(b'0');
        (digit < 10).then(|| sum * 10 + i64::from(digit))
    })
}

/// `12` or `12.345`. Both the digits as an integer and the power of ten are exact, so their quotient is the nearest double
/// (William D. Clinger, "How to Read Floating Point Numbers Accurately").
#[inline]
fn plain(text: &[u8]) -> Option<f64> {
    const POWERS: [f64; EXACT_DIGITS + 1] = [
        1e0, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9, 1e10, 1e11, 1e12, 1e13, 1e14, 1e15,
    ];
    if text.is_empty() || text.len() > EXACT_DIGITS {
        return None;
    }
    let (mut sum, mut behind) = (0i64, None);
    for (place, &byte) in text.iter().enumerate() {
        let digit = byte.wrapping_sub(b'0');
        if digit < 10 {
            sum = sum * 10 + i64::from(digit);
        } else if byte == b'.' && behind.is_none() && place > 0 && place + 1 < text.len() {
            behind = Some(place + 1);
        } else {
            return None;
        }
    }
    let fraction = behind.map_or(0, |from| text.len() - from);
    #[expect(clippy::cast_precision_loss, reason = "fifteen digits fit")]
    Some(sum as f64 / POWERS[fraction])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn integers() {
        let cases: [(&str, Option<i64>); 13] = [
            ("0", Some(0)),
            ("200", Some(200)),
            (" -7 ", Some(-7)),
            ("+7", None),
            ("007", None),
            ("-07", None),
            ("-0", Some(0)),
            ("-9223372036854775808", Some(i64::MIN)),
            ("9223372036854775807", Some(i64::MAX)),
            ("9223372036854775808", None),
            ("", None),
            ("1.0", None),
            ("1x", None),
        ];
        for (text, value) in cases {
            assert_eq!(integer(text.as_bytes()), value, "{text}");
        }
    }

    #[test]
    fn floats_are_those_of_the_standard_library() {
        for text in [
            "0.001",
            "12",
            "0.1",
            "123456789.12345",
            "1.5e3",
            "-2.5",
            ".5",
            "5.",
            " 7.25 ",
            "1e-05",
            "9007199254740992",
            "0.30000000000000004",
            "0.10000000000000001",
            "2.2250738585072014e-308",
            "5e-324",
            "100000000000000000000",
            "0e999",
        ] {
            assert_eq!(float(text.as_bytes()), text.trim().parse().ok(), "{text}");
        }
        for milli in 0..20_000 {
            let text = format!("{}.{:03}", milli / 1000, milli % 1000);
            assert_eq!(float(text.as_bytes()), text.parse().ok());
        }
        for bad in ["", ".", "1.2.3", "a"] {
            assert_eq!(float(bad.as_bytes()), None, "{bad}");
        }
    }

    #[test]
    fn a_float_keeps_its_digits_or_is_none() {
        for lost in [
            "9007199254740993",
            "12345678901234567",
            "123456789012345678901234567890",
            "0.1234567890123456789",
            "4.9406e-324",
            "1e400",
            "-1e400",
            "1e-400",
            "12e4567",
            "inf",
            "-inf",
            "nan",
            "NaN",
            "infinity",
            "+1.5",
            "007.5",
            "00",
        ] {
            assert_eq!(float(lost.as_bytes()), None, "{lost}");
        }
        assert_eq!(float(without_padding(b" +007.5 ")), Some(7.5));
        assert_eq!(integer(without_padding(b"000")), Some(0));
    }
}
