//! What has become of the files behind blocks since these were added, as far as this machine can tell.

use std::{collections::HashMap, fs::File, os::unix::fs::FileExt as _, path::Path};

use model::{Block, Codec, Content, place::NodeUrl};

use crate::{Error, Store, files, objects};

/// What has become of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Since {
    /// Nothing.
    Unchanged,
    /// So many bytes stand behind what it was.
    Grown(u64),
    /// It was written anew, or another one is in its place; how that is told.
    Changed(String),
    /// It can't be read any more; why.
    Gone(String),
    /// It can't be told here: not even its folder is on this machine, or it is an object elsewhere.
    Elsewhere,
}

/// A file as it was added, with its blocks in the order in which they were. One that was added again, and another one that
/// was added under its name, are files of their own.
#[derive(Clone, Debug)]
pub struct Held {
    /// Its URL.
    pub url: String,
    /// Its blocks with their numbers.
    pub blocks: Vec<(u32, Block)>,
    /// What has become of it.
    pub since: Since,
}

/// What has come behind the end of a file.
#[derive(Clone, Debug)]
pub struct Tail {
    /// Its blocks.
    pub blocks: Vec<Block>,
    /// Blocks that these stand for too: one that ended within a line, or those of a compressed file.
    pub instead_of: Vec<(u32, Block)>,
}

impl Held {
    /// Whether what was added can't be read where it was.
    pub fn is_lost(&self) -> bool {
        matches!(self.since, Since::Changed(_) | Since::Gone(_))
    }

    /// Its path, or the URL of an object elsewhere.
    pub fn place(&self) -> String {
        files::shown(&self.url)
    }
}

/// The files that these blocks are of, in the order in which they were added; what Sawmill itself wrote is none of them.
pub fn held(blocks: Vec<(u32, Block)>) -> Vec<Held> {
    let mut files: Vec<Held> = Vec::new();
    let mut last_of: HashMap<String, usize> = HashMap::new();
    for (number, block) in blocks {
        let Some(url) = block.url() else { continue };
        if block.checksum.is_some() || NodeUrl::is_one(url) {
            continue;
        }
        let url = url.to_string();
        let known = last_of.get(&url).and_then(|&at| files.get_mut(at));
        let goes_on = |file: &&mut Held| {
            let last = file.blocks.last();
            last.is_some_and(|(_, last)| range(last).1 <= range(&block).0)
        };
        match known.filter(goes_on) {
            Some(file) => file.blocks.push((number, block)),
            None => {
                last_of.insert(url.clone(), files.len());
                files.push(Held {
                    url,
                    blocks: vec![(number, block)],
                    since: Since::Elsewhere,
                });
            }
        }
    }
    files
}

impl Store {
    /// Looks what has become of files. Costs a look at each that is on this machine; objects elsewhere are asked for with
    /// `also_elsewhere`.
    pub async fn look(&self, files: Vec<Held>, also_elsewhere: bool) -> Vec<Held> {
        let looked = tokio::task::spawn_blocking(move || {
            let mut files = files;
            for file in &mut files {
                file.since = since(file);
            }
            files
        });
        // Who can't look does not know of a change.
        let mut files = looked.await.unwrap_or_default();
        if also_elsewhere {
            for file in files
                .iter_mut()
                .filter(|file| files::path_of(&file.url).is_none())
            {
                file.since = since_elsewhere(file).await;
            }
        }
        files
    }

    /// The blocks of what has come behind the end of a file that has grown.
    ///
    /// # Errors
    /// As [`Store::split`].
    pub async fn tail(&self, file: &Held, block_size: u64) -> Result<Tail, Error> {
        let (Some(path), Some((number, last))) = (files::path_of(&file.url), file.blocks.last()) else {
            let blocks = Vec::new();
            let instead_of = Vec::new();
            return Ok(Tail { blocks, instead_of });
        };
        let (start, end, codec) = range(last);
        let is_finished = codec == Codec::None && ends_a_line(&path, end)?;
        let from = if is_finished { end } else { start };
        let instead_of = match is_finished {
            true => Vec::new(),
            false => vec![(*number, last.clone())],
        };
        let blocks = self.split_from(&path, from, block_size.max(1)).await?;
        Ok(Tail { blocks, instead_of })
    }

