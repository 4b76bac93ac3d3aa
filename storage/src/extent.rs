//! How the parts of a job are written: not at all where a job runs over all of one dataset, as most do.

use bson::Uuid;
use model::parts::{BadParts, Part, Parts, Source};

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
}

impl Extent {
    pub(crate) fn of(parts: &Parts) -> Self {
        let sources = parts.sources();
        let also_ids = sources.iter().skip(1).map(|source| Uuid::from_uuid_1(source.id));
        let whole = parts.are_whole();
        let complete = sources.iter().all(|source| source.first == 0);
        let firsts = sources.iter().map(|source| source.first);
        let of_blocks = sources.iter().map(|source| source.blocks);
        let numbers = parts.parts().iter();
        Self {
            also_ids: also_ids.collect(),
            firsts: if complete { Vec::new() } else { firsts.collect() },
            of_blocks: if whole && complete && sources.len() == 1 {
                Vec::new()
            } else {
                of_blocks.collect()
            },
            parts: (!whole).then(|| {
                numbers
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
        let sources = ids
            .zip(firsts)
            .zip(of_blocks)
            .map(|((id, first), blocks)| Source {
                id: id.to_uuid_1(),
                first,
                blocks,
            });
        let sources: Vec<Source> = sources.collect();
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

#[cfg(test)]
mod tests {
    use super::*;

    fn source(id: u128, blocks: u32) -> Source {
        let id = uuid::Uuid::from_u128(id);
        let first = 0;
        Source { id, first, blocks }
    }

    #[test]
    fn reads_what_it_wrote_and_writes_little() {
        let (one, other) = (source(1, 9), source(2, 4));
        let cases = [
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
            let first = Uuid::from_uuid_1(one.id);
            assert_eq!(Extent::of(&parts).read(first, parts.blocks()), Ok(parts));
        }
        let usual = Extent::of(&Parts::whole(vec![one]).unwrap());
        assert!(usual.also_ids.is_empty() && usual.of_blocks.is_empty() && usual.parts.is_none());
    }
}
