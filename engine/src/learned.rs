//! What queries learn of the values in blocks, until somebody takes it.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use model::stats::Learned;

/// Blocks of which it is held; what is learned of more is forgotten, and learned again by another query.
const MOST: usize = 4096;

/// What was learned and not taken yet. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub(crate) struct Learnt(Arc<Mutex<Vec<Learned>>>);

impl Learnt {
    pub(crate) fn add(&self, learned: Learned) {
        let mut all = self.lock();
        if all.len() < MOST {
            all.push(learned);
        }
    }

    pub(crate) fn take(&self) -> Vec<Learned> {
        std::mem::take(&mut *self.lock())
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Learned>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
