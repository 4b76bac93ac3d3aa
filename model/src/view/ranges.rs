//! Sets of blocks, as ranges of their numbers in order.

use std::ops::Range;

/// How many blocks there are in ranges.
pub fn count(ranges: &[Range<u32>]) -> u64 {
    ranges.iter().map(|range| range.len() as u64).sum()
}

/// In order, neighbours together.
pub fn joined(mut ranges: Vec<Range<u32>>) -> Vec<Range<u32>> {
    ranges.sort_unstable_by_key(|range| range.start);
    let mut joined: Vec<Range<u32>> = Vec::new();
    for range in ranges.into_iter().filter(|range| !range.is_empty()) {
        match joined.last_mut() {
            Some(last) if range.start <= last.end => last.end = last.end.max(range.end),
            _ => joined.push(range),
        }
    }
    joined
}

/// What of `ranges` is in none of `others`; both in order.
pub fn without(ranges: &[Range<u32>], others: &[Range<u32>]) -> Vec<Range<u32>> {
    let mut left = Vec::new();
    for range in ranges {
        let mut from = range.start;
        for other in others {
            if other.start > from {
                left.push(from..other.start.min(range.end));
            }
            from = from.max(other.end);
            if from >= range.end {
                break;
            }
        }
        left.push(from..range.end);
    }
    left.retain(|range| !range.is_empty());
    left
}

/// The ranges of several datasets, at most `most` together where that can be had by taking in what is void between two of
/// them; as little of that as will do. `void` tells for each dataset what is; all in order.
pub fn bridged(ranges: Vec<Vec<Range<u32>>>, void: &[&[Range<u32>]], most: usize) -> Vec<Vec<Range<u32>>> {
    let all: usize = ranges.iter().map(Vec::len).sum();
    let Some(surplus) = all.checked_sub(most).filter(|surplus| *surplus > 0) else {
        return ranges;
    };
    let mut gaps = Vec::new();
    for (at, (ranges, void)) in ranges.iter().zip(void).enumerate() {
        for two in ranges.windows(2) {
            let gap = two[0].end..two[1].start;
            let around = void.partition_point(|void| void.end < gap.end);
            if void.get(around).is_some_and(|void| void.start <= gap.start) {
                gaps.push((gap.len(), at, gap));
            }
        }
    }
    gaps.sort_unstable_by_key(|(length, at, gap)| (*length, *at, gap.start));
    gaps.truncate(surplus);
    let mut bridged = ranges;
    for (_, at, gap) in gaps {
        bridged[at].push(gap);
    }
    bridged.into_iter().map(joined).collect()
}
