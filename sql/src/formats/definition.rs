//! The definition of a format, as it is written in a file of settings.

use std::collections::BTreeMap;

use model::table::{ColumnType, EVERYWHERE, Reads};
use serde::Deserialize;

use crate::{
    columns::{Builder, Padding},
    parse::parser,
    parse::pattern::Pattern,
    time::Clock,
};

/// A format that is known by name.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "Written")]
pub struct Definition {
    /// What it is called on the command line.
    pub name: String,
    /// What writes such lines.
    pub about: String,
    /// Where the format is described.
    pub reference: Option<String>,
    /// How the columns are found.
    pub reads: Reads,
    /// The columns and their types; of separated values those that its samples have.
    pub columns: Vec<(String, ColumnType)>,
    /// Whether time stamps may lack the year.
    pub yearless: bool,
    /// Some lines.
    pub samples: Vec<String>,
    /// What the lines look like, where the pattern by which they are read would take others as well.
    look: Option<String>,
    /// The columns that every line has.
    marks: Vec<String>,
}

/// As it is written.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    name: String,
    #[serde(default)]
    about: String,
    reference: Option<String>,
    /// A regular expression for the whole line; its named groups are the columns.
    pattern: Option<String>,
    /// Columns and their paths in an object of JSON.
    members: Option<Vec<(String, String)>>,
    /// Between values that a line `#Fields:` names.
    separator: Option<char>,
    look: Option<String>,
    #[serde(default)]
    marks: Vec<String>,
    /// Of columns that are no text.
    #[serde(default)]
    types: BTreeMap<String, ColumnType>,
    #[serde(default)]
    yearless: bool,
    samples: Vec<String>,
}

/// The expression for whole lines, which are bytes: classes such as `\d` are of ASCII.
fn whole(pattern: &str) -> String {
    format!("^(?-u:{pattern})$")
}

impl TryFrom<Written> for Definition {
    type Error = String;

    fn try_from(written: Written) -> Result<Self, String> {
        let Written { name, samples, .. } = written;
        let bad = |why: String| format!("format {name:?}: {why}");
        let is_plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"_-".contains(&byte);
        if name.is_empty() || !name.bytes().all(is_plain) {
            let why = "a name is made of lower-case letters, digits, hyphens and underscores";
            return Err(bad(why.into()));
        }
        if samples.len() < 2 {
            return Err(bad("two lines are needed as samples".into()));
        }
        let (reads, names) = match (written.pattern, written.members, written.separator) {
            (Some(pattern), None, None) => {
                let pattern = whole(&pattern);
                let names = Pattern::new(&pattern)
                    .map_err(|error| bad(error.to_string()))?
                    .names();
                (Reads::Pattern(pattern), names)
            }
            (None, Some(members), None) => {
                let (names, paths) = members.into_iter().unzip();
                (Reads::Members(paths), names)
            }
            (None, None, Some(separator)) => (Reads::Directives { separator }, Vec::new()),
            _ => return Err(bad("it has one of pattern, members and separator".into())),
        };
        if let Some(taken) = names
            .iter()
            .find(|name| EVERYWHERE.iter().any(|(taken, _)| taken == name))
        {
            return Err(bad(format!("every table has a column {taken} already")));
        }
        let unknown = |column: &&String| !names.contains(*column);
        if let Some(column) = written.types.keys().chain(&written.marks).find(unknown) {
            return Err(bad(format!("it has no column {column}")));
        }
        let typed = |name: String| {
            let kind = written.types.get(&name).copied().unwrap_or(ColumnType::Text);
            (name, kind)
        };
        Ok(Self {
            about: written.about,
            reference: written.reference,
            reads,
            columns: names.into_iter().map(typed).collect(),
            yearless: written.yearless,
            look: written.look.as_deref().map(whole),
            marks: written.marks,
            samples,
            name,
        })
    }
}

impl Definition {
    /// An expression that matches lines of the format; one that matches nothing where a pattern can't tell.
    pub(super) fn look(&self) -> &str {
        match (&self.look, &self.reads) {
            (Some(look), _) => look,
            (None, Reads::Pattern(pattern)) => pattern,
            (None, _) => r"[^\s\S]",
        }
    }

    /// The places of the columns that every line has.
    pub(super) fn marks(&self) -> Vec<usize> {
        let is_mark = |(name, _): &(String, ColumnType)| self.marks.is_empty() || self.marks.contains(name);
        (0..)
            .zip(&self.columns)
            .filter(|(_, column)| is_mark(column))
            .map(|(place, _)| place)
            .collect()
    }

    /// Whether the samples are read as the definition says.
    ///
    /// # Errors
    /// The sample that is not, and why.
    pub(super) fn check(&self) -> Result<(), String> {
        let samples: Vec<&[u8]> = self.samples.iter().map(|sample| sample.as_bytes()).collect();
        let table = self.table(&samples).ok_or("no sample begins with #Fields:")?;
        let all = vec![true; table.columns.len()];
        let mut parser = parser(&table, &all).map_err(|error| error.to_string())?;
        let mut given = vec![false; table.columns.len()];
        for sample in samples {
            let shown = String::from_utf8_lossy(sample);
            if parser.passes_over(sample) {
                continue;
            }
            let mut row = vec![None; table.columns.len()];
            parser
                .parse(sample, &mut row)
                .map_err(|why| format!("the sample {shown:?} does not fit: {why}"))?;
            for (place, value) in row.iter().enumerate() {
                let Some(value) = value else { continue };
                let column = &table.columns[place];
                given[place] = true;
                if !Builder::new(column.kind, Clock::either(0), Padding::Allowed, 0).value(value) {
                    let why = crate::decode::misfit(column, value);
                    return Err(format!("the sample {shown:?} does not fit: {why}"));
                }
            }
        }
        match given.iter().position(|given| !given) {
            Some(place) => Err(format!(
                "no sample has a value of column {}",
                table.columns[place].name
            )),
            None => Ok(()),
        }
    }
}
