//! Values into Arrow columns. Text that stands in the block is pointed at, not copied.

use std::sync::Arc;

use datafusion::arrow::{
    array::{
        ArrayRef, BooleanBuilder, Float64Builder, Int64Builder, StringViewBuilder,
        TimestampMicrosecondBuilder,
    },
    buffer::Buffer,
};
use model::table::ColumnType;

use crate::{schema::UTC, time::Style};

/// A column that grows.
pub(crate) enum Builder {
    Text {
        builder: StringViewBuilder,
        bytes: Buffer,
        /// Number of the block's bytes among the buffers of the builder.
        buffer: u32,
    },
    Integer(Int64Builder),
    Float(Float64Builder),
    Boolean(BooleanBuilder),
    Timestamp(TimestampMicrosecondBuilder, Style),
}

impl Builder {
    pub(crate) fn new(kind: ColumnType, style: Style, bytes: &Buffer) -> Self {
        match kind {
            ColumnType::Text => {
                let mut builder = StringViewBuilder::new();
                let buffer = builder.append_block(bytes.clone());
                Self::Text {
                    builder,
                    bytes: bytes.clone(),
                    buffer,
                }
            }
            ColumnType::Integer => Self::Integer(Int64Builder::new()),
            ColumnType::Float => Self::Float(Float64Builder::new()),
            ColumnType::Boolean => Self::Boolean(BooleanBuilder::new()),
            ColumnType::Timestamp => {
                Self::Timestamp(TimestampMicrosecondBuilder::new().with_timezone(UTC), style)
            }
        }
    }

    pub(crate) fn null(&mut self) {
        match self {
            Self::Text { builder, .. } => builder.append_null(),
            Self::Integer(builder) => builder.append_null(),
            Self::Float(builder) => builder.append_null(),
            Self::Boolean(builder) => builder.append_null(),
            Self::Timestamp(builder, _) => builder.append_null(),
        }
    }

    pub(crate) fn integer(&mut self, value: i64) {
        if let Self::Integer(builder) = self {
            builder.append_value(value);
        }
    }

    /// Appends a value, null for one that is not of this type; whether it was.
    pub(crate) fn value(&mut self, value: &[u8]) -> bool {
        let text = || std::str::from_utf8(value).ok().map(str::trim);
        match self {
            Self::Text {
                builder,
                bytes,
                buffer,
            } => {
                append_text(builder, bytes, *buffer, value);
                true
            }
            Self::Integer(builder) => {
                let value = text().and_then(|text| text.parse().ok());
                builder.append_option(value);
                value.is_some()
            }
            Self::Float(builder) => {
                let value = text().and_then(|text| text.parse().ok());
                builder.append_option(value);
                value.is_some()
            }
            Self::Boolean(builder) => {
                let value = match value {
                    b"true" => Some(true),
                    b"false" => Some(false),
                    _ => None,
                };
                builder.append_option(value);
                value.is_some()
            }
            Self::Timestamp(builder, style) => {
                let value = style.read(value);
                builder.append_option(value);
                value.is_some()
            }
        }
    }

    pub(crate) fn finish(self) -> ArrayRef {
        match self {
            Self::Text { mut builder, .. } => Arc::new(builder.finish()),
            Self::Integer(mut builder) => Arc::new(builder.finish()),
            Self::Float(mut builder) => Arc::new(builder.finish()),
            Self::Boolean(mut builder) => Arc::new(builder.finish()),
            Self::Timestamp(mut builder, _) => Arc::new(builder.finish()),
        }
    }
}

fn append_text(builder: &mut StringViewBuilder, bytes: &Buffer, buffer: u32, value: &[u8]) {
    if let Some((offset, length)) = position(bytes, value)
        && builder.try_append_view(buffer, offset, length).is_ok()
    {
        return;
    }
    builder.append_value(String::from_utf8_lossy(value));
}

/// Where `part` stands in `bytes`; none for one that stands elsewhere, as what was unescaped does.
fn position(bytes: &Buffer, part: &[u8]) -> Option<(u32, u32)> {
    let offset = (part.as_ptr() as usize).checked_sub(bytes.as_ptr() as usize)?;
    if offset + part.len() > bytes.len() {
        return None;
    }
    Some((u32::try_from(offset).ok()?, u32::try_from(part.len()).ok()?))
}
