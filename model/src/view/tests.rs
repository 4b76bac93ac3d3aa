#![expect(
    clippy::single_range_in_vec_init,
    reason = "blocks are told as ranges, often one"
)]

use super::*;
use crate::{job::Counts, parts::Part, processor::QueryTable, table::Column, table::ColumnType};

const VERSION: &str = "1";

fn source(id: u128, first: u32, blocks: u32) -> Source {
    let id = Uuid::from_u128(id);
    Source {
        id,
        first,
        blocks,
        ..Source::default()
    }
}

fn table(format: Format, columns: &[&str]) -> Table {
    let columns = columns.iter().map(|name| Column {
        name: name.to_string(),
        kind: ColumnType::Text,
    });
    Table {
        format,
        columns: columns.collect(),
        least: None,
    }
}

/// Over a dataset with the number 1.
fn view(pinned: Table) -> View {
    let name = Name::new("logs").unwrap();
    let query = Query {
        sql: "SELECT count(*) FROM logs".into(),
        tables: vec![QueryTable {
            name: name.to_string(),
            table: pinned,
            lower_half: Some("ab".into()),
        }],
        version: VERSION.into(),
        ..Query::default()
    };
    let covered = Covered {
        dataset: name,
        id: Uuid::from_u128(1),
        blocks: Vec::new(),
        generation: 0,
    };
    View::new(
        Name::new("v").unwrap(),
        Uuid::from_u128(9),
        query,
        vec![covered],
        0,
    )
}

fn raw() -> View {
    view(table(Format::Raw, &[]))
}

fn standing(source: Source, table: Table, void: &[Range<u32>]) -> Seen {
    Some(Standing {
        source,
        table: Some(table),
        void: void.to_vec(),
        cut: 0,
    })
}

fn seen(id: u128, first: u32, blocks: u32) -> Vec<Seen> {
    vec![standing(source(id, first, blocks), table(Format::Raw, &[]), &[])]
}

fn refresh(view: &View, seen: &[Seen], now_ms: i64) -> Option<Job> {
    view.refresh(seen, VERSION, JobId(Uuid::from_u128(77)), now_ms)
        .unwrap()
}

/// The blocks of a job, and whether it adds them to what was there.
fn shape(job: &Job) -> (Vec<Range<u32>>, bool) {
    let Processor::Query(query) = &job.spec.processor else {
        panic!("{job:?}");
    };
    let ranges = job.parts.parts().iter().map(Part::range);
    (ranges.collect(), query.refresh.unwrap().before.is_some())
}

fn succeeded(view: &mut View, mut job: Job) {
    job.state = JobState::Successful;
    job.counts = Counts::default();
    job.finished_ms = Some(5);
    view.tried_ms = Some(job.submitted_ms);
    view.ended(&job, &[]);
}

fn failure(kind: FailureKind) -> Failure {
    Failure::new(kind, "no")
}

#[test]
fn only_new_blocks_are_added() {
    let mut view = raw();
    let first = refresh(&view, &seen(1, 0, 3), 10).unwrap();
    assert_eq!(shape(&first), (vec![0..3], false));
    assert_eq!(view.lag_blocks(&seen(1, 0, 3)), 3);
    succeeded(&mut view, first);
    assert_eq!(view.covered[0].blocks, [0..3]);
    assert_eq!(view.merged.unwrap().index, 3);
    assert!(refresh(&view, &seen(1, 0, 3), 20).is_none());
    let second = refresh(&view, &seen(1, 0, 5), 20).unwrap();
    assert_eq!(shape(&second), (vec![3..5], true));
    assert!(second.spec.reuse);
    succeeded(&mut view, second);
    assert_eq!(view.covered[0].blocks, [0..5]);
    assert_eq!((view.lag_blocks(&seen(1, 0, 5)), view.refreshed_ms), (0, Some(5)));
}

