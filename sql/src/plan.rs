//! From the text of a query to its halves.
//!
//! DataFusion plans the whole query over tables of which it knows nothing, for two partitions, so that aggregates come in
//! two stages. The plan is then cut, as Ballista cuts its stages: what can run on each block becomes lower halves, one for
//! each place where the query reads datasets, and what is above is the upper half.

mod apart;
mod codes;
mod cut;
mod digest;
mod explain;
mod expressions;
mod fingerprint;
mod gather;
mod joins;
mod leaf;
mod merging;
mod patterns;
mod scans;
mod session;
mod stars;
mod statement;
mod zones;

use std::sync::Arc;

use datafusion::{
    arrow::{array::RecordBatch, datatypes::SchemaRef},
    common::tree_node::{TreeNode, TreeNodeRecursion},
    datasource::MemTable,
    error::Result as Fallible,
    execution::TaskContext,
    physical_plan::{
        ExecutionPlan, empty::EmptyExec, execution_plan::reset_plan_states,
        recursive_query::RecursiveQueryExec, scalar_subquery::ScalarSubqueryExec,
    },
};
use model::processor::{Query, QueryTable};

pub(crate) use explain::explain;
pub use explain::{Explained, ExplainedHalf};
pub(crate) use fingerprint::fingerprints;
pub(crate) use scans::pruner;
pub use statement::{tables, to_explain};

use self::leaf::{Leaf, Lines, StandsFor, memory, replaced, tables_below};
use crate::{Error, Runtime, VERSION, schema::schema};

/// A lower half.
pub(crate) struct Lower {
    /// Its number among all of the query.
    pub(crate) number: usize,
    /// Over leaves that stand for the lines of a block.
    plan: Arc<dyn ExecutionPlan>,
    /// The same as it is run.
    runs: Arc<dyn ExecutionPlan>,
    /// Digest of what it does, with which dataset is which; none for what differs from run to run.
    digest: Option<[u8; 32]>,
    /// What it gives.
    pub(crate) between: SchemaRef,
    /// The most rows that it may give over all blocks.
    pub(crate) most_rows: Option<u64>,
}

/// A query whose plan is cut.
pub(crate) struct Halves {
    pub(crate) lower: Vec<Lower>,
    /// Over leaves that stand for what the lower halves gave.
    upper: Arc<dyn ExecutionPlan>,
    /// For each dataset the columns that the lower halves read, by place in its schema.
    pub(crate) projections: Vec<Vec<usize>>,
    pub(crate) context: Arc<TaskContext>,
    /// Whether it gives the same answer whenever it is asked over the same blocks.
    pub(crate) repeatable: bool,
}

impl Halves {
    /// The lower halves that the blocks of a dataset are for.
    pub(crate) fn of_table(&self, table: usize) -> impl Iterator<Item = &Lower> {
        self.lower
            .iter()
            .filter(move |lower| tables_below(&lower.plan).contains(&table))
    }

    /// A lower half over the rows of one block of a dataset, which have the columns of its projection.
    pub(crate) fn lower_plan(
        &self,
        lower: &Lower,
        table: usize,
        rows: &[RecordBatch],
    ) -> Fallible<Arc<dyn ExecutionPlan>> {
        let plan = replaced(&lower.runs, &mut |node| {
            let Some(leaf) = Leaf::of(node) else {
                return Ok(None);
            };
            let StandsFor::Lines {
                table: of,
                projection,
                ..
            } = &leaf.stands_for
            else {
                return Ok(None);
            };
            if *of != table {
                return memory(node.schema(), Vec::new()).map(Some);
            }
            let read = &self.projections[table];
            let places = projection
                .iter()
                .filter_map(|column| read.binary_search(column).ok());
            let places: Vec<usize> = places.collect();
            let rows = rows.iter().map(|batch| batch.project(&places));
            memory(node.schema(), rows.collect::<Result<_, _>>()?).map(Some)
        })?;
        reset_plan_states(plan)
    }

    /// The upper half over what the lower halves gave, by their numbers.
    pub(crate) fn upper_plan(&self, partials: &[Vec<RecordBatch>]) -> Fallible<Arc<dyn ExecutionPlan>> {
        let plan = replaced(&self.upper, &mut |node| {
            let Some(leaf) = Leaf::of(node) else {
                return Ok(None);
            };
            let StandsFor::Partials(number) = leaf.stands_for else {
                return Ok(None);
            };
            let rows = partials.get(number).cloned();
            memory(node.schema(), rows.unwrap_or_default()).map(Some)
        })?;
        reset_plan_states(plan)
    }

    /// Whether it gives no rows, whatever the lines are: for `LIMIT 0`.
    pub(crate) fn is_empty(&self) -> bool {
        let upper = self.upper.as_ref() as &dyn std::any::Any;
        self.lower.is_empty() && upper.is::<EmptyExec>()
    }

