//! What a subtask does to a block.

mod packed;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::{
    job::JobId,
    limits::{COMMAND_BYTES, VARIABLES_BYTES},
    payload::Output,
    table::Table,
};

/// Default limit on what one subtask may print: 1 GiB.
pub const DEFAULT_OUTPUT_LIMIT_BYTES: u64 = 1 << 30;

/// How many rows a query may bring together when it is allowed to without a number: what takes a merge a few seconds and a
/// few hundred megabytes.
pub const DEFAULT_GATHER_ROWS: u64 = 1_000_000;
/// Most bytes of all small tables of a query together: every node keeps them in memory.
pub const SMALL_TABLES_BYTES: u64 = 16 << 20;

/// What a job runs over each block, and how it merges the partial results.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Processor {
    /// Gives an inline block back as its result, and nothing for any other: for benchmarks and the harness.
    Noop,
    /// Runs shell commands, as with Hadoop streaming.
    Command(Command),
    /// Answers a query in SQL.
    Query(Query),
}

/// A query over the lines of datasets, with all that shapes its answer: its halves are made from this alone.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Query {
    /// Its text.
    pub sql: String,
    /// The datasets that it reads. A block belongs to one of them, by its number here.
    #[serde(with = "packed")]
    pub tables: Vec<QueryTable>,
    /// Small tables that it joins with them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub with: Vec<SmallTable>,
    /// The most rows that may be brought together where blocks can't reduce them; none: a query that needs that is refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gather_rows: Option<u64>,
    /// An IANA name or an offset: the zone in which times without one are meant.
    pub time_zone: String,
    /// What `now()` is, in microseconds since 1970 UTC.
    pub now_us: i64,
    /// Who planned it; partial results of one version mean nothing to another.
    pub version: String,
    /// Identifies what is asked, in 32 hexadecimal digits; none for what is not to be answered from a recorded answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub question: Option<String>,
    /// The collection that the answer replaces; none: small answers are among those of all jobs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub into: Option<String>,
    /// Set where a job brings a view up to date: its merge gives the new merged state, of which the answer is made, in the
    /// place of the answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refresh: Option<Refresh>,
}

/// What a job adds its blocks to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refresh {
    /// The merged state of the blocks before; none: the view is made anew.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub before: Option<Merged>,
}

/// A merged state: partial results of many blocks in one, recorded as the result of a merge.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Merged {
    /// The job of the merge.
    pub job: JobId,
    /// The index of the merge in it.
    pub index: u32,
}

/// A dataset that a query reads.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct QueryTable {
    /// What the query calls it.
    pub name: String,
    /// How lines become rows.
    pub table: Table,
    /// Identifies what happens to its blocks, in hexadecimal digits; none for what differs from run to run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lower_half: Option<String>,
}

/// A table that every node has as a whole while it works on a query.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SmallTable {
    /// What the query calls it.
    pub name: String,
    /// How lines become rows.
    pub table: Table,
    /// blake3 of its bytes, in hexadecimal digits: what nodes know it by.
    pub checksum: String,
    /// Where its bytes are: small ones travel along, others lie in the block store as long as the job.
    pub stored: Output,
}

impl Query {
    /// Whether what happens to every block is the same each time.
    pub fn is_reusable(&self) -> bool {
        self.tables.iter().all(|table| table.lower_half.is_some())
    }
}

/// A pair of shell commands.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Command {
    /// Gets the raw lines of a block on standard input; its standard output is the partial result.
    pub map: String,
    /// Gets all partial results in block order on standard input; its standard output is the result of the job.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reduce: Option<String>,
    /// Longest run of one command, in milliseconds; none: no limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout_ms: Option<u64>,
    /// Most bytes one command may print.
    pub output_limit_bytes: u64,
    /// Whether a pipeline fails when any part of it does. Jobs that were recorded before this existed ran without.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub pipefail: bool,
    /// Exit codes that count as success, beside 0.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ok_exit: Vec<u8>,
    /// Variables of the environment of both commands.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub env: BTreeMap<String, String>,
}

impl Default for Command {
    fn default() -> Self {
        Self {
            map: String::new(),
            reduce: None,
            timeout_ms: None,
            output_limit_bytes: DEFAULT_OUTPUT_LIMIT_BYTES,
            pipefail: true,
            ok_exit: Vec::new(),
            env: BTreeMap::new(),
        }
    }
}

