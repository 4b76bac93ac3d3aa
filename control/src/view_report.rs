//! A view as it is told: what of its datasets is in the answer, and what is not.

use std::ops::Range;

use model::{
    Name, Priority, View,
    table::Table,
    view::{Seen, ViewState},
};
use uuid::Uuid;

/// A view as it stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ViewReport {
    /// Its name.
    pub name: Name,
    /// Its incarnation.
    pub id: Uuid,
    /// What is wanted of it.
    pub state: ViewState,
    /// Its query.
    pub sql: String,
    /// Shortest time between two refreshes, in milliseconds.
    pub every_ms: u64,
    /// How urgent its refreshes are.
    pub priority: Priority,
    /// Its datasets, in the order of the query.
    pub datasets: Vec<ViewDataset>,
    /// Blocks that are not in the answer and not left out.
    pub lag_blocks: u64,
    /// Blocks on which the query fails.
    pub left_out: Vec<ViewLeftOut>,
    /// The job whose merge holds the merged state.
    pub merged_by: Option<String>,
    /// The refresh that runs.
    pub under_way: Option<String>,
    /// Milliseconds since 1970 UTC.
    pub created_ms: i64,
    /// When a refresh last succeeded.
    pub refreshed_ms: Option<i64>,
    /// Refreshes that failed since one succeeded.
    pub failures: u32,
    /// Why the last one did, or why none can be.
    pub error: Option<String>,
    /// Rows of its answer, where they were counted.
    pub rows: Option<u64>,
    /// The database with its collection.
    pub database: String,
}

/// What of a dataset is in the answer of a view.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ViewDataset {
    /// Its name.
    pub name: String,
    /// Blocks in the answer.
    pub covered: Vec<Range<u32>>,
    /// Columns that the dataset has and the view does not know.
    pub unknown_columns: Vec<String>,
}

/// A block that is not in the answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ViewLeftOut {
    /// Of which dataset.
    pub dataset: String,
    /// Its number.
    pub block: u32,
    /// Why.
    pub why: String,
}

impl ViewReport {
    /// Of a view whose datasets stand so.
    pub(crate) fn new(view: &View, seen: &[Seen], database: &str) -> Self {
        let tables = view.query.tables.iter().map(|table| &table.table);
        let datasets = view.covered.iter().zip(tables).zip(seen);
        let datasets = datasets.map(|((covered, pinned), seen)| ViewDataset {
            name: covered.dataset.to_string(),
            covered: covered.blocks.clone(),
            unknown_columns: unknown_columns(pinned, seen),
        });
        let left_out = view.left_out.iter().map(|out| {
            let dataset = view.covered.get(out.table as usize);
            let dataset = dataset.map(|covered| covered.dataset.to_string());
            ViewLeftOut {
                dataset: dataset.unwrap_or_default(),
                block: out.block,
                why: out.why.clone(),
            }
        });
        Self {
            name: view.name.clone(),
            id: view.id,
            state: view.state,
            sql: view.query.sql.clone(),
            every_ms: view.every_ms,
            priority: view.priority,
            datasets: datasets.collect(),
            lag_blocks: view.lag_blocks(seen),
            left_out: left_out.collect(),
            merged_by: view.merged.map(|merged| merged.job.to_string()),
            under_way: view.under_way.map(|job| job.to_string()),
            created_ms: view.created_ms,
            refreshed_ms: view.refreshed_ms,
            failures: view.failures,
            error: view.obstacle(seen).or_else(|| view.error.clone()),
            rows: None,
            database: database.to_string(),
        }
    }
}

/// Columns that came to a dataset after the view was made.
fn unknown_columns(pinned: &Table, seen: &Seen) -> Vec<String> {
    let Some(now) = seen.as_ref().and_then(|seen| seen.table.as_ref()) else {
        return Vec::new();
    };
    let is_known = |name: &str| pinned.columns.iter().any(|column| column.name == name);
    let new = now.columns.iter().filter(|column| !is_known(&column.name));
    new.map(|column| column.name.clone()).collect()
}
