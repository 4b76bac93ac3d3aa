//! Each synced step of one subtask, measured alone: what a single subtask on an idle mill has to wait for.

use std::time::Instant;

use anyhow::ensure;
use model::Name;
use serde::Serialize;
use storage::DoneItem;

use super::{
    alone::{self, Hands, Load},
    sample::{Sample, Spread},
};
use crate::roles::Parts;

/// The synced steps from submit to recorded end, in order.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Steps {
    /// MongoDB: the job is inserted.
    pub(super) submit: Spread,
    /// MongoDB: the leader admits it.
    pub(super) admit: Spread,
    /// ZooKeeper: its entry is created.
    pub(super) feed: Spread,
    /// ZooKeeper: a worker claims it.
    pub(super) claim: Spread,
    /// ZooKeeper: the worker finishes it.
    pub(super) finish: Spread,
    /// MongoDB: a watcher records it, which ends the job.
    pub(super) record: Spread,
}

impl Steps {
    /// The steps with their names.
    pub(super) fn named(&self) -> [(&'static str, Spread); 6] {
        [
            ("submit (MongoDB)", self.submit),
            ("admit (MongoDB)", self.admit),
            ("feed (ZooKeeper)", self.feed),
            ("claim (ZooKeeper)", self.claim),
            ("finish (ZooKeeper)", self.finish),
            ("record (MongoDB)", self.record),
        ]
    }

    /// The sum of the medians, in milliseconds.
    pub(super) fn sum_p50_ms(&self) -> f64 {
        self.named().iter().map(|(_, spread)| spread.p50_ms).sum()
    }
}

/// Does each step `rounds` times, one after the other, with data of the same size as the mill's.
pub(super) async fn measure(parts: &Parts, rounds: u32, payload: usize) -> anyhow::Result<Steps> {
    let mut hands = Hands::take(&parts.zookeeper).await?;
    let load = Load::new(payload)?;
    let dataset = Name::new("alone")?;
    let epoch = parts.store.take_epoch("bench").await?;
    let mut samples: [Sample; 6] = Default::default();
    for index in 0..rounds {
        let job = alone::job(&dataset, 1);
        let id = job.id;
        let (entry, owned, end) = (load.entry(index), load.owned(index), load.done(index));
        let item = DoneItem {
            tag: 0,
            data: alone::done(id, vec![0], payload),
        };

        let begin = Instant::now();
        parts.store.submit(vec![job]).await?;
        samples[0].push(begin.elapsed());

        let begin = Instant::now();
        parts.store.admit(&[id], epoch).await?;
        samples[1].push(begin.elapsed());

        let begin = Instant::now();
        let names = hands.leader.feed(vec![entry], &[]).await?;
        samples[2].push(begin.elapsed());

        let owned = names.iter().cloned().map(|name| (name, owned.clone())).collect();
        let begin = Instant::now();
        let claimed = hands.worker.claim(owned).await?;
        samples[3].push(begin.elapsed());
        ensure!(
            claimed.won.len() == 1,
            "somebody else claimed an entry of the bench"
        );

        let ends = names.iter().cloned().map(|name| (name, end.clone())).collect();
        let begin = Instant::now();
        hands.worker.finish(ends).await?;
        samples[4].push(begin.elapsed());

        let begin = Instant::now();
        parts.store.record(vec![item]).await?;
        samples[5].push(begin.elapsed());
        hands.recorder.clear(names).await?;
    }
    hands.leave().await?;
    let [submit, admit, feed, claim, finish, record] = samples.map(|sample| sample.spread());
    Ok(Steps {
        submit,
        admit,
        feed,
        claim,
        finish,
        record,
    })
}
