//! What `client` may be told.

use clap::Parser;

/// Puts queries into a mill, runs roles of it, or both, and counts how the queries were answered.
#[derive(Clone, Debug, Parser)]
#[command(name = "client", version, about, max_term_width = 100)]
#[command(
    after_help = "The older form `client CREATE FLUSH DISPATCHER SLAVE WATCHER` takes five switches of 0 or 1.\n\
                        Each step is told in ./running.log."
)]
pub struct ClientArgs {
    /// Delete and recreate the three roots in ZooKeeper
    #[arg(long)]
    pub create: bool,
    /// Empty the harness's collections in MongoDB
    #[arg(long)]
    pub flush: bool,
    /// Run a dispatcher, put the queries and wait for all answers
    #[arg(long)]
    pub dispatcher: bool,
    /// Run a compute node
    #[arg(long)]
    pub slave: bool,
    /// Run a watcher
    #[arg(long)]
    pub watcher: bool,
    /// How many queries to put
    #[arg(long, value_name = "N", default_value_t = 4096, value_parser = clap::value_parser!(u32).range(1..=10_000_000))]
    pub queries: u32,
    /// Over how many datasets
    #[arg(long, value_name = "D", default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub datasets: u32,
    /// Create or flush even while roles or agents are connected, or others keep data in the same database
    #[arg(long)]
    pub force: bool,
    /// ZooKeeper, with an optional chroot
    #[arg(long, value_name = "HOST:PORT[,…][/CHROOT]")]
    pub zookeeper: Option<String>,
    /// MongoDB, with the database as its path
    #[arg(long, value_name = "URI")]
    pub mongodb: Option<String>,
    /// Read this file instead of ./sawmill.toml and /etc/sawmill/sawmill.toml
    #[arg(long, value_name = "FILE")]
    pub config: Option<std::path::PathBuf>,
    /// The older form: five switches of 0 or 1
    #[arg(value_name = "0|1", hide = true, num_args = 0..=5, value_parser = clap::value_parser!(u8).range(0..=1),
          conflicts_with_all = ["create", "flush", "dispatcher", "slave", "watcher"])]
    pub older: Vec<u8>,
}

/// What is switched on, in either form.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Switches {
    /// Recreate the roots.
    pub create: bool,
    /// Empty the collections.
    pub flush: bool,
    /// Run a dispatcher and put the queries.
    pub dispatcher: bool,
    /// Run a compute node.
    pub slave: bool,
    /// Run a watcher.
    pub watcher: bool,
}

impl ClientArgs {
    /// The switches of whichever form was used.
    ///
    /// # Errors
    /// A sentence for the user: an older form without all five switches, or nothing asked for.
    pub fn switches(&self) -> Result<Switches, String> {
        let switches = match self.older[..] {
            [] => Switches {
                create: self.create,
                flush: self.flush,
                dispatcher: self.dispatcher,
                slave: self.slave,
                watcher: self.watcher,
            },
            [create, flush, dispatcher, slave, watcher] => Switches {
                create: create == 1,
                flush: flush == 1,
                dispatcher: dispatcher == 1,
                slave: slave == 1,
                watcher: watcher == 1,
            },
            _ => {
                let given = self.older.len();
                return Err(format!(
                    "the older form takes five switches (create flush dispatcher slave watcher), not {given}"
                ));
            }
        };
        if switches == Switches::default() {
            return Err(
                "nothing to do: give one or more of --create --flush --dispatcher --slave --watcher"
                    .to_owned(),
            );
        }
        Ok(switches)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn switches(line: &str) -> Result<Switches, String> {
        let args = ClientArgs::try_parse_from(line.split(' ')).map_err(|error| error.kind().to_string())?;
        args.switches()
    }

    #[test]
    fn both_forms_mean_the_same() {
        let all = switches("client --create --flush --dispatcher --slave --watcher").unwrap();
        assert_eq!(switches("client 1 1 1 1 1"), Ok(all));
        assert_eq!(switches("client 0 0 0 1 0"), switches("client --slave"));
        assert_eq!(
            switches("client --queries 7 0 0 1 0 1"),
            switches("client --watcher --dispatcher")
        );
    }

    #[test]
    fn half_a_form_or_nothing_is_refused() {
        for bad in [
            "client",
            "client 1 1",
            "client 0 0 0 0 0",
            "client 2 1 1 1 1",
            "client --create 1 1 1 1 1",
        ] {
            assert!(switches(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn the_command_line_is_well_formed() {
        use clap::CommandFactory as _;
        ClientArgs::command().debug_assert();
    }
}
