//! What is known of blocks: kept by column, given back by what is asked for, gone with its dataset.

use std::collections::BTreeMap;

use model::{
    Block,
    stats::{BlockStats, Bound, ColumnStats, Learned},
};

use super::*;

fn column(least: Bound, greatest: Bound, nulls: u32) -> ColumnStats {
    ColumnStats {
        least: Some(least),
        greatest: Some(greatest),
        nulls,
    }
}

#[tokio::test]
async fn what_was_learned_adds_up_and_goes_with_its_dataset() {
    let fresh = Fresh::new().await;
    let (logs, store) = (name("logs"), &fresh.store);
    let id = store.create(&logs).await.unwrap();
    let blocks = vec![Block::inline("x"), Block::inline("y")];
    store.append_blocks(&logs, blocks).await.unwrap();
    let learned = |dataset, block, columns: &[(&str, ColumnStats)]| {
        let columns = columns
            .iter()
            .map(|(key, stats)| (key.to_string(), stats.clone()));
        let columns: BTreeMap<_, _> = columns.collect();
        let stats = BlockStats { rows: 7, columns };
        Learned {
            dataset,
            block,
            made: None,
            stats,
        }
    };
    let integers = column(Bound::Integer(i64::MIN), Bound::Integer(3), 0);
    let texts = column(Bound::Text("a\0b".into()), Bound::Text("é".into()), 1);
    let floats = column(Bound::Float(-0.0), Bound::Float(1e300), 2);
    let booleans = column(Bound::Boolean(false), Bound::Boolean(true), 3);
    let nothing = ColumnStats {
        nulls: 7,
        ..ColumnStats::default()
    };
    let other = Uuid::from_u128(9);
    let all = [
        learned(id, 0, &[("aa", integers.clone()), ("bb", texts.clone())]),
        learned(id, 1, &[("aa", floats.clone())]),
        learned(other, 0, &[("aa", nothing.clone())]),
    ];
    store.keep_stats(&all).await.unwrap();
    let later = [learned(id, 0, &[("cc", booleans.clone())]), all[0].clone()];
    store.keep_stats(&later).await.unwrap();

    let keys = |keys: &[&str]| keys.iter().map(ToString::to_string).collect::<Vec<_>>();
    let known = store
        .stats(edition(id), 0..9, &keys(&["aa", "bb", "cc"]))
        .await
        .unwrap();
    let expected = [
        learned(
            id,
            0,
            &[("aa", integers), ("bb", texts), ("cc", booleans.clone())],
        ),
        learned(id, 1, &[("aa", floats)]),
    ];
    let expected: BTreeMap<u32, BlockStats> =
        expected.into_iter().map(|one| (one.block, one.stats)).collect();
    assert_eq!(known, expected);
    let some = store.stats(edition(id), 0..1, &keys(&["cc"])).await.unwrap();
    assert_eq!(some[&0].columns, BTreeMap::from([("cc".into(), booleans)]));
    assert_eq!(some.len(), 1);

    let mut in_other_rows = learned(id, 1, &[("dd", nothing.clone())]);
    in_other_rows.stats.rows = 8;
    store.keep_stats(&[in_other_rows]).await.unwrap();
    let of = async |columns: &[&str]| store.stats(edition(id), 1..2, &keys(columns)).await.unwrap();
    assert_eq!((of(&["aa"]).await[&1].rows, of(&["dd"]).await[&1].rows), (7, 8));
    assert!(
        of(&["aa", "dd"]).await.is_empty(),
        "no one number of rows fits both"
    );

    store.remove(&logs).await.unwrap();
    assert!(
        store
            .stats(edition(id), 0..9, &keys(&["aa"]))
            .await
            .unwrap()
            .is_empty()
    );
    let kept = store.stats(edition(other), 0..9, &keys(&["aa"])).await.unwrap();
    assert_eq!(kept[&0].columns["aa"], nothing);
}
