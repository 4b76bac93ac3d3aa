//! `sawmill pki`: a private authority and the certificates that it issues. Needs no mill.

mod show;

use std::{
    path::{Path, PathBuf},
    time::SystemTime,
};

use clap::{Args, Subcommand};
use model::Name;
use pki::{Authority, Issued, Managed, Order, Peer, Rights, Role};

use super::Context;
use crate::{
    config::Span,
    exit::{Exit, usage},
    output,
};

const EXAMPLES: &str = "\
Example, on the machine that keeps the authority:
  sawmill pki init ca
  sawmill pki issue dispatcher d1 --host mill.example.com --host 10.0.0.1 --out d1
  sawmill pki issue worker node1 --host 10.0.0.2 --out node1
  sawmill pki issue agent web7 --dataset access --dataset 'app-*' --out web7
  sawmill pki issue user anna --queue default --may-exec --may-manage datasets --out anna
Each directory goes to its machine, where `identity` (--identity) names it. The directory `ca` goes nowhere.";

/// `sawmill pki`.
#[derive(Clone, Debug, Subcommand)]
#[command(after_help = EXAMPLES)]
pub enum Command {
    /// Make an authority, valid for ten years
    Init(InitArgs),
    /// Issue a certificate: writes a directory that is ready for --identity
    Issue(IssueArgs),
    /// Issue the certificate in such a directory anew, with a new key; the old one stays valid until it ends
    Renew(RenewArgs),
    /// Revoke what was issued for a name, and write the list of all that is revoked
    Revoke(RevokeArgs),
    /// Tell what a certificate says, or what an authority has issued
    Show(ShowArgs),
}

/// `sawmill pki init`.
#[derive(Clone, Debug, Args)]
pub struct InitArgs {
    /// Where to make it; whoever can read it can be anybody
    #[arg(default_value = "ca")]
    dir: PathBuf,
}

/// Which authority.
#[derive(Clone, Debug, Args)]
struct Office {
    /// The directory of the authority
    #[arg(long, value_name = "DIR", default_value = "ca")]
    ca: PathBuf,
}

/// `sawmill pki issue`.
#[derive(Clone, Debug, Args)]
pub struct IssueArgs {
    /// user, agent, worker, dispatcher, watcher or admin
    role: Role,
    /// Of whom or what
    name: Name,
    /// A dataset that an agent may ship to, or the beginning of some: 'app-*'; may be repeated
    #[arg(long = "dataset", value_name = "PATTERN")]
    datasets: Vec<String>,
    /// A queue that a user may submit to, or the beginning of some; may be repeated
    #[arg(long = "queue", value_name = "PATTERN")]
    queues: Vec<String>,
    /// A user may submit commands, which run as the user of the compute nodes
    #[arg(long)]
    may_exec: bool,
    /// What a user may manage although it belongs to all: datasets (add, remove, compact them, set what they keep), jobs (cancel those of
    /// others), views (create, pause and remove them, write answers into collections), agents (pause, move and remove them);
    /// may be repeated
    #[arg(
        long = "may-manage",
        value_name = "datasets|jobs|views|agents",
        value_delimiter = ','
    )]
    manages: Vec<Managed>,
    /// A DNS name or IP address under which a dispatcher or worker is connected to; may be repeated
    #[arg(long = "host", value_name = "HOST")]
    hosts: Vec<String>,
    /// For how long it is valid
    #[arg(long, value_name = "TIME", default_value = "90d")]
    valid: Span,
    /// Where to write ca.pem, cert.pem, key.pem and crl.pem
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    #[command(flatten)]
    office: Office,
}

/// `sawmill pki renew`.
#[derive(Clone, Debug, Args)]
pub struct RenewArgs {
    /// A directory that `issue` has written
    dir: PathBuf,
    /// For how long it is valid [default: as long as before]
    #[arg(long, value_name = "TIME")]
    valid: Option<Span>,
    #[command(flatten)]
    office: Office,
}

