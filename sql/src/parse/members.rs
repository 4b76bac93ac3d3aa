//! Columns that are members of an object of JSON, by their paths.

use std::borrow::Cow;

use model::table::{Column, ColumnType};

use super::{Parser, Value, json::Json};

pub(crate) struct Members(Json);

impl Members {
    /// `wanted` tells which of the paths are looked at.
    pub(crate) fn new(paths: &[String], wanted: &[bool]) -> Self {
        let column = |path: &String| Column {
            name: path.clone(),
            kind: ColumnType::Text,
        };
        let columns: Vec<Column> = paths.iter().map(column).collect();
        Self(Json::new(&columns, wanted))
    }
}

impl Parser for Members {
    fn parse<'a>(&mut self, line: &'a [u8], row: &mut [Value<'a>]) -> Result<(), String> {
        self.0.parse(line, row)?;
        // What was a line keeps its line feed in some of these formats.
        for value in row.iter_mut().flatten() {
            match value {
                Cow::Borrowed(text) => *text = text.strip_suffix(b"\n").unwrap_or(text),
                Cow::Owned(text) => {
                    if text.ends_with(b"\n") {
                        text.pop();
                    }
                }
            }
        }
        Ok(())
    }
}
