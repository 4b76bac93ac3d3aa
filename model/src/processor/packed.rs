//! The tables of a query as they travel in each entry of its job: those of many columns are compressed, since an entry is small.

use base64::{Engine, engine::general_purpose::STANDARD};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _, ser::Error as _};

use super::QueryTable;

/// Tables of up to so many bytes travel as they are, so that `zkCli` shows them.
const PLAIN_BYTES: usize = 8 * 1024;
/// What tables may take at most: far more than any that can be submitted.
const MOST_BYTES: usize = 16 << 20;
/// Of zstd.
const LEVEL: i32 = 9;

#[derive(Deserialize)]
#[serde(untagged)]
enum Written {
    Plain(Vec<QueryTable>),
    Packed(String),
}

pub(super) fn serialize<S: Serializer>(tables: &[QueryTable], to: S) -> Result<S::Ok, S::Error> {
    let json = serde_json::to_vec(tables).map_err(S::Error::custom)?;
    if json.len() <= PLAIN_BYTES {
        return tables.serialize(to);
    }
    let packed = zstd::bulk::compress(&json, LEVEL).map_err(S::Error::custom)?;
    to.serialize_str(&STANDARD.encode(packed))
}

pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<QueryTable>, D::Error> {
    let packed = match Written::deserialize(from)? {
        Written::Plain(tables) => return Ok(tables),
        Written::Packed(packed) => STANDARD.decode(packed).map_err(D::Error::custom)?,
    };
    let json = zstd::bulk::decompress(&packed, MOST_BYTES).map_err(D::Error::custom)?;
    serde_json::from_slice(&json).map_err(D::Error::custom)
}

#[cfg(test)]
mod tests {
    use super::super::{Processor, Query};
    use super::*;
    use crate::table::{Column, ColumnType, Format, Table};

    fn query(columns: usize) -> Query {
        let column = |number: usize| Column {
            name: format!("request.headers.{}.{number}", number * 7919 % 4001),
            kind: ColumnType::ALL[number % 5],
        };
        Query {
            sql: "SELECT count(*) FROM wide".into(),
            tables: vec![QueryTable {
                name: "wide".into(),
                table: Table {
                    format: Format::Json,
                    columns: (0..columns).map(column).collect(),
                    least: None,
                },
                lower_half: None,
            }],
            ..Query::default()
        }
    }

    #[test]
    fn thousands_of_columns_travel_and_come_back() {
        for columns in [3, 4000] {
            let query = query(columns);
            assert_eq!(Processor::Query(query.clone()).check(), Ok(()), "{columns}");
            let json = serde_json::to_string(&query).unwrap();
            assert_eq!(json.contains("request.headers"), columns == 3);
            assert_eq!(serde_json::from_str::<Query>(&json).unwrap(), query);
        }
        let mut bad = serde_json::to_value(query(4000)).unwrap();
        bad["tables"] = "AAAA".into();
        assert!(serde_json::from_value::<Query>(bad).is_err());
    }
}
