//! Partial results that answer a subtask without running it.

use std::{
    collections::HashMap,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use bson::{Bson, doc, raw::RawBsonRef};
use model::{Fingerprint, JobId, Outcome, Output};

use crate::{
    Error, Store,
    record::DoneItem,
    results,
    rows::Query,
    schema::{self, RESULTS, key, result_key},
};

/// A result that ends refer to.
#[derive(Clone, Debug)]
pub(crate) struct Found {
    pub(crate) output: Output,
    /// Set where the result that is recorded from it shall be found in its place.
    pub(crate) fingerprint: Option<[u8; 16]>,
}

/// What was found of the results that ends refer to.
pub(crate) type Sources = HashMap<(JobId, u32), Found>;

/// A result of a job older than this passes its fingerprint on when it is reused, so that retention does not end the reuse.
/// Younger ones don't: each look-up reads all results of a fingerprint.
const PASSED_ON_AFTER: Duration = Duration::from_secs(6 * 3600);

/// Fingerprints or keys in one query.
const KEYS: usize = 1000;

impl Store {
    /// Which of these fingerprints have a recorded partial result, and where. Reads with majority: what is given here
    /// does not vanish but by retention.
    ///
    /// # Errors
    /// [`Error::Mongo`].
    pub async fn find_reusable(
        &self,
        fingerprints: &[Fingerprint],
    ) -> Result<HashMap<Fingerprint, (JobId, u32)>, Error> {
        let mut found = HashMap::new();
        for some in fingerprints.chunks(KEYS) {
            let wanted: Vec<Bson> = some.iter().map(|print| key(&print.0).into()).collect();
            let filter = doc! { "fingerprint": { "$in": wanted } };
            let query = Query::new(RESULTS, "looking for results to reuse", filter).fields(&["fingerprint"]);
            let mut rows = self.find(query.batch(10_000)).await?;
            while let Some(document) = rows.next().await? {
                let Ok(Some(RawBsonRef::Binary(print))) = document.get("fingerprint") else {
                    continue;
                };
                let (Ok(print), Some(job), Some(index)) = (
                    print.bytes.try_into(),
                    results::job_of(document),
                    schema::index_of(document),
                ) else {
                    continue;
                };
                // The newest stays longest.
                let newest = found.entry(Fingerprint(print)).or_insert((job, index));
                *newest = (*newest).max((job, index));
            }
        }
        Ok(found)
    }

    /// Reads the results that the ends refer to. An output in the block store is copied, so that it lives as long as
    /// the job that reuses it.
    pub(crate) async fn sources(&self, items: &[DoneItem]) -> Result<Sources, Error> {
        let mut wanted: HashMap<(JobId, u32), JobId> = HashMap::new();
        for item in items {
            for end in &item.data.ends {
                if let Outcome::Reused { job, index, .. } = end.outcome {
                    wanted.insert((job, index), item.data.job);
                }
            }
        }
        let mut sources = Sources::new();
        let keys: Vec<Bson> = wanted
            .keys()
            .map(|&(job, index)| key(&result_key(job, index)).into())
            .collect();
        for keys in keys.chunks(KEYS) {
            let filter = doc! { "_id": { "$in": keys } };
            let mut rows = self
                .find(Query::new(RESULTS, "reading results to reuse", filter))
                .await?;
            while let Some(document) = rows.next().await? {
                let Some(job) = results::job_of(document).filter(|_| !results::is_gone(document)) else {
                    continue;
                };
                let partial = results::decode(document)?;
                if let Ok(output) = partial.result {
                    let print = document.get_binary("fingerprint").ok();
                    let print = print.and_then(|print| print.bytes.try_into().ok());
                    let fingerprint = print.filter(|_| is_old(job));
                    sources.insert((job, partial.index), Found { output, fingerprint });
                }
            }
        }
        for (source, found) in &mut sources {
            if let (Output::Stored { .. }, Some(&user)) = (&found.output, wanted.get(source)) {
                found.output = self.copy_output(&found.output, user, *source).await;
            }
        }
        Ok(sources)
    }
}

/// By the time in its id.
fn is_old(job: JobId) -> bool {
    let Some(submitted) = job.0.get_timestamp() else {
        return false;
    };
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    now.as_secs().saturating_sub(submitted.to_unix().0) > PASSED_ON_AFTER.as_secs()
}
