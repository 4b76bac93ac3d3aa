//! Where MongoDB and the block store are.

use std::time::Duration;

/// Where MongoDB and the block store are.
#[derive(Clone, Debug)]
pub struct Config {
    /// Connection string: `mongodb://host:port[,host:port]/[database][?options]`.
    pub uri: String,
    /// The database; none: the one of the connection string, else `sawmill`.
    pub database: Option<String>,
    /// How long to look for a server before a call fails.
    pub timeout: Duration,
    /// URL of the block store for outputs too large for a document: `file:///…`, `s3://…`.
    pub store: String,
}

/// The database where the connection string names none.
pub(crate) const DEFAULT_DATABASE: &str = "sawmill";

impl Config {
    /// The defaults over `uri` and `store`: five seconds to find a server.
    pub fn new(uri: impl Into<String>, store: impl Into<String>) -> Self {
        Self {
            uri: uri.into(),
            database: None,
            timeout: Duration::from_secs(5),
            store: store.into(),
        }
    }

    /// The hosts of the connection string, without user, password and options.
    pub fn address(&self) -> String {
        let rest = self
            .uri
            .split_once("://")
            .map_or(self.uri.as_str(), |(_, rest)| rest);
        let end = rest.find(['/', '?']).unwrap_or(rest.len());
        // A password may contain an '@' that somebody forgot to encode: the last one counts, also behind a '/'.
        let from = rest.rfind('@').map_or(0, |at| at + 1);
        let hosts = if from > end {
            &rest[from..]
        } else {
            &rest[from..end]
        };
        hosts[..hosts.find(['/', '?']).unwrap_or(hosts.len())].to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_address_never_shows_a_password() {
        let address = |uri: &str| Config::new(uri, "memory:///").address();
        assert_eq!(address("mongodb://127.0.0.1:27017"), "127.0.0.1:27017");
        assert_eq!(
            address("mongodb://me:secret@a:1,b:2/mill?replicaSet=rs0"),
            "a:1,b:2"
        );
        assert_eq!(address("mongodb://me:sec/ret@a:1/mill"), "a:1");
        assert_eq!(address("mongodb://me:sec@ret@a:1"), "a:1");
        assert_eq!(address("nonsense"), "nonsense");
    }
}
