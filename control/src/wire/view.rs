//! Views.

use api::{Malformed, v1};
use model::view::ViewState;

use super::name;
use crate::{ViewDataset, ViewLeftOut, ViewReport};

/// What is wanted of a view.
pub fn view_state_message(state: ViewState) -> v1::ViewState {
    match state {
        ViewState::Active => v1::ViewState::Active,
        ViewState::Paused => v1::ViewState::Paused,
        ViewState::Removed => v1::ViewState::Removed,
    }
}

/// What is wanted of a view.
///
/// # Errors
/// A state that is none.
pub fn view_state(number: i32) -> Result<ViewState, Malformed> {
    match v1::ViewState::try_from(number) {
        Ok(v1::ViewState::Active) => Ok(ViewState::Active),
        Ok(v1::ViewState::Paused) => Ok(ViewState::Paused),
        Ok(v1::ViewState::Removed) => Ok(ViewState::Removed),
        _ => Err(Malformed::new("state", "it is none")),
    }
}

/// A view.
pub fn view_message(view: &ViewReport) -> v1::View {
    let datasets = view.datasets.iter().map(|dataset| v1::ViewDataset {
        name: dataset.name.clone(),
        covered: dataset
            .covered
            .iter()
            .map(|range| v1::BlockRange {
                first: range.start,
                end: range.end,
            })
            .collect(),
        unknown_columns: dataset.unknown_columns.clone(),
    });
    let left_out = view.left_out.iter().map(|out| v1::ViewLeftOut {
        dataset: out.dataset.clone(),
        block: out.block,
        why: out.why.clone(),
    });
    v1::View {
        name: view.name.to_string(),
        state: view_state_message(view.state).into(),
        sql: view.sql.clone(),
        every_ms: view.every_ms,
        priority: view.priority.get().into(),
        datasets: datasets.collect(),
        lag_blocks: view.lag_blocks,
        left_out: left_out.collect(),
        merged_by: view.merged_by.clone(),
        under_way: view.under_way.clone(),
        created_ms: view.created_ms,
        refreshed_ms: view.refreshed_ms,
        failures: view.failures,
        error: view.error.clone(),
        id: view.id.to_string(),
        rows: view.rows,
        database: view.database.clone(),
    }
}

/// A view.
///
/// # Errors
/// What does not fit.
pub fn view(message: v1::View) -> Result<ViewReport, Malformed> {
    let datasets = message.datasets.into_iter().map(|dataset| ViewDataset {
        name: dataset.name,
        covered: dataset
            .covered
            .iter()
            .map(|range| range.first..range.end)
            .collect(),
        unknown_columns: dataset.unknown_columns,
    });
    let left_out = message.left_out.into_iter().map(|out| ViewLeftOut {
        dataset: out.dataset,
        block: out.block,
        why: out.why,
    });
    Ok(ViewReport {
        name: name("name", &message.name)?,
        id: message.id.parse().map_err(|error| Malformed::new("id", error))?,
        state: view_state(message.state)?,
        sql: message.sql,
        every_ms: message.every_ms,
        priority: api::priority(Some(message.priority))?,
        datasets: datasets.collect(),
        lag_blocks: message.lag_blocks,
        left_out: left_out.collect(),
        merged_by: message.merged_by,
        under_way: message.under_way,
        created_ms: message.created_ms,
        refreshed_ms: message.refreshed_ms,
        failures: message.failures,
        error: message.error,
        rows: message.rows,
        database: message.database,
    })
}

#[cfg(test)]
mod tests {
    use model::{Name, Priority};

    use super::*;

    #[test]
    fn views_come_back_as_they_were() {
        let whole = ViewReport {
            name: Name::new("by_status").unwrap(),
            id: uuid::Uuid::from_u128(5),
            state: ViewState::Paused,
            sql: "SELECT 1".into(),
            every_ms: 1,
            priority: Priority::new(7).unwrap(),
            datasets: vec![ViewDataset {
                name: "access".into(),
                covered: vec![0..3, 5..6],
                unknown_columns: vec!["took".into()],
            }],
            lag_blocks: 2,
            left_out: vec![ViewLeftOut {
                dataset: "access".into(),
                block: 4,
                why: "gone".into(),
            }],
            merged_by: Some("a".into()),
            under_way: Some("b".into()),
            created_ms: 3,
            refreshed_ms: Some(4),
            failures: 6,
            error: Some("c".into()),
            rows: Some(8),
            database: "mill".into(),
        };
        assert_eq!(view(view_message(&whole)).unwrap(), whole);
    }
}
