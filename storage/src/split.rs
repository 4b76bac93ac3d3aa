//! Splitting files where they are into blocks that begin and end between lines.
//!
//! Nothing is copied, and of each block only the line across its nominal border is read. A line longer than a block
//! makes a longer block; a last line without newline is a line; carriage returns belong to their lines; an empty file
//! gives no blocks, and an unfinished last line is a line. A compressed file is one block: where the frames of a zstd file or the members of a gzip file end,
//! lines in general do not.

use std::{
    fs::File,
    io::{BufRead, BufReader, Read, Seek, SeekFrom},
    ops::Range,
    path::Path,
};

use model::{Block, Codec, Content, Mark};
use object_store::{ObjectStore, ObjectStoreExt, path::Path as Key};

use crate::{Error, Store, files, objects};

/// Bytes read at once while looking for the end of a line.
const SCAN_BYTES: usize = 16 * 1024;
/// The same for an object elsewhere, where each read is a request.
const REMOTE_SCAN_BYTES: u64 = 64 * 1024;
/// Longest magic number.
const MAGIC_BYTES: u64 = 6;

impl Store {
    /// Splits a file, or an object given by its URL, into blocks of about `block_size` bytes (at least 1), in order.
    /// Paths become absolute URLs with all symbolic links resolved.
    ///
    /// # Errors
    /// [`Error::NotAFile`] for a directory, pipe, socket or device, [`Error::Io`], [`Error::Object`],
    /// [`Error::BadUrl`]; each names what was given.
    pub async fn split(&self, place: &str, block_size: u64) -> Result<Vec<Block>, Error> {
        let block_size = block_size.max(1);
        let path = match files::path_of(place) {
            Some(path) => path,
            None if place.contains("://") => return split_remote(place, block_size).await,
            None => place.into(),
        };
        self.split_from(&path, 0, block_size).await
    }

    /// The URL under which the blocks of a file are, or of an object given by its URL.
    ///
    /// # Errors
    /// [`Error::Io`] for a file that is not there; [`Error::BadUrl`].
    pub fn url_of(&self, place: &str) -> Result<String, Error> {
        let path = match files::path_of(place) {
            Some(path) => path,
            None if place.contains("://") => return Ok(place.to_string()),
            None => place.into(),
        };
        let real = path.canonicalize().map_err(|source| Error::Io {
            doing: "can't read",
            path,
            source,
        })?;
        files::url_of(&real)
    }

    /// The URLs that blocks of a file may have that is perhaps not there any more.
    pub fn urls_of(&self, place: &str) -> Vec<String> {
        let path = files::path_of(place).unwrap_or_else(|| place.into());
        let in_folder = path.parent().and_then(|folder| folder.canonicalize().ok());
        let in_folder = in_folder
            .zip(path.file_name())
            .map(|(folder, name)| folder.join(name));
        let urls = [in_folder, Some(path)].into_iter().flatten();
        let urls = urls.filter_map(|path| files::url_of(&path).ok());
        self.url_of(place).into_iter().chain(urls).collect()
    }

    /// Splits what a file has from the byte `from` on, where a line begins, in the same way. A compressed file is split
    /// from its first byte.
    ///
    /// # Errors
    /// As [`Store::split`].
    pub(crate) async fn split_from(
        &self,
        path: &Path,
        from: u64,
        block_size: u64,
    ) -> Result<Vec<Block>, Error> {
        let (place, of) = (path.display().to_string(), path.to_path_buf());
        let split = tokio::task::spawn_blocking(move || split_file(&of, from, block_size)).await;
        split.map_err(|error| Error::BadUrl {
            url: place,
            why: error.to_string(),
        })?
    }
}

fn split_file(path: &Path, from: u64, block_size: u64) -> Result<Vec<Block>, Error> {
    let failed = |source| Error::Io {
        doing: "can't read",
        path: path.into(),
        source,
    };
    let (mut file, metadata) = files::open(path)?;
    let url = files::url_of(&path.canonicalize().map_err(failed)?)?;
    let (size, mtime_ms) = files::size_and_mtime(&metadata);
    let mut magic = Vec::new();
    file.by_ref()
        .take(MAGIC_BYTES)
        .read_to_end(&mut magic)
        .map_err(failed)?;
    let codec = Codec::detect(&magic);
    let mut file = BufReader::with_capacity(SCAN_BYTES, file);
    let ranges = match codec {
        Codec::None => line_ranges(&mut file, from..size, block_size).map_err(failed)?,
        _ => whole(size),
    };
    let version = files::version(&metadata);
    let marked = |range: Range<u64>| {
        let mark = Mark {
            version: version.clone(),
            ends: Some(files::ends(file.get_ref(), range.clone())?),
        };
        Ok(block(&url, range, codec, (size, mtime_ms), Some(mark)))
    };
    let blocks: std::io::Result<_> = ranges.into_iter().map(marked).collect();
    blocks.map_err(failed)
}

