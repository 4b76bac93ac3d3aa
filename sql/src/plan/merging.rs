//! What makes one partial result of many: the lower half of the next level of a tree of merges.

use std::{any::Any, sync::Arc};

use datafusion::{
    arrow::array::RecordBatch,
    error::Result as Fallible,
    physical_plan::{
        ExecutionPlan, ExecutionPlanProperties,
        aggregates::{AggregateExec, AggregateMode},
        execution_plan::reset_plan_states,
        limit::GlobalLimitExec,
        sorts::sort::SortExec,
    },
};

use super::{Lower, leaf::memory};

impl Lower {
    /// A plan over what this lower half gave for many blocks, of which the rows stand for all of them: partial states of
    /// the same group become one, of limited rows the first are kept. None where all rows are to be kept as they are.
    pub(crate) fn merging_plan(&self, rows: Vec<RecordBatch>) -> Fallible<Option<Arc<dyn ExecutionPlan>>> {
        let rows = memory(Arc::clone(&self.between), rows)?;
        let Some(plan) = over_partials(&self.plan, rows)? else {
            return Ok(None);
        };
        let types = |plan: &Arc<dyn ExecutionPlan>| -> Vec<_> {
            let schema = plan.schema();
            schema
                .fields()
                .iter()
                .map(|field| field.data_type().clone())
                .collect()
        };
        // What does not come out as it went in can't be merged again.
        if types(&plan) != types(&self.plan) {
            return Ok(None);
        }
        reset_plan_states(plan).map(Some)
    }
}

/// The topmost node of a lower half, for its own output.
fn over_partials(
    lower: &Arc<dyn ExecutionPlan>,
    rows: Arc<dyn ExecutionPlan>,
) -> Fallible<Option<Arc<dyn ExecutionPlan>>> {
    let any = lower.as_ref() as &dyn Any;
    if let Some(aggregate) = any.downcast_ref::<AggregateExec>() {
        return of_aggregate(aggregate, rows);
    }
    if let Some(sort) = any.downcast_ref::<SortExec>() {
        let fetch = sort.fetch().filter(|_| !sort.expr().is_empty());
        return Ok(fetch.map(|_| {
            let sorted = SortExec::new(sort.expr().clone(), rows).with_fetch(fetch);
            Arc::new(sorted) as Arc<dyn ExecutionPlan>
        }));
    }
    // A limit of each partition is not one of all of them.
    let most = lower
        .fetch()
        .filter(|_| lower.output_partitioning().partition_count() == 1);
    Ok(most.map(|most| Arc::new(GlobalLimitExec::new(rows, 0, Some(most))) as Arc<dyn ExecutionPlan>))
}

fn of_aggregate(
    aggregate: &AggregateExec,
    rows: Arc<dyn ExecutionPlan>,
) -> Fallible<Option<Arc<dyn ExecutionPlan>>> {
    let functions = aggregate.aggr_expr().to_vec();
    let mode = match aggregate.mode() {
        AggregateMode::Partial => AggregateMode::PartialReduce,
        // Different rows, and different ones of those.
        AggregateMode::Single if functions.is_empty() => AggregateMode::Single,
        _ => return Ok(None),
    };
    let merged = AggregateExec::try_new(
        mode,
        aggregate.group_expr().as_final(),
        functions,
        vec![None; aggregate.aggr_expr().len()],
        rows,
        aggregate.input_schema(),
    )?;
    Ok(Some(Arc::new(merged)))
}
