//! Asking the ZooKeeper servers about themselves, for the doctor.

use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::term::Config;

/// What a ZooKeeper server says about itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerInfo {
    /// For instance `3.8.0`.
    pub version: String,
    /// `standalone`, `leader` or `follower`.
    pub mode: String,
    /// How many znodes it holds.
    pub znodes: u64,
}

/// How long a server may take to answer `srvr`.
const SRVR_TIMEOUT: Duration = Duration::from_secs(2);

/// Asks each server of the connection string about itself (the command `srvr`), without a session.
///
/// Gives address and answer, or why there is none: not allowed by the server, TLS, not reachable.
pub async fn servers(config: &Config) -> Vec<(String, Result<ServerInfo, String>)> {
    let (addresses, _) = config.split();
    let asking = addresses.split(',').map(|address| async move {
        let answer = match tokio::time::timeout(SRVR_TIMEOUT, srvr(address)).await {
            Ok(answer) => answer,
            Err(_) => Err(format!("no answer within {SRVR_TIMEOUT:?}")),
        };
        (address.to_string(), answer)
    });
    futures::future::join_all(asking).await
}

async fn srvr(address: &str) -> Result<ServerInfo, String> {
    if address.starts_with("tcp+tls://") {
        return Err("the server speaks TLS, which this look does not".into());
    }
    let address = address.trim_start_matches("tcp://");
    let address = if address.contains(':') {
        address.to_string()
    } else {
        format!("{address}:2181")
    };
    let mut stream = tokio::net::TcpStream::connect(&address)
        .await
        .map_err(|failure| failure.to_string())?;
    let mut answer = String::new();
    let talk = async {
        stream.write_all(b"srvr").await?;
        stream.read_to_string(&mut answer).await
    };
    talk.await.map_err(|failure| failure.to_string())?;
    parse_srvr(&answer).ok_or_else(|| {
        format!(
            "an answer that is none: {:?}",
            answer.lines().next().unwrap_or_default()
        )
    })
}

fn parse_srvr(answer: &str) -> Option<ServerInfo> {
    let field = |name: &str| {
        answer
            .lines()
            .find_map(|line| line.strip_prefix(name))
            .map(str::trim)
    };
    let version = field("Zookeeper version:")?;
    let version = version.split(['-', ',']).next().unwrap_or(version).to_string();
    Some(ServerInfo {
        version,
        mode: field("Mode:")?.to_string(),
        znodes: field("Node count:")
            .and_then(|count| count.parse().ok())
            .unwrap_or(0),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn srvr_is_read() {
        let answer = "Zookeeper version: 3.8.0-5a02a05eddb59aee6ac762f7ea82e92a68eb9c0f, built on x\n\
                      Latency min/avg/max: 0/0.0/0\nMode: standalone\nNode count: 5\n";
        let expected = ServerInfo {
            version: "3.8.0".into(),
            mode: "standalone".into(),
            znodes: 5,
        };
        assert_eq!(parse_srvr(answer), Some(expected));
        assert_eq!(
            parse_srvr("srvr is not executed because it is not in the whitelist."),
            None
        );
    }
}
