//! Removing what a node keeps and no dataset names any more.
//!
//! Promise: nothing is removed unless MongoDB was the same mill before and after it was asked, and what is removed lies in
//! `trash/DATE/` of the directory for a week: it is put back when it is named again, as after a restore.

use std::{
    collections::HashSet,
    fs, io,
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use bson::doc;
use model::{
    Name,
    place::{BlockKey, NodeUrl},
};

use crate::{
    Error, LocalStore, Store,
    local::{PARTIAL, blocking},
    rows::Query,
    schema::BLOCKS,
};

/// Blocks that were put within this time are not swept: they may be about to be registered.
const YOUNG: Duration = Duration::from_secs(3600);
/// How long what was swept lies in the trash.
const TRASH_KEPT: Duration = Duration::from_secs(7 * 24 * 3600);
/// The folder of what was swept, below the directory of a node.
const TRASH: &str = "trash";

impl Store {
    /// Moves what this node keeps and no dataset names any more into its trash, and empties that of what lies there for a
    /// week; gives how many blocks were moved. Costs a look through all blocks where it keeps any. Does nothing where the clock
    /// of this machine is too far from MongoDB's.
    ///
    /// # Errors
    /// [`Error::Mongo`], [`Error::Io`]; [`Error::Decode`] also where the database is another than at the start.
    pub async fn sweep_local(&self) -> Result<u64, Error> {
        let mill = self.mill().await?.to_string();
        let Some(own) = self.local().cloned().filter(|own| own.has_any(&mill)) else {
            return Ok(0);
        };
        let clock = self.clock().await?;
        if clock.is_apart() {
            tracing::warn!(
                ahead_ms = clock.ahead_ms,
                "this machine's clock is not MongoDB's: blocks that no dataset names are not swept; keep both in step with NTP"
            );
            return Ok(0);
        }
        let before = SystemTime::now() - YOUNG;
        self.check_mill(&mill).await?;
        let named = self.named_here(own.node()).await?;
        self.check_mill(&mill).await?;
        blocking(move || {
            let swept = own.sweep(&mill, before, |key| named.contains(&digest(key)));
            swept.map_err(|source| Error::Io {
                doing: "can't sweep",
                path: own.node().as_str().into(),
                source,
            })
        })
        .await
    }

    /// Whether MongoDB still is what it was at the start: one that is empty or another names none of our blocks.
    async fn check_mill(&self, mill: &str) -> Result<(), Error> {
        let found = self.mill_now().await?;
        if found.as_deref() == Some(mill) {
            return Ok(());
        }
        let found = found.as_deref().unwrap_or("none");
        Err(Error::Decode {
            what: "meta".into(),
            why: format!(
                "the identity of the database was {mill}, it is {found}: start the roles anew once the right one is back"
            ),
        })
    }

    /// Digests of the keys that datasets name as kept by a node: of millions it would be too much to remember more.
    async fn named_here(&self, node: &Name) -> Result<HashSet<[u8; 16]>, Error> {
        let name = node.as_str().replace('.', "\\.");
        let pattern = doc! { "$regex": format!("^node://([^/]*,)?{name}[,/]") };
        let filter = doc! { "blocks.content.object.url": pattern };
        let query = Query::new(BLOCKS, "looking which blocks a node keeps", filter);
        let mut pages = self.find(query.fields(&["blocks.content.object.url"])).await?;
        let mut named = HashSet::new();
        while let Some(page) = pages.next().await? {
            urls_of(page, |url| {
                if let Some(url) = NodeUrl::parse(url) {
                    named.insert(digest(&url.key));
                }
            });
        }
        Ok(named)
    }
}

fn digest(key: &BlockKey) -> [u8; 16] {
    let hash = blake3::hash(key.as_str().as_bytes());
    let mut digest = [0; 16];
    digest.copy_from_slice(&hash.as_bytes()[..16]);
    digest
}

/// Gives the URLs in a page of blocks.
fn urls_of(page: &bson::RawDocument, mut take: impl FnMut(&str)) {
    let blocks = page.get_array("blocks").into_iter().flatten().flatten();
    for block in blocks {
        let url = || {
            let content = block.as_document()?.get_document("content").ok()?;
            content.get_document("object").ok()?.get_str("url").ok()
        };
        if let Some(url) = url() {
            take(url);
        }
    }
}

impl LocalStore {
    /// Whether there is anything of a database.
    pub(crate) fn has_any(&self, mill: &str) -> bool {
        self.folder().join(BlockKey::folder(mill)).is_dir()
    }

    /// Moves what was last put before `before` and `is_named` does not know into the trash, of one database; gives how many
    /// blocks that were. Puts back what it knows, and removes what has lain there for long.
    pub(crate) fn sweep(
        &self,
        mill: &str,
        before: SystemTime,
        is_named: impl Fn(&BlockKey) -> bool,
    ) -> io::Result<u64> {
        let now = SystemTime::now();
        self.look_through_trash(mill, &day(now - TRASH_KEPT), &is_named)?;
        let trash = self.folder().join(TRASH).join(day(now));
        let mut swept = 0;
        each_file(self.folder().join(BlockKey::folder(mill)), |path| {
            let key = key_below(self.folder(), &path);
            let is_partial = path
                .file_name()
                .is_some_and(|name| name.to_string_lossy().starts_with(PARTIAL));
            match key {
                Some(key) if !is_named(&key) => {
                    let to = trash.join(key.as_str());
                    swept += u64::from(self.take_away(&path, before, Some(&to))?);
                }
                None if is_partial => drop(self.take_away(&path, before, None)?),
                _ => {}
            }
            Ok(())
        })?;
        Ok(swept)
    }

    /// Moves a file that is old away, or removes it.
    fn take_away(&self, path: &Path, before: SystemTime, to: Option<&Path>) -> io::Result<bool> {
        let _now = self.sweeping();
        let taken = fs::metadata(path).and_then(|metadata| {
            let is_old = metadata.modified()? < before;
            match to {
                Some(to) if is_old => {
                    self.make_folder(to.parent().unwrap_or(to))?;
                    fs::rename(path, to)?;
                }
                None if is_old => fs::remove_file(path)?,
                _ => {}
            }
            Ok(is_old)
        });
        match taken {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            taken => taken,
        }
    }

    /// Puts back what is named, then removes what was swept before the day `since`.
    fn look_through_trash(
        &self,
        mill: &str,
        since: &str,
        is_named: impl Fn(&BlockKey) -> bool,
    ) -> io::Result<()> {
        let days = match fs::read_dir(self.folder().join(TRASH)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            days => days?,
        };
        for entry in days {
            let entry = entry?;
            let (day, folder) = (entry.file_name(), entry.path());
            each_file(folder.join(BlockKey::folder(mill)), |path| {
                let key = key_below(&folder, &path).filter(|key| is_named(key));
                let Some(back) = key.map(|key| self.folder().join(key.as_str())) else {
                    return Ok(());
                };
                if let (Some(parent), false) = (back.parent(), back.exists()) {
                    self.make_folder(parent)?;
                    fs::rename(&path, &back)?;
                }
                Ok(())
            })?;
            // What is no date was put there by somebody else.
            let is_day = day.len() == since.len() && day.to_string_lossy().starts_with("20");
            if is_day && day.to_string_lossy().as_ref() < since {
                remove_all(&folder.join(BlockKey::folder(mill)))?;
                // Others than this mill may have something there; empty ones go.
                let _ = fs::remove_dir(folder.join("blocks")).and_then(|()| fs::remove_dir(&folder));
            }
        }
        Ok(())
    }
}

fn remove_all(folder: &Path) -> io::Result<()> {
    match fs::remove_dir_all(folder) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

fn key_below(folder: &Path, path: &Path) -> Option<BlockKey> {
    path.strip_prefix(folder).ok()?.to_str()?.parse().ok()
}

/// The day of a time in UTC, as in `2026-03-01`.
fn day(at: SystemTime) -> String {
    let mut text = bson::DateTime::from_system_time(at)
        .try_to_rfc3339_string()
        .unwrap_or_default();
    text.truncate(10);
    text
}

/// Gives the files below a folder, none where it is not there.
fn each_file(folder: PathBuf, mut take: impl FnMut(PathBuf) -> io::Result<()>) -> io::Result<()> {
    let mut folders = vec![folder];
    while let Some(folder) = folders.pop() {
        let entries = match fs::read_dir(&folder) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            entries => entries?,
        };
        for entry in entries {
            let entry = entry?;
            if entry.file_type()?.is_dir() {
                folders.push(entry.path());
            } else {
                take(entry.path())?;
            }
        }
    }
    Ok(())
}
