//! Datasets.

use api::{Malformed, v1};
use model::table::{Column, ColumnType};
use storage::{Dataset, Limits};

use super::name;
use crate::{AddReport, Adding, Changes, FileReport, Source, What};

/// Bytes of a block where nobody says how many.
const BLOCK_BYTES: u64 = 8 << 20;

/// A dataset.
pub fn dataset_message(dataset: &Dataset) -> v1::Dataset {
    v1::Dataset {
        name: dataset.name.to_string(),
        id: dataset.id.to_string(),
        first: dataset.first,
        blocks: dataset.blocks,
        bytes: dataset.bytes,
        created_ms: dataset.created_ms,
        keep_ms: dataset.limits.keep_ms,
        max_bytes: dataset.limits.max_bytes,
        left_ms: dataset.left_ms,
        left_bytes: dataset.left_bytes,
        table: dataset.table.as_ref().map(Into::into),
        table_why: dataset.table_why.clone(),
        table_revision: dataset.table_revision,
        generation: dataset.generation,
        void: dataset.void,
        compacting: dataset.compacting,
        cut: dataset.cut,
    }
}

/// A dataset.
///
/// # Errors
/// What does not fit.
pub fn dataset(message: v1::Dataset) -> Result<Dataset, Malformed> {
    Ok(Dataset {
        name: name("name", &message.name)?,
        id: message.id.parse().map_err(|error| Malformed::new("id", error))?,
        first: message.first,
        blocks: message.blocks,
        bytes: message.bytes,
        limits: Limits {
            keep_ms: message.keep_ms,
            max_bytes: message.max_bytes,
        },
        left_bytes: message.left_bytes,
        left_ms: message.left_ms,
        created_ms: message.created_ms,
        table: message.table.map(TryInto::try_into).transpose()?,
        table_why: message.table_why,
        table_revision: message.table_revision,
        // Who asks over the network plans nothing.
        looked_at: message.blocks,
        generation: message.generation,
        void: message.void,
        compacting: message.compacting,
        cut: message.cut,
        // The mill's own.
        compact_below: 0,
        last: None,
    })
}

fn columns(types: &[(String, ColumnType)]) -> Vec<v1::Column> {
    let column = |(name, kind): &(String, ColumnType)| Column {
        name: name.clone(),
        kind: *kind,
    };
    types.iter().map(|one| (&column(one)).into()).collect()
}

/// Columns and their types.
///
/// # Errors
/// A type that is none.
pub fn types(columns: Vec<v1::Column>) -> Result<Vec<(String, ColumnType)>, Malformed> {
    let column = |column| Column::try_from(column).map(|Column { name, kind }| (name, kind));
    columns.into_iter().map(column).collect()
}

/// Files that are to be added.
pub fn adding_message(adding: &Adding) -> v1::AddFilesRequest {
    v1::AddFilesRequest {
        dataset: adding.dataset.to_string(),
        places: adding
            .sources
            .iter()
            .map(|source| source.as_str().to_string())
            .collect(),
        block_size: Some(adding.block_size),
        format: adding.format.clone(),
        types: columns(&adding.types),
        again: adding.again,
        force: adding.force,
    }
}

/// Files that are to be added.
///
/// # Errors
/// A path that is not absolute; what else does not fit.
pub fn adding(message: v1::AddFilesRequest) -> Result<Adding, Malformed> {
    let source = |place: &String| source("places", place);
    Ok(Adding {
        dataset: name("dataset", &message.dataset)?,
        sources: message.places.iter().map(source).collect::<Result<_, _>>()?,
        block_size: block_size(message.block_size),
        format: message.format,
        types: types(message.types)?,
        again: message.again,
        force: message.force,
    })
}

/// A file or an object.
///
/// # Errors
/// A path that is not absolute.
pub fn source(field: &'static str, place: &str) -> Result<Source, Malformed> {
    // One that is relative would mean a place of this process.
    if !place.starts_with('/') && !place.contains("://") {
        let why = format!("{place:?} is neither an absolute path nor a URL");
        return Err(Malformed::new(field, why));
    }
    Source::parse(place).map_err(|error| Malformed::new(field, error))
}

/// How large the blocks of a refresh are.
pub fn block_size(given: Option<u64>) -> u64 {
    given.unwrap_or(BLOCK_BYTES)
}

/// What became of a file.
pub fn report_message(report: &FileReport) -> v1::FileReport {
    v1::FileReport {
        file: report.file.clone(),
        what: report.what.as_str().into(),
        bytes: report.bytes,
        why: report.why.clone().unwrap_or_default(),
    }
}

