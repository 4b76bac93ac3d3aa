//! `sawmill dataset undo`.

use clap::Args;
use model::Name;

use super::View;
use crate::{commands::Context, output};

const HELP: &str = "\
What one `sawmill dataset add` or `refresh` adds is one revision. This takes the last one back: its blocks, and the columns that \
came with them; a dataset that was made so is removed. The files stay as they are. It is refused once something else has changed \
the dataset since: blocks that agents shipped or that were merged, types of columns, blocks that were taken out.

Examples:
  sawmill dataset undo access";

/// `sawmill dataset undo`.
#[derive(Clone, Debug, Args)]
#[command(after_help = HELP)]
pub struct UndoArgs {
    /// Of the dataset
    name: Name,
}

/// Runs the command.
///
/// # Errors
/// An unknown dataset; what has changed since; what can't be reached.
pub(super) async fn run(args: UndoArgs, context: &Context) -> anyhow::Result<()> {
    let control = context.control().await?;
    let undone = control.undo_add(&args.name).await?;
    context
        .log(
            "dataset.undo",
            args.name.as_str(),
            format!("{} blocks", undone.blocks),
        )
        .await?;
    if context.json() {
        return output::json(&serde_json::json!({
            "dataset": undone.dataset.as_ref().map(View::from),
            "taken_out": { "blocks": undone.blocks, "bytes": undone.bytes },
            "back": undone.back,
        }));
    }
    let blocks = output::counted(undone.blocks.into(), "block");
    let size = output::size(undone.bytes);
    let back = match undone.back {
        0 => String::new(),
        back => format!(
            "; {} that these had replaced count again",
            output::counted(back.into(), "block")
        ),
    };
    let left = match &undone.dataset {
        Some(dataset) => format!("it has {} now", output::counted(dataset.count().into(), "block")),
        None => "it was made by that, and is removed".to_string(),
    };
    output::line(format_args!(
        "dataset {}: took back {blocks}, {size}{back}; {left}",
        args.name
    ))
}