impl Command {
    /// Adds all that shapes a partial result. A command with none of what was added later has the digest that it had before.
    fn digest(&self, hasher: &mut blake3::Hasher) {
        hasher.update(b"command\0").update(self.map.as_bytes());
        if self.pipefail {
            hasher.update(b"\0pipefail");
        }
        for code in &self.ok_exit {
            hasher.update(b"\0ok\0").update(&[*code]);
        }
        for (name, value) in &self.env {
            hasher.update(b"\0env\0").update(name.as_bytes());
            hasher.update(b"=").update(value.as_bytes());
        }
    }

    fn check(&self) -> Result<(), BadProcessor> {
        let reduce = self.reduce.iter().map(|text| ("reduce", text));
        for (which, text) in std::iter::once(("map", &self.map)).chain(reduce) {
            if text.trim().is_empty() {
                return Err(BadProcessor::Empty(which));
            }
            if text.len() > COMMAND_BYTES {
                return Err(BadProcessor::TooLong(which, text.len()));
            }
            if text.contains('\0') {
                return Err(BadProcessor::Nul(which));
            }
        }
        let bad = |(name, value): &(&String, &String)| !is_variable(name) || value.contains('\0');
        if let Some((name, _)) = self.env.iter().find(bad) {
            return Err(BadProcessor::BadVariable(name.clone()));
        }
        let bytes = self
            .env
            .iter()
            .map(|(name, value)| name.len() + value.len())
            .sum();
        if bytes > VARIABLES_BYTES {
            return Err(BadProcessor::LongVariables(bytes));
        }
        Ok(())
    }
}

/// Whether users may set a variable of this name.
fn is_variable(name: &str) -> bool {
    let is_part = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    name.bytes().all(is_part)
        && name.bytes().next().is_some_and(|first| !first.is_ascii_digit())
        && !name.starts_with("SAWMILL_")
}

/// What a worker must offer to run a processor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Requirement {
    /// Started with `--allow-exec`.
    Exec,
    /// Built with SQL.
    Sql,
}

/// What a worker offers to processors.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Offer<'a> {
    /// What it can do.
    pub capabilities: &'a [Requirement],
    /// The version of the halves that it runs, see [`Query::version`]; none: it runs none, or does not tell.
    pub sql: Option<&'a str>,
}

/// A processor that can't be accepted.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadProcessor {
    /// An empty command.
    #[error("the {0} command is empty")]
    Empty(&'static str),
    /// A command that is too long to travel in an entry.
    #[error(
        "the {0} command has {1} bytes, more than {COMMAND_BYTES}: put it in a script that every node has"
    )]
    TooLong(&'static str, usize),
    /// A NUL byte, which no command line may contain.
    #[error("the {0} command contains a NUL byte")]
    Nul(&'static str),
    /// A variable with a name that none may have, or with a NUL byte in its value.
    #[error(
        "the variable {0:?} can't be set: names have letters, digits and _, begin with no digit and not with SAWMILL_, \
         and values have no NUL byte"
    )]
    BadVariable(String),
    /// Variables that are too long to travel in an entry.
    #[error(
        "the variables have {0} bytes, more than {VARIABLES_BYTES}: put them into a file that every node has"
    )]
    LongVariables(usize),
    /// A query that is too long to travel in an entry, with the columns of its tables.
    #[error("the query and its tables take {0} bytes, more than {COMMAND_BYTES}")]
    LongQuery(usize),
}

impl Processor {
    /// Whether the partial results are merged by a subtask of their own.
    pub fn merges(&self) -> bool {
        matches!(
            self,
            Self::Command(Command { reduce: Some(_), .. }) | Self::Query(_)
        )
    }

