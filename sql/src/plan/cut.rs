//! Cutting a plan: the largest parts of it that can run on each block become lower halves, the rest is the upper half.
//!
//! A part can run on each block when the rows that it gives for all blocks are those that it gives for each of them, one
//! after another: filters, projections, unions, the first stage of an aggregate, joins with what reads no dataset. Of
//! limits and top-k a copy runs on each block as well, and sorts stay above. What a part knew about the order of its
//! rows is true of each block alone, so what it gave is sorted again above the cut.

use std::{any::Any, sync::Arc};

use datafusion::{
    error::Result as Fallible,
    physical_expr::{PhysicalExpr, conjunction, expressions::Column, split_conjunction},
    physical_plan::{
        ExecutionPlan, ExecutionPlanProperties,
        aggregates::{AggregateExec, AggregateMode, PhysicalGroupBy},
        coalesce_partitions::CoalescePartitionsExec,
        filter::{FilterExec, FilterExecBuilder},
        limit::{GlobalLimitExec, LocalLimitExec},
        projection::ProjectionExec,
        recursive_query::RecursiveQueryExec,
        sorts::sort::SortExec,
        union::UnionExec,
        unnest::UnnestExec,
        work_table::WorkTableExec,
    },
};

use super::{
    apart::is_settled,
    expressions::{asks, asks_above},
    joins::{Side, is_join, looked_up, splits},
    leaf::{Leaf, over, tables_below},
};

/// A lower half.
#[derive(Debug)]
pub(super) struct Cut {
    /// Over leaves that stand for the lines of blocks.
    pub(super) lower: Arc<dyn ExecutionPlan>,
    /// Whether it does more than filter rows: limits them, or makes one of many.
    pub(super) reduced: bool,
}

/// A plan in parts.
pub(super) struct Cuts {
    pub(super) lower: Vec<Cut>,
    /// Over leaves that stand for what the lower halves gave.
    pub(super) upper: Arc<dyn ExecutionPlan>,
}

/// What a part of the plan is.
enum Part {
    /// It reads no dataset.
    Apart(Arc<dyn ExecutionPlan>),
    /// It can run on each block.
    ByBlock(ByBlock),
    /// It belongs to the upper half; what of it runs on blocks is cut off already.
    Above(Arc<dyn ExecutionPlan>),
}

struct ByBlock {
    plan: Arc<dyn ExecutionPlan>,
    /// Over the plan: a sort of each partition, which belongs to an aggregate that needs its rows in order, or else above.
    sort: Option<Arc<dyn ExecutionPlan>>,
    /// Whether it limits the number of its rows.
    reduced: bool,
}

/// Cuts a plan.
pub(super) fn cut(plan: &Arc<dyn ExecutionPlan>) -> Fallible<Cuts> {
    let mut cutter = Cutter { lower: Vec::new() };
    let upper = match cutter.part(plan)? {
        Part::Apart(plan) | Part::Above(plan) => plan,
        Part::ByBlock(part) => cutter.cut(part)?,
    };
    let lower = cutter.lower;
    Ok(Cuts { lower, upper })
}

struct Cutter {
    lower: Vec<Cut>,
}

impl Cutter {
    fn part(&mut self, node: &Arc<dyn ExecutionPlan>) -> Fallible<Part> {
        let any = node.as_ref() as &dyn Any;
        if Leaf::of(node).is_some() {
            return Ok(by_block(node, false));
        }
        if any.is::<WorkTableExec>() {
            return Ok(Part::Above(Arc::clone(node)));
        }
        if any.is::<RecursiveQueryExec>() && tables_below(node).is_empty() {
            return Ok(Part::Apart(Arc::clone(node)));
        }
        let below = node.children().into_iter().map(|child| self.part(child));
        let mut below: Vec<Part> = below.collect::<Fallible<_>>()?;
        if below.iter().all(|part| matches!(part, Part::Apart(_))) {
            return Ok(Part::Apart(Arc::clone(node)));
        }
        if node.properties().eq_properties.oeq_class().len() > 1 {
            // Sorted in more than one way at once: no sort above the cut brings that back.
            return self.above(node, below);
        }
        if let [Part::ByBlock(_)] = &below[..] {
            let Some(Part::ByBlock(child)) = below.pop() else {
                return self.above(node, below);
            };
            return self.on_one(node, child);
        }
        let fits = if any.is::<UnionExec>() {
            below
                .iter()
                .all(|part| matches!(part, Part::ByBlock(part) if part.sort.is_none()))
        } else {
            is_join(node) && joins_by_block(node, &below)
        };
        if fits && !asks_above(node)? {
            let reduced = |part: &Part| !matches!(part, Part::ByBlock(part) if !part.reduced);
            let reduced = below.iter().all(reduced);
            return self.limited(node, reduced);
        }
        self.above(node, below)
    }

