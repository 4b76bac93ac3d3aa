//! From the objects of small shipped blocks to the object of one: their origins one after the other, then their lines.
//!
//! All in memory: a run has at most about [`TARGET_BYTES`] of lines.

use std::io::Read as _;

use bytes::Bytes;
use model::{
    compaction::TARGET_BYTES,
    origin::{Origin, Origins},
};

/// Most bytes of lines that are taken together, where blocks turn out to have more than was known: a few times what is
/// wanted.
const MOST_RAW_BYTES: u64 = 4 * TARGET_BYTES;
/// Most bytes of origins, as they are written; readers take twice as many.
const MOST_ORIGIN_BYTES: usize = 8 << 20;
/// What an origin takes beside its host and path.
const ORIGIN_FRAME_BYTES: usize = 120;
/// Takes the time of reading it once more, and gains a third over what agents do.
const LEVEL: i32 = 3;

/// A stored block, and what it should be.
pub(crate) struct Small {
    pub(crate) url: String,
    pub(crate) checksum: Option<String>,
    pub(crate) stored: Bytes,
}

/// What became of the first pieces of a run.
pub(crate) struct Large {
    /// How many pieces are in it.
    pub(crate) pieces: usize,
    pub(crate) stored: Vec<u8>,
    pub(crate) checksum: blake3::Hash,
    pub(crate) raw_bytes: u64,
}

/// What came of merging.
pub(crate) enum Merged {
    Large(Large),
    /// The first is not followed by another: these pieces, by place, end in the middle of a line, or have a block that does.
    Open(Vec<usize>),
}

/// Why a block can't be merged with others.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Unfit {
    #[error("its bytes are not those of its checksum")]
    Corrupt,
    #[error("it does not tell where its lines are from: {0}")]
    Origins(String),
    #[error("it can't be decompressed: {0}")]
    Decompress(std::io::Error),
    #[error("its lines are not those that its origins tell of")]
    OtherLines,
    #[error("it has more than {MOST_RAW_BYTES} bytes of lines")]
    TooLarge,
}

/// Merges the pieces of a run, each one or more blocks in order, as far as they fit together: behind a block that does not
/// end with a line feed nothing can follow, since its last line would go on.
///
/// # Errors
/// The place of the block that can't be merged, and why.
pub(crate) fn merged(pieces: &[Vec<Small>]) -> Result<Merged, (String, Unfit)> {
    let mut raw = Vec::new();
    let mut origins: Vec<Origin> = Vec::new();
    let (mut taken, mut blocks, mut origin_bytes) = (0, 0, 0);
    for piece in pieces {
        if !raw.is_empty() && raw.last() != Some(&b'\n') {
            break;
        }
        let (before, origins_before, last) = (raw.len(), origins.len(), origins.last().cloned());
        let fits = match added(piece, &mut raw, &mut origins) {
            Ok(fits) => fits && (taken == 0 || raw.len() as u64 <= 2 * TARGET_BYTES),
            Err((_, Unfit::TooLarge)) if taken > 0 => false,
            Err(unfit) => return Err(unfit),
        };
        origin_bytes += origins[origins_before..].iter().map(written_bytes).sum::<usize>();
        if !fits || origin_bytes > MOST_ORIGIN_BYTES {
            raw.truncate(before);
            origins.truncate(origins_before);
            if let (Some(end), Some(last)) = (origins.last_mut(), last) {
                *end = last;
            }
            break;
        }
        taken += 1;
        blocks += piece.len();
    }
    if blocks < 2 {
        return open(pieces).map(Merged::Open);
    }
    let mut stored = Origins::new(origins).to_frame();
    let packed = zstd::bulk::compress(&raw, LEVEL);
    let place = || {
        pieces
            .first()
            .and_then(|piece| piece.first())
            .map(|small| small.url.clone())
    };
    let packed = packed.map_err(|error| (place().unwrap_or_default(), Unfit::Decompress(error)))?;
    stored.extend_from_slice(&packed);
    Ok(Merged::Large(Large {
        pieces: taken,
        checksum: blake3::hash(&stored),
        stored,
        raw_bytes: raw.len() as u64,
    }))
}

