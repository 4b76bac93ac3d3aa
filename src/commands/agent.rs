//! `sawmill agent`: follows log files on this machine and ships them.

use std::{path::PathBuf, time::Duration};

use agent::{After, Config, Keeping, Nodes, Sharing, Source, Timing};
use anyhow::Context as _;
use clap::{Args, Subcommand};
use model::Name;
use regex::bytes::Regex;
use tokio_util::sync::CancellationToken;

use super::{Context, agents};
use crate::{
    cli::{size, span},
    config::Settings,
    exit::{Exit, usage},
    listening, machine,
    signals::Signals,
};

/// The dispatcher on this machine, where it listens unless it is told otherwise.
const NEAREST_SERVER: &str = "127.0.0.1:7766";

const EXAMPLES: &str = "\
Examples:
  sawmill agent --dataset access '/var/log/nginx/access.log*'
  sawmill agent --follow access='/var/log/nginx/*.log' --follow app='/srv/app/*.log'
  sawmill agent --dataset java '/srv/app/*.log' --multiline-start '^[0-9]{4}-' --server mill1:7766

Quote patterns, so that files that come later are found too. A pattern that covers rotated names (access.log*)
finds what was rotated while the agent was away.";

/// `sawmill agent`.
#[derive(Clone, Debug, Args)]
#[command(args_conflicts_with_subcommands = true, after_help = EXAMPLES)]
pub struct AgentArgs {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    run: RunArgs,
}

/// What may be done with agents.
#[derive(Clone, Debug, Subcommand)]
pub enum Command {
    /// Follow files and ship them until SIGTERM; `run` may be left out
    #[command(after_help = EXAMPLES)]
    Run(Box<RunArgs>),
    /// Those of a mill, from anywhere.
    #[command(flatten)]
    Mill(agents::Command),
}

/// `sawmill agent run`.
#[derive(Clone, Debug, Args)]
pub struct RunArgs {
    /// Files to follow: paths, or patterns with *, ?, [...] and **
    #[arg(value_name = "PATTERN", requires = "dataset")]
    patterns: Vec<String>,
    /// The dataset that their lines go to; it is made when it is not there
    #[arg(long, value_name = "NAME", requires = "patterns")]
    dataset: Option<Name>,
    /// More files to follow, for a dataset each; may be given again and again
    #[arg(long, value_name = "NAME=PATTERN", value_parser = follow)]
    follow: Vec<(Name, String)>,
    /// Cut a block that has had lines for so long, whatever its size
    #[arg(long, value_name = "TIME", default_value = "2s", value_parser = span)]
    age: Duration,
    /// On SIGTERM, ship for so long what is left; the rest stays in the spool for the next start
    #[arg(long, value_name = "TIME", default_value = "3s", value_parser = span)]
    stop_grace: Duration,
    /// Have the worker that it is assigned to keep the blocks in a directory of its own, instead of the block store
    #[arg(long)]
    local: bool,
    /// With --local: how many nodes keep each block, 1 to 3
    #[arg(long, value_name = "N", default_value_t = 1, requires = "local")]
    copies: u32,
    #[command(flatten)]
    shipping: ShippingArgs,
}

/// What agents and shipments have in common.
#[derive(Clone, Debug, Args)]
pub struct ShippingArgs {
    /// Its name, unique in the mill [default: that of the certificate, with .ship behind for a shipment; or of this host, with
    /// -ship]
    #[arg(long, value_name = "NAME")]
    pub(super) name: Option<Name>,
    /// Where it remembers what is shipped, and spools; one for each mill [default: agent-NAME, or ship-NAME of a shipment, in
    /// ~/.local/state/sawmill]
    #[arg(long, value_name = "DIR")]
    state: Option<PathBuf>,
    /// Bytes of blocks that may wait on disk; when they are reached, reading stops until some are shipped
    #[arg(long, value_name = "SIZE", default_value = "1GiB", value_parser = size)]
    spool: u64,
    /// Bytes of lines in a block
    #[arg(long, value_name = "SIZE", default_value = "8MiB", value_parser = size)]
    block_size: u64,
    /// Lines that match begin a record of several lines, which is never cut in two
    #[arg(long, value_name = "REGEX", value_parser = regex)]
    multiline_start: Option<Regex>,
    /// Where this machine stands: workers with the same label are preferred
    #[arg(long, value_name = "LABEL")]
    zone: Option<String>,
    /// Also read what symbolic links lead to. Without this, links are left alone: whoever may write to a followed directory
    /// could have any file of this machine shipped
    #[arg(long)]
    follow_links: bool,
    /// Remove files when all their bytes are registered and nobody writes to them any more
    #[arg(long, conflicts_with_all = ["move_to", "keep"])]
    delete_shipped: bool,
    /// Move them here instead
    #[arg(long, value_name = "DIR", conflicts_with = "keep")]
    move_to: Option<PathBuf>,
    /// Leave them where they are, which is the default
    #[arg(long)]
    keep: bool,
}

impl AgentArgs {
    /// Whether it follows files, for as long as it is let.
    pub fn follows(&self) -> bool {
        !matches!(self.command, Some(Command::Mill(_)))
    }

    /// Where this machine stands, as a flag says.
    pub fn zone(&self) -> &Option<String> {
        match &self.command {
            Some(Command::Run(args)) => &args.shipping.zone,
            Some(Command::Mill(_)) | None => &self.run.shipping.zone,
        }
    }
}

