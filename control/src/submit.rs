//! From what a user asks to a job in MongoDB.

use std::{
    collections::HashMap,
    ops::Range,
    time::{SystemTime, UNIX_EPOCH},
};

use model::{
    Fingerprint, Job, JobId, JobSpec, Name, Output, Parts, Payload, Processor, limits::INLINE_SUBTASK_BYTES,
    parts::Source, processor::Query, table::Format, view::ranges::without,
};
use storage::Dataset;
use uuid::Uuid;

use crate::{Control, Error};

/// Jobs written by one call; more gain nothing.
const BATCH: usize = 1000;

/// An id that sorts behind all that were made before on this machine.
pub fn new_job_id() -> JobId {
    JobId(Uuid::now_v7())
}

pub(crate) fn now_ms() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}

impl Control {
    /// Submits a job over the blocks that its datasets have now.
    ///
    /// Dropping it half-way leaves the job submitted or not.
    ///
    /// # Errors
    /// [`Error::BadProcessor`], [`Error::NoSuchDataset`], [`Error::NoLines`], [`Error::Storage`].
    pub async fn submit(&self, spec: JobSpec) -> Result<JobId, Error> {
        if let Some(remote) = self.remote() {
            return remote.submit(&spec).await;
        }
        let ids = self.submit_many(vec![spec]).await?;
        Ok(ids[0])
    }

    /// The job that has answered the same question over the same blocks, where its answer is still kept. The datasets
    /// are those of the question, in their order.
    ///
    /// # Errors
    /// [`Error::Storage`].
    pub async fn answered(&self, question: &str, datasets: &[Dataset]) -> Result<Option<Job>, Error> {
        let sources: Vec<Source> = datasets.iter().map(Dataset::source).collect();
        let answer = Fingerprint::of_answer(question, &sources);
        Ok(self.store()?.answered(&answer).await?)
    }

    /// Submits a job over some blocks: `chosen` has the datasets of the job in their order, as they were when their blocks
    /// were chosen, each with the ranges of its blocks that take part. Of many small ranges the gaps may be closed.
    ///
    /// Dropping it half-way leaves the job submitted or not.
    ///
    /// # Errors
    /// [`Error::BadProcessor`], [`Error::BadParts`], [`Error::Storage`].
    pub async fn submit_over(
        &self,
        spec: JobSpec,
        chosen: Vec<(Dataset, Vec<Range<u32>>)>,
    ) -> Result<JobId, Error> {
        self.submit_with(spec, chosen, Vec::new()).await
    }

    /// As [`Control::submit_over`], of a query with small tables: `tables` has the bytes of those that it names, in their
    /// order.
    ///
    /// Dropping it half-way leaves the job submitted or not; what was stored for one that is not is swept.
    ///
    /// # Errors
    /// As [`Control::submit_over`].
    pub async fn submit_with(
        &self,
        mut spec: JobSpec,
        chosen: Vec<(Dataset, Vec<Range<u32>>)>,
        tables: Vec<Vec<u8>>,
    ) -> Result<JobId, Error> {
        spec.processor.check()?;
        let (datasets, ranges): (Vec<_>, Vec<_>) = chosen.into_iter().unzip();
        let parts = Parts::selected(datasets.iter().map(Dataset::source).collect(), ranges)?;
        let id = new_job_id();
        if let Processor::Query(query) = &mut spec.processor {
            self.store_tables(id, query, tables).await?;
            spec.processor.check()?;
        }
        let job = Job {
            submitted_by: self.submitter(),
            ..Job::new(id, spec, parts, now_ms())
        };
        self.store()?.submit(vec![job]).await?;
        Ok(id)
    }

    fn submitter(&self) -> Option<String> {
        self.submitter.as_deref().map(str::to_string)
    }

    /// The numbers of a dataset at which there is a block, in order.
    ///
    /// # Errors
    /// [`Error::Storage`].
    pub(crate) async fn live(&self, dataset: &Dataset) -> Result<Vec<Range<u32>>, Error> {
        let all = std::iter::once(dataset.first..dataset.blocks);
        self.without_void(dataset, all.collect()).await
    }

    /// Of ranges of numbers of a dataset, in order, those at which there is a block: the others take no part in jobs.
    ///
    /// # Errors
    /// [`Error::Storage`].
    pub(crate) async fn without_void(
        &self,
        dataset: &Dataset,
        ranges: Vec<Range<u32>>,
    ) -> Result<Vec<Range<u32>>, Error> {
        if dataset.generation == 0 {
            return Ok(ranges);
        }
        let all = dataset.first..dataset.blocks;
        let void = self.store()?.void(dataset.edition(), all).await?;
        Ok(without(&ranges, &void))
    }

    /// Stores the small tables of a query under an id, whose folder they share.
    pub(crate) async fn store_tables(
        &self,
        id: JobId,
        query: &mut Query,
        tables: Vec<Vec<u8>>,
    ) -> Result<(), Error> {
        let mut inline = INLINE_SUBTASK_BYTES;
        for (number, (table, bytes)) in query.with.iter_mut().zip(tables).enumerate() {
            table.stored = match inline.checked_sub(bytes.len()) {
                Some(left) => {
                    inline = left;
                    Output::Inline(Payload(bytes))
                }
                None => self.store()?.put_table(id, number, bytes).await?,
            };
        }
        Ok(())
    }

    /// Submits jobs in batches, in this order; each dataset is looked up once.
    ///
    /// # Errors
    /// As [`Control::submit`]. On the stores everything is checked before the first is written, and after
    /// [`Error::Storage`] some of the jobs may be there; over a gateway those before the one that is refused are.
    pub async fn submit_many(&self, specs: Vec<JobSpec>) -> Result<Vec<JobId>, Error> {
        if let Some(remote) = self.remote() {
            return remote.submit_many(specs).await;
        }
        let mut datasets: HashMap<Name, Dataset> = HashMap::new();
        for spec in &specs {
            spec.processor.check()?;
            for name in spec.datasets() {
                if !datasets.contains_key(name) {
                    datasets.insert(name.clone(), self.dataset(name).await?);
                }
                check_lines(&spec.processor, &datasets[name])?;
            }
        }
        let mut live: HashMap<&Name, Vec<Range<u32>>> = HashMap::new();
        for (name, dataset) in &datasets {
            live.insert(name, self.live(dataset).await?);
        }
        let submitted_ms = now_ms();
        let jobs: Vec<Job> = specs
            .into_iter()
            .map(|spec| {
                let sources = spec.datasets().map(|name| datasets[name].source()).collect();
                let ranges = spec.datasets().map(|name| live[name].clone()).collect();
                let parts = Parts::selected(sources, ranges)?;
                Ok(Job {
                    submitted_by: self.submitter(),
                    ..Job::new(new_job_id(), spec, parts, submitted_ms)
                })
            })
            .collect::<Result<_, Error>>()?;
        let ids = jobs.iter().map(|job| job.id).collect();
        let mut jobs = jobs.into_iter();
        loop {
            let batch: Vec<Job> = jobs.by_ref().take(BATCH).collect();
            if batch.is_empty() {
                return Ok(ids);
            }
            self.store()?.submit(batch).await?;
        }
    }
}

/// A command reads lines.
fn check_lines(processor: &Processor, dataset: &Dataset) -> Result<(), Error> {
    let table = dataset.table.as_ref();
    match processor {
        Processor::Command(_) if table.is_some_and(|table| table.format == Format::Parquet) => {
            Err(Error::NoLines {
                dataset: dataset.name.clone(),
            })
        }
        _ => Ok(()),
    }
}
