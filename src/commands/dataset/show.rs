//! `sawmill dataset show`.

use clap::Args;
use model::{Block, Codec, Content, Name};

use super::View;
use crate::{commands::Context, output};

/// `sawmill dataset show`.
#[derive(Clone, Debug, Args)]
pub struct ShowArgs {
    /// Of the dataset
    name: Name,
    /// How many blocks to list
    #[arg(long, value_name = "N", default_value_t = 20)]
    limit: u32,
}

/// Runs the command.
///
/// # Errors
/// An unknown dataset; what can't be reached.
pub(super) async fn run(args: ShowArgs, context: &Context) -> anyhow::Result<()> {
    let control = context.control().await?;
    let dataset = control.dataset(&args.name).await?;
    let blocks = control
        .store()
        .blocks(dataset.id, 0..dataset.blocks.min(args.limit))
        .await?;
    if context.json() {
        return output::json(&serde_json::json!({ "dataset": View::from(&dataset), "blocks": blocks }));
    }
    let mut pairs = vec![
        ("name", dataset.name.to_string()),
        ("id", dataset.id.to_string()),
        ("blocks", output::grouped(dataset.blocks.into())),
        (
            "size",
            format!(
                "{} ({} bytes)",
                output::size(dataset.bytes),
                output::grouped(dataset.bytes)
            ),
        ),
        ("created", output::time(dataset.created_ms)),
    ];
    if let Some(table) = &dataset.table {
        let columns = super::columns(table).map(|(name, kind)| format!("{name} {}", kind.name()));
        pairs.push(("format", table.format.name()));
        pairs.push(("columns", columns.collect::<Vec<_>>().join(", ")));
    }
    output::pairs(&pairs)?;
    if blocks.is_empty() {
        return Ok(());
    }
    output::line("")?;
    let rows = blocks.iter().enumerate().map(|(index, block)| row(index, block));
    output::table(&[">BLOCK", ">START", ">END", "OBJECT"], rows)?;
    if u64::from(dataset.blocks) > blocks.len() as u64 {
        output::line(format_args!(
            "… and {} more (--limit)",
            u64::from(dataset.blocks) - blocks.len() as u64
        ))?;
    }
    Ok(())
}

fn row(index: usize, block: &Block) -> [String; 4] {
    let [start, end, url] = match &block.content {
        Content::Inline(payload) => ["0".into(), payload.0.len().to_string(), "(inline)".into()],
        Content::Object {
            url,
            start,
            end,
            codec,
            ..
        } => {
            let codec = if *codec == Codec::None {
                String::new()
            } else {
                format!(" ({codec:?})").to_lowercase()
            };
            [start.to_string(), end.to_string(), format!("{url}{codec}")]
        }
    };
    [index.to_string(), start, end, url]
}
