//! One file per command; each has its `Args` and a `run`.

pub mod agent;
pub mod agents;
pub mod audit;
pub mod bench;
pub mod completions;
pub mod compute;
pub mod config;
pub mod dataset;
pub mod dev;
pub mod dispatcher;
pub mod doctor;
pub mod init;
pub mod job;
pub mod pki;
#[cfg(feature = "sql")]
mod prompt;
#[cfg(feature = "sql")]
pub mod query;
pub mod run;
pub mod ship;
pub mod status;
pub mod task;
pub mod token;
#[cfg(feature = "sql")]
pub mod view;
pub mod watcher;

use std::sync::Arc;

use anyhow::Context as _;
use control::Control;
use tokio::sync::OnceCell;

use crate::{
    config::Settings,
    exit::Exit,
    listening,
    output::Format,
    roles::{self, Mill, Parts, Role},
    signals::Signals,
};

/// What every command gets.
#[derive(Clone, Debug)]
pub struct Context {
    /// All settings.
    pub settings: Settings,
    /// In which form to print.
    pub format: Format,
    /// One connection serves a whole session.
    control: Arc<OnceCell<Control>>,
}

impl Context {
    /// Over these settings; nothing is connected yet.
    pub fn new(settings: Settings, format: Format) -> Self {
        Self {
            settings,
            format,
            control: Arc::default(),
        }
    }

    /// MongoDB and the block store.
    ///
    /// # Errors
    /// Says which address does not answer, or that it is no replica set.
    pub async fn store(&self) -> anyhow::Result<storage::Store> {
        Ok(storage::Store::open(&self.settings.storage()).await?)
    }

    /// The facade over the gateway that `server` names or else over both stores, which are connected the first time; ZooKeeper is
    /// when it is needed.
    ///
    /// # Errors
    /// As [`Context::store`]; which gateways do not answer.
    pub async fn control(&self) -> anyhow::Result<Control> {
        let open = || async {
            if let Some(server) = &self.settings.server {
                let security = listening::security(&self.settings)?;
                return Ok(Control::connect(server, security).await?);
            }
            let store = listening::with_neighbours(self.store().await?, &self.settings)?;
            let control = Control::open(self.settings.coordination(), store);
            let control = control.with_retention(self.settings.retention_results);
            anyhow::Ok(control.submitting_for(&Self::local()))
        };
        self.control.get_or_try_init(open).await.cloned()
    }

    /// Ends the connections of [`Context::control`], where there are any.
    pub async fn close(&self) {
        if let Some(Ok(store)) = self.control.get().map(Control::store) {
            store.close().await;
        }
    }

    /// Writes a change that was made on the stores themselves into the audit log; a gateway writes down what it is asked.
    ///
    /// # Errors
    /// As [`Context::control`], which has been asked already.
    pub async fn log(&self, what: &str, subject: &str, details: String) -> anyhow::Result<()> {
        let control = self.control().await?;
        if !control.is_remote() {
            control.log(&Self::local(), what, subject, details).await;
        }
        Ok(())
    }

    /// Who works on the stores themselves.
    pub(crate) fn local() -> String {
        format!("local {}", crate::machine::user())
    }

    /// For what works on the stores alone.
    ///
    /// # Errors
    /// [`control::Error::NeedsStores`] where a gateway is to be asked.
    pub fn needs_stores(&self) -> anyhow::Result<()> {
        match &self.settings.server {
            Some(_) => Err(control::Error::NeedsStores.into()),
            None => Ok(()),
        }
    }

    /// Whether one JSON document is asked for.
    pub fn json(&self) -> bool {
        self.format == Format::Json
    }
}

/// Runs roles, of which the first is what was asked for, in this process until SIGTERM or Ctrl-C: first hands back what it holds, on a second signal leaves at
/// once. Waits for stores that are away, and says `started` once both have been reached.
///
/// # Errors
/// A wrong address or credentials that are refused; what ended the role by itself.
async fn serve(roles: Vec<Role>, context: &Context) -> anyhow::Result<Exit> {
    // Before anything is said: who reads "started" may ask to stop at once.
    let mut signals = Signals::install().context("cannot take over SIGTERM and SIGINT")?;
    let parts = tokio::select! {
        parts = Parts::wait(&context.settings) => parts?,
        signal = signals.stop_asked() => {
            tracing::info!(signal, "stopped before it started");
            return Ok(Exit::Success);
        }
    };
    tracing::info!(
        zookeeper = context.settings.zookeeper,
        mongodb = context.settings.mongodb.masked(),
        pid = std::process::id(),
        "{} started",
        roles.first().map(Role::title).unwrap_or_default()
    );
    let mut mill = Mill::start(roles, &parts);
    roles::until_stopped(&mut mill, &mut signals).await?;
    tracing::info!("stopped");
    Ok(Exit::Success)
}
