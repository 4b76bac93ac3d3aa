//! Where a query reads a dataset, and under which condition.

use std::{any::Any, sync::Arc};

use datafusion::physical_plan::{ExecutionPlan, filter::FilterExec};
use model::processor::Query;

use super::{
    Halves,
    leaf::{Leaf, StandsFor},
    table_of,
};
use crate::{
    Error,
    prune::{Pruner, Scan},
};

/// Tells which blocks of the dataset with the number `table` a query needs; none: all.
pub(crate) fn pruner(query: &Query, halves: &Halves, table: usize) -> Result<Option<Pruner>, Error> {
    let mut scans = Vec::new();
    for lower in halves.of_table(table) {
        find(&lower.plan, table, None, &mut scans);
    }
    Ok(Pruner::of(&scans, &table_of(query, table)?.table, query.now_us)?)
}

/// Finds the leaves below a node; `filter` is what all rows must pass that the node gives.
fn find(node: &Arc<dyn ExecutionPlan>, table: usize, filter: Option<&FilterExec>, scans: &mut Vec<Scan>) {
    if let Some(leaf) = Leaf::of(node) {
        if let StandsFor::Lines {
            table: of,
            projection,
            ..
        } = &leaf.stands_for
            && *of == table
        {
            scans.push(Scan {
                condition: filter.map(|filter| filter.predicate().clone()),
                schema: node.schema(),
                projection: projection.clone(),
            });
        }
        return;
    }
    let own = (node.as_ref() as &dyn Any).downcast_ref::<FilterExec>();
    let filter = own.or(filter.filter(|_| passes_on(node.as_ref())));
    for child in node.children() {
        find(child, table, filter, scans);
    }
}

/// Whether a node gives all rows that it gets, as they are.
fn passes_on(node: &dyn ExecutionPlan) -> bool {
    let name = node.name();
    let plain = [
        "CooperativeExec",
        "CoalesceBatchesExec",
        "RepartitionExec",
        "CoalescePartitionsExec",
    ];
    plain.contains(&name) && node.fetch().is_none()
}
