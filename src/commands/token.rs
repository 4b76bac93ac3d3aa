//! `sawmill token`: what scripts show instead of a certificate.

use clap::{Args, Subcommand};
use model::Name;
use pki::{Managed, Peer, Rights, Role};
use serde::Serialize;
use storage::TokenRecord;

use super::Context;
use crate::{
    config::Span,
    exit::{Exit, usage},
    output,
};

/// Digits of a token's hash by which it is told from others.
const ID_DIGITS: usize = 12;

const EXAMPLES: &str = "\
Example:
  TOKEN=$(sawmill token create nightly --queue default --valid 30d)
  grpcurl -cacert ca.pem -H \"authorization: Bearer $TOKEN\" mill.example.com:7766 list
A token is shown once and kept nowhere but as a hash. Gateways take it over TLS, and on loopback.";

/// `sawmill token`.
#[derive(Clone, Debug, Subcommand)]
#[command(after_help = EXAMPLES)]
pub enum Command {
    /// Make a token with the rights of a user, and print it
    Create(CreateArgs),
    /// List tokens; the tokens themselves are not kept
    List,
    /// Revoke tokens; it counts within seconds
    Revoke(RevokeArgs),
}

/// `sawmill token create`.
#[derive(Clone, Debug, Args)]
pub struct CreateArgs {
    /// Of the user that it stands for
    name: Name,
    /// A queue that may be submitted to, or the beginning of some: 'night-*'; may be repeated
    #[arg(long = "queue", value_name = "PATTERN")]
    queues: Vec<String>,
    /// Commands may be submitted, which run as the user of the compute nodes
    #[arg(long)]
    may_exec: bool,
    /// What it may manage although it belongs to all: datasets, jobs, views, agents; may be repeated
    #[arg(
        long = "may-manage",
        value_name = "datasets|jobs|views|agents",
        value_delimiter = ','
    )]
    manages: Vec<Managed>,
    /// For how long it counts, a year at most
    #[arg(long, value_name = "TIME", default_value = "30d")]
    valid: Span,
}

/// `sawmill token revoke`.
#[derive(Clone, Debug, Args)]
pub struct RevokeArgs {
    /// A name (all its tokens), or the id of one
    #[arg(value_name = "NAME|ID")]
    who: String,
}

/// A token as `--output json` shows it; fields are only ever added.
#[derive(Serialize)]
struct Shown {
    #[serde(skip_serializing_if = "Option::is_none")]
    token: Option<String>,
    id: String,
    name: String,
    queues: Vec<String>,
    may_exec: bool,
    may_manage: Vec<String>,
    created_at: String,
    created_by: String,
    expires_at: String,
    expired: bool,
}

impl From<&TokenRecord> for Shown {
    fn from(record: &TokenRecord) -> Self {
        let peer = Peer::from_uri(&record.peer);
        let rights = peer.as_ref().map(|peer| peer.rights.clone()).unwrap_or_default();
        Self {
            token: None,
            id: record.hash.get(..ID_DIGITS).unwrap_or_default().to_string(),
            name: peer.map_or_else(|_| record.peer.clone(), |peer| peer.name.to_string()),
            queues: rights.queues,
            may_exec: rights.may_exec,
            may_manage: rights.manages.iter().map(ToString::to_string).collect(),
            created_at: output::time(record.created_ms),
            created_by: record.created_by.clone(),
            expires_at: output::time(record.expires_ms),
            expired: record.expires_ms <= jiff::Timestamp::now().as_millisecond(),
        }
    }
}

/// Runs the command.
///
/// # Errors
/// What can't be reached or found, and why a token can't be made.
pub async fn run(command: Command, context: &Context) -> anyhow::Result<Exit> {
    match command {
        Command::Create(args) => create(args, context).await?,
        Command::List => list(context).await?,
        Command::Revoke(args) => revoke(&args, context).await?,
    }
    Ok(Exit::Success)
}

async fn create(args: CreateArgs, context: &Context) -> anyhow::Result<()> {
    let rights = Rights {
        queues: args.queues,
        may_exec: args.may_exec,
        manages: args.manages.into_iter().collect(),
        ..Rights::default()
    };
    let peer = Peer::new(Role::User, args.name, rights).map_err(|error| usage(error.to_string()))?;
    let control = context.control().await?;
    let (token, record) = control
        .create_token(&peer, args.valid.0, &Context::local())
        .await?;
    let shown = Shown::from(&record);
    if context.json() {
        let token = Some(token.expose());
        return output::json(&Shown { token, ..shown });
    }
    output::note(format_args!(
        "token {} of {} counts until {}; it is shown this once",
        shown.id, shown.name, shown.expires_at
    ));
    output::line(token.expose())
}

async fn list(context: &Context) -> anyhow::Result<()> {
    let mut tokens = context.control().await?.tokens().await?;
    tokens.sort_by_key(|token| token.created_ms);
    let shown: Vec<Shown> = tokens.iter().map(Shown::from).collect();
    if context.json() {
        return output::json(&shown);
    }
    let rows = shown.into_iter().map(|token| {
        let commands = if token.may_exec { "yes" } else { "no" };
        let state = if token.expired { "expired" } else { "counts" };
        [
            token.id,
            token.name,
            token.queues.join(" "),
            commands.to_string(),
            token.may_manage.join(" "),
            state.to_string(),
            token.expires_at,
            token.created_by,
        ]
    });
    let headings = [
        "ID", "NAME", "QUEUES", "COMMANDS", "MANAGES", "STATE", "EXPIRES", "MADE BY",
    ];
    output::table(&headings, rows)
}

async fn revoke(args: &RevokeArgs, context: &Context) -> anyhow::Result<()> {
    let revoked = context
        .control()
        .await?
        .revoke_token(&args.who, &Context::local())
        .await?;
    let shown: Vec<Shown> = revoked.iter().map(Shown::from).collect();
    if context.json() {
        return output::json(&shown);
    }
    shown
        .iter()
        .try_for_each(|token| output::line(format_args!("revoked token {} of {}", token.id, token.name)))
}
