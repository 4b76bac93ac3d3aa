//! What can't be done, in words that say what was wrong, where, and what to do.

use model::{JobId, JobState, Name, parts::BadParts, processor::BadProcessor};

/// Why something could not be done.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// MongoDB or the block store.
    #[error(transparent)]
    Storage(#[from] storage::Error),
    /// ZooKeeper.
    #[error(transparent)]
    Coordination(#[from] coordination::Error),
    /// A command that can't be accepted.
    #[error(transparent)]
    BadProcessor(#[from] BadProcessor),
    /// More blocks than a job can run over.
    #[error(transparent)]
    BadParts(#[from] BadParts),
    /// A dataset that nobody added.
    #[error(
        "no such dataset: {name}; {}`sawmill dataset list` shows all, `sawmill dataset add` makes one",
        near.as_ref().map(|near| format!("did you mean {near}? ")).unwrap_or_default()
    )]
    NoSuchDataset {
        /// Its name.
        name: Name,
        /// One that is there and has nearly this name.
        near: Option<Name>,
    },
    /// A command over files that have no lines.
    #[error(
        "dataset {dataset} is of Parquet files, which have no lines for a command: ask it by `sawmill query`, or write what \
         the command is to read by `sawmill query … --to FILE.json` and add that file"
    )]
    NoLines {
        /// The dataset.
        dataset: Name,
    },
    /// A view that nobody made.
    #[error(
        "no such view: {name}{}; `sawmill view list` shows all",
        near.as_ref().map(|near| format!(", did you mean {near}?")).unwrap_or_default()
    )]
    NoSuchView {
        /// Its name.
        name: Name,
        /// One that is there and has nearly this name.
        near: Option<Name>,
    },
    /// A view that somebody else changed each time.
    #[error("view {name} was changed by somebody else at the same time")]
    ViewKeepsChanging {
        /// Its name.
        name: Name,
    },
    /// A token that can't be made.
    #[error("can't make a token: {why}")]
    BadToken {
        /// What is wrong.
        why: String,
    },
    /// A token that is not there.
    #[error(
        "no such token: {reference}; give a name or the beginning of an id; `sawmill token list` shows them"
    )]
    NoSuchToken {
        /// As it was given.
        reference: String,
    },
    /// An agent that nobody has seen.
    #[error(
        "no such agent: {name}{}; `sawmill agent list` shows all",
        near.as_ref().map(|near| format!(", did you mean {near}?")).unwrap_or_default()
    )]
    NoSuchAgent {
        /// Its name.
        name: Name,
        /// One that is there and has nearly this name.
        near: Option<Name>,
    },
    /// An agent that is not away.
    #[error("agent {name} lives: stop it before it is removed")]
    AgentLives {
        /// Its name.
        name: Name,
    },
    /// No live worker of this name takes what agents ship.
    #[error(
        "no worker {reference:?} takes what agents ship; there {}",
        match &known[..] {
            [] => "is none".to_string(),
            known => format!("are {}", known.iter().map(Name::as_str).collect::<Vec<_>>().join(", ")),
        }
    )]
    NoSuchWorker {
        /// As it was given.
        reference: String,
        /// The nodes that do.
        known: Vec<Name>,
    },
    /// A job that does not exist.
    #[error(
        "no such job: {reference}; give an id, the beginning of one, or `last`; `sawmill job list` shows them"
    )]
    NoSuchJob {
        /// As it was given.
        reference: String,
    },
    /// A job that can't be cancelled any more.
    #[error("job {job} has ended already: it is {state}")]
    AlreadyEnded {
        /// The job.
        job: JobId,
        /// Its final state.
        state: JobState,
    },
    /// A job without a result to show.
    #[error("job {job} has no result: it is {state}{}", because(.error))]
    NoResult {
        /// The job.
        job: JobId,
        /// Its state.
        state: JobState,
        /// Why it failed.
        error: Option<String>,
    },
    /// Retention has removed the results of a job.
    #[error("the results of job {job} are no longer kept: {found} of {expected} are there")]
    ResultsGone {
        /// The job.
        job: JobId,
        /// Results that are there.
        found: u64,
        /// Results that it had.
        expected: u64,
    },
    /// A job that did not end in time.
    #[error("job {job} has not ended: it is {state} with {ended} of {subtasks} subtasks ended")]
    NotEnded {
        /// The job.
        job: JobId,
        /// Its state.
        state: JobState,
        /// Subtasks that have ended.
        ended: u64,
        /// All its subtasks.
        subtasks: u64,
    },
    /// An output that is recorded and can't be read.
    #[error("can't read {what}: {why}")]
    Unreadable {
        /// What.
        what: String,
        /// What the system said.
        why: String,
    },
    /// A mistake of the one who asked, in words of the one who found it.
    #[error("{0}")]
    Usage(String),
    /// What can't be done for another reason, in words of the one who found it.
    #[error("{0}")]
    Failed(String),
    /// A query that can't be planned or answered.
    #[cfg(feature = "sql")]
    #[error(transparent)]
    Sql(#[from] sql::Error),
    /// Queries in a build without SQL.
    #[error("this build of Sawmill has no SQL")]
    NoSql,
    /// A gateway refused, in its words.
    #[error("{message}")]
    Refused {
        /// Its code.
        code: tonic::Code,
        /// The reason for programs; none where the connection itself failed.
        reason: Option<String>,
        /// The message for people.
        message: String,
    },
    /// No gateway answers.
    #[error(transparent)]
    Connect(#[from] api::transport::Error),
    /// A gateway of a release that says what this one does not know.
    #[error("the gateway answered what this release does not understand: {0}")]
    Malformed(#[from] api::Malformed),
    /// What only works on the stores themselves.
    #[error(
        "this works on ZooKeeper and MongoDB themselves: leave --server and SAWMILL_SERVER out, and say where they are with \
         --zookeeper and --mongodb"
    )]
    NeedsStores,
    /// A file or folder that can't be added to a dataset.
    #[error("{path}: {why}")]
    BadFile {
        /// As it was given.
        path: String,
        /// What is wrong with it.
        why: String,
    },
}

