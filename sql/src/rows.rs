//! The rows of an answer as plain values, for those who know no Arrow.

use std::sync::Arc;

use datafusion::arrow::{
    array::{Array, ArrayRef, AsArray, RecordBatch},
    compute::cast,
    datatypes::{
        DataType, Date32Type, Date64Type, Float64Type, Int64Type, Schema, TimeUnit, TimestampMillisecondType,
    },
    util::display::{ArrayFormatter, FormatOptions},
};
use model::answer::{Rows, Value};

use crate::{Error, wire};

/// The rows of the answer that [`crate::upper`] gave, and how many they are.
///
/// Integers that do not fit into 64 signed bits and decimals stay exact; times are cut to milliseconds; what has no
/// plain value, such as an interval, is text.
///
/// # Errors
/// [`Error::BadPartial`].
pub fn rows(answer: &[u8]) -> Result<(Rows, usize), Error> {
    let (schema, batches, _) = wire::read_all(answer)?;
    let schema = schema.unwrap_or_else(|| Schema::empty().into());
    let columns = schema.fields().iter().map(|field| field.name().clone()).collect();
    let count = batches.iter().map(RecordBatch::num_rows).sum();
    let rows = batches.into_iter().flat_map(|batch| {
        let columns: Vec<Column> = batch.columns().iter().map(Column::of).collect();
        (0..batch.num_rows()).map(move |row| columns.iter().map(|column| column.value(row)).collect())
    });
    let rows = Rows {
        columns,
        rows: Box::new(rows),
    };
    Ok((rows, count))
}

/// A column in one of the few types that are read by value.
enum Column {
    Null,
    Boolean(ArrayRef),
    Integer(ArrayRef),
    Float(ArrayRef),
    Decimal(ArrayRef),
    Text(ArrayRef),
    Bytes(ArrayRef),
    /// As timestamps in milliseconds.
    Date(ArrayRef),
    /// With the type of the items in it.
    List(ArrayRef),
    Struct(ArrayRef, Vec<(String, Column)>),
    /// Shown as people see it.
    Other(ArrayRef),
}

impl Column {
    fn of(array: &ArrayRef) -> Self {
        let whole = DataType::Timestamp(TimeUnit::Millisecond, None);
        let (wanted, make): (DataType, fn(ArrayRef) -> Self) = match array.data_type() {
            DataType::Null => return Self::Null,
            DataType::Boolean => return Self::Boolean(array.clone()),
            DataType::Int8
            | DataType::Int16
            | DataType::Int32
            | DataType::Int64
            | DataType::UInt8
            | DataType::UInt16
            | DataType::UInt32 => (DataType::Int64, Self::Integer),
            DataType::UInt64 => return Self::unsigned(array),
            DataType::Float16 | DataType::Float32 | DataType::Float64 => (DataType::Float64, Self::Float),
            DataType::Decimal32(..)
            | DataType::Decimal64(..)
            | DataType::Decimal128(..)
            | DataType::Decimal256(..) => return Self::Decimal(array.clone()),
            DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => (DataType::Utf8View, Self::Text),
            DataType::Binary
            | DataType::LargeBinary
            | DataType::BinaryView
            | DataType::FixedSizeBinary(_) => (DataType::LargeBinary, Self::Bytes),
            DataType::Date32 | DataType::Date64 => return Self::Date(array.clone()),
            DataType::Timestamp(..) => (whole, Self::Date),
            DataType::Dictionary(_, values) => {
                return cast(array, values)
                    .map_or_else(|_| Self::Other(array.clone()), |plain| Self::of(&plain));
            }
            DataType::List(_)
            | DataType::LargeList(_)
            | DataType::FixedSizeList(..)
            | DataType::ListView(_)
            | DataType::LargeListView(_) => return Self::List(array.clone()),
            DataType::Struct(fields) => {
                let parts = array.as_struct();
                let named = fields.iter().zip(parts.columns());
                let parts = named.map(|(field, part)| (field.name().clone(), Self::of(part)));
                return Self::Struct(array.clone(), parts.collect());
            }
            _ => return Self::Other(array.clone()),
        };
        cast(array, &wanted).map_or_else(|_| Self::Other(array.clone()), make)
    }

    /// Counts are unsigned and small; what is larger than any signed integer keeps its digits.
    fn unsigned(array: &ArrayRef) -> Self {
        match cast(array, &DataType::Int64) {
            Ok(signed) if signed.null_count() == array.null_count() => Self::Integer(signed),
            _ => cast(array, &DataType::Decimal128(20, 0))
                .map_or_else(|_| Self::Other(array.clone()), Self::Decimal),
        }
    }

    fn is_null(&self, row: usize) -> bool {
        match self {
            Self::Null => true,
            Self::Boolean(array)
            | Self::Integer(array)
            | Self::Float(array)
            | Self::Decimal(array)
            | Self::Text(array)
            | Self::Bytes(array)
            | Self::Date(array)
            | Self::List(array)
            | Self::Struct(array, _)
            | Self::Other(array) => array.is_null(row),
        }
    }

    fn value(&self, row: usize) -> Value {
        if self.is_null(row) {
            return Value::Null;
        }
        match self {
            Self::Null => Value::Null,
            Self::Boolean(array) => Value::Boolean(array.as_boolean().value(row)),
            Self::Integer(array) => Value::Integer(array.as_primitive::<Int64Type>().value(row)),
            Self::Float(array) => Value::Float(array.as_primitive::<Float64Type>().value(row)),
            Self::Decimal(array) => Value::Decimal(shown(array, row)),
            Self::Text(array) => Value::Text(array.as_string_view().value(row).to_string()),
            Self::Bytes(array) => Value::Bytes(array.as_binary::<i64>().value(row).to_vec()),
            Self::Date(array) => Value::Date(milliseconds(array, row)),
            Self::List(array) => list(array, row),
            Self::Struct(_, parts) => {
                let part = |(name, column): &(String, Self)| (name.clone(), column.value(row));
                Value::Struct(parts.iter().map(part).collect())
            }
            Self::Other(array) => Value::Text(shown(array, row)),
        }
    }
}

