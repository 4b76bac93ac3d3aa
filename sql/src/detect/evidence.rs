//! How much speaks for a table: the lines of a sample that make sense in it.

use datafusion::arrow::array::{Array, AsArray};
use model::table::{ColumnType, ERROR, EVERYWHERE, Format, RAW, Table};

use super::records;
use crate::{BlockRows, Origin};

/// How many of how many rows make sense.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Evidence {
    pub(crate) fit: usize,
    pub(crate) of: usize,
}

impl Evidence {
    /// Whether nearly all make sense: one in twenty may not. Of a few lines one may not where the format has `marks` that
    /// other lines hardly have.
    pub(crate) fn is_enough(self, marks: bool) -> bool {
        let spared = if self.of >= if marks { 3 } else { 10 } {
            1
        } else {
            0
        };
        self.fit > 0 && self.of - self.fit <= (self.of / 20).max(spared)
    }

    /// Whether too few make sense for what somebody has named.
    pub(crate) fn is_little(self) -> bool {
        const ENOUGH: usize = 80;
        self.fit * 100 < self.of * ENOUGH
    }
}

/// Of the rows of a sample.
const ORIGIN: Origin = Origin {
    block: 0,
    begins_file: true,
    // Some time without a year is near any moment.
    now_us: 1_700_000_000_000_000,
};

/// Counts the rows of a sample that make sense; blank lines are none. Where the format fixes the types of columns, or the
/// user does, values must be of them, too: a line whose time is none is not of the format.
pub(crate) fn weigh(table: &Table, sample: &[u8]) -> Evidence {
    let is_typed = table.format.is_fixed() || matches!(table.format, Format::Regex { .. });
    let typed = |kind| is_typed && kind != ColumnType::Text;
    let columns = table.columns.iter().enumerate();
    let places: Vec<usize> = columns
        .filter(|(_, column)| typed(column.kind))
        .map(|(place, _)| place)
        .collect();
    let whole = records(&table.format, sample).join(&b'\n');
    match BlockRows::parse(table, &whole, &places, ORIGIN) {
        Ok(BlockRows { tally, .. }) => {
            let of = usize::try_from(tally.rows).unwrap_or(usize::MAX);
            let broken = usize::try_from(tally.errors).unwrap_or(of);
            let fit = of.saturating_sub(broken);
            Evidence { fit, of }
        }
        Err(_) => Evidence { fit: 0, of: 0 },
    }
}

/// The first lines that make no sense, each with the reason.
pub(crate) fn failing(table: &Table, sample: &[u8], most: usize) -> Vec<String> {
    const SHOWN: usize = 80;
    let own = table.columns.len();
    let place = |name| EVERYWHERE.iter().position(|(known, _)| *known == name);
    let (Some(raw), Some(error)) = (place(RAW), place(ERROR)) else {
        return Vec::new();
    };
    let whole = records(&table.format, sample).join(&b'\n');
    let Ok(rows) = BlockRows::parse(table, &whole, &[own + raw, own + error], ORIGIN) else {
        return Vec::new();
    };
    let mut told = Vec::new();
    for batch in &rows.batches {
        let (lines, errors) = (batch.column(0).as_string_view(), batch.column(1).as_string_view());
        let broken = (0..batch.num_rows()).filter(|&row| errors.is_valid(row));
        for row in broken.take(most - told.len()) {
            let line = lines.value(row);
            let mut shown: String = line.chars().take(SHOWN).collect();
            if shown.len() < line.len() {
                shown.push('…');
            }
            told.push(format!("{shown:?}: {}", errors.value(row)));
        }
    }
    told
}
