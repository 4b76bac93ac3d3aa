//! Small tables that go with a query, as the command line names them.

use std::{fs::File, io::Read as _, path::PathBuf, str::FromStr};

use anyhow::Context as _;
use control::WithTable;
use model::processor::SMALL_TABLES_BYTES;

use crate::{exit::usage, output};

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

/// Reads small tables.
///
/// # Errors
/// What can't be read; tables that are too large together.
pub(in crate::commands) fn read(with: &[With]) -> anyhow::Result<Vec<WithTable>> {
    let mut left = SMALL_TABLES_BYTES;
    let mut tables = Vec::with_capacity(with.len());
    for With { name, path } in with {
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
        tables.push(WithTable {
            name: name.clone(),
            ending: path
                .extension()
                .and_then(|ending| ending.to_str())
                .map(str::to_string),
            bytes,
        });
    }
    Ok(tables)
}
