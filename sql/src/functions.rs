//! What can be called in a query.

use std::sync::Arc;

use datafusion::{execution::SessionStateBuilder, logical_expr::ScalarUDF};

mod kv;

/// Those that DataFusion does not have.
pub(crate) fn own() -> Vec<Arc<ScalarUDF>> {
    vec![Arc::new(ScalarUDF::from(kv::Kv::new()))]
}

/// The names of all functions, in order.
pub fn functions() -> Vec<String> {
    let state = SessionStateBuilder::new()
        .with_scalar_functions(own())
        .with_default_features()
        .build();
    let names = state.scalar_functions().keys();
    let names = names.chain(state.aggregate_functions().keys());
    let mut names: Vec<String> = names.chain(state.window_functions().keys()).cloned().collect();
    names.sort_unstable();
    names.dedup();
    names
}

#[cfg(test)]
mod tests {
    #[test]
    fn all_kinds_are_there() {
        let names = super::functions();
        for name in ["date_bin", "approx_distinct", "row_number", "count", "kv"] {
            assert!(names.iter().any(|known| known == name), "{name}");
        }
        assert!(names.is_sorted());
    }
}
