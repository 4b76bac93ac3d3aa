//! From the text of a query to its two halves.
//!
//! DataFusion plans the whole query over a table of which it knows nothing, for two partitions, so that aggregates come in
//! two stages. The plan is then cut: above the partial aggregate, as Ballista cuts its stages, or, without one, above
//! what works on each row alone, with limits and top-k pushed below the cut.

use std::{
    collections::VecDeque,
    fmt,
    sync::{Arc, Mutex, PoisonError},
};

use async_trait::async_trait;
use datafusion::{
    arrow::datatypes::SchemaRef,
    catalog::{Session, TableProvider},
    common::tree_node::{TreeNode, TreeNodeRecursion},
    datasource::{TableType, memory::MemorySourceConfig},
    error::{DataFusionError, Result as Fallible},
    execution::{SessionState, SessionStateBuilder, TaskContext, context::SQLOptions},
    logical_expr::{Expr, execution_props::ExecutionProps},
    physical_expr::{EquivalenceProperties, PhysicalExpr},
    physical_plan::{
        DisplayAs, DisplayFormatType, ExecutionPlan, Partitioning, PlanProperties, SendableRecordBatchStream,
        aggregates::{AggregateExec, AggregateMode},
        coalesce_partitions::CoalescePartitionsExec,
        displayable,
        execution_plan::{
            Boundedness, ChildrenPropertiesMode, EmissionType, ReplaceChildrenOptions, reset_plan_states,
        },
        filter::FilterExec,
        limit::{GlobalLimitExec, LocalLimitExec},
        projection::ProjectionExec,
        repartition::RepartitionExec,
        sorts::sort::SortExec,
    },
    prelude::SessionConfig,
    sql::{parser::DFParserBuilder, resolve::resolve_table_references},
};
use model::{
    processor::{Query, QueryTable},
    table::{BLOCK, ERROR, EVERYWHERE, Format, Table},
};

use crate::{Error, VERSION, block::begin_of_day, schema::schema};

/// A plan cut in two.
pub(crate) struct Halves {
    /// Over a leaf that stands for one block.
    lower: Vec<Arc<dyn ExecutionPlan>>,
    /// Over what the lower half gave, from the top down; empty when that is the answer.
    upper: Vec<Arc<dyn ExecutionPlan>>,
    /// What the lower half gives.
    pub(crate) between: SchemaRef,
    /// The columns of the table that the lower half reads, by place.
    pub(crate) projection: Vec<usize>,
    pub(crate) context: Arc<TaskContext>,
    repeatable: bool,
}

impl Halves {
    /// The lower half over `rows`, which have the columns of the projection.
    pub(crate) fn lower(&self, rows: Arc<dyn ExecutionPlan>) -> Fallible<Arc<dyn ExecutionPlan>> {
        stack(&self.lower, rows)
    }

    /// The upper half over all that lower halves gave.
    pub(crate) fn upper(&self, partials: Arc<dyn ExecutionPlan>) -> Fallible<Arc<dyn ExecutionPlan>> {
        stack(&self.upper, partials)
    }
}

/// A plan that has not run yet: nodes keep what they learned, such as where a top-k may stop looking.
fn stack(nodes: &[Arc<dyn ExecutionPlan>], leaf: Arc<dyn ExecutionPlan>) -> Fallible<Arc<dyn ExecutionPlan>> {
    let plan = nodes.iter().rev().try_fold(leaf, |below, node| {
        let options = ReplaceChildrenOptions::new(ChildrenPropertiesMode::Recompute);
        node.clone().replace_children(vec![below], options)
    })?;
    reset_plan_states(plan)
}

/// Stands in the plan for the lines of the dataset.
#[derive(Debug)]
struct Lines {
    schema: SchemaRef,
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
        let schema: SchemaRef = self.schema.project(&projection)?.into();
        let properties = PlanProperties::new(
            EquivalenceProperties::new(schema),
            Partitioning::UnknownPartitioning(PARTITIONS),
            EmissionType::Incremental,
            Boundedness::Bounded,
        );
        Ok(Arc::new(LinesExec {
            projection,
            properties: Arc::new(properties),
        }))
    }
}

