//! Whether the settings have the form they need.

use std::time::Duration;

use super::{ENV_PREFIX, Error, Settings};

/// Shortest session: below it a garbage collection of ZooKeeper ends sessions.
const SHORTEST_SESSION: Duration = Duration::from_millis(500);
/// Most slots of a node: each is a process with a whole command.
const MOST_SLOTS: u32 = 4096;
/// Smallest and largest block, in bytes: below it an entry costs more than its data, above it retries hurt.
const BLOCK_BYTES: std::ops::RangeInclusive<u64> = 1024..=(1 << 40);

impl Settings {
    pub(super) fn check(&self) -> Result<(), Error> {
        let verdicts = [
            ("zookeeper", connect_string(&self.zookeeper)),
            (
                "zookeeper_auth",
                self.zookeeper_auth
                    .as_ref()
                    .map_or(Ok(()), |auth| credentials(auth.expose())),
            ),
            ("mongodb", mongodb_uri(self.mongodb.expose())),
            ("store", store_url(&self.store)),
            (
                "session_timeout",
                at_least(self.session_timeout, SHORTEST_SESSION),
            ),
            (
                "connect_timeout",
                at_least(self.connect_timeout, Duration::from_millis(1)),
            ),
            ("window_factor", within(self.window_factor.into(), 1, 1000)),
            ("active_jobs", within(self.active_jobs.into(), 1, 1_000_000)),
            ("slots", within(self.slots.into(), 1, MOST_SLOTS.into())),
            (
                "block_size",
                within(self.block_size, *BLOCK_BYTES.start(), *BLOCK_BYTES.end()),
            ),
            ("zookeeper_tls_key", self.tls_pair()),
            ("pass_env", passed(&self.pass_env)),
        ];
        for (key, verdict) in verdicts {
            verdict.map_err(|message| Error::BadValue {
                key: key.to_string(),
                origin: self.origin(key).to_string(),
                message,
            })?;
        }
        Ok(())
    }

    fn tls_pair(&self) -> Result<(), String> {
        let (ca, cert, key) = (
            &self.zookeeper_tls_ca,
            &self.zookeeper_tls_cert,
            &self.zookeeper_tls_key,
        );
        if cert.is_some() != key.is_some() {
            return Err("zookeeper_tls_cert and zookeeper_tls_key go together".to_string());
        }
        if cert.is_some() && ca.is_none() {
            return Err("a certificate needs zookeeper_tls_ca, the authority of the server".to_string());
        }
        Ok(())
    }
}

/// Names of variables that commands may get.
fn passed(names: &[String]) -> Result<(), String> {
    match names
        .iter()
        .find(|name| name.starts_with(ENV_PREFIX) || name.contains(['=', '\0']))
    {
        Some(name) => Err(format!(
            "{name:?} can't be passed to commands: expected names of variables, none that begins with {ENV_PREFIX}"
        )),
        None => Ok(()),
    }
}

fn at_least(value: Duration, least: Duration) -> Result<(), String> {
    if value >= least {
        return Ok(());
    }
    let [value, least] = [value, least].map(humantime::format_duration);
    Err(format!("{value} is too short: at least {least}"))
}

fn within(value: u64, least: u64, most: u64) -> Result<(), String> {
    if (least..=most).contains(&value) {
        Ok(())
    } else {
        Err(format!("{value} is not within {least} to {most}"))
    }
}

/// `user:password`.
fn credentials(text: &str) -> Result<(), String> {
    match text.split_once(':') {
        Some((user, password)) if !user.is_empty() && !password.is_empty() => Ok(()),
        _ => Err("expected user:password".to_string()),
    }
}

/// `host:port[,host:port…][/chroot]`.
pub(super) fn connect_string(text: &str) -> Result<(), String> {
    let (hosts, chroot) = match text.find('/') {
        Some(at) => text.split_at(at),
        None => (text, ""),
    };
    if text.contains("://") {
        return Err(format!(
            "{text:?} is a URL: expected host:port[,host:port…][/chroot]"
        ));
    }
    for host in hosts.split(',') {
        host_and_port(host)
            .map_err(|why| format!("{text:?}: {why}: expected host:port[,host:port…][/chroot]"))?;
    }
    if chroot.is_empty() {
        Ok(())
    } else {
        check_chroot(chroot)
    }
}

fn check_chroot(chroot: &str) -> Result<(), String> {
    let bad = |why: &str| {
        Err(format!(
            "bad chroot {chroot:?}: {why}; it is a path such as /mill or /prod/mill"
        ))
    };
    if chroot == "/" {
        return bad("nothing behind the slash");
    }
    for part in chroot[1..].split('/') {
        match part {
            "" => return bad("an empty part"),
            "." | ".." => return bad("no part may be . or .."),
            _ if chroot[1..].split('/').next() == Some("zookeeper") => {
                return bad("/zookeeper is ZooKeeper's own");
            }
            _ if part.chars().any(|c| c.is_control() || c.is_whitespace()) => {
                return bad("a blank or control character");
            }
            _ => {}
        }
    }
    Ok(())
}