/// The pieces that nothing can follow; the first where that is not the reason.
fn open(pieces: &[Vec<Small>]) -> Result<Vec<usize>, (String, Unfit)> {
    let (mut open, mut raw) = (Vec::new(), Vec::new());
    for (at, piece) in pieces.iter().enumerate() {
        raw.clear();
        let follows = added(piece, &mut raw, &mut Vec::new())?;
        if !follows || raw.last().is_some_and(|last| *last != b'\n') {
            open.push(at);
        }
    }
    if open.is_empty() {
        open.push(0);
    }
    Ok(open)
}

/// Adds the lines and origins of a piece; whether its blocks can follow one another.
fn added(piece: &[Small], raw: &mut Vec<u8>, origins: &mut Vec<Origin>) -> Result<bool, (String, Unfit)> {
    for (at, small) in piece.iter().enumerate() {
        if at > 0 && raw.last().is_some_and(|last| *last != b'\n') {
            return Ok(false);
        }
        let own = lines_of(small, raw).map_err(|unfit| (small.url.clone(), unfit))?;
        own.into_iter().for_each(|next| push(origins, next));
    }
    Ok(true)
}

fn lines_of(small: &Small, raw: &mut Vec<u8>) -> Result<Vec<Origin>, Unfit> {
    let checksum = blake3::hash(&small.stored).to_hex();
    if small
        .checksum
        .as_deref()
        .is_none_or(|known| known != checksum.as_str())
    {
        return Err(Unfit::Corrupt);
    }
    let unread = |why: &dyn std::fmt::Display| Unfit::Origins(why.to_string());
    let frame = Origins::frame_bytes(&small.stored).map_err(|error| unread(&error))?;
    let frame = frame.filter(|frame| *frame <= small.stored.len());
    let frame = frame.ok_or_else(|| unread(&"it begins otherwise"))?;
    let (frame, lines) = small.stored.split_at(frame);
    let origins = Origins::of_frame(frame).map_err(|error| unread(&error))?;
    let before = raw.len();
    let decoder = zstd::stream::read::Decoder::new(lines).map_err(Unfit::Decompress)?;
    let read = decoder.take(MOST_RAW_BYTES + 1).read_to_end(raw);
    read.map_err(Unfit::Decompress)?;
    let own = &raw[before..];
    if own.len() as u64 > MOST_RAW_BYTES {
        raw.truncate(before);
        return Err(Unfit::TooLarge);
    }
    let ended = own.iter().filter(|byte| **byte == b'\n').count() as u64;
    let open = u64::from(own.last().is_some_and(|last| *last != b'\n'));
    let sum = |of: fn(&Origin) -> u64| origins.origins.iter().map(of).fold(0, u64::saturating_add);
    if sum(|origin| origin.lines) != ended + open || sum(|origin| origin.bytes) != own.len() as u64 {
        return Err(Unfit::OtherLines);
    }
    Ok(origins.origins)
}

/// Adds an origin; lines that go on in the same file are of one run.
fn push(origins: &mut Vec<Origin>, next: Origin) {
    match origins.last_mut() {
        Some(last)
            if last.host == next.host
                && last.path == next.path
                && last.offset.checked_add(last.bytes) == Some(next.offset) =>
        {
            last.lines += next.lines;
            last.bytes += next.bytes;
        }
        _ => origins.push(next),
    }
}

