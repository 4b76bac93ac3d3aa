//! Which runs of small blocks are merged into one: a pure function of what a dataset has.
//!
//! Promise: a run has neighbours only, none of which is too young, too large or not ours to merge; it is wholly covered by
//! each view or wholly not, so that a view counts the lines of the new block exactly once; and it is worth its cost: a
//! block is written again only into one at least twice its size, so that a line is written a few times in its life. Of a
//! dataset that keeps its lines for a while, or so many bytes, a block never has more than a small part of that.
//!
//! Called by `storage`, when it looks for a run and again, with the views as they are then, before the run is replaced.

use std::ops::Range;

/// Bytes of lines in a block that is large enough: what agents cut of a busy log, and a compute node reads in the time
/// that a subtask costs anyway ten times over.
pub const TARGET_BYTES: u64 = 8 << 20;
/// Most numbers that one block stands for with its void ones: bounds how far a reader looks back for it.
pub const MOST_SPAN: u32 = 1 << 16;
/// Most pieces that one compaction merges: each is an object to read.
pub const MOST_PIECES: usize = 1024;
/// Fewest blocks that are merged into one where more may follow.
const FEWEST: u32 = 16;
/// The same where together with the next they would be too large.
const FEWEST_FULL: u32 = 4;
/// Into how many parts at least what a dataset keeps leaves, one after the other.
const KEPT_PARTS: u64 = 16;
/// How long blocks are let alone, in milliseconds: agents still append beside them, and refreshes of views read them.
pub const YOUNGEST_MS: i64 = 60_000;

/// What was registered together, or a block that was made of others.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Piece {
    /// Its numbers.
    pub range: Range<u32>,
    /// Those of them that have a block.
    pub occupied: Range<u32>,
    /// Bytes of its lines, or more.
    pub raw_bytes: u64,
    /// When the youngest line of it had been written, in milliseconds since 1970 UTC.
    pub newest_ms: i64,
    /// Whether its blocks may be merged at all: blocks that agents shipped into the store that all share.
    pub is_ours: bool,
}

/// Where runs must not be, or not end.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Walls {
    /// For each view what it covers of the dataset, in order: a run is wholly in it or wholly not.
    pub covered: Vec<Vec<Range<u32>>>,
    /// What is not touched: blocks of unfinished refreshes, and those that views leave out.
    pub closed: Vec<Range<u32>>,
}

/// When a run is worth its cost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Policy {
    /// Blocks whose lines are younger stay as they are, in milliseconds since 1970 UTC.
    pub not_after_ms: i64,
    /// Merges whatever becomes fewer blocks, as somebody asked to.
    pub eager: bool,
    /// Only blocks whose youngest lines were written within the same such time are merged, in milliseconds, since they
    /// leave together: of all times that many milliseconds after 1970 UTC the same, so that merging again moves none.
    pub together_ms: Option<i64>,
    /// Most bytes of lines in a block.
    pub target_bytes: u64,
}

impl Policy {
    /// What is done all the time, seen from `now_ms` (milliseconds since 1970 UTC).
    pub fn usual(now_ms: i64) -> Self {
        Self {
            not_after_ms: now_ms.saturating_sub(YOUNGEST_MS),
            eager: false,
            ..Self::asked()
        }
    }

    /// What somebody asked for.
    pub fn asked() -> Self {
        Self {
            not_after_ms: i64::MAX,
            eager: true,
            together_ms: None,
            target_bytes: TARGET_BYTES,
        }
    }

    /// The same for a dataset of which blocks leave whose lines are older than `keep_ms`, or where all have more than
    /// `max_bytes` together: no block has more than a small part of what it keeps.
    pub fn keeping(self, keep_ms: Option<u64>, max_bytes: Option<u64>) -> Self {
        let together = |keep: u64| i64::try_from(keep / KEPT_PARTS).unwrap_or(i64::MAX).max(1);
        let target = max_bytes.map_or(TARGET_BYTES, |most| most / KEPT_PARTS);
        Self {
            together_ms: keep_ms.map(together),
            target_bytes: self.target_bytes.min(target),
            ..self
        }
    }
}

impl Piece {
    /// Whether it may yet become part of a larger block, as is done all the time.
    pub fn is_open(&self, policy: Policy) -> bool {
        self.is_ours && self.raw_bytes <= policy.target_bytes / 2
    }
}

