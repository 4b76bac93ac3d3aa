//! The answer so far: the merge over the partial results that are recorded, made here while the job runs.

use std::{
    collections::BTreeMap,
    ops::Range,
    time::{Duration, Instant},
};

use control::Control;
use futures::TryStreamExt as _;
use model::{Job, Processor, processor::Query};
use tokio::{runtime::Handle, time::sleep};

use crate::output;

/// Shortest time between two pictures.
const PAUSE: Duration = Duration::from_millis(250);
/// A picture is made for at most this part of the time: the query itself needs the processor too.
const PART: u32 = 4;
/// Most bytes of partial results that are merged for a picture.
const MOST_BYTES: usize = 64 << 20;
/// Most rows of a picture where the height of the terminal is not known.
const ROWS: usize = 20;

/// What is known of a job's partial results.
pub(super) struct Live<'a> {
    control: &'a Control,
    job: &'a Job,
    query: &'a Query,
    runtime: &'a sql::Runtime,
    partials: BTreeMap<u32, Vec<u8>>,
    bytes: usize,
    /// How long the last picture took.
    took: Duration,
}

impl<'a> Live<'a> {
    /// Of a query; nothing else has an answer to show.
    pub(super) fn new(control: &'a Control, job: &'a Job, runtime: &'a sql::Runtime) -> Option<Self> {
        let Processor::Query(query) = &job.spec.processor else {
            return None;
        };
        Some(Self {
            control,
            job,
            query,
            runtime,
            partials: BTreeMap::new(),
            bytes: 0,
            took: Duration::ZERO,
        })
    }

    /// The next picture, when there is something new to see. What can't be read or merged now is left for the next one.
    pub(super) async fn next(&mut self) -> String {
        loop {
            sleep(PAUSE.max(self.took * PART)).await;
            let begun = Instant::now();
            let picture = match self.gather().await {
                Ok(true) => self.picture().await,
                Ok(false) => None,
                Err(error) => {
                    tracing::debug!(%error, "partial results can't be read yet");
                    None
                }
            };
            self.took = begun.elapsed();
            if let Some(picture) = picture {
                return picture;
            }
        }
    }

    /// Reads what has been recorded since; whether there was anything.
    async fn gather(&mut self) -> Result<bool, control::Error> {
        if self.bytes >= MOST_BYTES {
            return Ok(false);
        }
        let recorded = self.control.store()?.result_ids_from(self.job.id, 0).await?;
        let fresh = recorded
            .into_iter()
            .filter(|index| *index < self.job.blocks && !self.partials.contains_key(index));
        let mut grew = false;
        for range in ranges(fresh) {
            let mut found = self.control.store()?.outputs(self.job.id, range).await?;
            while let Some(partial) = found.try_next().await? {
                let index = partial.index;
                let bytes = self.control.partial_bytes(partial).await?;
                self.bytes += bytes.len();
                self.partials.insert(index, bytes);
                grew = true;
                if self.bytes >= MOST_BYTES {
                    return Ok(grew);
                }
            }
        }
        Ok(grew)
    }

    async fn picture(&self) -> Option<String> {
        let mut all = Vec::with_capacity(self.bytes);
        self.partials
            .values()
            .for_each(|partial| all.extend_from_slice(partial));
        let (query, runtime) = (self.query.clone(), self.runtime.clone());
        let handle = Handle::current();
        let merging = tokio::task::spawn_blocking(move || {
            let answer = handle.block_on(sql::upper(&runtime, &query, &all))?;
            let mut table = Vec::new();
            let (tally, rows) = sql::render(&answer, sql::Rendering::Table, &mut table)?;
            Ok::<_, sql::Error>((tally, rows, String::from_utf8_lossy(&table).into_owned()))
        });
        let (tally, rows, table) = merging.await.ok()?.ok()?;
        let size = console::Term::stderr().size_checked();
        let size = size.map(|(height, width)| (usize::from(height), usize::from(width)));
        let told = format!(
            "{} from {} so far",
            output::counted(rows as u64, "row"),
            output::counted(tally.rows, "line")
        );
        // The bar takes a line above it, and the cursor one below.
        let (height, width) = size.map_or((ROWS, usize::MAX), |(height, width)| {
            (height.saturating_sub(3), width)
        });
        Some(format!("{}\n{told}", clipped(&table, height, width)))
    }
}

/// Neighbours together: each range is one query.
fn ranges(indexes: impl IntoIterator<Item = u32>) -> Vec<Range<u32>> {
    let mut ranges: Vec<Range<u32>> = Vec::new();
    for index in indexes {
        match ranges.last_mut() {
            Some(last) if last.end == index => last.end = index + 1,
            _ => ranges.push(index..index + 1),
        }
    }
    ranges
}

/// As much of a table as fits.
fn clipped(table: &str, height: usize, width: usize) -> String {
    let lines: Vec<&str> = table.lines().collect();
    let shown = if lines.len() > height {
        height.saturating_sub(1)
    } else {
        lines.len()
    };
    let mut text: Vec<String> = lines[..shown]
        .iter()
        .map(|line| console::truncate_str(line, width, "…").into_owned())
        .collect();
    if shown < lines.len() {
        text.push(format!(
            "… {}",
            output::counted((lines.len() - shown) as u64, "more line")
        ));
    }
    text.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_is_cut_to_the_terminal() {
        let table = "+----+\n| ab |\n| cd |\n+----+\n";
        assert_eq!(clipped(table, 4, 80), table.trim_end());
        assert_eq!(clipped(table, 3, 4), "+--…\n| a…\n… 2 more lines");
        assert_eq!(clipped("", 3, 4), "");
    }

    #[test]
    fn neighbours_are_read_together() {
        assert_eq!(ranges([0, 1, 2, 5, 7, 8]), [0..3, 5..6, 7..9]);
        assert_eq!(ranges([]), []);
    }
}