/// A table of a query by its number.
pub(crate) fn table_of(query: &Query, table: usize) -> Result<&QueryTable, Error> {
    let unknown = || Error::Query(format!("the query reads no dataset with the number {table}"));
    query.tables.get(table).ok_or_else(unknown)
}

/// The leaf of a plan; it is replaced before the plan runs.
#[derive(Debug)]
struct LinesExec {
    projection: Vec<usize>,
    properties: Arc<PlanProperties>,
}

impl DisplayAs for LinesExec {
    fn fmt_as(&self, _form: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "LinesExec: columns={:?}", self.projection)
    }
}

impl ExecutionPlan for LinesExec {
    fn name(&self) -> &str {
        "LinesExec"
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
        Err(DataFusionError::Internal("a plan runs without its lines".into()))
    }
}

/// With one partition the optimizer plans aggregates in a single stage, and there is nothing to cut.
const PARTITIONS: usize = 2;

fn session(query: &Query) -> Result<SessionState, Error> {
    let mut config = SessionConfig::new()
        .with_target_partitions(PARTITIONS)
        .with_information_schema(false);
    let options = config.options_mut();
    options.execution.time_zone = Some(query.time_zone.clone());
    // A filter that one half learns while it runs is not known to the other.
    options.optimizer.enable_dynamic_filter_pushdown = false;
    let now = chrono::DateTime::from_timestamp_micros(query.now_us)
        .ok_or_else(|| Error::Query(format!("{} is no moment for now()", query.now_us)))?;
    let moment = ExecutionProps::new().with_query_execution_start_time(now);
    let state = SessionStateBuilder::new()
        .with_config(config)
        .with_execution_props(moment)
        .with_default_features()
        .build();
    Ok(state)
}

/// Plans that are kept: a node works on the blocks of few queries at a time.
const KEPT: usize = 32;

static PLANS: Mutex<VecDeque<(Query, Arc<Halves>)>> = Mutex::new(VecDeque::new());

/// The halves of a query, planned anew only when they are not among the latest: planning may take as long as a block.
pub(crate) async fn halves(query: &Query) -> Result<Arc<Halves>, Error> {
    let lock = || PLANS.lock().unwrap_or_else(PoisonError::into_inner);
    let known = lock()
        .iter()
        .find(|(known, _)| known == query)
        .map(|(_, halves)| halves.clone());
    if let Some(known) = known {
        return Ok(known);
    }
    let halves = Arc::new(plan(query).await?);
    let mut plans = lock();
    plans.truncate(KEPT - 1);
    plans.push_front((query.clone(), halves.clone()));
    Ok(halves)
}

/// Plans the query and cuts the plan.
async fn plan(query: &Query) -> Result<Halves, Error> {
    if query.version != VERSION {
        return Err(Error::OtherVersion {
            theirs: query.version.clone(),
            ours: VERSION,
        });
    }
    let state = session(query)?;
    let table = table_of(query, 0)?;
    let lines = Arc::new(Lines {
        schema: schema(&table.table),
    });
    state
        .schema_for_ref(table.name.as_str())?
        .register_table(table.name.clone(), lines)?;
    let logical = state.create_logical_plan(&query.sql).await?;
    SQLOptions::new()
        .with_allow_ddl(false)
        .with_allow_dml(false)
        .with_allow_statements(false)
        .verify_plan(&logical)?;
    // The optimizer puts the moment in the place of now().
    let repeatable = crate::question::is_repeatable(&logical)?;
    let physical = state.create_physical_plan(&logical).await?;
    let halves = cut(physical, state.task_ctx())?;
    Ok(Halves { repeatable, ..halves })
}

