//! The leaves of plans that are cut: what stands for the lines of a dataset, and for what lower halves gave.

use std::{any::Any, fmt, sync::Arc};

use async_trait::async_trait;
use datafusion::{
    arrow::{array::RecordBatch, datatypes::SchemaRef},
    catalog::{Session, TableProvider},
    common::tree_node::TreeNodeRecursion,
    datasource::{TableType, memory::MemorySourceConfig},
    error::{DataFusionError, Result as Fallible},
    execution::TaskContext,
    logical_expr::Expr,
    physical_expr::{EquivalenceProperties, PhysicalExpr},
    physical_plan::{
        DisplayAs, DisplayFormatType, ExecutionPlan, Partitioning, PlanProperties, SendableRecordBatchStream,
        execution_plan::{Boundedness, ChildrenPropertiesMode, EmissionType, ReplaceChildrenOptions},
    },
};

use super::session::PARTITIONS;

/// Stands in the plan for the lines of a dataset.
#[derive(Debug)]
pub(super) struct Lines {
    /// Number among the datasets of the query.
    pub(super) table: usize,
    /// What the query calls it.
    pub(super) name: String,
    pub(super) schema: SchemaRef,
}

#[async_trait]
impl TableProvider for Lines {
    fn schema(&self) -> SchemaRef {
        self.schema.clone()
    }

    fn table_type(&self) -> TableType {
        TableType::Base
    }

    async fn scan(
        &self,
        _session: &dyn Session,
        projection: Option<&Vec<usize>>,
        _filters: &[Expr],
        _limit: Option<usize>,
    ) -> Fallible<Arc<dyn ExecutionPlan>> {
        let projection = match projection {
            Some(projection) => projection.clone(),
            None => (0..self.schema.fields().len()).collect(),
        };
        let schema = self.schema.project(&projection)?.into();
        Ok(Leaf::lines(self.table, self.name.clone(), projection, schema))
    }
}

/// What a leaf is replaced by before its plan runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum StandsFor {
    /// The lines of one block; none of those of another dataset.
    Lines {
        table: usize,
        name: String,
        projection: Vec<usize>,
    },
    /// All that the lower half with this number gave.
    Partials(usize),
}

/// A leaf that is replaced before the plan runs.
#[derive(Debug)]
pub(super) struct Leaf {
    pub(super) stands_for: StandsFor,
    properties: Arc<PlanProperties>,
}

impl Leaf {
    /// Stands for the lines of a dataset, with the columns of a projection.
    pub(super) fn lines(
        table: usize,
        name: String,
        projection: Vec<usize>,
        schema: SchemaRef,
    ) -> Arc<dyn ExecutionPlan> {
        Arc::new(Self {
            stands_for: StandsFor::Lines {
                table,
                name,
                projection,
            },
            properties: properties(schema, PARTITIONS),
        })
    }

    /// Stands for what a lower half gave.
    pub(super) fn partials(number: usize, schema: SchemaRef) -> Arc<dyn ExecutionPlan> {
        Arc::new(Self {
            stands_for: StandsFor::Partials(number),
            properties: properties(schema, 1),
        })
    }

    /// The leaf that a node is; none for any other node.
    pub(super) fn of(node: &Arc<dyn ExecutionPlan>) -> Option<&Self> {
        (node.as_ref() as &dyn Any).downcast_ref()
    }

    /// The number of the dataset whose lines it stands for.
    pub(super) fn table(&self) -> Option<usize> {
        match self.stands_for {
            StandsFor::Lines { table, .. } => Some(table),
            StandsFor::Partials(_) => None,
        }
    }
}

/// Of a leaf of which nothing is known but its columns.
fn properties(schema: SchemaRef, partitions: usize) -> Arc<PlanProperties> {
    Arc::new(PlanProperties::new(
        EquivalenceProperties::new(schema),
        Partitioning::UnknownPartitioning(partitions),
        EmissionType::Incremental,
        Boundedness::Bounded,
    ))
}

