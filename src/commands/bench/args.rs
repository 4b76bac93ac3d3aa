//! What `sawmill bench` may be told.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use crate::config::Size;

/// What can be measured.
#[derive(Clone, Debug, Subcommand)]
pub enum Command {
    /// Subtasks or jobs per second, beside what ZooKeeper and MongoDB alone can do
    Queue(QueueArgs),
    /// From submit to final result on an idle mill, beside the synced steps it takes
    Latency(LatencyArgs),
    /// Raw scan of files with a command, beside GNU parallel
    Scan(ScanArgs),
    /// Questions in SQL over an access log, beside awk, DuckDB and chDB
    #[cfg(feature = "sql")]
    Sql(SqlArgs),
    /// Logs shipped by agents, beside rsync over loopback; an agent at rest; from a line to a view
    Ingest(IngestArgs),
    /// Jobs submitted over a gateway, beside MongoDB itself
    Gateway(GatewayArgs),
    /// Whether a long job and many nodes keep the tree, the memory and the requests small
    Growth(GrowthArgs),
    /// Print a made-up access log
    Log(LogArgs),
}

/// Which servers to measure on.
#[derive(Clone, Debug, Args)]
pub struct ServerArgs {
    /// Measure on the configured ZooKeeper and MongoDB (in a chroot and a database of their own)
    #[arg(long)]
    pub use_configured: bool,
    /// Directory for the data of the own servers; must be on the disk to measure [default: the system's for
    /// temporary files]
    #[arg(long, value_name = "DIR", conflicts_with = "use_configured")]
    pub dir: Option<PathBuf>,
}

/// What `bench queue` may be told.
#[derive(Clone, Debug, Args)]
pub struct QueueArgs {
    /// How many no-op subtasks the job has
    #[arg(long, value_name = "N", default_value_t = 100_000, value_parser = clap::value_parser!(u32).range(1..=50_000_000))]
    pub subtasks: u32,
    /// Bytes of each subtask's block, and of its result
    #[arg(long, value_name = "BYTES", default_value = "200", value_parser = payload_bytes)]
    pub payload: usize,
    /// Instead of one job: so many jobs of one subtask each, submitted in batches
    #[arg(long, value_name = "N", conflicts_with = "subtasks", value_parser = clap::value_parser!(u32).range(1..=50_000_000))]
    pub jobs: Option<u32>,
    /// Slots of each compute node [default: 64, with --jobs 512]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=4096))]
    pub slots: Option<u32>,
    /// Compute nodes
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub compute_nodes: u32,
    /// Watchers
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=100))]
    pub watchers: u32,
    /// Only with entries of one subtask each
    #[arg(long, conflicts_with = "jobs")]
    pub no_bundles: bool,
    /// Subtasks (or jobs) that run before the clock starts [default: 300000; with --jobs as many as are measured, at most 20000]
    #[arg(long, value_name = "N")]
    pub warm_up: Option<u32>,
    /// Where to measure.
    #[command(flatten)]
    pub servers: ServerArgs,
}

/// What `bench latency` may be told.
#[derive(Clone, Debug, Args)]
pub struct LatencyArgs {
    /// How many subtasks, one after the other
    #[arg(long, value_name = "N", default_value_t = 300, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub rounds: u32,
    /// Where to measure.
    #[command(flatten)]
    pub servers: ServerArgs,
}

/// What `bench scan` may be told.
#[derive(Clone, Debug, Args)]
pub struct ScanArgs {
    /// Files to scan; none: a made-up access log of --bytes
    #[arg(value_name = "FILE")]
    pub files: Vec<PathBuf>,
    /// Size of the made-up access log
    #[arg(long, value_name = "BYTES", default_value = "1GiB", conflicts_with = "files")]
    pub bytes: Size,
    /// Command to run over each block; may be repeated [default: `wc -l`, and a count of status codes]
    #[arg(long, value_name = "CMD")]
    pub map: Vec<String>,
    /// Bytes of a block, for both
    #[arg(long, value_name = "BYTES", default_value = "8MiB")]
    pub block: Size,
    /// Blocks worked on at once, by both
    #[arg(long, value_name = "N", default_value_t = 2, value_parser = clap::value_parser!(u32).range(1..=4096))]
    pub slots: u32,
    /// How often each is measured, in turns
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub rounds: u32,
    /// Where to measure.
    #[command(flatten)]
    pub servers: ServerArgs,
}

