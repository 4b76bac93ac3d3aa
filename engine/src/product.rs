//! What an attempt gave, before it is decided where it travels.

use std::{
    fs::File,
    io::{self, Read, Seek, SeekFrom},
};

/// Output up to this size is kept in memory, in bytes; a larger one goes to a temporary file.
pub const MEMORY_BYTES: usize = 1 << 20;

/// The output of one subtask.
#[derive(Debug)]
pub enum Product {
    /// The bytes themselves, at most [`MEMORY_BYTES`].
    Memory(Vec<u8>),
    /// A file that has no name, so that nothing is left of it whatever happens to the node; at its first byte.
    File {
        /// The file, open for reading and writing.
        file: File,
        /// Bytes in it.
        length: u64,
    },
}

impl Product {
    /// Number of bytes.
    pub fn len(&self) -> u64 {
        match self {
            Self::Memory(bytes) => bytes.len() as u64,
            Self::File { length, .. } => *length,
        }
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// All bytes in memory, for outputs known to be small. Blocks on the file when there is one.
    ///
    /// # Errors
    /// Those of reading the file.
    pub fn into_bytes(self) -> io::Result<Vec<u8>> {
        match self {
            Self::Memory(bytes) => Ok(bytes),
            Self::File { mut file, .. } => {
                file.seek(SeekFrom::Start(0))?;
                let mut bytes = Vec::new();
                file.read_to_end(&mut bytes)?;
                Ok(bytes)
            }
        }
    }
}
