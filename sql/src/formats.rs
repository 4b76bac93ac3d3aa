//! The formats that are known by name: how their lines are read, and what their columns hold.
//!
//! Those that come with Sawmill are defined in `known.toml`; users add theirs in the same form ([`define`]). A table that
//! is made of one holds all that is needed to read its lines.

use std::sync::OnceLock;

use model::table::{ColumnType, Format, Reads, Table};
use regex::bytes::{RegexSet, RegexSetBuilder};

pub use self::{
    definition::Definition,
    listed::{Listed, all},
};
use crate::{
    Error,
    parse::{Parser, directives, members::Members},
};

mod definition;
mod listed;

/// The formats that come with Sawmill.
const KNOWN: &str = include_str!("formats/known.toml");

/// All formats that are known, those of the user first.
struct Formats {
    definitions: Vec<Definition>,
    /// What the lines of each look like; nothing for those that are not read by a pattern.
    looks: RegexSet,
}

static FORMATS: OnceLock<Formats> = OnceLock::new();

impl Formats {
    fn new(mut definitions: Vec<Definition>) -> Result<Self, Error> {
        let known: File = toml::from_str(KNOWN).map_err(|error| Error::BadFormat(error.to_string()))?;
        for definition in known.formats {
            if !definitions.iter().any(|own| own.name == definition.name) {
                definitions.push(definition);
            }
        }
        let looks = definitions.iter().map(|definition| definition.look());
        let looks = RegexSetBuilder::new(looks).size_limit(64 << 20).build();
        let looks = looks.map_err(|error| Error::BadFormat(error.to_string()))?;
        Ok(Self { definitions, looks })
    }

    /// All of them, whoever asks first.
    fn get() -> &'static Self {
        FORMATS.get_or_init(|| Self::new(Vec::new()).expect("the formats that come with Sawmill are tested"))
    }
}

/// The file of definitions.
#[derive(serde::Deserialize)]
struct File {
    formats: Vec<Definition>,
}

/// Adds formats of the user for the whole process, before any is asked for; one of a known name takes its place.
///
/// # Errors
/// [`Error::BadFormat`] for a definition that its own samples contradict, for two of one name, and when formats were asked
/// for before.
pub fn define(definitions: Vec<Definition>) -> Result<(), Error> {
    if definitions.is_empty() {
        return Ok(());
    }
    for (place, definition) in definitions.iter().enumerate() {
        let bad = |why: String| Error::BadFormat(format!("format {:?}: {why}", definition.name));
        definition.check().map_err(bad)?;
        if definitions[..place]
            .iter()
            .any(|other| other.name == definition.name)
        {
            return Err(bad("it is defined twice".into()));
        }
    }
    let formats = Formats::new(definitions)?;
    let late = |_| Error::BadFormat("formats are defined before any is looked for".into());
    FORMATS.set(formats).map_err(late)
}

/// All formats that are known by name, those of the user first. Where several fit, the first of them is meant.
pub fn known() -> &'static [Definition] {
    &Formats::get().definitions
}

/// The format of this name.
pub fn find(name: &str) -> Option<&'static Definition> {
    known().iter().find(|definition| definition.name == name)
}

/// How many of these lines look like each format, in the order of [`known`]; formats that none looks like are left out.
/// All patterns are tried in one pass. Where such a format and `access` fit as well, it is the former: that one takes what
/// stands behind the parts that it knows for a request time, or for nothing.
pub(crate) fn fitting(lines: &[&[u8]]) -> Vec<(&'static Definition, usize)> {
    let formats = Formats::get();
    let mut counts = vec![0; formats.definitions.len()];
    for line in lines {
        for place in formats.looks.matches(line) {
            counts[place] += 1;
        }
    }
    for (definition, count) in formats.definitions.iter().zip(&mut counts) {
        match &definition.reads {
            Reads::Pattern(_) => {}
            Reads::Members(paths) => *count = with_members(definition, paths, lines),
            // What it looks like is told by a line above the rows.
            Reads::Directives { separator } if *count > 0 => *count = directives::fitting(*separator, lines),
            Reads::Directives { .. } => {}
        }
    }
    let counted = formats.definitions.iter().zip(counts);
    counted.filter(|(_, count)| *count > 0).collect()
}

/// How many lines are objects that have the members by which the format is known.
fn with_members(definition: &Definition, paths: &[String], lines: &[&[u8]]) -> usize {
    let mut parser = Members::new(paths, &vec![true; paths.len()]);
    let marks = definition.marks();
    let mut has_all = |line: &&&[u8]| {
        let mut row = vec![None; paths.len()];
        line.starts_with(b"{")
            && parser.parse(line, &mut row).is_ok()
            && marks.iter().all(|&place| row[place].is_some())
    };
    lines.iter().filter(|line| has_all(line)).count()
}

impl Definition {
    /// The format, as a table has it.
    pub(crate) fn format(&self) -> Format {
        Format::Known {
            name: self.name.clone(),
            reads: self.reads.clone(),
            yearless: self.yearless,
        }
    }

    /// The table of lines in this format. Some formats have columns that only their lines tell: none where these do not.
    pub fn table(&self, lines: &[&[u8]]) -> Option<Table> {
        let columns = match &self.reads {
            Reads::Directives { .. } => directives::columns(lines)?,
            _ => self
                .columns
                .iter()
                .map(|(name, kind)| column(name, *kind))
                .collect(),
        };
        Some(Table {
            format: self.format(),
            columns,
            least: None,
        })
    }
}

fn column(name: &str, kind: ColumnType) -> model::table::Column {
    model::table::Column {
        name: name.to_string(),
        kind,
    }
}

#[cfg(test)]
mod tests;
