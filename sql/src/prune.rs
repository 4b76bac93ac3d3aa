//! Which blocks can have a row that a query asks for: the others need not be read.
//!
//! A query reads a dataset in one or more places. A block is left out when, in each of them, the condition right above the
//! lines can't be true for any row, by what is known of the least and greatest values of its columns. What is not known
//! leaves nothing out.

use std::{
    collections::{BTreeMap, HashSet},
    ops::Range,
    sync::Arc,
};

use datafusion::{
    arrow::{
        array::{
            ArrayRef, BooleanArray, Float64Array, Int64Array, StringViewArray, TimestampMicrosecondArray,
            UInt64Array,
        },
        datatypes::{DataType, SchemaRef},
    },
    common::{Column, ScalarValue, pruning::PruningStatistics, tree_node::TreeNode},
    error::Result as Fallible,
    physical_expr::{
        PhysicalExpr, conjunction,
        expressions::{CastExpr, Column as ColumnExpr, NegativeExpr, TryCastExpr},
        split_conjunction,
        utils::collect_columns,
    },
    physical_optimizer::pruning::{PruningPredicate, PruningPredicateBuilder},
};
use model::{
    stats::{BlockStats, Bound, ColumnStats},
    table::{BLOCK, LINE, Table},
};

use crate::stats::column_key;

/// Blocks that are looked at together.
const TOGETHER: u32 = 8192;

/// A place where a query reads a dataset.
pub(crate) struct Scan {
    /// The condition right above the lines; none: all are wanted.
    pub(crate) condition: Option<Arc<dyn PhysicalExpr>>,
    /// The columns that are read there.
    pub(crate) schema: SchemaRef,
    /// Their places in the schema of the table.
    pub(crate) projection: Vec<usize>,
}

/// Tells which blocks of a dataset a query needs.
pub struct Pruner {
    predicates: Vec<PruningPredicate>,
    /// The keys of the columns that the predicates are about, by name.
    keys: BTreeMap<String, String>,
}

impl Pruner {
    /// Of all places where a dataset is read, which may be none: then no block is needed. None where no block could ever
    /// be left out.
    pub(crate) fn of(scans: &[Scan], table: &Table, now_us: i64) -> Fallible<Option<Self>> {
        let mut predicates = Vec::with_capacity(scans.len());
        let mut keys = BTreeMap::new();
        for scan in scans {
            let Some(condition) = &scan.condition else {
                return Ok(None);
            };
            let mut sound = Vec::new();
            for part in split_conjunction(condition) {
                if is_sound(part, &scan.schema)? {
                    sound.push(part.clone());
                }
            }
            let condition = conjunction(sound);
            for column in collect_columns(&condition) {
                let place = scan.projection.get(column.index()).copied();
                if let Some(key) = place.and_then(|place| column_key(table, place, now_us)) {
                    keys.insert(column.name().to_string(), key);
                }
            }
            let builder = PruningPredicateBuilder::new().with_file_schema(scan.schema.clone());
            match builder.try_build(condition) {
                Ok(predicate) if !predicate.always_true() => predicates.push(predicate),
                _ => return Ok(None),
            }
        }
        Ok(Some(Self { predicates, keys }))
    }

    /// The keys of the columns of which something should be known.
    pub fn columns(&self) -> Vec<String> {
        self.keys.values().cloned().collect()
    }

    /// The numbers of those `blocks` that may have a row that is asked for.
    pub fn needed(&self, blocks: Range<u32>, known: &BTreeMap<u32, BlockStats>) -> Vec<Range<u32>> {
        let mut needed: Vec<Range<u32>> = Vec::new();
        for first in blocks.clone().step_by(TOGETHER as usize) {
            let range = first..blocks.end.min(first.saturating_add(TOGETHER));
            for (number, may) in range.clone().zip(self.may_match(range, known)) {
                match needed.last_mut() {
                    Some(last) if may && last.end == number => last.end += 1,
                    _ if may => needed.push(number..number + 1),
                    _ => {}
                }
            }
        }
        needed
    }

    fn may_match(&self, range: Range<u32>, known: &BTreeMap<u32, BlockStats>) -> Vec<bool> {
        let blocks = range.clone().map(|number| (number, known.get(&number))).collect();
        let mut any = vec![false; range.len()];
        for predicate in &self.predicates {
            let blocks = Blocks {
                schema: predicate.schema(),
                keys: &self.keys,
                blocks: &blocks,
            };
            // What can't be computed, such as an overflow, says nothing.
            let may = predicate.prune(&blocks).unwrap_or_default();
            for (number, any) in any.iter_mut().enumerate() {
                *any |= may.get(number).copied().unwrap_or(true);
            }
        }
        any
    }
}