/// Milliseconds since 1970 of any date, also of one that no calendar knows.
fn milliseconds(array: &ArrayRef, row: usize) -> i64 {
    match array.data_type() {
        DataType::Date32 => i64::from(array.as_primitive::<Date32Type>().value(row)) * 86_400_000,
        DataType::Date64 => array.as_primitive::<Date64Type>().value(row),
        _ => array.as_primitive::<TimestampMillisecondType>().value(row),
    }
}

fn list(array: &ArrayRef, row: usize) -> Value {
    let items: ArrayRef = match array.data_type() {
        DataType::List(_) => array.as_list::<i32>().value(row),
        DataType::LargeList(_) => array.as_list::<i64>().value(row),
        DataType::ListView(_) => array.as_list_view::<i32>().value(row),
        DataType::LargeListView(_) => array.as_list_view::<i64>().value(row),
        _ => array.as_fixed_size_list().value(row),
    };
    let column = Column::of(&items);
    Value::List((0..items.len()).map(|item| column.value(item)).collect())
}

fn shown(array: &ArrayRef, row: usize) -> String {
    let options = FormatOptions::default();
    ArrayFormatter::try_new(Arc::as_ref(array), &options)
        .map(|formatter| formatter.value(row).to_string())
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use datafusion::arrow::{
        array::{
            BinaryArray, Date32Array, Decimal128Array, DictionaryArray, Float32Array, Int32Array, ListArray,
            NullArray, StringArray, StructArray, TimestampMicrosecondArray, UInt64Array,
        },
        datatypes::{Field, Int32Type},
    };

    use super::*;
    use crate::Tally;

    fn values(array: ArrayRef) -> Vec<Value> {
        let schema = Schema::new(vec![Field::new("x", array.data_type().clone(), true)]);
        let batch = RecordBatch::try_new(Arc::new(schema.clone()), vec![array]).unwrap();
        let answer = wire::write(&schema, &[batch.clone(), batch], Tally::default(), &[]).unwrap();
        let (rows, count) = rows(&answer).unwrap();
        assert_eq!(rows.columns, ["x"]);
        let mut all: Vec<Value> = rows.rows.map(|mut row| row.remove(0)).collect();
        assert_eq!(all.len(), count);
        let second = all.split_off(count / 2);
        assert_eq!(all, second);
        all
    }

    #[test]
    fn each_type_has_its_plain_value() {
        let text = |text: &str| Value::Text(text.into());
        let struct_of = StructArray::from(vec![(
            Arc::new(Field::new("a", DataType::Int32, true)),
            Arc::new(Int32Array::from(vec![Some(7), None])) as ArrayRef,
        )]);
        let cases: Vec<(ArrayRef, [Value; 2])> = vec![
            (Arc::new(NullArray::new(2)), [Value::Null, Value::Null]),
            (
                Arc::new(Int32Array::from(vec![Some(-5), None])),
                [Value::Integer(-5), Value::Null],
            ),
            (
                Arc::new(UInt64Array::from(vec![1, 2])),
                [Value::Integer(1), Value::Integer(2)],
            ),
            (
                Arc::new(UInt64Array::from(vec![1, u64::MAX])),
                [Value::Decimal("1".into()), Value::Decimal(u64::MAX.to_string())],
            ),
            (
                Arc::new(Float32Array::from(vec![0.5, -2.0])),
                [Value::Float(0.5), Value::Float(-2.0)],
            ),
            (
                Arc::new(
                    Decimal128Array::from(vec![1250, -5])
                        .with_precision_and_scale(10, 2)
                        .unwrap(),
                ),
                [Value::Decimal("12.50".into()), Value::Decimal("-0.05".into())],
            ),
            (Arc::new(StringArray::from(vec!["ä", ""])), [text("ä"), text("")]),
            (
                Arc::new(BinaryArray::from(vec![&b"\xff"[..], b""])),
                [Value::Bytes(vec![0xff]), Value::Bytes(Vec::new())],
            ),
            (
                Arc::new(Date32Array::from(vec![1, -1])),
                [Value::Date(86_400_000), Value::Date(-86_400_000)],
            ),
            (
                Arc::new(TimestampMicrosecondArray::from(vec![1_500_999, -1]).with_timezone("UTC")),
                [Value::Date(1500), Value::Date(0)],
            ),
            (
                Arc::new(DictionaryArray::<Int32Type>::from_iter(["b", "a"])),
                [text("b"), text("a")],
            ),
            (
                Arc::new(ListArray::from_iter_primitive::<Int32Type, _, _>([
                    Some(vec![Some(1), None]),
                    None,
                ])),
                [Value::List(vec![Value::Integer(1), Value::Null]), Value::Null],
            ),
            (
                Arc::new(struct_of),
                [
                    Value::Struct(vec![("a".into(), Value::Integer(7))]),
                    Value::Struct(vec![("a".into(), Value::Null)]),
                ],
            ),
        ];
        for (array, expected) in cases {
            let kind = array.data_type().clone();
            assert_eq!(values(array), expected, "{kind}");
        }
    }
}
