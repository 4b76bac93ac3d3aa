//! What is checked of a shipped object, over any bytes: for tests and fuzz targets.

use std::io::Read as _;

use tonic::codegen::Bytes;

use crate::session::check_frames;

/// Bytes that claim how many bytes of lines there are.
const CLAIM_BYTES: usize = 8;
/// Most bytes of lines that are unpacked to see whether the check was right.
const UNPACKED: u64 = 1 << 16;

/// An object, after the number of bytes of its lines; whether it is taken.
pub fn frames(bytes: &[u8]) -> bool {
    let Some((claim, object)) = bytes.split_first_chunk::<CLAIM_BYTES>() else {
        return false;
    };
    let raw_bytes = u64::from_le_bytes(*claim);
    let whole = [Bytes::copy_from_slice(object)];
    let checked = check_frames(&whole, raw_bytes);
    let (head, tail) = object.split_at(object.len() / 2);
    let pieces = [head, tail].map(Bytes::copy_from_slice);
    assert_eq!(check_frames(&pieces, raw_bytes), checked);
    if checked.is_err() || raw_bytes > UNPACKED {
        return checked.is_ok();
    }
    let Ok(decoder) = zstd::stream::read::Decoder::new(object) else {
        return false;
    };
    let mut lines = Vec::new();
    // Nobody gets more than was checked; what is broken inside is an error of whoever reads it.
    if decoder.take(raw_bytes + 1).read_to_end(&mut lines).is_ok() {
        assert_eq!(lines.len() as u64, raw_bytes);
    }
    true
}

/// A valid object.
pub fn seeds() -> Vec<Vec<u8>> {
    let lines = b"one\ntwo\n";
    let mut seed = (lines.len() as u64).to_le_bytes().to_vec();
    seed.extend(model::origin::Origins::new(Vec::new()).to_frame());
    seed.extend(zstd::bulk::compress(lines, 1).unwrap_or_default());
    vec![seed]
}
