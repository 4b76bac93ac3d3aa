//! What `sawmill bench sql` tells.

use serde::Serialize;

use super::{
    super::report::{Line, Report, line, ms},
    dispatch::Dispatch,
    parsers::Parsed,
};
use crate::output;

/// What was measured.
#[derive(Debug, Serialize)]
pub(super) struct SqlReport {
    pub(super) bytes: u64,
    pub(super) lines: u64,
    pub(super) block_bytes: u64,
    pub(super) slots: u32,
    pub(super) rounds: u32,
    pub(super) questions: Vec<Asked>,
    /// The first question on two nodes of one slot beside one such node.
    pub(super) two_nodes: f64,
    pub(super) dispatch: Dispatch,
    /// What planning a question takes once in each process.
    pub(super) planning_ms: f64,
    /// Largest memory of this process, in which the mill runs.
    pub(super) peak_memory_bytes: u64,
    pub(super) cache_bytes: u64,
    pub(super) memory_bytes_per_s: f64,
    pub(super) parsers: Vec<Parsed>,
}

/// One question; medians, in seconds.
#[derive(Debug, Serialize)]
pub(super) struct Asked {
    pub(super) name: &'static str,
    pub(super) about: &'static str,
    pub(super) first_s: f64,
    pub(super) first_all_s: Vec<f64>,
    pub(super) cached_s: f64,
    pub(super) cached_all_s: Vec<f64>,
    pub(super) reused_s: f64,
    pub(super) reused_all_s: Vec<f64>,
    /// The others, by name.
    pub(super) rivals: Vec<(String, f64, Vec<f64>)>,
    /// The first time beside the best of the others.
    pub(super) ratio: Option<f64>,
}

impl Report for SqlReport {
    fn about(&self) -> Vec<String> {
        let load = format!(
            "{}, {} lines",
            output::size(self.bytes),
            output::grouped(self.lines)
        );
        let how = format!(
            "blocks of {}, {} at once",
            output::size(self.block_bytes),
            self.slots
        );
        vec![format!("{load}, {how}; medians of {} rounds", self.rounds)]
    }

    fn lines(&self) -> Vec<Line> {
        let seconds = |seconds: f64| format!("{seconds:.3} s");
        let rate = |bytes: f64| format!("{:.2} GB/s", bytes / 1e9);
        let mut lines = Vec::new();
        for asked in &self.questions {
            lines.push(line(format!("{}: {}", asked.name, asked.about), "", ""));
            for (name, took, _) in &asked.rivals {
                lines.push(line(
                    format!("  {name}"),
                    seconds(*took),
                    rate(self.bytes as f64 / took),
                ));
            }
            let note = asked.ratio.map(|ratio| format!(", {ratio:.2} of the best time"));
            let note = rate(self.bytes as f64 / asked.first_s) + &note.unwrap_or_default();
            lines.push(line("  sawmill, first time", seconds(asked.first_s), note));
            lines.push(line("  sawmill, columns cached", seconds(asked.cached_s), ""));
            lines.push(line("  sawmill, asked again", seconds(asked.reused_s), ""));
        }
        lines.push(line(
            "two nodes beside one",
            format!("{:.2}", self.two_nodes),
            "Q1, one slot each",
        ));
        let dispatch = &self.dispatch;
        lines.push(line(
            "a query over one block",
            ms(dispatch.once_ms),
            "from the start of the command to its end",
        ));
        lines.push(line(
            "dispatch per further block",
            format!("{:.0} us", dispatch.us_per_block),
            format!("{:.1}% of the time of a block", dispatch.share * 100.0),
        ));
        lines.push(line("planning, once a process", ms(self.planning_ms), ""));
        let cache = format!("cache of {}", output::size(self.cache_bytes));
        lines.push(line(
            "largest memory",
            output::size(self.peak_memory_bytes),
            cache,
        ));
        lines.push(line(
            "copying memory, one core",
            rate(self.memory_bytes_per_s),
            "",
        ));
        for parsed in &self.parsers {
            let share = parsed.bytes_per_s / self.memory_bytes_per_s;
            lines.push(line(
                format!("  parsing {}", parsed.what),
                rate(parsed.bytes_per_s),
                format!("{share:.2} of copying"),
            ));
        }
        lines
    }
}
