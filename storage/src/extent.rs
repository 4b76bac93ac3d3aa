//! How the parts of a job are written: not at all where a job runs over all of one dataset, as most do.

use bson::Uuid;
use model::parts::{BadParts, MOST_PARTS, Part, Parts, Source};

use crate::schema;

/// What the document of a job says of its parts beside its first dataset and the number of its blocks.
pub(crate) struct Extent {
    /// The incarnations of the datasets behind the first.
    pub(crate) also_ids: Vec<Uuid>,
    /// The first block of each dataset; empty: 0.
    pub(crate) firsts: Vec<u32>,
    /// One past the last block of each dataset; empty: there is one, of which all blocks take part.
    pub(crate) of_blocks: Vec<u32>,
    /// Table, first block and number of blocks of each part, one after the other; none: all blocks take part.
    pub(crate) parts: Option<Vec<u32>>,
    /// The same for very many, see [`packed`].
    pub(crate) packed: Option<bson::Binary>,
    /// The generation of each dataset; empty: 0.
    pub(crate) generations: Vec<u32>,
    /// Void numbers of each dataset; empty: none.
    pub(crate) voids: Vec<u32>,
}

impl Extent {
    pub(crate) fn of(parts: &Parts) -> Self {
        let sources = parts.sources();
        let also_ids = sources.iter().skip(1).map(|source| Uuid::from_uuid_1(source.id));
        let whole = parts.are_whole();
        let complete = sources.iter().all(|source| source.first == 0);
        let firsts = sources.iter().map(|source| source.first);
        let of_blocks = sources.iter().map(|source| source.blocks);
        let numbers = parts.parts();
        let many = numbers.len() > MOST_PARTS;
        let of_each = |of: fn(&Source) -> u32| match sources.iter().all(|source| of(source) == 0) {
            true => Vec::new(),
            false => sources.iter().map(of).collect(),
        };
        Self {
            generations: of_each(|source| source.generation),
            voids: of_each(|source| source.void),
            also_ids: also_ids.collect(),
            firsts: if complete { Vec::new() } else { firsts.collect() },
            of_blocks: if whole && complete && sources.len() == 1 {
                Vec::new()
            } else {
                of_blocks.collect()
            },
            packed: (!whole && many).then(|| schema::key(&packed(numbers))),
            parts: (!whole && !many).then(|| {
                numbers
                    .iter()
                    .flat_map(|part| [part.table, part.first, part.count])
                    .collect()
            }),
        }
    }

    /// The parts of a job over `blocks` blocks of which `first` is the first dataset.
    pub(crate) fn read(self, first: Uuid, blocks: u32) -> Result<Parts, BadParts> {
        let of_blocks = if self.of_blocks.is_empty() {
            vec![blocks]
        } else {
            self.of_blocks
        };
        let ids = std::iter::once(&first).chain(&self.also_ids);
        let firsts = self.firsts.into_iter().chain(std::iter::repeat(0));
        let generations = self.generations.into_iter().chain(std::iter::repeat(0));
        let voids = self.voids.into_iter().chain(std::iter::repeat(0));
        let sources = ids.zip(firsts).zip(of_blocks).zip(generations.zip(voids)).map(
            |(((id, first), blocks), (generation, void))| Source {
                id: id.to_uuid_1(),
                first,
                blocks,
                generation,
                void,
            },
        );
        let sources: Vec<Source> = sources.collect();
        if let Some(packed) = self.packed {
            return Parts::of(sources, unpacked(&packed.bytes));
        }
        let Some(numbers) = self.parts else {
            return Parts::whole(sources);
        };
        let parts = numbers.chunks_exact(3).map(|part| Part {
            table: part[0],
            first: part[1],
            count: part[2],
        });
        Parts::of(sources, parts.collect())
    }
}

