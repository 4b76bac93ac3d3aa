//! Others who are asked the same questions: awk on all cores, and databases that read the file as it is.

use std::{
    path::Path,
    process::Stdio,
    time::{Duration, Instant},
};

use anyhow::{Context as _, ensure};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::{
    io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader, Lines},
    process::{Child, ChildStdin, ChildStdout, Command},
};

use super::questions::Question;

const SCRIPT: &str = include_str!("rivals.py");

/// The rows of an answer, as texts.
pub(super) type Rows = Vec<Vec<String>>;

/// A database that waits for questions.
pub(super) struct Database {
    pub(super) name: &'static str,
    query: fn(&Question) -> &'static str,
    child: Child,
    to: ChildStdin,
    from: Lines<BufReader<ChildStdout>>,
}

#[derive(Deserialize)]
struct Answer {
    seconds: f64,
    rows: Vec<Vec<Value>>,
}

impl Database {
    /// Starts those of DuckDB and chDB that `python` has.
    pub(super) async fn start_all(python: &Path, file: &Path, threads: u32) -> Vec<Self> {
        let mut all = Vec::new();
        for (name, query) in [
            (
                "duckdb",
                (|question| question.duckdb) as fn(&Question) -> &'static str,
            ),
            ("chdb", |question| question.chdb),
        ] {
            match Self::start(name, query, python, file, threads).await {
                Ok(database) => all.push(database),
                Err(error) => super::step(format_args!("without {name}: {error:#}")),
            }
        }
        all
    }

    async fn start(
        name: &'static str,
        query: fn(&Question) -> &'static str,
        python: &Path,
        file: &Path,
        threads: u32,
    ) -> anyhow::Result<Self> {
        let mut child = Command::new(python)
            .args(["-c", SCRIPT, name])
            .arg(file)
            .arg(threads.to_string())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .with_context(|| format!("cannot run {}", python.display()))?;
        let to = child.stdin.take().context("it has no standard input")?;
        let from = child.stdout.take().context("it has no standard output")?;
        let mut database = Self {
            name,
            query,
            child,
            to,
            from: BufReader::new(from).lines(),
        };
        let hint = format!("{} has no package {name}: pip install {name}", python.display());
        database.from.next_line().await?.context(hint)?;
        Ok(database)
    }

    /// Asks, and takes the time that it tells itself: without starting it, and without printing.
    pub(super) async fn ask(&mut self, question: &Question) -> anyhow::Result<(Duration, Rows)> {
        let line = json!({ "query": (self.query)(question) }).to_string() + "\n";
        self.to.write_all(line.as_bytes()).await?;
        let Some(line) = self.from.next_line().await? else {
            let status = self.child.wait().await?;
            anyhow::bail!("{} ended with {status} over {}", self.name, question.name);
        };
        let answer: Answer = serde_json::from_str(&line)?;
        let text = |value: &Value| match value {
            Value::String(text) => text.clone(),
            other => other.to_string(),
        };
        let rows = answer
            .rows
            .iter()
            .map(|row| row.iter().map(text).collect())
            .collect();
        Ok((Duration::from_secs_f64(answer.seconds), rows))
    }
}

/// GNU parallel with mawk.
pub(super) async fn awk(
    question: &Question,
    file: &Path,
    block: u64,
    jobs: u32,
) -> anyhow::Result<(Duration, Rows)> {
    let line = r#"LC_ALL=C parallel --will-cite --pipepart --block "$BLOCK" -j "$JOBS" -a "$FILE" "$MAP" | LC_ALL=C sh -c "$REDUCE""#;
    let begin = Instant::now();
    let output = Command::new("sh")
        .args(["-c", line])
        .env("PARALLEL_SHELL", "/bin/sh")
        .env("BLOCK", block.to_string())
        .env("JOBS", jobs.to_string())
        .env("FILE", file)
        .env("MAP", question.map)
        .env("REDUCE", question.reduce)
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output()
        .await?;
    let took = begin.elapsed();
    ensure!(
        output.status.success(),
        "GNU parallel with mawk ended with {}: {}",
        output.status,
        String::from_utf8_lossy(&output.stderr)
    );
    Ok((took, rows(&output.stdout)))
}

/// The rows of values between commas.
pub(super) fn rows(text: &[u8]) -> Rows {
    let text = String::from_utf8_lossy(text);
    text.lines()
        .map(|line| line.split(',').map(str::to_owned).collect())
        .collect()
}