#[test]
fn void_numbers_are_neither_read_nor_missed() {
    let void = |void: &[Range<u32>], blocks| {
        let of = table(Format::Raw, &[]);
        vec![standing(source(1, 0, blocks), of, void)]
    };
    let mut view = raw();
    let first = refresh(&view, &void(&[1..4, 5..6], 6), 10).unwrap();
    assert_eq!(shape(&first), (vec![0..1, 4..5], false));
    assert_eq!(view.lag_blocks(&void(&[1..4, 5..6], 6)), 2);
    succeeded(&mut view, first);
    assert!(refresh(&view, &void(&[1..4, 5..6], 6), 20).is_none());
    // What is covered becomes void: nothing is to be done.
    assert!(refresh(&view, &void(&[0..4, 5..6], 6), 20).is_none());
    let next = refresh(&view, &void(&[0..4, 5..6], 7), 20).unwrap();
    assert_eq!(shape(&next), (vec![6..7], true));
}

#[test]
fn a_view_over_more_merged_blocks_than_a_job_has_parts_reads_all_of_them() {
    let parts = u32::try_from(MOST_PARTS).unwrap();
    let blocks = 10 * (parts + 7);
    let void: Vec<_> = (0..blocks / 10).map(|run| run * 10..run * 10 + 9).collect();
    let now = |void: &[Range<u32>], blocks| {
        let of = table(Format::Raw, &[]);
        vec![standing(source(1, 0, blocks), of, void)]
    };
    let mut view = raw();
    let seen = now(&void, blocks);
    assert_eq!(view.lag_blocks(&seen), u64::from(parts + 7));
    let first = refresh(&view, &seen, 10).unwrap();
    assert_eq!(first.parts.parts().len(), MOST_PARTS);
    succeeded(&mut view, first);
    assert_eq!(view.lag_blocks(&seen), 0);
    assert!(refresh(&view, &seen, 20).is_none());
    let next = refresh(&view, &now(&void, blocks + 1), 20).unwrap();
    assert_eq!(shape(&next), (vec![blocks..blocks + 1], true));
    // What is covered or left out is never taken in again.
    let apart = bridged(vec![vec![0..1, 3..4, 6..7, 9..10]], &[&[1..3, 4..5, 7..9]], 1);
    assert_eq!(apart, [vec![0..4, 6..10]]);
}

#[test]
fn an_answer_over_nothing_is_computed_once() {
    let mut view = raw();
    let first = refresh(&view, &seen(1, 0, 0), 10).unwrap();
    assert_eq!((first.blocks, shape(&first).1), (0, false));
    succeeded(&mut view, first);
    assert!(refresh(&view, &seen(1, 0, 0), 20).is_none());
}

#[test]
fn what_has_left_or_was_made_anew_makes_the_view_anew() {
    let mut view = raw();
    let first = refresh(&view, &seen(1, 0, 6), 10).unwrap();
    succeeded(&mut view, first);
    let left = refresh(&view, &seen(1, 2, 7), 20).unwrap();
    assert_eq!(shape(&left), (vec![2..7], false));
    assert_eq!(view.lag_blocks(&seen(1, 2, 7)), 5);
    succeeded(&mut view, left);
    let anew = refresh(&view, &seen(2, 0, 4), 30).unwrap();
    assert_eq!(shape(&anew), (vec![0..4], false));
    succeeded(&mut view, anew);
    assert_eq!(view.covered[0].id, Uuid::from_u128(2));
    assert!(refresh(&view, &[None], 40).is_none());
    assert!(view.obstacle(&[None]).unwrap().contains("no dataset logs"));
}

#[test]
fn blocks_that_were_taken_out_make_the_view_anew_once() {
    let mut view = raw();
    let first = refresh(&view, &seen(1, 0, 3), 0).unwrap();
    succeeded(&mut view, first);
    // Of the three the second is taken out, in the first change of what numbers mean.
    let mut now = seen(1, 0, 3);
    if let Some(Standing {
        source, void, cut, ..
    }) = &mut now[0]
    {
        (*void, *cut) = (vec![1..2], 1);
        (source.generation, source.void) = (1, 1);
    }
    let anew = refresh(&view, &now, 10).unwrap();
    assert_eq!(shape(&anew), (vec![0..1, 2..3], false));
    succeeded(&mut view, anew);
    assert!(refresh(&view, &now, 20).is_none());
}