    /// A node over one input that runs on each block.
    fn on_one(&mut self, node: &Arc<dyn ExecutionPlan>, child: ByBlock) -> Fallible<Part> {
        let any = node.as_ref() as &dyn Any;
        if asks_above(node)? {
            return match any.downcast_ref::<FilterExec>() {
                Some(filter) if child.sort.is_none() => self.half_a_filter(node, filter, child),
                _ => self.above(node, vec![Part::ByBlock(child)]),
            };
        }
        if let Some(aggregate) = any.downcast_ref::<AggregateExec>()
            && *aggregate.mode() == AggregateMode::Partial
        {
            let reduced = ByBlock {
                plan: Arc::clone(node),
                sort: None,
                reduced: true,
            };
            return Ok(Part::Above(self.cut(reduced)?));
        }
        if child.sort.is_some() {
            return self.above(node, vec![Part::ByBlock(child)]);
        }
        if let Some(sort) = any.downcast_ref::<SortExec>() {
            if sort.fetch().is_some() {
                // The first few of each block are all that can be among the first few of all.
                let partials = self.push(Arc::clone(node));
                return Ok(Part::Above(over(node, vec![partials])?));
            }
            if sort.preserve_partitioning() {
                return Ok(Part::ByBlock(ByBlock {
                    sort: Some(Arc::clone(node)),
                    ..child
                }));
            }
            return self.above(node, vec![Part::ByBlock(child)]);
        }
        if let Some(most) = fetched(any) {
            let limited = first(&child.plan, most);
            let partials = self.push(limited);
            return Ok(Part::Above(over(node, vec![partials])?));
        }
        let by_row = any.is::<FilterExec>()
            || any.is::<ProjectionExec>()
            || any.is::<LocalLimitExec>()
            || any.is::<UnnestExec>()
            || any.is::<CoalescePartitionsExec>()
            || matches!(node.name(), "CoalesceBatchesExec" | "CooperativeExec");
        if by_row {
            return self.limited(node, child.reduced);
        }
        self.above(node, vec![Part::ByBlock(child)])
    }

    /// A node that runs on each block, and if it limits all rows also above.
    fn limited(&mut self, node: &Arc<dyn ExecutionPlan>, reduced: bool) -> Fallible<Part> {
        let Some(most) = node.fetch() else {
            return Ok(by_block(node, reduced));
        };
        if node.output_partitioning().partition_count() > 1 {
            // Each partition is limited, so all of them together are limited further above.
            return Ok(by_block(node, true));
        }
        let partials = self.push(Arc::clone(node));
        Ok(Part::Above(first(&partials, most)))
    }

    /// The conditions that a block can judge run there; the whole filter runs above.
    fn half_a_filter(
        &mut self,
        node: &Arc<dyn ExecutionPlan>,
        filter: &FilterExec,
        child: ByBlock,
    ) -> Fallible<Part> {
        let mut judged = Vec::new();
        for condition in split_conjunction(filter.predicate()) {
            if !asks(condition)? {
                judged.push(Arc::clone(condition));
            }
        }
        let plan = if judged.is_empty() {
            child.plan
        } else {
            let filter = FilterExecBuilder::new(conjunction(judged), child.plan);
            Arc::new(filter.build()?)
        };
        self.above(node, vec![Part::ByBlock(ByBlock { plan, ..child })])
    }

    /// A node of the upper half: what of its inputs runs on blocks is cut off.
    fn above(&mut self, node: &Arc<dyn ExecutionPlan>, below: Vec<Part>) -> Fallible<Part> {
        let mut children = Vec::with_capacity(below.len());
        let looked_up = looked_up(node);
        for (place, part) in below.into_iter().enumerate() {
            children.push(match part {
                Part::Apart(plan) | Part::Above(plan) => plan,
                Part::ByBlock(part) if looked_up == Some(place) => {
                    let part = distinct(part)?;
                    self.cut(part)?
                }
                Part::ByBlock(part) => self.cut(part)?,
            });
        }
        Ok(Part::Above(over(node, children)?))
    }

    /// What stands above the cut for a part that runs on each block.
    fn cut(&mut self, part: ByBlock) -> Fallible<Arc<dyn ExecutionPlan>> {
        let order = part.plan.output_ordering().cloned();
        let number = self.lower.len();
        let mut partials = Leaf::partials(number, part.plan.schema());
        self.lower.push(Cut {
            lower: part.plan,
            reduced: part.reduced,
        });
        if let Some(order) = order {
            partials = Arc::new(SortExec::new(order, partials));
        }
        match part.sort {
            Some(sort) => over(&sort, vec![partials]),
            None => Ok(partials),
        }
    }

