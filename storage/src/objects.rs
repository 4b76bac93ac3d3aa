//! Objects that are no local files, and the block store for outputs too large for a document.

use std::{
    collections::HashMap,
    fs::File,
    io::{Seek, SeekFrom, Write},
    ops::Range,
    path::Path,
    sync::{Arc, LazyLock, Mutex},
};

use futures::TryStreamExt;
use model::Mark;
use object_store::{
    GetOptions, GetResult, GetResultPayload, ObjectStore, ObjectStoreExt, local::LocalFileSystem,
    memory::InMemory, path::Path as Key,
};
use url::Url;

use crate::{BlockReader, Error, files};

/// Where spilled outputs go.
pub(crate) struct Root {
    /// As configured, without a slash at the end.
    url: String,
    store: Arc<dyn ObjectStore>,
    prefix: Key,
}

impl Root {
    /// Opens it; makes the folder of a local one.
    pub(crate) async fn open(text: &str) -> Result<Self, Error> {
        let url = text.trim_end_matches('/').to_string();
        if let Some(folder) = files::path_of(text) {
            let made = folder.clone();
            let store = tokio::task::spawn_blocking(move || local(&made));
            let store = store.await.map_err(|error| bad_url(text, error))??;
            return Ok(Self {
                url,
                store: Arc::new(store),
                prefix: Key::default(),
            });
        }
        let (store, prefix) = remote(text)?;
        Ok(Self { url, store, prefix })
    }

    pub(crate) fn store(&self) -> &Arc<dyn ObjectStore> {
        &self.store
    }

    /// Key of an object that documents name.
    pub(crate) fn key(&self, object: &str) -> Key {
        self.prefix.parts().chain(Key::from(object).parts()).collect()
    }

    /// How documents name the object with this key; none outside of the root.
    pub(crate) fn object(&self, key: &Key) -> Option<String> {
        let parts: Vec<_> = key.prefix_match(&self.prefix)?.collect();
        Some(parts.into_iter().collect::<Key>().to_string())
    }

    /// The URL of an object, for errors.
    pub(crate) fn url(&self, object: &str) -> String {
        format!("{}/{object}", self.url)
    }
}

fn local(folder: &Path) -> Result<LocalFileSystem, Error> {
    let failed = |source| Error::Io {
        doing: "can't use the block store",
        path: folder.into(),
        source,
    };
    folders::own(folder).map_err(failed)?;
    let store = LocalFileSystem::new_with_prefix(folder);
    // Synced: a document must never name what a power failure takes away.
    Ok(store
        .map_err(|error| bad_url(&folder.display().to_string(), error))?
        .with_fsync(true))
}

fn bad_url(url: &str, why: impl ToString) -> Error {
    Error::BadUrl {
        url: url.to_string(),
        why: why.to_string(),
    }
}

/// Stores by scheme and host, so that their connections are shared.
static REMOTES: LazyLock<Mutex<HashMap<String, Arc<dyn ObjectStore>>>> = LazyLock::new(Mutex::default);

/// The store and the key behind a URL that is no file. Credentials come from the environment (`AWS_…`, `GOOGLE_…`,
/// `AZURE_…`); `memory:` is one store per process, for tests.
pub(crate) fn remote(text: &str) -> Result<(Arc<dyn ObjectStore>, Key), Error> {
    let url = Url::parse(text).map_err(|error| bad_url(text, error))?;
    let mut stores = REMOTES.lock().expect("nothing panics while it holds this lock");
    if url.scheme() == "memory" {
        let key = Key::from_url_path(url.path()).map_err(|error| bad_url(text, error))?;
        let store = stores
            .entry("memory".into())
            .or_insert_with(|| Arc::new(InMemory::new()));
        return Ok((Arc::clone(store), key));
    }
    let explained = |error: object_store::Error| {
        let hint = if cfg!(feature = "cloud") {
            ""
        } else {
            " (this build of Sawmill reads local files only)"
        };
        bad_url(text, format!("{error}{hint}"))
    };
    // Who writes http:// means it.
    let is_plain = (url.scheme() == "http").then(|| ("allow_http".to_string(), "true".to_string()));
    let options = std::env::vars().chain(is_plain);
    let (store, key) = object_store::parse_url_opts(&url, options).map_err(explained)?;
    let origin = format!(
        "{}://{}:{}",
        url.scheme(),
        url.host_str().unwrap_or_default(),
        url.port().unwrap_or(0)
    );
    let store = stores.entry(origin).or_insert_with(|| Arc::from(store));
    Ok((Arc::clone(store), key))
}

