//! Which files there are to follow: what the patterns match, each file once.
//!
//! Promise: what is no regular file, or can't be looked at, is named once as a warning and left alone.

use std::{
    collections::{HashMap, HashSet, hash_map::Entry},
    fs::{self, Metadata},
    os::unix::fs::FileTypeExt as _,
    path::{Component, Path, PathBuf},
};

use model::Name;
use tracing::{info, warn};

use crate::{
    Error,
    config::Source,
    content::{Content, Key},
    links::{self, Links},
};

/// The patterns of an agent.
pub(crate) struct Paths {
    sources: Vec<Source>,
    /// Patterns that have matched nothing yet; each is told once.
    unmatched: HashSet<String>,
    has_looked: bool,
    links: Links,
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
    /// Relative ones are taken from the directory of this process, and those with `..` as the directory that this is.
    pub(crate) fn new(mut sources: Vec<Source>, follow_links: bool) -> Self {
        for pattern in sources.iter_mut().flat_map(|source| &mut source.patterns) {
            if let Ok(path) = std::path::absolute(&*pattern) {
                *pattern = without_parents(&path).to_string_lossy().into_owned();
            }
        }
        let patterns = || sources.iter().flat_map(|source| &source.patterns);
        let named = patterns().filter_map(|pattern| fixed_folder(pattern)).collect();
        Self {
            unmatched: patterns().cloned().collect(),
            has_looked: false,
            links: Links::new(follow_links, named),
            sources,
            told: HashMap::new(),
        }
    }

    /// Which links are followed.
    pub(crate) fn links(&self) -> &Links {
        &self.links
    }

