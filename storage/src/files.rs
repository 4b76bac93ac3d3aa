//! Local files: their URLs, what they must be, and whether they are still what they were.

use std::{
    fs::{File, Metadata},
    io,
    ops::Range,
    os::unix::fs::{FileExt as _, FileTypeExt, MetadataExt as _},
    path::{Path, PathBuf},
    time::UNIX_EPOCH,
};

use model::{Ends, Mark};
use url::Url;

use crate::Error;

/// The absolute URL of a file, whatever its name: odd characters, also those that are no UTF-8, are percent-encoded.
pub(crate) fn url_of(absolute: &Path) -> Result<String, Error> {
    let url = Url::from_file_path(absolute);
    url.map(String::from).map_err(|()| Error::BadUrl {
        url: absolute.display().to_string(),
        why: "the path is not absolute".into(),
    })
}

/// The path behind a `file://` URL; none for any other URL.
pub(crate) fn path_of(url: &str) -> Option<PathBuf> {
    if !url.starts_with("file:") {
        return None;
    }
    Url::parse(url).ok()?.to_file_path().ok()
}

/// The path behind a URL as people write it, or the URL where there is none.
pub fn shown(url: &str) -> String {
    path_of(url).map_or_else(|| url.to_string(), |path| path.display().to_string())
}

/// Size in bytes and modification time in milliseconds since 1970 UTC.
pub(crate) fn size_and_mtime(metadata: &Metadata) -> (u64, i64) {
    let mtime = metadata.modified().ok();
    let ms = mtime.map_or(0, |time| match time.duration_since(UNIX_EPOCH) {
        Ok(after) => i64::try_from(after.as_millis()).unwrap_or(i64::MAX),
        Err(before) => i64::try_from(before.duration().as_millis()).map_or(i64::MIN, |ms| -ms),
    });
    (metadata.len(), ms)
}

/// Bytes at each end of a range that its digest is of.
const END_BYTES: u64 = 4096;

/// What tells a file on this machine from another one of its name, size and time.
pub(crate) fn version(metadata: &Metadata) -> String {
    let mut hasher = blake3::Hasher::new();
    for number in [metadata.dev(), metadata.ino()] {
        hasher.update(&number.to_le_bytes());
    }
    let times = [
        metadata.ctime(),
        metadata.ctime_nsec(),
        metadata.mtime(),
        metadata.mtime_nsec(),
    ];
    for number in times {
        hasher.update(&number.to_le_bytes());
    }
    hasher.finalize().to_hex()[..16].to_string()
}

/// What stands at both ends of a range of a file.
pub(crate) fn ends(file: &File, range: Range<u64>) -> io::Result<Ends> {
    let Range { start, end } = range;
    let length = end.saturating_sub(start);
    let mut bytes = vec![0; usize::try_from(length.min(2 * END_BYTES)).unwrap_or(0)];
    if length > 2 * END_BYTES {
        let (first, last) = bytes.split_at_mut(END_BYTES as usize);
        file.read_exact_at(first, start)?;
        file.read_exact_at(last, end - END_BYTES)?;
    } else {
        file.read_exact_at(&mut bytes, start)?;
    }
    Ok(Ends {
        start,
        end,
        digest: blake3::hash(&bytes).to_hex()[..32].to_string(),
    })
}

/// Whether what a mark says of the contents of a file is true of this one.
pub(crate) fn fits(file: &File, mark: Option<&Mark>) -> io::Result<bool> {
    let Some(then) = mark.and_then(|mark| mark.ends.as_ref()) else {
        return Ok(true);
    };
    match ends(file, then.start..then.end) {
        Ok(now) => Ok(now == *then),
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(false),
        Err(error) => Err(error),
    }
}

