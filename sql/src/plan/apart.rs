//! Parts of a query that read no dataset: small tables, values, what is made of them.
//!
//! Where such a part meets the lines of blocks it is computed once, when the query is planned, so that every block meets
//! the same rows.

use std::{any::Any, collections::HashMap, sync::Arc};

use datafusion::{
    common::{
        ScalarValue,
        tree_node::{Transformed, TransformedResult, TreeNode, TreeNodeRecursion},
    },
    datasource::{MemTable, source_as_provider},
    error::{DataFusionError, Result as Fallible},
    execution::SessionState,
    logical_expr::{Expr, LogicalPlan, expr_rewriter::NamePreserver, logical_plan::Subquery},
    physical_plan::{
        ExecutionPlan, ExecutionPlanProperties, collect,
        limit::{GlobalLimitExec, LocalLimitExec},
    },
};

use super::{
    expressions::{asks_above, is_volatile},
    leaf::{memory, replaced, tables_below},
};

/// Whether a part that reads no dataset gives the same rows each time: nothing in it is volatile, and no limit picks
/// among rows whose order is not fixed.
pub(super) fn is_settled(plan: &Arc<dyn ExecutionPlan>) -> bool {
    let any = plan.as_ref() as &dyn Any;
    // What can't be told is taken for unsettled.
    let same = matches!((is_volatile(plan), asks_above(plan)), (Ok(false), Ok(false)));
    let limits = plan.fetch().is_some() || any.is::<GlobalLimitExec>() || any.is::<LocalLimitExec>();
    same && (!limits || !has_partitions(plan)) && plan.children().into_iter().all(is_settled)
}

fn has_partitions(plan: &Arc<dyn ExecutionPlan>) -> bool {
    plan.output_partitioning().partition_count() > 1 || plan.children().into_iter().any(has_partitions)
}

/// The lower half with all parts that read no dataset computed.
pub(super) async fn settled(
    plan: &Arc<dyn ExecutionPlan>,
    state: &SessionState,
) -> Fallible<Arc<dyn ExecutionPlan>> {
    let mut apart = Vec::new();
    find(plan, &mut apart);
    let mut computed = Vec::with_capacity(apart.len());
    for part in &apart {
        let rows = collect(Arc::clone(part), state.task_ctx()).await?;
        computed.push(memory(part.schema(), rows)?);
    }
    let mut computed = computed.into_iter();
    replaced(plan, &mut |node| {
        let reads = !tables_below(node).is_empty();
        Ok(if reads { None } else { computed.next() })
    })
}

/// The topmost parts that read no dataset, in the order in which [`replaced`] meets them.
fn find(plan: &Arc<dyn ExecutionPlan>, found: &mut Vec<Arc<dyn ExecutionPlan>>) {
    if tables_below(plan).is_empty() {
        found.push(Arc::clone(plan));
        return;
    }
    for child in plan.children() {
        find(child, found);
    }
}

/// Puts the values of subqueries that depend on no dataset in their place, so that blocks know them.
pub(super) async fn fold(plan: LogicalPlan, state: &SessionState) -> Fallible<LogicalPlan> {
    let mut subqueries = Vec::new();
    plan.apply_with_subqueries(|node| {
        node.apply_expressions(|expression| {
            expression.apply(|part| {
                if let Expr::ScalarSubquery(subquery) = part
                    && subquery.outer_ref_columns.is_empty()
                    && depends_on_nothing(&subquery.subquery)?
                {
                    subqueries.push(subquery.clone());
                }
                Ok(TreeNodeRecursion::Continue)
            })
        })
    })?;
    let mut values = HashMap::new();
    for subquery in subqueries {
        let value = value(&subquery, state).await?;
        values.insert(subquery, value);
    }
    if values.is_empty() {
        return Ok(plan);
    }
    plan.transform_up_with_subqueries(|node| {
        let names = NamePreserver::new(&node);
        let folded = node.map_expressions(|expression| {
            let name = names.save(&expression);
            let folded = expression.transform_up(|part| {
                Ok(match &part {
                    Expr::ScalarSubquery(subquery) => match values.get(subquery) {
                        Some(value) => Transformed::yes(Expr::Literal(value.clone(), None)),
                        None => Transformed::no(part),
                    },
                    _ => Transformed::no(part),
                })
            })?;
            Ok(folded.update_data(|expression| name.restore(expression)))
        })?;
        folded.map_data(LogicalPlan::recompute_schema)
    })
    .data()
}

fn depends_on_nothing(plan: &LogicalPlan) -> Fallible<bool> {
    let mut nothing = true;
    plan.apply_with_subqueries(|node| {
        if let LogicalPlan::TableScan(scan) = node {
            let provider = source_as_provider(&scan.source)?;
            nothing &= (provider.as_ref() as &dyn Any).is::<MemTable>();
        }
        node.apply_expressions(|expression| {
            nothing &= !expression.is_volatile();
            Ok(TreeNodeRecursion::Continue)
        })
    })?;
    Ok(nothing)
}

async fn value(subquery: &Subquery, state: &SessionState) -> Fallible<ScalarValue> {
    let plan = state.create_physical_plan(&subquery.subquery).await?;
    let kind = plan.schema().field(0).data_type().clone();
    let rows = collect(plan, state.task_ctx()).await?;
    let count: usize = rows.iter().map(|batch| batch.num_rows()).sum();
    match rows.iter().find(|batch| batch.num_rows() > 0) {
        None => ScalarValue::try_from(&kind),
        Some(batch) if count == 1 => ScalarValue::try_from_array(batch.column(0), 0),
        Some(_) => Err(DataFusionError::Execution(
            "a subquery that stands for one value gives more than one row".into(),
        )),
    }
}
