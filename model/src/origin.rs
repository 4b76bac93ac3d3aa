//! Where the lines of a shipped block come from.
//!
//! The object of a shipped block begins with a skippable frame of zstd (RFC 8878, section 3.1.2) that holds the origins as
//! JSON: whoever decompresses the object gets the lines alone.

use std::io::{self, Read};

use serde::{Deserialize, Serialize};

use crate::FORMAT;

/// The first bytes of a skippable frame, as a little-endian number.
const MAGIC: u32 = 0x184D_2A50;
/// Bytes before its content: the magic number and the length.
const HEAD_BYTES: usize = 8;
/// Most bytes of origins that are read: a hundred thousand runs of lines.
pub const MOST_ORIGIN_BYTES: u32 = 16 * 1024 * 1024;

/// The origins of the lines of a block.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Origins {
    /// Format number.
    pub v: u32,
    /// Runs of lines in their order, together all lines of the block.
    pub origins: Vec<Origin>,
}

/// Lines that follow one another in one file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Origin {
    /// Host name of the machine.
    pub host: String,
    /// Absolute path of the file, as it was named when it was read.
    pub path: String,
    /// Where the first of them begins in the file, in bytes (of its content, where it is compressed).
    pub offset: u64,
    /// How many lines.
    pub lines: u64,
    /// Bytes of these lines, with their line feeds.
    pub bytes: u64,
}

impl Origins {
    /// Over runs of lines.
    pub fn new(origins: Vec<Origin>) -> Self {
        Self { v: FORMAT, origins }
    }

    /// As a skippable frame.
    pub fn to_frame(&self) -> Vec<u8> {
        let content = serde_json::to_vec(self).expect("plain structs with string keys always become JSON");
        let length = u32::try_from(content.len()).expect("a block has fewer origins than fill 4 GiB");
        let mut frame = Vec::with_capacity(HEAD_BYTES + content.len());
        frame.extend(MAGIC.to_le_bytes());
        frame.extend(length.to_le_bytes());
        frame.extend(content);
        frame
    }

    /// Those at the beginning of an object; none where it begins otherwise.
    ///
    /// # Errors
    /// What reading says; [`io::ErrorKind::InvalidData`] for a frame that is too long or has other content.
    pub fn read(mut object: impl Read) -> io::Result<Option<Self>> {
        let mut head = Vec::with_capacity(HEAD_BYTES);
        object.by_ref().take(HEAD_BYTES as u64).read_to_end(&mut head)?;
        let Some((magic, length)) = head.first_chunk::<4>().zip(head.last_chunk::<4>()) else {
            return Ok(None);
        };
        if head.len() < HEAD_BYTES || u32::from_le_bytes(*magic) != MAGIC {
            return Ok(None);
        }
        let bad = |why: String| io::Error::new(io::ErrorKind::InvalidData, why);
        let length = u32::from_le_bytes(*length);
        if length > MOST_ORIGIN_BYTES {
            return Err(bad(format!("its origins take {length} bytes")));
        }
        let mut content = Vec::new();
        object.take(length.into()).read_to_end(&mut content)?;
        let read: Self =
            serde_json::from_slice(&content).map_err(|why| bad(format!("its origins: {why}")))?;
        if read.v > FORMAT {
            return Err(bad(format!(
                "its origins have format {}, newer than {FORMAT}, the newest that this release of Sawmill knows: upgrade it",
                read.v
            )));
        }
        Ok(Some(read))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn origins_are_read_from_the_beginning_of_an_object_alone() {
        let origins = Origins::new(vec![Origin {
            host: "web7".into(),
            path: "/var/log/access.log".into(),
            offset: 4096,
            lines: 2,
            bytes: 80,
        }]);
        let mut object = origins.to_frame();
        object.extend(b"the lines, compressed");
        assert_eq!(Origins::read(&object[..]).unwrap(), Some(origins));
        for other in [&b""[..], b"line", b"a line\n", &object[8..]] {
            assert_eq!(Origins::read(other).unwrap(), None);
        }
        let mut long = object.clone();
        long[4..8].copy_from_slice(&u32::MAX.to_le_bytes());
        for bad in [&long[..], &object[..20]] {
            let failure = Origins::read(bad).unwrap_err();
            assert_eq!(failure.kind(), io::ErrorKind::InvalidData);
        }
        let newer = Origins {
            v: FORMAT + 1,
            origins: Vec::new(),
        };
        assert!(Origins::read(&newer.to_frame()[..]).is_err());
    }
}
