//! `sawmill dataset show`.

use std::{collections::BTreeMap, time::Duration};

use clap::Args;
use control::{FileReport, What};
use model::{Block, Codec, Content, Name};
use serde::Serialize;
use storage::Dataset;

use super::View;
use crate::{commands::Context, output};

/// Blocks that are looked through for the nodes that keep them.
const MOST_COUNTED: u32 = 50_000;

/// `sawmill dataset show`.
#[derive(Clone, Debug, Args)]
pub struct ShowArgs {
    /// Of the dataset
    name: Name,
    /// How many blocks to list
    #[arg(long, value_name = "N", default_value_t = 20)]
    limit: u32,
}

#[derive(Serialize)]
struct Numbered<'a> {
    number: u32,
    #[serde(flatten)]
    block: &'a Block,
}

/// Runs the command.
///
/// # Errors
/// An unknown dataset; what can't be reached.
pub(super) async fn run(args: ShowArgs, context: &Context) -> anyhow::Result<()> {
    let control = context.control().await?;
    let dataset = control.dataset(&args.name).await?;
    let mut blocks = control.first_blocks(&dataset, args.limit).await?;
    let mut kept = by_node(&blocks);
    if !kept.is_empty() && dataset.count() > args.limit {
        let more = control
            .first_blocks(&dataset, MOST_COUNTED.max(args.limit))
            .await?;
        kept = by_node(&more);
        blocks = more.into_iter().take(args.limit as usize).collect();
    }
    // Shown without it where it can't be told.
    let files = control.look_at_files(&args.name).await.unwrap_or_default();
    let files: Vec<FileReport> = files.into_iter().filter(is_of_interest).collect();
    if context.json() {
        let blocks = blocks.iter().map(|(number, block)| Numbered {
            number: *number,
            block,
        });
        let blocks: Vec<Numbered<'_>> = blocks.collect();
        let mut shown = serde_json::json!({ "dataset": View::from(&dataset), "blocks": blocks });
        if !kept.is_empty() {
            shown["kept"] = serde_json::json!(kept);
        }
        if !files.is_empty() {
            shown["files"] = serde_json::json!(files);
        }
        return output::json(&shown);
    }
    let mut pairs = vec![
        ("name", dataset.name.to_string()),
        ("id", dataset.id.to_string()),
        ("blocks", output::grouped(dataset.count().into())),
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
    if !kept.is_empty() {
        let nodes = kept
            .iter()
            .map(|(node, blocks)| format!("{} on {node}", output::grouped(*blocks)));
        let of = if dataset.count() > MOST_COUNTED {
            " (of the first blocks)"
        } else {
            ""
        };
        pairs.push(("kept", nodes.collect::<Vec<_>>().join(", ") + of));
    }
    pairs.extend(compacted(&dataset).map(|compacted| ("compacted", compacted)));
    pairs.extend(limits(&dataset).map(|limits| ("keeps", limits)));
    pairs.extend(left(&dataset).map(|left| ("left", left)));
    if let Some(table) = &dataset.table {
        let columns = super::columns(table).map(|(name, kind)| format!("{name} {}", kind.name()));
        pairs.push(("format", table.format.name()));
        pairs.push(("columns", columns.collect::<Vec<_>>().join(", ")));
    }
    output::pairs(&pairs)?;
    super::files::tell(&args.name, &files);
    if blocks.is_empty() {
        return Ok(());
    }
    output::line("")?;
    let rows = blocks.iter().map(|(number, block)| row(*number, block));
    output::table(&[">BLOCK", ">START", ">END", "OBJECT"], rows)?;
    let more = u64::from(dataset.count()).saturating_sub(blocks.len() as u64);
    if more > 0 {
        output::line(format_args!("… and {more} more (--limit)"))?;
    }
    Ok(())
}

/// Files that are not what they were when they were added.
fn is_of_interest(file: &FileReport) -> bool {
    matches!(file.what, What::Grown | What::Changed | What::Gone)
}

/// How many of these blocks each node keeps in a directory of its own, each copy counted.
fn by_node(blocks: &[(u32, Block)]) -> BTreeMap<String, u64> {
    let mut kept = BTreeMap::new();
    for host in blocks.iter().flat_map(|(_, block)| block.hosts()) {
        *kept.entry(host.to_string()).or_insert(0) += 1;
    }
    kept
}

/// What a dataset keeps, where it does not keep all.
pub(super) fn limits(dataset: &Dataset) -> Option<String> {
    let age = dataset.limits.keep_ms.map(Duration::from_millis);
    let age = age.map(|age| format!("files that changed within the last {}", output::duration(age)));
    let bytes = dataset.limits.max_bytes;
    let bytes = bytes.map(|bytes| format!("at most {}", output::size(bytes)));
    match (age, bytes) {
        (Some(age), Some(bytes)) => Some(format!("{age}, {bytes}")),
        (age, bytes) => age.or(bytes),
    }
}

/// What of a dataset was merged, or taken out.
fn compacted(dataset: &Dataset) -> Option<String> {
    let merged = (dataset.void > 0).then(|| match dataset.cut {
        0 => {
            let blocks = output::counted(dataset.void.into(), "small block");
            format!("{blocks} became part of others")
        }
        _ => {
            let blocks = output::counted(dataset.void.into(), "block");
            format!("{blocks} became part of others or were taken out")
        }
    });
    match (merged, dataset.compacting) {
        (merged, false) => merged,
        (None, true) => Some("under way".into()),
        (Some(merged), true) => Some(format!("{merged}; under way")),
    }
}

/// What has left a dataset.
fn left(dataset: &Dataset) -> Option<String> {
    let blocks = output::counted(dataset.first.into(), "block");
    let at = output::ago(dataset.left_ms?);
    Some(format!(
        "{blocks}, {}, the last {at}",
        output::size(dataset.left_bytes)
    ))
}

fn row(number: u32, block: &Block) -> [String; 4] {
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
    [number.to_string(), start, end, url]
}
