//! What a Parquet file claims of itself, looked at before a reader takes it at its word.
//!
//! The footer of a file and the headers of its pages are structures in Thrift's compact protocol. A reader makes room by
//! the numbers in them, and descends as deep as they say; wrong ones would take the memory or the stack of a node, which is
//! the end of its process and no error. So each list must have the elements that it says it has, the schema must be a tree of
//! ordinary depth, and pages must not claim to hold more than they can.
//!
//! Source: the compact protocol's specification, and `parquet.thrift` of the Parquet format.

use crate::Error;

/// Deepest nesting of structures in each other that is read.
const MOST_DEPTH: u32 = 64;
/// Values that a page may say it has: twice as many as rows of a block.
const MOST_VALUES: i64 = 1 << 27;

const BOOLEAN_TRUE: u8 = 1;
const BOOLEAN_FALSE: u8 = 2;
const BYTE: u8 = 3;
const I16: u8 = 4;
const I32: u8 = 5;
const I64: u8 = 6;
const DOUBLE: u8 = 7;
const BINARY: u8 = 8;
const LIST: u8 = 9;
const SET: u8 = 10;
const MAP: u8 = 11;
const STRUCT: u8 = 12;
const UUID: u8 = 13;

fn bad(why: &str) -> Error {
    super::bad(why)
}

struct Cursor<'a>(&'a [u8]);

impl Cursor<'_> {
    fn byte(&mut self) -> Result<u8, Error> {
        let (byte, rest) = self
            .0
            .split_first()
            .ok_or_else(|| bad("its description is cut off"))?;
        self.0 = rest;
        Ok(*byte)
    }

    fn leave_out(&mut self, bytes: u64) -> Result<(), Error> {
        let rest = usize::try_from(bytes).ok().and_then(|bytes| self.0.get(bytes..));
        self.0 = rest.ok_or_else(|| bad("its description is cut off"))?;
        Ok(())
    }

    fn number(&mut self) -> Result<u64, Error> {
        let mut number = 0;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            number |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Ok(number);
            }
        }
        Err(bad("a number in its description has no end"))
    }

    fn signed(&mut self) -> Result<i64, Error> {
        let number = self.number()?;
        Ok((number >> 1).cast_signed() ^ -(number & 1).cast_signed())
    }

    /// Type and number of the elements of a list or set.
    fn list(&mut self) -> Result<(u8, u64), Error> {
        let head = self.byte()?;
        let count = match head >> 4 {
            15 => self.number()?,
            few => u64::from(few),
        };
        // Each takes a byte at least.
        if count > self.0.len() as u64 {
            return Err(bad("a list in its description has no end"));
        }
        Ok((head & 0xf, count))
    }

    /// Calls `each` with the number and the type of each field of a structure; it takes up the value.
    fn fields(&mut self, mut each: impl FnMut(&mut Self, i64, u8) -> Result<(), Error>) -> Result<(), Error> {
        let mut field = 0;
        loop {
            let head = self.byte()?;
            let kind = head & 0xf;
            if kind == 0 {
                return Ok(());
            }
            field = match head >> 4 {
                0 => self.signed()?,
                more => i64::from(more).saturating_add(field),
            };
            each(self, field, kind)?;
        }
    }

    fn skip(&mut self, kind: u8, depth: u32) -> Result<(), Error> {
        if depth > MOST_DEPTH {
            return Err(bad("its description is nested too deeply"));
        }
        match kind {
            BOOLEAN_TRUE | BOOLEAN_FALSE => Ok(()),
            BYTE => self.leave_out(1),
            I16 | I32 | I64 => self.number().map(drop),
            DOUBLE => self.leave_out(8),
            UUID => self.leave_out(16),
            BINARY => {
                let length = self.number()?;
                self.leave_out(length)
            }
            LIST | SET => {
                let (kind, count) = self.list()?;
                (0..count).try_for_each(|_| self.element(kind, depth))
            }
            MAP => {
                let count = self.number()?;
                let kinds = if count > 0 { self.byte()? } else { 0 };
                for _ in 0..count {
                    self.element(kinds >> 4, depth)?;
                    self.element(kinds & 0xf, depth)?;
                }
                Ok(())
            }
            STRUCT => self.fields(|cursor, _, kind| cursor.skip(kind, depth + 1)),
            _ => Err(bad("there is something unknown in its description")),
        }
    }

    /// An element of a list: a truth value takes a byte here.
    fn element(&mut self, kind: u8, depth: u32) -> Result<(), Error> {
        match kind {
            BOOLEAN_TRUE | BOOLEAN_FALSE => self.leave_out(1),
            kind => self.skip(kind, depth + 1),
        }
    }
}

/// Checks the description of a file, without the eight bytes behind it.
///
/// # Errors
/// [`Error::BadFormat`].
pub(super) fn check_description(bytes: &[u8]) -> Result<(), Error> {
    const SCHEMA: i64 = 2;
    Cursor(bytes).fields(|cursor, field, kind| match (field, kind) {
        (SCHEMA, LIST) => {
            let (kind, count) = cursor.list()?;
            if kind != STRUCT {
                return Err(bad("it has no schema"));
            }
            let children = (0..count)
                .map(|_| children(cursor))
                .collect::<Result<Vec<_>, _>>()?;
            check_tree(&children)
        }
        _ => cursor.skip(kind, 0),
    })
}

