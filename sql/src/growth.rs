//! How a table changes while files are added to its dataset.
//!
//! Promise: a column that is there keeps its place and its type, so that what is recorded of older blocks stays right.
//! What does not fit is told, not guessed: such a value is null, its line tells why in `_error` and is whole in `_raw`.

use std::collections::HashMap;

use model::table::{Column, ColumnType, EVERYWHERE, Format, Reads, Table};

use crate::{
    Error,
    detect::{
        Detected, Evidence, MOST_COLUMNS, SeenColumn, detect, failing, is_provisional, records, seen, weigh,
    },
    parse::directives,
    types::{KeptAsText, Odd},
};

/// A column whose type is another one in new lines.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Changed {
    /// Of the column.
    pub name: String,
    /// As the table has it, and keeps it.
    pub known: ColumnType,
    /// As the new lines have it.
    pub found: ColumnType,
}

/// What the first lines of a new file make of a table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Growth {
    /// The table from now on.
    pub table: Table,
    /// Columns that it did not have.
    pub added: Vec<Column>,
    /// Columns of which new values do not fit the type.
    pub changed: Vec<Changed>,
    /// Columns of text of which all values look like numbers.
    pub kept_as_text: Vec<KeptAsText>,
    /// How many more columns the lines have than a table takes.
    pub left_out: usize,
    /// How many of how many lines make sense in the format of the table, where these are few.
    pub unfit: Option<(usize, usize)>,
    /// The first lines that make none then, with the reasons.
    pub failing: Vec<String>,
}

/// So many lines that make no sense are told.
const FAILING_TOLD: usize = 3;

/// Looks at the first lines of a file that is added to a dataset with a table.
///
/// # Errors
/// [`Error::BadFormat`] for values whose header (or line of fields) names other columns than those of the dataset: they
/// are found by their place, so they would be read as something else.
pub fn grow(table: &Table, sample: &[u8]) -> Result<Growth, Error> {
    let lines = records(&table.format, sample);
    let mut growth = Growth::of(table);
    if let Format::Known {
        reads: Reads::Directives { .. },
        ..
    } = table.format
    {
        directives::check_places(&table.columns, &lines).map_err(Error::BadFormat)?;
    }
    if let Some(found) = seen(&table.format, &lines) {
        if matches!(table.format, Format::Separated { .. }) {
            check_places(table, &found)?;
            growth.table.least = least(table, found.len());
        }
        growth.take(found);
    }
    let evidence = weigh(&growth.table, sample);
    if evidence.is_little() {
        let Evidence { fit, of } = evidence;
        growth.unfit = Some((fit, of));
        growth.failing = failing(&growth.table, sample, FAILING_TOLD);
    }
    Ok(growth)
}

/// What lines are after all, of which too few told the format of a table before more came.
pub fn reconsider(table: &Table, so_far: &[u8], more: &[u8]) -> Option<Detected> {
    if !is_provisional(table, so_far) {
        return None;
    }
    let is_text = matches!(table.format, Format::Text { .. } | Format::Raw);
    let fits = |growth: Growth| growth.unfit.is_none();
    if !is_text && grow(table, more).is_ok_and(fits) {
        return None;
    }
    let between: &[u8] = if so_far.is_empty() || so_far.ends_with(b"\n") {
        b""
    } else {
        b"\n"
    };
    let detected = detect(&[so_far, between, more].concat());
    (detected.table.format != table.format).then_some(detected)
}

/// Compares the columns of a file that tells them itself with those of its dataset.
pub fn grow_by(table: &Table, found: &Table) -> Growth {
    let mut growth = Growth::of(table);
    let columns = found.columns.iter().map(|column| SeenColumn {
        name: column.name.clone(),
        kind: Some(column.kind),
        odd: None,
    });
    growth.take(columns.collect());
    growth
}

impl Growth {
    fn of(table: &Table) -> Self {
        Self {
            table: table.clone(),
            added: Vec::new(),
            changed: Vec::new(),
            kept_as_text: Vec::new(),
            left_out: 0,
            unfit: None,
            failing: Vec::new(),
        }
    }

    fn take(&mut self, found: Vec<SeenColumn>) {
        let known: HashMap<String, ColumnType> = self
            .table
            .columns
            .iter()
            .map(|column| (column.name.clone(), column.kind))
            .collect();
        for mut column in found {
            let known = known.get(&column.name).copied();
            if known.is_none_or(|known| known == ColumnType::Text)
                && let Some(Odd { value, why }) = column.odd.take()
            {
                self.kept_as_text.push(KeptAsText {
                    column: column.name.clone(),
                    example: value,
                    why,
                });
            }
            match (known, column.kind) {
                (Some(known), Some(kind)) if !known.takes(kind) => self.changed.push(Changed {
                    name: column.name,
                    known,
                    found: kind,
                }),
                (Some(_), _) => {}
                (None, _)
                    if self.table.format.finds_by_name() && self.table.columns.len() >= MOST_COLUMNS =>
                {
                    self.left_out += 1;
                }
                (None, _) => {
                    let column = Column::from(column);
                    self.table.columns.push(column.clone());
                    self.added.push(column);
                }
            }
        }
    }
}

