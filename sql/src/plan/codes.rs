//! Grouping by text as by numbers.
//!
//! Lines repeat their texts, and equal texts of a block mostly have equal views. So a partial aggregate groups by a number
//! for each view instead of by the bytes behind it, and gets the texts back at its end.

mod numbering;

use std::{
    any::Any,
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use datafusion::{
    arrow::{
        array::{AsArray, RecordBatch},
        compute::take,
        datatypes::{DataType, Field, Schema, SchemaRef},
    },
    common::{internal_err, tree_node::TreeNodeRecursion},
    error::Result as Fallible,
    execution::{SendableRecordBatchStream, TaskContext},
    physical_expr::{PhysicalExpr, expressions::Column},
    physical_plan::{
        DisplayAs, DisplayFormatType, EmptyRecordBatchStream, ExecutionPlan, InputOrderMode, PlanProperties,
        aggregates::{AggregateExec, AggregateMode, PhysicalGroupBy},
        execution_plan::{ChildrenPropertiesMode, ReplaceChildrenOptions},
        stream::RecordBatchStreamAdapter,
        streaming::{PartitionStream, StreamingTableExec},
    },
};
use futures::StreamExt as _;

use self::numbering::Codes;
use super::leaf::replaced;

/// The plan with partial aggregates that group by columns of text grouping by numbers.
pub(super) fn coded(plan: &Arc<dyn ExecutionPlan>) -> Fallible<Arc<dyn ExecutionPlan>> {
    replaced(plan, &mut |node| {
        let Some(aggregate) = (node.as_ref() as &dyn Any).downcast_ref::<AggregateExec>() else {
            return Ok(None);
        };
        Ok(GroupByCodes::of(aggregate)?.map(|coded| Arc::new(coded) as _))
    })
}

/// A partial aggregate some of whose groups are told apart by numbers while it runs.
#[derive(Debug)]
struct GroupByCodes {
    aggregate: Arc<AggregateExec>,
    /// The groups that are columns of text: their places among the groups, and the places of their columns.
    texts: Vec<(usize, usize)>,
}

impl GroupByCodes {
    /// None for what groups by no column of text, or ends before it has seen all rows.
    fn of(aggregate: &AggregateExec) -> Fallible<Option<Self>> {
        let (groups, schema) = (aggregate.group_expr(), aggregate.input().schema());
        let may_end_early = aggregate.limit_options().is_some();
        if *aggregate.mode() != AggregateMode::Partial
            || may_end_early
            || groups.is_empty()
            || !groups.is_single()
            || *aggregate.input_order_mode() != InputOrderMode::Linear
        {
            return Ok(None);
        }
        let text = |(place, (group, _)): (usize, &(Arc<dyn PhysicalExpr>, String))| {
            let column = (group.as_ref() as &dyn Any).downcast_ref::<Column>()?;
            let is_text = *schema.field(column.index()).data_type() == DataType::Utf8View;
            is_text.then_some((place, column.index()))
        };
        let texts: Vec<_> = groups.expr().iter().enumerate().filter_map(text).collect();
        if texts.is_empty() {
            return Ok(None);
        }
        let aggregate = Arc::new(aggregate.clone());
        Ok(Some(Self { aggregate, texts }))
    }

    /// The aggregate over rows with the columns of numbers behind their own.
    fn over_codes(&self, rows: SendableRecordBatchStream, codes: &Shared) -> Fallible<AggregateExec> {
        let (aggregate, own) = (&self.aggregate, rows.schema());
        let mut fields: Vec<_> = own.fields().iter().cloned().collect();
        let mut groups = aggregate.group_expr().expr().to_vec();
        for &(group, column) in &self.texts {
            let name = format!("the number of {}", own.field(column).name());
            groups[group].0 = Arc::new(Column::new(&name, fields.len()));
            fields.push(Arc::new(Field::new(name, DataType::UInt32, true)));
        }
        let schema: SchemaRef = Arc::new(Schema::new(fields));
        let (codes, with_codes) = (codes.clone(), schema.clone());
        let columns: Vec<usize> = self.texts.iter().map(|&(_, column)| column).collect();
        let rows = rows.map(move |batch| encoded(&batch?, &columns, &codes, &with_codes));
        let rows = Box::pin(RecordBatchStreamAdapter::new(schema.clone(), rows));
        let input = Arc::new(Once {
            schema: schema.clone(),
            rows: Mutex::new(Some(rows)),
        });
        let input = StreamingTableExec::try_new(schema.clone(), vec![input], None, [], false, None)?;
        AggregateExec::try_new(
            AggregateMode::Partial,
            PhysicalGroupBy::new_single(groups),
            aggregate.aggr_expr().to_vec(),
            aggregate.filter_expr().to_vec(),
            Arc::new(input),
            schema,
        )
    }
}

/// What the texts of each group are numbered by.
type Shared = Arc<Mutex<Vec<Codes>>>;

fn lock(codes: &Shared) -> MutexGuard<'_, Vec<Codes>> {
    codes.lock().unwrap_or_else(PoisonError::into_inner)
}

