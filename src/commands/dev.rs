//! `sawmill dev`: a whole mill in one process, for trying out and developing.
//!
//! Promise: when the line `ready` has been printed, jobs run; at Ctrl-C or SIGTERM the roles stop in order, then the
//! servers that were started here; none of these outlives this process, however it ends. Data stays in the data
//! directory and is there again the next time. No promise for production: one machine, no access control.

mod stores;

use std::{
    path::{Path, PathBuf},
    process::ExitCode,
    time::Duration,
};

use anyhow::{Context as _, anyhow, bail};
use coordination::{CandidateView, Snapshot, Term};
use model::Name;
use tokio::time::Instant;
use tracing::error;

use self::stores::Stores;
use crate::{
    cli::DevArgs,
    config::Settings,
    output::{self, Format},
    roles::{self, Mill, Parts, Role},
    signals::Signals,
};

/// How long the roles may take until they work: a session of an earlier run may have to expire first.
const READY_DEADLINE: Duration = Duration::from_secs(60);
/// How often to look whether they do.
const LOOK_AGAIN: Duration = Duration::from_millis(25);

/// What to do next, and the line that tells that the mill runs.
const NEXT: &str = r#"  sawmill dataset add access /var/log/nginx/access.log
  sawmill run --dataset access --map 'wc -l' --reduce "awk '{n += \$1} END {print n}'"
  sawmill status

ready (Ctrl-C stops it)"#;

/// Runs the command until it is told to stop.
///
/// # Errors
/// What can't be started, a role that failed, or a server that ended.
pub async fn run(args: DevArgs, settings: &Settings, format: Format) -> anyhow::Result<ExitCode> {
    let mut signals = Signals::install().context("cannot take over SIGTERM and SIGINT")?;
    let data_dir = args.data_dir.clone().map_or_else(default_data_dir, Ok)?;
    folders::own(&data_dir).with_context(|| format!("cannot keep data in {}", data_dir.display()))?;
    // Dropping the start half-way ends what was started.
    let mut stores = tokio::select! {
        stores = Stores::find_or_start(settings, &data_dir) => stores?,
        _ = signals.stop_asked() => return Ok(ExitCode::SUCCESS),
    };
    let result = turn(&args, settings, &data_dir, format, &mut stores, &mut signals).await;
    stores.stop().await;
    result.map(|()| ExitCode::SUCCESS)
}

/// From the start of the roles to their end.
async fn turn(
    args: &DevArgs,
    given: &Settings,
    data_dir: &Path,
    format: Format,
    stores: &mut Stores,
    signals: &mut Signals,
) -> anyhow::Result<()> {
    let settings = stores.settings.clone();
    let parts = Parts::open(&settings).await?;
    let nodes = node_names(&settings.node, args.nodes)?;
    let (roles, server) = roles_of(&settings, &nodes, data_dir).await?;
    let mut mill = Mill::start(roles, &parts);
    let ready = tokio::select! {
        ready = until_ready(&settings, nodes.len(), stores.owns_zookeeper()) => ready,
        failure = mill.failed() => Err(failure),
        (server, log) = stores.failed() => Err(server_ended(server, &log)),
        _ = signals.stop_asked() => return mill.stop().await,
    };
    if let Err(failure) = ready {
        stop_after(&failure, &mut mill).await;
        return Err(failure);
    }
    let told = Told {
        settings: &settings,
        given,
        stores,
        nodes: &nodes,
        server: &server,
    };
    told.introduce(format)?;
    let failure = tokio::select! {
        stopped = roles::until_stopped(&mut mill, signals) => return stopped,
        (server, log) = stores.failed() => server_ended(server, &log),
    };
    stop_after(&failure, &mut mill).await;
    Err(failure)
}

/// Stops the roles after `failure`, which is what the user gets to see; what stopping says goes to the log.
async fn stop_after(failure: &anyhow::Error, mill: &mut Mill) {
    error!("{failure:#}; stopping");
    if let Err(also) = mill.stop().await {
        error!("{also:#}");
    }
}

fn server_ended(server: &str, log: &Path) -> anyhow::Error {
    anyhow!("{server} ended by itself; its log is {}", log.display())
}

/// The name of this machine's node, and numbered ones beside it when several are asked for.
fn node_names(node: &Name, count: u32) -> anyhow::Result<Vec<Name>> {
    if count == 1 {
        return Ok(vec![node.clone()]);
    }
    let numbered = (1..=count).map(|number| Name::new(format!("{node}-{number}")));
    numbered
        .collect::<Result<_, _>>()
        .context("the node's name is too long to number several")
}

/// The roles, and where the gateway is: on a free port where its own is taken.
async fn roles_of(
    settings: &Settings,
    nodes: &[Name],
    data_dir: &Path,
) -> anyhow::Result<(Vec<Role>, String)> {
    let (mut roles, server) = Role::serving_dispatcher(settings, true).await?;
    roles.push(Role::watcher(settings));
    for node in nodes {
        let mut settings = settings.clone();
        (settings.node, settings.allow_exec) = (node.clone(), true);
        let folder = settings.local_store.unwrap_or_else(|| data_dir.join("blocks"));
        let folder = folder.join(node.as_str());
        // Another mill on this machine may have the same data directory: this one keeps no blocks then.
        settings.local_store = match storage::LocalStore::open(&folder, node) {
            Ok(_) => Some(folder),
            Err(error) => {
                tracing::warn!("{node} keeps no blocks of its own: {error}");
                None
            }
        };
        roles.push(Role::receiving_compute(&settings).await?);
    }
    Ok((roles, server))
}

