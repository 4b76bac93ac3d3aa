//! The rule that what others can reach has TLS.

use std::net::IpAddr;

use super::{Error, Security, connect::host_and_port};

/// Whether an address, `HOST:PORT`, is reached from this machine only. Of names only `localhost` is taken to be.
pub fn is_loopback(address: &str) -> bool {
    host_and_port(address).is_ok_and(|(host, _)| {
        host.eq_ignore_ascii_case("localhost")
            || host
                .parse::<IpAddr>()
                .is_ok_and(|address| address.to_canonical().is_loopback())
    })
}

/// Checks an address that is to be listened on: others may reach it with TLS, or when `insecure` says so; then the text
/// of a warning is given, to be told loudly.
///
/// # Errors
/// [`Error::BadAddress`], [`Error::Exposed`].
pub fn check_exposure(address: &str, security: &Security, insecure: bool) -> Result<Option<String>, Error> {
    host_and_port(address)?;
    match security {
        Security::Tls(_) => Ok(None),
        Security::Plain if is_loopback(address) => Ok(None),
        Security::Open if is_loopback(address) => Ok(Some(format!(
            "INSECURE: {address} asks nobody on this machine who they are, as `trust_local_users` says: every local account \
             is an administrator of this cluster, and may run commands as the user of its nodes"
        ))),
        Security::Plain | Security::Open if insecure => Ok(Some(format!(
            "INSECURE: {address} is open to other machines without TLS: whoever reaches it is an administrator of this \
             mill, and everything sent can be read and changed on its way"
        ))),
        Security::Plain | Security::Open => Err(Error::Exposed {
            address: address.to_string(),
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_this_machine_is_reached_without_tls() {
        let plain = Security::Plain;
        for here in [
            "127.0.0.1:7766",
            "127.8.9.10:0",
            "localhost:1",
            "LOCALHOST:1",
            "[::1]:7766",
            "[::ffff:127.0.0.1]:1",
        ] {
            assert!(matches!(check_exposure(here, &plain, false), Ok(None)), "{here}");
            let warning = check_exposure(here, &Security::Open, false).unwrap().unwrap();
            assert!(warning.contains("trust_local_users"), "{warning}");
        }
        for open in [
            "0.0.0.0:7766",
            "[::]:7766",
            "10.0.0.1:1",
            "mill.example.com:1",
            "localhost.example.com:1",
            "[::ffff:10.0.0.1]:1",
        ] {
            assert!(
                matches!(check_exposure(open, &plain, false), Err(Error::Exposed { .. })),
                "{open}"
            );
            assert!(check_exposure(open, &Security::Open, false).is_err(), "{open}");
            let warning = check_exposure(open, &plain, true).unwrap().unwrap();
            assert!(warning.contains("INSECURE") && warning.contains(open));
        }
        for bad in [
            "",
            "7766",
            ":7766",
            "host:",
            "host:x",
            "host:99999",
            "::1:7",
            "[::1]7",
            "a b:1",
        ] {
            assert!(
                matches!(check_exposure(bad, &plain, true), Err(Error::BadAddress { .. })),
                "{bad}"
            );
        }
    }
}
