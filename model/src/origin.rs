//! Where the lines of a shipped block come from.
//!
//! The object of a shipped block begins with a skippable frame of zstd (RFC 8878, section 3.1.2) that holds the origins as
//! JSON: whoever decompresses the object gets the lines alone.

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

    /// How many bytes of an object that begins with these bytes are its origins; none where it begins otherwise. The first
    /// eight bytes tell.
    ///
    /// # Errors
    /// [`BadOrigins::TooLong`].
    pub fn frame_bytes(head: &[u8]) -> Result<Option<usize>, BadOrigins> {
        let Some(head) = head.first_chunk::<HEAD_BYTES>() else {
            return Ok(None);
        };
        let (magic, length) = (
            u32::from_le_bytes([head[0], head[1], head[2], head[3]]),
            u32::from_le_bytes([head[4], head[5], head[6], head[7]]),
        );
        match magic {
            MAGIC if length > MOST_ORIGIN_BYTES => Err(BadOrigins::TooLong(length)),
            MAGIC => Ok(Some(HEAD_BYTES + length as usize)),
            _ => Ok(None),
        }
    }

    /// Those in a whole frame.
    ///
    /// # Errors
    /// [`BadOrigins`].
    pub fn of_frame(frame: &[u8]) -> Result<Self, BadOrigins> {
        let content = frame.get(HEAD_BYTES..).unwrap_or_default();
        let read: Self = serde_json::from_slice(content)?;
        if read.v > FORMAT {
            return Err(BadOrigins::Newer(read.v));
        }
        Ok(read)
    }
}

/// Origins that can't be used.
#[derive(Debug, thiserror::Error)]
pub enum BadOrigins {
    /// More than anybody writes.
    #[error("the origins of its lines take {0} bytes, more than {MOST_ORIGIN_BYTES}")]
    TooLong(u32),
    /// Not the JSON that belongs there.
    #[error("the origins of its lines are not the expected JSON: {0}")]
    Json(#[from] serde_json::Error),
    /// Written by a newer Sawmill.
    #[error(
        "the origins of its lines have format {0}, newer than {FORMAT}, the newest that this release of Sawmill knows: upgrade it"
    )]
    Newer(u32),
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
        let frame = origins.to_frame();
        let mut object = frame.clone();
        object.extend(b"the lines, compressed");
        assert_eq!(Origins::frame_bytes(&object).unwrap(), Some(frame.len()));
        assert_eq!(Origins::of_frame(&frame).unwrap(), origins);
        for other in [&b""[..], b"line", b"a line\n", &object[8..]] {
            assert_eq!(Origins::frame_bytes(other).unwrap(), None);
        }
        object[4..8].copy_from_slice(&u32::MAX.to_le_bytes());
        assert!(matches!(
            Origins::frame_bytes(&object),
            Err(BadOrigins::TooLong(u32::MAX))
        ));
        for cut in 0..frame.len() {
            assert!(matches!(
                Origins::of_frame(&frame[..cut]),
                Err(BadOrigins::Json(_))
            ));
        }
        let newer = Origins {
            v: FORMAT + 1,
            origins: Vec::new(),
        };
        assert!(matches!(
            Origins::of_frame(&newer.to_frame()),
            Err(BadOrigins::Newer(_))
        ));
    }
}
