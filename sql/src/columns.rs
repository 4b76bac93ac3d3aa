//! Values into Arrow columns, straight from the bytes of the lines and without an allocation per line.

use std::sync::Arc;

use datafusion::arrow::{
    array::{
        ArrayRef, BooleanArray, BooleanBufferBuilder, Float64Array, Int64Array, TimestampMicrosecondArray,
    },
    buffer::ScalarBuffer,
};
use model::table::ColumnType;

pub(crate) use self::text::slot;
use self::{nulls::Nulls, text::Text};
use crate::{schema::UTC, time::Clock};

mod nulls;
pub(crate) mod numbers;
mod text;

/// Whether a number may have leading zeros or a plus in front.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Padding {
    /// They are no more than how it is written.
    Allowed,
    /// What has them is an id.
    Refused,
}

/// A column that grows.
pub(crate) enum Builder {
    Text(Text),
    Integer(Vec<i64>, Nulls, Padding),
    Float(Vec<f64>, Nulls, Padding),
    Boolean(BooleanBufferBuilder, Nulls),
    Timestamp(Vec<i64>, Nulls, Clock),
}

impl Builder {
    /// `rows` is how many are expected; `clock` reads the times of the lines, `padding` how they write numbers.
    pub(crate) fn new(kind: ColumnType, clock: Clock, padding: Padding, rows: usize) -> Self {
        match kind {
            ColumnType::Text => Self::text_of(rows),
            ColumnType::Integer => Self::Integer(Vec::with_capacity(rows), Nulls::default(), padding),
            ColumnType::Float => Self::Float(Vec::with_capacity(rows), Nulls::default(), padding),
            ColumnType::Boolean => Self::Boolean(BooleanBufferBuilder::new(rows), Nulls::default()),
            ColumnType::Timestamp => Self::Timestamp(Vec::with_capacity(rows), Nulls::default(), clock),
        }
    }

    /// Of text.
    pub(crate) fn text_of(rows: usize) -> Self {
        Self::Text(Text::new(rows))
    }

    #[inline]
    pub(crate) fn null(&mut self) {
        match self {
            Self::Text(text) => text.null(),
            Self::Integer(values, nulls, _) => {
                values.push(0);
                nulls.null(values.len());
            }
            Self::Float(values, nulls, _) => {
                values.push(0.0);
                nulls.null(values.len());
            }
            Self::Boolean(values, nulls) => {
                values.append(false);
                nulls.null(values.len());
            }
            Self::Timestamp(values, nulls, _) => {
                values.push(0);
                nulls.null(values.len());
            }
        }
    }

    #[inline]
    pub(crate) fn integer(&mut self, value: i64) {
        if let Self::Integer(values, nulls, _) = self {
            values.push(value);
            nulls.valid();
        }
    }

    /// Appends a point in time in microseconds since 1970 UTC.
    #[inline]
    pub(crate) fn timestamp(&mut self, value: i64) {
        if let Self::Timestamp(values, nulls, _) = self {
            values.push(value);
            nulls.valid();
        }
    }

    #[inline]
    pub(crate) fn text(&mut self, value: &str) {
        if let Self::Text(text) = self {
            text.push(value);
        }
    }

    /// Appends a value, null for one that is not of this type; whether it was.
    #[inline]
    pub(crate) fn value(&mut self, value: &[u8]) -> bool {
        match self {
            Self::Text(text) => {
                text.push_bytes(value);
                return true;
            }
            Self::Integer(values, nulls, padding) => {
                if let Some(value) = padding.or_without(value, numbers::integer) {
                    values.push(value);
                    nulls.valid();
                    return true;
                }
            }
            Self::Float(values, nulls, padding) => {
                if let Some(value) = padding.or_without(value, numbers::float) {
                    values.push(value);
                    nulls.valid();
                    return true;
                }
            }
            Self::Boolean(values, nulls) => {
                if let Some(value) = boolean(value) {
                    values.append(value);
                    nulls.valid();
                    return true;
                }
            }
            Self::Timestamp(values, nulls, clock) => {
                if let Some(value) = clock.whole(value) {
                    values.push(value);
                    nulls.valid();
                    return true;
                }
            }
        }
        self.null();
        false
    }

    pub(crate) fn finish(self) -> ArrayRef {
        match self {
            Self::Text(text) => Arc::new(text.finish()),
            Self::Integer(values, nulls, _) => {
                Arc::new(Int64Array::new(ScalarBuffer::from(values), nulls.finish()))
            }
            Self::Float(values, nulls, _) => {
                Arc::new(Float64Array::new(ScalarBuffer::from(values), nulls.finish()))
            }
            Self::Boolean(mut values, nulls) => Arc::new(BooleanArray::new(values.finish(), nulls.finish())),
            Self::Timestamp(values, nulls, _) => Arc::new(
                TimestampMicrosecondArray::new(ScalarBuffer::from(values), nulls.finish()).with_timezone(UTC),
            ),
        }
    }
}

impl Padding {
    #[inline]
    fn or_without<N>(self, value: &[u8], read: impl Fn(&[u8]) -> Option<N>) -> Option<N> {
        match read(value) {
            None if self == Self::Allowed => read(numbers::without_padding(value)),
            number => number,
        }
    }
}

fn boolean(value: &[u8]) -> Option<bool> {
    match value {
        b"true" => Some(true),
        b"false" => Some(false),
        _ => None,
    }
}