/// `sawmill pki revoke`.
#[derive(Clone, Debug, Args)]
pub struct RevokeArgs {
    /// A name (all its certificates), a role and a name (agent/web7), or a serial number
    #[arg(value_name = "NAME|SERIAL")]
    who: String,
    #[command(flatten)]
    office: Office,
}

/// `sawmill pki show`.
#[derive(Clone, Debug, Args)]
pub struct ShowArgs {
    /// A directory that `issue` or `init` has written, or a certificate
    #[arg(value_name = "DIR|FILE", default_value = "ca")]
    path: PathBuf,
}

/// Runs the command.
///
/// # Errors
/// What can't be read, written or issued, and why.
pub fn run(command: Command, context: &Context) -> anyhow::Result<Exit> {
    let json = context.json();
    match command {
        Command::Init(args) => init(&args, json)?,
        Command::Issue(args) => issue(args, json)?,
        Command::Renew(args) => renew(&args, json)?,
        Command::Revoke(args) => revoke(&args, json)?,
        Command::Show(args) => show::run(&args.path, json)?,
    }
    Ok(Exit::Success)
}

fn init(args: &InitArgs, json: bool) -> anyhow::Result<()> {
    Authority::create(&args.dir, SystemTime::now())?;
    if json {
        return show::run(&args.dir.join("ca.pem"), json);
    }
    output::line(format_args!(
        "made an authority in {}; ca-key.pem in it must never leave this machine",
        args.dir.display()
    ))
}

fn issue(args: IssueArgs, json: bool) -> anyhow::Result<()> {
    let rights = Rights {
        datasets: args.datasets,
        queues: args.queues,
        may_exec: args.may_exec,
        manages: args.manages.into_iter().collect(),
    };
    let peer = Peer::new(args.role, args.name, rights).map_err(|error| usage(error.to_string()))?;
    if let Some(missing) = show::nothing_allowed(&peer) {
        output::note(format_args!("note: {missing}"));
    }
    let order = Order {
        peer,
        hosts: args.hosts,
        valid: args.valid.0,
    };
    let authority = Authority::open(&args.office.ca)?;
    let issued = authority.issue(&order, &args.out, SystemTime::now())?;
    written("issued", &issued, &args.out, json)
}

fn renew(args: &RenewArgs, json: bool) -> anyhow::Result<()> {
    let authority = Authority::open(&args.office.ca)?;
    let valid = args.valid.map(|valid| valid.0);
    let renewal = authority.renew(&args.dir, valid, SystemTime::now())?;
    written("renewed", &renewal.issued, &args.dir, json)
}

fn written(done: &str, issued: &Issued, dir: &Path, json: bool) -> anyhow::Result<()> {
    if json {
        return output::json(issued);
    }
    let who = issued
        .peer()
        .map_or_else(|| issued.uri.clone(), |peer| peer.to_string());
    output::line(format_args!(
        "{done} {who}, valid until {}: copy {} to its machine",
        output::time(issued.not_after * 1000),
        dir.display()
    ))
}

fn revoke(args: &RevokeArgs, json: bool) -> anyhow::Result<()> {
    let authority = Authority::open(&args.office.ca)?;
    let revoked = authority.revoke(&args.who, SystemTime::now())?;
    let list = authority.revoked_path();
    if json {
        return output::json(&serde_json::json!({ "revoked": revoked, "list": list }));
    }
    for issued in &revoked {
        let who = issued
            .peer()
            .map_or_else(|| issued.uri.clone(), |peer| peer.to_string());
        output::line(format_args!("revoked {who}, serial {}", issued.serial))?;
    }
    output::line(format_args!(
        "copy {} as crl.pem into the identity of every dispatcher and worker (and of whoever connects to what was \
         revoked): it counts within seconds, without a restart",
        list.display()
    ))
}