/// The nodes from the top to the leaf.
fn path(plan: Arc<dyn ExecutionPlan>) -> Result<Vec<Arc<dyn ExecutionPlan>>, Error> {
    let mut leaves = 0;
    plan.apply(|node| {
        leaves += usize::from(node.name() == "LinesExec");
        Ok(TreeNodeRecursion::Continue)
    })?;
    if leaves != 1 {
        let why = match leaves {
            0 => "it does not read the dataset".to_string(),
            _ => format!("it reads the dataset in {leaves} places (a join, a union or a subquery)"),
        };
        let hint = "write it as one SELECT over the dataset, with CASE or FILTER where parts differ";
        return Err(Error::NotSplit { why, hint });
    }
    let mut path = vec![plan];
    while let Some(last) = path.last() {
        let below: Vec<_> = last.children().into_iter().cloned().collect();
        match &below[..] {
            [] => break,
            [child] => path.push(child.clone()),
            _ => {
                let why = format!("{} has two inputs", last.name());
                let hint = "leave the join out";
                return Err(Error::NotSplit { why, hint });
            }
        }
    }
    Ok(path)
}

fn cut(plan: Arc<dyn ExecutionPlan>, context: Arc<TaskContext>) -> Result<Halves, Error> {
    let mut path = path(plan)?;
    let leaf = path.pop();
    let leaf = leaf
        .as_ref()
        .and_then(|leaf| (leaf.as_ref() as &dyn std::any::Any).downcast_ref::<LinesExec>());
    let Some(leaf) = leaf else {
        return Err(Error::NotSplit {
            why: "its lowest step does not read the dataset".into(),
            hint: "report this query",
        });
    };
    let (mut lower, mut upper) = (Vec::new(), path);
    let mut between = leaf.properties.eq_properties.schema().clone();
    while let Some(node) = upper.pop() {
        let any = node.as_ref() as &dyn std::any::Any;
        let by_row = any.is::<FilterExec>()
            || any.is::<ProjectionExec>()
            || any.is::<LocalLimitExec>()
            || node.name() == "CoalesceBatchesExec"
            || node.name() == "CooperativeExec";
        if by_row {
            between = node.schema();
            lower.push(node);
            continue;
        }
        if any.is::<RepartitionExec>() {
            // One block is one partition.
            continue;
        }
        if let Some(aggregate) = any.downcast_ref::<AggregateExec>()
            && *aggregate.mode() == AggregateMode::Partial
        {
            between = node.schema();
            lower.push(node);
            break;
        }
        if let Some(sort) = any.downcast_ref::<SortExec>()
            && sort.fetch().is_some()
        {
            // The first few of each block are all that can be among the first few of all.
            lower.push(node.clone());
        } else if let Some(fetch) = fetched(any) {
            lower.push(Arc::new(GlobalLimitExec::new(
                node.children()[0].clone(),
                0,
                Some(fetch),
            )));
        }
        upper.push(node);
        break;
    }
    lower.reverse();
    Ok(Halves {
        lower,
        upper,
        between,
        projection: leaf.projection.clone(),
        context,
        repeatable: false,
    })
}

/// How many rows a limit lets through at most, those that it skips among them.
fn fetched(node: &dyn std::any::Any) -> Option<usize> {
    if let Some(limit) = node.downcast_ref::<GlobalLimitExec>() {
        return limit.fetch().map(|fetch| fetch + limit.skip());
    }
    node.downcast_ref::<CoalescePartitionsExec>()?.fetch()
}

/// A leaf that gives what is in memory.
pub(crate) fn memory(
    schema: SchemaRef,
    batches: Vec<datafusion::arrow::array::RecordBatch>,
) -> Fallible<Arc<dyn ExecutionPlan>> {
    Ok(MemorySourceConfig::try_new_exec(&[batches], schema, None)?)
}

