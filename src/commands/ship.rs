//! `sawmill ship`: ships files once, as they are.

use std::{
    collections::BTreeMap,
    io::{IsTerminal as _, stderr},
    path::PathBuf,
};

use agent::{Fate, Keeping, Nodes, Progress, Sharing, Source};
use anyhow::Context as _;
use clap::Args;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use model::Name;
use serde::Serialize;
use tokio_util::sync::CancellationToken;

use super::{
    Context,
    agent::{ShippingArgs, own_name},
};
use crate::{exit::Exit, output, signals::Signals};

const EXAMPLES: &str = "\
Examples:
  sawmill ship --dataset access /var/log/nginx/access.log.*.gz
  sawmill ship --dataset access access.log --delete-shipped --server mill1:7766
  sawmill ship --dataset access /srv/logs/*.log --spread hash --copies 2

A file counts as shipped when all its blocks are stored, were read back and compared, and are registered in the dataset.";

/// `sawmill ship`.
#[derive(Clone, Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct ShipArgs {
    /// Files to ship, plain or compressed with gzip or zstd
    #[arg(value_name = "FILE", required = true)]
    files: Vec<PathBuf>,
    /// The dataset that their lines go to; it is made when it is not there
    #[arg(long, value_name = "NAME")]
    dataset: Name,
    /// Ship also what was shipped to this dataset before
    #[arg(long)]
    again: bool,
    /// Have nodes keep the files in directories of their own: each whole file by the node that a hash of its host and path
    /// gives (hash), in turns (random), or by hash among the nodes whose names match a PATTERN such as 'rack1-*'
    #[arg(long, value_name = "hash|random|PATTERN")]
    spread: Option<String>,
    /// With --spread: how many nodes keep each block, 1 to 3
    #[arg(long, value_name = "N", default_value_t = 1, requires = "spread")]
    copies: u32,
    #[command(flatten)]
    shipping: ShippingArgs,
}

impl ShipArgs {
    /// Where this machine stands, as a flag says.
    pub fn zone(&self) -> &Option<String> {
        self.shipping.zone()
    }
}

#[derive(Serialize)]
struct FileView<'a> {
    file: String,
    state: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    bytes: Option<u64>,
    #[serde(skip_serializing_if = "<[String]>::is_empty")]
    nodes: &'a [String],
    #[serde(skip_serializing_if = "Option::is_none")]
    why: Option<String>,
}

/// Ships, with a bar on a terminal; Ctrl-C leaves what is spooled to the next shipment.
///
/// # Errors
/// What is wrong with the command line, the state directory or a path.
pub async fn run(args: ShipArgs, context: &Context) -> anyhow::Result<Exit> {
    let ShipArgs {
        files,
        dataset,
        again,
        spread,
        copies,
        shipping,
    } = args;
    let name = match &shipping.name {
        Some(name) => name.clone(),
        None => match own_name(&context.settings)? {
            // Its agent may be running.
            Some(name) => Name::new(format!("{name}.ship")).unwrap_or(name),
            // An agent on this machine has the name itself.
            None => Name::new(format!("{:.59}-ship", context.settings.node))?,
        },
    };
    let source = Source {
        dataset,
        patterns: files
            .iter()
            .map(|file| file.to_string_lossy().into_owned())
            .collect(),
    };
    let config = shipping.config(name, "ship", vec![source], &context.settings)?;
    let keeping = spread.map_or(Keeping::Shared, |spread| keeping(spread, copies));
    let config = agent::Config { keeping, ..config };
    let mut signals = Signals::install().context("cannot take over SIGTERM and SIGINT")?;
    let cancel = CancellationToken::new();
    let bar = bar();
    let shipping = agent::ship(config, again, cancel.clone(), |progress| show(&bar, progress));
    tokio::pin!(shipping);
    let mut stopped = false;
    let fates = loop {
        tokio::select! {
            ended = &mut shipping => break ended,
            _ = signals.stop_asked() => {
                stopped = true;
                cancel.cancel();
            }
        }
    };
    bar.finish_and_clear();
    let agent::Shipment {
        fates,
        leftovers,
        waiting,
    } = fates?;
    for (dataset, blocks) in leftovers {
        output::note(format_args!(
            "{} that a shipment before had left went first, into dataset {dataset}",
            output::counted(blocks, "block")
        ));
    }
    for (dataset, blocks) in waiting {
        output::note(format_args!(
            "{} for dataset {dataset} in the spool: the next shipment from this state directory sends what is there first",
            output::counted(blocks, "block")
        ));
    }
    if fates.is_empty() && !stopped {
        anyhow::bail!("no file matches: nothing is shipped");
    }
    tell(&fates, context)?;
    let failed = fates.iter().any(|(_, fate)| matches!(fate, Fate::Failed { .. }));
    Ok(match (stopped, failed) {
        (true, true) => Exit::Interrupted,
        (_, failed) => {
            if failed {
                Exit::Failure
            } else {
                Exit::Success
            }
        }
    })
}

fn tell(fates: &[(PathBuf, Fate)], context: &Context) -> anyhow::Result<()> {
    if context.json() {
        let views: Vec<FileView<'_>> = fates.iter().map(view).collect();
        return output::json(&views);
    }
    let (mut shipped, mut already, mut all_bytes) = (0, 0, 0);
    let mut by_node: BTreeMap<&str, u64> = BTreeMap::new();
    for (path, fate) in fates {
        match fate {
            Fate::Shipped { bytes, nodes } => {
                shipped += 1;
                all_bytes += bytes;
                for node in nodes {
                    *by_node.entry(node.as_str()).or_insert(0) += 1;
                }
            }
            Fate::Already => {
                already += 1;
                output::note(format_args!(
                    "{}: shipped before (--again ships it again)",
                    path.display()
                ));
            }
            Fate::Failed { why } => {
                output::note(format_args!("error: {} is not shipped: {why}", path.display()))
            }
        }
    }
    let failed = fates.len() - shipped - already;
    let mut line = format!(
        "shipped {shipped} of {} files, {}",
        fates.len(),
        output::size(all_bytes)
    );
    for (count, what) in [(already, "shipped before"), (failed, "failed")] {
        if count > 0 {
            line += &format!(", {count} {what}");
        }
    }
    if !by_node.is_empty() {
        let nodes = by_node.iter().map(|(node, files)| format!("{files} on {node}"));
        line += &format!("; {}", nodes.collect::<Vec<_>>().join(", "));
    }
    output::line(line)
}

/// What `--spread` and `--copies` say.
fn keeping(spread: String, copies: u32) -> Keeping {
    let (spread, pattern) = match spread.as_str() {
        "hash" => (Sharing::Names, None),
        "random" => (Sharing::Turns, None),
        _ => (Sharing::Names, Some(spread)),
    };
    Keeping::Nodes(Nodes {
        copies,
        pattern,
        spread,
    })
}

fn view((path, fate): &(PathBuf, Fate)) -> FileView<'_> {
    let (state, bytes, nodes, why) = match fate {
        Fate::Shipped { bytes, nodes } => ("shipped", Some(*bytes), nodes.as_slice(), None),
        Fate::Already => ("already", None, <&[String]>::default(), None),
        Fate::Failed { why } => ("failed", None, <&[String]>::default(), Some(why.clone())),
    };
    FileView {
        file: path.display().to_string(),
        state,
        bytes,
        nodes,
        why,
    }
}

/// On standard error, only where that is a terminal.
fn bar() -> ProgressBar {
    if !stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let bar = ProgressBar::with_draw_target(Some(0), ProgressDrawTarget::stderr_with_hz(10));
    let style = ProgressStyle::with_template(
        "{msg}  [{wide_bar}] {bytes}/{total_bytes}  {bytes_per_sec}  {eta} left",
    );
    bar.set_style(
        style
            .unwrap_or_else(|_| ProgressStyle::default_bar())
            .progress_chars("=> "),
    );
    bar
}

fn show(bar: &ProgressBar, progress: Progress) {
    bar.set_length(progress.bytes);
    bar.set_position(progress.registered_bytes);
    let failed = match progress.failed {
        0 => String::new(),
        failed => format!(", {failed} failed"),
    };
    bar.set_message(format!(
        "transferred {} of {} files{failed}",
        progress.done, progress.files
    ));
}
