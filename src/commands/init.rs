//! `sawmill init`: the three roots in ZooKeeper, the collections and indexes in MongoDB.

use coordination::Term;

use super::Context;
use crate::{exit::Exit, output};

/// Makes what is missing; harmless when all is there.
///
/// # Errors
/// What can't be reached, with its address.
pub async fn run(context: &Context) -> anyhow::Result<Exit> {
    context.needs_stores()?;
    let store = context.store().await?;
    store.init().await?;
    let term = Term::begin(&context.settings.coordination()).await?;
    term.close().await;
    let (zookeeper, mongodb) = (&context.settings.zookeeper, context.settings.mongodb.masked());
    if context.json() {
        output::json(
            &serde_json::json!({ "zookeeper": zookeeper, "mongodb": mongodb, "initialized": true }),
        )?;
    } else {
        output::line(format_args!(
            "zookeeper {zookeeper}: /unowned, /owned and /done are there"
        ))?;
        output::line(format_args!(
            "mongodb {mongodb}: collections and indexes are there"
        ))?;
    }
    Ok(Exit::Success)
}