/// The first run of pieces to be merged into one block, by their places.
///
/// `pieces` are in order; gaps between them end a run.
pub fn choose(pieces: &[Piece], walls: &Walls, policy: Policy) -> Option<Range<usize>> {
    let sides: Vec<Option<Side>> = pieces.iter().map(|piece| side(piece, walls, policy)).collect();
    let mut first = 0;
    while first < pieces.len() {
        let (end, full) = extent(pieces, &sides, first, policy.target_bytes);
        match worth(&pieces[first..end], full, policy) {
            Worth::Whole => return Some(first..end),
            Worth::Begin(count) => return Some(first..first + count),
            Worth::Behind(count) => first += count,
            Worth::Nothing => first = end.max(first + 1),
        }
    }
    None
}

/// Whether the pieces of a run, chosen earlier, may be merged with views as they are now.
pub fn still_fits(pieces: &[Piece], walls: &Walls) -> bool {
    let policy = Policy::asked();
    let mut sides = pieces.iter().map(|piece| side(piece, walls, policy));
    let Some(Some(first)) = sides.next() else {
        return false;
    };
    sides.all(|side| side.as_ref() == Some(&first))
}

/// Which views cover a piece, and when it leaves.
type Side = (Vec<bool>, i64);

/// What all of a run must share; none where a piece must stay as it is.
fn side(piece: &Piece, walls: &Walls, policy: Policy) -> Option<Side> {
    let may = piece.is_ours
        && !piece.occupied.is_empty()
        && piece.newest_ms <= policy.not_after_ms
        && piece.raw_bytes < policy.target_bytes
        && !walls
            .closed
            .iter()
            .any(|closed| overlap(closed, &piece.range) > 0);
    if !may {
        return None;
    }
    let of_view = |covered: &Vec<Range<u32>>| {
        let within: u32 = covered.iter().map(|range| overlap(range, &piece.occupied)).sum();
        match within {
            0 => Some(false),
            _ if within as usize == piece.occupied.len() => Some(true),
            _ => None,
        }
    };
    let views: Option<Vec<bool>> = walls.covered.iter().map(of_view).collect();
    let leaves = policy
        .together_ms
        .map_or(0, |together| piece.newest_ms.div_euclid(together));
    Some((views?, leaves))
}

fn overlap(one: &Range<u32>, other: &Range<u32>) -> u32 {
    one.end.min(other.end).saturating_sub(one.start.max(other.start))
}

/// How far a run that begins here may go; whether only its size ends it.
fn extent(pieces: &[Piece], sides: &[Option<Side>], first: usize, target_bytes: u64) -> (usize, bool) {
    if sides[first].is_none() {
        return (first, false);
    }
    let begin = pieces[first].range.start;
    let mut bytes = pieces[first].raw_bytes;
    let mut end = first + 1;
    while let Some(next) = pieces.get(end) {
        if sides[end] != sides[first] || pieces[end - 1].range.end != next.range.start {
            return (end, false);
        }
        bytes = bytes.saturating_add(next.raw_bytes);
        let span = next.range.end.saturating_sub(begin);
        if bytes > target_bytes || span > MOST_SPAN || end - first >= MOST_PIECES {
            return (end, true);
        }
        end += 1;
    }
    (end, false)
}

/// What of a run is worth merging.
enum Worth {
    Whole,
    /// So many of its first pieces.
    Begin(usize),
    /// Perhaps what comes behind so many.
    Behind(usize),
    Nothing,
}

fn worth(run: &[Piece], full: bool, policy: Policy) -> Worth {
    let blocks = |run: &[Piece]| run.iter().map(|piece| piece.occupied.len() as u32).sum::<u32>();
    if policy.eager {
        return match blocks(run) {
            0 | 1 => Worth::Nothing,
            _ => Worth::Whole,
        };
    }
    let fewest = |full| if full { FEWEST_FULL } else { FEWEST };
    let largest = (0..run.len()).max_by_key(|&at| run[at].raw_bytes).unwrap_or(0);
    match run.get(largest) {
        None => Worth::Nothing,
        Some(_) if is_balanced(run) => match blocks(run) >= fewest(full) {
            true => Worth::Whole,
            false => Worth::Nothing,
        },
        // What stands before the large one can get no larger neighbour.
        Some(_) if is_balanced(&run[..largest]) && blocks(&run[..largest]) >= FEWEST => Worth::Begin(largest),
        Some(_) => Worth::Behind(largest + 1),
    }
}

