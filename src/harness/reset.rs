//! Starting from nothing: `--create` and `--flush`.

use anyhow::bail;
use coordination::Term;
use model::JobState;
use storage::{JobFilter, Store};
use tracing::info;

use super::{Switches, queries::PREFIX};
use crate::{exit::unless_forced, roles::Parts};

/// Does what is asked for of both, after all checks.
///
/// # Errors
/// While roles or agents are connected, or the database holds datasets or unfinished jobs that are not the harness's,
/// unless `force`, nothing is changed then; what ZooKeeper and MongoDB say.
pub(super) async fn reset(
    parts: &Parts,
    Switches { create, flush, .. }: Switches,
    force: bool,
) -> anyhow::Result<()> {
    if !create && !flush {
        return Ok(());
    }
    if flush && !force {
        check_owner(&parts.store).await?;
    }
    let term = Term::begin(&parts.zookeeper).await?;
    let done = async {
        if create {
            let recreated = coordination::recreate(&term, force).await;
            recreated.map_err(|error| unless_forced("--create", error))?;
            info!("the three roots were recreated");
        }
        if flush {
            // Who comes right after the roots were made anew has not begun anything yet.
            if !force && !create {
                let idle = coordination::check_idle(&term).await;
                idle.map_err(|error| unless_forced("--flush", error))?;
            }
            parts.store.drop_collections().await?;
            info!("the collections were emptied");
        }
        anyhow::Ok(())
    };
    let done = done.await;
    term.close().await;
    done
}

/// Refuses to empty a database that others use too.
async fn check_owner(store: &Store) -> anyhow::Result<()> {
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
    Ok(())
}
