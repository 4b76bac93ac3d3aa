//! Where the lines of a block come from, as columns.

use std::sync::Arc;

use datafusion::arrow::array::{ArrayRef, StringViewBuilder};
use model::{origin::Origins, table::HOST};

use crate::decode::Column;

/// Which file, or which files of which machines, a block was made of.
#[derive(Clone, Debug, Default)]
pub struct Whence {
    /// The path or URL of the object that the block is a part of; none for a block that carries its own bytes.
    pub object: Option<String>,
    /// Where its lines were shipped from; none: they were not.
    pub origins: Option<Origins>,
}

impl Whence {
    /// The column of this name for `rows` lines: null for lines that the origins do not tell of. `no_rows` are the lines that
    /// begin no row, from 0, in order.
    pub(crate) fn column(&self, name: &str, rows: u32, no_rows: &[u32]) -> Column {
        let wants_host = name == HOST;
        let rows = rows as usize;
        let mut builder = StringViewBuilder::with_capacity(rows).with_deduplicate_strings();
        let mut told = 0;
        match &self.origins {
            None => {
                if let Some(object) = self.object.as_ref().filter(|_| !wants_host) {
                    (0..rows).for_each(|_| builder.append_value(object));
                    told = rows;
                }
            }
            Some(origins) => {
                let (mut no_rows, mut end) = (no_rows.iter().copied().map(u64::from).peekable(), 0_u64);
                for run in &origins.origins {
                    let text = if wants_host { &run.host } else { &run.path };
                    end = end.saturating_add(run.lines);
                    let mut lines = run.lines;
                    while no_rows.next_if(|&line| line < end).is_some() {
                        lines = lines.saturating_sub(1);
                    }
                    let lines = usize::try_from(lines).unwrap_or(usize::MAX).min(rows - told);
                    (0..lines).for_each(|_| builder.append_value(text));
                    told += lines;
                }
            }
        }
        (told..rows).for_each(|_| builder.append_null());
        Column {
            array: Arc::new(builder.finish()) as ArrayRef,
            misfits: Arc::default(),
        }
    }
}

#[cfg(test)]
mod tests {
    use datafusion::arrow::array::{Array as _, AsArray as _};
    use model::{origin::Origin, table::FILE};

    use super::*;

    fn texts(column: &Column) -> Vec<Option<&str>> {
        column.array.as_string_view().iter().collect()
    }

    fn run(host: &str, path: &str, lines: u64) -> Origin {
        Origin {
            host: host.into(),
            path: path.into(),
            offset: 0,
            lines,
            bytes: 10 * lines,
        }
    }

    #[test]
    fn each_line_has_the_file_and_the_host_of_its_run() {
        let shipped = Whence {
            object: Some("s3://b/o.zst".into()),
            origins: Some(Origins::new(vec![run("a", "/x", 2), run("b", "/y", 1)])),
        };
        assert_eq!(
            texts(&shipped.column(FILE, 3, &[])),
            [Some("/x"), Some("/x"), Some("/y")]
        );
        assert_eq!(
            texts(&shipped.column(HOST, 4, &[])),
            [Some("a"), Some("a"), Some("b"), None]
        );
        assert_eq!(texts(&shipped.column(HOST, 1, &[])), [Some("a")]);
        // The first line of the first file and that of the second are headers.
        assert_eq!(texts(&shipped.column(FILE, 1, &[0, 2])), [Some("/x")]);
        let lying = Whence {
            object: Some("/logs/z".into()),
            origins: None,
        };
        assert_eq!(texts(&lying.column(FILE, 2, &[])), [Some("/logs/z"); 2]);
        assert_eq!(lying.column(HOST, 2, &[]).array.null_count(), 2);
    }
}
