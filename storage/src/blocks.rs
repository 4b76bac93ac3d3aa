//! Reading the bytes of a block.

use std::{
    fs::File,
    io::{self, Cursor, Read, Seek, SeekFrom},
};

use model::{Block, Codec, Content, place::NodeUrl};

use crate::{Error, Store, codec, copies::Original, files, objects};

/// The lines of a block, to be read off the async runtime.
///
/// A caller that can hand on a file descriptor may take [`BlockReader::File`] apart and copy exactly `remaining` bytes
/// from where `file` stands; fewer mean that the file was cut off meanwhile.
pub enum BlockReader {
    /// Raw lines in a file.
    File {
        /// Stands at the first byte of the block.
        file: File,
        /// Bytes up to the end of the block.
        remaining: u64,
    },
    /// Lines that are decompressed on the way.
    Stream(Box<dyn Read + Send>),
    /// Lines in memory.
    Bytes(Cursor<Vec<u8>>),
}

impl BlockReader {
    /// Over bytes in memory.
    pub fn bytes(bytes: impl Into<Vec<u8>>) -> Self {
        Self::Bytes(Cursor::new(bytes.into()))
    }
}

impl Read for BlockReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::File { file, remaining } => {
                let room = buffer
                    .len()
                    .min(usize::try_from(*remaining).unwrap_or(usize::MAX));
                let read = file.read(&mut buffer[..room])?;
                *remaining -= read as u64;
                if read == 0 && room > 0 {
                    let text =
                        format!("the file was cut off while it was read: {remaining} bytes are missing");
                    return Err(io::Error::new(io::ErrorKind::UnexpectedEof, text));
                }
                Ok(read)
            }
            Self::Stream(stream) => stream.read(buffer),
            Self::Bytes(bytes) => bytes.read(buffer),
        }
    }
}

impl std::fmt::Debug for BlockReader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::File { remaining, .. } => write!(f, "File({remaining} bytes)"),
            Self::Stream(_) => f.write_str("Stream"),
            Self::Bytes(bytes) => write!(f, "Bytes({})", bytes.get_ref().len()),
        }
    }
}

impl Store {
    /// Opens a block for reading, decompressed where it is compressed. What is not on a local disk is first copied to a
    /// temporary file that vanishes with the reader.
    ///
    /// A file that has only grown since it was split keeps its blocks; one that is shorter, or as long with another
    /// modification time, or in which other bytes stand at the ends of the block, has changed. An object elsewhere has
    /// changed with its size, its time or its ETag.
    ///
    /// # Errors
    /// [`Error::Changed`], [`Error::NotAFile`], [`Error::Io`], [`Error::Object`], [`Error::BadUrl`]; [`Error::NoHost`] for a
    /// block that nodes keep, when none of them gives it.
    pub async fn reader(&self, block: &Block) -> Result<BlockReader, Error> {
        let Content::Object {
            url,
            start,
            end,
            codec,
            size,
            mtime_ms,
            mark,
        } = &block.content
        else {
            return open_local(block);
        };
        if files::path_of(url).is_some() {
            let block = block.clone();
            let opened = tokio::task::spawn_blocking(move || open_local(&block)).await;
            return opened.map_err(|error| Error::BadUrl {
                url: url.clone(),
                why: error.to_string(),
            })?;
        }
        if NodeUrl::is_one(url) {
            return self.kept_reader(block).await;
        }
        let (store, key) = objects::remote(url)?;
        let (was, is) = ((*size, *mtime_ms), objects::head(&*store, &key, url).await?);
        if !is.is(was, mark.as_ref()) {
            return Err(files::changed(url, was, is.size_and_mtime));
        }
        let stored = match self.copies() {
            Some(copies) => {
                let original = Original {
                    url,
                    range: *start..*end,
                    size: *size,
                    mtime_ms: *mtime_ms,
                    version: mark.as_ref().map(|mark| mark.version.as_str()),
                };
                copies.fetch(&*store, &key, original).await?
            }
            None => objects::fetch(&*store, &key, *start..*end, url).await?,
        };
        decoded(*codec, stored, url)
    }
}

fn open_local(block: &Block) -> Result<BlockReader, Error> {
    let (url, start, end, codec, was, mark) = match &block.content {
        Content::Inline(payload) => return Ok(BlockReader::bytes(payload.0.clone())),
        Content::Object {
            url,
            start,
            end,
            codec,
            size,
            mtime_ms,
            mark,
        } => (url, *start, *end, *codec, (*size, *mtime_ms), mark.as_ref()),
    };
    let bad = || Error::BadUrl {
        url: url.clone(),
        why: "it is no path of this machine".into(),
    };
    let path = files::path_of(url).ok_or_else(bad)?;
    let (mut file, metadata) = files::open(&path)?;
    let is = files::size_and_mtime(&metadata);
    files::check_unchanged(url, was, is, end)?;
    let failed = |source| Error::Io {
        doing: "can't read",
        path: path.clone(),
        source,
    };
    if !files::fits(&file, mark).map_err(failed)? {
        return Err(files::changed(url, was, is));
    }
    file.seek(SeekFrom::Start(start)).map_err(failed)?;
    decoded(
        codec,
        BlockReader::File {
            file,
            remaining: end.saturating_sub(start),
        },
        url,
    )
}

pub(crate) fn decoded(codec: Codec, stored: BlockReader, url: &str) -> Result<BlockReader, Error> {
    if codec == Codec::None {
        return Ok(stored);
    }
    let failed = |source| Error::Io {
        doing: "can't decompress",
        path: url.into(),
        source,
    };
    Ok(BlockReader::Stream(
        codec::decoder(codec, stored).map_err(failed)?,
    ))
}
