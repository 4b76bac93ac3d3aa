//! Values as they stand in files, and how they become settings.

use std::{collections::BTreeMap, fmt, path::PathBuf, str::FromStr, time::Duration};

use model::Name;
use serde::{Deserialize, Deserializer, de};

use super::{Error, Secret, Settings};

/// A duration as users write it: `500ms`, `10s`, `1h 30m`, `7d`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span(pub Duration);

impl FromStr for Span {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        humantime::parse_duration(text.trim()).map(Self).map_err(|error| {
            format!("{text:?} is no duration ({error}): write it with a unit, as 500ms, 10s or 7d")
        })
    }
}

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // "7days" reads worse than the "7d" that users write.
        let text = humantime::format_duration(self.0).to_string();
        f.write_str(&text.replace("days", "d").replace("day", "d"))
    }
}

impl<'de> Deserialize<'de> for Span {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer).map_err(|_| {
            de::Error::custom("a duration is a text with a unit, as \"500ms\", \"10s\" or \"7d\"")
        })?;
        text.parse().map_err(de::Error::custom)
    }
}

/// A number of bytes as users write it: `8MiB`, `64kB`, `4096`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Size(pub u64);

impl FromStr for Size {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        bytesize::ByteSize::from_str(text.trim())
            .map(|size| Self(size.as_u64()))
            .map_err(|_| format!("{text:?} is no number of bytes: write it as 4096, 64KiB or 8MiB"))
    }
}

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let units = [("GiB", 30), ("MiB", 20), ("KiB", 10)];
        match units
            .iter()
            .find(|(_, shift)| self.0 > 0 && self.0.trailing_zeros() >= *shift)
        {
            Some((unit, shift)) => write!(f, "{}{unit}", self.0 >> shift),
            None => write!(f, "{}", self.0),
        }
    }
}

#[derive(Deserialize)]
#[serde(untagged)]
enum SizeText {
    Number(u64),
    Text(String),
}

impl<'de> Deserialize<'de> for Size {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match SizeText::deserialize(deserializer) {
            Ok(SizeText::Number(bytes)) => Ok(Self(bytes)),
            Ok(SizeText::Text(text)) => text.parse().map_err(de::Error::custom),
            Err(_) => Err(de::Error::custom(
                "a size is a number of bytes or a text with a unit, as \"8MiB\"",
            )),
        }
    }
}

/// A part of the memory of a machine: so many bytes, or so many hundredths of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Share {
    /// Bytes.
    Bytes(u64),
    /// 0 to 100.
    Percent(u8),
}

impl Share {
    /// Bytes of `memory`.
    pub fn of(self, memory: u64) -> u64 {
        match self {
            Self::Bytes(bytes) => bytes,
            Self::Percent(percent) => memory / 100 * u64::from(percent),
        }
    }
}

impl FromStr for Share {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let Some(percent) = text.trim().strip_suffix('%') else {
            return text.parse().map(|Size(bytes)| Self::Bytes(bytes));
        };
        match percent.trim().parse() {
            Ok(percent @ 0..=100) => Ok(Self::Percent(percent)),
            _ => Err(format!(
                "{text:?} is no part of the memory: write it as 25% or 4GiB"
            )),
        }
    }
}

impl fmt::Display for Share {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Bytes(bytes) => Size(*bytes).fmt(f),
            Self::Percent(percent) => write!(f, "{percent}%"),
        }
    }
}

impl<'de> Deserialize<'de> for Share {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match SizeText::deserialize(deserializer) {
            Ok(SizeText::Number(bytes)) => Ok(Self::Bytes(bytes)),
            Ok(SizeText::Text(text)) => text.parse().map_err(de::Error::custom),
            Err(_) => Err(de::Error::custom(
                "a part of the memory is a number of bytes or a text such as \"25%\" or \"4GiB\"",
            )),
        }
    }
}

/// The settings as they stand in the files.
#[derive(Deserialize)]
pub(super) struct Raw {
    zookeeper: String,
    zookeeper_auth: Option<String>,
    zookeeper_auth_file: Option<PathBuf>,
    zookeeper_tls_ca: Option<PathBuf>,
    zookeeper_tls_cert: Option<PathBuf>,
    zookeeper_tls_key: Option<PathBuf>,
    mongodb: String,
    mongodb_file: Option<PathBuf>,
    store: String,
    session_timeout: Span,
    connect_timeout: Span,
    window_factor: u32,
    active_jobs: u32,
    heal_after: Span,
    agent_patience: Span,
    retention_results: Span,
    retention_jobs: Span,
    node: String,
    slots: u32,
    allow_exec: bool,
    pass_env: String,
    locality_wait: Span,
    cache: Share,
    block_copies: Size,
    query_memory: Share,
    stop_grace: Span,
    local_store: Option<PathBuf>,
    scratch: PathBuf,
    listen: String,
    worker_listen: String,
    advertise: Option<String>,
    identity: Option<PathBuf>,
    insecure: bool,
    trust_local_users: bool,
    zone: String,
    server: Option<String>,
    block_size: Size,
}