    /// Whether the file of this URL has in it what another one had when it was added.
    pub async fn has(&self, url: &str, file: &Held) -> bool {
        let (Some(path), file) = (files::path_of(url), file.clone()) else {
            return false;
        };
        let looked = tokio::task::spawn_blocking(move || {
            let is_marked = file.blocks.iter().all(|(_, block)| mark(block).is_some());
            is_marked && File::open(&path).is_ok_and(|opened| is_what_it_was(&opened, &file).unwrap_or(false))
        });
        looked.await.unwrap_or(false)
    }
}

/// What tells a file as it is on this machine now, where that is not what told it when the block was added. It may have the
/// same bytes all the same: its rights may have changed, or it is the copy of another machine.
pub fn version_now(block: &Block) -> Option<String> {
    let (path, mark) = (files::path_of(block.url()?)?, mark(block)?);
    let now = files::version(&std::fs::metadata(path).ok()?);
    (now != mark.version).then_some(now)
}

fn range(block: &Block) -> (u64, u64, Codec) {
    match &block.content {
        Content::Object {
            start, end, codec, ..
        } => (*start, *end, *codec),
        Content::Inline(_) => (0, 0, Codec::None),
    }
}

fn mark(block: &Block) -> Option<&model::Mark> {
    match &block.content {
        Content::Object { mark, .. } => mark.as_ref(),
        Content::Inline(_) => None,
    }
}

fn ends_a_line(path: &Path, end: u64) -> Result<bool, Error> {
    let (file, _) = files::open(path)?;
    let mut last = [0];
    let read = file.read_exact_at(&mut last, end.saturating_sub(1));
    read.map_err(|source| Error::Io {
        doing: "can't read",
        path: path.into(),
        source,
    })?;
    Ok(last == *b"\n")
}

/// Whether the first and the last block of a file have the ends that they had.
fn is_what_it_was(opened: &File, file: &Held) -> std::io::Result<bool> {
    let blocks = &file.blocks;
    for (_, block) in blocks.first().into_iter().chain(blocks.last()) {
        if !files::fits(opened, mark(block))? {
            return Ok(false);
        }
    }
    Ok(true)
}

fn since(file: &Held) -> Since {
    let (Some(path), Some((_, last))) = (files::path_of(&file.url), file.blocks.last()) else {
        return Since::Elsewhere;
    };
    let Content::Object {
        size, mtime_ms, mark, ..
    } = &last.content
    else {
        return Since::Elsewhere;
    };
    let metadata = match std::fs::metadata(&path) {
        Ok(metadata) => metadata,
        Err(error) if path.parent().is_some_and(Path::exists) => {
            return Since::Gone(format!("can't read {}: {error}", path.display()));
        }
        Err(_) => return Since::Elsewhere,
    };
    let (was, is) = ((*size, *mtime_ms), files::size_and_mtime(&metadata));
    let end = file.blocks.iter().map(|(_, block)| range(block).1).max();
    if let Err(error) = files::check_unchanged(&file.url, was, is, end.unwrap_or(0)) {
        return Since::Changed(error.to_string());
    }
    let is_as_then = mark
        .as_ref()
        .is_some_and(|mark| mark.version == files::version(&metadata));
    let fits = || File::open(&path).and_then(|opened| is_what_it_was(&opened, file));
    match is_as_then || fits().unwrap_or(false) {
        false => Since::Changed(files::changed(&file.url, was, is).to_string()),
        true if is.0 > was.0 => Since::Grown(is.0 - was.0),
        true => Since::Unchanged,
    }
}

async fn since_elsewhere(file: &Held) -> Since {
    let Some((_, last)) = file.blocks.last() else {
        return Since::Elsewhere;
    };
    let Content::Object {
        size, mtime_ms, mark, ..
    } = &last.content
    else {
        return Since::Elsewhere;
    };
    let asked = async {
        let (store, key) = objects::remote(&file.url)?;
        objects::head(&*store, &key, &file.url).await
    };
    let was = (*size, *mtime_ms);
    match asked.await {
        Ok(head) if head.is(was, mark.as_ref()) => Since::Unchanged,
        Ok(head) => Since::Changed(files::changed(&file.url, was, head.size_and_mtime).to_string()),
        Err(error) if error.is_not_found() => Since::Gone(error.to_string()),
        Err(_) => Since::Elsewhere,
    }
}
