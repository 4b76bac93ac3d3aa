//! What became of files that were added to a dataset, for people.

use control::{FileReport, What};
use model::Name;

use crate::output;

/// Tells what is not to be expected of files.
pub(super) fn tell(dataset: &Name, reports: &[FileReport]) {
    for report in reports {
        if let Some(text) = text(dataset, report) {
            output::note(format_args!("dataset {dataset}: {text}"));
        }
    }
}

fn text(dataset: &Name, report: &FileReport) -> Option<String> {
    let FileReport { file, bytes, why, .. } = report;
    let why = why.as_deref().unwrap_or_default();
    let remove = format!("`sawmill dataset remove {dataset} --file {file}` takes its blocks out");
    Some(match report.what {
        What::Added => return None,
        What::Unchanged => format!("{file} is in it already and has not changed"),
        What::Again => format!("{file} is in it already, its lines count once more now"),
        What::Tail => format!(
            "{file} has grown: {} from behind its end are added; `sawmill agent` follows logs that are written to",
            output::size(*bytes)
        ),
        What::Grown => format!(
            "{file} has grown by {}, which queries do not count: `sawmill dataset refresh {dataset}` adds that, \
             `sawmill agent` follows logs that are written to",
            output::size(*bytes)
        ),
        What::Renamed => format!("{file} is what {why} was, and is read in its place now"),
        What::InPlaceOfAnother => format!(
            "{file} was another file when it was added before, whose blocks can't be read any more: add that one under the \
             name that it has now, or take out the blocks of both with `sawmill dataset remove {dataset} --file {file}` and add this one \
             again"
        ),
        What::Changed => format!("{why}: {remove}, `sawmill dataset add` takes what is there now"),
        What::Gone => {
            format!("{why}: {remove}, `sawmill dataset add` takes it under the name that it has now")
        }
        What::Elsewhere => format!("{file} can't be looked at from here"),
    })
}

/// Files of which nothing is to be done.
pub(super) fn count(reports: &[FileReport], what: What) -> u64 {
    reports.iter().filter(|report| report.what == what).count() as u64
}