#[test]
fn another_version_makes_the_view_anew_under_other_fingerprints() {
    let mut view = raw();
    let first = refresh(&view, &seen(1, 0, 2), 10).unwrap();
    succeeded(&mut view, first);
    let id = JobId(Uuid::from_u128(78));
    let job = view.refresh(&seen(1, 0, 2), "2", id, 20).unwrap().unwrap();
    assert_eq!(shape(&job), (vec![0..2], false));
    succeeded(&mut view, job);
    assert_eq!(view.query.version, "2");
    let half = view.query.tables[0].lower_half.clone().unwrap();
    assert!(half.starts_with("ab/"), "{half}");
    assert!(view.refresh(&seen(1, 0, 2), "2", id, 30).unwrap().is_none());
}

#[test]
fn values_found_by_place_take_new_columns_anew_and_others_do_not() {
    let csv = |columns: &[&str]| table(Format::Separated { separator: ',' }, columns);
    for (pinned, now, is_anew) in [
        (csv(&["a"]), csv(&["a", "b"]), true),
        (csv(&["a"]), csv(&["a"]), false),
        (
            table(Format::Json, &["a"]),
            table(Format::Json, &["a", "b"]),
            false,
        ),
    ] {
        let seen = |table: &Table, blocks| [standing(source(1, 0, blocks), table.clone(), &[])];
        let mut view = view(pinned.clone());
        let first = refresh(&view, &seen(&pinned, 2), 10).unwrap();
        succeeded(&mut view, first);
        let job = refresh(&view, &seen(&now, 3), 20).unwrap();
        assert_eq!(shape(&job).1, !is_anew, "{now:?}");
        succeeded(&mut view, job);
        let expected = if is_anew { &now } else { &pinned };
        assert_eq!(&view.query.tables[0].table, expected);
        let half = view.query.tables[0].lower_half.as_deref();
        assert_eq!(half == Some("ab"), !is_anew);
        assert_eq!(view.covered[0].blocks, [0..3]);
    }
}

#[test]
fn a_block_that_fails_is_left_out_until_it_is_tried_again() {
    let mut view = raw();
    let mut job = refresh(&view, &seen(1, 0, 4), 10).unwrap();
    (view.tried_ms, view.every_ms) = (Some(10), 60_000);
    job.state = JobState::Failed;
    view.ended(&job, &[(2, failure(FailureKind::Query))]);
    assert_eq!((view.left_out[0].block, view.failures), (2, 0));
    let next = refresh(&view, &seen(1, 0, 4), 11).unwrap();
    assert_eq!(shape(&next), (vec![0..2, 3..4], false));
    succeeded(&mut view, next);
    assert_eq!(view.covered[0].blocks, [0..2, 3..4]);
    assert_eq!(view.lag_blocks(&seen(1, 0, 4)), 0);
    view.resume();
    let again = refresh(&view, &seen(1, 0, 4), 12).unwrap();
    assert_eq!(shape(&again), (vec![2..3], true));
}

#[test]
fn left_out_blocks_are_those_of_one_incarnation() {
    let mut view = raw();
    let first = refresh(&view, &seen(1, 0, 2), 10).unwrap();
    succeeded(&mut view, first);
    let mut anew = refresh(&view, &seen(2, 0, 3), 20).unwrap();
    anew.state = JobState::Failed;
    view.ended(&anew, &[(1, failure(FailureKind::Read))]);
    let next = refresh(&view, &seen(2, 0, 3), 21).unwrap();
    assert_eq!(shape(&next), (vec![0..1, 2..3], false));
    succeeded(&mut view, next);
    assert_eq!(view.left_out.len(), 1);
    // It has left: nothing to name any more.
    let later = refresh(&view, &seen(2, 2, 3), 30).unwrap();
    succeeded(&mut view, later);
    assert_eq!(view.left_out, []);
}

