//! JSON lines, read in one pass: members that no column has are checked and skipped.
//!
//! Promise: numbers come as they are written, and a column that a line has two values for makes the line a broken one,
//! whichever columns are wanted.

use std::borrow::Cow;

use model::table::Column;

use self::{
    cursor::{Bad, Cursor, Kind},
    tree::{Node, ROOT, Tree},
};
use super::{Parser, Value};

mod cursor;
mod tree;

/// Between the names of a path.
pub(crate) const DOT: char = '.';

pub(crate) struct Json {
    columns: Columns,
    names: Vec<String>,
}

/// The columns, by place.
struct Columns {
    tree: Tree,
    wanted: Vec<bool>,
    /// The number of the last line that had a value for it.
    filled: Vec<u64>,
    line: u64,
    /// The column that the line has two values for.
    twice: Option<usize>,
}

impl Json {
    pub(crate) fn new(columns: &[Column], looked_at: &[bool]) -> Self {
        let names: Vec<String> = columns.iter().map(|column| column.name.clone()).collect();
        Self {
            columns: Columns {
                tree: Tree::new(names.iter().map(String::as_str)),
                wanted: looked_at.to_vec(),
                filled: vec![0; names.len()],
                line: 0,
                twice: None,
            },
            names,
        }
    }
}

impl Parser for Json {
    fn parse<'a>(&mut self, line: &'a [u8], row: &mut [Value<'a>]) -> Result<(), String> {
        let read = self.columns.line(line, row);
        match (read, self.columns.twice) {
            (Err(Bad), _) => Err(cursor::why(line)),
            (Ok(()), Some(column)) => Err(format!("{:?} is in it twice", self.names[column])),
            (Ok(()), None) => Ok(()),
        }
    }
}

/// At the object that a line is.
fn object(line: &[u8]) -> Result<Cursor<'_>, Bad> {
    let mut cursor = Cursor::new(line)?;
    match cursor.kind()? {
        Kind::Object => Ok(cursor),
        _ => Err(Bad),
    }
}

impl Columns {
    fn line<'a>(&mut self, line: &'a [u8], row: &mut [Value<'a>]) -> Result<(), Bad> {
        self.line += 1;
        self.twice = None;
        let mut cursor = object(line)?;
        self.object(&mut cursor, ROOT, row)?;
        cursor.end()
    }

    /// Reads the object that is next into the row.
    fn object<'a>(&mut self, cursor: &mut Cursor<'a>, node: Node, row: &mut [Value<'a>]) -> Result<(), Bad> {
        cursor.enter()?;
        let (mut first, mut last) = (true, None);
        while let Some(name) = cursor.name(&mut first)? {
            let kind = cursor.kind()?;
            match self.tree.find(node, &name, &mut last) {
                Some(found) => self.value(cursor, kind, found, row)?,
                None => cursor.skip(kind)?,
            }
        }
        Ok(())
    }

    #[inline]
    fn value<'a>(
        &mut self,
        cursor: &mut Cursor<'a>,
        kind: Kind,
        node: Node,
        row: &mut [Value<'a>],
    ) -> Result<(), Bad> {
        let column = self.tree.column(node);
        if let Some(column) = column {
            if self.filled[column] == self.line {
                self.twice = Some(column);
            }
            self.filled[column] = self.line;
        }
        let from = cursor.place();
        let value = match kind {
            Kind::String => Some(cursor.string()?),
            Kind::Object if self.tree.has_members(node) => {
                self.object(cursor, node, row)?;
                column
                    .filter(|&column| self.wanted[column])
                    .map(|_| cursor.since(from, kind))
            }
            Kind::Null => {
                cursor.skip(kind)?;
                None
            }
            _ if column.is_some_and(|column| self.wanted[column]) => Some(cursor.written(kind)?),
            _ => {
                cursor.skip(kind)?;
                return Ok(());
            }
        };
        if let Some(column) = column.filter(|&column| self.wanted[column]) {
            row[column] = value;
        }
        Ok(())
    }
}

/// A value that is no object, with its path.
pub(crate) enum Leaf<'v> {
    /// As it is meant.
    Text(&'v [u8]),
    /// As it is written.
    Number(&'v [u8]),
    Boolean(&'v [u8]),
    Array,
    Null,
}

/// Calls `each` with all values of a line and their paths; not at all for a line that is no object.
pub(crate) fn leaves(line: &[u8], mut each: impl FnMut(&str, Leaf<'_>)) {
    let is_whole = object(line).and_then(|mut cursor| {
        cursor.skip(Kind::Object)?;
        cursor.end()
    });
    if is_whole.is_ok()
        && let Ok(mut cursor) = object(line)
    {
        // It was looked through before: nothing in it is bad.
        let _ = leaves_of(&mut cursor, None, &mut each);
    }
}

fn leaves_of(
    cursor: &mut Cursor<'_>,
    above: Option<&str>,
    each: &mut impl FnMut(&str, Leaf<'_>),
) -> Result<(), Bad> {
    cursor.enter()?;
    let mut first = true;
    while let Some(name) = cursor.name(&mut first)? {
        let name = String::from_utf8_lossy(&name);
        let path = match above {
            Some(above) => Cow::Owned(format!("{above}{DOT}{name}")),
            None => name,
        };
        match cursor.kind()? {
            Kind::Object => leaves_of(cursor, Some(&path), each)?,
            Kind::String => each(&path, Leaf::Text(&cursor.string()?)),
            kind => {
                let written = cursor.written(kind)?;
                let leaf = match kind {
                    Kind::Number => Leaf::Number(&written),
                    Kind::Boolean => Leaf::Boolean(&written),
                    Kind::Null => Leaf::Null,
                    _ => Leaf::Array,
                };
                each(&path, leaf);
            }
        }
    }
    Ok(())
}
