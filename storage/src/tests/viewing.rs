//! Views: who may change them, what is written together, what retention spares.

use std::time::Duration;

use model::{
    View,
    processor::{Merged, Query},
    view::{Covered, ViewState},
};

use super::*;
use crate::{Error, Retention, Spill};

fn view(title: &str) -> View {
    let covered = Covered {
        dataset: name("logs"),
        id: Uuid::from_u128(1),
        blocks: vec![0..3, 5..6],
        generation: 4,
    };
    let query = Query {
        sql: "SELECT 1 FROM logs".into(),
        ..Query::default()
    };
    View {
        every_ms: 1500,
        tried_ms: Some(4),
        left_out: vec![model::view::LeftOut {
            table: 0,
            dataset: Uuid::from_u128(1),
            block: 4,
            why: "no".into(),
        }],
        ..View::new(name(title), Uuid::now_v7(), query, vec![covered], 17)
    }
}

async fn kept(fresh: &Fresh, view: &View) -> View {
    fresh.store.view(&view.name).await.unwrap().unwrap()
}

#[tokio::test]
async fn views_are_kept_as_they_are_given_under_names_of_their_own() {
    let fresh = Fresh::new().await;
    let made = view("hits");
    fresh.store.create_view(&made).await.unwrap();
    assert_eq!(kept(&fresh, &made).await, made);
    let all = fresh.store.views().await.unwrap();
    assert_eq!(all.into_iter().map(Result::unwrap).collect::<Vec<_>>(), [made]);
    fresh.store.db().create_collection("mine").await.unwrap();
    for (taken, told) in [("hits", "a view hits"), ("mine", "a collection mine")] {
        let refused = fresh.store.create_view(&view(taken)).await.unwrap_err();
        assert!(
            matches!(&refused, Error::Taken { what } if what == told),
            "{refused}"
        );
    }
    let own = fresh.store.create_view(&view("views")).await;
    assert!(matches!(own, Err(Error::BadCollection { .. })));
}

#[tokio::test]
async fn a_change_and_its_job_are_written_together_or_not_at_all() {
    let fresh = Fresh::new().await;
    let made = view("hits");
    fresh.store.create_view(&made).await.unwrap();
    let first = fresh.store.take_epoch("first").await.unwrap();
    let refresh = job(2, true);
    let begun = View {
        under_way: Some(refresh.id),
        ..made.clone()
    };
    assert!(
        fresh
            .store
            .keep_view(first, &begun, Some(&refresh))
            .await
            .unwrap()
    );
    assert_eq!(fresh.job(refresh.id).await, refresh);
    let now = kept(&fresh, &made).await;
    assert_eq!((now.under_way, now.revision), (Some(refresh.id), 1));

    // What was read before is out of date, for the leader as for users.
    let other = job(2, true);
    assert!(!fresh.store.keep_view(first, &begun, Some(&other)).await.unwrap());
    assert!(!fresh.store.replace_view(&made).await.unwrap());
    let paused = View {
        state: ViewState::Paused,
        ..now
    };
    assert!(fresh.store.replace_view(&paused).await.unwrap());

    let now = kept(&fresh, &made).await;
    let second = fresh.store.take_epoch("second").await.unwrap();
    let late = fresh.store.keep_view(first, &now, Some(&other)).await;
    assert!(matches!(late, Err(Error::Deposed { .. })), "{late:?}");
    let late = fresh.store.remove_view(first, &now).await;
    assert!(matches!(late, Err(Error::Deposed { .. })), "{late:?}");
    assert_eq!(fresh.store.job(other.id).await.unwrap(), None);
    assert_eq!(kept(&fresh, &made).await, now);

    fresh.store.db().create_collection("hits").await.unwrap();
    fresh.store.mark_made("hits").await.unwrap();
    fresh
        .store
        .put_table(JobId(made.id), 0, b"a,b\n".to_vec())
        .await
        .unwrap();
    assert!(fresh.store.remove_view(second, &now).await.unwrap());
    assert_eq!(fresh.store.view(&made.name).await.unwrap(), None);
    let left = fresh.store.db().list_collection_names().await.unwrap();
    assert!(!left.contains(&"hits".to_string()), "{left:?}");
    assert_eq!(fresh.store.delete_job_outputs(JobId(made.id)).await.unwrap(), 0);
}

#[tokio::test]
async fn retention_spares_what_views_need() {
    let fresh = Fresh::new().await;
    let mut merged = Vec::new();
    for _ in 0..2 {
        let id = fresh.admitted(1, true).await;
        fresh.record(vec![succeeded(id, 0, 1)]).await;
        let name = "1-1";
        let output = fresh
            .store
            .put_output(id, name, Spill::Bytes(b"state".to_vec()))
            .await
            .unwrap();
        let merge = Outcome::Ok {
            output,
            fingerprint: None,
            stderr_tail: String::new(),
        };
        fresh.record(vec![done(id, 1, vec![end(1, 1, merge)])]).await;
        assert_eq!(fresh.job(id).await.state, JobState::Successful);
        merged.push(id);
    }
    let mut made = view("hits");
    made.merged = Some(Merged {
        job: merged[0],
        index: 1,
    });
    fresh.store.create_view(&made).await.unwrap();
    let table = fresh
        .store
        .put_table(JobId(made.id), 0, b"a,b\n".to_vec())
        .await
        .unwrap();
    let much_later = fresh.job(merged[1]).await.finished_ms.unwrap() + 1000 * 24 * 3600 * 1000;
    let all = Retention {
        results: Duration::ZERO,
        jobs: Duration::ZERO,
    };
    let pruned = fresh.store.prune(much_later, all).await.unwrap();
    assert_eq!((pruned.jobs, pruned.results, pruned.objects), (1, 2, 1));
    let state = fresh.store.result(merged[0], 1).await.unwrap().unwrap();
    for output in [state.result.unwrap(), table.clone()] {
        assert!(fresh.store.read_output(&output).await.is_ok());
    }
    // Nobody needs it any more.
    let epoch = fresh.store.take_epoch("test").await.unwrap();
    assert!(fresh.store.remove_view(epoch, &made).await.unwrap());
    let pruned = fresh.store.prune(much_later, all).await.unwrap();
    assert_eq!((pruned.jobs, pruned.objects), (1, 1));
    assert!(fresh.store.read_output(&table).await.is_err());
}
