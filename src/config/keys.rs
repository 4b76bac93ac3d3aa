//! Every key of the settings: its kind, default and meaning. `config/sawmill.toml` says the same to users.

use super::ENV_PREFIX;
use crate::machine;

/// How the text of a value is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// As it is.
    Text,
    /// A path on this machine.
    Path,
    /// A time with units: `500ms`, `10s`, `7d`.
    Duration,
    /// A number of bytes with units: `8MiB`, `64kB`.
    Bytes,
    /// A number of bytes with units, or a part of the machine's memory: `25%`.
    Share,
    /// A whole number.
    Count,
    /// `true` or `false`.
    Flag,
}

/// One key of the settings.
#[derive(Clone, Copy)]
pub struct Key {
    /// As in a file; upper case behind `SAWMILL_` as a variable.
    pub name: &'static str,
    /// How its text is read.
    pub kind: Kind,
    /// Its default as text; none: unset.
    pub default: fn() -> Option<String>,
    /// Whether the default depends on the machine.
    pub of_machine: bool,
}

const fn key(name: &'static str, kind: Kind, default: fn() -> Option<String>) -> Key {
    Key {
        name,
        kind,
        default,
        of_machine: false,
    }
}

const fn of_machine(name: &'static str, kind: Kind, default: fn() -> Option<String>) -> Key {
    Key {
        name,
        kind,
        default,
        of_machine: true,
    }
}

fn some(text: &str) -> Option<String> {
    Some(text.to_string())
}

/// All keys, in the order in which they are shown.
pub const KEYS: &[Key] = &[
    key("zookeeper", Kind::Text, || some("localhost:2181")),
    key("zookeeper_auth", Kind::Text, || None),
    key("zookeeper_auth_file", Kind::Path, || None),
    key("zookeeper_tls_ca", Kind::Path, || None),
    key("zookeeper_tls_cert", Kind::Path, || None),
    key("zookeeper_tls_key", Kind::Path, || None),
    key("mongodb", Kind::Text, || {
        some("mongodb://localhost:27017/sawmill")
    }),
    key("mongodb_file", Kind::Path, || None),
    key("store", Kind::Text, || some("file:///var/tmp/sawmill/store")),
    key("session_timeout", Kind::Duration, || some("10s")),
    key("connect_timeout", Kind::Duration, || some("5s")),
    key("window_factor", Kind::Count, || some("2")),
    key("active_jobs", Kind::Count, || some("4096")),
    key("heal_after", Kind::Duration, || some("1m")),
    key("agent_patience", Kind::Duration, || some("30s")),
    key("retention_results", Kind::Duration, || some("7d")),
    key("retention_jobs", Kind::Duration, || some("30d")),
    of_machine("node", Kind::Text, || Some(host_as_name())),
    of_machine("slots", Kind::Count, || Some(machine::cores().to_string())),
    key("allow_exec", Kind::Flag, || some("false")),
    key("pass_env", Kind::Text, || some("")),
    key("locality_wait", Kind::Duration, || some("50ms")),
    key("cache", Kind::Share, || some("25%")),
    key("block_copies", Kind::Bytes, || some("10GiB")),
    key("query_memory", Kind::Share, || some("25%")),
    key("stop_grace", Kind::Duration, || some("0s")),
    key("local_store", Kind::Path, || None),
    of_machine("scratch", Kind::Path, || {
        Some(std::env::temp_dir().display().to_string())
    }),
    key("listen", Kind::Text, || some("127.0.0.1:7766")),
    key("worker_listen", Kind::Text, || some("127.0.0.1:0")),
    key("advertise", Kind::Text, || None),
    key("identity", Kind::Path, || None),
    key("insecure", Kind::Flag, || some("false")),
    key("trust_local_users", Kind::Flag, || some("false")),
    key("zone", Kind::Text, || some("")),
    key("server", Kind::Text, || None),
    key("block_size", Kind::Bytes, || some("8MiB")),
];

/// The key of this name.
pub(super) fn find(name: &str) -> Option<&'static Key> {
    KEYS.iter().find(|key| key.name == name)
}

/// The key that an environment variable sets.
pub(super) fn of_variable(variable: &str) -> Option<&'static Key> {
    let name = variable.strip_prefix(ENV_PREFIX)?;
    KEYS.iter().find(|key| key.name.to_uppercase() == name)
}

/// The key that somebody who wrote `wrong` probably meant.
pub(super) fn nearest(wrong: &str) -> Option<&'static str> {
    let wrong = wrong.to_lowercase().replace('-', "_");
    let score = |key: &Key| strsim::jaro_winkler(&wrong, key.name);
    let best = KEYS.iter().max_by(|a, b| score(a).total_cmp(&score(b)))?;
    (score(best) > 0.88).then_some(best.name)
}

/// What to say behind an unknown key.
pub(super) fn hint(wrong: &str) -> String {
    match nearest(wrong) {
        Some(near) => format!(": did you mean {near:?}?"),
        None => ": `sawmill config show` lists all keys".to_string(),
    }
}

/// The name of this host, with what no name may contain replaced.
fn host_as_name() -> String {
    let text: String = machine::host()
        .chars()
        .map(|c| {
            if c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-') {
                c
            } else {
                '-'
            }
        })
        .take(model::limits::NAME_CHARS)
        .collect();
    let text = text.trim_start_matches(|c: char| !c.is_ascii_alphanumeric());
    if text.is_empty() {
        "node".to_string()
    } else {
        text.to_string()
    }
}
