//! Decompression on the way, of files that tools like `cat`, pigz or logrotate have put together from several parts.

use std::io::{self, Read};

use model::Codec;

/// Undoes the compression of `stored`, through all its members, frames or streams to the end. What ends in the middle
/// of one is an error of the read that meets it.
///
/// # Errors
/// Only of making the decoder.
pub(crate) fn decoder(codec: Codec, stored: impl Read + Send + 'static) -> io::Result<Box<dyn Read + Send>> {
    Ok(match codec {
        Codec::None => Box::new(stored),
        Codec::Gzip => Box::new(flate2::read::MultiGzDecoder::new(stored)),
        Codec::Zstd => Box::new(zstd::stream::read::Decoder::new(stored)?),
        Codec::Bzip2 => Box::new(bzip2::read::MultiBzDecoder::new(stored)),
        Codec::Xz => Box::new(liblzma::read::XzDecoder::new_multi_decoder(stored)),
    })
}

#[cfg(test)]
pub(crate) mod tests {
    use std::io::{Cursor, Write};

    use super::*;

    /// `parts`, each compressed on its own and put one after the other.
    pub(crate) fn compressed(codec: Codec, parts: &[&[u8]]) -> Vec<u8> {
        let mut all = Vec::new();
        for part in parts {
            match codec {
                Codec::None => all.extend_from_slice(part),
                Codec::Gzip => {
                    let mut encoder = flate2::write::GzEncoder::new(&mut all, flate2::Compression::fast());
                    encoder.write_all(part).unwrap();
                    encoder.finish().unwrap();
                }
                Codec::Zstd => all.extend(zstd::encode_all(*part, 1).unwrap()),
                Codec::Bzip2 => {
                    let mut encoder = bzip2::write::BzEncoder::new(&mut all, bzip2::Compression::fast());
                    encoder.write_all(part).unwrap();
                    encoder.finish().unwrap();
                }
                Codec::Xz => {
                    let mut encoder = liblzma::write::XzEncoder::new(&mut all, 1);
                    encoder.write_all(part).unwrap();
                    encoder.finish().unwrap();
                }
            }
        }
        all
    }

    const ALL: [Codec; 4] = [Codec::Gzip, Codec::Zstd, Codec::Bzip2, Codec::Xz];

    #[test]
    fn reads_through_all_parts() {
        for codec in ALL {
            let stored = compressed(codec, &[b"one\ntw", b"o\n", b"", b"three"]);
            assert_eq!(Codec::detect(&stored), codec);
            let mut text = String::new();
            decoder(codec, Cursor::new(stored))
                .unwrap()
                .read_to_string(&mut text)
                .unwrap();
            assert_eq!(text, "one\ntwo\nthree", "{codec:?}");
        }
    }

    #[test]
    fn a_cut_off_part_is_an_error() {
        for codec in ALL {
            let mut stored = compressed(codec, &[b"first\n", &b"some lines\n".repeat(100)]);
            stored.truncate(stored.len() - 6);
            let read = decoder(codec, Cursor::new(stored))
                .unwrap()
                .read_to_end(&mut Vec::new());
            assert!(read.is_err(), "{codec:?}");
        }
    }
}
