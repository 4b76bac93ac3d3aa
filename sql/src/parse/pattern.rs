//! Lines that a regular expression describes; its named groups are the columns, in their order.

use regex::bytes::{CaptureLocations, Regex};

use super::{Parser, Value, put};
use crate::Error;

pub(crate) struct Pattern {
    regex: Regex,
    /// Where the groups of the last line are; used again for each.
    found: CaptureLocations,
    /// The groups that have names.
    groups: Vec<usize>,
}

impl Pattern {
    pub(crate) fn new(pattern: &str) -> Result<Self, Error> {
        let regex = Regex::new(pattern).map_err(|error| Error::BadFormat(error.to_string()))?;
        let named = regex
            .capture_names()
            .enumerate()
            .filter(|(_, name)| name.is_some());
        let groups: Vec<usize> = named.map(|(group, _)| group).collect();
        if groups.is_empty() {
            let why = "the regular expression has no named group such as (?<level>[A-Z]+)";
            return Err(Error::BadFormat(why.into()));
        }
        let found = regex.capture_locations();
        Ok(Self { regex, found, groups })
    }

    /// The names of the columns.
    pub(crate) fn names(&self) -> Vec<String> {
        self.regex.capture_names().flatten().map(str::to_string).collect()
    }
}

/// A format that is known by name. An empty value or a hyphen alone stands for nothing, and an indented line that is no
/// record of its own is more of the message above it.
pub(super) struct Known {
    pattern: Pattern,
    message: Option<usize>,
}

impl Known {
    pub(super) fn new(pattern: &str) -> Result<Self, Error> {
        let pattern = Pattern::new(pattern)?;
        let message = pattern.names().iter().position(|name| name == "message");
        Ok(Self { pattern, message })
    }
}

impl Parser for Known {
    fn parse<'a>(&mut self, line: &'a [u8], row: &mut [Value<'a>]) -> Result<(), String> {
        let found = self.pattern.parse(line, row);
        match self.message {
            Some(message) if found.is_err() && matches!(line.first(), Some(b' ' | b'\t')) => {
                put(row, message, line);
                return Ok(());
            }
            _ => {}
        }
        for value in row {
            if value
                .as_ref()
                .is_some_and(|value| value.is_empty() || **value == *b"-")
            {
                *value = None;
            }
        }
        found
    }
}

impl Parser for Pattern {
    fn parse<'a>(&mut self, line: &'a [u8], row: &mut [Value<'a>]) -> Result<(), String> {
        self.regex
            .captures_read(&mut self.found, line)
            .ok_or("the regular expression does not match")?;
        for (column, &group) in self.groups.iter().enumerate() {
            if let Some((start, end)) = self.found.get(group) {
                put(row, column, &line[start..end]);
            }
        }
        Ok(())
    }
}