/// At most: an escaped character takes six bytes.
fn written_bytes(origin: &Origin) -> usize {
    ORIGIN_FRAME_BYTES + 6 * (origin.host.len() + origin.path.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn origin(path: &str, offset: u64, text: &[u8]) -> Origin {
        let ended = text.iter().filter(|byte| **byte == b'\n').count() as u64;
        Origin {
            host: "web7".into(),
            path: path.into(),
            offset,
            lines: ended + u64::from(text.last().is_some_and(|last| *last != b'\n')),
            bytes: text.len() as u64,
        }
    }

    fn small(path: &str, offset: u64, text: &[u8]) -> Small {
        let mut stored = Origins::new(vec![origin(path, offset, text)]).to_frame();
        stored.extend(zstd::encode_all(text, 1).unwrap());
        Small {
            url: format!("{path}:{offset}"),
            checksum: Some(blake3::hash(&stored).to_hex().to_string()),
            stored: stored.into(),
        }
    }

    fn large(pieces: &[Vec<Small>]) -> Large {
        match merged(pieces).unwrap() {
            Merged::Large(large) => large,
            Merged::Open(places) => panic!("{places:?} are open"),
        }
    }

    fn read(large: &Large) -> (String, Vec<Origin>) {
        assert_eq!(large.checksum, blake3::hash(&large.stored));
        let lines = zstd::decode_all(&large.stored[..]).unwrap();
        assert_eq!(lines.len() as u64, large.raw_bytes);
        let frame = Origins::frame_bytes(&large.stored).unwrap().unwrap();
        let origins = Origins::of_frame(&large.stored[..frame]).unwrap();
        (String::from_utf8(lines).unwrap(), origins.origins)
    }

    #[test]
    fn lines_and_origins_follow_one_another() {
        let pieces = [
            vec![small("/a", 0, b"one\n"), small("/a", 4, b"two\n")],
            vec![small("/b", 0, b"three\n")],
            vec![small("/a", 8, b""), small("/a", 8, b"four\n")],
        ];
        let large = large(&pieces);
        let (text, origins) = read(&large);
        assert_eq!((text.as_str(), large.pieces), ("one\ntwo\nthree\nfour\n", 3));
        let expected = [
            origin("/a", 0, b"one\ntwo\n"),
            origin("/b", 0, b"three\n"),
            origin("/a", 8, b"four\n"),
        ];
        assert_eq!(origins, expected);
    }

    #[test]
    fn nothing_follows_a_line_without_an_end() {
        let pieces = |second: &[u8]| {
            let texts: [&[u8]; 4] = [b"one\n", second, b"three\n", b"four\n"];
            texts.map(|text| vec![small("/a", 0, text)])
        };
        let cut = large(&pieces(b"half"));
        assert_eq!((cut.pieces, read(&cut).0.as_str()), (2, "one\nhalf"));
        let open = |pieces: &[Vec<Small>]| match merged(pieces).unwrap() {
            Merged::Open(places) => places,
            Merged::Large(large) => panic!("{} pieces", large.pieces),
        };
        assert_eq!(open(&pieces(b"half")[1..]), [0]);
        let inner = [vec![small("/a", 0, b"half"), small("/a", 4, b"other\n")]];
        assert_eq!(open(&inner), [0]);
        assert_eq!(large(&pieces(b"two\n")).pieces, 4);
    }

    #[test]
    fn what_is_not_what_it_should_be_is_not_merged() {
        let good = || vec![small("/a", 0, b"one\n")];
        let why = |bad: Small| match merged(&[good(), vec![bad]]) {
            Err((place, unfit)) => format!("{place} {unfit}"),
            Ok(_) => "merged".into(),
        };
        let sealed = |stored: Vec<u8>| Small {
            url: "bad".into(),
            checksum: Some(blake3::hash(&stored).to_hex().to_string()),
            stored: stored.into(),
        };
        let mut corrupt = small("/b", 0, b"two\n");
        corrupt.checksum = Some("00".into());
        assert!(why(corrupt).starts_with("/b:0 its bytes"));
        let plain = zstd::encode_all(&b"two\n"[..], 1).unwrap();
        assert!(why(sealed(plain)).contains("it begins otherwise"));
        let mut cut = small("/b", 0, &b"some line\n".repeat(50)).stored.to_vec();
        cut.truncate(cut.len() - 3);
        assert!(why(sealed(cut)).contains("decompressed"));
        let mut other = Origins::new(vec![origin("/b", 0, b"three\nlines\n")]).to_frame();
        other.extend(zstd::encode_all(&b"one line\n"[..], 1).unwrap());
        assert!(why(sealed(other)).contains("origins tell"));
    }
}