    /// Whether runs of the upper half would share what they learn, so that each needs a plan of its own.
    pub(crate) fn runs_once(&self) -> Fallible<bool> {
        self.upper.exists(|node| {
            let any = node.as_ref() as &dyn std::any::Any;
            Ok(any.is::<ScalarSubqueryExec>() || any.is::<RecursiveQueryExec>())
        })
    }
}

/// A table of a query by its number.
pub(crate) fn table_of(query: &Query, table: usize) -> Result<&QueryTable, Error> {
    let unknown = || Error::Query(format!("the query reads no dataset with the number {table}"));
    query.tables.get(table).ok_or_else(unknown)
}

/// Plans the query and cuts the plan.
pub(crate) async fn plan(query: &Query, runtime: &Runtime) -> Result<Halves, Error> {
    if query.version != VERSION {
        return Err(Error::OtherVersion {
            theirs: query.version.clone(),
            ours: VERSION,
        });
    }
    let state = session::session(query, runtime.env())?;
    let tables = state.schema_for_ref("any")?;
    for (number, table) in query.tables.iter().enumerate() {
        let lines = Lines {
            table: number,
            name: table.name.clone(),
            schema: schema(&table.table),
        };
        tables.register_table(table.name.clone(), Arc::new(lines))?;
    }
    for small in &query.with {
        let rows = runtime.small(small)?;
        let table = MemTable::try_new(rows.schema.clone(), vec![rows.batches.clone()])?;
        tables.register_table(small.name.clone(), Arc::new(table))?;
    }
    let mut statement = statement::question(&query.sql)?;
    stars::narrow(&mut statement, &query.tables);
    let logical = state.statement_to_plan(statement).await;
    let logical = logical.map_err(|error| statement::explained(error, query))?;
    // The optimizer puts the moment in the place of now().
    let repeatable = crate::question::is_repeatable(&logical)?;
    let logical = apart::fold(logical, &state).await?;
    let logical = state.optimize(&logical).and_then(patterns::compiled);
    let logical = logical.map_err(|error| statement::explained(error, query))?;
    let physical = state.query_planner().create_physical_plan(&logical, &state).await;
    let physical = physical.map_err(|error| statement::explained(error, query))?;
    let cuts = cut::cut(&physical)?;
    let limits = gather::limits(&cuts, query.gather_rows)?;
    let mut lower = Vec::with_capacity(cuts.lower.len());
    for (number, (cut, most_rows)) in cuts.lower.iter().zip(limits).enumerate() {
        let plan = apart::settled(&cut.lower, &state).await?;
        let mut hasher = blake3::Hasher::new();
        let volatile = digest::digest(&plan, None, &mut hasher)?;
        lower.push(Lower {
            number,
            between: plan.schema(),
            runs: codes::coded(&plan)?,
            plan,
            digest: (!volatile).then(|| *hasher.finalize().as_bytes()),
            most_rows,
        });
    }
    let (lower, upper) = each_once(lower, &cuts.upper)?;
    Ok(Halves {
        projections: projections(query.tables.len(), &lower)?,
        lower,
        upper,
        context: state.task_ctx(),
        repeatable,
    })
}

/// Lower halves that do the same run once.
fn each_once(
    lower: Vec<Lower>,
    upper: &Arc<dyn ExecutionPlan>,
) -> Fallible<(Vec<Lower>, Arc<dyn ExecutionPlan>)> {
    let mut numbers = Vec::with_capacity(lower.len());
    let mut kept: Vec<Lower> = Vec::new();
    for one in lower {
        let same = |other: &&Lower| {
            one.digest.is_some() && other.digest == one.digest && other.most_rows == one.most_rows
        };
        match kept.iter().find(same) {
            Some(other) => numbers.push(other.number),
            None => {
                let number = kept.len();
                numbers.push(number);
                kept.push(Lower { number, ..one });
            }
        }
    }
    let upper = replaced(upper, &mut |node| {
        Ok(Leaf::of(node).and_then(|leaf| match leaf.stands_for {
            StandsFor::Partials(number) => Some(Leaf::partials(numbers[number], node.schema())),
            StandsFor::Lines { .. } => None,
        }))
    })?;
    Ok((kept, upper))
}

/// For each dataset the columns that some lower half reads, in order.
fn projections(tables: usize, lower: &[Lower]) -> Fallible<Vec<Vec<usize>>> {
    let mut read = vec![Vec::new(); tables];
    for half in lower {
        half.plan.apply(|node| {
            if let Some(leaf) = Leaf::of(node)
                && let StandsFor::Lines {
                    table, projection, ..
                } = &leaf.stands_for
            {
                read[*table].extend(projection.iter().copied());
            }
            Ok(TreeNodeRecursion::Continue)
        })?;
    }
    for columns in &mut read {
        columns.sort_unstable();
        columns.dedup();
    }
    Ok(read)
}
