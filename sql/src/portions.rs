//! Lines in portions that fit into a processor's cache.

use std::{cell::Cell, io::Read};

use memchr::memrchr;

use crate::Error;

/// Bytes read at once. Copied from the page cache into memory that is still in the processor's cache, and parsed there,
/// they cost half of what they cost by way of the main memory.
const PORTION_BYTES: usize = 512 * 1024;

thread_local! {
    /// The memory of the last block that was read on this thread: fresh pages cost a good part of reading into them.
    static LAST: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
}

/// Calls `each` with whole records, as many as are there; the last portion may end without a line feed. `cut` tells where
/// the first record begins that is not whole yet, when some bytes are there; none where there is no whole one.
///
/// # Errors
/// [`Error::Read`], those of `each`.
pub(crate) fn portions(
    mut from: impl Read,
    cut: impl Fn(&[u8]) -> Option<usize>,
    mut each: impl FnMut(&[u8]) -> Result<(), Error>,
) -> Result<(), Error> {
    let mut buffer = LAST.take();
    buffer.resize(PORTION_BYTES, 0);
    let mut filled = 0;
    loop {
        let read = match from.read(&mut buffer[filled..]) {
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
            read => read?,
        };
        if read == 0 {
            break;
        }
        // Without a line feed there is nothing more that is whole.
        let ends = memrchr(b'\n', &buffer[filled..filled + read]).is_some();
        filled += read;
        if let Some(end) = ends.then(|| cut(&buffer[..filled])).flatten() {
            each(&buffer[..end])?;
            buffer.copy_within(end..filled, 0);
            filled -= end;
        }
        if filled == buffer.len() {
            // A line longer than the buffer.
            buffer.resize(2 * filled, 0);
        }
    }
    if filled > 0 {
        each(&buffer[..filled])?;
    }
    if buffer.len() == PORTION_BYTES {
        LAST.set(buffer);
    }
    Ok(())
}

/// Where the last line begins that has no end yet.
pub(crate) fn cut_at_line(bytes: &[u8]) -> Option<usize> {
    memrchr(b'\n', bytes).map(|end| end + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Gives a few bytes at a time.
    struct Dripping<'a>(&'a [u8], usize);

    impl Read for Dripping<'_> {
        fn read(&mut self, to: &mut [u8]) -> std::io::Result<usize> {
            let few = to.len().min(self.1).min(self.0.len());
            to[..few].copy_from_slice(&self.0[..few]);
            self.0 = &self.0[few..];
            Ok(few)
        }
    }

    #[test]
    fn lines_stay_whole() {
        let long = "x".repeat(3 * PORTION_BYTES);
        let text = format!("a\nbc\n\n{long}\nde\nf");
        for step in [1000, PORTION_BYTES, usize::MAX] {
            let mut seen = Vec::new();
            portions(Dripping(text.as_bytes(), step), cut_at_line, |portion| {
                seen.push(portion.to_vec());
                Ok(())
            })
            .unwrap();
            assert_eq!(seen.concat(), text.as_bytes());
            let (last, before) = seen.split_last().unwrap();
            assert!(before.iter().all(|portion| portion.ends_with(b"\n")));
            assert_eq!(last, b"f");
        }
        portions(&b""[..], cut_at_line, |_| panic!("there is nothing")).unwrap();
    }
}