/// What an object is.
#[derive(Debug)]
pub(crate) struct Head {
    /// Size in bytes and modification time in milliseconds since 1970 UTC.
    pub(crate) size_and_mtime: (u64, i64),
    /// Its ETag, or its version.
    pub(crate) mark: Option<Mark>,
}

impl Head {
    /// Whether it is still what blocks of it say.
    pub(crate) fn is(&self, size_and_mtime: (u64, i64), mark: Option<&Mark>) -> bool {
        let is_same = match (&self.mark, mark) {
            (Some(now), Some(then)) => now.version == then.version,
            _ => true,
        };
        self.size_and_mtime == size_and_mtime && is_same
    }
}

pub(crate) async fn head(store: &dyn ObjectStore, key: &Key, url: &str) -> Result<Head, Error> {
    let meta = store.head(key).await.map_err(|source| unreadable(url, source))?;
    // A weak one may differ although the bytes do not.
    let etag = meta.e_tag.filter(|etag| !etag.starts_with("W/"));
    Ok(Head {
        size_and_mtime: (meta.size, meta.last_modified.timestamp_millis()),
        mark: etag.or(meta.version).map(|version| Mark { version, ends: None }),
    })
}

/// Whether a server sends all of an object or nothing.
pub(crate) fn knows_no_ranges(error: &object_store::Error) -> bool {
    matches!(error, object_store::Error::NotSupported { .. })
}

pub(crate) fn unreadable(url: &str, source: object_store::Error) -> Error {
    Error::Object {
        doing: "can't read",
        url: url.to_string(),
        source: Box::new(source),
    }
}

/// Gets a range of an object as a local file to read: the file itself where it is local, else a temporary copy that
/// vanishes with the reader.
pub(crate) async fn fetch(
    store: &dyn ObjectStore,
    key: &Key,
    range: Range<u64>,
    url: &str,
) -> Result<BlockReader, Error> {
    fetch_into(store, key, range, url, tempfile::tempfile).await
}

/// The same, with the copy in the file that `new_file` makes.
pub(crate) async fn fetch_into(
    store: &dyn ObjectStore,
    key: &Key,
    range: Range<u64>,
    url: &str,
    new_file: impl FnOnce() -> std::io::Result<File>,
) -> Result<BlockReader, Error> {
    if range.is_empty() {
        return Ok(BlockReader::bytes(Vec::new()));
    }
    let remaining = range.end - range.start;
    let options = GetOptions::new().with_range(Some(range.clone()));
    let found = match store.get_opts(key, options).await {
        // It has to be sent up to where the range ends.
        Err(error) if knows_no_ranges(&error) => store.get(key).await,
        found => found,
    };
    let found = found.map_err(|source| unreadable(url, source))?;
    let mut skipped = range.start.saturating_sub(found.range.start);
    if found.range.start > range.start || found.range.end < range.end {
        return Err(Error::BadUrl {
            url: url.into(),
            why: "it is shorter than what is to be read of it".into(),
        });
    }
    let file = match found {
        GetResult {
            payload: GetResultPayload::File(mut file, path),
            ..
        } => {
            let failed = |source| Error::Io {
                doing: "can't read",
                path,
                source,
            };
            file.seek(SeekFrom::Start(range.start)).map_err(failed)?;
            file
        }
        GetResult {
            payload: GetResultPayload::Stream(mut stream),
            ..
        } => {
            let failed = |source| Error::Io {
                doing: "can't write a copy in",
                path: std::env::temp_dir(),
                source,
            };
            let mut file = new_file().map_err(failed)?;
            let mut missing = remaining;
            while missing > 0
                && let Some(mut bytes) = stream
                    .try_next()
                    .await
                    .map_err(|source| unreadable(url, source))?
            {
                let before = skipped.min(bytes.len() as u64);
                skipped -= before;
                let _ = bytes.split_to(usize::try_from(before).unwrap_or(usize::MAX));
                bytes.truncate(usize::try_from(missing).unwrap_or(usize::MAX));
                missing -= bytes.len() as u64;
                file.write_all(&bytes).map_err(failed)?;
            }
            file.seek(SeekFrom::Start(0)).map_err(failed)?;
            file
        }
    };
    Ok(BlockReader::File { file, remaining })
}
