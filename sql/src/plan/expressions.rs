//! What the expressions of a node are like.

use std::{any::Any, sync::Arc};

use datafusion::{
    common::tree_node::{TreeNode, TreeNodeRecursion},
    error::Result as Fallible,
    physical_expr::{PhysicalExpr, scalar_subquery::ScalarSubqueryExpr},
    physical_plan::ExecutionPlan,
};

/// Whether an expression has the value of a subquery in it, which is known only while the whole plan runs.
pub(super) fn asks(expression: &Arc<dyn PhysicalExpr>) -> Fallible<bool> {
    expression.exists(|part| {
        let any = part.as_ref() as &dyn Any;
        Ok(any.is::<ScalarSubqueryExpr>())
    })
}

/// Whether a node needs the value of a subquery.
pub(super) fn asks_above(node: &Arc<dyn ExecutionPlan>) -> Fallible<bool> {
    any_expression(node, asks)
}

/// Whether a node gives something else each time.
pub(super) fn is_volatile(node: &Arc<dyn ExecutionPlan>) -> Fallible<bool> {
    any_expression(node, |expression| {
        expression.exists(|part| Ok(part.is_volatile_node()))
    })
}

fn any_expression(
    node: &Arc<dyn ExecutionPlan>,
    is: impl Fn(&Arc<dyn PhysicalExpr>) -> Fallible<bool>,
) -> Fallible<bool> {
    let mut found = false;
    node.apply_expressions(&mut |expression| {
        found |= is(expression)?;
        Ok(TreeNodeRecursion::Continue)
    })?;
    Ok(found)
}