fn because(error: &Option<String>) -> String {
    error
        .as_ref()
        .map(|error| format!(" ({error})"))
        .unwrap_or_default()
}

/// Why something could not be done, for programs.
pub mod reason {
    /// A job that is final can't be cancelled.
    pub const ALREADY_ENDED: &str = "ALREADY_ENDED";
    /// A job that has not ended in time.
    pub const NOT_ENDED: &str = "NOT_ENDED";
    /// Retention has removed the results.
    pub const RESULTS_GONE: &str = "RESULTS_GONE";
    /// A view that nobody made.
    pub const NO_SUCH_VIEW: &str = "NO_SUCH_VIEW";
}

impl Error {
    /// Whether it is a mistake of the one who asked, in the form of what was given.
    pub fn is_usage(&self) -> bool {
        match self {
            Self::BadProcessor(_)
            | Self::NoLines { .. }
            | Self::BadToken { .. }
            | Self::Usage(_)
            | Self::NeedsStores => true,
            Self::Storage(error) => is_usage(error),
            Self::Refused { code, .. } => *code == tonic::Code::InvalidArgument,
            Self::Connect(error) => error.is_usage(),
            _ => false,
        }
    }

    /// Whether the same call may succeed later without anybody's doing.
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::Storage(error) => error.is_retryable(),
            Self::Coordination(error) => error.is_retryable(),
            Self::Refused { code, .. } => *code == tonic::Code::Unavailable,
            Self::Connect(error) => !error.is_usage(),
            _ => false,
        }
    }

    /// Why, in one word for programs: the same whether the stores were asked or a gateway.
    pub fn reason(&self) -> &str {
        match self {
            Self::Storage(error) => of_storage(error),
            Self::Coordination(_) => "COORDINATION",
            Self::BadProcessor(_) => "BAD_PROCESSOR",
            Self::BadParts(_) => "TOO_MANY_BLOCKS",
            Self::NoSuchDataset { .. } => "NO_SUCH_DATASET",
            Self::NoLines { .. } => "NO_LINES",
            Self::NoSuchView { .. } => reason::NO_SUCH_VIEW,
            Self::ViewKeepsChanging { .. } => "CONCURRENT",
            Self::NoSuchJob { .. } => "NO_SUCH_JOB",
            Self::NoSuchAgent { .. } => "NO_SUCH_AGENT",
            Self::AgentLives { .. } => "AGENT_LIVES",
            Self::NoSuchWorker { .. } => "NO_SUCH_WORKER",
            Self::AlreadyEnded { .. } => reason::ALREADY_ENDED,
            Self::NoResult { .. } => "NO_RESULT",
            Self::ResultsGone { .. } => reason::RESULTS_GONE,
            Self::NotEnded { .. } => reason::NOT_ENDED,
            Self::Unreadable { .. } => "UNREADABLE",
            Self::BadFile { .. } => "BAD_FILE",
            Self::Usage(_) => "USAGE",
            Self::Failed(_) => "FAILED",
            Self::BadToken { .. } => "BAD_TOKEN",
            Self::NoSuchToken { .. } => "NO_SUCH_TOKEN",
            #[cfg(feature = "sql")]
            Self::Sql(_) => "QUERY",
            Self::NoSql => "NO_SQL",
            Self::Refused { reason, .. } => reason.as_deref().unwrap_or("CONNECTION"),
            Self::Connect(_) => "CONNECTION",
            Self::Malformed(_) => "MALFORMED",
            Self::NeedsStores => "NEEDS_STORES",
        }
    }

    /// Whether [`Error::reason`] is this one.
    pub fn is(&self, reason: &str) -> bool {
        self.reason() == reason
    }
}

fn of_storage(error: &storage::Error) -> &'static str {
    use storage::Error as E;
    match error {
        E::Mongo { .. } | E::NoReplicaSet { .. } => "MONGODB",
        E::BadUri { .. } | E::BadUrl { .. } => "BAD_ADDRESS",
        E::Newer { .. } => "NEWER_FORMAT",
        E::Decode { .. } => "UNREADABLE",
        E::NotFound { .. } => "NOT_FOUND",
        E::Ambiguous { .. } => "AMBIGUOUS",
        E::Exists { .. } | E::Taken { .. } => "EXISTS",
        E::InUse { .. } => "IN_USE",
        E::Irrevocable { .. } => "IRREVOCABLE",
        E::Concurrent { .. } => "CONCURRENT",
        E::BadCollection { .. } => "BAD_COLLECTION",
        E::ClocksApart { .. } => "CLOCKS_APART",
        E::Changed { .. } | E::NotAFile { .. } | E::Io { .. } => "BAD_FILE",
        E::Object { .. } => "BLOCK_STORE",
        _ => "STORAGE",
    }
}

/// Whether it is the form of an address, or a name, that is wrong.
pub fn is_usage(error: &storage::Error) -> bool {
    matches!(
        error,
        storage::Error::BadUri { .. } | storage::Error::BadUrl { .. } | storage::Error::BadCollection { .. }
    )
}
