//! The command line: what may be typed, and which command it leads to.
//!
//! Promise: exit code 0 when done, 1 when something failed, 2 when it was asked for in a wrong way; errors go to standard
//! error as `error: …`; only results go to standard output.

use std::{path::PathBuf, process::ExitCode};

use anyhow::Context as _;
use clap::{ArgAction, Args, Parser, Subcommand, error::ErrorKind};

use crate::{
    commands::{self, Context},
    config::{self, Flag, Settings, Size, Sources},
    exit::Exit,
    output::{self, Format},
    runtime, telemetry,
};

const EXAMPLES: &str = "\
Examples:
  sawmill dev                                     a whole mill on this machine, until Ctrl-C
  sawmill dataset add access /var/log/nginx/*.log
  sawmill run --dataset access --map 'grep -c 404' --ok-exit 0,1 --reduce 'paste -sd+ | bc'
  sawmill status
  sawmill doctor                                  what is wrong, and what to do about it

Exit codes: 0 done, 1 something failed, 2 a mistake on the command line, 130 stopped by Ctrl-C or `kill`.";

/// A ZooKeeper-coordinated queue for log batches
///
/// Logs go in as datasets, jobs run commands over their blocks on any number of machines, and the end of every block is
/// recorded in MongoDB exactly once.
#[derive(Debug, Parser)]
#[command(name = "sawmill", version, about, after_help = EXAMPLES, max_term_width = 100)]
#[command(
    subcommand_required = true,
    arg_required_else_help = false,
    propagate_version = false
)]
pub struct Cli {
    #[command(flatten)]
    global: Global,
    #[command(subcommand)]
    command: Command,
}

/// What may be said with every command.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Everywhere")]
pub struct Global {
    /// Read this file instead of ./sawmill.toml and /etc/sawmill/sawmill.toml
    #[arg(long, global = true, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Where ZooKeeper is: HOST:PORT[,HOST:PORT…][/CHROOT] [default: localhost:2181]
    #[arg(long, global = true, value_name = "ADDRESS")]
    zookeeper: Option<String>,
    /// Where MongoDB is, with the database as its path [default: mongodb://localhost:27017/sawmill]
    #[arg(long, global = true, value_name = "URI")]
    mongodb: Option<String>,
    /// Ask the mill by the gateway of a dispatcher, HOST:PORT[,HOST:PORT…], instead of by ZooKeeper and MongoDB [default
    /// of `agent` and `ship`: 127.0.0.1:7766]
    #[arg(long, global = true, value_name = "ADDRESS")]
    server: Option<String>,
    /// Directory with certificate, key and authority of whoever runs this, made by `sawmill pki issue`
    #[arg(long, global = true, value_name = "DIR")]
    identity: Option<String>,
    /// The block store, for what agents ship and for large outputs [default: file:///var/tmp/sawmill/store]
    #[arg(long, global = true, value_name = "URL")]
    store: Option<String>,
    /// A table for people or one JSON document for programs; answers of queries also in the other forms
    #[arg(long, global = true, value_name = "FORM", value_enum, default_value_t)]
    output: Format,
    /// Tell more on standard error; -vv tells everything
    #[arg(short, long, global = true, action = ArgAction::Count)]
    verbose: u8,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run a whole mill on this machine, with its own ZooKeeper and MongoDB where none answers
    Dev(DevArgs),
    /// Run a dispatcher: one leads and feeds the others' work, the rest stand by; each serves commands over the network
    Dispatcher(DispatcherArgs),
    /// Run a compute node: it claims subtasks and runs them
    Compute(ComputeArgs),
    /// Run a watcher: it records how subtasks ended
    Watcher,
    /// Make the three roots in ZooKeeper and the indexes in MongoDB; harmless when they are there
    Init(commands::init::InitArgs),
    /// Follow log files on this machine as they grow, and ship their lines to a worker
    Agent(Box<commands::agent::AgentArgs>),
    /// Ship files once, and know when they are safe
    Ship(Box<commands::ship::ShipArgs>),
    /// Name log files, so that jobs can run over them
    #[command(subcommand)]
    Dataset(commands::dataset::Command),
    /// Run a command over every block of a dataset and print the result
    Run(commands::run::RunArgs),
    /// Ask a question in SQL over the lines of a dataset
    #[cfg(feature = "sql")]
    Query(commands::query::QueryArgs),
    /// Show what a query would do: its halves, the blocks to read, what is recorded already
    #[cfg(feature = "sql")]
    Explain(commands::query::explain::ExplainArgs),
    /// Keep the answers of queries current as blocks are added
    #[cfg(feature = "sql")]
    #[command(subcommand)]
    View(commands::view::Command),
    /// Look at jobs, wait for them, cancel them
    #[command(subcommand)]
    Job(commands::job::Command),
    /// Run commands on one worker, or on all of them, beside the queue
    #[command(subcommand)]
    Task(commands::task::Command),
    /// Who leads, who works, what waits
    Status,
    /// Check every part and say what to do about what is wrong
    Doctor(commands::doctor::DoctorArgs),
    /// Measure what this mill can do
    #[command(subcommand)]
    Bench(commands::bench::Command),
    /// Make an authority and certificates, so that parts on several machines know each other
    #[command(subcommand)]
    Pki(commands::pki::Command),
    /// Make and revoke tokens, which scripts show instead of a certificate
    #[command(subcommand)]
    Token(commands::token::Command),
    /// Look at who changed what
    #[command(subcommand)]
    Audit(commands::audit::Command),
    /// Show the settings and where they come from
    #[command(subcommand)]
    Config(commands::config::Command),
    /// Print a completion script for a shell
    Completions(commands::completions::CompletionsArgs),
}

impl Command {
    /// Whether it may print the answer of a query.
    fn prints_answers(&self) -> bool {
        match self {
            #[cfg(feature = "sql")]
            Self::Query(_) => true,
            #[cfg(feature = "sql")]
            Self::View(command) => command.prints_answers(),
            Self::Dataset(command) => command.prints_answers(),
            Self::Job(command) => command.prints_answers(),
            _ => false,
        }
    }
}

/// `sawmill dev`.
#[derive(Clone, Debug, Args)]
pub struct DevArgs {
    /// Where the servers started here keep their data [default: ~/.local/share/sawmill]
    #[arg(long, value_name = "DIR")]
    pub data_dir: Option<PathBuf>,
    /// How many entries a node runs at once [default: the number of cores]
    #[arg(long, value_name = "N")]
    pub slots: Option<String>,
    /// Memory for columns that queries have read, of each node: a part of the machine's, or bytes [default: 25%]
    #[arg(long, value_name = "SIZE")]
    pub cache: Option<String>,
    /// How many compute nodes to run
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub nodes: u32,
}

/// `sawmill dispatcher`.
#[derive(Clone, Debug, Args)]
pub struct DispatcherArgs {
    /// Where its gateway listens, for commands given --server and for agents; port 0 takes a free one [default:
    /// 127.0.0.1:7766]
    #[arg(long, value_name = "HOST:PORT")]
    listen: Option<String>,
    /// Host under which others reach the gateway, and its port where one is forwarded [default: what it listens on, or the
    /// name of this host]
    #[arg(long, value_name = "HOST[:PORT]")]
    advertise: Option<String>,
    /// Listen without TLS where others can reach it: whoever connects may do everything
    #[arg(long)]
    insecure: bool,
}

/// `sawmill compute`.
#[derive(Clone, Debug, Args)]
pub struct ComputeArgs {
    /// How many entries it runs at once [default: the number of cores]
    #[arg(long, value_name = "N")]
    slots: Option<String>,
    /// Memory for columns that queries have read: a part of the machine's, or bytes [default: 25%]
    #[arg(long, value_name = "SIZE")]
    cache: Option<String>,
    /// Name of this node [default: the name of the host]
    #[arg(long, value_name = "NAME")]
    name: Option<String>,
    /// Keep blocks in this directory, for `ship --spread` and `agent --local` [default: it keeps none]
    #[arg(long, value_name = "DIR")]
    local_store: Option<String>,
    /// Run the commands of jobs, as the user this runs under
    #[arg(long)]
    allow_exec: bool,
}

impl Cli {
    /// The settings that were given as flags.
    fn flags(&self) -> Vec<Flag> {
        let Global {
            zookeeper,
            mongodb,
            store,
            identity,
            server,
            ..
        } = &self.global;
        let mut flags = Vec::new();
        let mut add = |key, flag, value: &Option<String>| {
            flags.extend(value.clone().map(|value| Flag { key, flag, value }));
        };
        add("zookeeper", "--zookeeper", zookeeper);
        add("mongodb", "--mongodb", mongodb);
        add("server", "--server", server);
        add("store", "--store", store);
        add("identity", "--identity", identity);
        match &self.command {
            Command::Dev(args) => {
                add("slots", "--slots", &args.slots);
                add("cache", "--cache", &args.cache);
            }
            Command::Dispatcher(args) => {
                add("listen", "--listen", &args.listen);
                add("advertise", "--advertise", &args.advertise);
                let insecure = args.insecure.then(|| "true".to_string());
                add("insecure", "--insecure", &insecure);
            }
            Command::Compute(args) => {
                add("slots", "--slots", &args.slots);
                add("cache", "--cache", &args.cache);
                add("node", "--name", &args.name);
                add("local_store", "--local-store", &args.local_store);
                add(
                    "allow_exec",
                    "--allow-exec",
                    &args.allow_exec.then(|| "true".to_string()),
                );
            }
            Command::Agent(args) => add("zone", "--zone", args.zone()),
            Command::Ship(args) => add("zone", "--zone", args.zone()),
            _ => {}
        }
        flags
    }

    fn is_role(&self) -> bool {
        match &self.command {
            Command::Agent(args) => args.follows(),
            Command::Dev(_) | Command::Dispatcher(_) | Command::Compute(_) | Command::Watcher => true,
            _ => false,
        }
    }
}

/// The whole program: reads the command line, runs the command, prints its error, gives its exit code.
pub fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => return refused(&error),
    };
    telemetry::start(cli.global.verbose, cli.is_role());
    let done = runtime::run(dispatch(cli))
        .context("can't start the runtime")
        .flatten();
    done.unwrap_or_else(|error| failed(&error))
}

/// A command line that clap refuses, or `--help` and `--version`.
fn refused(error: &clap::Error) -> ExitCode {
    let asked = matches!(error.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion);
    // Whoever closed the stream does not want to read it.
    error.print().unwrap_or_default();
    if asked {
        Exit::Success.into()
    } else {
        Exit::Usage.into()
    }
}

fn failed(error: &anyhow::Error) -> ExitCode {
    let exit = Exit::of(error);
    if exit != Exit::Success {
        output::note(format_args!("error: {}", told(error)));
    }
    exit.into()
}

/// The error and its causes in one line, each text once. The errors of our crates tell their causes themselves.
pub(crate) fn told(error: &anyhow::Error) -> String {
    let mut text = String::new();
    for cause in error.chain() {
        let said = cause.to_string();
        if !text.contains(&said) {
            text = if text.is_empty() {
                said
            } else {
                format!("{text}: {said}")
            };
        }
        let is_ours = cause.is::<control::Error>()
            || cause.is::<storage::Error>()
            || cause.is::<coordination::Error>()
            || cause.is::<servers::Error>()
            || cause.is::<agent::Error>()
            || cause.is::<api::transport::Error>()
            || cause.is::<pki::Error>()
            || cause.is::<config::Error>();
        if is_ours {
            break;
        }
    }
    text
}

async fn dispatch(cli: Cli) -> anyhow::Result<ExitCode> {
    let sources = Sources::of_process(cli.global.config.as_deref(), cli.flags());
    let format = cli.global.output;
    if format.is_for_answers() && !cli.command.prints_answers() {
        return Err(crate::exit::usage(
            "this form of --output is for answers: use it with `query` and `job output`, and table or json here",
        ));
    }
    if let Command::Completions(args) = &cli.command {
        return commands::completions::run(args).map(Into::into);
    }
    let settings = Settings::load(&sources)?;
    #[cfg(feature = "sql")]
    settings.define_formats()?;
    settings
        .warnings()
        .iter()
        .for_each(|warning| tracing::warn!("{warning}"));
    let context = Context::new(settings, format);
    let done = carry_out(cli.command, &context, format).await;
    context.close().await;
    done
}

async fn carry_out(command: Command, context: &Context, format: Format) -> anyhow::Result<ExitCode> {
    let exit = match command {
        Command::Dev(args) => return commands::dev::run(args, &context.settings, format).await,
        Command::Bench(command) => {
            context.needs_stores()?;
            return commands::bench::run(command, &context.settings, format).await;
        }
        Command::Dispatcher(_) => commands::dispatcher::run(context).await?,
        Command::Compute(_) => commands::compute::run(context).await?,
        Command::Watcher => commands::watcher::run(context).await?,
        Command::Agent(args) => commands::agent::run(*args, context).await?,
        Command::Ship(args) => commands::ship::run(*args, context).await?,
        Command::Init(args) => commands::init::run(args, context).await?,
        Command::Dataset(command) => commands::dataset::run(command, context).await?,
        Command::Run(args) => commands::run::run(args, context).await?,
        #[cfg(feature = "sql")]
        Command::Query(args) => commands::query::run(args, context).await?,
        #[cfg(feature = "sql")]
        Command::Explain(args) => commands::query::explain::run(args, context).await?,
        #[cfg(feature = "sql")]
        Command::View(command) => commands::view::run(command, context).await?,
        Command::Job(command) => commands::job::run(command, context).await?,
        Command::Token(command) => commands::token::run(command, context).await?,
        Command::Audit(command) => commands::audit::run(command, context).await?,
        Command::Pki(command) => commands::pki::run(command, context)?,
        Command::Task(command) => commands::task::run(command, context).await?,
        Command::Status => commands::status::run(context).await?,
        Command::Doctor(args) => commands::doctor::run(args, context).await?,
        Command::Config(command) => commands::config::run(command, context)?,
        Command::Completions(_) => Exit::Success,
    };
    Ok(exit.into())
}

/// For clap: a size such as `8MiB`.
pub fn size(text: &str) -> Result<u64, String> {
    text.parse::<Size>().map(|size| size.0)
}

/// For clap: a duration such as `30s`.
pub fn span(text: &str) -> Result<std::time::Duration, String> {
    text.parse::<config::Span>().map(|span| span.0)
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_command_line_is_well_formed() {
        Cli::command().debug_assert();
    }

    #[test]
    fn flags_become_settings_that_know_their_flag() {
        let cli = Cli::try_parse_from([
            "sawmill",
            "compute",
            "--name",
            "n1",
            "--allow-exec",
            "--store",
            "s3://b",
        ])
        .unwrap();
        let flags: Vec<_> = cli
            .flags()
            .into_iter()
            .map(|flag| (flag.key, flag.flag, flag.value))
            .collect();
        let expected = [
            ("store", "--store", "s3://b"),
            ("node", "--name", "n1"),
            ("allow_exec", "--allow-exec", "true"),
        ];
        assert_eq!(
            flags,
            expected.map(|(key, flag, value)| (key, flag, value.to_string()))
        );
        assert!(cli.is_role());
    }

    #[test]
    fn causes_are_told_once() {
        let error = anyhow::anyhow!("refused")
            .context("can't write: refused")
            .context("job 7");
        assert_eq!(told(&error), "job 7: can't write: refused");
    }
}
