//! The settings of every command: where the parts are, and how the roles behave.
//!
//! Promise: flags win over `SAWMILL_*` variables, those over `./sawmill.toml`, that over `/etc/sawmill/sawmill.toml`, and
//! that over the defaults; [`Settings::origin`] tells for each value where it came from; an unknown key in a file is
//! an error that names file and key; what is secret is shown as `***`.
//! No promise: that the addresses answer. Only their form is checked here.
//!
//! Called once by each binary, before anything else happens.

mod check;
#[cfg(feature = "sql")]
mod formats;
mod keys;
mod secret;
mod value;

use std::{
    collections::BTreeMap,
    fmt,
    path::{Path, PathBuf},
    time::Duration,
};

use figment::{
    Figment, Metadata, Profile, Provider,
    providers::{Format, Toml},
    value::{Dict, Map, Value},
};
use model::Name;

pub use self::{
    keys::{KEYS, Key, Kind},
    secret::Secret,
    value::{Share, Size, Span},
};

/// Files that are read when no `--config` is given, the stronger last.
pub const FILES: [&str; 2] = ["/etc/sawmill/sawmill.toml", "sawmill.toml"];

/// What the environment variables of settings begin with.
pub const ENV_PREFIX: &str = "SAWMILL_";

/// The tables of a file that define formats of lines; a file is the only place for them.
const FORMATS: &str = "formats";

/// Variables that begin like settings and are none: the place of the file, and what the commands of subtasks get.
const NO_SETTINGS: [&str; 5] = [
    "SAWMILL_CONFIG",
    "SAWMILL_JOB",
    "SAWMILL_DATASET",
    "SAWMILL_BLOCK",
    "SAWMILL_ATTEMPT",
];

/// A setting that can't be used. All of these are mistakes of the one who calls: exit code 2.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file that was asked for can't be read.
    #[error("can't read {path}: {source}")]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// A file is no TOML.
    #[error("{path} is not valid TOML: {message}")]
    Syntax {
        /// The file.
        path: PathBuf,
        /// What the parser said, with line and column.
        message: String,
    },
    /// A key that does not exist.
    #[error("{path}: unknown key {key:?}{hint}")]
    UnknownKey {
        /// The file.
        path: PathBuf,
        /// The key.
        key: String,
        /// `: did you mean …?`, or where to look keys up.
        hint: String,
    },
    /// A value that does not fit its key.
    #[error("bad {key} (from {origin}): {message}")]
    BadValue {
        /// The key.
        key: String,
        /// Where the value came from.
        origin: String,
        /// What is wrong and what is expected.
        message: String,
    },
}