/// Whether the values of a new file stand where those of the dataset do.
fn check_places(table: &Table, found: &[SeenColumn]) -> Result<(), Error> {
    let known = table.columns.iter().map(|column| column.name.as_str());
    let other = known
        .zip(found)
        .enumerate()
        .find(|(_, (known, found))| *known != found.name);
    match other {
        None => Ok(()),
        Some((place, (known, found))) => Err(Error::BadFormat(format!(
            "column {} is {:?} here and {known:?} in the dataset, and values are found by their place: \
             add the file to a dataset of its own",
            place + 1,
            found.name
        ))),
    }
}

fn least(table: &Table, values: usize) -> Option<u32> {
    let known = table.columns.len();
    let least = table.least.map_or(known, |least| least as usize).min(values);
    if least == known.max(values) {
        None
    } else {
        u32::try_from(least).ok()
    }
}

/// Gives columns other types, as a user says; lines whose values are found by name may get columns that no line had yet.
///
/// # Errors
/// [`Error::BadFormat`] for a format that fixes its types, and for a name that is no column.
pub fn retype(table: &mut Table, types: &[(String, ColumnType)]) -> Result<(), Error> {
    if table.format.is_fixed() && !types.is_empty() {
        let format = table.format.name();
        return Err(Error::BadFormat(format!(
            "the columns of {format} have the types that they have: --types is for json, logfmt, csv, tsv, separated, parquet and regex"
        )));
    }
    for (name, kind) in types {
        match table.columns.iter_mut().find(|column| column.name == *name) {
            Some(column) => column.kind = *kind,
            None if table.format.finds_by_name() && !EVERYWHERE.iter().any(|(taken, _)| taken == name) => {
                table.columns.push(Column {
                    name: name.clone(),
                    kind: *kind,
                })
            }
            None => {
                let columns: Vec<_> = table.columns.iter().map(|column| &*column.name).collect();
                return Err(Error::BadFormat(format!(
                    "there is no column {name:?}: the columns are {}",
                    columns.join(", ")
                )));
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{detect, named};

    fn names(columns: &[Column]) -> Vec<(&str, ColumnType)> {
        columns
            .iter()
            .map(|column| (column.name.as_str(), column.kind))
            .collect()
    }

    #[test]
    fn new_members_are_appended_and_a_changed_type_is_told() {
        let table = detect(b"{\"b\":1,\"t\":\"x\",\"f\":1.5}\n").table;
        let grown = grow(
            &table,
            b"{\"a\":true,\"b\":\"no\",\"t\":7,\"f\":2}\n{\"b\":null}\n",
        )
        .unwrap();
        assert_eq!(names(&grown.added), [("a", ColumnType::Boolean)]);
        assert_eq!(grown.table.columns[..3], table.columns);
        let changed = Changed {
            name: "b".into(),
            known: ColumnType::Integer,
            found: ColumnType::Text,
        };
        assert_eq!(grown.changed, [changed]);
        assert_eq!(grown.unfit, None);
        let strange = grow(&table, b"no\njson\n").unwrap();
        assert_eq!((strange.unfit, &strange.table), (Some((0, 2)), &table));
    }

    #[test]
    fn separated_values_grow_at_their_end_alone() {
        let table = detect(b"a,b\n1,2\n").table;
        let longer = grow(&table, b"a,b,c\n1,2,3\n").unwrap();
        assert_eq!(longer.table.least, Some(2));
        assert_eq!(names(&longer.added), [("c", ColumnType::Integer)]);
        let shorter = grow(&longer.table, b"a\n1\n").unwrap();
        assert_eq!((shorter.table.least, shorter.added.len()), (Some(1), 0));
        assert_eq!(grow(&table, b"a,b\n5,x\n").unwrap().table.least, None);
        let told = grow(&table, b"b,a\n1,2\n").unwrap_err().to_string();
        assert!(told.contains("column 1 is \"b\" here and \"a\""), "{told}");
    }

    #[test]
    fn types_are_as_a_user_says() {
        let mut table = named("regex:^(?<code>\\d+)$", b"1\n").unwrap().table;
        retype(&mut table, &[("code".into(), ColumnType::Text)]).unwrap();
        assert_eq!(names(&table.columns), [("code", ColumnType::Text)]);
        assert!(retype(&mut table, &[("cod".into(), ColumnType::Text)]).is_err());
        let mut json = detect(b"{\"a\":1}\n").table;
        retype(&mut json, &[("b".into(), ColumnType::Float)]).unwrap();
        assert_eq!(json.columns.len(), 2);
        let mut raw = named("raw", b"").unwrap().table;
        assert!(retype(&mut raw, &[("b".into(), ColumnType::Float)]).is_err());
    }
}