#[test]
fn what_fails_as_a_whole_waits_longer_each_time_and_is_made_anew() {
    let mut view = raw();
    let first = refresh(&view, &seen(1, 0, 2), 0).unwrap();
    succeeded(&mut view, first);
    let mut now_ms = 100_000;
    let mut pauses = Vec::new();
    for _ in 0..12 {
        let mut job = refresh(&view, &seen(1, 0, 3), now_ms).unwrap();
        view.tried_ms = Some(now_ms);
        job.state = JobState::Failed;
        // The merge.
        view.ended(&job, &[(job.blocks, failure(FailureKind::Memory))]);
        assert_eq!((view.left_out.len(), view.error.as_deref()), (0, Some("no")));
        let pause = (0..)
            .find(|pause| view.may_refresh(now_ms + pause * 500))
            .unwrap()
            * 500;
        pauses.push(pause);
        now_ms += pause;
        assert_eq!(
            shape(&refresh(&view, &seen(1, 0, 3), now_ms).unwrap()),
            (vec![0..3], false)
        );
    }
    assert_eq!(pauses[..3], [1000, 2000, 4000]);
    assert_eq!(pauses[11], 300_000);
    let job = refresh(&view, &seen(1, 0, 3), now_ms).unwrap();
    succeeded(&mut view, job);
    assert_eq!((view.failures, &view.error), (0, &None));
}

#[test]
fn a_query_that_fails_everywhere_pauses_its_view() {
    let mut view = raw();
    let mut job = refresh(&view, &seen(1, 0, 1000), 10).unwrap();
    job.state = JobState::Failed;
    let failed: Vec<_> = (0..501)
        .map(|index| (index, failure(FailureKind::Query)))
        .collect();
    view.ended(&job, &failed);
    assert_eq!(
        (view.state, view.left_out.len()),
        (ViewState::Paused, MOST_LEFT_OUT)
    );
    assert!(refresh(&view, &seen(1, 0, 1000), 10_000_000).is_none());
    view.resume();
    assert!(refresh(&view, &seen(1, 0, 1000), 10_000_000).is_some());
}

#[test]
fn every_holds_refreshes_back() {
    let mut view = raw();
    view.every_ms = 5000;
    let first = refresh(&view, &seen(1, 0, 1), 10).unwrap();
    succeeded(&mut view, first);
    assert!(refresh(&view, &seen(1, 0, 2), 5009).is_none());
    assert!(refresh(&view, &seen(1, 0, 2), 5010).is_some());
    view.under_way = Some(JobId(Uuid::nil()));
    assert!(refresh(&view, &seen(1, 0, 2), 5010).is_none());
    view.under_way = None;
    for state in [ViewState::Paused, ViewState::Removed] {
        view.state = state;
        assert!(refresh(&view, &seen(1, 0, 2), 5010).is_none());
    }
}

#[test]
fn more_parts_than_a_job_takes_wait_for_the_next() {
    let mut view = raw();
    let holes = u32::try_from(2 * MOST_PARTS + 10).unwrap();
    view.covered[0].blocks = (0..holes).map(|hole| hole * 2..hole * 2 + 1).collect();
    view.merged = Some(Merged {
        job: JobId(Uuid::nil()),
        index: 0,
    });
    let mut jobs = 0;
    while let Some(job) = refresh(&view, &seen(1, 0, holes * 2), 10) {
        assert!(
            job.parts
                .parts()
                .iter()
                .all(|part| part.count == 1 && part.first % 2 == 1)
        );
        succeeded(&mut view, job);
        view.tried_ms = None;
        jobs += 1;
    }
    assert_eq!((jobs, &view.covered[0].blocks[..]), (3, &[0..holes * 2][..]));
}
