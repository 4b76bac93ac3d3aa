//! Which blocks a job runs over: from the index of a subtask to the block behind it.

use std::ops::Range;

use uuid::Uuid;

/// A dataset as it was when a job over it was submitted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Source {
    /// Its incarnation: a removed and newly added dataset has another.
    pub id: Uuid,
    /// Its first block that had not left it.
    pub first: u32,
    /// One past its last block; later ones are not part of the job.
    pub blocks: u32,
    /// How often blocks of it had been merged into larger ones: the job reads what was there then.
    pub generation: u32,
    /// Numbers from `first` on that were void: what was there had become part of another block.
    pub void: u32,
}

impl Source {
    /// How many blocks it had.
    pub fn count(&self) -> u32 {
        self.span().saturating_sub(self.void)
    }

    /// How many numbers it had, with or without a block.
    pub fn span(&self) -> u32 {
        self.blocks.saturating_sub(self.first)
    }

    /// Which blocks its numbers mean.
    pub fn edition(&self) -> Edition {
        Edition {
            dataset: self.id,
            generation: self.generation,
        }
    }
}

/// What the numbers of the blocks of a dataset mean: a compaction puts one block in the place of several, and leaves the
/// others void. An edition never changes, but for blocks that come behind it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Edition {
    /// Incarnation of the dataset.
    pub dataset: Uuid,
    /// How many compactions count.
    pub generation: u32,
}

/// Consecutive blocks of one of the datasets of a job.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Part {
    /// Which dataset: 0 is [`JobSpec::dataset`](crate::JobSpec::dataset), then come those of
    /// [`JobSpec::also`](crate::JobSpec::also).
    pub table: u32,
    /// Number of its first block in the dataset.
    pub first: u32,
    /// How many; at least 1.
    pub count: u32,
}

impl Part {
    /// The numbers of its blocks in the dataset.
    pub fn range(&self) -> Range<u32> {
        self.first..self.first.saturating_add(self.count)
    }
}

/// The block behind a subtask.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// Which dataset, as in [`Part::table`].
    pub table: u32,
    /// Its incarnation.
    pub dataset: Uuid,
    /// The number of the block in it.
    pub block: u32,
    /// How many subtasks, this one among them, go on with the blocks that follow in the dataset.
    pub left: u32,
}

/// The blocks of a job, in the order of its subtasks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Parts {
    sources: Vec<Source>,
    parts: Vec<Part>,
    /// One past the index of the last subtask of each part.
    ends: Vec<u32>,
}

/// Most parts of a job: they travel in its document, which is read often. What is more finely cut takes blocks along that
/// could have been left out.
pub const MOST_PARTS: usize = 1000;
/// The same where blocks were merged: between any two of these there are void numbers, which a job had better leave out.
pub const MOST_PARTS_COMPACTED: usize = 10_000;

/// Parts that fit no datasets.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadParts {
    /// More blocks than a job can have subtasks.
    #[error("{0} blocks are more than one job can run over")]
    TooMany(u64),
    /// A part of a dataset that is not there, or behind the end of one.
    #[error("part {0:?} lies in none of the datasets of the job")]
    Outside(Part),
}

impl Parts {
    /// All blocks of these datasets, one dataset after the other; void numbers take part.
    ///
    /// # Errors
    /// [`BadParts::TooMany`].
    pub fn whole(sources: Vec<Source>) -> Result<Self, BadParts> {
        let all = (0..).zip(&sources).map(|(table, source)| Part {
            table,
            first: source.first,
            count: source.span(),
        });
        let parts = all.filter(|part| part.count > 0).collect();
        Self::of(sources, parts)
    }

    /// The blocks of these datasets with a number in one of the ranges, which are given by dataset, in any order. A
    /// dataset without ranges takes no part; what lies behind its end is left out. More than [`MOST_PARTS`], or
    /// [`MOST_PARTS_COMPACTED`], are joined across the smallest gaps.
    ///
    /// # Errors
    /// [`BadParts::TooMany`].
    pub fn selected(sources: Vec<Source>, ranges: Vec<Vec<Range<u32>>>) -> Result<Self, BadParts> {
        let mut parts: Vec<Part> = Vec::new();
        for ((table, source), mut ranges) in (0..).zip(&sources).zip(ranges) {
            ranges.sort_unstable_by_key(|range| range.start);
            for range in ranges {
                let (first, end) = (range.start.max(source.first), range.end.min(source.blocks));
                match parts.last_mut() {
                    Some(last) if last.table == table && first <= last.range().end => {
                        last.count = last.count.max(end.saturating_sub(last.first));
                    }
                    _ if first < end => parts.push(Part {
                        table,
                        first,
                        count: end - first,
                    }),
                    _ => {}
                }
            }
        }
        let is_compacted = sources.iter().any(|source| source.generation > 0);
        let most = if is_compacted {
            MOST_PARTS_COMPACTED
        } else {
            MOST_PARTS
        };
        Self::of(sources, joined(parts, most))
    }

