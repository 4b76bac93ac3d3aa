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

/// Calls `each` with whole lines, as many as are there, and whether they are the last, which may end without a line feed.
/// It tells how many bytes it took: the others come again, with more behind them. Of the last it takes all.
///
/// # Errors
/// [`Error::Read`], those of `each`.
pub(crate) fn portions(
    mut from: impl Read,
    mut each: impl FnMut(&[u8], bool) -> Result<usize, Error>,
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
        let end = memrchr(b'\n', &buffer[filled..filled + read]).map(|end| filled + end + 1);
        filled += read;
        if let Some(end) = end {
            let taken = each(&buffer[..end], false)?;
            buffer.copy_within(taken..filled, 0);
            filled -= taken;
        }
        if filled == buffer.len() {
            // A line, or lines that belong together, longer than the buffer.
            buffer.resize(2 * filled, 0);
        }
    }
    if filled > 0 {
        each(&buffer[..filled], true)?;
    }
    if buffer.len() == PORTION_BYTES {
        LAST.set(buffer);
    }
    Ok(())
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
            portions(Dripping(text.as_bytes(), step), |portion, _| {
                seen.push(portion.to_vec());
                Ok(portion.len())
            })
            .unwrap();
            assert_eq!(seen.concat(), text.as_bytes());
            let (last, before) = seen.split_last().unwrap();
            assert!(before.iter().all(|portion| portion.ends_with(b"\n")));
            assert_eq!(last, b"f");
        }
        portions(&b""[..], |_, _| panic!("there is nothing")).unwrap();
    }

    #[test]
    fn what_is_not_taken_comes_again() {
        let mut seen = Vec::new();
        portions(Dripping(b"a\nb\nc\nd\n", 4), |portion, last| {
            seen.push((portion.to_vec(), last));
            Ok(if last { portion.len() } else { 2 })
        })
        .unwrap();
        let expected = [(&b"a\nb\n"[..], false), (b"b\nc\nd\n", false), (b"c\nd\n", true)];
        assert_eq!(seen, expected.map(|(portion, last)| (portion.to_vec(), last)));
    }
}