/// The tables that a query reads, by name.
///
/// # Errors
/// [`Error::Query`] for what is no SQL.
pub fn tables(sql: &str) -> Result<Vec<String>, Error> {
    // No session: making one takes longer than all else that is done for a query whose answer is recorded.
    let parsed = DFParserBuilder::new(sql).build()?.parse_statements()?;
    let [statement] = &parsed.into_iter().collect::<Vec<_>>()[..] else {
        return Err(Error::Query("one query can be asked at a time".into()));
    };
    let (tables, _) = resolve_table_references(statement, true)?;
    Ok(tables.iter().map(|table| table.table().to_string()).collect())
}

/// Checks that a query can be answered.
///
/// # Errors
/// [`Error::Query`] in DataFusion's words, [`Error::NotSplit`].
pub async fn check(query: &Query) -> Result<(), Error> {
    halves(query).await.map(drop)
}

/// Whether the query gives the same answer whenever it is asked over the same blocks.
///
/// # Errors
/// Those of [`check`].
pub async fn is_repeatable(query: &Query) -> Result<bool, Error> {
    Ok(halves(query).await?.repeatable)
}

/// Identifies, for each dataset, what happens to its blocks: two queries of one fingerprint have the same partial results.
///
/// blake3 over the version, the format of the lines, the columns that are read and the lower half of the plan, in which
/// literals are folded and names of columns resolved, with the day where times have no year. None for a half that gives
/// another result each time, or for the same lines in another dataset.
///
/// # Errors
/// Those of [`check`].
pub async fn fingerprints(query: &Query) -> Result<Vec<Option<[u8; 32]>>, Error> {
    let table = &table_of(query, 0)?.table;
    let halves = halves(query).await?;
    let mut hasher = blake3::Hasher::new();
    let mut volatile = false;
    for node in &halves.lower {
        node.apply_expressions(&mut |expression| {
            // The plan for people leaves types out.
            hasher.update(format!("{expression:?}\0").as_bytes());
            expression.apply(|part| {
                volatile |= part.is_volatile_node();
                Ok(TreeNodeRecursion::Continue)
            })
        })?;
        hasher.update(displayable(node.as_ref()).one_line().to_string().as_bytes());
        hasher.update(b"\0");
    }
    let place = EVERYWHERE.iter().position(|(name, _)| *name == BLOCK);
    let block = place.map(|place| table.columns.len() + place);
    if volatile || block.is_some_and(|block| halves.projection.contains(&block)) {
        return Ok(vec![None]);
    }
    let day = match table.format {
        Format::Syslog => begin_of_day(query.now_us),
        _ => 0,
    };
    hasher.update(&day.to_be_bytes());
    hasher.update(format!("{:?}\0", halves.between.fields()).as_bytes());
    let read = read_of(table, &halves.projection)?;
    for part in [VERSION, &read, &query.time_zone] {
        hasher.update(part.as_bytes());
        hasher.update(b"\0");
    }
    Ok(vec![Some(*hasher.finalize().as_bytes())])
}

/// The format and the columns that are read, as text: what else a table has, and gets later, makes no difference.
fn read_of(table: &Table, projection: &[usize]) -> Result<String, Error> {
    let own = table.columns.len();
    let place = |name| EVERYWHERE.iter().position(|(known, _)| *known == name);
    // Whether a line parses shows in all its values.
    let reads_all = place(ERROR).is_some_and(|error| projection.contains(&(own + error)));
    let columns = table.columns.iter().enumerate();
    let columns: Vec<_> = columns
        .filter(|(place, _)| reads_all || projection.contains(place))
        .collect();
    let everywhere: Vec<_> = projection
        .iter()
        .filter_map(|place| place.checked_sub(own))
        .collect();
    let least = table.least.filter(|_| reads_all);
    let read = (&table.format, columns, everywhere, least);
    serde_json::to_string(&read).map_err(|error| Error::Query(error.to_string()))
}
