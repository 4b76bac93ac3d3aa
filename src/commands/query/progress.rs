//! How far a query is: a bar with the rates of bytes and lines, and with `--live` the answer so far below it.

use std::{
    convert::Infallible,
    io::{IsTerminal as _, stderr},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use control::Control;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressState, ProgressStyle};
use model::{Job, JobId};
use tokio::time::sleep;

use super::live::Live;
use crate::output;

/// Before this nobody misses a rate of lines, and looking for it would only hold up a short query.
const FIRST_SAMPLE: Duration = Duration::from_millis(500);
/// How often the lines of a block are looked at again.
const SAMPLE_PAUSE: Duration = Duration::from_secs(3);

/// What is shown of a job while it runs.
pub(super) struct Watch<'a> {
    control: &'a Control,
    job: Job,
    bar: ProgressBar,
    lines_per_block: Arc<AtomicU64>,
    /// Whether its answer so far is shown.
    live: bool,
}

impl<'a> Watch<'a> {
    /// Shows a job over `bytes` of blocks, with `live` also its answer so far; nothing where standard error is no terminal.
    ///
    /// # Errors
    /// What can't be read.
    pub(super) async fn new(
        control: &'a Control,
        id: JobId,
        bytes: u64,
        live: bool,
    ) -> anyhow::Result<Watch<'a>> {
        let job = control.job(&id.to_string()).await?;
        let lines_per_block = Arc::new(AtomicU64::new(0));
        let bar = if stderr().is_terminal() {
            let bytes_per_block = bytes / u64::from(job.blocks.max(1));
            shown(job.subtasks(), bytes_per_block, lines_per_block.clone(), live)
        } else {
            ProgressBar::hidden()
        };
        Ok(Self {
            control,
            job,
            bar,
            lines_per_block,
            live,
        })
    }

    pub(super) fn bar(&self) -> &ProgressBar {
        &self.bar
    }

    /// Keeps what is shown up to date, until it is dropped.
    pub(super) async fn run(&self) -> Infallible {
        if self.bar.is_hidden() {
            return std::future::pending().await;
        }
        tokio::select! {
            never = self.sample() => never,
            never = self.follow() => never,
        }
    }

    /// Learns how many lines a block has from the first partial results.
    async fn sample(&self) -> Infallible {
        let mut pause = FIRST_SAMPLE;
        loop {
            sleep(pause).await;
            pause = SAMPLE_PAUSE;
            // What can't be read now is no reason to stop waiting.
            if let Ok((blocks, lines)) = self.control.lines_of(&self.job).await {
                self.lines_per_block.store(lines / u64::max(blocks, 1), Relaxed);
            }
        }
    }

    /// Shows the answer so far, where that was asked for.
    async fn follow(&self) -> Infallible {
        if !self.live {
            return std::future::pending().await;
        }
        let mut live = Live::new(self.control, &self.job);
        loop {
            let frame = live.next().await;
            self.bar.set_message(frame);
        }
    }
}

/// done/total, the rates and the time left in a line, below it the answer so far.
fn shown(subtasks: u64, bytes_per_block: u64, lines_per_block: Arc<AtomicU64>, live: bool) -> ProgressBar {
    let bar = ProgressBar::with_draw_target(Some(subtasks), ProgressDrawTarget::stderr_with_hz(10));
    let line = "[{wide_bar}] {human_pos}/{human_len}  {bytes_rate}  {lines_rate}  {eta} left";
    let style = match live {
        true => ProgressStyle::with_template(&format!("{line}\n{{msg}}")),
        false => ProgressStyle::with_template(line),
    };
    // A bar that can't be drawn is no reason to stop waiting.
    let bytes_rate = move |state: &ProgressState, text: &mut dyn std::fmt::Write| {
        write!(
            text,
            "{}/s",
            output::size(scaled(bytes_per_block, state.per_sec()))
        )
        .unwrap_or_default();
    };
    let lines_rate = move |state: &ProgressState, text: &mut dyn std::fmt::Write| {
        let lines = scaled(lines_per_block.load(Relaxed), state.per_sec());
        if lines > 0 {
            write!(text, "~{} lines/s", output::grouped(rounded(lines))).unwrap_or_default();
        }
    };
    bar.set_style(
        style
            .unwrap_or_else(|_| ProgressStyle::default_bar())
            .with_key("bytes_rate", bytes_rate)
            .with_key("lines_rate", lines_rate)
            .progress_chars("=> "),
    );
    bar
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    clippy::cast_precision_loss,
    reason = "a rate for people"
)]
fn scaled(amount: u64, per_second: f64) -> u64 {
    (amount as f64 * per_second) as u64
}

/// To two digits: an estimate pretends no more.
fn rounded(number: u64) -> u64 {
    let unit = 10_u64.pow(number.checked_ilog10().unwrap_or(0).saturating_sub(1));
    number / unit * unit
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn estimates_have_two_digits() {
        assert_eq!(
            [0, 7, 42, 199, 1_234_567].map(rounded),
            [0, 7, 42, 190, 1_200_000]
        );
    }
}
