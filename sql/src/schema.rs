//! The Arrow schema of a table.

use std::sync::Arc;

use datafusion::arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit};
use model::table::{ColumnType, EVERYWHERE, Table};

/// The zone of all timestamps.
pub(crate) const UTC: &str = "UTC";

pub(crate) fn data_type(kind: ColumnType) -> DataType {
    match kind {
        ColumnType::Text => DataType::Utf8View,
        ColumnType::Integer => DataType::Int64,
        ColumnType::Float => DataType::Float64,
        ColumnType::Boolean => DataType::Boolean,
        ColumnType::Timestamp => DataType::Timestamp(TimeUnit::Microsecond, Some(UTC.into())),
    }
}

/// The table's own columns, then those that every table has.
pub(crate) fn schema(table: &Table) -> SchemaRef {
    let own = table
        .columns
        .iter()
        .map(|column| Field::new(&column.name, data_type(column.kind), true));
    let everywhere = EVERYWHERE
        .iter()
        .map(|(name, kind)| Field::new(*name, data_type(*kind), true));
    Arc::new(Schema::new(own.chain(everywhere).collect::<Vec<_>>()))
}
