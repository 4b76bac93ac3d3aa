//! The bytes of a file at an offset, plain or as they were before gzip or zstd.

use std::{
    fs::{File, Metadata},
    io::{self, BufReader, Read, Seek as _, SeekFrom},
    os::unix::fs::{FileExt as _, MetadataExt as _},
    path::Path,
};

use serde::{Deserialize, Serialize};

use crate::links::Links;

/// Which file: what a rename does not change.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) struct Key {
    pub(crate) device: u64,
    pub(crate) inode: u64,
}

impl Key {
    pub(crate) fn of(metadata: &Metadata) -> Self {
        Self {
            device: metadata.dev(),
            inode: metadata.ino(),
        }
    }
}

/// How the bytes are stored, by the first of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Codec {
    Plain,
    Gzip,
    Zstd,
    /// In a way that agents do not read.
    Other(&'static str),
    /// In letters of two bytes, among which no line feed is found.
    Utf16,
}

impl Codec {
    /// Why agents do not read it; none: they do.
    pub(crate) fn unread(self) -> Option<String> {
        match self {
            Self::Plain | Self::Gzip | Self::Zstd => None,
            Self::Other(name) => Some(format!("it is compressed with {name}, which agents do not read")),
            Self::Utf16 => Some(
                "it is UTF-16, which agents do not read: convert it with `iconv -f UTF-16 -t UTF-8`".into(),
            ),
        }
    }

    fn of(magic: &[u8]) -> Self {
        match magic {
            [0x1f, 0x8b, 8, ..] => Self::Gzip,
            [0x28, 0xb5, 0x2f, 0xfd, ..] => Self::Zstd,
            [b'B', b'Z', b'h', b'1'..=b'9', 0x31, 0x41, ..] => Self::Other("bzip2"),
            [0xfd, b'7', b'z', b'X', b'Z', 0, ..] => Self::Other("xz"),
            [0xff, 0xfe, ..] | [0xfe, 0xff, ..] => Self::Utf16,
            _ => Self::Plain,
        }
    }
}

/// How a read ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// There is more.
    More,
    /// At the end of the file, which may grow.
    Here,
    /// In the midst of compressed data: the file is still being written.
    Midst,
    /// At compressed data that is none.
    Broken(String),
}

/// An open file.
pub(crate) struct Content {
    file: File,
    codec: Codec,
    decoder: Option<Decoder>,
}

/// Compressed files are read from the beginning on.
struct Decoder {
    reader: Box<dyn Read + Send>,
    /// Behind what was decoded.
    at: u64,
    /// The last that was decoded: the end of it may be asked for again.
    last: Vec<u8>,
}