/// All settings, resolved and checked.
#[derive(Clone, Debug)]
pub struct Settings {
    /// `host:port[,host:port…][/chroot]`.
    pub zookeeper: String,
    /// `user:password` for digest authentication.
    pub zookeeper_auth: Option<Secret>,
    /// Certificate authority of ZooKeeper; given, the connection uses TLS.
    pub zookeeper_tls_ca: Option<PathBuf>,
    /// Certificate shown to ZooKeeper.
    pub zookeeper_tls_cert: Option<PathBuf>,
    /// Private key of that certificate.
    pub zookeeper_tls_key: Option<PathBuf>,
    /// MongoDB's connection string, with the database as its path.
    pub mongodb: Secret,
    /// URL of the block store, where large outputs go.
    pub store: String,
    /// After this long without contact a role's session is over.
    pub session_timeout: Duration,
    /// How long to try to reach ZooKeeper or MongoDB at the start.
    pub connect_timeout: Duration,
    /// Entries fed ahead, as a multiple of the live slots.
    pub window_factor: u32,
    /// Most jobs that are STAGING or RUNNING at once.
    pub active_jobs: u32,
    /// After this long without progress a job is compared with ZooKeeper and what is missing is fed again.
    pub heal_after: Duration,
    /// How long the lag of an agent may grow while another worker is idle before it is moved there.
    pub agent_patience: Duration,
    /// How long results are kept after their job is final.
    pub retention_results: Duration,
    /// How long jobs and failures are kept after the job is final.
    pub retention_jobs: Duration,
    /// Name of this machine's compute node.
    pub node: Name,
    /// How many entries this node runs at once.
    pub slots: u32,
    /// Whether this node runs commands.
    pub allow_exec: bool,
    /// Further variables of this node's environment that commands get.
    pub pass_env: Vec<String>,
    /// How long an entry is left to the worker nearest to its data.
    pub locality_wait: Duration,
    /// What this node may keep in memory of the columns that queries have read.
    pub cache: Share,
    /// Bytes of remote blocks of which this node may keep copies on its disk, under `scratch`.
    pub block_copies: u64,
    /// Memory that the halves of queries share on this node.
    pub query_memory: Share,
    /// How long a stopping role waits for what runs before it hands it back.
    pub stop_grace: Duration,
    /// Directory in which this node keeps blocks of its own for the mill; none: it keeps none.
    pub local_store: Option<PathBuf>,
    /// Directory for temporary files of this node.
    pub scratch: PathBuf,
    /// `HOST:PORT` on which a dispatcher serves its gateway; port 0 takes a free one.
    pub listen: String,
    /// `HOST:PORT` on which a compute node takes blocks of agents; port 0 takes a free one.
    pub worker_listen: String,
    /// Host name or address under which others reach the ports of this process; none: that which it listens on, or the host's name.
    pub advertise: Option<String>,
    /// Directory with the certificate, the key and the authority of this process; none: no TLS.
    pub identity: Option<PathBuf>,
    /// Whether to listen without TLS on addresses that others reach.
    pub insecure: bool,
    /// Whether every local account may do everything at the ports without TLS on loopback.
    pub trust_local_users: bool,
    /// Where this machine stands: agents prefer workers with the same label.
    pub zone: String,
    /// `HOST:PORT[,HOST:PORT…]` of dispatchers, by which commands reach the mill; none: by ZooKeeper and MongoDB themselves.
    pub server: Option<String>,
    /// Bytes of a block when a file is split.
    pub block_size: u64,
    /// Formats of lines that the user has defined.
    #[cfg(feature = "sql")]
    pub formats: Vec<sql::formats::Definition>,
    pub(crate) origins: BTreeMap<&'static str, String>,
    pub(crate) warnings: Vec<String>,
}

/// What the settings are read from; [`Sources::of_process`] gives those of this process.
#[derive(Clone, Debug, Default)]
pub struct Sources {
    /// Files in rising strength, each with whether it must exist.
    pub files: Vec<(PathBuf, bool)>,
    /// Environment variables.
    pub env: Vec<(String, String)>,
    /// Values of flags: the key, the flag as typed (`--zookeeper`), the value.
    pub flags: Vec<Flag>,
}

/// A setting given by a flag.
#[derive(Clone, Debug)]
pub struct Flag {
    /// Key of the setting.
    pub key: &'static str,
    /// As typed: `--zookeeper`.
    pub flag: &'static str,
    /// Its text.
    pub value: String,
}

impl Sources {
    /// The files, environment and given flags of this process; `config` (else `SAWMILL_CONFIG`) replaces the two files.
    pub fn of_process(config: Option<&Path>, flags: Vec<Flag>) -> Self {
        let env: Vec<(String, String)> = std::env::vars_os()
            .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
            .filter(|(name, value)| name.starts_with(ENV_PREFIX) && !value.is_empty())
            .collect();
        let from_env = || {
            env.iter()
                .find(|(name, _)| name == "SAWMILL_CONFIG")
                .map(|(_, value)| PathBuf::from(value))
        };
        let files = match config.map(Path::to_path_buf).or_else(from_env) {
            Some(path) => vec![(path, true)],
            None => FILES.iter().map(|path| (PathBuf::from(path), false)).collect(),
        };
        Self { files, env, flags }
    }
}