    /// What a worker must offer.
    pub fn requirements(&self) -> &'static [Requirement] {
        match self {
            Self::Noop => &[],
            Self::Command(_) => &[Requirement::Exec],
            Self::Query(_) => &[Requirement::Sql],
        }
    }

    /// Which version of the halves of queries it needs; none: any.
    pub fn sql_version(&self) -> Option<&str> {
        match self {
            Self::Query(query) => Some(&query.version),
            Self::Noop | Self::Command(_) => None,
        }
    }

    /// Whether workers that offer this can run it. Partial results of one version mean nothing to another, so a query
    /// fits workers of its own version alone.
    pub fn fits(&self, offer: Offer<'_>) -> bool {
        let version = self.sql_version();
        (version.is_none() || version == offer.sql)
            && self
                .requirements()
                .iter()
                .all(|needed| offer.capabilities.contains(needed))
    }

    /// Identifies what happens to a block: two processors of equal digest give equal partial results for equal blocks.
    ///
    /// blake3 over the parts that shape a partial result; the merge and the limits are not among them. `table` is the
    /// number of the dataset among those of a query; nothing else cares.
    pub fn digest(&self, table: usize) -> [u8; 32] {
        let mut hasher = blake3::Hasher::new();
        match self {
            Self::Noop => {
                hasher.update(b"noop\0");
            }
            Self::Command(command) => command.digest(&mut hasher),
            Self::Query(query) => {
                let table = query.tables.get(table);
                let half = table.and_then(|table| table.lower_half.as_deref());
                let half = half.unwrap_or(&query.sql);
                hasher.update(b"query\0").update(half.as_bytes());
            }
        }
        *hasher.finalize().as_bytes()
    }

    /// What is asked, where a recorded answer may answer it.
    pub fn question(&self) -> Option<&str> {
        match self {
            Self::Query(query) => query.question.as_deref(),
            Self::Noop | Self::Command(_) => None,
        }
    }

    /// Checks what a user gave.
    ///
    /// # Errors
    /// [`BadProcessor`] that names the command at fault.
    pub fn check(&self) -> Result<(), BadProcessor> {
        match self {
            Self::Noop => Ok(()),
            Self::Query(query) => {
                let bytes = serde_json::to_vec(query).map_or(0, |bytes| bytes.len());
                if bytes <= COMMAND_BYTES {
                    Ok(())
                } else {
                    Err(BadProcessor::LongQuery(bytes))
                }
            }
            Self::Command(command) => command.check(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn command(map: &str, reduce: Option<&str>) -> Processor {
        Processor::Command(Command {
            map: map.into(),
            reduce: reduce.map(Into::into),
            ..Command::default()
        })
    }

    fn with(change: impl FnOnce(&mut Command)) -> Processor {
        let mut command = Command {
            map: "wc -l".into(),
            ..Command::default()
        };
        change(&mut command);
        Processor::Command(command)
    }

    #[test]
    fn the_digest_is_of_the_map_alone() {
        assert_eq!(
            command("wc -l", None).digest(0),
            command("wc -l", Some("sum")).digest(0)
        );
        assert_ne!(command("wc -l", None).digest(0), command("wc -c", None).digest(0));
        assert_ne!(Processor::Noop.digest(0), command("", None).digest(0));
    }

    #[test]
    fn what_shapes_a_partial_result_is_in_the_digest() {
        let before: Command = serde_json::from_str(r#"{"map":"wc -l","output_limit_bytes":1}"#).unwrap();
        assert!(!before.pipefail, "it was run without");
        let mut old = blake3::Hasher::new();
        old.update(b"command\0wc -l");
        assert_eq!(Processor::Command(before).digest(0), *old.finalize().as_bytes());
        let variants = [
            with(|_| ()),
            with(|command| command.pipefail = false),
            with(|command| command.ok_exit = vec![1]),
            with(|command| command.ok_exit = vec![2]),
            with(|command| command.env = [("A".into(), "b".into())].into()),
            with(|command| command.env = [("A".into(), "c".into())].into()),
        ];
        let digests: std::collections::HashSet<_> =
            variants.iter().map(|processor| processor.digest(0)).collect();
        assert_eq!(digests.len(), variants.len());
        let limited = with(|command| command.output_limit_bytes = 7);
        assert_eq!(limited.digest(0), variants[0].digest(0));
    }

    #[test]
    fn variables_that_no_command_may_get_are_refused() {
        let of = |name: &str, value: &str| {
            let env = [(name.to_string(), value.to_string())];
            with(|command| command.env = env.into()).check()
        };
        assert_eq!(of("_LANG2", "a=b"), Ok(()));
        for name in ["", "2A", "A B", "A=B", "SAWMILL_JOB", "Ä"] {
            assert_eq!(of(name, "x"), Err(BadProcessor::BadVariable(name.into())));
        }
        assert_eq!(of("A", "\0"), Err(BadProcessor::BadVariable("A".into())));
        let long = "x".repeat(VARIABLES_BYTES);
        assert_eq!(
            of("A", &long),
            Err(BadProcessor::LongVariables(VARIABLES_BYTES + 1))
        );
    }

    #[test]
    fn bad_commands_are_named() {
        assert_eq!(command(" ", None).check(), Err(BadProcessor::Empty("map")));
        assert_eq!(
            command("wc", Some("")).check(),
            Err(BadProcessor::Empty("reduce"))
        );
        assert_eq!(command("a\0", None).check(), Err(BadProcessor::Nul("map")));
        assert!(matches!(
            command(&"x".repeat(40_000), None).check(),
            Err(BadProcessor::TooLong("map", 40_000))
        ));
        assert_eq!(command("wc -l", Some("cat")).check(), Ok(()));
    }
}
