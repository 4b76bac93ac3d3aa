//! `sawmill init`: the three roots in ZooKeeper, the collections and indexes in MongoDB; the users of the roles.

mod acl;

use std::path::PathBuf;

use clap::Args;
use coordination::Term;

use super::Context;
use crate::{exit::Exit, output};

const EXAMPLES: &str = "\
Each role its own user of ZooKeeper, and nobody else any right in it, while no role runs:
  sawmill init --zookeeper db1:2181/mill --acl /etc/sawmill/zookeeper
Then the files dispatcher, worker and watcher go to the machines of their roles, as zookeeper_auth_file; admin
stays with the operators. To change a password, delete its file and run it again.";

/// `sawmill init`.
#[derive(Clone, Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct InitArgs {
    /// Give each role its own user of ZooKeeper with the rights that it needs: the files admin, dispatcher, worker and
    /// watcher in DIR hold user:password; those that are not there are made
    #[arg(long, value_name = "DIR")]
    acl: Option<PathBuf>,
    /// Also while roles or agents are connected: what they create before they are restarted keeps the rights of before
    #[arg(long, requires = "acl")]
    force: bool,
}

/// Makes what is missing; harmless when all is there.
///
/// # Errors
/// What can't be reached, with its address; files of users that can't be used.
pub async fn run(args: InitArgs, context: &Context) -> anyhow::Result<Exit> {
    context.needs_stores()?;
    let users = match &args.acl {
        Some(folder) => Some(acl::Files::read(folder, &context.settings)?),
        None => None,
    };
    let store = context.store().await?;
    store.init().await?;
    let protected = match users {
        Some(users) => Some(users.protect(context, args.force).await?),
        None => {
            let term = Term::begin(&context.settings.coordination()).await?;
            term.close().await;
            None
        }
    };
    let format = store.format().await?.unwrap_or(model::FORMAT);
    let (zookeeper, mongodb) = (&context.settings.zookeeper, context.settings.mongodb.masked());
    if context.json() {
        output::json(&serde_json::json!({
            "zookeeper": zookeeper,
            "mongodb": mongodb,
            "initialized": true,
            "format": format,
            "protected_znodes": protected,
        }))?;
    } else {
        output::line(format_args!(
            "zookeeper {zookeeper}: /unowned, /owned and /done are there"
        ))?;
        if let (Some(count), Some(folder)) = (protected, &args.acl) {
            output::line(format_args!(
                "zookeeper {zookeeper}: {} open to the users in {} and to nobody else",
                match count {
                    1 => "1 znode is".to_string(),
                    count => format!("{} znodes are", output::grouped(count as u64)),
                },
                folder.display()
            ))?;
        }
        output::line(format_args!(
            "mongodb {mongodb}: collections and indexes are there, of format {format}: nothing to migrate"
        ))?;
    }
    Ok(Exit::Success)
}
