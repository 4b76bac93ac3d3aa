//! Joins of which one side can be taken block by block.

use std::{any::Any, sync::Arc};

use datafusion::{
    common::{JoinType, config::ConfigOptions},
    error::Result as Fallible,
    physical_optimizer::PhysicalOptimizerRule,
    physical_plan::{
        ExecutionPlan,
        joins::{CrossJoinExec, HashJoinExec, NestedLoopJoinExec, PartitionMode},
    },
};

use super::leaf::{over, tables_below};

/// Which side of a join is taken block by block; the other one reads no dataset and is there as a whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Side {
    Left,
    Right,
}

/// Whether a join may run on each block with the whole other side: when none of its rows says that nothing in *all*
/// blocks matches a row of the other side, or that something somewhere does.
pub(super) fn splits(node: &Arc<dyn ExecutionPlan>, by_block: Side) -> bool {
    let Some(kind) = kind(node) else { return false };
    match by_block {
        Side::Left => matches!(
            kind,
            JoinType::Inner | JoinType::Left | JoinType::LeftSemi | JoinType::LeftAnti | JoinType::LeftMark
        ),
        Side::Right => matches!(
            kind,
            JoinType::Inner
                | JoinType::Right
                | JoinType::RightSemi
                | JoinType::RightAnti
                | JoinType::RightMark
        ),
    }
}

/// The kind of a join that keeps its first side in memory; none for anything else.
fn kind(node: &Arc<dyn ExecutionPlan>) -> Option<JoinType> {
    let any = node.as_ref() as &dyn Any;
    if let Some(join) = any.downcast_ref::<HashJoinExec>() {
        let collects = *join.partition_mode() == PartitionMode::CollectLeft;
        return collects.then_some(*join.join_type());
    }
    if let Some(join) = any.downcast_ref::<NestedLoopJoinExec>() {
        return Some(*join.join_type());
    }
    any.is::<CrossJoinExec>().then_some(JoinType::Inner)
}

/// The side of a join, as the place among its inputs, in which only matters whether there is a matching row, not how many.
pub(super) fn looked_up(node: &Arc<dyn ExecutionPlan>) -> Option<usize> {
    match kind(node)? {
        JoinType::LeftSemi | JoinType::LeftAnti | JoinType::LeftMark => Some(1),
        JoinType::RightSemi | JoinType::RightAnti | JoinType::RightMark => Some(0),
        _ => None,
    }
}

/// Whether a node is a join.
pub(super) fn is_join(node: &Arc<dyn ExecutionPlan>) -> bool {
    node.name().ends_with("JoinExec")
}

/// An optimizer rule: the side of a join that reads no dataset becomes the first, which is kept in memory, so that the
/// lines stream by.
#[derive(Debug)]
pub(super) struct AloneFirst;

impl PhysicalOptimizerRule for AloneFirst {
    fn optimize(
        &self,
        plan: Arc<dyn ExecutionPlan>,
        _config: &ConfigOptions,
    ) -> Fallible<Arc<dyn ExecutionPlan>> {
        alone_first(&plan)
    }

    fn name(&self) -> &str {
        "AloneFirst"
    }

    fn schema_check(&self) -> bool {
        true
    }
}

fn alone_first(plan: &Arc<dyn ExecutionPlan>) -> Fallible<Arc<dyn ExecutionPlan>> {
    let children = plan.children().into_iter().map(alone_first);
    let plan = over(plan, children.collect::<Fallible<_>>()?)?;
    let reads = |side: &Arc<dyn ExecutionPlan>| !tables_below(side).is_empty();
    let any = plan.as_ref() as &dyn Any;
    if let Some(join) = any.downcast_ref::<HashJoinExec>()
            && reads(join.left())
            && !reads(join.right())
            && join.join_type().supports_swap()
            // Only this side knows how to tell "not in" from "unknown".
            && !join.null_aware
    {
        return join.swap_inputs(PartitionMode::CollectLeft);
    }
    if let Some(join) = any.downcast_ref::<NestedLoopJoinExec>()
        && reads(join.left())
        && !reads(join.right())
        && join.join_type().supports_swap()
    {
        return join.swap_inputs();
    }
    if let Some(join) = any.downcast_ref::<CrossJoinExec>()
        && reads(join.left())
        && !reads(join.right())
    {
        return join.swap_inputs();
    }
    Ok(plan)
}
