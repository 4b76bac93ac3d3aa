//! The answer of a query, as it is printed.

use std::{
    io::{self, IsTerminal as _},
    path::PathBuf,
};

use control::Control;
use model::{
    Job, Processor,
    answer::{KEPT_BYTES, KEPT_ROWS},
};

use crate::{
    exit::usage,
    output::{self, Format},
};

/// Where an answer goes, and in which form.
#[derive(Clone, Debug)]
pub(crate) struct Target {
    format: Format,
    /// None: standard output.
    file: Option<PathBuf>,
}

impl Target {
    /// The ending of a file's name tells the form where none is asked for.
    ///
    /// # Errors
    /// Bytes for a terminal that it can't show; a file without a form.
    pub(crate) fn new(format: Format, file: Option<PathBuf>) -> anyhow::Result<Self> {
        let format = match (format, &file) {
            (Format::Table, Some(file)) => Format::of_ending(file).ok_or_else(|| {
                usage(format!(
                    "the ending of {} tells no form: end it with .json, .csv, .arrow or .parquet, or give --output",
                    file.display()
                ))
            })?,
            (format, _) => format,
        };
        if format.is_binary() && file.is_none() && io::stdout().is_terminal() {
            return Err(usage(
                "a terminal can't show this form: name a file with --to FILE, or send it on with `> FILE`",
            ));
        }
        Ok(Self { format, file })
    }

    /// Writes the answer of a job, and tells on standard error what was counted on the way, where people read; gives
    /// whether it is so small that its rows are kept unasked.
    ///
    /// # Errors
    /// What can't be read or written.
    pub(crate) async fn print(&self, control: &Control, job: &Job) -> anyhow::Result<bool> {
        let answer = control.answer(job).await?;
        match &job.spec.processor {
            // What was counted and left out is that of the view, not of the job.
            Processor::Query(query) if query.refresh.is_some() => self.write(&answer),
            _ => self.show(&answer, job),
        }
    }

    /// As [`Target::print`], of an answer that is at hand.
    ///
    /// # Errors
    /// What can't be written.
    pub(super) fn show(&self, answer: &[u8], job: &Job) -> anyhow::Result<bool> {
        let small = self.write(answer)?;
        if self.tells() {
            skipped(job).into_iter().for_each(output::note);
        }
        // Programs must hear of it too.
        let left_out = left_out(&sql::left_out(answer)?, job);
        left_out.into_iter().for_each(output::note);
        Ok(small)
    }

    /// Writes an answer, and tells what was counted on the way, where people read; gives whether it is small.
    ///
    /// # Errors
    /// What can't be written.
    pub(crate) fn write(&self, answer: &[u8]) -> anyhow::Result<bool> {
        let mut shown = Vec::new();
        let (tally, rows) = sql::render(answer, rendering(self.format), &mut shown)?;
        match &self.file {
            Some(file) => output::file(file, &shown)?,
            None => output::bytes(&shown)?,
        }
        if self.tells() {
            output::note(told(tally, rows as u64));
        }
        Ok(rows <= KEPT_ROWS && answer.len() <= KEPT_BYTES)
    }

    fn tells(&self) -> bool {
        self.format == Format::Table || self.file.is_some()
    }
}

fn told(tally: sql::Tally, rows: u64) -> String {
    let mut told = format!(
        "{} from {}",
        output::counted(rows, "row"),
        output::counted(tally.rows, "line")
    );
    if tally.errors > 0 {
        told += &format!(
            ", of which {} did not parse: SELECT _raw, _error … WHERE _error IS NOT NULL shows them",
            output::grouped(tally.errors)
        );
    }
    told
}

/// Blocks that are named where some were left out; `job show` names all.
const NAMED: usize = 3;

/// Which blocks are not in an answer, where there are any.
fn left_out(left_out: &[sql::LeftOut], job: &Job) -> Option<String> {
    let count = left_out.len();
    let mut named: Vec<String> = left_out.iter().take(NAMED).map(place).collect();
    if count > NAMED {
        let rest = output::grouped((count - NAMED) as u64);
        named.push(format!(
            "and {rest} more that `sawmill job show {}` names",
            job.id
        ));
    }
    (count > 0).then(|| {
        format!(
            "{} left out, the file is gone: {}",
            output::counted(count as u64, "block"),
            named.join(", ")
        )
    })
}

/// Names a block that was left out.
pub(crate) fn place(left_out: &sql::LeftOut) -> String {
    let sql::LeftOut { dataset, block, file } = left_out;
    format!("block {block} of {dataset} ({file})")
}

/// How many blocks were skipped, where there were any.
fn skipped(job: &Job) -> Option<String> {
    let of = job.parts.of_blocks();
    let skipped = of.saturating_sub(u64::from(job.blocks));
    (skipped > 0).then(|| {
        format!(
            "{} of {} skipped: by what is known of their values, none of their lines can match",
            output::grouped(skipped),
            output::counted(of, "block")
        )
    })
}

/// The rendering that a format asks for.
pub(crate) fn rendering(format: Format) -> sql::Rendering {
    match format {
        Format::Table => sql::Rendering::Table,
        Format::Json => sql::Rendering::Json,
        Format::Csv => sql::Rendering::Csv,
        Format::Arrow => sql::Rendering::Arrow,
        Format::Parquet => sql::Rendering::Parquet,
    }
}