impl Settings {
    /// Reads and checks everything.
    ///
    /// # Errors
    /// [`Error`] for the first thing that is wrong.
    pub fn load(sources: &Sources) -> Result<Self, Error> {
        let mut figment = Figment::from(Layer::defaults());
        for (path, required) in &sources.files {
            if let Some(layer) = file_layer(path, *required)? {
                figment = figment.merge(layer);
            }
        }
        figment = figment
            .merge(Layer::env(&sources.env))
            .merge(Layer::flags(&sources.flags));
        let raw: value::Raw = figment.extract().map_err(|error| bad_value(&figment, error))?;
        let names = KEYS.iter().map(|key| key.name).chain([FORMATS]);
        let origins = names.map(|name| (name, origin(&figment, name))).collect();
        let mut settings = raw.resolve(origins)?;
        #[cfg(feature = "sql")]
        {
            settings.formats = formats::read(&figment)?;
        }
        settings.warnings = sources
            .env
            .iter()
            .filter_map(|(name, _)| stray_variable(name))
            .collect();
        settings.check()?;
        Ok(settings)
    }

    /// Where the value of `key` came from: `default`, a file, a variable or a flag.
    pub fn origin(&self, key: &str) -> &str {
        self.origins.get(key).map_or("default", String::as_str)
    }

    /// What is no error but worth telling, such as a variable that looks like a setting and is none.
    pub fn warnings(&self) -> &[String] {
        &self.warnings
    }

    /// How to reach ZooKeeper.
    pub fn coordination(&self) -> coordination::Config {
        let tls = self.zookeeper_tls_ca.clone().map(|ca| coordination::TlsConfig {
            ca,
            cert: self.zookeeper_tls_cert.clone(),
            key: self.zookeeper_tls_key.clone(),
        });
        coordination::Config {
            connect: self.zookeeper.clone(),
            session_timeout: self.session_timeout,
            auth: self
                .zookeeper_auth
                .as_ref()
                .map(|secret| secret.expose().to_string()),
            tls,
            connect_timeout: self.connect_timeout,
        }
    }

    /// How to reach MongoDB and the block store.
    pub fn storage(&self) -> storage::Config {
        storage::Config {
            uri: self.mongodb.expose().to_string(),
            database: None,
            timeout: self.connect_timeout,
            store: self.store.clone(),
        }
    }
}

impl Default for Settings {
    /// The defaults alone: no file, variable or flag is looked at.
    fn default() -> Self {
        Self::load(&Sources::default()).expect("the defaults are valid settings")
    }
}

/// One source of values, with the name that each of its keys has there.
struct Layer {
    metadata: Metadata,
    values: Dict,
}

impl Layer {
    fn defaults() -> Self {
        let values = KEYS
            .iter()
            .filter_map(|key| Some((key.name.to_string(), Value::from((key.default)()?))));
        let values = values
            .map(|(name, value)| (name.clone(), typed(&name, value)))
            .collect();
        Self {
            metadata: Metadata::named("default"),
            values,
        }
    }

    fn env(variables: &[(String, String)]) -> Self {
        let values = variables.iter().filter_map(|(name, value)| {
            let key = keys::of_variable(name)?;
            Some((key.name.to_string(), typed(key.name, Value::from(value.as_str()))))
        });
        let metadata = Metadata::named("environment").interpolater(|_: &Profile, keys: &[&str]| {
            format!("{ENV_PREFIX}{}", keys.join("_").to_uppercase())
        });
        Self {
            metadata,
            values: values.collect(),
        }
    }