impl Content {
    /// Opens a regular file.
    pub(crate) fn open(path: &Path, links: &Links) -> io::Result<(Self, Metadata)> {
        let file = links.open(path)?;
        let metadata = file.metadata()?;
        if !metadata.is_file() {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "not a regular file"));
        }
        let mut magic = [0; 6];
        let mut length = 0;
        while let Ok(read @ 1..) = file.read_at(&mut magic[length..], length as u64) {
            length += read;
        }
        let content = Self {
            codec: Codec::of(&magic[..length]),
            file,
            decoder: None,
        };
        Ok((content, metadata))
    }

    pub(crate) fn codec(&self) -> Codec {
        self.codec
    }

    pub(crate) fn metadata(&self) -> io::Result<Metadata> {
        self.file.metadata()
    }

    /// Forgets what was decoded: the file has changed.
    pub(crate) fn restart(&mut self) {
        self.decoder = None;
    }

    /// Fills `buffer` with at most `most` bytes from `offset` on; fewer only at an [`End`].
    pub(crate) fn read_at(&mut self, offset: u64, most: usize, buffer: &mut Vec<u8>) -> io::Result<End> {
        buffer.clear();
        match self.codec {
            Codec::Plain => self.read_plain(offset, most, buffer),
            Codec::Gzip | Codec::Zstd => self.read_decoded(offset, most, buffer),
            Codec::Other(_) | Codec::Utf16 => Err(io::Error::other(self.codec.unread().unwrap_or_default())),
        }
    }

    fn read_plain(&self, offset: u64, most: usize, buffer: &mut Vec<u8>) -> io::Result<End> {
        buffer.resize(most, 0);
        let mut length = 0;
        while length < most {
            match self.file.read_at(&mut buffer[length..], offset + length as u64) {
                Ok(0) => break,
                Ok(read) => length += read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        buffer.truncate(length);
        Ok(if length < most { End::Here } else { End::More })
    }

    fn read_decoded(&mut self, offset: u64, most: usize, buffer: &mut Vec<u8>) -> io::Result<End> {
        let reached = |decoder: &Decoder| decoder.at - decoder.last.len() as u64 <= offset;
        if !self.decoder.as_ref().is_some_and(reached) {
            self.decoder = Some(self.decoder()?);
        }
        let Some(decoder) = &mut self.decoder else {
            return Ok(End::Midst);
        };
        let end = decoder.read_at(offset, most, buffer);
        Ok(end)
    }

    fn decoder(&self) -> io::Result<Decoder> {
        let mut file = self.file.try_clone()?;
        file.seek(SeekFrom::Start(0))?;
        let reader: Box<dyn Read + Send> = match self.codec {
            Codec::Zstd => Box::new(zstd::stream::read::Decoder::new(file)?),
            _ => Box::new(flate2::read::MultiGzDecoder::new(BufReader::new(file))),
        };
        Ok(Decoder {
            reader,
            at: 0,
            last: Vec::new(),
        })
    }
}

impl Decoder {
    fn read_at(&mut self, offset: u64, most: usize, buffer: &mut Vec<u8>) -> End {
        let first = self.at - self.last.len() as u64;
        let mut end = End::More;
        if offset <= self.at {
            let skipped = usize::try_from(offset.saturating_sub(first)).unwrap_or(usize::MAX);
            let kept = self.last.get(skipped..).unwrap_or_default();
            buffer.extend_from_slice(&kept[..kept.len().min(most)]);
            if kept.len() > most {
                return End::More;
            }
        } else {
            while self.at < offset && end == End::More {
                let step = (offset - self.at).min(256 << 10);
                end = self.decode(step as usize, buffer);
                buffer.clear();
            }
        }
        if end == End::More && buffer.len() < most {
            end = self.decode(most - buffer.len(), buffer);
        }
        self.last.clone_from(buffer);
        end
    }

    /// Appends `most` bytes to `buffer`, or fewer at an end.
    fn decode(&mut self, most: usize, buffer: &mut Vec<u8>) -> End {
        let begin = buffer.len();
        buffer.resize(begin + most, 0);
        let mut length = begin;
        let end = loop {
            if length == buffer.len() {
                break End::More;
            }
            match self.reader.read(&mut buffer[length..]) {
                Ok(0) => break End::Here,
                Ok(read) => length += read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => break End::Midst,
                Err(error) => break End::Broken(error.to_string()),
            }
        };
        buffer.truncate(length);
        self.at += (length - begin) as u64;
        end
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    fn gzip(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }

    #[test]
    fn any_offset_reads_the_same_in_all_codecs() {
        let dir = tempfile::tempdir().unwrap();
        let text: Vec<u8> = (0..2000)
            .flat_map(|i| format!("line {i}\n").into_bytes())
            .collect();
        let files = [
            ("plain", text.clone(), Codec::Plain),
            ("gzip", gzip(&text), Codec::Gzip),
            ("zstd", zstd::encode_all(&text[..], 1).unwrap(), Codec::Zstd),
        ];
        for (name, bytes, codec) in files {
            let path = dir.path().join(name);
            std::fs::write(&path, bytes).unwrap();
            let (mut content, _) = Content::open(&path, &Links::default()).unwrap();
            assert_eq!(content.codec(), codec);
            let mut buffer = Vec::new();
            for (offset, most) in [
                (0, 10),
                (5, 5),
                (10, 100),
                (60, 300),
                (5000, 70),
                (20, 1),
                (21, 9000),
            ] {
                content.read_at(offset, most, &mut buffer).unwrap();
                let offset = offset as usize;
                assert_eq!(buffer, text[offset..offset + most], "{name} {offset}");
            }
            let near = text.len() as u64 - 3;
            assert_eq!(content.read_at(near, 10, &mut buffer).unwrap(), End::Here);
            assert_eq!(buffer, &text[text.len() - 3..]);
            assert_eq!(content.read_at(near + 3, 10, &mut buffer).unwrap(), End::Here);
            assert!(buffer.is_empty());
        }
    }

    #[test]
    fn half_a_gzip_file_is_read_as_far_as_it_goes() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("half.gz");
        let text: Vec<u8> = (0..20_000)
            .flat_map(|i| format!("{}\n", i * 7919).into_bytes())
            .collect();
        let packed = gzip(&text);
        std::fs::write(&path, &packed[..packed.len() / 2]).unwrap();
        let (mut content, _) = Content::open(&path, &Links::default()).unwrap();
        let mut buffer = Vec::new();
        assert_eq!(content.read_at(0, text.len(), &mut buffer).unwrap(), End::Midst);
        assert!(!buffer.is_empty() && text.starts_with(&buffer));
    }
}
