//! Free ports on the loopback interface.
//!
//! Ports are taken from below the range that the system hands out for outgoing connections, so that a server which is
//! killed and restarted finds its port still free. No promise that nobody takes the port between the answer and its
//! use: who starts a server tries again with another.

use crate::Error;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::net::TcpListener;

/// Linux hands out 32768 and up to outgoing connections by default.
const FIRST: u16 = 15_000;
const LAST: u16 = 31_999;
const TRIES: u64 = 2_000;

/// A port between 15000 and 31999 on which nobody listens at this moment, chosen at random so that processes which ask
/// at the same time get different ones.
///
/// # Errors
/// [`Error::NoPort`] when none was found.
pub fn free() -> Result<u16, Error> {
    let width = u64::from(LAST - FIRST) + 1;
    let seed = RandomState::new().build_hasher().finish();
    (0..TRIES)
        .map(|step| FIRST + (seed.wrapping_add(step * 7) % width) as u16)
        .find(|port| TcpListener::bind(("127.0.0.1", *port)).is_ok())
        .ok_or(Error::NoPort {
            first: FIRST,
            last: LAST,
        })
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_free_port_can_be_bound() {
        let port = super::free().unwrap();
        std::net::TcpListener::bind(("127.0.0.1", port)).unwrap();
        assert!((super::FIRST..=super::LAST).contains(&port));
    }
}
