//! The halves of a query, for people.

use std::fmt;

use datafusion::physical_plan::{ExecutionPlan, displayable};
use model::processor::Query;
use serde::Serialize;

use super::{Halves, tables_below};
use crate::schema::schema;

/// What a query does, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Explained {
    /// The datasets that it reads, and of each the columns that every block is parsed for.
    pub reads: Vec<(String, Vec<String>)>,
    /// What runs on each block.
    pub lower: Vec<ExplainedHalf>,
    /// What runs over all that the lower halves gave: DataFusion's plan, one node a line.
    pub upper: String,
}

/// One lower half.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ExplainedHalf {
    /// The datasets whose blocks it runs on.
    pub datasets: Vec<String>,
    /// The most rows that it may give over all blocks, where it does not reduce them.
    pub most_rows: Option<u64>,
    /// DataFusion's plan, one node a line.
    pub plan: String,
}

/// The halves of a planned query.
pub(crate) fn explain(query: &Query, halves: &Halves) -> Explained {
    let name = |table: usize| query.tables[table].name.clone();
    let reads = halves.projections.iter().enumerate().map(|(table, columns)| {
        let schema = schema(&query.tables[table].table);
        let columns = columns.iter().map(|&column| schema.field(column).name().clone());
        (name(table), columns.collect())
    });
    let lower = halves.lower.iter().map(|half| {
        let mut tables = tables_below(&half.plan);
        tables.sort_unstable();
        tables.dedup();
        ExplainedHalf {
            datasets: tables.into_iter().map(name).collect(),
            most_rows: half.most_rows,
            plan: indented(half.plan.as_ref()),
        }
    });
    Explained {
        reads: reads.collect(),
        lower: lower.collect(),
        upper: indented(halves.upper.as_ref()),
    }
}

fn indented(plan: &dyn ExecutionPlan) -> String {
    displayable(plan).indent(false).to_string()
}

impl fmt::Display for Explained {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (name, columns) in &self.reads {
            if !self.lower.iter().any(|half| half.datasets.contains(name)) {
                writeln!(f, "no block of {name} is read")?;
                continue;
            }
            let columns = match &columns[..] {
                [] => "no columns, lines are only counted".to_string(),
                columns => columns.join(", "),
            };
            writeln!(f, "each block of {name} is read for: {columns}")?;
        }
        for (number, half) in self.lower.iter().enumerate() {
            let datasets = half.datasets.join(" and of ");
            writeln!(f, "\nlower half {number}, on each block of {datasets}:")?;
            write_plan(f, &half.plan)?;
            if let Some(most) = half.most_rows {
                writeln!(f, "  (at most {most} rows over all blocks)")?;
            }
        }
        writeln!(f, "\nupper half, over what the lower ones gave:")?;
        write_plan(f, &self.upper)
    }
}

fn write_plan(f: &mut fmt::Formatter<'_>, plan: &str) -> fmt::Result {
    plan.lines().try_for_each(|line| writeln!(f, "  {line}"))
}
