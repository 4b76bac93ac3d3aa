//! A query in the making: which datasets it names, the small tables that come with it, what of it can be reused.

use std::{fs::File, io::Read as _, path::PathBuf, str::FromStr};

use anyhow::Context as _;
use control::Control;
use model::{
    Name, Output, Payload,
    processor::{Query, QueryTable, SMALL_TABLES_BYTES, SmallTable},
};
use storage::Dataset;

use crate::{commands::table, exit::usage, output};

/// A small table as the command line names it: `countries=countries.csv`.
#[derive(Clone, Debug)]
pub(in crate::commands) struct With {
    name: String,
    path: PathBuf,
}

impl FromStr for With {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (name, path) = text
            .split_once('=')
            .ok_or_else(|| "it is NAME=FILE, such as countries=countries.csv".to_string())?;
        let is_word = |c: char| c.is_ascii_alphanumeric() || c == '_';
        if name.is_empty() || !name.chars().all(is_word) {
            return Err(format!(
                "{name:?} can't be the name of a table: use letters, digits and _"
            ));
        }
        Ok(Self {
            // As SQL takes a name that is not quoted.
            name: name.to_ascii_lowercase(),
            path: path.into(),
        })
    }
}

/// How a query is meant, besides its text.
pub(in crate::commands) struct Meant<'a> {
    pub(in crate::commands) time_zone: &'a str,
    pub(in crate::commands) gather_rows: Option<u64>,
    pub(in crate::commands) with: &'a [With],
    pub(in crate::commands) into: Option<&'a str>,
}

/// What was typed, before anything is looked up.
pub(in crate::commands) struct Typed<'a> {
    text: &'a str,
    meant: Meant<'a>,
    /// Names of datasets.
    datasets: Vec<Name>,
    with: Vec<SmallTable>,
    tables: Vec<Vec<u8>>,
}

/// A query with what belongs to it.
pub(in crate::commands) struct Asked {
    pub(in crate::commands) query: Query,
    /// Those of the query, in its order; at least one.
    pub(in crate::commands) datasets: Vec<Dataset>,
    /// Knows the small tables.
    pub(in crate::commands) runtime: sql::Runtime,
    /// The bytes of the small tables, in the order of the query.
    pub(in crate::commands) tables: Vec<Vec<u8>>,
}

impl<'a> Typed<'a> {
    /// Reads the small tables and finds which names are those of datasets.
    ///
    /// # Errors
    /// What is no question, or about no dataset; small tables that can't be read or are too large.
    pub(in crate::commands) fn new(text: &'a str, meant: Meant<'a>) -> anyhow::Result<Self> {
        let named = sql::tables(text).map_err(|error| usage(error.to_string()))?;
        let (with, tables) = small_tables(meant.with)?;
        if let Some(unused) = with.iter().find(|table| !named.contains(&table.name)) {
            return Err(usage(format!(
                "the query does not read the table {}",
                unused.name
            )));
        }
        let datasets = named
            .iter()
            .filter(|name| with.iter().all(|table| table.name != **name))
            .map(|name| Name::new(name.as_str()).map_err(|error| usage(error.to_string())))
            .collect::<Result<Vec<_>, _>>()?;
        if datasets.is_empty() {
            return Err(usage("the query reads no dataset: name one behind FROM"));
        }
        Ok(Self {
            text,
            meant,
            datasets,
            with,
            tables,
        })
    }

    /// Looks the datasets up. Plans nothing yet.
    ///
    /// # Errors
    /// Unknown datasets, what can't be reached.
    pub(in crate::commands) async fn over(self, control: &Control) -> anyhow::Result<Asked> {
        let (mut datasets, mut described) = (Vec::new(), Vec::new());
        for name in &self.datasets {
            let dataset = control.dataset(name).await?;
            described.push(QueryTable {
                name: name.to_string(),
                table: table::of(control, &dataset).await?,
                lower_half: None,
            });
            datasets.push(dataset);
        }
        let query = Query {
            sql: self.text.to_string(),
            tables: described,
            with: self.with,
            gather_rows: self.meant.gather_rows,
            time_zone: self.meant.time_zone.to_string(),
            now_us: jiff::Timestamp::now().as_microsecond(),
            version: sql::VERSION.to_string(),
            question: None,
            into: self.meant.into.map(str::to_string),
            refresh: None,
        };
        Ok(Asked {
            query,
            datasets,
            runtime: sql::Runtime::for_planning(),
            tables: self.tables,
        })
    }
}

impl Asked {
    /// Checks the query, and tells what of it can be reused; `question` identifies it where its answer may be given again.
    ///
    /// # Errors
    /// A query that is wrong or can't be split, with the reason.
    pub(in crate::commands) async fn plan(&mut self, question: Option<String>) -> anyhow::Result<()> {
        let planned = self.planned(question).await;
        planned.map_err(|error| usage(error.to_string()))
    }

    /// As [`Asked::plan`], for who looks at what is wrong.
    ///
    /// # Errors
    /// Those of [`sql::Runtime::check`]; [`sql::Error::BadTable`].
    pub(in crate::commands) async fn planned(&mut self, question: Option<String>) -> Result<(), sql::Error> {
        for (table, bytes) in self.query.with.iter().zip(&self.tables) {
            self.runtime.keep(table, bytes)?;
        }
        let fingerprints = self.runtime.fingerprints(&self.query).await?;
        let repeatable = self.runtime.is_repeatable(&self.query).await?;
        for (table, fingerprint) in self.query.tables.iter_mut().zip(fingerprints) {
            let digits = |bytes: [u8; 32]| bytes.iter().map(|byte| format!("{byte:02x}")).collect();
            table.lower_half = fingerprint.map(digits);
        }
        self.query.question = question.filter(|_| repeatable);
        Ok(())
    }
}

/// Reads small tables, and learns their columns.
fn small_tables(with: &[With]) -> anyhow::Result<(Vec<SmallTable>, Vec<Vec<u8>>)> {
    let (mut tables, mut contents) = (Vec::<SmallTable>::new(), Vec::new());
    let mut left = SMALL_TABLES_BYTES;
    for With { name, path } in with {
        if tables.iter().any(|table| table.name == *name) {
            return Err(usage(format!("there are two tables named {name}")));
        }
        let shown = path.display();
        let mut bytes = Vec::new();
        let read = File::open(path).and_then(|file| file.take(left + 1).read_to_end(&mut bytes));
        read.with_context(|| format!("can't read {shown}"))?;
        let Some(rest) = left.checked_sub(bytes.len() as u64) else {
            return Err(usage(format!(
                "the tables that go with the query take more than {}: add {shown} as a dataset with \
                 `sawmill dataset add {name} {shown}`, and join it with --gather",
                output::size(SMALL_TABLES_BYTES)
            )));
        };
        left = rest;
        let ending = path.extension().and_then(|ending| ending.to_str());
        let table = sql::small_table(name, ending, &bytes).map_err(|error| usage(error.to_string()))?;
        tables.push(SmallTable {
            name: name.clone(),
            table,
            checksum: sql::checksum(&bytes),
            stored: Output::Inline(Payload(Vec::new())),
        });
        contents.push(bytes);
    }
    Ok((tables, contents))
}