/// Whether what DataFusion makes of a condition over least and greatest values holds. It takes every cast for one that
/// keeps the order, and everything without a column for a constant.
fn is_sound(condition: &Arc<dyn PhysicalExpr>, schema: &SchemaRef) -> Fallible<bool> {
    let unsound = condition.exists(|part| {
        let cast = part
            .downcast_ref::<CastExpr>()
            .map(|cast| (cast.expr(), cast.cast_type()));
        let try_cast = part
            .downcast_ref::<TryCastExpr>()
            .map(|cast| (cast.expr(), cast.cast_type()));
        if let Some((inner, to)) = cast.or(try_cast) {
            return Ok(!collect_columns(inner).is_empty() && !keeps_order(inner, to, schema)?);
        }
        Ok(part.is_volatile_node() || part.downcast_ref::<NegativeExpr>().is_some())
    })?;
    Ok(!unsound)
}

/// Whether a cast of a column never turns two values around.
fn keeps_order(inner: &Arc<dyn PhysicalExpr>, to: &DataType, schema: &SchemaRef) -> Fallible<bool> {
    if inner.downcast_ref::<ColumnExpr>().is_none() {
        return Ok(false);
    }
    Ok(matches!(
        (inner.data_type(schema)?, to),
        (
            DataType::Int64,
            DataType::Int64 | DataType::Float64 | DataType::Decimal128(..)
        ) | (DataType::Float64, DataType::Float64)
            | (
                DataType::Timestamp(..),
                DataType::Timestamp(_, Some(_)) | DataType::Date32
            )
            | (
                DataType::Utf8View,
                DataType::Utf8View | DataType::Utf8 | DataType::LargeUtf8
            )
    ))
}

/// What is known of some blocks, as DataFusion asks for it.
struct Blocks<'a> {
    schema: &'a SchemaRef,
    keys: &'a BTreeMap<String, String>,
    blocks: &'a Vec<(u32, Option<&'a BlockStats>)>,
}

impl Blocks<'_> {
    fn stats<'b>(&self, column: &Column, block: &(u32, Option<&'b BlockStats>)) -> Option<&'b ColumnStats> {
        block.1?.columns.get(self.keys.get(&column.name)?)
    }

    fn bounds(
        &self,
        column: &Column,
        of: impl Fn(&ColumnStats) -> Option<&Bound>,
        line: impl Fn(&BlockStats) -> i64,
    ) -> Option<ArrayRef> {
        let blocks = self.blocks.iter();
        match column.name.as_str() {
            BLOCK => {
                let numbers = blocks.map(|(number, _)| i64::from(*number));
                return Some(Arc::new(Int64Array::from_iter_values(numbers)));
            }
            LINE => {
                let numbers = blocks.map(|(_, known)| known.map(&line));
                return Some(Arc::new(Int64Array::from_iter(numbers)));
            }
            _ => {}
        }
        let bounds = blocks.map(|block| of(self.stats(column, block)?));
        let kind = self.schema.field_with_name(&column.name).ok()?.data_type();
        Some(match kind {
            DataType::Int64 => Arc::new(bounds.map(|bound| integer(bound?)).collect::<Int64Array>()),
            DataType::Timestamp(_, zone) => {
                let times = bounds.map(|bound| integer(bound?));
                let times: TimestampMicrosecondArray = times.collect();
                Arc::new(times.with_timezone_opt(zone.clone()))
            }
            DataType::Float64 => {
                let numbers = bounds.map(|bound| match bound? {
                    Bound::Float(value) => Some(*value),
                    _ => None,
                });
                Arc::new(numbers.collect::<Float64Array>())
            }
            DataType::Boolean => {
                let values = bounds.map(|bound| match bound? {
                    Bound::Boolean(value) => Some(*value),
                    _ => None,
                });
                Arc::new(values.collect::<BooleanArray>())
            }
            DataType::Utf8View => {
                let texts = bounds.map(|bound| match bound? {
                    Bound::Text(value) => Some(value.as_str()),
                    _ => None,
                });
                Arc::new(texts.collect::<StringViewArray>())
            }
            _ => return None,
        })
    }
}

fn integer(bound: &Bound) -> Option<i64> {
    match bound {
        Bound::Integer(value) => Some(*value),
        _ => None,
    }
}

impl PruningStatistics for Blocks<'_> {
    fn min_values(&self, column: &Column) -> Option<ArrayRef> {
        self.bounds(column, |stats| stats.least.as_ref(), |_| 1)
    }

    fn max_values(&self, column: &Column) -> Option<ArrayRef> {
        self.bounds(column, |stats| stats.greatest.as_ref(), |block| block.rows.into())
    }

    fn num_containers(&self) -> usize {
        self.blocks.len()
    }

    fn null_counts(&self, column: &Column) -> Option<ArrayRef> {
        let never = matches!(column.name.as_str(), BLOCK | LINE);
        let counts = self.blocks.iter().map(|block| match never {
            true => Some(0),
            false => Some(u64::from(self.stats(column, block)?.nulls)),
        });
        Some(Arc::new(counts.collect::<UInt64Array>()))
    }

    fn row_counts(&self) -> Option<ArrayRef> {
        let counts = self
            .blocks
            .iter()
            .map(|(_, known)| Some(u64::from(known.as_ref()?.rows)));
        Some(Arc::new(counts.collect::<UInt64Array>()))
    }

    fn contained(&self, _column: &Column, _values: &HashSet<ScalarValue>) -> Option<BooleanArray> {
        None
    }
}