    /// Cuts above `plan`, which limits the rows of a block and of which a copy does so above.
    fn push(&mut self, lower: Arc<dyn ExecutionPlan>) -> Arc<dyn ExecutionPlan> {
        let partials = Leaf::partials(self.lower.len(), lower.schema());
        self.lower.push(Cut { lower, reduced: true });
        partials
    }
}

fn by_block(node: &Arc<dyn ExecutionPlan>, reduced: bool) -> Part {
    Part::ByBlock(ByBlock {
        plan: Arc::clone(node),
        sort: None,
        reduced,
    })
}

fn joins_by_block(node: &Arc<dyn ExecutionPlan>, below: &[Part]) -> bool {
    match below {
        [Part::ByBlock(left), Part::Apart(right)] => {
            left.sort.is_none() && splits(node, Side::Left) && is_settled(right)
        }
        [Part::Apart(left), Part::ByBlock(right)] => {
            right.sort.is_none() && splits(node, Side::Right) && is_settled(left)
        }
        _ => false,
    }
}

/// How many rows a limit over all partitions lets through at most, those that it skips among them.
fn fetched(node: &dyn Any) -> Option<usize> {
    if let Some(limit) = node.downcast_ref::<GlobalLimitExec>() {
        return limit.fetch().map(|fetch| fetch.saturating_add(limit.skip()));
    }
    node.downcast_ref::<CoalescePartitionsExec>()?.fetch()
}

/// The different rows of a part whose rows are only looked up, where they can be told apart.
fn distinct(part: ByBlock) -> Fallible<ByBlock> {
    let schema = part.plan.schema();
    let nested = schema.fields().iter().any(|field| field.data_type().is_nested());
    if part.sort.is_some() || part.reduced || nested {
        return Ok(part);
    }
    if schema.fields().is_empty() {
        return Ok(ByBlock {
            plan: first(&part.plan, 1),
            sort: None,
            reduced: true,
        });
    }
    let columns = schema.fields().iter().enumerate().map(|(place, field)| {
        let column = Arc::new(Column::new(field.name(), place)) as Arc<dyn PhysicalExpr>;
        (column, field.name().clone())
    });
    let by_all = PhysicalGroupBy::new_single(columns.collect());
    let input = together(&part.plan);
    let plan = AggregateExec::try_new(
        AggregateMode::Single,
        by_all,
        Vec::new(),
        Vec::new(),
        input,
        schema,
    )?;
    Ok(ByBlock {
        plan: Arc::new(plan),
        sort: None,
        reduced: true,
    })
}

/// The first rows of a plan.
fn first(plan: &Arc<dyn ExecutionPlan>, most: usize) -> Arc<dyn ExecutionPlan> {
    Arc::new(GlobalLimitExec::new(together(plan), 0, Some(most)))
}

/// All rows of a plan in one partition.
fn together(plan: &Arc<dyn ExecutionPlan>) -> Arc<dyn ExecutionPlan> {
    let plan = Arc::clone(plan);
    match plan.output_partitioning().partition_count() {
        0 | 1 => plan,
        _ => Arc::new(CoalescePartitionsExec::new(plan)),
    }
}

#[cfg(test)]
mod tests {
    use datafusion::{
        arrow::datatypes::{DataType, Field, Schema},
        physical_expr::{LexOrdering, PhysicalSortExpr},
        physical_plan::{displayable, sorts::sort_preserving_merge::SortPreservingMergeExec},
    };

    use super::*;

    /// Each block gives groups in order, and a merge of partitions relies on that: all blocks together have no order.
    #[test]
    fn an_order_that_is_lost_is_made_again() {
        let schema = Arc::new(Schema::new(vec![Field::new("a", DataType::Int64, true)]));
        let lines = Leaf::lines(0, "t".into(), vec![0], schema.clone());
        let column = Arc::new(Column::new("a", 0)) as Arc<dyn PhysicalExpr>;
        let by = LexOrdering::new([PhysicalSortExpr::new_default(column.clone())]).unwrap();
        let sort = SortExec::new(by.clone(), lines).with_preserve_partitioning(true);
        let groups = PhysicalGroupBy::new_single(vec![(column, "a".into())]);
        let mode = AggregateMode::Partial;
        let partial =
            AggregateExec::try_new(mode, groups, Vec::new(), Vec::new(), Arc::new(sort), schema).unwrap();
        let merged: Arc<dyn ExecutionPlan> = Arc::new(SortPreservingMergeExec::new(by, Arc::new(partial)));
        let cuts = cut(&merged).unwrap();
        let shown = displayable(cuts.upper.as_ref()).indent(false).to_string();
        let nodes: Vec<&str> = shown
            .lines()
            .map(|line| line.trim().split(':').next().unwrap())
            .collect();
        assert_eq!(nodes, ["SortPreservingMergeExec", "SortExec", "Partials"]);
        assert!(cuts.lower[0].reduced);
    }
}