impl Raw {
    /// Reads the files of secrets and checks the names.
    pub(super) fn resolve(self, mut origins: BTreeMap<&'static str, String>) -> Result<Settings, Error> {
        let bad = |key: &str, message: String, origins: &BTreeMap<&'static str, String>| Error::BadValue {
            key: key.to_string(),
            origin: origins.get(key).cloned().unwrap_or_default(),
            message,
        };
        let node = Name::new(self.node).map_err(|error| bad("node", error.to_string(), &origins))?;
        let mut auth = self.zookeeper_auth.filter(|text| !text.is_empty());
        if let Some(path) = &self.zookeeper_auth_file
            && (auth.is_none()
                || strength(&origins, "zookeeper_auth_file") > strength(&origins, "zookeeper_auth"))
        {
            auth = Some(read_secret(path).map_err(|message| bad("zookeeper_auth_file", message, &origins))?);
            origins.insert("zookeeper_auth", path.display().to_string());
        }
        let mut mongodb = self.mongodb;
        if let Some(path) = &self.mongodb_file
            && strength(&origins, "mongodb_file") > strength(&origins, "mongodb")
        {
            mongodb = read_secret(path).map_err(|message| bad("mongodb_file", message, &origins))?;
            origins.insert("mongodb", path.display().to_string());
        }
        Ok(Settings {
            zookeeper: self.zookeeper,
            zookeeper_auth: auth.map(Secret::new),
            zookeeper_tls_ca: self.zookeeper_tls_ca,
            zookeeper_tls_cert: self.zookeeper_tls_cert,
            zookeeper_tls_key: self.zookeeper_tls_key,
            mongodb: Secret::new(mongodb),
            store: self.store,
            session_timeout: self.session_timeout.0,
            connect_timeout: self.connect_timeout.0,
            window_factor: self.window_factor,
            active_jobs: self.active_jobs,
            heal_after: self.heal_after.0,
            agent_patience: self.agent_patience.0,
            retention_results: self.retention_results.0,
            retention_jobs: self.retention_jobs.0,
            node,
            slots: self.slots,
            allow_exec: self.allow_exec,
            pass_env: words(&self.pass_env),
            locality_wait: self.locality_wait.0,
            cache: self.cache,
            block_copies: self.block_copies.0,
            query_memory: self.query_memory,
            stop_grace: self.stop_grace.0,
            local_store: self.local_store,
            scratch: self.scratch,
            listen: self.listen,
            worker_listen: self.worker_listen,
            advertise: self.advertise.filter(|text| !text.is_empty()),
            identity: self.identity,
            insecure: self.insecure,
            trust_local_users: self.trust_local_users,
            zone: self.zone,
            server: self.server.filter(|text| !text.is_empty()),
            block_size: self.block_size.0,
            #[cfg(feature = "sql")]
            formats: Vec::new(),
            origins,
            warnings: Vec::new(),
        })
    }
}

/// How strong the place is that a value came from: a secret in a file yields to one given directly in a place as strong.
fn strength(origins: &BTreeMap<&'static str, String>, key: &str) -> u8 {
    match origins.get(key).map_or("default", String::as_str) {
        "default" => 0,
        flag if flag.starts_with("--") => 4,
        variable if variable.starts_with(super::ENV_PREFIX) => 3,
        file if file == super::FILES[0] => 1,
        _ => 2,
    }
}

/// The words of a list with commas.
fn words(list: &str) -> Vec<String> {
    let words = list.split(',').map(str::trim).filter(|word| !word.is_empty());
    words.map(str::to_string).collect()
}

fn read_secret(path: &std::path::Path) -> Result<String, String> {
    let text =
        std::fs::read_to_string(path).map_err(|error| format!("can't read {}: {error}", path.display()))?;
    let text = text.trim();
    if text.is_empty() {
        Err(format!("{} is empty", path.display()))
    } else {
        Ok(text.to_string())
    }
}

impl Settings {
    /// The value of `key` as a user may see it and write it: secrets masked; none when unset or only a way to another.
    pub fn shown(&self, key: &str) -> Option<String> {
        let path = |path: &Option<PathBuf>| path.as_ref().map(|path| path.display().to_string());
        let span = |duration: Duration| Some(Span(duration).to_string());
        match key {
            "zookeeper" => Some(self.zookeeper.clone()),
            "zookeeper_auth" => self.zookeeper_auth.as_ref().map(Secret::masked),
            "zookeeper_tls_ca" => path(&self.zookeeper_tls_ca),
            "zookeeper_tls_cert" => path(&self.zookeeper_tls_cert),
            "zookeeper_tls_key" => path(&self.zookeeper_tls_key),
            "mongodb" => Some(self.mongodb.masked()),
            "store" => Some(Secret::new(self.store.clone()).masked()),
            "session_timeout" => span(self.session_timeout),
            "connect_timeout" => span(self.connect_timeout),
            "window_factor" => Some(self.window_factor.to_string()),
            "active_jobs" => Some(self.active_jobs.to_string()),
            "heal_after" => span(self.heal_after),
            "agent_patience" => span(self.agent_patience),
            "retention_results" => span(self.retention_results),
            "retention_jobs" => span(self.retention_jobs),
            "node" => Some(self.node.to_string()),
            "slots" => Some(self.slots.to_string()),
            "allow_exec" => Some(self.allow_exec.to_string()),
            "pass_env" => Some(self.pass_env.join(",")),
            "locality_wait" => span(self.locality_wait),
            "cache" => Some(self.cache.to_string()),
            "block_copies" => Some(Size(self.block_copies).to_string()),
            "query_memory" => Some(self.query_memory.to_string()),
            "stop_grace" => span(self.stop_grace),
            "local_store" => path(&self.local_store),
            "listen" => Some(self.listen.clone()),
            "worker_listen" => Some(self.worker_listen.clone()),
            "advertise" => self.advertise.clone(),
            "identity" => path(&self.identity),
            "insecure" => Some(self.insecure.to_string()),
            "trust_local_users" => Some(self.trust_local_users.to_string()),
            "zone" => Some(self.zone.clone()),
            "server" => self.server.clone(),
            "scratch" => Some(self.scratch.display().to_string()),
            "block_size" => Some(Size(self.block_size).to_string()),
            _ => None,
        }
    }
}
