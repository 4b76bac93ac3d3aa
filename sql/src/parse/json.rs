//! JSON lines.

use std::borrow::Cow;

use model::table::Column;
use serde_json::{Map, Value as Member};

use super::{Parser, Value};

/// Between the names of a path.
pub(crate) const DOT: char = '.';

pub(super) struct Json {
    /// The paths of the wanted columns.
    paths: Vec<(usize, Vec<String>)>,
}

impl Json {
    pub(super) fn new(columns: &[Column], wanted: &[bool]) -> Self {
        let wanted = columns.iter().enumerate().filter(|(place, _)| wanted[*place]);
        let paths =
            wanted.map(|(place, column)| (place, column.name.split(DOT).map(str::to_string).collect()));
        Self {
            paths: paths.collect(),
        }
    }
}

/// A member, also one whose own name contains dots.
fn member<'v>(object: &'v Map<String, Member>, path: &[String]) -> Option<&'v Member> {
    let (first, rest) = path.split_first()?;
    match object.get(first) {
        Some(value) if rest.is_empty() => Some(value),
        Some(Member::Object(inner)) => member(inner, rest),
        _ => object.get(&path.join(".")),
    }
}

impl Parser for Json {
    fn parse<'a>(&mut self, line: &'a [u8], row: &mut [Value<'a>]) -> Result<(), String> {
        let object: Map<String, Member> =
            serde_json::from_slice(line).map_err(|error| format!("no JSON object: {error}"))?;
        for (place, path) in &self.paths {
            row[*place] = match member(&object, path) {
                None | Some(Member::Null) => None,
                Some(Member::String(text)) => Some(Cow::Owned(text.clone().into_bytes())),
                Some(other) => Some(Cow::Owned(other.to_string().into_bytes())),
            };
        }
        Ok(())
    }
}
