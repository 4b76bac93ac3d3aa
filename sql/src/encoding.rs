//! Whether bytes are text that lines can be read of.

use crate::Error;

/// Bytes that tell it.
const LOOKED_AT: usize = 4096;

/// Refuses UTF-16, by its mark or since every other byte of the first lines is a NUL: in it no line feed is found.
///
/// # Errors
/// [`Error::BadFormat`] that tells what to do.
pub fn check_encoding(sample: &[u8]) -> Result<(), Error> {
    if is_utf16(sample) {
        return Err(Error::BadFormat(
            "it is UTF-16, of which no lines are read: convert it with `iconv -f UTF-16 -t UTF-8`".into(),
        ));
    }
    Ok(())
}

fn is_utf16(sample: &[u8]) -> bool {
    let sample = &sample[..sample.len().min(LOOKED_AT)];
    if let [0xff, 0xfe, ..] | [0xfe, 0xff, ..] = sample {
        return true;
    }
    let (pairs, _) = sample.as_chunks::<2>();
    let nuls = |place: usize| pairs.iter().filter(|pair| pair[place] == 0).count();
    let (even, odd) = (nuls(0), nuls(1));
    even.min(odd) == 0 && even.max(odd) * 2 > pairs.len().max(2)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn utf16_is_known_with_and_without_its_mark() {
        let wide = |text: &str| {
            text.encode_utf16()
                .flat_map(u16::to_le_bytes)
                .collect::<Vec<u8>>()
        };
        let big = |text: &str| {
            text.encode_utf16()
                .flat_map(u16::to_be_bytes)
                .collect::<Vec<u8>>()
        };
        for bytes in [
            wide("\u{feff}id,name\n"),
            wide("id,name\n1,x\n"),
            big("\u{feff}a"),
            big("id,\u{4e2d}\n1,x\n"),
        ] {
            assert!(check_encoding(&bytes).is_err(), "{bytes:?}");
        }
        let nuls = [b"line\n".to_vec(), vec![0; 4096], b"line\n".to_vec()].concat();
        for bytes in [
            b"".to_vec(),
            b"\0".to_vec(),
            b"a\0".to_vec(),
            nuls,
            "\u{feff}a\n".into(),
            vec![0; 100],
        ] {
            assert!(check_encoding(&bytes).is_ok(), "{bytes:?}");
        }
    }
}
