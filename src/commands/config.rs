//! `sawmill config`: each setting and where it came from.

use std::collections::BTreeMap;

use clap::Subcommand;
use serde::Serialize;

use super::Context;
use crate::{config::KEYS, exit::Exit, output};

/// `sawmill config`.
#[derive(Clone, Debug, Subcommand)]
pub enum Command {
    /// Show each setting, its value and where it came from; passwords are shown as ***
    #[command(
        after_help = "A flag wins over SAWMILL_<KEY>, that over ./sawmill.toml, that over \
                            /etc/sawmill/sawmill.toml, that over the default."
    )]
    Show,
}

#[derive(Serialize)]
struct Shown {
    value: Option<String>,
    source: String,
}

/// Runs the command.
///
/// # Errors
/// When standard output can't be written.
pub fn run(command: Command, context: &Context) -> anyhow::Result<Exit> {
    let Command::Show = command;
    let settings = &context.settings;
    let shown = KEYS.iter().map(|key| {
        let value = settings.shown(key.name);
        (
            key.name,
            Shown {
                value,
                source: settings.origin(key.name).to_string(),
            },
        )
    });
    if context.json() {
        output::json(&shown.collect::<BTreeMap<_, _>>())?;
    } else {
        // A key that only leads to another one is of interest when it was used.
        let rows = shown
            .filter(|(_, shown)| shown.value.is_some() || shown.source != "default")
            .map(|(name, shown)| {
                [
                    name.to_string(),
                    shown.value.unwrap_or_else(|| "(see below)".to_string()),
                    shown.source,
                ]
            });
        output::table(&["KEY", "VALUE", "SOURCE"], rows)?;
    }
    Ok(Exit::Success)
}
