//! Values of a file as values of a table.

use std::sync::Arc;

use datafusion::arrow::{
    array::{Array, ArrayRef, AsArray, StringViewArray, StringViewBuilder, new_null_array},
    compute::cast,
    datatypes::{DataType, Field},
    json::writer::{EncoderOptions, make_encoder},
    util::display::{ArrayFormatter, FormatOptions},
};
use model::table::ColumnType;

use super::leaves::kind;
use crate::{Error, schema::data_type};

/// Values as the table has them: what is not of its type is null.
pub(super) fn typed(found: &ArrayRef, wanted: ColumnType) -> Result<ArrayRef, Error> {
    let (kind, _) = kind(found.data_type());
    let to = data_type(wanted);
    if *found.data_type() == DataType::Null {
        return Ok(new_null_array(&to, found.len()));
    }
    if wanted == ColumnType::Text {
        return Ok(stored_once(&text(found)?));
    }
    if wanted.takes(kind) {
        return Ok(cast(found, &to)?);
    }
    // As if it stood in a line: a fraction is no integer, and a number no time.
    Ok(cast(&text(found)?, &to)?)
}

/// Equal texts once, with equal views, by which they are grouped; they keep nothing in memory but themselves.
fn stored_once(texts: &ArrayRef) -> ArrayRef {
    let texts = texts.as_string_view();
    let mut once = StringViewBuilder::with_capacity(texts.len()).with_deduplicate_strings();
    texts.iter().for_each(|text| once.append_option(text));
    Arc::new(once.finish())
}

/// The rows of which a value is there and not of the type of the column.
pub(super) fn misfits(found: &dyn Array, typed: &dyn Array) -> Vec<u32> {
    let lost = typed.null_count() > found.null_count() && *found.data_type() != DataType::Null;
    let rows = (0_u32..).zip(0..if lost { typed.len() } else { 0 });
    rows.filter(|&(_, row)| typed.is_null(row) && found.is_valid(row))
        .map(|(number, _)| number)
        .collect()
}

/// Lists and the like as JSON, bytes as digits unless they are UTF-8, all else as it is written.
pub(super) fn text(found: &ArrayRef) -> Result<ArrayRef, Error> {
    match found.data_type() {
        DataType::Utf8View => Ok(found.clone()),
        DataType::BinaryView => Ok(bytes(found.as_binary_view().iter())),
        DataType::Binary => Ok(bytes(found.as_binary::<i32>().iter())),
        DataType::FixedSizeBinary(_) => Ok(digits(found.as_fixed_size_binary().iter())),
        DataType::Interval(_) | DataType::Duration(_) => shown(found),
        kind if kind.is_nested() => json(found),
        _ => Ok(cast(found, &DataType::Utf8View).or_else(|_| shown(found))?),
    }
}

fn bytes<'a>(values: impl ExactSizeIterator<Item = Option<&'a [u8]>>) -> ArrayRef {
    let mut texts = StringViewBuilder::with_capacity(values.len()).with_deduplicate_strings();
    for value in values {
        match value.map(|value| (value, str::from_utf8(value))) {
            Some((_, Ok(text))) => texts.append_value(text),
            Some((value, Err(_))) => texts.append_value(hexadecimal(value)),
            None => texts.append_null(),
        }
    }
    Arc::new(texts.finish())
}

fn digits<'a>(values: impl Iterator<Item = Option<&'a [u8]>>) -> ArrayRef {
    Arc::new(
        values
            .map(|value| value.map(hexadecimal))
            .collect::<StringViewArray>(),
    )
}

/// 16 bytes each, as they are usually written.
pub(super) fn uuids(found: &ArrayRef) -> ArrayRef {
    let Some(found) = found.as_fixed_size_binary_opt() else {
        return found.clone();
    };
    let texts = found.iter().map(|value| {
        let mut text = hexadecimal(value?);
        for place in [8, 13, 18, 23] {
            if text.len() > place {
                text.insert(place, '-');
            }
        }
        Some(text)
    });
    Arc::new(texts.collect::<StringViewArray>())
}

fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn json(found: &ArrayRef) -> Result<ArrayRef, Error> {
    let field = Arc::new(Field::new("value", found.data_type().clone(), true));
    let options = EncoderOptions::default().with_explicit_nulls(true);
    let Ok(mut encoder) = make_encoder(&field, found.as_ref(), &options) else {
        return shown(found);
    };
    let mut texts = StringViewBuilder::with_capacity(found.len());
    let mut text = Vec::new();
    for row in 0..found.len() {
        if found.is_null(row) {
            texts.append_null();
            continue;
        }
        text.clear();
        encoder.encode(row, &mut text);
        texts.append_value(String::from_utf8_lossy(&text));
    }
    Ok(Arc::new(texts.finish()))
}

fn shown(found: &ArrayRef) -> Result<ArrayRef, Error> {
    let options = FormatOptions::default();
    let formatter = ArrayFormatter::try_new(found.as_ref(), &options)?;
    let texts = (0..found.len()).map(|row| found.is_valid(row).then(|| formatter.value(row).to_string()));
    Ok(Arc::new(texts.collect::<StringViewArray>()))
}
