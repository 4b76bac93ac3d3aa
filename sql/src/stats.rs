//! What is learned of the values of a block while it is read: for each column the least and the greatest value and how
//! many there are none of.

use datafusion::arrow::{
    array::{Array, AsArray, StringViewArray},
    compute::{max, max_boolean, min, min_boolean},
    datatypes::{DataType, Float64Type, Int64Type, TimeUnit, TimestampMicrosecondType},
};
use model::{
    stats::{Bound, ColumnStats},
    table::{ERROR, EVERYWHERE, Format, Table},
};

use crate::{VERSION, block::begin_of_day, columns::slot};

/// Most bytes of a text that are kept: enough for a path or an address, little for a document.
const TEXT_BYTES: usize = 32;
/// Texts that are remembered, by their views; a power of two.
const REMEMBERED: usize = 256;

/// What is known of a column that was read.
///
/// Costs one pass over the values for each bound.
pub(crate) fn of_column(column: &dyn Array) -> ColumnStats {
    let (least, greatest) = bounds(column);
    ColumnStats {
        least,
        greatest,
        nulls: u32::try_from(column.null_count()).unwrap_or(u32::MAX),
    }
}

fn bounds(column: &dyn Array) -> (Option<Bound>, Option<Bound>) {
    match column.data_type() {
        DataType::Int64 => {
            let values = column.as_primitive::<Int64Type>();
            (min(values).map(Bound::Integer), max(values).map(Bound::Integer))
        }
        DataType::Timestamp(TimeUnit::Microsecond, _) => {
            let values = column.as_primitive::<TimestampMicrosecondType>();
            (min(values).map(Bound::Integer), max(values).map(Bound::Integer))
        }
        DataType::Float64 => {
            let values = column.as_primitive::<Float64Type>();
            floats(min(values), max(values))
        }
        DataType::Boolean => {
            let values = column.as_boolean();
            (
                min_boolean(values).map(Bound::Boolean),
                max_boolean(values).map(Bound::Boolean),
            )
        }
        DataType::Utf8View => {
            let Some((least, greatest)) = extremes(column.as_string_view()) else {
                return (None, None);
            };
            let least = Bound::Text(shortened(least).to_string());
            (Some(least), above(greatest).map(Bound::Text))
        }
        _ => (None, None),
    }
}

/// With a NaN among the values, which is less or greater than all by its sign, nothing is known; and both zeros are one.
fn floats(least: Option<f64>, greatest: Option<f64>) -> (Option<Bound>, Option<Bound>) {
    let (Some(least), Some(greatest)) = (least, greatest) else {
        return (None, None);
    };
    if least.is_nan() || greatest.is_nan() {
        return (None, None);
    }
    let least = if least == 0.0 { -0.0 } else { least };
    let greatest = if greatest == 0.0 { 0.0 } else { greatest };
    (Some(Bound::Float(least)), Some(Bound::Float(greatest)))
}

/// The least and the greatest text; none where there is none. Equal views are equal texts and lines repeat themselves, so
/// what was met a moment ago is not compared again.
fn extremes(texts: &StringViewArray) -> Option<(&str, &str)> {
    let first = (0..texts.len()).find(|&place| texts.is_valid(place))?;
    let (mut least, mut greatest) = (texts.value(first), texts.value(first));
    let mut recent = [texts.views()[first]; REMEMBERED];
    for (place, &view) in texts.views().iter().enumerate().skip(first) {
        let known = &mut recent[slot(view, REMEMBERED)];
        if *known == view || texts.is_null(place) {
            continue;
        }
        *known = view;
        let text = texts.value(place);
        least = least.min(text);
        greatest = greatest.max(text);
    }
    Some((least, greatest))
}

/// The beginning of a text, which is not greater than it.
fn shortened(text: &str) -> &str {
    let mut end = text.len().min(TEXT_BYTES);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}

/// A short text that is not less than this one; none where there is none.
fn above(text: &str) -> Option<String> {
    if text.len() <= TEXT_BYTES {
        return Some(text.to_string());
    }
    let mut short = shortened(text).to_string();
    while let Some(last) = short.pop() {
        let next = (u32::from(last) + 1..=u32::from(char::MAX)).find_map(char::from_u32);
        if let Some(next) = next {
            short.push(next);
            return Some(short);
        }
    }
    None
}

