//! `sawmill dataset set`: what holds for a dataset that is there.

use std::str::FromStr;

use clap::Args;
use control::Changes;
use model::Name;
#[cfg(feature = "sql")]
use model::table::ColumnType;

use super::{View, show};
use crate::{cli, commands::Context, exit::usage, output};

const HELP: &str = "\
With --keep and --max-bytes the oldest blocks leave the dataset: those whose files have not changed for so long, and \
those that are too many. Blocks leave in the order in which they were added, so that one that stays keeps all that came \
after it. What is recorded of them goes too, once no unfinished job runs over them. Files stay where they are.

What is recorded of queries that read a column whose type changes is not used again.

Examples:
  sawmill dataset set access --keep 30d --max-bytes 1TB
  sawmill dataset set access --keep none
  sawmill dataset set app --types zip=text,took=float";

/// `sawmill dataset set`.
#[derive(Clone, Debug, Args)]
#[command(after_help = HELP)]
pub struct SetArgs {
    /// Of the dataset
    name: Name,
    /// How long blocks stay after their lines were written, such as 30d; none: for ever
    #[arg(long, value_name = "TIME", value_parser = limit::<Age>)]
    keep: Option<Limit<Age>>,
    /// Bytes of all blocks together, as stored; none: any number
    #[arg(long, value_name = "SIZE", value_parser = limit::<Bytes>)]
    max_bytes: Option<Limit<Bytes>>,
    /// Types of columns: text, integer, float, boolean or timestamp
    #[cfg(feature = "sql")]
    #[arg(long, value_name = "COLUMN=TYPE,…", value_delimiter = ',', value_parser = super::typed)]
    types: Vec<(String, ColumnType)>,
}

/// A limit, or the end of one.
#[derive(Clone, Copy, Debug)]
struct Limit<T>(Option<T>);

/// In milliseconds.
#[derive(Clone, Copy, Debug)]
struct Age(u64);

#[derive(Clone, Copy, Debug)]
struct Bytes(u64);

impl FromStr for Age {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let age = cli::span(text)?;
        Ok(Self(u64::try_from(age.as_millis()).unwrap_or(u64::MAX)))
    }
}

impl FromStr for Bytes {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        cli::size(text).map(Self)
    }
}

/// For clap.
fn limit<T: FromStr<Err = String>>(text: &str) -> Result<Limit<T>, String> {
    match text {
        "none" => Ok(Limit(None)),
        _ => text.parse().map(|limit| Limit(Some(limit))),
    }
}

/// Runs the command.
///
/// # Errors
/// An unknown dataset or column; what can't be reached.
pub(super) async fn run(args: SetArgs, context: &Context) -> anyhow::Result<()> {
    let control = context.control().await?;
    let changes = Changes {
        keep_ms: args.keep.map(|keep| keep.0.map(|age| age.0)),
        max_bytes: args.max_bytes.map(|most| most.0.map(|bytes| bytes.0)),
        #[cfg(feature = "sql")]
        types: args.types,
        #[cfg(not(feature = "sql"))]
        types: Vec::new(),
    };
    if changes.keep_ms.is_none() && changes.max_bytes.is_none() && changes.types.is_empty() {
        control.dataset(&args.name).await?;
        return Err(usage("nothing to set: see `sawmill dataset set --help`"));
    }
    let dataset = control.set_dataset(&args.name, &changes).await?;
    context
        .log("dataset.set", args.name.as_str(), format!("{changes:?}"))
        .await?;
    if context.json() {
        return output::json(&serde_json::json!({ "dataset": View::from(&dataset) }));
    }
    let keeps = show::limits(&dataset).unwrap_or_else(|| "everything".into());
    output::line(format_args!("dataset {} is changed; it keeps {keeps}", args.name))
}
