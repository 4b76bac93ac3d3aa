//! Fingerprints: equal ones mean that what is recorded answers a subtask, or a whole query, without running it.

use std::fmt;

use crate::{
    block::{Block, Content, Mark},
    parts::Source,
    processor::Processor,
};

/// blake3 over the digest of what is done and the identity of what it is done to, shortened to 128 bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Fingerprint(pub [u8; 16]);

impl Fingerprint {
    /// The fingerprint of running `processor` over `block`, one of the dataset with the number `table` among those of a
    /// query.
    ///
    /// A block is its checksum where that is known, else its URL, size, modification time, range and [mark](Mark).
    pub fn of(processor: &Processor, table: usize, block: &Block) -> Self {
        let mut hasher = blake3::Hasher::new();
        hasher.update(&processor.digest(table));
        identify(block, &mut hasher);
        Self::short(&hasher)
    }

    /// The fingerprint of the contents of a block alone, as [`Fingerprint::of`] takes it.
    pub fn of_contents(block: &Block) -> Self {
        let mut hasher = blake3::Hasher::new();
        hasher.update(b"contents\0");
        identify(block, &mut hasher);
        Self::short(&hasher)
    }

    /// The same of contents in a file that is told by another version now than when its block was cut.
    #[must_use]
    pub fn of_version(self, version: &str) -> Self {
        let mut hasher = blake3::Hasher::new();
        hasher.update(&self.0).update(version.as_bytes());
        Self::short(&hasher)
    }

    /// The fingerprint of the answer to a question over datasets as they were at a time. Another one once blocks were merged
    /// into larger ones: an answer may tell in which block a line is.
    pub fn of_answer(question: &str, sources: &[Source]) -> Self {
        let mut hasher = blake3::Hasher::new();
        hasher.update(b"answer\0").update(question.as_bytes());
        for source in sources {
            hasher
                .update(source.id.as_bytes())
                .update(&source.first.to_le_bytes())
                .update(&source.blocks.to_le_bytes());
            // Left out where it says nothing, as it always was.
            if source.generation > 0 {
                hasher
                    .update(b"generation\0")
                    .update(&source.generation.to_le_bytes());
            }
        }
        Self::short(&hasher)
    }

    fn short(hasher: &blake3::Hasher) -> Self {
        let mut short = [0; 16];
        short.copy_from_slice(&hasher.finalize().as_bytes()[..16]);
        Self(short)
    }
}

fn identify(block: &Block, hasher: &mut blake3::Hasher) {
    match (&block.checksum, &block.content) {
        (Some(checksum), _) => {
            hasher.update(b"checksum\0").update(checksum.as_bytes());
        }
        (None, Content::Inline(payload)) => {
            hasher.update(b"inline\0").update(&payload.0);
        }
        (
            None,
            Content::Object {
                url,
                start,
                end,
                codec: _,
                size,
                mtime_ms,
                mark,
            },
        ) => {
            hasher.update(b"object\0");
            for number in [*start, *end, *size, mtime_ms.cast_unsigned()] {
                hasher.update(&number.to_le_bytes());
            }
            hasher.update(url.as_bytes());
            // Left out where there is none, as it always was.
            if let Some(Mark { version, ends }) = mark {
                hasher.update(b"\0mark\0").update(version.as_bytes());
                if let Some(ends) = ends {
                    hasher.update(b"\0").update(ends.digest.as_bytes());
                }
            }
        }
    }
}

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;
    use crate::block::{Codec, Ends};

    fn object(mtime_ms: i64, end: u64) -> Block {
        let url = "file:///var/log/a".to_string();
        let content = Content::Object {
            url,
            start: 0,
            end,
            codec: Codec::None,
            size: 10,
            mtime_ms,
            mark: None,
        };
        Block {
            content,
            checksum: None,
            raw_bytes: None,
            made: None,
            registered_ms: None,
        }
    }

    #[test]
    fn changes_with_whatever_changes_the_bytes() {
        let base = Fingerprint::of(&Processor::Noop, 0, &object(1, 10));
        assert_eq!(base, Fingerprint::of(&Processor::Noop, 0, &object(1, 10)));
        assert_ne!(base, Fingerprint::of(&Processor::Noop, 0, &object(2, 10)));
        assert_ne!(base, Fingerprint::of(&Processor::Noop, 0, &object(1, 9)));
        assert_ne!(base, Fingerprint::of(&Processor::Noop, 0, &Block::inline("x")));
    }

    #[test]
    fn a_file_with_the_old_size_and_time_is_another_one() {
        let marked = |version: &str, digest: Option<&str>| {
            let mut block = object(1, 10);
            if let Content::Object { mark, .. } = &mut block.content {
                let ends = digest.map(|digest| Ends {
                    start: 0,
                    end: 10,
                    digest: digest.into(),
                });
                *mark = Some(Mark {
                    version: version.into(),
                    ends,
                });
            }
            Fingerprint::of_contents(&block)
        };
        let base = marked("inode 1", Some("ab"));
        assert_eq!(base, marked("inode 1", Some("ab")));
        let of_before = Fingerprint::of_contents(&object(1, 10));
        for other in [
            marked("inode 2", Some("ab")),
            marked("inode 1", Some("cd")),
            marked("inode 1", None),
            of_before,
        ] {
            assert_ne!(base, other);
        }
        // What earlier releases recorded is still found.
        assert_eq!(of_before.to_string(), "d0c9cc4975cb98af349bc6d2fbb7f9f6");
    }

    #[test]
    fn an_answer_is_of_so_many_blocks_of_one_incarnation() {
        let of = |question, id, blocks, generation| {
            let id = Uuid::from_u128(id);
            let source = Source {
                id,
                blocks,
                generation,
                ..Source::default()
            };
            Fingerprint::of_answer(question, &[source])
        };
        assert_eq!(of("q", 1, 3, 0), of("q", 1, 3, 0));
        for different in [
            of("p", 1, 3, 0),
            of("q", 2, 3, 0),
            of("q", 1, 4, 0),
            of("q", 1, 3, 1),
        ] {
            assert_ne!(of("q", 1, 3, 0), different);
        }
    }

    #[test]
    fn a_known_checksum_outweighs_the_place() {
        let checked = |mtime| Block {
            checksum: Some("abc".into()),
            ..object(mtime, 10)
        };
        assert_eq!(
            Fingerprint::of(&Processor::Noop, 0, &checked(1)),
            Fingerprint::of(&Processor::Noop, 0, &checked(2))
        );
    }
}