    fn flags(flags: &[Flag]) -> Self {
        let value = |flag: &Flag| {
            (
                flag.key.to_string(),
                typed(flag.key, Value::from(flag.value.as_str())),
            )
        };
        let names: BTreeMap<&str, &str> = flags.iter().map(|flag| (flag.key, flag.flag)).collect();
        let metadata = Metadata::named("flag").interpolater(move |_: &Profile, keys: &[&str]| {
            keys.first()
                .and_then(|key| names.get(key))
                .map_or_else(String::new, ToString::to_string)
        });
        Self {
            metadata,
            values: flags.iter().map(value).collect(),
        }
    }
}

/// Text from outside a file has no types: numbers and booleans are told by the key.
fn typed(key: &str, value: Value) -> Value {
    let kind = keys::find(key).map(|key| key.kind);
    let Some(text) = value.as_str() else { return value };
    match kind {
        Some(Kind::Count) => text.trim().parse::<u64>().map_or(value.clone(), Value::from),
        Some(Kind::Flag) => match text.trim().to_ascii_lowercase().as_str() {
            "1" | "true" | "yes" | "on" => Value::from(true),
            "0" | "false" | "no" | "off" => Value::from(false),
            _ => value,
        },
        _ => value,
    }
}

impl Provider for Layer {
    fn metadata(&self) -> Metadata {
        self.metadata.clone()
    }

    fn data(&self) -> Result<Map<Profile, Dict>, figment::Error> {
        Ok(Map::from([(Profile::Default, self.values.clone())]))
    }
}

fn file_layer(path: &Path, required: bool) -> Result<Option<impl Provider + use<>>, Error> {
    let unreadable = |source| Error::Unreadable {
        path: path.to_path_buf(),
        source,
    };
    match std::fs::read_to_string(path) {
        Ok(_) => {}
        Err(error) if error.kind() == std::io::ErrorKind::NotFound && !required => return Ok(None),
        Err(error) => return Err(unreadable(error)),
    }
    let layer = Toml::file_exact(path);
    let data = layer.data().map_err(|error| Error::Syntax {
        path: path.to_path_buf(),
        message: error.kind.to_string().trim_end().to_string(),
    })?;
    for key in data.values().flat_map(Dict::keys) {
        if keys::find(key).is_none() && key != FORMATS {
            return Err(Error::UnknownKey {
                path: path.to_path_buf(),
                key: key.clone(),
                hint: keys::hint(key),
            });
        }
    }
    Ok(Some(layer))
}

fn origin(figment: &Figment, key: &str) -> String {
    figment
        .find_metadata(key)
        .map_or_else(|| "default".to_string(), |metadata| describe(metadata, key))
}

fn describe(metadata: &Metadata, key: &str) -> String {
    match metadata.source.as_ref().and_then(figment::Source::file_path) {
        Some(path) => path.display().to_string(),
        None if metadata.name == "default" => "default".to_string(),
        None => metadata.interpolate(&Profile::Default, &[key]),
    }
}

fn bad_value(figment: &Figment, error: figment::Error) -> Error {
    let key = error.path.join(".");
    let origin = error
        .metadata
        .as_ref()
        .map_or_else(|| origin(figment, &key), |metadata| describe(metadata, &key));
    Error::BadValue {
        key,
        origin,
        message: error.kind.to_string(),
    }
}

/// A warning for a variable that is nearly the name of a setting.
fn stray_variable(name: &str) -> Option<String> {
    if keys::of_variable(name).is_some() || NO_SETTINGS.contains(&name) {
        return None;
    }
    let near = keys::nearest(&name.strip_prefix(ENV_PREFIX)?.to_lowercase())?;
    Some(format!(
        "{name} is no setting and was ignored: did you mean {ENV_PREFIX}{}?",
        near.to_uppercase()
    ))
}

impl fmt::Display for Settings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        KEYS.iter().try_for_each(|key| match self.shown(key.name) {
            Some(value) => writeln!(f, "{} = {value}", key.name),
            None => Ok(()),
        })
    }
}

#[cfg(test)]
mod tests;