/// Whether no piece has more than half of all bytes.
fn is_balanced(run: &[Piece]) -> bool {
    let all: u64 = run.iter().map(|piece| piece.raw_bytes).sum();
    let largest = run.iter().map(|piece| piece.raw_bytes).max().unwrap_or(0);
    run.len() > 1 && largest <= all / 2
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const KIB: u64 = 1024;
    const NOW: i64 = 10_000_000;

    fn piece(first: u32, count: u32, raw_bytes: u64) -> Piece {
        Piece {
            range: first..first + count,
            occupied: first..first + count,
            raw_bytes,
            newest_ms: 0,
            is_ours: true,
        }
    }

    fn small(count: u32) -> Vec<Piece> {
        (0..count).map(|at| piece(at, 1, 2 * KIB)).collect()
    }

    fn usual(pieces: &[Piece]) -> Option<Range<usize>> {
        choose(pieces, &Walls::default(), Policy::usual(NOW))
    }

    /// The pieces after a run has become one.
    fn merged(mut pieces: Vec<Piece>, run: Range<usize>) -> Vec<Piece> {
        let taken = &pieces[run.clone()];
        let range = taken[0].range.start..taken.last().unwrap().range.end;
        let last = taken.last().unwrap().occupied.end;
        let one = Piece {
            occupied: last - 1..last,
            raw_bytes: taken.iter().map(|piece| piece.raw_bytes).sum(),
            newest_ms: taken.iter().map(|piece| piece.newest_ms).max().unwrap(),
            is_ours: true,
            range,
        };
        pieces.splice(run, [one]);
        pieces
    }

    #[test]
    fn enough_small_blocks_become_one_and_few_wait_for_more() {
        assert_eq!(usual(&small(40)), Some(0..40));
        assert_eq!(usual(&small(10)), None);
        let asked = choose(&small(10), &Walls::default(), Policy::asked());
        assert_eq!(asked, Some(0..10));
        let one = choose(&small(1), &Walls::default(), Policy::asked());
        assert_eq!(one, None);
        let large: Vec<_> = (0..20).map(|at| piece(at, 1, 1024 * KIB)).collect();
        assert_eq!(usual(&large), Some(0..8), "as much as a large block has");
    }

    #[test]
    fn what_must_stay_ends_a_run() {
        let mut pieces = small(60);
        pieces[20].is_ours = false;
        pieces[40].newest_ms = NOW;
        assert_eq!(usual(&pieces), Some(0..20));
        assert_eq!(usual(&pieces[20..]), Some(1..20));
        assert_eq!(usual(&pieces[40..]), Some(1..20));
        pieces[40].newest_ms = 0;
        pieces[37].raw_bytes = TARGET_BYTES;
        assert_eq!(usual(&pieces[20..]), Some(1..17));
        let gap = [&small(10)[..], &small(40)[12..22]].concat();
        assert_eq!(usual(&gap), None, "something is missing between them");
    }

    #[test]
    fn a_run_is_on_one_side_of_each_view() {
        let pieces = small(60);
        let walls = |covered: Range<u32>, closed: Option<Range<u32>>| Walls {
            covered: vec![vec![covered]],
            closed: closed.into_iter().collect(),
        };
        let choose = |walls: &Walls| choose(&pieces, walls, Policy::usual(NOW));
        assert_eq!(choose(&walls(0..30, None)), Some(0..30));
        assert_eq!(choose(&walls(10..60, None)), Some(10..60));
        assert_eq!(choose(&walls(0..60, Some(20..21))), Some(0..20));
        assert!(still_fits(&pieces[..30], &walls(0..30, None)));
        assert!(!still_fits(&pieces[..31], &walls(0..30, None)));
        assert!(!still_fits(&pieces[..30], &walls(0..30, Some(29..30))));
        let half = [piece(0, 4, 1), piece(4, 20, 20)];
        let side = super::side(&half[0], &walls(2..30, None), Policy::asked());
        assert_eq!(side, None, "it is half covered");
    }

    #[test]
    fn what_is_large_is_not_written_again_for_a_few_lines() {
        let mut pieces = small(30);
        pieces.insert(0, piece(0, 1, 4096 * KIB));
        for (at, piece) in (0..).zip(&mut pieces) {
            (piece.range, piece.occupied) = (at..at + 1, at..at + 1);
        }
        assert_eq!(usual(&pieces), Some(1..31));
    }

    #[test]
    fn a_line_of_a_quiet_log_is_written_a_few_times() {
        let (mut pieces, mut written, mut given) = (Vec::new(), 0, 0);
        for minute in 0..24 * 60 {
            for block in 0..30 {
                pieces.push(piece(minute * 30 + block, 1, 2 * KIB));
                given += 2 * KIB;
            }
            while let Some(run) = usual(&pieces) {
                written += pieces[run.clone()]
                    .iter()
                    .map(|piece| piece.raw_bytes)
                    .sum::<u64>();
                pieces = merged(pieces, run);
            }
        }
        assert!(written < 10 * given, "{} times", written / given);
        let most = usize::try_from(given / TARGET_BYTES).unwrap() * 2 + 64;
        assert!(pieces.len() < most, "{} blocks are left", pieces.len());
    }

    prop_compose! {
        fn pieces()(
            given in prop::collection::vec((1..4_u32, 0..20_u32, 1..3000_u64, 0..10_u8, any::<bool>()), 0..80),
        ) -> Vec<Piece> {
            let mut next = 0;
            let piece = |(count, void, kib, odd, gap): (u32, u32, u64, u8, bool)| {
                next += u32::from(gap && odd == 3);
                let range = next..next + count + if count == 1 { void } else { 0 };
                next = range.end;
                Piece {
                    occupied: range.end - count..range.end,
                    range,
                    raw_bytes: kib * KIB,
                    newest_ms: if odd == 1 { NOW } else { 100 * i64::from(next) - 300 * i64::from(odd == 4) },
                    is_ours: odd != 2,
                }
            };
            given.into_iter().map(piece).collect()
        }
    }

    fn ranges() -> impl Strategy<Value = Vec<Range<u32>>> {
        prop::collection::vec((0..400_u32, 1..200_u32), 0..3).prop_map(|given| {
            let ranges = given.into_iter().map(|(first, count)| first..first + count);
            crate::view::ranges::joined(ranges.collect())
        })
    }

    proptest! {
        #[test]
        fn what_is_chosen_keeps_every_promise_and_comes_to_an_end(
            pieces in pieces(), covered in prop::collection::vec(ranges(), 0..3), closed in ranges(), eager: bool,
            keep_ms in prop::option::of(16..100_000_u64), max_bytes in prop::option::of(0..400_000 * KIB),
        ) {
            let walls = Walls { covered, closed };
            let policy = if eager { Policy { not_after_ms: NOW - 1, ..Policy::asked() } } else { Policy::usual(NOW) };
            let policy = policy.keeping(keep_ms, max_bytes);
            let has = |ranges: &[Range<u32>], number: u32| ranges.iter().any(|range| range.contains(&number));
            let all = |pieces: &[Piece]| pieces.iter().map(|piece| piece.raw_bytes).sum::<u64>();
            let (before, mut left, mut rounds) = (all(&pieces), pieces, 0);
            while let Some(run) = choose(&left, &walls, policy) {
                let taken = &left[run.clone()];
                prop_assert!(taken.iter().map(|piece| piece.occupied.len()).sum::<usize>() > 1);
                prop_assert!(all(taken) <= TARGET_BYTES && taken.len() <= MOST_PIECES);
                // What is kept leaves in small parts.
                prop_assert!(max_bytes.is_none_or(|most| all(taken) <= most / 16));
                if let Some(keep) = keep_ms {
                    let ages: Vec<i64> = taken.iter().map(|piece| piece.newest_ms).collect();
                    let (oldest, youngest) = (ages.iter().min().unwrap(), ages.iter().max().unwrap());
                    prop_assert!(youngest - oldest <= i64::try_from(keep / 16).unwrap());
                }
                prop_assert!(taken.windows(2).all(|two| two[0].range.end == two[1].range.start));
                prop_assert!(taken.iter().all(|piece| piece.is_ours && piece.newest_ms <= policy.not_after_ms));
                let numbers: Vec<u32> = taken.iter().flat_map(|piece| piece.occupied.clone()).collect();
                for view in &walls.covered {
                    let inside = numbers.iter().filter(|number| has(view, **number)).count();
                    prop_assert!(inside == 0 || inside == numbers.len());
                }
                prop_assert!(!numbers.iter().any(|number| has(&walls.closed, *number)));
                prop_assert!(still_fits(taken, &walls));
                if !eager {
                    prop_assert!(taken.iter().all(|piece| piece.raw_bytes * 2 <= all(taken)));
                }
                left = merged(left, run);
                rounds += 1;
                prop_assert!(rounds <= 400);
            }
            prop_assert_eq!(all(&left), before);
        }
    }
}
