//! What a mill and a state directory know of each other, compared before anything is sent.
//!
//! The same mill with what it had acknowledged: it goes on. With less, since it was restored from an older backup: another
//! numbering begins, and what is lost is read again where it can be. Another mill: nothing is sent.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::{Duration, Instant},
};

use api::v1::{Acknowledged, Registered, Welcome};
use model::Name;
use tokio_util::bytes::Bytes;
use tonic::Status;
use tracing::warn;
use uuid::Uuid;

use super::{Over, Uplink};
use crate::Error;

/// Between two looks whether the positions of what was acknowledged are kept.
const KEPT_LOOK: Duration = Duration::from_millis(20);

/// A UUID as it is sent; nothing for none.
pub(super) fn bytes(uuid: Option<Uuid>) -> Bytes {
    uuid.map_or_else(Bytes::new, |uuid| Bytes::copy_from_slice(uuid.as_bytes()))
}

/// A UUID as it was sent.
pub(super) fn uuid(bytes: &[u8]) -> Option<Uuid> {
    Uuid::from_slice(bytes).ok()
}

impl Uplink {
    /// The datasets of which anything may be shipped: not all that ever were.
    fn of_use(&self) -> BTreeSet<Name> {
        let spool = &self.shared.spool;
        let sources = self.config.sources.iter().map(|source| source.dataset.clone());
        let lost = spool.lost().into_keys();
        sources.chain(spool.datasets()).chain(lost).collect()
    }

    /// What of these was acknowledged before, for the mill to compare.
    pub(super) fn acknowledged(&self) -> Vec<Acknowledged> {
        let of_use = self.of_use();
        let lanes = self.shared.spool.registered().into_iter();
        let lanes = lanes.filter(|(dataset, ..)| of_use.contains(dataset));
        let acknowledged = lanes.map(|(dataset, registered, lane)| Acknowledged {
            dataset: dataset.to_string(),
            sequence: registered.saturating_sub(lane.base),
            numbering: bytes(lane.numbering),
        });
        acknowledged.collect()
    }

    /// What it means that this state belongs to another mill than the dispatcher `server`; none for other refusals.
    pub(super) fn other_mill(&self, status: &Status, server: &str) -> Option<Over> {
        if api::reason(status).as_deref() != Some(api::OTHER_MILL) {
            return None;
        }
        let mill = Uuid::parse_str(&api::place(status, "mill")?).ok()?;
        self.state.meet(mill, server).err().map(Over::Fatal)
    }

    /// Learns which mill this is and what it has.
    pub(super) async fn meet(&self, welcome: &Welcome, worker: u64, server: &str) -> Result<(), Over> {
        if let Some(mill) = uuid(&welcome.mill) {
            self.state.meet(mill, server).map_err(Over::Fatal)?;
        }
        // What was not told there was not compared either.
        let of_use = self.of_use();
        let mut datasets = BTreeMap::new();
        for registered in &welcome.registered {
            // Another agent of this instance may have shipped to others; a name that is none is nobody's.
            let Ok(dataset) = Name::new(registered.dataset.as_str()) else {
                continue;
            };
            if !of_use.contains(&dataset) {
                continue;
            }
            let current = uuid(&registered.current);
            // Before the spool is empty: who waits for that must know a dataset that was made meanwhile.
            self.shared.note_incarnation(&dataset, current);
            match uuid(&registered.next) {
                Some(next) => self.renumber(&dataset, next, registered, worker).await?,
                None => self.take_over(&dataset, registered).map_err(Over::Fatal)?,
            }
            self.shared.spool.note_incarnation(&dataset, current);
            datasets.insert(dataset, current);
        }
        self.shared.meet(datasets);
        Ok(())
    }

    /// Lets go of what the mill has already.
    fn take_over(&self, dataset: &Name, registered: &Registered) -> Result<(), Error> {
        let spool = &self.shared.spool;
        let mark = spool.lane(dataset).base.saturating_add(registered.sequence);
        let bytes = spool.acknowledge(dataset, mark, uuid(&registered.incarnation))?;
        self.shared.registered(bytes);
        Ok(())
    }

    /// Begins another numbering, since the mill has lost what it had acknowledged.
    async fn renumber(
        &self,
        dataset: &Name,
        next: Uuid,
        registered: &Registered,
        worker: u64,
    ) -> Result<(), Over> {
        let spool = &self.shared.spool;
        if registered.next_sequence > 0 {
            // Somebody with this state went on in it already.
            return Err(Over::Fatal(Error::Outdated {
                dataset: dataset.to_string(),
                registered: registered.sequence.saturating_add(registered.next_sequence),
                known: registered.sequence,
            }));
        }
        let mark = spool.lane(dataset).base.saturating_add(registered.sequence);
        self.take_over_up_to(dataset, mark)?;
        // What was acknowledged and is on disk still must not come back.
        let failed = |why: String| Over::Worker { worker, why };
        let begin = Instant::now();
        while !spool.is_kept(dataset) {
            if begin.elapsed() > self.config.timing.connect {
                return Err(failed(format!(
                    "the positions of dataset {dataset} are not kept yet"
                )));
            }
            self.shared.waker.nudge();
            tokio::time::sleep(KEPT_LOOK).await;
        }
        let lost = spool.renumber(dataset, next, mark);
        let lost = lost.map_err(|error| failed(format!("can't write to the state directory: {error}")))?;
        warn!(
            dataset = dataset.as_str(),
            blocks = lost,
            "the mill has lost blocks that it had acknowledged, as one that was restored from an older backup: their lines are \
             read again and shipped once more, where they still are"
        );
        Ok(())
    }

    fn take_over_up_to(&self, dataset: &Name, mark: u64) -> Result<(), Over> {
        let acknowledged = self.shared.spool.acknowledge(dataset, mark, None);
        self.shared.registered(acknowledged.map_err(Over::Fatal)?);
        Ok(())
    }
}
