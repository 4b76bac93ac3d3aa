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
