//! What was learned of files, for people.

use control::{KeptAsText, Lesson, Misfit, NewColumn, Unfit};
use model::table::Format;
use storage::Dataset;

use crate::output;

/// Tells people what was learned of the files that were added to a dataset.
pub(super) fn tell(lesson: &Lesson, dataset: &Dataset) {
    let name = &dataset.name;
    if let (Some(format), Some(why)) = (&lesson.format, &lesson.why) {
        let what = if format == "parquet" { "files" } else { "lines" };
        let hint = if why == sql::NAMED {
            ""
        } else {
            "; --format says otherwise"
        };
        output::note(format_args!(
            "dataset {name}: its {what} are taken as {format} ({why}{hint})"
        ));
    }
    for note in &lesson.notes {
        output::note(format_args!("dataset {name}: {note}"));
    }
    for NewColumn {
        name: column,
        kind,
        file,
    } in &lesson.columns
    {
        output::note(format_args!(
            "dataset {name}: a new column {column} {}, from {file}",
            kind.name()
        ));
    }
    for KeptAsText { column, example, why } in &lesson.kept_as_text {
        output::note(format_args!(
            "dataset {name}: column {column} is text: {example:?} {why}"
        ));
    }
    if lesson.left_out > 0 {
        output::note(format_args!(
            "dataset {name}: {} more are in the lines than become columns; `sawmill dataset set {name} --types COLUMN=text` adds \
             one",
            output::counted(lesson.left_out as u64, "name")
        ));
    }
    let table = dataset.table.as_ref();
    let has_lines = table.is_none_or(|table| table.format != Format::Parquet);
    for Misfit {
        file,
        column,
        known,
        found,
    } in &lesson.changed
    {
        let (known, found) = (known.name(), found.name());
        let line = if has_lines { " and the line in _raw" } else { "" };
        output::note(format_args!(
            "warning: column {column} is {found} in {file} and {known} in dataset {name}: what does not fit is null, \
             with the reason in _error{line}; `sawmill dataset set {name} --types {column}=text` takes all"
        ));
    }
    for Unfit {
        file,
        format,
        fit,
        of,
    } in &lesson.unfit
    {
        output::note(format_args!(
            "warning: of the first {of} lines of {file} only {fit} are {format}, as those of dataset {name}: the others \
             are rows with _raw and _error alone"
        ));
    }
}
