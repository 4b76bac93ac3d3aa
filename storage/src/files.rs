//! Local files: their URLs, what they must be, and whether they are still what they were.

use std::{
    fs::{File, Metadata},
    io,
    os::unix::fs::FileTypeExt,
    path::{Path, PathBuf},
    time::UNIX_EPOCH,
};

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

/// Size in bytes and modification time in milliseconds since 1970 UTC.
pub(crate) fn size_and_mtime(metadata: &Metadata) -> (u64, i64) {
    let mtime = metadata.modified().ok();
    let ms = mtime.map_or(0, |time| match time.duration_since(UNIX_EPOCH) {
        Ok(after) => i64::try_from(after.as_millis()).unwrap_or(i64::MAX),
        Err(before) => i64::try_from(before.duration().as_millis()).map_or(i64::MIN, |ms| -ms),
    });
    (metadata.len(), ms)
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
/// time. One that is shorter, or as long with another time, was written anew. So a file that was replaced by a longer
/// one is not noticed: a rotated log should be added under its new name.
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
    Error::Changed {
        url: url.to_string(),
        was: described(was),
        is: described(is),
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
