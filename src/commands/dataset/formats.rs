//! `sawmill dataset formats`: what lines may be.

use clap::Args;
use model::table::{Column, ColumnType, Reads};
use serde::Serialize;
use sql::formats::{self, Listed};

use crate::{commands::Context, output};

const HELP: &str = "\
A format is detected from the first lines of a file, or named with `sawmill dataset add --format NAME`. Formats of your own \
are tables [[formats]] in sawmill.toml, on this machine and on the dispatchers: see docs/formats.md.

Examples:
  sawmill dataset formats
  sawmill dataset formats nginx_error";

/// `sawmill dataset formats`.
#[derive(Clone, Debug, Args)]
#[command(after_help = HELP)]
pub struct FormatsArgs {
    /// Of a format
    name: Option<String>,
}

#[derive(Serialize)]
struct View<'a> {
    name: &'a str,
    about: &'a str,
    reference: Option<&'a str>,
    columns: Vec<ColumnView<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pattern: Option<&'a str>,
    samples: &'a [String],
}

#[derive(Serialize)]
struct ColumnView<'a> {
    name: &'a str,
    #[serde(rename = "type")]
    kind: ColumnType,
    /// Its path, where it is a member of an object.
    #[serde(skip_serializing_if = "Option::is_none")]
    path: Option<&'a str>,
    /// What it is in the samples; null where it is in none.
    example: Option<&'a str>,
}

impl<'a> From<&'a Listed> for View<'a> {
    fn from(listed: &'a Listed) -> Self {
        let (mut paths, mut pattern) = (None, None);
        match &listed.reads {
            Some(Reads::Pattern(text)) => pattern = Some(text.as_str()),
            Some(Reads::Members(members)) => paths = Some(members),
            Some(Reads::Directives { .. }) | None => {}
        }
        let columns = listed.columns.iter().zip(&listed.examples).enumerate();
        let column = |(place, (column, example)): (usize, (&'a Column, &'a Option<String>))| ColumnView {
            name: &column.name,
            kind: column.kind,
            path: paths.and_then(|paths| paths.get(place)).map(String::as_str),
            example: example.as_deref(),
        };
        Self {
            name: &listed.name,
            about: &listed.about,
            reference: listed.reference.as_deref(),
            columns: columns.map(column).collect(),
            pattern,
            samples: &listed.samples,
        }
    }
}

/// Runs the command.
///
/// # Errors
/// An unknown format; when standard output can't be written.
pub(super) fn run(args: FormatsArgs, context: &Context) -> anyhow::Result<()> {
    let all = formats::all();
    match &args.name {
        Some(name) => match all.iter().find(|listed| listed.name == *name) {
            Some(listed) => show(&View::from(listed), context),
            None => Err(crate::exit::usage(format!(
                "no format is called {name:?}: `sawmill dataset formats` lists all"
            ))),
        },
        None => list(&all.iter().map(View::from).collect::<Vec<_>>(), context),
    }
}

fn list(all: &[View<'_>], context: &Context) -> anyhow::Result<()> {
    if context.json() {
        return output::json(&all);
    }
    let rows = all.iter().map(|view| {
        let columns: Vec<&str> = view.columns.iter().map(|column| column.name).collect();
        let columns = match columns[..] {
            [] => "those that the lines have".to_string(),
            _ => columns.join(", "),
        };
        [view.name.to_string(), view.about.to_string(), columns]
    });
    output::table(&["NAME", "LINES OF", "COLUMNS"], rows)
}

fn show(view: &View<'_>, context: &Context) -> anyhow::Result<()> {
    if context.json() {
        return output::json(view);
    }
    let mut pairs = vec![
        ("format", view.name.to_string()),
        ("lines of", view.about.to_string()),
    ];
    pairs.extend(
        view.reference
            .map(|reference| ("described at", reference.to_string())),
    );
    pairs.extend(view.pattern.map(|pattern| ("pattern", pattern.to_string())));
    output::pairs(&pairs)?;
    output::line("")?;
    view.samples.iter().try_for_each(output::line)?;
    if view.columns.is_empty() {
        return Ok(());
    }
    output::line("")?;
    let rows = view.columns.iter().map(|column| {
        let example = column.example.unwrap_or_default().to_string();
        [
            column.name.to_string(),
            column.kind.name().to_string(),
            column.path.unwrap_or_default().to_string(),
            example,
        ]
    });
    if view.columns.iter().any(|column| column.path.is_some()) {
        return output::table(&["COLUMN", "TYPE", "MEMBER", "EXAMPLE"], rows);
    }
    let rows = rows.map(|[name, kind, _, example]| [name, kind, example]);
    output::table(&["COLUMN", "TYPE", "EXAMPLE"], rows)
}
