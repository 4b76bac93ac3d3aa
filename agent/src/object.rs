//! A block as it is stored: a skippable zstd frame that tells where the lines came from, then a frame with the lines.
//!
//! Readers of zstd skip the first frame, so that the object reads as plain lines.

use std::io;

use model::origin::Origins;

use crate::block::CutBlock;

/// Faster than any log is written, and most of what higher levels gain.
const LEVEL: i32 = 1;

/// The data of a block with its checksums.
#[derive(Debug)]
pub(crate) struct Object {
    pub(crate) data: Vec<u8>,
    pub(crate) stored_checksum: blake3::Hash,
    pub(crate) raw_checksum: blake3::Hash,
}

/// Compresses blocks, one after another.
pub(crate) struct Packer {
    compressor: zstd::bulk::Compressor<'static>,
}

impl Packer {
    pub(crate) fn new() -> io::Result<Self> {
        Ok(Self {
            compressor: zstd::bulk::Compressor::new(LEVEL)?,
        })
    }

    pub(crate) fn pack(&mut self, block: &CutBlock) -> io::Result<Object> {
        let origins = Origins::new(block.origins.clone()).to_frame();
        let bound = zstd::zstd_safe::compress_bound(block.raw.len());
        let mut data = Vec::with_capacity(origins.len() + bound);
        data.extend_from_slice(&origins);
        let begin = data.len();
        data.resize(begin + bound, 0);
        let packed = self
            .compressor
            .compress_to_buffer(&block.raw, &mut data[begin..])?;
        data.truncate(begin + packed);
        Ok(Object {
            stored_checksum: blake3::hash(&data),
            raw_checksum: blake3::hash(&block.raw),
            data,
        })
    }
}

#[cfg(test)]
mod tests {
    use model::origin::Origin;

    use super::*;

    #[test]
    fn the_object_reads_as_plain_lines_behind_its_origins() {
        let origin = Origin {
            host: "web7".into(),
            path: "/var/log/a.log".into(),
            offset: 5,
            lines: 2,
            bytes: 8,
        };
        let block = CutBlock {
            dataset: model::Name::new("access").unwrap(),
            raw: b"one\n\xff\xfe\n".to_vec(),
            lines: 2,
            origins: vec![origin],
            positions: Vec::new(),
            begins: Vec::new(),
            rebuilds: None,
            read_ms: 0,
        };
        let object = Packer::new().unwrap().pack(&block).unwrap();
        assert_eq!(zstd::decode_all(&object.data[..]).unwrap(), block.raw);
        assert_eq!(object.raw_checksum, blake3::hash(&block.raw));
        assert_eq!(object.stored_checksum, blake3::hash(&object.data));
        let length = u32::from_le_bytes(object.data[4..8].try_into().unwrap()) as usize;
        let expected =
            r#"{"v":1,"origins":[{"host":"web7","path":"/var/log/a.log","offset":5,"lines":2,"bytes":8}]}"#;
        assert_eq!(&object.data[8..8 + length], expected.as_bytes());
    }
}
