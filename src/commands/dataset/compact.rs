//! `sawmill dataset compact`.

use std::time::{Duration, Instant};

use clap::Args;
use model::Name;

use super::View;
use crate::{commands::Context, output};

const HELP: &str = "\
Agents cut a block of a quiet log every few seconds, and each costs a query about a millisecond. The leading dispatcher \
merges runs of such blocks into larger ones by itself, once they are a minute old and many enough. This asks for it now, \
whatever becomes fewer blocks, and waits until that is done.

Lines and where they are from stay the same; the numbers of blocks do too, but those that were merged are void. Jobs that \
run read on what was there when they were submitted. Only blocks that agents shipped into the block store are merged, \
never files that were added.

Examples:
  sawmill dataset compact access";

/// How often it is looked whether it is done.
const LOOK: Duration = Duration::from_millis(200);
/// How long that may take before the user is told what is waited for.
const PATIENCE: Duration = Duration::from_secs(10);

/// `sawmill dataset compact`.
#[derive(Clone, Debug, Args)]
#[command(after_help = HELP)]
pub struct CompactArgs {
    /// Of the dataset
    name: Name,
}

/// Runs the command.
///
/// # Errors
/// An unknown dataset, or one that is removed meanwhile; what can't be reached.
pub(super) async fn run(args: CompactArgs, context: &Context) -> anyhow::Result<()> {
    let control = context.control().await?;
    let before = control.compact_dataset(&args.name).await?;
    context
        .log("dataset.compact", args.name.as_str(), before.id.to_string())
        .await?;
    let begun = Instant::now();
    let mut is_told = false;
    let after = loop {
        let now = control.dataset(&args.name).await?;
        if now.id != before.id || !now.compacting {
            break now;
        }
        if !is_told && begun.elapsed() > PATIENCE {
            is_told = true;
            output::note("the leading dispatcher is at it; `sawmill status` tells whether there is one");
        }
        tokio::time::sleep(LOOK).await;
    };
    let compactions = after.generation.saturating_sub(before.generation);
    if context.json() {
        return output::json(&serde_json::json!({
            "dataset": View::from(&after), "blocks_before": before.count(), "compactions": compactions,
        }));
    }
    let became = output::counted(before.count().into(), "block");
    output::line(match compactions {
        0 => format!("dataset {}: {became}, nothing to merge", args.name),
        _ => format!(
            "dataset {}: {became} became {}",
            args.name,
            output::grouped(after.count().into())
        ),
    })
}
