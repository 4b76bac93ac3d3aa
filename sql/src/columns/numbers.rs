//! Numbers as logs write them, with a short way for the usual ones.

/// Digits of which an integer of 64 bits holds any.
const SAFE_DIGITS: usize = 18;
/// Digits of which a double holds any integer exactly.
const EXACT_DIGITS: usize = 15;

/// An integer; blanks around it do not count.
#[inline]
pub(crate) fn integer(text: &[u8]) -> Option<i64> {
    if (1..=SAFE_DIGITS).contains(&text.len())
        && let Some(value) = digits(text)
    {
        return Some(value);
    }
    std::str::from_utf8(text).ok()?.trim().parse().ok()
}

/// A number; blanks around it do not count.
#[inline]
pub(crate) fn float(text: &[u8]) -> Option<f64> {
    if let Some(value) = plain(text) {
        return Some(value);
    }
    std::str::from_utf8(text).ok()?.trim().parse().ok()
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
        let cases: [(&str, Option<i64>); 9] = [
            ("0", Some(0)),
            ("200", Some(200)),
            (" -7 ", Some(-7)),
            ("+7", Some(7)),
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
            "inf",
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
}
