//! The ports of this process, as the settings say: bound before a role starts.

use std::{io::ErrorKind, sync::Arc};

use anyhow::Context as _;
use api::transport::{self, Security};
use gateway::Gateway;
use model::Name;
use pki::{Identity, Role};
use storage::Store;

use crate::{config::Settings, machine};

/// How this process and its peers know each other.
///
/// # Errors
/// An identity that can't be used.
pub(crate) fn security(settings: &Settings) -> anyhow::Result<Security> {
    Ok(match &settings.identity {
        Some(dir) => Security::Tls(Identity::load(dir)?),
        None if settings.trust_local_users => Security::Open,
        None => Security::Plain,
    })
}

/// Refuses an address that others can reach without TLS, unless `insecure` allows it, which is told loudly. For every
/// port that a role listens on, before it is bound.
///
/// # Errors
/// The address, and what to do.
pub(crate) fn check(settings: &Settings, address: &str, security: &Security) -> anyhow::Result<()> {
    if let Some(warning) = transport::check_exposure(address, security, settings.insecure)? {
        tracing::warn!("{warning}");
    }
    Ok(())
}

/// The gateway of a dispatcher. Where its port is taken, a free one does `or_free`.
///
/// # Errors
/// A port that can't be bound; an identity that can't be used.
pub(crate) async fn gateway(settings: &Settings, or_free: bool) -> anyhow::Result<Gateway> {
    let security = security(settings)?;
    check(settings, &settings.listen, &security)?;
    let config = gateway::Config {
        listen: settings.listen.clone(),
        advertise: settings.advertise.clone(),
        host: machine::host(),
        security,
        limits: gateway::Limits::default(),
    };
    match Gateway::bind(config.clone()).await {
        Err(error) if or_free && is_taken(&error) => {
            let host = settings
                .listen
                .rsplit_once(':')
                .map_or("127.0.0.1", |(host, _)| host);
            let listen = format!("{host}:0");
            Ok(Gateway::bind(gateway::Config { listen, ..config }).await?)
        }
        Err(error) if is_taken(&error) => Err(error).context(
            "another program has the port of the gateway: give this one another with --listen HOST:PORT",
        ),
        bound => Ok(bound?),
    }
}

/// The stores with a way to the blocks that nodes keep.
///
/// # Errors
/// An identity that can't be used.
pub(crate) fn with_neighbours(store: Store, settings: &Settings) -> anyhow::Result<Store> {
    let neighbours = ingest::Neighbours::new(settings.coordination(), security(settings)?);
    Ok(store.with_neighbours(Arc::new(neighbours)))
}

/// The name of a compute node: unless it is given, that of its certificate.
fn node(settings: &Settings, security: &Security) -> Name {
    match security {
        Security::Tls(identity) if settings.origin("node") == "default" => {
            let peer = identity.peer();
            match peer.role {
                Role::Worker => peer.name,
                _ => settings.node.clone(),
            }
        }
        _ => settings.node.clone(),
    }
}

/// How a compute node takes what agents ship.
///
/// # Errors
/// An address that may not be listened on without TLS; an identity that can't be used.
pub(crate) fn ingest(settings: &Settings) -> anyhow::Result<ingest::Config> {
    let security = security(settings)?;
    check(settings, &settings.worker_listen, &security)?;
    Ok(ingest::Config {
        listen: settings.worker_listen.clone(),
        advertise: settings.advertise.clone(),
        host: machine::host(),
        node: node(settings, &security),
        security,
        limits: ingest::Limits::default(),
    })
}

fn is_taken(error: &gateway::Error) -> bool {
    matches!(
        error,
        gateway::Error::Transport(transport::Error::Bind { source, .. }) if source.kind() == ErrorKind::AddrInUse
    )
}