/// Parts in few bytes: of each its table, how far behind the end of the one before it begins, and how many blocks it has,
/// as LEB128.
fn packed(parts: &[Part]) -> Vec<u8> {
    let (mut bytes, mut table, mut end) = (Vec::with_capacity(4 * parts.len()), 0, 0);
    for part in parts {
        if part.table != table {
            (table, end) = (part.table, 0);
        }
        // Parts of a table are in order.
        for mut number in [table, part.first.wrapping_sub(end), part.count] {
            while number >= 0x80 {
                bytes.push(number.to_le_bytes()[0] | 0x80);
                number >>= 7;
            }
            bytes.push(number.to_le_bytes()[0]);
        }
        end = part.first.wrapping_add(part.count);
    }
    bytes
}

/// What [`packed`] wrote; of other bytes parts that [`Parts::of`] may refuse.
fn unpacked(bytes: &[u8]) -> Vec<Part> {
    let (mut numbers, mut number, mut shift) = (Vec::new(), 0_u32, 0_u32);
    for byte in bytes {
        number |= u32::from(byte & 0x7f).checked_shl(shift).unwrap_or(0);
        shift += 7;
        if byte & 0x80 == 0 {
            numbers.push(number);
            (number, shift) = (0, 0);
        }
    }
    let (mut parts, mut table, mut end) = (Vec::with_capacity(numbers.len() / 3), 0, 0_u32);
    for part in numbers.chunks_exact(3) {
        if part[0] != table {
            (table, end) = (part[0], 0);
        }
        let first = end.wrapping_add(part[1]);
        end = first.wrapping_add(part[2]);
        parts.push(Part {
            table,
            first,
            count: part[2],
        });
    }
    parts
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source(id: u128, blocks: u32) -> Source {
        let id = uuid::Uuid::from_u128(id);
        Source {
            id,
            blocks,
            ..Source::default()
        }
    }

    #[test]
    fn reads_what_it_wrote_and_writes_little() {
        let (one, other) = (source(1, 9), source(2, 4));
        let merged = Source {
            generation: 3,
            void: 4,
            ..one
        };
        let cases = [
            Parts::whole(vec![merged]),
            Parts::selected(vec![merged], vec![vec![0..2, 6..9]]),
            Parts::selected(vec![other, merged], vec![vec![0..4], vec![5..9]]),
            Parts::whole(vec![one]),
            Parts::whole(vec![one, other]),
            Parts::selected(vec![one], vec![vec![2..3, 5..9]]),
            Parts::selected(vec![one], vec![vec![]]),
            Parts::selected(vec![one, other], vec![vec![], vec![1..2]]),
            Parts::whole(vec![Source { first: 2, ..one }]),
            Parts::selected(vec![one, Source { first: 2, ..other }], vec![vec![], vec![3..4]]),
        ];
        for parts in cases {
            let parts = parts.unwrap();
            let first = Uuid::from_uuid_1(parts.sources()[0].id);
            assert_eq!(Extent::of(&parts).read(first, parts.blocks()), Ok(parts));
        }
        let far = Source {
            blocks: u32::MAX,
            ..merged
        };
        let many = |step: u32| {
            (0..3000)
                .map(|at| at * step..at * step + 1 + at % 3)
                .collect::<Vec<_>>()
        };
        let finely = Parts::selected(vec![far, far, other], vec![many(100_000), many(7), vec![]]).unwrap();
        assert_eq!(finely.parts().len(), 6000);
        let extent = Extent::of(&finely);
        let bytes = extent.packed.as_ref().unwrap().bytes.len();
        assert!(bytes < 6 * 6000, "{bytes}");
        let first = Uuid::from_uuid_1(far.id);
        assert_eq!(extent.read(first, finely.blocks()), Ok(finely));
        let usual = Extent::of(&Parts::whole(vec![one]).unwrap());
        assert!(usual.also_ids.is_empty() && usual.of_blocks.is_empty() && usual.parts.is_none());
    }
}
