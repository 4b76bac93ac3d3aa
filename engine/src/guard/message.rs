//! What a node and its guards say to each other over the lifeline: one packet each.

use std::io;

/// Longest request, in bytes: a command line of the longest length and its variables, with room to spare.
pub(super) const REQUEST_BYTES: usize = 64 * 1024;
/// Length of every reply, in bytes.
pub(super) const REPLY_BYTES: usize = 6;

/// A command line, how its pipelines fail, and the variables it gets on top of the guard's environment. No part may contain a
/// NUL byte.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Request {
    pub(crate) line: String,
    pub(crate) pipefail: bool,
    pub(crate) variables: Vec<(String, String)>,
}

/// Stands before the command line where a pipeline fails with any of its parts.
pub(super) const PIPEFAIL: &[u8] = b"pipefail";

impl Request {
    /// The parts, each ended by a NUL byte.
    pub(super) fn encode(&self) -> io::Result<Vec<u8>> {
        let variables = self
            .variables
            .iter()
            .map(|(name, value)| format!("{name}={value}"));
        let mut bytes = Vec::with_capacity(self.line.len() + 256);
        if self.pipefail {
            bytes.extend_from_slice(PIPEFAIL);
        }
        bytes.push(0);
        for part in std::iter::once(self.line.clone()).chain(variables) {
            if part.contains('\0') {
                return Err(io::Error::new(
                    io::ErrorKind::InvalidInput,
                    "the command contains a NUL byte",
                ));
            }
            bytes.extend_from_slice(part.as_bytes());
            bytes.push(0);
        }
        if bytes.len() > REQUEST_BYTES {
            let text = format!("the command has {} bytes, more than {REQUEST_BYTES}", bytes.len());
            return Err(io::Error::new(io::ErrorKind::InvalidInput, text));
        }
        Ok(bytes)
    }
}

/// The parts of an encoded request: [`PIPEFAIL`] or nothing, the command line and then the variables.
pub(super) fn parts(bytes: &[u8]) -> impl Iterator<Item = &[u8]> {
    bytes.strip_suffix(&[0]).unwrap_or(bytes).split(|byte| *byte == 0)
}

/// How the shell ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Status {
    /// By itself, with this code.
    Code(i32),
    /// By this signal.
    Signal(i32),
}

/// What a guard says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reply {
    /// The shell runs and has this process id, which is also that of its group.
    Started(i32),
    /// The shell could not be started, for the reason with this `errno`.
    NotStarted(i32),
    /// The shell has ended, and unless `clear` is false so has everything it had started.
    Ended { status: Status, clear: bool },
}

impl Reply {
    pub(super) fn encode(self) -> [u8; REPLY_BYTES] {
        let (tag, number, clear) = match self {
            Self::Started(pid) => (b's', pid, true),
            Self::NotStarted(errno) => (b'n', errno, true),
            Self::Ended {
                status: Status::Code(code),
                clear,
            } => (b'c', code, clear),
            Self::Ended {
                status: Status::Signal(signal),
                clear,
            } => (b'g', signal, clear),
        };
        let [a, b, c, d] = number.to_le_bytes();
        [tag, a, b, c, d, clear.into()]
    }

    pub(super) fn decode(bytes: &[u8]) -> Option<Self> {
        let &[tag, a, b, c, d, clear] = bytes else {
            return None;
        };
        let (number, clear) = (i32::from_le_bytes([a, b, c, d]), clear != 0);
        Some(match tag {
            b's' => Self::Started(number),
            b'n' => Self::NotStarted(number),
            b'c' => Self::Ended {
                status: Status::Code(number),
                clear,
            },
            b'g' => Self::Ended {
                status: Status::Signal(number),
                clear,
            },
            _ => return None,
        })
    }
}

/// Reads any bytes as a reply, and as a request; whether they are one.
pub fn decode_any(bytes: &[u8]) -> bool {
    let reply = Reply::decode(bytes);
    if let Some(reply) = reply {
        assert_eq!(Reply::decode(&reply.encode()), Some(reply));
    }
    assert!(parts(bytes).map(<[u8]>::len).sum::<usize>() <= bytes.len());
    reply.is_some() || bytes.ends_with(&[0])
}

/// A reply and a request.
pub fn seeds() -> Vec<Vec<u8>> {
    vec![
        Reply::Started(7).encode().to_vec(),
        b"pipefail\0wc -l\0A=b\0".to_vec(),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_said_is_understood() {
        let replies = [
            Reply::Started(4_000_000),
            Reply::NotStarted(11),
            Reply::Ended {
                status: Status::Code(3),
                clear: true,
            },
            Reply::Ended {
                status: Status::Signal(9),
                clear: false,
            },
        ];
        for reply in replies {
            assert_eq!(Reply::decode(&reply.encode()), Some(reply));
        }
        assert_eq!(Reply::decode(b"x"), None);
        assert_eq!(Reply::decode(b"x12345"), None);
    }

    #[test]
    fn requests_keep_their_parts_and_refuse_what_cannot_travel() {
        let mut request = Request {
            line: "wc -l\n".into(),
            pipefail: false,
            variables: vec![("A".into(), String::new()), ("B".into(), "c d".into())],
        };
        let bytes = request.encode().unwrap();
        assert_eq!(
            parts(&bytes).collect::<Vec<_>>(),
            [b"".as_slice(), b"wc -l\n", b"A=", b"B=c d"]
        );
        request.pipefail = true;
        let bytes = request.encode().unwrap();
        assert_eq!(parts(&bytes).next(), Some(PIPEFAIL));
        request.line = "a\0b".into();
        assert!(request.encode().is_err());
        request.line = "x".repeat(REQUEST_BYTES);
        assert!(request.encode().unwrap_err().to_string().contains("more than"));
    }
}
