//! The answer so far, as it is shown while the job runs.

use std::time::Duration;

use control::Control;
use futures::{StreamExt as _, stream::BoxStream};
use model::Job;
use tokio::time::sleep;

use crate::output;

/// Pause before answers that could not be had are asked for again.
const PAUSE: Duration = Duration::from_secs(1);
/// Most rows of a picture where the height of the terminal is not known.
const ROWS: usize = 20;

/// The answers of a job so far.
pub(super) struct Live<'a> {
    control: &'a Control,
    job: &'a Job,
    answers: Option<BoxStream<'static, Result<Vec<u8>, control::Error>>>,
}

impl<'a> Live<'a> {
    /// Of a query.
    pub(super) fn new(control: &'a Control, job: &'a Job) -> Self {
        Self {
            control,
            job,
            answers: None,
        }
    }

    /// The next picture, when there is something new to see; never, once the job is final.
    pub(super) async fn next(&mut self) -> String {
        loop {
            let error = match self.answers.as_mut() {
                None => match self.control.answers_so_far(self.job).await {
                    Ok(answers) => {
                        self.answers = Some(answers);
                        continue;
                    }
                    Err(error) => error,
                },
                Some(answers) => match answers.next().await {
                    Some(Ok(answer)) => match picture(&answer) {
                        Ok(picture) => return picture,
                        Err(error) => error.into(),
                    },
                    Some(Err(error)) => error,
                    None => return std::future::pending().await,
                },
            };
            tracing::debug!(%error, "the answer so far can't be shown yet");
            self.answers = None;
            sleep(PAUSE).await;
        }
    }
}

fn picture(answer: &[u8]) -> Result<String, sql::Error> {
    let mut table = Vec::new();
    let (tally, rows) = sql::render(answer, sql::Rendering::Table, &mut table)?;
    let table = String::from_utf8_lossy(&table);
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
    Ok(format!("{}\n{told}", clipped(&table, height, width)))
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
}
