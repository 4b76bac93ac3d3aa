//! What a lower half does, as a digest.

use std::{any::Any, io, sync::Arc};

use datafusion::{
    arrow::ipc::writer::StreamWriter,
    common::tree_node::TreeNodeRecursion,
    datasource::{memory::MemorySourceConfig, source::DataSourceExec},
    error::{DataFusionError, Result as Fallible},
    physical_plan::{
        ExecutionPlan,
        aggregates::AggregateExec,
        displayable,
        joins::{HashJoinExec, NestedLoopJoinExec},
        unnest::UnnestExec,
    },
};

use super::{expressions::is_volatile, leaf::Leaf};

/// Digests a settled lower half into `hasher`: two of one digest give the same partial results for the same lines.
///
/// Literals are folded and names of columns resolved in it. As the blocks of the dataset `seen_from` see it: the lines of
/// other datasets are none. Without that: which dataset is which is part of it. Gives whether it differs from run to run.
pub(super) fn digest(
    node: &Arc<dyn ExecutionPlan>,
    seen_from: Option<usize>,
    hasher: &mut blake3::Hasher,
) -> Fallible<bool> {
    let children = node.children();
    let mut text = |text: String| {
        hasher.update(text.as_bytes());
        hasher.update(b"\0");
    };
    text(format!("{} {}", node.name(), children.len()));
    text(format!("{:?}", node.schema().fields()));
    if let Some(leaf) = Leaf::of(node) {
        // Its columns are told by their names, which stand with the node: places change when a table grows.
        text(match (leaf.table(), seen_from) {
            (Some(table), None) => format!("table {table}"),
            (Some(table), Some(seen)) if seen == table => "own".to_string(),
            (Some(_), Some(_)) => "other".to_string(),
            (None, _) => "partials".to_string(),
        });
        return Ok(false);
    }
    if let Some(rows) = in_memory(node) {
        content(rows, hasher)?;
        return Ok(false);
    }
    text(displayable(node.as_ref()).one_line().to_string());
    text(unsaid(node));
    node.apply_expressions(&mut |expression| {
        // What is displayed leaves types out.
        hasher.update(format!("{expression:?}\0").as_bytes());
        Ok(TreeNodeRecursion::Continue)
    })?;
    let mut volatile = is_volatile(node)?;
    for child in children {
        volatile |= digest(child, seen_from, hasher)?;
    }
    Ok(volatile)
}

/// What of a node is neither displayed nor among its expressions.
fn unsaid(node: &Arc<dyn ExecutionPlan>) -> String {
    let any = node.as_ref() as &dyn Any;
    if let Some(aggregate) = any.downcast_ref::<AggregateExec>() {
        let functions = aggregate.aggr_expr().iter().map(|one| {
            (
                one.fun().name().to_string(),
                one.is_distinct(),
                one.ignore_nulls(),
                one.is_reversed(),
                format!("{:?}", one.order_bys()),
            )
        });
        return format!(
            "{:?} {:?} {:?} {:?}",
            functions.collect::<Vec<_>>(),
            aggregate.group_expr(),
            aggregate.filter_expr(),
            aggregate.limit_options()
        );
    }
    if let Some(join) = any.downcast_ref::<HashJoinExec>() {
        return format!("{:?}", join.filter());
    }
    if let Some(join) = any.downcast_ref::<NestedLoopJoinExec>() {
        return format!("{:?}", join.filter());
    }
    if let Some(unnest) = any.downcast_ref::<UnnestExec>() {
        let (lists, structs) = (unnest.list_column_indices(), unnest.struct_column_indices());
        return format!("{lists:?} {structs:?} {:?}", unnest.options());
    }
    String::new()
}

fn in_memory(node: &Arc<dyn ExecutionPlan>) -> Option<&MemorySourceConfig> {
    let source = (node.as_ref() as &dyn Any).downcast_ref::<DataSourceExec>()?;
    (source.data_source().as_ref() as &dyn Any).downcast_ref()
}

fn content(rows: &MemorySourceConfig, hasher: &mut blake3::Hasher) -> Fallible<()> {
    let mut writer = StreamWriter::try_new(io::BufWriter::new(hasher), &rows.original_schema())?;
    for batch in rows.partitions().iter().flatten() {
        writer.write(batch)?;
    }
    writer.finish().map_err(DataFusionError::from)
}