/// Stands for a column wherever its values are the same for the same lines; none for columns of which nothing is learned.
///
/// Made of how this release reads lines, of the name and the type of the column, and of all that its values depend on besides: the
/// names before it where a value is found by its position, all columns for what does not parse, the day where times have no
/// year.
pub(crate) fn column_key(table: &Table, place: usize, now_us: i64) -> Option<String> {
    let mut hasher = blake3::Hasher::new();
    hasher.update(format!("{:?}\0", (VERSION, &table.format, table.least)).as_bytes());
    if matches!(table.format, Format::Separated { .. } | Format::Regex { .. }) {
        for column in table.columns.iter().take(place) {
            hasher.update(column.name.as_bytes()).update(b"\0");
        }
    }
    match table.columns.get(place) {
        Some(column) => {
            let kind = column.kind.name();
            hasher.update(format!("{} {kind}", column.name).as_bytes());
        }
        None => {
            let (name, _) = EVERYWHERE.get(place - table.columns.len())?;
            // Lines as such have no order that anybody asks for, and where they stand is known without reading.
            if *name != ERROR {
                return None;
            }
            hasher.update(format!("\0{table:?}").as_bytes());
        }
    }
    if table.format.is_yearless() {
        hasher.update(&begin_of_day(now_us).to_le_bytes());
    }
    let digest = hasher.finalize();
    Some(
        digest.as_bytes()[..8]
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect(),
    )
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use datafusion::arrow::{
        array::{ArrayRef, Float64Array, Int64Array, StringViewArray},
        compute::{max_string_view, min_string_view},
    };
    use model::table::{Column, ColumnType};
    use proptest::prelude::*;

    use super::*;

    fn of(column: impl Array + 'static) -> (Option<Bound>, Option<Bound>, u32) {
        let column: ArrayRef = Arc::new(column);
        let stats = of_column(column.as_ref());
        (stats.least, stats.greatest, stats.nulls)
    }

    #[test]
    fn numbers_have_bounds_unless_there_is_a_nan() {
        let integers = Int64Array::from(vec![Some(3), None, Some(-7)]);
        let (least, greatest) = (Some(Bound::Integer(-7)), Some(Bound::Integer(3)));
        assert_eq!(of(integers), (least, greatest, 1));
        assert_eq!(of(Int64Array::from(vec![None, None])), (None, None, 2));
        assert_eq!(of(Float64Array::from(vec![1.0, f64::NAN])), (None, None, 0));
        assert_eq!(of(Float64Array::from(vec![1.0, -f64::NAN])), (None, None, 0));
        let (Some(Bound::Float(least)), Some(Bound::Float(greatest)), _) = of(Float64Array::from(vec![0.0]))
        else {
            panic!("no bounds");
        };
        assert!(least.is_sign_negative() && greatest.is_sign_positive());
    }

    #[test]
    fn the_extremes_are_those_of_all_texts() {
        let text = |row: u64| {
            let tail = ["", " with a longer tail"][(row % 2) as usize];
            (!row.is_multiple_of(7)).then(|| format!("{:x}{tail}", row.wrapping_mul(2_654_435_761) % 977))
        };
        let texts: StringViewArray = (0..3000).map(text).collect();
        let expected = min_string_view(&texts).zip(max_string_view(&texts));
        assert_eq!(extremes(&texts), expected);
        assert_eq!(extremes(&StringViewArray::from(vec![None::<&str>; 3])), None);
        assert_eq!(
            extremes(&StringViewArray::from(vec![None, Some("")])),
            Some(("", ""))
        );
    }

    #[test]
    fn long_text_is_shortened_to_both_sides() {
        let long = "é".repeat(20);
        let (Some(Bound::Text(least)), Some(Bound::Text(greatest)), _) =
            of(StringViewArray::from(vec![long.as_str()]))
        else {
            panic!("no bounds");
        };
        assert_eq!((least.len(), greatest.len()), (32, 32));
        assert!(least < long && long < greatest);
        assert_eq!(above(&"\u{10ffff}".repeat(20)), None);
        assert_eq!(
            above(&format!("a{}", "\u{10ffff}".repeat(20))).as_deref(),
            Some("b")
        );
        assert_eq!(
            above(&"\u{d7ff}".repeat(20)).map(|text| text.ends_with('\u{e000}')),
            Some(true)
        );
    }

    #[test]
    fn a_key_is_of_all_that_a_value_depends_on() {
        let column = |name: &str, kind| Column {
            name: name.into(),
            kind,
        };
        let json = Table {
            format: Format::Json,
            columns: vec![column("a", ColumnType::Integer), column("b", ColumnType::Text)],
            least: None,
        };
        let mut grown = json.clone();
        grown.columns.push(column("c", ColumnType::Text));
        assert_eq!(column_key(&json, 1, 0), column_key(&grown, 1, 0));
        assert_ne!(column_key(&json, 0, 0), column_key(&json, 1, 0));
        assert_ne!(
            column_key(&json, 5, 0),
            column_key(&grown, 6, 0),
            "_error is of all columns"
        );
        assert_eq!(
            [2, 3, 4].map(|place| column_key(&json, place, 0)),
            [None, None, None]
        );
        let mut other = json.clone();
        other.columns[0].kind = ColumnType::Float;
        assert_ne!(column_key(&json, 0, 0), column_key(&other, 0, 0));
        let syslog = Table {
            format: Format::Syslog,
            columns: json.columns,
            least: None,
        };
        assert_ne!(column_key(&syslog, 0, 0), column_key(&syslog, 0, 86_400_000_000));
    }

    proptest! {
        #[test]
        fn no_text_is_outside_of_its_bounds(texts in prop::collection::vec(".{0,40}", 1..9)) {
            let stats = of_column(&StringViewArray::from_iter_values(&texts));
            for text in &texts {
                if let Some(Bound::Text(least)) = &stats.least {
                    prop_assert!(least <= text);
                }
                if let Some(Bound::Text(greatest)) = &stats.greatest {
                    prop_assert!(text <= greatest);
                }
            }
        }
    }
}
