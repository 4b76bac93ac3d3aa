//! The columns of a file, as a table has them.

use std::{collections::BTreeSet, ops::Range};

use datafusion::arrow::datatypes::{DataType, Fields, TimeUnit};
use model::table::{Column, ColumnType, EVERYWHERE};

use crate::parse::json::DOT;

/// Most digits of a decimal that surely is an integer of 64 bits.
const INTEGER_DIGITS: u8 = 18;

/// A column of a file, or a member of one that is a structure.
#[derive(Clone, Debug)]
pub(super) struct Leaf {
    /// The path to it; a name that is taken has a number behind it.
    pub(super) name: String,
    /// In how many structures it is.
    pub(super) depth: usize,
    /// The columns that it is stored as; a list of structures is several.
    pub(super) columns: Range<usize>,
    pub(super) kind: ColumnType,
    /// Whether each of its values is one of its type.
    pub(super) fits: bool,
    /// Whether it is 16 bytes that are written with hyphens.
    pub(super) is_uuid: bool,
}

impl Leaf {
    pub(super) fn column(&self) -> Column {
        Column {
            name: self.name.clone(),
            kind: self.kind,
        }
    }
}

/// All of them, in the order of the file.
pub(super) fn leaves(fields: &Fields) -> Vec<Leaf> {
    let mut leaves = Vec::new();
    let taken = EVERYWHERE.iter().map(|(name, _)| (*name).to_string()).collect();
    let mut walk = Walk {
        leaves: &mut leaves,
        taken,
        next: 0,
    };
    walk.down(fields, "", 0);
    leaves
}

struct Walk<'l> {
    leaves: &'l mut Vec<Leaf>,
    taken: BTreeSet<String>,
    next: usize,
}

impl Walk<'_> {
    fn down(&mut self, fields: &Fields, path: &str, depth: usize) {
        for field in fields {
            let given = format!("{path}{}", field.name());
            if let DataType::Struct(members) = field.data_type() {
                self.down(members, &format!("{given}{DOT}"), depth + 1);
                continue;
            }
            let first = self.next;
            self.next += stored_columns(field.data_type());
            let mut name = given.clone();
            let mut number = 2;
            while !self.taken.insert(name.clone()) {
                name = format!("{given}_{number}");
                number += 1;
            }
            let (kind, fits) = kind(field.data_type());
            self.leaves.push(Leaf {
                name,
                depth,
                columns: first..self.next,
                kind,
                fits,
                is_uuid: false,
            });
        }
    }
}

fn stored_columns(found: &DataType) -> usize {
    match found {
        DataType::Struct(members) => members
            .iter()
            .map(|member| stored_columns(member.data_type()))
            .sum(),
        DataType::List(inner)
        | DataType::LargeList(inner)
        | DataType::FixedSizeList(inner, _)
        | DataType::Map(inner, _) => stored_columns(inner.data_type()),
        _ => 1,
    }
}

/// What a column is to a table, and whether all its values can be that.
pub(super) fn kind(found: &DataType) -> (ColumnType, bool) {
    match found {
        DataType::UInt64 => (ColumnType::Integer, false),
        found if found.is_integer() => (ColumnType::Integer, true),
        DataType::Decimal32(digits, 0) | DataType::Decimal64(digits, 0) | DataType::Decimal128(digits, 0)
            if *digits <= INTEGER_DIGITS =>
        {
            (ColumnType::Integer, false)
        }
        found if found.is_floating() || found.is_decimal() => (ColumnType::Float, true),
        DataType::Boolean => (ColumnType::Boolean, true),
        DataType::Timestamp(TimeUnit::Second | TimeUnit::Millisecond, _) => (ColumnType::Timestamp, false),
        DataType::Date32 | DataType::Date64 => (ColumnType::Timestamp, false),
        DataType::Timestamp(..) => (ColumnType::Timestamp, true),
        _ => (ColumnType::Text, true),
    }
}
