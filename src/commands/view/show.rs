//! `sawmill view list` and `sawmill view show`.

use std::{ops::Range, time::Duration};

use control::{Control, ViewReport};
use model::{Name, view::ViewState};
use serde::Serialize;

use crate::{commands::Context, output};

/// Blocks that are left out and told to people; programs get all.
const TOLD: usize = 20;

/// A view for programs.
#[derive(Serialize)]
struct Shown {
    name: String,
    state: &'static str,
    query: String,
    every_ms: u64,
    priority: u16,
    datasets: Vec<ShownDataset>,
    /// Blocks that are not in the answer and not left out.
    lag_blocks: u64,
    left_out: Vec<ShownLeftOut>,
    /// The job whose merge holds the merged state.
    #[serde(skip_serializing_if = "Option::is_none")]
    merged_by: Option<String>,
    /// The refresh that runs.
    #[serde(skip_serializing_if = "Option::is_none")]
    under_way: Option<String>,
    created_at: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    refreshed_at: Option<String>,
    /// Refreshes that failed since one succeeded, and why the last one did.
    failures: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
}

#[derive(Serialize)]
struct ShownDataset {
    name: String,
    /// Blocks in the answer, as ranges: the first, and one past the last.
    covered: Vec<Range<u32>>,
    /// Columns that the dataset has and the view does not know.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    unknown_columns: Vec<String>,
}

#[derive(Serialize)]
struct ShownLeftOut {
    dataset: String,
    block: u32,
    why: String,
}

impl From<&ViewReport> for Shown {
    fn from(view: &ViewReport) -> Self {
        let datasets = view.datasets.iter().map(|dataset| ShownDataset {
            name: dataset.name.clone(),
            covered: dataset.covered.clone(),
            unknown_columns: dataset.unknown_columns.clone(),
        });
        let left_out = view.left_out.iter().map(|out| ShownLeftOut {
            dataset: out.dataset.clone(),
            block: out.block,
            why: out.why.clone(),
        });
        Self {
            name: view.name.to_string(),
            state: view.state.as_str(),
            query: view.sql.clone(),
            every_ms: view.every_ms,
            priority: view.priority.get(),
            datasets: datasets.collect(),
            lag_blocks: view.lag_blocks,
            left_out: left_out.collect(),
            merged_by: view.merged_by.clone(),
            under_way: view.under_way.clone(),
            created_at: output::time(view.created_ms),
            refreshed_at: view.refreshed_ms.map(output::time),
            failures: view.failures,
            error: view.error.clone(),
        }
    }
}

/// Lists views.
///
/// # Errors
/// What can't be reached or read.
pub(super) async fn list(control: &Control, context: &Context) -> anyhow::Result<()> {
    let views = control.view_reports().await?;
    let shown: Vec<(Shown, ViewReport)> = views.into_iter().map(|view| (Shown::from(&view), view)).collect();
    if context.json() {
        return output::json(&shown.iter().map(|(shown, _)| shown).collect::<Vec<_>>());
    }
    if shown.is_empty() {
        output::note("no views; `sawmill view create NAME SQL` makes one");
        return Ok(());
    }
    let rows = shown.iter().map(|(shown, view)| {
        [
            shown.name.clone(),
            state_of(view, shown),
            output::grouped(shown.datasets.iter().map(|dataset| count(&dataset.covered)).sum()),
            output::grouped(shown.lag_blocks),
            output::grouped(shown.left_out.len() as u64),
            view.refreshed_ms.map_or_else(|| "never".into(), output::ago),
        ]
    });
    output::table(
        &["NAME", "STATE", ">BLOCKS", ">LAG", ">LEFT OUT", "REFRESHED"],
        rows,
    )
}

fn count(ranges: &[Range<u32>]) -> u64 {
    ranges.iter().map(|range| range.len() as u64).sum()
}

fn state_of(view: &ViewReport, shown: &Shown) -> String {
    match (view.state, &shown.error) {
        (ViewState::Active, Some(_)) => "failing".into(),
        (ViewState::Removed, _) => "being removed".into(),
        (state, _) => state.as_str().into(),
    }
}

/// Shows a view.
///
/// # Errors
/// An unknown view; what can't be reached or read.
pub(super) async fn run(name: &Name, control: &Control, context: &Context) -> anyhow::Result<()> {
    let view = control.view_report(name).await?;
    let shown = Shown::from(&view);
    if context.json() {
        return output::json(&serde_json::json!({ "view": shown }));
    }
    let mut pairs = vec![
        ("name", shown.name.clone()),
        ("state", state_of(&view, &shown)),
        ("query", shown.query.clone()),
    ];
    pairs.extend(shown.datasets.iter().map(|dataset| ("blocks", blocks(dataset))));
    let unknown = shown
        .datasets
        .iter()
        .filter(|dataset| !dataset.unknown_columns.is_empty());
    pairs.extend(unknown.map(|dataset| {
        let columns = dataset.unknown_columns.join(", ");
        let told = format!(
            "{} has {columns} since, which the view does not know: make it anew to read them",
            dataset.name
        );
        ("columns", told)
    }));
    pairs.push(("lag", output::counted(shown.lag_blocks, "block")));
    pairs.push(("every", output::duration(Duration::from_millis(view.every_ms))));
    pairs.push(("created", output::time(view.created_ms)));
    let refreshed = view
        .refreshed_ms
        .map(|at| format!("{}, {}", output::time(at), output::ago(at)));
    pairs.push(("refreshed", refreshed.unwrap_or_else(|| "never".into())));
    pairs.extend(
        shown
            .under_way
            .clone()
            .map(|job| ("under way", format!("job {job}"))),
    );
    pairs.extend(shown.error.clone().map(|error| ("error", error)));
    if let Some(rows) = view.rows {
        let rows = output::counted(rows, "row");
        let database = &view.database;
        pairs.push((
            "answer",
            format!(
                "{rows} in the collection {name} of the database {database}; `sawmill view output {name}` prints them"
            ),
        ));
    }
    output::pairs(&pairs)?;
    tell_left_out(&shown.left_out)
}

fn tell_left_out(left_out: &[ShownLeftOut]) -> anyhow::Result<()> {
    if left_out.is_empty() {
        return Ok(());
    }
    output::line("\nleft out, until `sawmill view resume` tries them again:")?;
    for out in left_out.iter().take(TOLD) {
        output::line(format_args!("  {} block {}: {}", out.dataset, out.block, out.why))?;
    }
    let more = left_out.len().saturating_sub(TOLD);
    if more > 0 {
        output::line(format_args!("  … and {more} more (--output json has all)"))?;
    }
    Ok(())
}

/// As in `access: 11 blocks, 0-7 and 9-11`.
fn blocks(dataset: &ShownDataset) -> String {
    let ranges = dataset.covered.iter().map(|range| match range.len() {
        1 => range.start.to_string(),
        _ => format!("{}-{}", range.start, range.end - 1),
    });
    let count = output::counted(count(&dataset.covered), "block");
    let ranges: Vec<String> = ranges.collect();
    if ranges.is_empty() {
        format!("{}: {count}", dataset.name)
    } else {
        format!("{}: {count} ({})", dataset.name, ranges.join(", "))
    }
}
