//! Short proofs that some bytes are the same as before: a length and a BLAKE3 hash.

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// So many bytes at the beginning of a file tell it from others.
pub(crate) const HEAD_BYTES: usize = 1024;
/// So many bytes before the place that was reached prove that the file is still the one that was read.
pub(crate) const TAIL_BYTES: usize = 64;

/// The hash of some bytes and how many they are; written as `LENGTH:HEX`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Mark {
    len: usize,
    hash: blake3::Hash,
}

impl Mark {
    pub(crate) fn of(bytes: &[u8]) -> Self {
        Self {
            len: bytes.len(),
            hash: blake3::hash(bytes),
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// Whether `bytes` begin with what was marked. Every sequence of bytes begins with the empty one.
    pub(crate) fn begins(&self, bytes: &[u8]) -> bool {
        bytes.get(..self.len).is_some_and(|head| Self::of(head) == *self)
    }
}

impl Default for Mark {
    fn default() -> Self {
        Self::of(&[])
    }
}

impl fmt::Display for Mark {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.len, self.hash.to_hex())
    }
}

impl Serialize for Mark {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Mark {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let parse = || {
            let (len, hash) = text.split_once(':')?;
            let len = len.parse().ok().filter(|len| *len <= HEAD_BYTES)?;
            let hash = blake3::Hash::from_hex(hash).ok()?;
            Some(Self { len, hash })
        };
        parse().ok_or_else(|| de::Error::custom(format!("{text:?} is no LENGTH:HEX")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mark_knows_its_bytes_and_survives_json() {
        let mark = Mark::of(b"first");
        assert!(mark.begins(b"first line") && !mark.begins(b"firs") && !mark.begins(b"other line"));
        assert!(Mark::default().begins(b""));
        let text = serde_json::to_string(&mark).unwrap();
        assert_eq!(serde_json::from_str::<Mark>(&text).unwrap(), mark);
        for bad in ["\"\"", "\"5\"", "\"5:zz\"", "\"9999:00\""] {
            assert!(serde_json::from_str::<Mark>(bad).is_err());
        }
    }
}