fn block(
    url: &str,
    range: Range<u64>,
    codec: Codec,
    (size, mtime_ms): (u64, i64),
    mark: Option<Mark>,
) -> Block {
    let (start, end) = (range.start, range.end);
    Block {
        content: Content::Object {
            url: url.into(),
            start,
            end,
            codec,
            size,
            mtime_ms,
            mark,
        },
        checksum: None,
        raw_bytes: None,
        made: None,
        registered_ms: None,
    }
}

#[expect(clippy::single_range_in_vec_init, reason = "a list of one range is meant")]
fn whole(size: u64) -> Vec<Range<u64>> {
    if size == 0 { Vec::new() } else { vec![0..size] }
}

/// Cuts at the first line that begins at or after each multiple of `block_size`.
fn line_ranges(
    file: &mut BufReader<File>,
    of: Range<u64>,
    block_size: u64,
) -> std::io::Result<Vec<Range<u64>>> {
    let mut ranges = Vec::new();
    let Range { mut start, end: size } = of;
    while start < size {
        let nominal = next_border(start, block_size);
        let end = if nominal >= size {
            size
        } else {
            // From the byte before: a line that begins just at the border is cut there.
            file.seek(SeekFrom::Start(nominal - 1))?;
            let skipped = file.skip_until(b'\n')? as u64;
            (nominal - 1 + skipped).min(size)
        };
        ranges.push(start..end);
        start = end;
    }
    Ok(ranges)
}

fn next_border(start: u64, block_size: u64) -> u64 {
    (start / block_size + 1).saturating_mul(block_size)
}

async fn split_remote(url: &str, block_size: u64) -> Result<Vec<Block>, Error> {
    let (store, key) = objects::remote(url)?;
    let head = objects::head(&*store, &key, url).await?;
    let (size, _) = head.size_and_mtime;
    if size == 0 {
        return Ok(Vec::new());
    }
    let magic = 0..MAGIC_BYTES.min(size);
    let (magic, is_cut) = match store.get_range(&key, magic.clone()).await {
        Ok(magic) => (magic.to_vec(), true),
        // Each block would be sent with all that is in front of it.
        Err(error) if objects::knows_no_ranges(&error) => {
            let mut read = Vec::new();
            let mut reader = objects::fetch(&*store, &key, magic, url).await?;
            let failed = |source| Error::Io {
                doing: "can't read",
                path: url.into(),
                source,
            };
            reader.read_to_end(&mut read).map_err(failed)?;
            (read, false)
        }
        Err(source) => return Err(objects::unreadable(url, source)),
    };
    let codec = Codec::detect(&magic);
    let ranges = if codec == Codec::None && is_cut {
        remote_ranges(&*store, &key, url, size, block_size).await?
    } else {
        whole(size)
    };
    Ok(ranges
        .into_iter()
        .map(|range| block(url, range, codec, head.size_and_mtime, head.mark.clone()))
        .collect())
}

async fn remote_ranges(
    store: &dyn ObjectStore,
    key: &Key,
    url: &str,
    size: u64,
    block_size: u64,
) -> Result<Vec<Range<u64>>, Error> {
    let mut ranges = Vec::new();
    let mut start = 0;
    while start < size {
        let nominal = next_border(start, block_size);
        let mut end = size;
        let mut from = nominal.saturating_sub(1);
        while nominal < size && from < size {
            let to = (from + REMOTE_SCAN_BYTES).min(size);
            let bytes = store
                .get_range(key, from..to)
                .await
                .map_err(|source| objects::unreadable(url, source))?;
            if let Some(newline) = bytes.iter().position(|&byte| byte == b'\n') {
                end = from + newline as u64 + 1;
                break;
            }
            from = to;
        }
        ranges.push(start..end);
        start = end;
    }
    Ok(ranges)
}
