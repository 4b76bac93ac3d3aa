//! One block on disk: a line of JSON that describes it, a line with the BLAKE3 of that, the data.

use std::{
    fs::File,
    io::{self, BufRead, BufReader, Read as _},
    path::Path,
};

use model::Name;
use serde::{Deserialize, Serialize};

use crate::{
    block::{CutBlock, Position},
    disk::Disk,
    object::Object,
    state::FORMAT,
};

/// Longest header, in bytes: more than the most runs of a block can need.
const HEADER_BYTES: u64 = 32 << 20;
const ENDING: &str = "block";

/// What is known of a block without its data.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Header {
    v: u32,
    pub(crate) dataset: Name,
    pub(crate) sequence: u64,
    pub(crate) stored_bytes: u64,
    pub(crate) raw_bytes: u64,
    pub(crate) lines: u64,
    stored_checksum: String,
    raw_checksum: String,
    /// When its first line was read, in milliseconds since 1970 UTC.
    pub(crate) read_ms: i64,
    /// Where its files are behind it.
    pub(crate) positions: Vec<Position>,
    /// Where its lines begin in each of these; nothing of an older agent.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) begins: Vec<u64>,
    /// The block that it has lines of once more, which the mill has lost.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) rebuilds: Option<u64>,
}

/// Why a file gives no block.
#[derive(Debug)]
pub(super) enum Unusable {
    /// It was not written to its end, as by a crash.
    Torn(String),
    /// It can't be read, or not by this release: what it is remains to be seen.
    Unreadable(io::Error),
}

impl From<io::Error> for Unusable {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof => Self::Torn(error.to_string()),
            _ => Self::Unreadable(error),
        }
    }
}

impl Header {
    pub(super) fn new(block: &CutBlock, object: &Object, sequence: u64) -> Self {
        Self {
            v: FORMAT,
            dataset: block.dataset.clone(),
            sequence,
            stored_bytes: object.data.len() as u64,
            raw_bytes: block.raw.len() as u64,
            lines: block.lines,
            stored_checksum: object.stored_checksum.to_hex().to_string(),
            raw_checksum: object.raw_checksum.to_hex().to_string(),
            read_ms: block.read_ms,
            positions: block.positions.clone(),
            begins: block.begins.clone(),
            rebuilds: block.rebuilds,
        }
    }

    /// BLAKE3 of the data and of the lines.
    pub(crate) fn checksums(&self) -> [Vec<u8>; 2] {
        [&self.stored_checksum, &self.raw_checksum].map(|text| {
            blake3::Hash::from_hex(text).map_or_else(|_| Vec::new(), |hash| hash.as_bytes().to_vec())
        })
    }
}

pub(super) fn name(sequence: u64) -> String {
    format!("{sequence:012}.{ENDING}")
}

/// The number of the block in a file of this name.
pub(super) fn sequence(path: &Path) -> Option<u64> {
    let name = path.file_name()?.to_str()?;
    name.strip_suffix(ENDING)?.strip_suffix('.')?.parse().ok()
}

pub(super) fn write(disk: &Disk, path: &Path, header: &Header, data: &[u8]) -> io::Result<()> {
    let mut json = serde_json::to_vec(header)?;
    let checksum = format!("\n{}\n", blake3::hash(&json).to_hex());
    json.extend_from_slice(checksum.as_bytes());
    disk.put(path, &[&json, data])
}

/// The header of a file, if file and header are whole; `all` compares the data with its checksum too.
pub(super) fn header(path: &Path, dataset: &Name, sequence: u64, all: bool) -> Result<Header, Unusable> {
    let torn = |why: &str| Unusable::Torn(why.to_string());
    let file = File::open(path)?;
    let length = file.metadata()?.len();
    let mut reader = BufReader::new(file);
    let (header, header_length) = read_header(&mut reader)?;
    if (&header.dataset, header.sequence) != (dataset, sequence) {
        return Err(torn("it is not the block that its name says"));
    }
    if header_length.checked_add(header.stored_bytes) != Some(length) {
        return Err(torn("it is not as long as it says"));
    }
    if all {
        let mut hasher = blake3::Hasher::new();
        io::copy(&mut reader, &mut hasher)?;
        if hasher.finalize().to_hex().as_str() != header.stored_checksum {
            return Err(torn("its data is not what its checksum says"));
        }
    }
    Ok(header)
}

/// The format number alone: the rest may be of another shape.
#[derive(Deserialize)]
struct Version {
    v: u32,
}

fn read_header(reader: &mut impl BufRead) -> io::Result<(Header, u64)> {
    let bad = |why: &str| io::Error::new(io::ErrorKind::InvalidData, why.to_string());
    let mut json = Vec::new();
    reader.by_ref().take(HEADER_BYTES).read_until(b'\n', &mut json)?;
    let mut checksum = Vec::new();
    reader.by_ref().take(65).read_until(b'\n', &mut checksum)?;
    let length = (json.len() + checksum.len()) as u64;
    json.pop();
    if checksum.strip_suffix(b"\n") != Some(blake3::hash(&json).to_hex().as_bytes()) {
        return Err(bad("its header is not what its checksum says"));
    }
    // The checksum proves it whole: what can't be understood was written so.
    let other = |why: String| io::Error::new(io::ErrorKind::Unsupported, why);
    let version: Version = serde_json::from_slice(&json).map_err(|error| other(error.to_string()))?;
    if version.v > FORMAT {
        let why = format!("format {} is newer than {FORMAT}: upgrade this agent", version.v);
        return Err(other(why));
    }
    let header = serde_json::from_slice(&json).map_err(|error| other(error.to_string()))?;
    Ok((header, length))
}

/// The data of the block in a file.
pub(super) fn data(path: &Path, header: &Header) -> io::Result<Vec<u8>> {
    let mut reader = BufReader::new(File::open(path)?);
    read_header(&mut reader)?;
    let mut data = Vec::with_capacity(usize::try_from(header.stored_bytes).unwrap_or_default());
    reader.take(header.stored_bytes).read_to_end(&mut data)?;
    Ok(data)
}

/// Reads the header at the head of any bytes; whether there is one.
pub(crate) fn decode_any(bytes: &[u8]) -> bool {
    let mut rest = bytes;
    let Ok((header, length)) = read_header(&mut rest) else {
        return false;
    };
    assert_eq!((bytes.len() - rest.len()) as u64, length);
    drop(header.checksums());
    true
}

/// The header of a block without lines.
pub(crate) fn written_any() -> Vec<u8> {
    let json = br#"{"v":1,"dataset":"access","sequence":1,"stored_bytes":0,"raw_bytes":0,"lines":0,"stored_checksum":"","raw_checksum":"","read_ms":0,"positions":[]}"#;
    let checksum = format!("\n{}\n", blake3::hash(json).to_hex());
    [&json[..], checksum.as_bytes()].concat()
}
