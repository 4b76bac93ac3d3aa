//! What an authority has issued and revoked: `index.jsonl`, one JSON document a line, only ever added to.

use std::{
    collections::BTreeSet,
    fs::{File, OpenOptions},
    io::Write as _,
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

use crate::{Details, Error, Peer, files};

/// Format of the lines.
const FORMAT: u32 = 1;

/// A certificate that was issued; times in seconds since 1970 UTC.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Issued {
    /// Serial number in hexadecimal digits.
    pub serial: String,
    /// Role, name and rights.
    pub uri: String,
    /// DNS names and IP addresses.
    pub hosts: Vec<String>,
    /// Valid from.
    pub not_before: i64,
    /// Valid until.
    pub not_after: i64,
    /// When it was revoked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revoked: Option<i64>,
}

impl Issued {
    /// Whom it stands for; none when the line was written by hand.
    pub fn peer(&self) -> Option<Peer> {
        Peer::from_uri(&self.uri).ok()
    }
}

/// One line.
#[derive(Debug, Serialize, Deserialize)]
struct Line {
    v: u32,
    /// When, in seconds since 1970 UTC.
    at: i64,
    #[serde(flatten)]
    what: What,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum What {
    Issued(Issued),
    Revoked(Vec<String>),
}

/// The open file, locked while it is held: two commands at once follow each other.
pub(crate) struct Index {
    path: PathBuf,
    file: File,
    issued: Vec<Issued>,
}

impl Index {
    pub(crate) fn open(dir: &Path) -> Result<Self, Error> {
        let path = dir.join("index.jsonl");
        let file = OpenOptions::new()
            .append(true)
            .create(true)
            .mode(files::SECRET_MODE)
            .open(&path)
            .map_err(files::failed(&path))?;
        file.lock().map_err(files::failed(&path))?;
        let issued = read(&path)?;
        Ok(Self { path, file, issued })
    }

    pub(crate) fn issued(&self) -> &[Issued] {
        &self.issued
    }

    /// Remembers a certificate before anybody has it.
    pub(crate) fn add(&mut self, details: &Details, uri: String, at: i64) -> Result<Issued, Error> {
        let issued = Issued {
            serial: details.serial.clone(),
            uri,
            hosts: details.hosts.clone(),
            not_before: details.not_before,
            not_after: details.not_after,
            revoked: None,
        };
        self.append(at, What::Issued(issued.clone()))?;
        self.issued.push(issued.clone());
        Ok(issued)
    }

    /// Marks these serial numbers as revoked.
    pub(crate) fn revoke(&mut self, serials: &BTreeSet<String>, at: i64) -> Result<(), Error> {
        self.append(at, What::Revoked(serials.iter().cloned().collect()))?;
        mark(&mut self.issued, serials, at);
        Ok(())
    }

    fn append(&mut self, at: i64, what: What) -> Result<(), Error> {
        let line = Line { v: FORMAT, at, what };
        let mut text = serde_json::to_string(&line).expect("plain data");
        text.push('\n');
        self.file
            .write_all(text.as_bytes())
            .and_then(|()| self.file.sync_data())
            .map_err(files::failed(&self.path))
    }
}

fn read(path: &Path) -> Result<Vec<Issued>, Error> {
    let bytes = files::read(path)?;
    let mut issued = Vec::new();
    for (number, line) in bytes.split(|byte| *byte == b'\n').enumerate() {
        if line.is_empty() {
            continue;
        }
        let content = |why| Error::Content {
            path: path.into(),
            what: "index",
            why,
        };
        let line: Line =
            serde_json::from_slice(line).map_err(|error| content(format!("line {}: {error}", number + 1)))?;
        if line.v != FORMAT {
            return Err(content(format!("line {} is of format {}", number + 1, line.v)));
        }
        match line.what {
            What::Issued(one) => issued.push(one),
            What::Revoked(serials) => mark(&mut issued, &serials.into_iter().collect(), line.at),
        }
    }
    Ok(issued)
}

fn mark(issued: &mut [Issued], serials: &BTreeSet<String>, at: i64) {
    for one in issued.iter_mut().filter(|one| serials.contains(&one.serial)) {
        one.revoked.get_or_insert(at);
    }
}
