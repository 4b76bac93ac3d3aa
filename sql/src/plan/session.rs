//! How DataFusion is set up to plan a query whose plan will be cut.

use std::sync::Arc;

use datafusion::{
    arrow::array::timezone::Tz,
    execution::{SessionState, SessionStateBuilder, runtime_env::RuntimeEnv},
    logical_expr::execution_props::ExecutionProps,
    physical_optimizer::{PhysicalOptimizerRule, optimizer::PhysicalOptimizer},
    prelude::SessionConfig,
};
use model::processor::Query;

use super::{joins::AloneFirst, zones::zoned};
use crate::{Error, functions};

/// With one partition the optimizer takes what is local for global.
pub(super) const PARTITIONS: usize = 2;

pub(super) fn session(query: &Query, env: Arc<RuntimeEnv>) -> Result<SessionState, Error> {
    let now = chrono::DateTime::from_timestamp_micros(query.now_us)
        .ok_or_else(|| Error::Query(format!("{} is no moment for now()", query.now_us)))?;
    // DataFusion would take a zone that it does not know for UTC.
    if query.time_zone.parse::<Tz>().is_err() {
        return Err(Error::Query(format!(
            "{:?} is no time zone: name one such as Europe/Paris, or an offset such as +02:00",
            query.time_zone
        )));
    }
    let mut state = SessionStateBuilder::new()
        .with_config(config(query))
        .with_runtime_env(env)
        .with_execution_props(ExecutionProps::new().with_query_execution_start_time(now))
        .with_scalar_functions(functions::own())
        .with_default_features()
        .with_physical_optimizer_rules(rules())
        .build();
    zoned(&mut state)?;
    Ok(state)
}

fn config(query: &Query) -> SessionConfig {
    let mut config = SessionConfig::new()
        .with_target_partitions(PARTITIONS)
        .with_information_schema(false)
        // What is not needed for aggregates only makes plans harder to cut.
        .with_round_robin_repartition(false)
        .with_repartition_joins(false)
        .with_repartition_windows(false);
    let options = config.options_mut();
    options.execution.time_zone = Some(query.time_zone.clone());
    // A filter that one half learns while it runs is not known to the other.
    options.optimizer.enable_dynamic_filter_pushdown = false;
    options.optimizer.enable_topk_dynamic_filter_pushdown = false;
    options.optimizer.enable_join_dynamic_filter_pushdown = false;
    options.optimizer.enable_aggregate_dynamic_filter_pushdown = false;
    config
}

/// DataFusion's rules, but aggregates stay in two stages also where their input is one partition, and of two sides of a
/// join the one without lines of a dataset comes first.
fn rules() -> Vec<Arc<dyn PhysicalOptimizerRule + Send + Sync>> {
    let mut rules = Vec::new();
    for rule in PhysicalOptimizer::new().rules {
        let name = rule.name().to_string();
        if name != "CombinePartialFinalAggregate" {
            rules.push(rule);
        }
        if name == "join_selection" {
            rules.push(Arc::new(AloneFirst));
        }
    }
    rules
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Both are known by their names, which may change.
    #[test]
    fn the_rules_are_those_that_are_meant() {
        let names: Vec<String> = rules().iter().map(|rule| rule.name().to_string()).collect();
        assert_eq!(names.len(), PhysicalOptimizer::new().rules.len());
        let at = names.iter().position(|name| name == AloneFirst.name()).unwrap();
        assert_eq!(names[at - 1], "join_selection");
    }
}