/// Opens a regular file; `path` as the user gave it for errors.
///
/// # Errors
/// [`Error::NotAFile`] for a directory, pipe, socket or device, [`Error::Io`].
pub(crate) fn open(path: &Path) -> Result<(File, Metadata), Error> {
    let failed = |source: io::Error| Error::Io {
        doing: "can't read",
        path: path.into(),
        source,
    };
    // Looked at before it is opened: opening a pipe waits for its writer, and a device may do anything.
    check_kind(path, &std::fs::metadata(path).map_err(failed)?)?;
    let file = File::open(path).map_err(failed)?;
    let metadata = file.metadata().map_err(failed)?;
    check_kind(path, &metadata)?;
    Ok((file, metadata))
}

fn check_kind(path: &Path, metadata: &Metadata) -> Result<(), Error> {
    let kind = metadata.file_type();
    let what = if kind.is_file() {
        return Ok(());
    } else if kind.is_dir() {
        "a directory"
    } else if kind.is_fifo() {
        "a pipe"
    } else if kind.is_socket() {
        "a socket"
    } else {
        "a device"
    };
    Err(Error::NotAFile {
        path: path.display().to_string(),
        what,
    })
}

/// Whether the first `end` bytes of a file are still those that a block was cut from.
///
/// Logs are appended to: a file that is longer than it was is taken for the same with more lines behind, whatever its
/// time. One that is shorter, or as long with another time, was written anew. Whether a longer one is the same is told by
/// [`fits`].
///
/// # Errors
/// [`Error::Changed`].
pub(crate) fn check_unchanged(url: &str, was: (u64, i64), is: (u64, i64), end: u64) -> Result<(), Error> {
    let same = is == was || is.0 > was.0;
    if same && is.0 >= end {
        Ok(())
    } else {
        Err(changed(url, was, is))
    }
}

/// The error that tells what it was and is.
pub(crate) fn changed(url: &str, was: (u64, i64), is: (u64, i64)) -> Error {
    let with = if was == is { ", with other bytes in it" } else { "" };
    Error::Changed {
        url: url.to_string(),
        was: described(was),
        is: described(is) + with,
    }
}

fn described((size, mtime_ms): (u64, i64)) -> String {
    let time = bson::DateTime::from_millis(mtime_ms).try_to_rfc3339_string();
    format!(
        "{size} bytes of {}",
        time.unwrap_or_else(|_| format!("{mtime_ms} ms"))
    )
}

#[cfg(test)]
mod tests {
    use std::{ffi::OsStr, os::unix::ffi::OsStrExt};

    use super::*;

    #[test]
    fn any_name_survives_as_a_url() {
        for name in ["/a b/c%20d#e?f", "/logs/ä.log", "/x;y=[z]"] {
            let url = url_of(Path::new(name)).unwrap();
            assert!(
                url.starts_with("file:///") && url.is_ascii() && !url.contains(['#', '?', ' ']),
                "{url}"
            );
            assert_eq!(path_of(&url), Some(PathBuf::from(name)));
        }
        let latin = Path::new(OsStr::from_bytes(b"/logs/\xe4.log"));
        assert_eq!(path_of(&url_of(latin).unwrap()).as_deref(), Some(latin));
        assert!(url_of(Path::new("relative")).is_err());
        assert_eq!(path_of("s3://bucket/key"), None);
    }

    #[test]
    fn only_growth_is_no_change() {
        let check = |is, end| check_unchanged("file:///a", (100, 5), is, end).is_ok();
        assert!(check((100, 5), 100), "untouched");
        assert!(check((101, 9), 100), "appended to");
        assert!(check((101, 5), 100), "appended to within the clock's tick");
        assert!(!check((100, 6), 50), "written anew at the same length");
        assert!(!check((99, 5), 50), "cut off, even behind the block");
        assert!(!check((120, 9), 130), "shorter than the block");
        let error = check_unchanged("file:///a", (100, 5), (99, 1_700_000_000_000), 100)
            .unwrap_err()
            .to_string();
        assert!(
            error.contains("100 bytes") && error.contains("99 bytes of 2023-11-14T22:13:20Z"),
            "{error}"
        );
    }
}
