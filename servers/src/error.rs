//! What can go wrong with a local server, said so that the reader knows what to do.

use std::path::PathBuf;
use std::time::Duration;

/// Why a local server could not be started or asked.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The program is not on this machine; the advice says what to install.
    #[error("{server} was not found on this machine; {advice}")]
    NotInstalled {
        /// Which server.
        server: &'static str,
        /// What to install, as a command where there is one.
        advice: String,
    },
    /// A file or directory of the server could not be made or read.
    #[error("{path}: {source}")]
    Io {
        /// The file or directory.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The process could not be started.
    #[error("could not start {program}: {source}")]
    Spawn {
        /// The program.
        program: String,
        /// What the system said.
        source: std::io::Error,
    },
    /// Another server still works on the same data directory.
    #[error("{data_dir} is in use by another server that still runs")]
    Busy {
        /// The data directory.
        data_dir: PathBuf,
    },
    /// The server ended before it answered.
    #[error("{server} ended before it answered; the last lines of {log}:\n{tail}")]
    Died {
        /// Which server.
        server: &'static str,
        /// Its whole log.
        log: PathBuf,
        /// The end of that log.
        tail: String,
    },
    /// The server runs but did not answer in time.
    #[error("{server} at {address} did not answer within {waited:?} ({note}); its log is {log}")]
    NoAnswer {
        /// Which server.
        server: &'static str,
        /// `host:port`.
        address: String,
        /// How long was waited.
        waited: Duration,
        /// What the last try met.
        note: String,
        /// Its log.
        log: PathBuf,
    },
    /// No free port was found on the loopback interface.
    #[error("no free port on 127.0.0.1 between {first} and {last}")]
    NoPort {
        /// First port that was tried.
        first: u16,
        /// Last port of the range.
        last: u16,
    },
    /// A question to a running server failed.
    #[error("{server} at {address}: {source}")]
    Ask {
        /// Which server.
        server: &'static str,
        /// `host:port`.
        address: String,
        /// What the system said.
        source: std::io::Error,
    },
    /// MongoDB refused a command.
    #[error("mongodb at {address}: {source}")]
    Mongo {
        /// `host:port`.
        address: String,
        /// What the driver said.
        source: mongodb::error::Error,
    },
}

impl Error {
    /// Whether something has to be installed first.
    pub fn is_not_installed(&self) -> bool {
        matches!(self, Error::NotInstalled { .. })
    }

    pub(crate) fn io(path: impl Into<PathBuf>) -> impl FnOnce(std::io::Error) -> Error {
        let path = path.into();
        move |source| Error::Io { path, source }
    }
}