    /// All files that match now, a file of several names by the first of them, in the order of patterns and names.
    pub(crate) fn find(&mut self) -> Vec<Found> {
        let mut seen: HashMap<Key, Name> = HashMap::new();
        let mut all = Vec::new();
        for source in self.sources.clone() {
            let mut paths: Vec<PathBuf> = Vec::new();
            for pattern in &source.patterns {
                let expanded = self.expand(pattern);
                self.note_matches(pattern, &expanded);
                paths.extend(expanded);
            }
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
        self.has_looked = true;
        all
    }

    /// Tells of a pattern that matches nothing at first, and when it does.
    fn note_matches(&mut self, pattern: &str, expanded: &[PathBuf]) {
        if !self.unmatched.contains(pattern) {
            return;
        }
        if expanded.iter().any(|path| fs::symlink_metadata(path).is_ok()) {
            self.unmatched.remove(pattern);
            if self.has_looked {
                info!(pattern, "a file of this name is there by now");
            }
        } else if !self.has_looked {
            warn!(pattern, "no file of this name is there yet");
        }
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
        match self.links.metadata(&path) {
            Ok(metadata) if metadata.is_file() => Some(Found {
                key: Key::of(&metadata),
                dataset: dataset.clone(),
                path,
                metadata,
            }),
            Ok(metadata) if metadata.is_symlink() => {
                self.tell(&path, links::IS_LINK);
                None
            }
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
        match Content::open(path, &self.links) {
            Ok((content, metadata)) => {
                if let Some(why) = content.codec().unread() {
                    self.tell(path, &why);
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

/// An absolute path without `..`: what is before the last of them, and before any wildcard, is the directory that it leads to.
fn without_parents(path: &Path) -> PathBuf {
    let parts: Vec<Component<'_>> = path.components().collect();
    let is_wild = |part: &Component<'_>| part.as_os_str().to_string_lossy().contains(['*', '?', '[']);
    let fixed = parts.iter().position(is_wild).unwrap_or(parts.len());
    let is_parent = |part: &Component<'_>| matches!(part, Component::ParentDir);
    let Some(last) = parts[..fixed].iter().rposition(is_parent) else {
        return path.to_path_buf();
    };
    let leading: PathBuf = parts[..=last].iter().collect();
    let mut clean = fs::canonicalize(&leading).unwrap_or_else(|_| {
        // Not there yet: as it is written.
        let mut clean = PathBuf::new();
        for part in leading.components() {
            match part {
                Component::ParentDir => drop(clean.pop()),
                part => clean.push(part),
            }
        }
        clean
    });
    clean.extend(&parts[last + 1..]);
    clean
}

/// Whether none of these paths is a link, unless links are followed: who names one must know that it is.
///
/// # Errors
/// [`Error::BadFile`].
pub(crate) fn check_links(sources: &[Source], follow_links: bool) -> Result<(), Error> {
    let mut paths = sources
        .iter()
        .flat_map(|source| &source.patterns)
        .map(PathBuf::from);
    let is_link = |path: &PathBuf| fs::symlink_metadata(path).is_ok_and(|found| found.is_symlink());
    match paths.find(|path| !follow_links && is_link(path)) {
        Some(path) => Err(Error::BadFile {
            path,
            why: links::IS_LINK.to_string(),
        }),
        None => Ok(()),
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
        let mut paths = Paths::new(
            vec![
                source("first", &["*.log"]),
                source("second", &["odd[1].log", "*.txt", "missing"]),
            ],
            false,
        );
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
        assert_eq!(paths.told.len(), 4, "{:?}", paths.told);
        assert_eq!(paths.why(&at("link.log")), Some(links::IS_LINK));
        assert!(Content::open(&at("fifo.log"), &Links::default()).is_err());
        // Followed, it is one more name of the file.
        let mut paths = Paths::new(vec![source("first", &["link.log", "a.log"])], true);
        let found: Vec<_> = paths.find().into_iter().map(|found| found.path).collect();
        assert_eq!(found, [at("link.log")]);
        // Named by the user, it is refused.
        let named = [source("first", &["a.log", "link.log"])];
        let refused = check_links(&named, false).unwrap_err().to_string();
        assert!(
            refused.contains("link.log") && refused.contains("--follow-links"),
            "{refused}"
        );
        check_links(&named, true).unwrap();
        check_links(&[source("first", &["*.log"])], false).unwrap();
    }

    #[test]
    fn a_link_to_a_directory_hides_no_file() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        fs::create_dir(at("v12")).unwrap();
        fs::write(at("v12/x.log"), "x").unwrap();
        // It comes before the directory that it leads to.
        std::os::unix::fs::symlink("v12", at("current")).unwrap();
        let source = Source {
            dataset: Name::new("access").unwrap(),
            patterns: vec![at("*/x.log").display().to_string()],
        };
        for (follow_links, expected) in [(false, "v12/x.log"), (true, "current/x.log")] {
            let mut paths = Paths::new(vec![source.clone()], follow_links);
            let found: Vec<_> = paths.find().into_iter().map(|found| found.path).collect();
            assert_eq!(found, [at(expected)]);
        }
    }

    #[test]
    fn paths_are_told_without_detours() {
        let dir = tempfile::tempdir().unwrap();
        let real = fs::canonicalize(dir.path()).unwrap();
        fs::create_dir_all(real.join("a/b")).unwrap();
        std::os::unix::fs::symlink(real.join("a/b"), real.join("link")).unwrap();
        let clean = |text: &str| without_parents(&real.join(text));
        assert_eq!(clean("a/../x.log"), real.join("x.log"));
        assert_eq!(
            clean("link/../*.log"),
            real.join("a/*.log"),
            "where the link leads to"
        );
        assert_eq!(clean("link/x.log"), real.join("link/x.log"));
        assert_eq!(clean("none/../x/*.log"), real.join("x/*.log"));
        assert_eq!(clean("*/../x"), real.join("*/../x"));
        let source = Source {
            dataset: Name::new("access").unwrap(),
            patterns: vec![real.join("a/../later.log").display().to_string()],
        };
        let mut paths = Paths::new(vec![source], false);
        assert!(paths.find().is_empty() && paths.unmatched.len() == 1);
        fs::write(real.join("later.log"), "x").unwrap();
        assert_eq!(paths.find()[0].path, real.join("later.log"));
        assert!(paths.unmatched.is_empty());
    }

    #[test]
    fn the_folder_of_a_pattern_has_no_wildcards() {
        let folders = ["/var/log/a.log", "/var/l*/x/y", "/*", "logs/*/x"].map(fixed_folder);
        let expected = ["/var/log", "/var", "/", "logs"].map(|path| Some(PathBuf::from(path)));
        assert_eq!(folders, expected);
    }
}