/// Waits until a dispatcher leads, a watcher stands for office and all nodes are registered.
async fn until_ready(settings: &Settings, nodes: usize, alone: bool) -> anyhow::Result<()> {
    let term = Term::begin(&settings.coordination()).await?;
    let deadline = Instant::now() + READY_DEADLINE;
    let missing = loop {
        let snapshot = Snapshot::take(&term).await?;
        // A candidate of an earlier, killed run leads until its session expires.
        let ours = |candidate: &CandidateView| {
            !alone
                || candidate
                    .data
                    .as_ref()
                    .is_ok_and(|who| who.pid == std::process::id())
        };
        let leads = snapshot.dispatchers.first().is_some_and(ours);
        let records = snapshot.watchers.iter().any(ours);
        let live = snapshot
            .census
            .workers
            .iter()
            .filter(|worker| worker.alive)
            .count();
        let missing = match (leads, records, live >= nodes) {
            (true, true, true) => break None,
            (false, ..) => "no dispatcher leads",
            (_, false, _) => "no watcher records",
            _ => "not all compute nodes are registered",
        };
        if Instant::now() > deadline {
            break Some(missing);
        }
        tokio::time::sleep(LOOK_AGAIN).await;
    };
    term.close().await;
    match missing {
        None => Ok(()),
        Some(missing) => bail!("{missing}, {} s after the start", READY_DEADLINE.as_secs()),
    }
}

/// What there is to tell of a mill that runs.
struct Told<'a> {
    settings: &'a Settings,
    given: &'a Settings,
    stores: &'a Stores,
    nodes: &'a [Name],
    /// `HOST:PORT` of the gateway.
    server: &'a str,
}

impl Told<'_> {
    /// Tells where everything is and what to do next, then `ready`.
    fn introduce(&self, format: Format) -> anyhow::Result<()> {
        let Self { settings, server, .. } = self;
        let mongodb = settings.mongodb.masked();
        let names: Vec<&str> = self.nodes.iter().map(Name::as_str).collect();
        if format == Format::Json {
            return output::line(serde_json::json!({
                "state": "ready",
                "zookeeper": settings.zookeeper,
                "mongodb": mongodb,
                "server": server,
                "pid": std::process::id(),
                "nodes": names,
                "slots": settings.slots,
            }));
        }
        let roles = format!(
            "dispatcher, watcher, compute {} with {} slots each",
            names.join(", "),
            settings.slots
        );
        let port = |address: &str| address.rsplit_once(':').map(|(_, port)| port.to_string());
        let asked = port(&settings.listen).filter(|port| port != "0");
        let gateway = if asked.is_none() || asked == port(server) {
            (*server).to_string()
        } else {
            format!("{server}  ({} is taken)", settings.listen)
        };
        output::pairs(&[
            (
                "zookeeper",
                format!("{}  ({})", settings.zookeeper, self.stores.zookeeper_note()),
            ),
            ("mongodb", format!("{mongodb}  ({})", self.stores.mongodb_note())),
            ("gateway", gateway),
            ("roles", roles),
        ])?;
        output::line("\nIn another terminal:\n")?;
        if !self.stores.at_given_addresses(self.given) {
            let zookeeper = &settings.zookeeper;
            output::line(format_args!(
                "  export SAWMILL_ZOOKEEPER='{zookeeper}' SAWMILL_MONGODB='{mongodb}'"
            ))?;
        }
        output::line(format_args!(
            "  export SAWMILL_SERVER='{server}'  # or so: by the gateway, without the stores"
        ))?;
        output::line(NEXT)
    }
}

/// `$XDG_DATA_HOME/sawmill`, else `~/.local/share/sawmill`.
fn default_data_dir() -> anyhow::Result<PathBuf> {
    let absolute = |variable| {
        std::env::var_os(variable)
            .map(PathBuf::from)
            .filter(|path| path.is_absolute())
    };
    absolute("XDG_DATA_HOME")
        .or_else(|| Some(absolute("HOME")?.join(".local/share")))
        .map(|data| data.join("sawmill"))
        .context("neither XDG_DATA_HOME nor HOME is set: say where to keep the data with --data-dir")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_node_keeps_its_name_and_several_are_numbered() {
        let node = Name::new("web7").unwrap();
        assert_eq!(node_names(&node, 1).unwrap(), vec![node.clone()]);
        let names: Vec<String> = node_names(&node, 3)
            .unwrap()
            .iter()
            .map(ToString::to_string)
            .collect();
        assert_eq!(names, ["web7-1", "web7-2", "web7-3"]);
        let long = Name::new("x".repeat(64)).unwrap();
        assert!(node_names(&long, 2).is_err());
    }
}