impl DisplayAs for Leaf {
    fn fmt_as(&self, _form: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.stands_for {
            StandsFor::Lines { name, .. } => {
                let schema = self.properties.eq_properties.schema();
                let columns: Vec<_> = schema
                    .fields()
                    .iter()
                    .map(|field| field.name().as_str())
                    .collect();
                write!(f, "Lines: of={name}, columns=[{}]", columns.join(", "))
            }
            StandsFor::Partials(number) => write!(f, "Partials: of=lower half {number}"),
        }
    }
}

impl ExecutionPlan for Leaf {
    fn name(&self) -> &str {
        match self.stands_for {
            StandsFor::Lines { .. } => "Lines",
            StandsFor::Partials(_) => "Partials",
        }
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        &self.properties
    }

    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        Vec::new()
    }

    fn apply_expressions(
        &self,
        _visit: &mut dyn FnMut(&Arc<dyn PhysicalExpr>) -> Fallible<TreeNodeRecursion>,
    ) -> Fallible<TreeNodeRecursion> {
        Ok(TreeNodeRecursion::Continue)
    }

    fn replace_children(
        self: Arc<Self>,
        _children: Vec<Arc<dyn ExecutionPlan>>,
        _options: ReplaceChildrenOptions,
    ) -> Fallible<Arc<dyn ExecutionPlan>> {
        Ok(self)
    }

    fn with_new_children(
        self: Arc<Self>,
        _children: Vec<Arc<dyn ExecutionPlan>>,
    ) -> Fallible<Arc<dyn ExecutionPlan>> {
        Ok(self)
    }

    fn execute(&self, _partition: usize, _context: Arc<TaskContext>) -> Fallible<SendableRecordBatchStream> {
        Err(DataFusionError::Internal("a plan runs without its rows".into()))
    }
}

/// A leaf that gives what is in memory.
pub(super) fn memory(schema: SchemaRef, batches: Vec<RecordBatch>) -> Fallible<Arc<dyn ExecutionPlan>> {
    Ok(MemorySourceConfig::try_new_exec(&[batches], schema, None)?)
}

/// The numbers of the datasets whose lines a plan reads, each leaf once.
pub(super) fn tables_below(plan: &Arc<dyn ExecutionPlan>) -> Vec<usize> {
    match Leaf::of(plan) {
        Some(leaf) => leaf.table().into_iter().collect(),
        None => plan.children().into_iter().flat_map(tables_below).collect(),
    }
}

/// A node over other children, with all that it knows of them learned anew; the node itself over the same ones.
pub(super) fn over(
    node: &Arc<dyn ExecutionPlan>,
    children: Vec<Arc<dyn ExecutionPlan>>,
) -> Fallible<Arc<dyn ExecutionPlan>> {
    let same = |(old, new): (&&Arc<dyn ExecutionPlan>, &Arc<dyn ExecutionPlan>)| Arc::ptr_eq(old, new);
    if node.children().iter().zip(&children).all(same) {
        return Ok(Arc::clone(node));
    }
    let options = ReplaceChildrenOptions::new(ChildrenPropertiesMode::Recompute);
    Arc::clone(node).replace_children(children, options)
}

/// The plan with subtrees replaced: from the top down, `replacement` says by what, or none to look below.
pub(super) fn replaced(
    plan: &Arc<dyn ExecutionPlan>,
    replacement: &mut impl FnMut(&Arc<dyn ExecutionPlan>) -> Fallible<Option<Arc<dyn ExecutionPlan>>>,
) -> Fallible<Arc<dyn ExecutionPlan>> {
    if let Some(other) = replacement(plan)? {
        return Ok(other);
    }
    let children: Vec<_> = plan.children().into_iter().cloned().collect();
    if children.is_empty() {
        return Ok(Arc::clone(plan));
    }
    let children = children.iter().map(|child| replaced(child, replacement));
    over(plan, children.collect::<Fallible<_>>()?)
}
