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
    cut::{Cut, Cuts},
    expressions::asks_above,
    joins::is_join,
    leaf::{Leaf, StandsFor},
};
use crate::Error;

/// What stands in the way of running `node` on blocks, for people.
fn why_not(node: &Arc<dyn ExecutionPlan>) -> Fallible<String> {
    let any = node.as_ref() as &dyn Any;
    let why = if asks_above(node)? || any.is::<ScalarSubqueryExec>() {
        "the value of a subquery is known only when all blocks are read"
    } else if any.is::<WindowAggExec>() || any.is::<BoundedWindowAggExec>() {
        "a window function looks at all rows"
    } else if is_join(node) {
        let sides = node.children();
        let both = sides.iter().all(|side| reads_partials(side));
        if both {
            "a join of datasets, or of a dataset with itself, needs all rows of both"
        } else {
            "a join that keeps rows of the other side that match nothing needs all rows"
        }
    } else if any.is::<AggregateExec>() {
        "an aggregate over something that is not known on the blocks needs all rows"
    } else if any.is::<RecursiveQueryExec>() {
        "a recursive query needs all rows"
    } else {
        return Ok(format!("{} needs all rows", node.name()));
    };
    Ok(why.to_string())
}

fn reads_partials(plan: &Arc<dyn ExecutionPlan>) -> bool {
    match Leaf::of(plan) {
        Some(leaf) => matches!(leaf.stands_for, StandsFor::Partials(_)),
        None => plan.children().into_iter().any(reads_partials),
    }
}

/// Where the rows of a cut go.
#[derive(Clone)]
struct Way {
    /// What needs them all, the lowest such part of the plan; none above but what treats each row alone, and sorts: then
    /// they are the answer.
    needed: Option<String>,
    sorted: bool,
}

/// The most rows that each lower half may give over all blocks; none: as many as there are.
///
/// # Errors
/// [`Error::NotSplit`] for rows that would have to be gathered without leave.
pub(super) fn limits(cuts: &Cuts, gather_rows: Option<u64>) -> Result<Vec<Option<u64>>, Error> {
    let mut ways = vec![None; cuts.lower.len()];
    let answer = Way {
        needed: None,
        sorted: false,
    };
    follow(&cuts.upper, &answer, &mut ways)?;
    let limit = |(cut, way): (&Cut, &Option<Way>)| {
        let Some(way) = way.as_ref().filter(|_| !cut.reduced) else {
            return Ok(None);
        };
        match (&way.needed, gather_rows) {
            (None, rows) => Ok(way.sorted.then(|| rows.unwrap_or(DEFAULT_GATHER_ROWS))),
            (Some(_), Some(rows)) => Ok(Some(rows)),
            (Some(why), None) => Err(Error::NotSplit { why: why.clone() }),
        }
    };
    cuts.lower.iter().zip(&ways).map(limit).collect()
}

fn follow(node: &Arc<dyn ExecutionPlan>, way: &Way, ways: &mut [Option<Way>]) -> Fallible<()> {
    if let Some(leaf) = Leaf::of(node) {
        if let StandsFor::Partials(number) = leaf.stands_for {
            ways[number] = Some(way.clone());
        }
        return Ok(());
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
        needed: if plain && !asks_above(node)? {
            way.needed.clone()
        } else {
            Some(why_not(node)?)
        },
        sorted: way.sorted || sorts,
    };
    for child in node.children() {
        follow(child, &below, ways)?;
    }
    Ok(())
}