    /// These parts of these datasets, as they were written.
    ///
    /// # Errors
    /// [`BadParts`].
    pub fn of(sources: Vec<Source>, parts: Vec<Part>) -> Result<Self, BadParts> {
        let mut ends = Vec::with_capacity(parts.len());
        let mut total = 0_u64;
        for part in &parts {
            let source = sources.get(part.table as usize);
            let end = part.first.checked_add(part.count);
            if part.count == 0
                || source.is_none_or(|source| {
                    part.first < source.first || end.is_none_or(|end| end > source.blocks)
                })
            {
                return Err(BadParts::Outside(*part));
            }
            total += u64::from(part.count);
            ends.push(u32::try_from(total).unwrap_or(u32::MAX));
        }
        if total > u64::from(crate::limits::JOB_SUBTASKS) {
            return Err(BadParts::TooMany(total));
        }
        Ok(Self { sources, parts, ends })
    }

    /// The datasets, in the order in which [`Part::table`] counts them.
    pub fn sources(&self) -> &[Source] {
        &self.sources
    }

    /// The parts, in the order of their subtasks.
    pub fn parts(&self) -> &[Part] {
        &self.parts
    }

    /// Number of blocks, and so of the subtasks over blocks.
    pub fn blocks(&self) -> u32 {
        self.ends.last().copied().unwrap_or(0)
    }

    /// Blocks of all the datasets, whether they take part or not.
    pub fn of_blocks(&self) -> u64 {
        self.sources.iter().map(|source| u64::from(source.count())).sum()
    }

    /// Whether every number of every dataset takes part, void or not.
    pub fn are_whole(&self) -> bool {
        let all = self.sources.iter().map(|source| u64::from(source.span()));
        u64::from(self.blocks()) == all.sum::<u64>()
    }

    /// The runs of blocks of a dataset, each with the index of its first subtask.
    pub fn runs_of(&self, dataset: Uuid) -> impl Iterator<Item = (u32, Range<u32>)> {
        self.parts.iter().zip(&self.ends).filter_map(move |(part, end)| {
            let source = self.sources.get(part.table as usize)?;
            (source.id == dataset).then(|| (end - part.count, part.range()))
        })
    }

    /// The block behind the subtask with this index; none for the merge.
    pub fn at(&self, index: u32) -> Option<Place> {
        let position = self.ends.partition_point(|&end| end <= index);
        let (part, end) = (self.parts.get(position)?, self.ends[position]);
        let left = end - index;
        Some(Place {
            table: part.table,
            dataset: self.sources.get(part.table as usize)?.id,
            block: part.first + (part.count - left),
            left,
        })
    }
}