impl ShippingArgs {
    /// Where this machine stands, as a flag says.
    pub fn zone(&self) -> &Option<String> {
        &self.zone
    }

    /// What to do, for an agent named `name` whose state is in `kind`-NAME unless a flag says where.
    pub(super) fn config(
        self,
        name: Name,
        kind: &str,
        sources: Vec<Source>,
        settings: &Settings,
    ) -> anyhow::Result<Config> {
        let state = match self.state {
            Some(state) => state,
            None => state_home()?.join(format!("{kind}-{name}")),
        };
        let after = match (self.delete_shipped, self.move_to) {
            (true, _) => After::Delete,
            (false, Some(folder)) => After::MoveTo(folder),
            (false, None) => After::Keep,
        };
        let servers = settings.server.as_deref().unwrap_or(NEAREST_SERVER);
        let servers = servers
            .split(',')
            .map(str::trim)
            .filter(|server| !server.is_empty());
        Ok(Config {
            host: machine::host(),
            zone: settings.zone.clone(),
            servers: servers.map(str::to_string).collect(),
            security: listening::security(settings)?,
            state,
            spool_bytes: self.spool,
            block_bytes: usize::try_from(self.block_size).unwrap_or(usize::MAX),
            age: Duration::from_secs(2),
            multiline_start: self.multiline_start,
            sources,
            follow_links: self.follow_links,
            keeping: Keeping::Shared,
            after,
            stop_grace: Duration::ZERO,
            timing: Timing::default(),
            name,
        })
    }
}

/// Follows until SIGTERM or Ctrl-C; a second one leaves at once.
///
/// # Errors
/// What is wrong with the command line or the state directory.
pub async fn run(args: AgentArgs, context: &Context) -> anyhow::Result<Exit> {
    let args = match args.command {
        Some(Command::Run(args)) => *args,
        Some(Command::Mill(command)) => return agents::run(command, context).await,
        None => args.run,
    };
    let sources = sources(&args)?;
    let name = match &args.shipping.name {
        Some(name) => name.clone(),
        None => own_name(&context.settings)?.unwrap_or_else(|| context.settings.node.clone()),
    };
    let config = Config {
        age: args.age,
        stop_grace: args.stop_grace,
        keeping: match args.local {
            false => Keeping::Shared,
            true => Keeping::Nodes(Nodes {
                copies: args.copies,
                pattern: None,
                spread: Sharing::Receiver,
            }),
        },
        ..args.shipping.config(name, "agent", sources, &context.settings)?
    };
    let mut signals = Signals::install().context("cannot take over SIGTERM and SIGINT")?;
    let cancel = CancellationToken::new();
    let following = agent::run(config, cancel.clone());
    tokio::pin!(following);
    tokio::select! {
        ended = &mut following => {
            ended?;
            return Ok(Exit::Success);
        }
        signal = signals.stop_asked() => tracing::info!(signal, "stopping"),
    }
    cancel.cancel();
    tokio::select! {
        ended = &mut following => ended?,
        signal = signals.stop_asked() => tracing::info!(signal, "left at once; what is spooled is shipped at the next start"),
    }
    tracing::info!("stopped");
    Ok(Exit::Success)
}

fn sources(args: &RunArgs) -> anyhow::Result<Vec<Source>> {
    let mut sources: Vec<Source> = Vec::new();
    let given = args
        .dataset
        .iter()
        .flat_map(|dataset| args.patterns.iter().map(move |pattern| (dataset, pattern)));
    let followed = args.follow.iter().map(|(dataset, pattern)| (dataset, pattern));
    for (dataset, pattern) in given.chain(followed) {
        match sources.iter_mut().find(|source| source.dataset == *dataset) {
            Some(source) => source.patterns.push(pattern.clone()),
            None => sources.push(Source {
                dataset: dataset.clone(),
                patterns: vec![pattern.clone()],
            }),
        }
    }
    if sources.is_empty() {
        return Err(usage(
            "no files to follow: sawmill agent --dataset NAME PATTERN…, or --follow NAME=PATTERN",
        ));
    }
    Ok(sources)
}

/// The name in the certificate of an agent: the mill knows it by no other.
pub(super) fn own_name(settings: &Settings) -> anyhow::Result<Option<Name>> {
    let Some(dir) = &settings.identity else {
        return Ok(None);
    };
    let peer = pki::Identity::load(dir)?.peer().clone();
    Ok((peer.role == pki::Role::Agent).then_some(peer.name))
}

/// `$XDG_STATE_HOME/sawmill`, else `~/.local/state/sawmill`.
fn state_home() -> anyhow::Result<PathBuf> {
    let absolute = |name: &str| {
        let path = std::env::var_os(name).map(PathBuf::from);
        path.filter(|path| path.is_absolute())
    };
    absolute("XDG_STATE_HOME")
        .or_else(|| Some(absolute("HOME")?.join(".local/state")))
        .map(|home| home.join("sawmill"))
        .context("neither XDG_STATE_HOME nor HOME is set: say where to keep the state with --state")
}

fn follow(text: &str) -> Result<(Name, String), String> {
    let (name, pattern) = text
        .split_once('=')
        .filter(|(_, pattern)| !pattern.is_empty())
        .ok_or_else(|| format!("{text:?} is not NAME=PATTERN"))?;
    let name = Name::new(name).map_err(|error| error.to_string())?;
    Ok((name, pattern.to_string()))
}

fn regex(text: &str) -> Result<Regex, String> {
    Regex::new(text).map_err(|error| error.to_string())
}
