//! Which files there are to follow: what the patterns match, each file once.
//!
//! Promise: what is no regular file, or can't be looked at, is named once as a warning and left alone.

use std::{
    collections::{HashMap, HashSet, hash_map::Entry},
    fs::{self, Metadata},
    os::unix::fs::FileTypeExt as _,
    path::{Path, PathBuf},
};

use model::Name;
use tracing::warn;

use crate::{
    config::Source,
    content::{Codec, Content, Key},
};

/// The patterns of an agent.
pub(crate) struct Paths {
    sources: Vec<Source>,
    told: HashMap<PathBuf, String>,
}

/// A file that matches.
#[derive(Debug)]
pub(crate) struct Found {
    pub(crate) path: PathBuf,
    pub(crate) dataset: Name,
    pub(crate) key: Key,
    pub(crate) metadata: Metadata,
}

impl Paths {
    /// Relative ones are taken from the directory of this process.
    pub(crate) fn new(mut sources: Vec<Source>) -> Self {
        for pattern in sources.iter_mut().flat_map(|source| &mut source.patterns) {
            if let Ok(path) = std::path::absolute(&*pattern) {
                *pattern = path.to_string_lossy().into_owned();
            }
        }
        Self {
            sources,
            told: HashMap::new(),
        }
    }

    /// All files that match now, a file of several names by the first of them, in the order of patterns and names.
    pub(crate) fn find(&mut self) -> Vec<Found> {
        let mut seen: HashMap<Key, Name> = HashMap::new();
        let mut all = Vec::new();
        for source in self.sources.clone() {
            let paths: Vec<PathBuf> = source
                .patterns
                .iter()
                .flat_map(|pattern| self.expand(pattern))
                .collect();
            for path in paths {
                let Some(found) = self.look(path, &source.dataset) else {
                    continue;
                };
                match seen.get(&found.key) {
                    None => {
                        seen.insert(found.key, source.dataset.clone());
                        all.push(found);
                    }
                    Some(first) if *first != source.dataset => {
                        let why = format!(
                            "it is shipped to dataset {first}, and not to {} too",
                            source.dataset
                        );
                        self.tell(&found.path, &why);
                    }
                    Some(_) => {}
                }
            }
        }
        all
    }

    fn expand(&mut self, pattern: &str) -> Vec<PathBuf> {
        // A path is a file even where its name looks like a pattern.
        let path = Path::new(pattern);
        if fs::symlink_metadata(path).is_ok() || !pattern.contains(['*', '?', '[']) {
            return vec![path.to_path_buf()];
        }
        let options = glob::MatchOptions {
            require_literal_separator: true,
            ..glob::MatchOptions::new()
        };
        let Ok(matches) = glob::glob_with(pattern, options) else {
            return Vec::new();
        };
        let mut paths = Vec::new();
        for matched in matches {
            match matched {
                Ok(path) => paths.push(path),
                Err(error) => self.tell(error.path(), &error.error().to_string()),
            }
        }
        paths
    }

    fn look(&mut self, path: PathBuf, dataset: &Name) -> Option<Found> {
        match fs::metadata(&path) {
            Ok(metadata) if metadata.is_file() => Some(Found {
                key: Key::of(&metadata),
                dataset: dataset.clone(),
                path,
                metadata,
            }),
            Ok(metadata) => {
                let kind = metadata.file_type();
                let what = match () {
                    () if kind.is_dir() => "a directory",
                    () if kind.is_fifo() => "a FIFO",
                    () if kind.is_socket() => "a socket",
                    () => "a device",
                };
                self.tell(&path, &format!("it is {what}"));
                None
            }
            // It may come.
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => None,
            Err(error) => {
                self.tell(&path, &error.to_string());
                None
            }
        }
    }

    /// Opens a file of lines.
    pub(crate) fn open(&mut self, path: &Path) -> Option<(Content, Metadata)> {
        match Content::open(path) {
            Ok((content, metadata)) => {
                if let Codec::Other(name) = content.codec() {
                    self.tell(path, &format!("it is compressed with {name}"));
                    return None;
                }
                self.told.remove(path);
                Some((content, metadata))
            }
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => None,
            Err(error) => {
                self.tell(path, &error.to_string());
                None
            }
        }
    }

    /// Names a file that is not read, once.
    pub(crate) fn tell(&mut self, path: &Path, why: &str) {
        if let Entry::Vacant(untold) = self.told.entry(path.to_path_buf()) {
            warn!(path = %path.display(), "not read: {why}");
            untold.insert(why.to_string());
        }
    }

    /// Why a file is not read, where that was told.
    pub(crate) fn why(&self, path: &Path) -> Option<&str> {
        self.told.get(path).map(String::as_str)
    }

    /// Directories whose changes concern the patterns.
    pub(crate) fn folders(&self) -> HashSet<PathBuf> {
        let patterns = self.sources.iter().flat_map(|source| &source.patterns);
        patterns.filter_map(|pattern| fixed_folder(pattern)).collect()
    }
}

/// The directory up to the first part with a wildcard.
fn fixed_folder(pattern: &str) -> Option<PathBuf> {
    let wild = pattern.find(['*', '?', '[']).unwrap_or(pattern.len());
    let folder = &pattern[..pattern[..wild].rfind('/').unwrap_or(0)];
    match folder {
        "" => pattern.starts_with('/').then(|| "/".into()),
        folder => Some(folder.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_file_is_found_once_and_what_is_none_is_left() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        for name in ["a.log", "b.log", "odd[1].log", "other.txt"] {
            fs::write(at(name), name).unwrap();
        }
        std::os::unix::fs::symlink(at("a.log"), at("link.log")).unwrap();
        fs::create_dir(at("folder.log")).unwrap();
        nix::unistd::mkfifo(&at("fifo.log"), nix::sys::stat::Mode::S_IRWXU).unwrap();
        let source = |dataset: &str, patterns: &[&str]| Source {
            dataset: Name::new(dataset).unwrap(),
            patterns: patterns
                .iter()
                .map(|pattern| at(pattern).display().to_string())
                .collect(),
        };
        let mut paths = Paths::new(vec![
            source("first", &["*.log"]),
            source("second", &["odd[1].log", "*.txt", "missing"]),
        ]);
        let found: Vec<_> = paths
            .find()
            .into_iter()
            .map(|found| (found.path, found.dataset.to_string()))
            .collect();
        let expected = [
            ("a.log", "first"),
            ("b.log", "first"),
            ("odd[1].log", "first"),
            ("other.txt", "second"),
        ];
        assert_eq!(
            found,
            expected.map(|(name, dataset)| (at(name), dataset.to_string()))
        );
        assert_eq!(paths.told.len(), 3, "{:?}", paths.told);
        assert!(Content::open(&at("fifo.log")).is_err());
    }

    #[test]
    fn the_folder_of_a_pattern_has_no_wildcards() {
        let folders = ["/var/log/a.log", "/var/l*/x/y", "/*", "logs/*/x"].map(fixed_folder);
        let expected = ["/var/log", "/var", "/", "logs"].map(|path| Some(PathBuf::from(path)));
        assert_eq!(folders, expected);
    }
}
