//! How much of what successful commands printed to standard error is kept with their results.
//!
//! Promise: of each job a node keeps a few different texts, however many of its subtasks print; what prints nothing costs
//! nothing. No promise that each subtask's is kept.

use std::{
    collections::{HashMap, HashSet},
    hash::{DefaultHasher, Hash as _, Hasher as _},
    sync::{Arc, Mutex, PoisonError},
};

use model::JobId;

/// Texts kept of one job: together they fit into the data of one entry.
const TEXTS: usize = 16;
/// Jobs that are remembered; all are forgotten when there are more.
const JOBS: usize = 1000;

/// Hashes of the texts that were kept, by job. Clones share them.
#[derive(Clone, Default)]
pub(crate) struct Said(Arc<Mutex<HashMap<JobId, HashSet<u64>>>>);

impl Said {
    /// The text, where it is to be kept; nothing where the same was, or enough others.
    pub(crate) fn kept(&self, job: JobId, text: String) -> String {
        if text.is_empty() {
            return text;
        }
        let mut hasher = DefaultHasher::new();
        text.hash(&mut hasher);
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if all.len() >= JOBS && !all.contains_key(&job) {
            all.clear();
        }
        let texts = all.entry(job).or_default();
        let is_new = texts.len() < TEXTS && texts.insert(hasher.finish());
        if is_new { text } else { String::new() }
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    #[test]
    fn a_few_different_texts_of_each_job_are_kept() {
        let said = Said::default();
        let job = |number| JobId(Uuid::from_u128(number));
        let kept = |job, text: &str| !said.kept(job, text.into()).is_empty();
        assert!(kept(job(1), "a") && !kept(job(1), "a") && kept(job(2), "a"));
        assert!(!kept(job(1), ""));
        let others = (0..100).filter(|number| kept(job(1), &format!("text {number}")));
        assert_eq!(others.count(), TEXTS - 1);
        for number in 3..3 + JOBS as u128 {
            kept(job(number), "a");
        }
        assert!(kept(job(1), "a"), "it was forgotten");
    }
}
