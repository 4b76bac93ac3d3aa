//! Blocks: line-aligned pieces of data that a subtask works on.

use std::ops::Range;

use serde::{Deserialize, Serialize};

use crate::payload::Payload;

/// How an object is compressed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Codec {
    /// Raw lines.
    #[default]
    None,
    /// RFC 1952, any number of members.
    Gzip,
    /// RFC 8878, any number of frames.
    Zstd,
    /// bzip2, any number of streams.
    Bzip2,
    /// xz, any number of streams.
    Xz,
}

impl Codec {
    /// By the first bytes of an object (its magic number), which a renamed file keeps.
    pub fn detect(head: &[u8]) -> Self {
        match head {
            [0x1f, 0x8b, ..] => Self::Gzip,
            // A frame, or a skippable one, as shipped blocks begin with.
            [0x28, 0xb5, 0x2f, 0xfd, ..] | [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..] => Self::Zstd,
            [b'B', b'Z', b'h', b'1'..=b'9', ..] => Self::Bzip2,
            [0xfd, b'7', b'z', b'X', b'Z', 0, ..] => Self::Xz,
            _ => Self::None,
        }
    }
}

/// Where the bytes of a block are.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Content {
    /// In the block itself.
    Inline(Payload),
    /// A byte range of an object.
    Object {
        /// Absolute URL: `file:///…`, `s3://…`, `https://…`.
        url: String,
        /// First byte of the range, in the object as stored.
        start: u64,
        /// One past the last byte of the range.
        end: u64,
        /// How the object is compressed; a compressed one is read from `start` to `end` and decompressed on the way.
        #[serde(default)]
        codec: Codec,
        /// Bytes of the whole object when the block was cut; another size now means that the object changed.
        size: u64,
        /// Modification time of the object when the block was cut, in milliseconds since 1970 UTC.
        mtime_ms: i64,
        /// What else tells it from another object; none where Sawmill wrote it, and in blocks of earlier releases.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        mark: Option<Mark>,
    },
}

/// What tells an object from another one of the same name, size and time, taken when a block was cut.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mark {
    /// Of a file a digest of its device, inode, change time and exact modification time; of an object elsewhere its ETag.
    /// That of a file differs from machine to machine, and changes with its rights and names: another one does not mean
    /// other contents.
    pub version: String,
    /// The bytes at both ends of a range of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ends: Option<Ends>,
}

/// The bytes at both ends of a range of a file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ends {
    /// First byte of the range.
    pub start: u64,
    /// One past its last byte.
    pub end: u64,
    /// blake3 over the first 4 KiB and the last 4 KiB of it, shortened to 128 bits, as hex.
    pub digest: String,
}

impl Mark {
    fn written_bytes(&self) -> usize {
        self.version.len() + 32 + self.ends.as_ref().map_or(0, |ends| ends.digest.len() + 96)
    }
}

/// One block of a dataset.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Block {
    /// Where the bytes are.
    pub content: Content,
    /// blake3 of the raw bytes of the range as hex, once it has been read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub checksum: Option<String>,
    /// Bytes of its lines, where that is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub raw_bytes: Option<u64>,
    /// Of a block that was made of others.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub made: Option<Made>,
    /// When it was registered by MongoDB's clock, in milliseconds since 1970 UTC, where the time of its object is another:
    /// the clock of who wrote that was wrong, or it was registered long after.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub registered_ms: Option<i64>,
}

/// How a block came about that has the lines of smaller ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Made {
    /// The generation of the dataset from which on it counts.
    pub generation: u32,
    /// When the youngest of the smaller ones was written, in milliseconds since 1970 UTC: no line is younger.
    pub newest_ms: i64,
}

impl Block {
    /// A block that carries its own bytes.
    pub fn inline(bytes: impl Into<Vec<u8>>) -> Self {
        Self {
            content: Content::Inline(Payload(bytes.into())),
            checksum: None,
            raw_bytes: None,
            made: None,
            registered_ms: None,
        }
    }

    /// What stands at a number whose lines have become part of another block: no lines at all.
    pub fn void() -> Self {
        Self::inline(Vec::new())
    }

    /// Whether it has no lines, without anything to read.
    pub fn is_void(&self) -> bool {
        matches!(&self.content, Content::Inline(bytes) if bytes.0.is_empty())
    }

    /// The URL of its object; none for a block that carries its own bytes.
    pub fn url(&self) -> Option<&str> {
        match &self.content {
            Content::Object { url, .. } => Some(url),
            Content::Inline(_) => None,
        }
    }

    /// When its lines had been written, in milliseconds since 1970 UTC: none is younger. None where that is not known.
    pub fn newest_ms(&self) -> Option<i64> {
        match (&self.made, self.registered_ms, &self.content) {
            (Some(made), _, _) => Some(made.newest_ms),
            (None, Some(registered), _) => Some(registered),
            (None, None, Content::Object { mtime_ms, .. }) => Some(*mtime_ms),
            (None, None, Content::Inline(_)) => None,
        }
    }

    /// Bytes that the content takes inside a znode, at most, without its frame.
    pub fn written_bytes(&self) -> usize {
        let content = match &self.content {
            Content::Inline(payload) => payload.written_bytes(),
            Content::Object { url, mark, .. } => {
                url.len() + 64 + mark.as_ref().map_or(0, Mark::written_bytes)
            }
        };
        content + self.checksum.as_ref().map_or(0, String::len)
    }

    /// Another range of the same object; of a block that carries its own bytes the block itself.
    #[must_use]
    pub fn with_range(&self, range: Range<u64>) -> Self {
        let mut other = self.clone();
        if let Content::Object { start, end, .. } = &mut other.content {
            (*start, *end) = (range.start, range.end);
            (other.checksum, other.raw_bytes) = (None, None);
        }
        other
    }

    /// The same bytes, not decompressed.
    #[must_use]
    pub fn as_stored(&self) -> Self {
        let mut other = self.clone();
        if let Content::Object { codec, .. } = &mut other.content {
            *codec = Codec::None;
        }
        other
    }

    /// Bytes to read, as stored.
    pub fn stored_bytes(&self) -> u64 {
        match &self.content {
            Content::Inline(payload) => payload.0.len() as u64,
            Content::Object { start, end, .. } => end.saturating_sub(*start),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codec_is_told_by_the_magic_number() {
        let cases: [(&[u8], Codec); 7] = [
            (b"\x50\x2a\x4d\x18\0", Codec::Zstd),
            (b"\x1f\x8b\x08", Codec::Gzip),
            (b"\x28\xb5\x2f\xfd\0", Codec::Zstd),
            (b"BZh91AY", Codec::Bzip2),
            (b"\xfd7zXZ\0", Codec::Xz),
            (b"BZhello", Codec::None),
            (b"", Codec::None),
        ];
        for (head, codec) in cases {
            assert_eq!(Codec::detect(head), codec, "{head:?}");
        }
    }
}