/// Closes the smallest gaps until there are few enough.
fn joined(parts: Vec<Part>, most: usize) -> Vec<Part> {
    let surplus = parts.len().saturating_sub(most);
    if surplus == 0 {
        return parts;
    }
    let gap = |before: &Part, after: &Part| after.first - before.range().end;
    let mut gaps: Vec<(u32, usize)> = (1..parts.len())
        .filter(|&at| parts[at].table == parts[at - 1].table)
        .map(|at| (gap(&parts[at - 1], &parts[at]), at))
        .collect();
    gaps.sort_unstable();
    let mut closed = vec![false; parts.len()];
    for &(_, at) in gaps.iter().take(surplus) {
        closed[at] = true;
    }
    let mut kept: Vec<Part> = Vec::with_capacity(most);
    for (part, closed) in parts.into_iter().zip(closed) {
        match kept.last_mut() {
            Some(last) if closed => last.count = part.range().end - last.first,
            _ => kept.push(part),
        }
    }
    kept
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn source(id: u128, blocks: u32) -> Source {
        let id = Uuid::from_u128(id);
        Source {
            id,
            blocks,
            ..Source::default()
        }
    }

    fn numbers(parts: &Parts) -> Vec<(u32, u32)> {
        (0..parts.blocks())
            .map(|index| parts.at(index).unwrap())
            .map(|place| (place.table, place.block))
            .collect()
    }

    #[test]
    fn whole_datasets_follow_one_another() {
        let parts = Parts::whole(vec![source(1, 2), source(2, 0), source(3, 1)]).unwrap();
        assert_eq!(numbers(&parts), [(0, 0), (0, 1), (2, 0)]);
        let second = parts.at(1).unwrap();
        assert_eq!((second.dataset, second.left), (Uuid::from_u128(1), 1));
        assert!(parts.are_whole() && parts.at(3).is_none());
        let none = Parts::whole(vec![source(1, 0)]).unwrap();
        assert!(none.are_whole() && none.at(0).is_none());
        let too_many = Parts::whole(vec![source(1, u32::MAX), source(2, 9)]);
        assert!(matches!(too_many, Err(BadParts::TooMany(_))));
    }

    #[test]
    fn ranges_are_put_in_order_joined_and_cut_off() {
        let ranges = vec![vec![7..20, 2..4, 3..5, 5..6], vec![], vec![0..1]];
        let parts = Parts::selected(vec![source(1, 10), source(2, 5), source(3, 1)], ranges).unwrap();
        let all: Vec<(u32, u32)> = parts
            .parts()
            .iter()
            .map(|part| (part.first, part.count))
            .collect();
        assert_eq!(all, [(2, 4), (7, 3), (0, 1)]);
        assert_eq!((parts.blocks(), parts.of_blocks()), (8, 16));
        assert_eq!(parts.at(5).unwrap().block, 8);
    }

    #[test]
    fn what_has_left_takes_no_part() {
        let left = Source {
            first: 3,
            ..source(1, 9)
        };
        let whole = Parts::whole(vec![left, source(2, 1)]).unwrap();
        assert_eq!(
            (whole.blocks(), whole.of_blocks(), whole.are_whole()),
            (7, 7, true)
        );
        assert_eq!(whole.at(0).unwrap().block, 3);
        let some = Parts::selected(vec![left], vec![vec![0..2, 1..5, 7..8]]).unwrap();
        assert_eq!(numbers(&some), [(0, 3), (0, 4), (0, 7)]);
        let runs: Vec<_> = some.runs_of(left.id).collect();
        assert_eq!(runs, [(0, 3..5), (2, 7..8)]);
        assert_eq!(some.runs_of(Uuid::from_u128(2)).count(), 0);
        let below = Part {
            table: 0,
            first: 2,
            count: 1,
        };
        assert!(Parts::of(vec![left], vec![below]).is_err());
    }

    #[test]
    fn what_is_written_wrong_is_refused() {
        let bad = |table, first, count| {
            let part = Part { table, first, count };
            Parts::of(vec![source(1, 10)], vec![part]).is_err()
        };
        assert!(bad(1, 0, 1) && bad(0, 9, 2) && bad(0, 0, 0) && bad(0, u32::MAX, 2));
        assert!(!bad(0, 9, 1));
    }

    #[test]
    fn too_many_parts_close_their_smallest_gaps() {
        let wide = 3 * MOST_PARTS as u32;
        let mut ranges: Vec<_> = (0..wide / 3).map(|at| at * 3..at * 3 + 1).collect();
        ranges.push(wide + 100..wide + 101);
        let parts = Parts::selected(vec![source(1, 2 * wide)], vec![ranges]).unwrap();
        assert_eq!(parts.parts().len(), MOST_PARTS);
        assert_eq!(
            parts.parts().last().unwrap().first,
            wide + 100,
            "the widest gap stays"
        );
    }

    proptest! {
        #[test]
        fn holds_what_was_selected(ranges in prop::collection::vec((0u32..300, 0u32..9), 0..40)) {
            let ranges: Vec<_> = ranges.into_iter().map(|(first, count)| first..first + count).collect();
            let wanted: std::collections::BTreeSet<u32> = ranges.iter().cloned().flatten().filter(|block| *block < 250).collect();
            let parts = Parts::selected(vec![source(1, 250)], vec![ranges]).unwrap();
            let found: Vec<u32> = numbers(&parts).into_iter().map(|(_, block)| block).collect();
            prop_assert_eq!(found, wanted.into_iter().collect::<Vec<_>>());
        }
    }
}
