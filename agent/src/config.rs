//! What an agent is told to do.

use std::{ops::RangeInclusive, path::PathBuf, time::Duration};

use api::transport::Security;
use model::{
    Name,
    place::{COPIES, Placement, Spread, TEXT_BYTES},
};
use regex::bytes::Regex;

use crate::Error;

/// Smallest and largest block, in bytes of lines: below it headers outweigh lines, above it workers take none.
pub const BLOCK_BYTES: RangeInclusive<usize> = 4 << 10..=64 << 20;

/// What one agent does.
#[derive(Clone, Debug)]
pub struct Config {
    /// Its name, unique in the mill.
    pub name: Name,
    /// Host name of this machine, kept with every line.
    pub host: String,
    /// Where this machine stands; workers with the same label are preferred.
    pub zone: String,
    /// `HOST:PORT` of dispatchers, tried in turn.
    pub servers: Vec<String>,
    /// How it and the mill know each other.
    pub security: Security,
    /// Where it keeps what it must not forget, and its spool.
    pub state: PathBuf,
    /// Bytes of blocks that wait on disk, compressed; at this size it stops reading.
    pub spool_bytes: u64,
    /// Bytes of lines after which a block is cut.
    pub block_bytes: usize,
    /// Time after which a block is cut that has any lines.
    pub age: Duration,
    /// Matches the first line of records of several lines.
    pub multiline_start: Option<Regex>,
    /// What goes into which dataset.
    pub sources: Vec<Source>,
    /// Whether symbolic links are followed below the directories that the patterns name.
    pub follow_links: bool,
    /// Where blocks are kept.
    pub keeping: Keeping,
    /// What becomes of files that are registered.
    pub after: After,
    /// How long it goes on shipping when it is asked to stop.
    pub stop_grace: Duration,
    /// The waits.
    pub timing: Timing,
}

/// Files of one dataset.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Source {
    /// Where their lines go.
    pub dataset: Name,
    /// Paths and patterns with `*`, `?`, `[…]`, `**`.
    pub patterns: Vec<String>,
}

/// Where blocks are kept.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Keeping {
    /// In the block store of the mill.
    #[default]
    Shared,
    /// By nodes, in directories of their own.
    Nodes(Nodes),
}

/// Which nodes keep blocks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Nodes {
    /// How many keep each block.
    pub copies: u32,
    /// Only those whose names match this pattern (`*` and `?`).
    pub pattern: Option<String>,
    /// How they share.
    pub spread: Sharing,
}

/// How nodes share blocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sharing {
    /// The one that takes a block keeps it.
    Receiver,
    /// Each keeps whole files, by the rendezvous hash of host and path.
    Names,
    /// Each keeps whole files, in turns.
    Turns,
}

impl Keeping {
    /// Where blocks of a file go, of which this is the number.
    pub(crate) fn placement(&self, host: &str, path: &str, number: u64) -> Option<Placement> {
        let Self::Nodes(nodes) = self else {
            return None;
        };
        let spread = match nodes.spread {
            Sharing::Receiver => Spread::Receiver,
            Sharing::Names => Spread::Key(short(format!("{host}:{path}"))),
            Sharing::Turns => Spread::Turn(number),
        };
        Some(Placement {
            copies: nodes.copies,
            spread,
            nodes: nodes.pattern.clone(),
        })
    }

    /// Whether files may be removed for it: one disk alone is not enough.
    pub(crate) fn is_safe(&self) -> bool {
        match self {
            Self::Shared => true,
            Self::Nodes(nodes) => nodes.copies >= 2,
        }
    }
}

/// As much as workers take of a key.
fn short(mut key: String) -> String {
    key.truncate(key.floor_char_boundary(TEXT_BYTES));
    key
}

/// What becomes of a file whose every byte is registered and which is not written to any more.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum After {
    /// It stays.
    #[default]
    Keep,
    /// It is removed.
    Delete,
    /// It is moved into this directory.
    MoveTo(PathBuf),
}

