//! `sawmill dataset refresh`.

use clap::Args;
use control::What;
use model::Name;

use super::{View, files};
use crate::{cli, commands::Context, output};

const HELP: &str = "\
A dataset has of a file what that had when it was added. This adds what has come behind the ends of files since, and tells \
which were written anew, are gone, or are as they were. A line that was not finished then becomes whole: its block is cut anew, \
in the same revision. `sawmill dataset undo` takes it back.

Logs that are being written to are better followed by `sawmill agent`, which ships each line within seconds, also across \
rotations.

Examples:
  sawmill dataset refresh access";

/// `sawmill dataset refresh`.
#[derive(Clone, Debug, Args)]
#[command(after_help = HELP)]
pub struct RefreshArgs {
    /// Of the dataset
    name: Name,
    /// Bytes of a block [default: 8MiB]
    #[arg(long, value_name = "SIZE", value_parser = cli::size)]
    block_size: Option<u64>,
}

/// Runs the command.
///
/// # Errors
/// An unknown dataset; what can't be read or reached; then nothing was changed.
pub(super) async fn run(args: RefreshArgs, context: &Context) -> anyhow::Result<()> {
    let block_size = args.block_size.unwrap_or(context.settings.block_size);
    control::check_block_size(block_size)?;
    let control = context.control().await?;
    let added = control.refresh_dataset(&args.name, block_size).await?;
    context
        .log(
            "dataset.refresh",
            args.name.as_str(),
            format!("{} bytes", added.bytes),
        )
        .await?;
    if context.json() {
        return output::json(&serde_json::json!({
            "dataset": View::from(&added.dataset),
            "added": { "files": added.files, "blocks": added.blocks, "bytes": added.bytes },
            "files": added.reports,
        }));
    }
    let told = added
        .reports
        .iter()
        .filter(|report| report.what != What::Unchanged);
    files::tell(&args.name, &told.cloned().collect::<Vec<_>>());
    let counted = [
        (What::Tail, "grown"),
        (What::Unchanged, "unchanged"),
        (What::Changed, "changed"),
        (What::Gone, "gone"),
        (What::Elsewhere, "not looked at"),
    ];
    let counted = counted.map(|(what, word)| (files::count(&added.reports, what), word));
    let counted = counted.iter().filter(|(count, _)| *count > 0);
    let counted: Vec<String> = counted
        .map(|(count, word)| format!("{} {word}", output::grouped(*count)))
        .collect();
    output::line(format_args!(
        "dataset {}: added {}, {} (files: {})",
        args.name,
        output::counted(added.blocks.into(), "block"),
        output::size(added.bytes),
        match counted.is_empty() {
            true => "none".to_string(),
            false => counted.join(", "),
        }
    ))
}
