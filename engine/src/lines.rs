//! The lines of a block as a query reads them: in order, once, and not without end.

use std::{
    fs::File,
    io::{self, Cursor, Read},
};

use model::{Failure, FailureKind};

use crate::{Source, source::read_failure};

/// Most bytes of a block, decompressed: columns of it are in memory, and a query must fail alone, not take its node along.
const MOST_BYTES: u64 = 1 << 30;

/// Reads a block.
pub(crate) struct Lines {
    reader: Box<dyn Read + Send>,
    name: String,
    /// About how many bytes there are.
    pub(crate) expected: u64,
    /// How many may still come.
    left: u64,
}

impl Lines {
    /// # Errors
    /// For what is no block: partial results, which come as a stream.
    pub(crate) fn new(source: Source) -> Result<Self, Failure> {
        let (reader, name, expected): (Box<dyn Read + Send>, _, _) = match source {
            Source::Bytes(bytes) => {
                let expected = bytes.len() as u64;
                (
                    Box::new(Cursor::new(bytes)),
                    "an inline block".to_owned(),
                    expected,
                )
            }
            Source::File { file, length, name } => (Box::new(Whole { file, left: length }), name, length),
            Source::Reader { reader, name } => (reader, name, 0),
            Source::Stream(_) => {
                let message = "a query reads blocks, not streams";
                return Err(Failure::new(FailureKind::Query, message));
            }
        };
        Ok(Self {
            reader,
            name,
            expected,
            left: MOST_BYTES,
        })
    }

    /// What an error met while reading means for the subtask; `name` is that of the block.
    pub(crate) fn failure(name: &str, error: &io::Error) -> Failure {
        match error.kind() {
            io::ErrorKind::FileTooLarge => Failure::new(FailureKind::Query, format!("{name}: {error}")),
            _ => read_failure(name, error),
        }
    }

    /// What to call the block in messages.
    pub(crate) fn name(&self) -> String {
        self.name.clone()
    }
}

impl Read for Lines {
    fn read(&mut self, to: &mut [u8]) -> io::Result<usize> {
        let read = self.reader.read(to)?;
        self.left = self.left.checked_sub(read as u64).ok_or_else(too_much)?;
        Ok(read)
    }
}

fn too_much() -> io::Error {
    let why = format!(
        "it has more than {MOST_BYTES} bytes: split it into smaller blocks (a compressed file is one block, \
         of which the decompressed size counts)"
    );
    io::Error::new(io::ErrorKind::FileTooLarge, why)
}

/// Just so many bytes of a file; one that ends earlier has changed.
struct Whole {
    file: File,
    left: u64,
}

impl Read for Whole {
    fn read(&mut self, to: &mut [u8]) -> io::Result<usize> {
        let room = to.len().min(usize::try_from(self.left).unwrap_or(usize::MAX));
        let read = self.file.read(&mut to[..room])?;
        self.left -= read as u64;
        if read == 0 && room > 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        Ok(read)
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    #[test]
    fn a_file_that_was_cut_off_has_changed() {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(b"12345").unwrap();
        io::Seek::rewind(&mut file).unwrap();
        let again = file.try_clone().unwrap();
        let mut text = String::new();
        let name = "x".to_owned();
        let source = Source::File {
            file,
            length: 3,
            name: name.clone(),
        };
        Lines::new(source).unwrap().read_to_string(&mut text).unwrap();
        assert_eq!(text, "123");
        let mut lines = Lines::new(Source::File {
            file: again,
            length: 3,
            name,
        })
        .unwrap();
        let error = lines.read_to_string(&mut text).unwrap_err();
        assert_eq!(Lines::failure("x", &error).kind, FailureKind::Changed);
    }

    #[test]
    fn what_has_no_end_fails_alone() {
        let reader = Box::new(io::repeat(b'x'));
        let mut lines = Lines::new(Source::Reader {
            reader,
            name: "x".into(),
        })
        .unwrap();
        let error = io::copy(&mut lines, &mut io::sink()).unwrap_err();
        assert_eq!(Lines::failure("x", &error).kind, FailureKind::Query);
    }
}