/// The waits of an agent; the defaults are those that its documentation tells.
#[derive(Clone, Debug)]
pub struct Timing {
    /// Between two looks at the sizes of all files, for what the system does not tell of.
    pub poll: Duration,
    /// Between two looks for new files.
    pub scan: Duration,
    /// A line without its end, in a file that is written to, is taken as it is after so long without change.
    pub unended: Duration,
    /// The same in a file that was renamed or removed.
    pub unended_rotated: Duration,
    /// A file that looks like a copy of another is compared after so long without change.
    pub copy: Duration,
    /// A renamed file that no pattern matches is let go after so long without change.
    pub let_go: Duration,
    /// A file is removed or moved after so long without change.
    pub quiet: Duration,
    /// Between two reports.
    pub report: Duration,
    /// Longest wait for a connection and for its first answer.
    pub connect: Duration,
    /// Longest wait for the answer to a block.
    pub answer: Duration,
    /// Longest time without an offer before workers that are avoided may be offered again.
    pub offer: Duration,
    /// How long a worker that could not be reached is avoided.
    pub avoid: Duration,
    /// First and longest pause before a step is tried again.
    pub retry: (Duration, Duration),
}

impl Default for Timing {
    fn default() -> Self {
        let seconds = Duration::from_secs;
        Self {
            poll: seconds(1),
            scan: seconds(5),
            unended: seconds(30),
            unended_rotated: seconds(2),
            copy: seconds(2),
            let_go: seconds(600),
            quiet: seconds(30),
            report: seconds(2),
            connect: seconds(5),
            answer: seconds(60),
            offer: seconds(10),
            avoid: seconds(30),
            retry: (Duration::from_millis(200), seconds(10)),
        }
    }
}

impl Config {
    /// Whether the settings go together.
    ///
    /// # Errors
    /// [`Error::BadConfig`], [`Error::BadPattern`].
    pub fn check(&self) -> Result<(), Error> {
        let bad = |message: String| Err(Error::BadConfig(message));
        if !BLOCK_BYTES.contains(&self.block_bytes) {
            return bad(format!(
                "a block has {} KiB to {} MiB, not {} bytes",
                BLOCK_BYTES.start() >> 10,
                BLOCK_BYTES.end() >> 20,
                self.block_bytes
            ));
        }
        if self.spool_bytes < 2 * self.block_bytes as u64 {
            return bad(format!(
                "a spool of {} bytes is too small: at least two blocks, {} bytes",
                self.spool_bytes,
                2 * self.block_bytes
            ));
        }
        if self.age.is_zero() {
            return bad("the age of a block is more than nothing".to_string());
        }
        if self.servers.is_empty() {
            return bad("no server to ship to: give --server HOST:PORT, or SAWMILL_SERVER".to_string());
        }
        if self.sources.iter().all(|source| source.patterns.is_empty()) {
            return bad("no files to follow: give paths or patterns".to_string());
        }
        if self.after != After::Keep && !self.keeping.is_safe() {
            return bad(
                "files can't be removed or moved when one node alone keeps their lines: give --copies 2, or leave them"
                    .to_string(),
            );
        }
        if let Keeping::Nodes(nodes) = &self.keeping {
            let (least, most) = (COPIES.start(), COPIES.end());
            if !COPIES.contains(&nodes.copies) {
                return bad(format!(
                    "a block has {least} to {most} copies, not {}",
                    nodes.copies
                ));
            }
            if nodes
                .pattern
                .as_ref()
                .is_some_and(|pattern| pattern.len() > TEXT_BYTES)
            {
                return bad(format!("a pattern of nodes has at most {TEXT_BYTES} bytes"));
            }
        }
        for pattern in self.sources.iter().flat_map(|source| &source.patterns) {
            glob::Pattern::new(pattern).map_err(|error| Error::BadPattern {
                pattern: pattern.clone(),
                why: error.to_string(),
            })?;
        }
        Ok(())
    }
}