fn host_and_port(text: &str) -> Result<(), String> {
    let (host, port) = match text.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((host, "")) => (host, None),
        Some((host, rest)) => (
            host,
            Some(rest.strip_prefix(':').ok_or("something between ] and the port")?),
        ),
        None => match text.split_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (text, None),
        },
    };
    if host.is_empty() {
        return Err("a host is missing".to_string());
    }
    if host
        .chars()
        .any(|c| c.is_whitespace() || c.is_control() || "/?#@".contains(c))
    {
        return Err(format!("{host:?} is no host"));
    }
    match port {
        Some(port) if !port.parse::<u16>().is_ok_and(|port| port > 0) => Err(format!("{port:?} is no port")),
        _ => Ok(()),
    }
}

/// `mongodb://…` or `mongodb+srv://…`; never repeats the text, which may hold a password.
fn mongodb_uri(text: &str) -> Result<(), String> {
    let rest = ["mongodb://", "mongodb+srv://"]
        .iter()
        .find_map(|scheme| text.strip_prefix(scheme));
    let Some(rest) = rest else {
        return Err("expected mongodb://[user:password@]host:port[,host:port…]/database".to_string());
    };
    let rest = rest.rsplit_once('@').map_or(rest, |(_, hosts)| hosts);
    let hosts = rest.split(['/', '?']).next().unwrap_or_default();
    for host in hosts.split(',') {
        let is_socket = host.to_lowercase().contains("%2f");
        if !is_socket {
            host_and_port(host).map_err(|why| format!("{why}: expected mongodb://host:port/database"))?;
        }
    }
    let database = rest
        .split_once('/')
        .map_or("", |(_, path)| path.split('?').next().unwrap_or_default());
    if database.chars().any(|c| "/\\. \"$".contains(c)) {
        return Err(format!(
            "bad database name {database:?}: none of / \\ . \" $ and blanks may be in it"
        ));
    }
    Ok(())
}

/// A URL that `object_store` knows.
fn store_url(text: &str) -> Result<(), String> {
    const SCHEMES: [&str; 10] = [
        "file", "memory", "s3", "s3a", "gs", "az", "azure", "abfs", "http", "https",
    ];
    let Some((scheme, rest)) = text.split_once("://") else {
        let example = if text.starts_with('/') {
            text
        } else {
            "/var/tmp/sawmill/store"
        };
        return Err(format!(
            "{text:?} is no URL: write file://{example}, or s3://bucket/path"
        ));
    };
    if !SCHEMES.contains(&scheme) {
        return Err(format!(
            "unknown scheme {scheme:?}: expected file, s3, gs, az, http or https"
        ));
    }
    match scheme {
        "file" if !rest.starts_with('/') => Err(format!(
            "{text:?}: a file URL has three slashes: file:///absolute/path"
        )),
        "file" | "memory" => Ok(()),
        _ if rest.is_empty() || rest.starts_with('/') => Err(format!("{text:?}: bucket or host is missing")),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connect_strings() {
        for good in [
            "localhost:2181",
            "a:1,b:2/mill",
            "a",
            "[::1]:2181/a/b",
            "10.0.0.1:2181",
        ] {
            assert_eq!(connect_string(good), Ok(()), "{good}");
        }
        for bad in [
            "", ":2181", "a:0", "a:99999", "a:x", "a:1,", "a:1/", "a:1//x", "a:1/x/", "a:1/../x", "zk://a:1",
            "a b:1",
        ] {
            assert!(connect_string(bad).is_err(), "{bad}");
        }
        assert!(connect_string("a:1/x//y").unwrap_err().contains("chroot"));
        assert!(connect_string("a:1/zookeeper").is_err());
    }

    #[test]
    fn mongodb_uris() {
        for good in [
            "mongodb://h:1/db",
            "mongodb://u:p@h:1,i:2/db?replicaSet=x",
            "mongodb+srv://h",
            "mongodb://%2Ftmp%2Fm.sock",
        ] {
            assert_eq!(mongodb_uri(good), Ok(()), "{good}");
        }
        for bad in [
            "localhost",
            "http://h",
            "mongodb://",
            "mongodb://h:x/db",
            "mongodb://h/a b",
        ] {
            assert!(mongodb_uri(bad).is_err(), "{bad}");
        }
        assert!(!mongodb_uri("mongodb://u:hush@h:x").unwrap_err().contains("hush"));
    }

    #[test]
    fn store_urls() {
        for good in ["file:///x", "s3://bucket/x", "memory://", "https://host/x"] {
            assert_eq!(store_url(good), Ok(()), "{good}");
        }
        for bad in ["/x", "x", "file://x", "ftp://h", "s3://", "s3:///x"] {
            assert!(store_url(bad).is_err(), "{bad}");
        }
    }
}
