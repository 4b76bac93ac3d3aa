//! `running.log`: each step of the harness and of the roles in its process, a line each with its time.

use std::{fs::File, path::Path};

use anyhow::Context as _;
use tracing_subscriber::EnvFilter;

/// Where the log is written: in the working directory.
pub(crate) const FILE: &str = "running.log";

/// Appends all that is traced from now on to `path`; several processes may share the file. `RUST_LOG` chooses how much
/// (default: info).
///
/// # Errors
/// When the file can't be opened, or something already takes what is traced.
pub(crate) fn open(path: &Path) -> anyhow::Result<()> {
    let file = File::options()
        .create(true)
        .append(true)
        .open(path)
        .with_context(|| format!("cannot write {}", path.display()))?;
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(false)
        .with_writer(file)
        .try_init()
        .map_err(|error| anyhow::anyhow!("cannot take what is traced: {error}"))
}
