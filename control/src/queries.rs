//! Questions, views and the first lines of datasets, asked of the stores or of a gateway. A build without SQL can ask a gateway
//! alone.

use futures::stream::BoxStream;
use model::{Job, Name};

use crate::{Asked, Control, Error, Explanation, Question};

impl Control {
    /// Asks: gives the job that has answered the same question over the same blocks, or submits one.
    ///
    /// Dropping it half-way leaves a job submitted or not.
    ///
    /// # Errors
    /// [`Error::Usage`] for a query that is wrong or can't be split, with the reason; [`Error::NoSuchDataset`];
    /// [`Error::Storage`].
    pub async fn ask(&self, question: &Question) -> Result<Asked, Error> {
        match self.remote() {
            Some(remote) => remote.ask(question).await,
            #[cfg(feature = "sql")]
            None => crate::query::ask(self, question).await,
            #[cfg(not(feature = "sql"))]
            None => Err(Error::NoSql),
        }
    }

    /// The answers of a query so far, each as [`Control::answer`] gives it, whenever more of its results are recorded; it ends
    /// when the job is final. At most 32 MiB of results are merged.
    ///
    /// # Errors
    /// [`Error::Usage`] for a job that is no query; in the stream [`Error::Storage`] that no waiting mends.
    pub async fn answers_so_far(
        &self,
        job: &Job,
    ) -> Result<BoxStream<'static, Result<Vec<u8>, Error>>, Error> {
        match self.remote() {
            Some(remote) => remote.answers_so_far(job.id).await,
            #[cfg(feature = "sql")]
            None => crate::query::answers(self, job).await,
            #[cfg(not(feature = "sql"))]
            None => Err(Error::NoSql),
        }
    }

    /// What asking would do. Nothing runs.
    ///
    /// # Errors
    /// As [`Control::ask`].
    pub async fn explain(&self, question: &Question) -> Result<Explanation, Error> {
        match self.remote() {
            Some(remote) => remote.explain(question).await,
            #[cfg(feature = "sql")]
            None => crate::query::explain(self, question).await,
            #[cfg(not(feature = "sql"))]
            None => Err(Error::NoSql),
        }
    }

    /// Makes a view of a question, and gives the database with its collection; the leader computes its answer, no more often than
    /// each `every_ms` milliseconds.
    ///
    /// # Errors
    /// [`Error::Usage`] for a query that is wrong or can't be kept current, with the reason; [`Error::Storage`], also where the
    /// name is taken.
    pub async fn create_view(
        &self,
        name: &Name,
        question: &Question,
        every_ms: u64,
    ) -> Result<String, Error> {
        match self.remote() {
            Some(remote) => remote.create_view(name, question, every_ms).await,
            #[cfg(feature = "sql")]
            None => {
                crate::query::create_view(self, name, question, every_ms).await?;
                Ok(self.store()?.database().to_string())
            }
            #[cfg(not(feature = "sql"))]
            None => Err(Error::NoSql),
        }
    }

    /// The answer of a view as it stands, as an Arrow IPC stream.
    ///
    /// # Errors
    /// [`Error::NoSuchView`]; [`Error::Failed`] for one that has none yet; [`Error::Storage`].
    pub async fn view_answer(&self, name: &Name) -> Result<Vec<u8>, Error> {
        match self.remote() {
            Some(remote) => remote.view_answer(name).await,
            #[cfg(feature = "sql")]
            None => crate::query::view_answer(self, name).await,
            #[cfg(not(feature = "sql"))]
            None => Err(Error::NoSql),
        }
    }

    /// The answer of a job that has succeeded, in memory: of one that brought a view up to date that which its merged state comes
    /// to.
    ///
    /// # Errors
    /// As [`Control::output`].
    pub async fn answer(&self, job: &Job) -> Result<Vec<u8>, Error> {
        match self.remote() {
            Some(remote) => remote.answer(job).await,
            #[cfg(feature = "sql")]
            None => crate::query::answer(self, job).await,
            #[cfg(not(feature = "sql"))]
            None => Err(Error::NoSql),
        }
    }

    /// The first lines of a dataset as an answer, read without a job.
    ///
    /// # Errors
    /// [`Error::NoSuchDataset`]; [`Error::Failed`] for what can't be read; [`Error::Storage`].
    pub async fn head(&self, name: &Name, lines: u32) -> Result<Vec<u8>, Error> {
        match self.remote() {
            Some(remote) => remote.head(name, lines).await,
            #[cfg(feature = "sql")]
            None => crate::query::head(self, name, lines).await,
            #[cfg(not(feature = "sql"))]
            None => {
                self.dataset(name).await?;
                Err(Error::NoSql)
            }
        }
    }

    /// How many of the first recorded blocks of a query were looked at, and how many lines these had.
    ///
    /// # Errors
    /// [`Error::Storage`].
    pub async fn lines_of(&self, job: &Job) -> Result<(u64, u64), Error> {
        match self.remote() {
            Some(remote) => remote.lines_of(job.id).await,
            #[cfg(feature = "sql")]
            None => crate::query::lines_of(self, job).await,
            #[cfg(not(feature = "sql"))]
            None => Err(Error::NoSql),
        }
    }
}