/// What `bench sql` may be told.
#[cfg(feature = "sql")]
#[derive(Clone, Debug, Args)]
pub struct SqlArgs {
    /// Size of the made-up access log
    #[arg(long, value_name = "BYTES", default_value = "1GiB")]
    pub bytes: Size,
    /// Bytes of a block
    #[arg(long, value_name = "BYTES", default_value = "8MiB")]
    pub block: Size,
    /// Blocks worked on at once, threads of the others
    #[arg(long, value_name = "N", default_value_t = 2, value_parser = clap::value_parser!(u32).range(1..=4096))]
    pub slots: u32,
    /// Memory for columns that were read
    #[arg(long, value_name = "SIZE", default_value = "2GiB")]
    pub cache: Size,
    /// How often each is measured, in turns
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub rounds: u32,
    /// A Python that has the packages duckdb and chdb; what it lacks is left out
    #[arg(long, value_name = "PROGRAM", default_value = "python3")]
    pub python: PathBuf,
    /// Where to measure.
    #[command(flatten)]
    pub servers: ServerArgs,
}

/// What `bench ingest` may be told.
#[derive(Clone, Debug, Args)]
pub struct IngestArgs {
    /// Size of the made-up access log
    #[arg(long, value_name = "BYTES", default_value = "1GiB")]
    pub bytes: Size,
    /// How often each way is measured, in turns
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub rounds: u32,
    /// Files of the agent at rest
    #[arg(long, value_name = "N", default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub files: u32,
    /// Lines written one at a time for a view
    #[arg(long, value_name = "N", default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub live: u32,
    /// Slots of the compute node
    #[arg(long, value_name = "N", default_value_t = 2, value_parser = clap::value_parser!(u32).range(1..=4096))]
    pub slots: u32,
    /// Where to measure.
    #[command(flatten)]
    pub servers: ServerArgs,
}

/// What `bench gateway` may be told.
#[derive(Clone, Debug, Args)]
pub struct GatewayArgs {
    /// Jobs of a stream
    #[arg(long, value_name = "N", default_value_t = 20_000, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub jobs: u32,
    /// Jobs submitted one at a time
    #[arg(long, value_name = "N", default_value_t = 500, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub singles: u32,
    /// How often each is measured, in turns
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub rounds: u32,
    /// Where to measure.
    #[command(flatten)]
    pub servers: ServerArgs,
}

/// What `bench growth` may be told.
#[derive(Clone, Debug, Args)]
pub struct GrowthArgs {
    /// Subtasks of the long job
    #[arg(long, value_name = "N", default_value_t = 1_000_000, value_parser = clap::value_parser!(u32).range(1000..=50_000_000))]
    pub subtasks: u32,
    /// Bytes of each subtask's block
    #[arg(long, value_name = "BYTES", default_value = "32", value_parser = payload_bytes)]
    pub payload: usize,
    /// Entries of each of the two jobs that count requests
    #[arg(long, value_name = "N", default_value_t = 20_000, value_parser = clap::value_parser!(u32).range(100..=1_000_000))]
    pub entries: u32,
    /// Directory for the data of the own servers [default: the system's for temporary files]
    #[arg(long, value_name = "DIR")]
    pub dir: Option<PathBuf>,
}

/// What `bench log` may be told.
#[derive(Clone, Debug, Args)]
pub struct LogArgs {
    /// How many lines
    #[arg(long, value_name = "N", default_value_t = 1_000_000, conflicts_with = "bytes")]
    pub lines: u64,
    /// Instead of a number of lines: about so many bytes
    #[arg(long, value_name = "BYTES")]
    pub bytes: Option<Size>,
    /// As of a busy site: 10,000 hosts, 2,000 paths of which few are asked for often, request times
    #[arg(long)]
    pub busy: bool,
    /// Another seed gives another log
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub seed: u64,
}

/// A payload that stays inside a znode.
fn payload_bytes(text: &str) -> Result<usize, String> {
    let bytes = text.parse::<Size>()?.0;
    let most = model::limits::INLINE_SUBTASK_BYTES;
    usize::try_from(bytes)
        .ok()
        .filter(|&bytes| bytes <= most)
        .ok_or_else(|| format!("{bytes} bytes are more than the {most} that travel inside a znode"))
}
