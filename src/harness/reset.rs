//! Starting from nothing: `--create` and `--flush`.

use anyhow::{Context as _, bail};
use coordination::{Term, inspect};
use model::JobState;
use storage::{JobFilter, Store};

use super::queries::PREFIX;

/// Deletes and recreates the three roots.
///
/// # Errors
/// While a live worker owns something, unless `force`; what ZooKeeper says.
pub(super) async fn create(zookeeper: &coordination::Config, force: bool) -> anyhow::Result<()> {
    let term = Term::begin(zookeeper).await?;
    let recreated = inspect::recreate(&term, force).await;
    term.close().await;
    recreated.context("--create was refused; --force does it all the same")
}

/// Empties the collections.
///
/// # Errors
/// While the database holds datasets or unfinished jobs that are not the harness's, unless `force`; what MongoDB says.
pub(super) async fn flush(store: &Store, force: bool) -> anyhow::Result<()> {
    if !force {
        let foreign = |name: &str| !name.starts_with(PREFIX);
        if let Some(dataset) = store
            .list_datasets()
            .await?
            .iter()
            .find(|dataset| foreign(dataset.name.as_str()))
        {
            bail!(
                "--flush was refused: database {} also holds dataset {}, which is not the harness's; \
                 use another database (--mongodb) or --force",
                store.database(),
                dataset.name
            );
        }
        let unfinished = vec![JobState::Pending, JobState::Staging, JobState::Running];
        let jobs = store
            .list(&JobFilter {
                states: unfinished,
                ..JobFilter::default()
            })
            .await?;
        if let Some(job) = jobs.iter().find(|job| foreign(job.spec.dataset.as_str())) {
            bail!(
                "--flush was refused: job {} over {} is unfinished; --force does it all the same",
                job.id,
                job.spec.dataset
            );
        }
    }
    Ok(store.drop_collections().await?)
}