/// What became of a file.
///
/// # Errors
/// A word that is none.
pub fn report(message: v1::FileReport) -> Result<FileReport, Malformed> {
    let what = What::read(&message.what);
    Ok(FileReport {
        file: message.file,
        what: what.ok_or_else(|| Malformed::new("what", format!("{:?} is none", message.what)))?,
        bytes: message.bytes,
        why: Some(message.why).filter(|why| !why.is_empty()),
    })
}

/// What was added.
pub fn added_message(report: &AddReport) -> v1::AddFilesReply {
    let again = report.reports.iter().filter(|one| one.what == What::Again);
    v1::AddFilesReply {
        dataset: Some(dataset_message(&report.dataset)),
        files: report.files as u64,
        blocks: report.blocks,
        bytes: report.bytes,
        repeated: again.map(|one| one.file.clone()).collect(),
        reports: report.reports.iter().map(report_message).collect(),
        // Names and numbers, which JSON always takes.
        learned_json: serde_json::to_string(&report.learned).unwrap_or_default(),
    }
}

/// What was added.
///
/// # Errors
/// What does not fit.
pub fn read_added(message: v1::AddFilesReply) -> Result<AddReport, Malformed> {
    let added = message
        .dataset
        .ok_or_else(|| Malformed::new("dataset", "it is missing"))?;
    let learned = serde_json::from_str(&message.learned_json);
    Ok(AddReport {
        dataset: dataset(added)?,
        files: usize::try_from(message.files).unwrap_or(usize::MAX),
        blocks: message.blocks,
        bytes: message.bytes,
        reports: message
            .reports
            .into_iter()
            .map(self::report)
            .collect::<Result<_, _>>()?,
        learned: learned.map_err(|error| Malformed::new("learned_json", error))?,
    })
}

/// What is to change of a dataset.
pub fn changes_message(name: &str, changes: &Changes) -> v1::SetDatasetRequest {
    let limit = |limit: Option<Option<u64>>| limit.map(|most| v1::Limit { most });
    v1::SetDatasetRequest {
        name: name.into(),
        keep_ms: limit(changes.keep_ms),
        max_bytes: limit(changes.max_bytes),
        types: columns(&changes.types),
    }
}

/// What is to change of a dataset.
///
/// # Errors
/// A type that is none.
pub fn changes(message: v1::SetDatasetRequest) -> Result<Changes, Malformed> {
    Ok(Changes {
        keep_ms: message.keep_ms.map(|limit| limit.most),
        max_bytes: message.max_bytes.map(|limit| limit.most),
        types: types(message.types)?,
    })
}

#[cfg(test)]
mod tests {
    use model::{
        Name,
        table::{Format, Table},
    };

    use super::*;

    #[test]
    fn datasets_come_back_as_they_were() {
        let whole = Dataset {
            name: Name::new("access").unwrap(),
            id: uuid::Uuid::from_u128(9),
            first: 1,
            blocks: 2,
            bytes: 3,
            limits: Limits {
                keep_ms: Some(4),
                max_bytes: Some(5),
            },
            left_bytes: 6,
            left_ms: Some(7),
            created_ms: 8,
            table: Some(Table {
                format: Format::Json,
                columns: Vec::new(),
                least: None,
            }),
            table_why: Some("so".into()),
            table_revision: 10,
            looked_at: 2,
            generation: 11,
            void: 1,
            compacting: true,
            compact_below: 0,
            cut: 12,
            last: None,
        };
        assert_eq!(dataset(dataset_message(&whole)).unwrap(), whole);
        let forever = Changes {
            keep_ms: Some(None),
            max_bytes: None,
            types: vec![("took".into(), ColumnType::Float)],
        };
        let back = changes(changes_message("access", &forever)).unwrap();
        assert_eq!(
            (back.keep_ms, back.max_bytes, back.types),
            (Some(None), None, forever.types)
        );
    }

    #[test]
    fn a_relative_path_would_mean_another_place() {
        let message = |place: &str| v1::AddFilesRequest {
            dataset: "access".into(),
            places: vec![place.into()],
            ..Default::default()
        };
        assert!(adding(message("/var/log/x")).is_ok());
        assert!(adding(message("s3://logs/x")).is_ok());
        assert!(adding(message("x.log")).is_err());
        assert!(adding(message("../x.log")).is_err());
    }
}
