//! Partial results that answer a subtask without running it.

use std::collections::HashMap;

use bson::{Bson, doc, raw::RawBsonRef};
use model::{Fingerprint, JobId, Outcome, Output};

use crate::{
    Error, Store,
    record::DoneItem,
    results,
    rows::Query,
    schema::{self, RESULTS, key, result_key},
};

/// What was found of the results that ends refer to.
pub(crate) type Sources = HashMap<(JobId, u32), Output>;

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
                found.insert(Fingerprint(print), (job, index));
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
                    sources.insert((job, partial.index), output);
                }
            }
        }
        for (source, output) in &mut sources {
            if let (Output::Stored { .. }, Some(&user)) = (&*output, wanted.get(source)) {
                *output = self.copy_output(output, user, *source).await;
            }
        }
        Ok(sources)
    }
}