/// How many children an element of the schema says it has.
fn children(cursor: &mut Cursor<'_>) -> Result<u64, Error> {
    const CHILDREN: i64 = 5;
    let mut children = 0;
    cursor.fields(|cursor, field, kind| {
        if (field, kind) == (CHILDREN, I32) {
            children = u64::try_from(cursor.signed()?).map_err(|_| bad("its schema is no tree"))?;
            return Ok(());
        }
        cursor.skip(kind, 0)
    })?;
    Ok(children)
}

/// Elements stand in the order in which one walks down the tree.
fn check_tree(children: &[u64]) -> Result<(), Error> {
    let mut open: Vec<u64> = Vec::new();
    for (place, &below) in children.iter().enumerate() {
        match open.last_mut() {
            Some(left) => *left -= 1,
            None if place > 0 => return Err(bad("its schema is no tree")),
            None => {}
        }
        if below > (children.len() - place) as u64 {
            return Err(bad("its schema is no tree"));
        }
        open.push(below);
        if open.len() > MOST_DEPTH as usize {
            return Err(bad("its columns are nested too deeply"));
        }
        while open.pop_if(|left| *left == 0).is_some() {}
    }
    if open.is_empty() {
        Ok(())
    } else {
        Err(bad("its schema is no tree"))
    }
}

/// What a page says it holds.
#[derive(Default)]
struct Page {
    bytes: i64,
    stored_bytes: i64,
    values: i64,
    is_dictionary: bool,
}

/// Checks the pages of one column of a row group, and gives how many bytes they say they hold.
///
/// # Errors
/// [`Error::BadFormat`].
pub(super) fn check_pages(chunk: &[u8]) -> Result<u64, Error> {
    let (mut cursor, mut bytes) = (Cursor(chunk), 0);
    while !cursor.0.is_empty() {
        let page = page(&mut cursor)?;
        let (Ok(held), Ok(stored)) = (u64::try_from(page.bytes), u64::try_from(page.stored_bytes)) else {
            return Err(bad("a page of it has no size"));
        };
        // A value of a dictionary takes a byte at least; others may all be one.
        let most = if page.is_dictionary {
            page.bytes
        } else {
            MOST_VALUES
        };
        if !(0..=most).contains(&page.values) {
            return Err(bad("a page of it says that it has more values than it can"));
        }
        cursor.leave_out(stored)?;
        bytes = held.saturating_add(bytes);
    }
    Ok(bytes)
}

fn page(cursor: &mut Cursor<'_>) -> Result<Page, Error> {
    const BYTES: i64 = 2;
    const STORED_BYTES: i64 = 3;
    const DATA: i64 = 5;
    const DICTIONARY: i64 = 7;
    const DATA_V2: i64 = 8;
    let mut page = Page::default();
    cursor.fields(|cursor, field, kind| {
        match (field, kind) {
            (BYTES, I32) => page.bytes = cursor.signed()?,
            (STORED_BYTES, I32) => page.stored_bytes = cursor.signed()?,
            (DATA | DICTIONARY | DATA_V2, STRUCT) => {
                page.is_dictionary |= field == DICTIONARY;
                cursor.fields(|cursor, field, kind| match (field, kind) {
                    (1, I32) => {
                        page.values = page.values.max(cursor.signed()?);
                        Ok(())
                    }
                    _ => cursor.skip(kind, 0),
                })?;
            }
            _ => cursor.skip(kind, 0)?,
        }
        Ok(())
    })?;
    Ok(page)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_schema_is_a_tree_of_ordinary_depth() {
        for tree in [&[0][..], &[2, 0, 0], &[1, 2, 0, 0], &[2, 1, 0, 0]] {
            check_tree(tree).unwrap();
        }
        let deep: Vec<u64> = std::iter::repeat_n(1, 100).chain([0]).collect();
        for tree in [&[1][..], &[0, 0], &[1, 0, 0], &[u64::MAX, 0], &deep] {
            assert!(check_tree(tree).is_err(), "{tree:?}");
        }
    }

    #[test]
    fn what_is_claimed_must_be_there() {
        // A list of two billion structures; a page of two billion values in one byte; numbers and nesting without end.
        let list = [0x19, 0xfc, 0xff, 0xff, 0xff, 0xff, 0x07, 0];
        assert!(check_description(&list).is_err());
        let nested = [0x1c].repeat(1000);
        assert!(check_description(&nested).is_err());
        assert!(check_description(&[0x15; 100]).is_err());
        let page =
            |values: &[u8]| [&[0x15, 4, 0x15, 2, 0x15, 2, 0x4c, 0x15][..], values, &[0, 0, 7]].concat();
        assert_eq!(check_pages(&page(&[2])).unwrap(), 1);
        assert!(check_pages(&page(&[0xfe, 0xff, 0xff, 0xff, 0x0f])).is_err());
        assert!(check_pages(&page(&[2])[..8]).is_err());
    }
}
