//! Whether rows may be brought together that no block could reduce, and how many.

use std::{any::Any, sync::Arc};

use datafusion::{
    error::Result as Fallible,
    physical_plan::{
        ExecutionPlan,
        aggregates::AggregateExec,
        coalesce_partitions::CoalescePartitionsExec,
        filter::FilterExec,
        limit::{GlobalLimitExec, LocalLimitExec},
        projection::ProjectionExec,
        recursive_query::RecursiveQueryExec,
        scalar_subquery::ScalarSubqueryExec,
        sorts::{sort::SortExec, sort_preserving_merge::SortPreservingMergeExec},
        union::UnionExec,
        unnest::UnnestExec,
        windows::{BoundedWindowAggExec, WindowAggExec},
    },
};
use model::processor::DEFAULT_GATHER_ROWS;

use super::{
    cut::Cuts,
    expressions::asks_above,
    joins::is_join,
    leaf::{Leaf, StandsFor, tables_below},
};
use crate::Error;

/// What stands in the way of running `node` on blocks, for people.
pub(super) fn why_not(node: &Arc<dyn ExecutionPlan>) -> Fallible<String> {
    let any = node.as_ref() as &dyn Any;
    let why = if asks_above(node)? || any.is::<ScalarSubqueryExec>() {
        "the value of a subquery is known only when all blocks are read"
    } else if any.is::<WindowAggExec>() || any.is::<BoundedWindowAggExec>() {
        "a window function looks at all rows"
    } else if is_join(node) {
        let sides = node.children();
        let both = sides
            .iter()
            .all(|side| !tables_below(side).is_empty() || reads_partials(side));
        if both {
            "a join of datasets, or of a dataset with itself, needs all rows of both"
        } else {
            "a join that keeps rows of the other side that match nothing needs all rows"
        }
    } else if any.is::<AggregateExec>() {
        "an aggregate over something that is not known on the blocks needs all rows"
    } else if any.is::<RecursiveQueryExec>() {
        "a recursive query needs all rows"
    } else if any.is::<SortExec>() || any.is::<SortPreservingMergeExec>() {
        "a sort needs all rows"
    } else {
        return Ok(format!("{} needs all rows", node.name()));
    };
    Ok(why.to_string())
}

fn reads_partials(plan: &Arc<dyn ExecutionPlan>) -> bool {
    match Leaf::of(plan) {
        Some(leaf) => leaf.table().is_none(),
        None => plan.children().into_iter().any(reads_partials),
    }
}

/// Where the rows of a cut go.
#[derive(Clone, Copy)]
struct Way {
    /// Nothing above but what treats each row alone, and sorts: its rows are the answer.
    plain: bool,
    sorted: bool,
}

/// The most rows that each lower half may give over all blocks; none: as many as there are.
///
/// # Errors
/// [`Error::NotSplit`] for rows that would have to be gathered without leave.
pub(super) fn limits(cuts: &Cuts, gather_rows: Option<u64>) -> Result<Vec<Option<u64>>, Error> {
    let mut ways = vec![None; cuts.lower.len()];
    let plain = Way {
        plain: true,
        sorted: false,
    };
    follow(&cuts.upper, plain, &mut ways);
    let limit = |(cut, way): (&super::cut::Cut, &Option<Way>)| {
        let (Some(why), Some(way)) = (&cut.unreduced, way) else {
            return Ok(None);
        };
        match (way.plain, way.sorted, gather_rows) {
            (true, false, _) => Ok(None),
            (true, true, rows) => Ok(Some(rows.unwrap_or(DEFAULT_GATHER_ROWS))),
            (false, _, Some(rows)) => Ok(Some(rows)),
            (false, _, None) => Err(Error::NotSplit { why: why.clone() }),
        }
    };
    cuts.lower.iter().zip(&ways).map(limit).collect()
}

fn follow(node: &Arc<dyn ExecutionPlan>, way: Way, ways: &mut [Option<Way>]) {
    if let Some(leaf) = Leaf::of(node) {
        if let StandsFor::Partials(number) = leaf.stands_for {
            ways[number] = Some(way);
        }
        return;
    }
    let any = node.as_ref() as &dyn Any;
    let sorts = any.is::<SortExec>();
    let plain = sorts
        || any.is::<SortPreservingMergeExec>()
        || any.is::<CoalescePartitionsExec>()
        || any.is::<GlobalLimitExec>()
        || any.is::<LocalLimitExec>()
        || any.is::<ProjectionExec>()
        || any.is::<FilterExec>()
        || any.is::<UnionExec>()
        || any.is::<UnnestExec>()
        || matches!(node.name(), "CoalesceBatchesExec" | "CooperativeExec");
    let below = Way {
        plain: way.plain && plain && !matches!(asks_above(node), Ok(true)),
        sorted: way.sorted || sorts,
    };
    for child in node.children() {
        follow(child, below, ways);
    }
}
