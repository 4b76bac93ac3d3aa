//! After the faults: all jobs end, and each subtask of each is recorded once, with what it must have given.

use std::{collections::BTreeMap, time::Duration};

use control::Control;
use futures::TryStreamExt as _;
use model::{Job, JobState};
use storage::JobFilter;
use testkit::picture::Camera;
use tokio::time::Instant;

use crate::{
    load::{Load, Work},
    watch::Watch,
    yard::{SOON, Yard, until},
};

/// Waits until all jobs have ended; those that have not after `patience` are violations.
pub(crate) async fn drain(yard: &Yard, load: &Load, patience: Duration) {
    let begun = Instant::now();
    loop {
        let left = load.unfinished().await;
        match left {
            Ok(left) if left.is_empty() => return,
            Ok(left) if begun.elapsed() > patience => {
                for job in left {
                    let Job {
                        id,
                        state,
                        counts,
                        low_water,
                        ..
                    } = &job;
                    let of = job.subtasks();
                    yard.violates(format!(
                        "job {id} has not ended: {state}, {counts:?} of {of}, low-water mark {low_water}"
                    ));
                }
                return;
            }
            Err(error) if begun.elapsed() > patience => return yard.violates(error.to_string()),
            _ => tokio::time::sleep(Duration::from_millis(200)).await,
        }
    }
}

/// Compares each job with what is recorded of it and what it must have given; gives how many jobs and subtasks there are.
pub(crate) async fn ledger(yard: &Yard, load: &Load) -> String {
    let jobs = load.store().list(&JobFilter::default()).await.unwrap();
    let zookeeper = coordination::Config {
        connect: yard.zookeeper.clone(),
        ..Default::default()
    };
    let control = Control::open(zookeeper, load.store().clone());
    let (mut subtasks, mut outputs) = (0, 0);
    let mut states: BTreeMap<&str, u32> = BTreeMap::new();
    for job in &jobs {
        *states.entry(job.state.as_str()).or_default() += 1;
        subtasks += job.subtasks();
        for what in wrong(job, load).await {
            yard.violates(format!("job {} ({}): {what}", job.id, job.state));
        }
        if job.state == JobState::Successful
            && let Some(right) = Work::of(job).and_then(Work::output)
        {
            outputs += 1;
            match printed(&control, job).await {
                Ok(text) if text == right => {}
                Ok(text) => yard.violates(format!("job {} printed {text:?}", job.id)),
                Err(error) => yard.violates(format!("job {}: {error}", job.id)),
            }
        }
    }
    for job in load.jobs() {
        if !jobs.iter().any(|there| there.id == job) {
            yard.violates(format!("job {job} was acknowledged and is not there"));
        }
    }
    let jobs = jobs.len();
    format!("{jobs} jobs {states:?} with {subtasks} subtasks, each recorded once; {outputs} outputs compared")
}

async fn printed(control: &Control, job: &Job) -> Result<String, control::Error> {
    let chunks: Vec<Vec<u8>> = control.output(job).await?.try_collect().await?;
    Ok(String::from_utf8_lossy(&chunks.concat()).into_owned())
}

/// What is wrong with what is recorded of a job.
async fn wrong(job: &Job, load: &Load) -> Vec<String> {
    let mut wrong = Vec::new();
    let indexes = load.store().result_ids_from(job.id, 0).await.unwrap();
    let failed = load.store().failed_results(job.id, u32::MAX).await.unwrap().len() as u64;
    let counts = job.counts;
    let recorded = indexes.len() as u64;
    if recorded != counts.ok + counts.failed || failed != counts.failed {
        wrong.push(format!(
            "{recorded} ends are recorded, {failed} of them failures, but counted are {counts:?}"
        ));
    }
    if indexes.windows(2).any(|pair| pair[0] >= pair[1])
        || indexes
            .last()
            .is_some_and(|&last| u64::from(last) >= job.subtasks())
    {
        wrong.push("the recorded subtasks are not those of the job".to_string());
    }
    if job.state.is_final() && counts.ended() != job.subtasks() {
        wrong.push(format!(
            "{} of {} subtasks have ended",
            counts.ended(),
            job.subtasks()
        ));
    }
    if job.state == JobState::Successful && counts.ok != job.subtasks() {
        wrong.push(format!(
            "only {} of {} subtasks have a result",
            counts.ok,
            job.subtasks()
        ));
    }
    if let Some(work) = Work::of(job)
        && (job.state, counts.failed) != work.expected()
    {
        let why = job.error.as_deref().unwrap_or_default();
        wrong.push(format!(
            "{work:?} must end with {:?}, not with {} failures: {why}",
            work.expected(),
            counts.failed
        ));
    }
    wrong
}

/// `sawmill doctor --audit` finds nothing, and the tree holds nothing of any job.
pub(crate) async fn audit(yard: &Yard, watch: &Watch) {
    let audit = yard.recipe().args(["doctor", "--audit"]);
    match yard.command(audit, SOON).await {
        Some(output) if output.status.success() => {}
        Some(output) => yard.violates(format!("the audit: {}{}", output.stdout, output.stderr)),
        None => yard.violates("the audit did not end".to_string()),
    }
    // What is recorded may be about to be cleared.
    if !until(SOON, || watch.entries().is_empty()).await {
        yard.violates(format!("entries are left in the tree: {:?}", watch.entries()));
    }
}

/// Roles that were stopped leave nothing behind.
pub(crate) async fn empty(yard: &Yard) {
    let Some(mut camera) = Camera::connect(&yard.zookeeper).await else {
        return yard.violates("ZooKeeper does not answer at the end".to_string());
    };
    match camera.take().await {
        Ok(picture) => {
            let left = (picture.dispatchers, picture.watchers, picture.workers);
            if left != Default::default() {
                yard.violates(format!("stopped roles have left {left:?}"));
            }
        }
        Err(error) => yard.violates(format!("at the end: {error}")),
    }
}
