//! Files for what does not fit into memory: unnamed, so that none outlives its process however that ends.

use std::{
    fs::File,
    io::{self, Write},
    os::unix::fs::FileExt,
    path::PathBuf,
    pin::Pin,
    sync::Arc,
};

use bytes::Bytes;
use datafusion::{
    error::{DataFusionError, Result as Fallible},
    execution::{SpillFile, SpillWriter, TempFileFactory},
};
use futures::{Stream, stream};

/// Bytes that are read at once.
const CHUNK_BYTES: usize = 256 * 1024;

/// Makes unnamed files in a folder.
#[derive(Debug)]
pub(crate) struct Unnamed {
    pub(crate) folder: PathBuf,
}

impl TempFileFactory for Unnamed {
    fn create_temp_file(&self, description: &str) -> Fallible<Arc<dyn SpillFile>> {
        let file = tempfile::tempfile_in(&self.folder).map_err(|error| {
            let place = self.folder.display();
            DataFusionError::Execution(format!("{description}: can't make a file in {place}: {error}"))
        })?;
        Ok(Arc::new(Spilled(Arc::new(file))))
    }
}

struct Spilled(Arc<File>);

impl SpillFile for Spilled {
    fn size(&self) -> Option<u64> {
        self.0.metadata().ok().map(|metadata| metadata.len())
    }

    /// Reads on the thread that polls: halves run on threads of their own.
    fn read_stream(&self) -> Fallible<Pin<Box<dyn Stream<Item = Fallible<Bytes>> + Send>>> {
        let file = self.0.clone();
        Ok(Box::pin(stream::try_unfold(0, move |at| {
            let file = file.clone();
            async move {
                let mut chunk = vec![0; CHUNK_BYTES];
                let read = file.read_at(&mut chunk, at)?;
                chunk.truncate(read);
                Ok((read > 0).then(|| (Bytes::from(chunk), at + read as u64)))
            }
        })))
    }

    fn open_writer(&self) -> Fallible<Box<dyn SpillWriter>> {
        Ok(Box::new(Writer(self.0.clone())))
    }
}

struct Writer(Arc<File>);

impl Write for Writer {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        (&*self.0).write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl SpillWriter for Writer {
    fn finish(&mut self) -> Fallible<()> {
        Ok(())
    }
}