fn encoded(
    batch: &RecordBatch,
    columns: &[usize],
    codes: &Shared,
    schema: &SchemaRef,
) -> Fallible<RecordBatch> {
    let mut all = batch.columns().to_vec();
    for (codes, &column) in lock(codes).iter_mut().zip(columns) {
        all.push(Arc::new(codes.encode(batch.column(column).as_string_view())));
    }
    Ok(RecordBatch::try_new(schema.clone(), all)?)
}

impl DisplayAs for GroupByCodes {
    fn fmt_as(&self, form: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.aggregate.fmt_as(form, f)
    }
}

impl ExecutionPlan for GroupByCodes {
    fn name(&self) -> &str {
        "GroupByCodes"
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        self.aggregate.properties()
    }

    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        vec![self.aggregate.input()]
    }

    fn apply_expressions(
        &self,
        visit: &mut dyn FnMut(&Arc<dyn PhysicalExpr>) -> Fallible<TreeNodeRecursion>,
    ) -> Fallible<TreeNodeRecursion> {
        self.aggregate.apply_expressions(visit)
    }

    fn replace_children(
        self: Arc<Self>,
        children: Vec<Arc<dyn ExecutionPlan>>,
        options: ReplaceChildrenOptions,
    ) -> Fallible<Arc<dyn ExecutionPlan>> {
        let aggregate = Arc::clone(&self.aggregate).replace_children(children, options)?;
        let aggregate = (aggregate.as_ref() as &dyn Any)
            .downcast_ref::<AggregateExec>()
            .cloned();
        match aggregate {
            Some(aggregate) => Ok(Arc::new(Self {
                aggregate: Arc::new(aggregate),
                texts: self.texts.clone(),
            })),
            None => internal_err!("an aggregate over other rows is none any more"),
        }
    }

    fn with_new_children(
        self: Arc<Self>,
        children: Vec<Arc<dyn ExecutionPlan>>,
    ) -> Fallible<Arc<dyn ExecutionPlan>> {
        self.replace_children(
            children,
            ReplaceChildrenOptions::new(ChildrenPropertiesMode::Recompute),
        )
    }

    fn execute(&self, partition: usize, context: Arc<TaskContext>) -> Fallible<SendableRecordBatchStream> {
        let rows = self.aggregate.input().execute(partition, context.clone())?;
        let codes: Shared = Arc::new(Mutex::new(self.texts.iter().map(|_| Codes::default()).collect()));
        let groups = self.over_codes(rows, &codes)?.execute(0, context)?;
        let (texts, schema) = (self.texts.clone(), self.schema());
        let decoded = groups.map(move |batch| {
            let batch = batch?;
            let mut columns = batch.columns().to_vec();
            for (codes, &(group, _)) in lock(&codes).iter_mut().zip(&texts) {
                columns[group] = take(codes.texts(), &columns[group], None)?;
            }
            Ok(RecordBatch::try_new(schema.clone(), columns)?)
        });
        Ok(Box::pin(RecordBatchStreamAdapter::new(self.schema(), decoded)))
    }
}

/// Rows that come once.
struct Once {
    schema: SchemaRef,
    rows: Mutex<Option<SendableRecordBatchStream>>,
}

impl fmt::Debug for Once {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Once").field(&self.schema).finish()
    }
}

impl PartitionStream for Once {
    fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    fn execute(&self, _context: Arc<TaskContext>) -> SendableRecordBatchStream {
        let rows = self.rows.lock().unwrap_or_else(PoisonError::into_inner).take();
        rows.unwrap_or_else(|| Box::pin(EmptyRecordBatchStream::new(self.schema.clone())))
    }
}
