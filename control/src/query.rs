//! Questions in SQL: from a text to a job, or to what is recorded. DataFusion plans; nothing runs here but the merge of what is
//! at hand already.

mod explain;
mod files;
mod head;
mod planned;
mod pruning;
mod records;
mod refreshed;
mod so_far;
mod table;

use std::ops::Range;

use model::{JobSpec, Name, Processor, processor::Query};
use storage::Dataset;

use crate::{Answer, Asked, Control, Error, Question};
use planned::{Planned, Typed};

pub(crate) use explain::explain;
pub(crate) use files::{add, add_planned};
pub(crate) use head::head;
pub(crate) use refreshed::{answer, create_view, lines_of, view_answer};
pub(crate) use so_far::answers;
pub(crate) use table::{of as table_of, retype};

impl Question {
    /// Whether it can be a question at all, as far as that shows without a mill.
    ///
    /// # Errors
    /// [`Error::Usage`].
    pub fn check(&self) -> Result<(), Error> {
        Typed::new(self).map(drop)
    }
}

/// Asks: gives the job that has answered the same question over the same blocks, or submits one.
pub(crate) async fn ask(control: &Control, question: &Question) -> Result<Asked, Error> {
    let typed = Typed::new(question)?;
    refuse_others_collection(control, question).await?;
    let mut planned = typed.over(control).await?;
    let identity = sql::question(&planned.query).map_err(wrong)?;
    let again = !question.no_reuse && question.into.is_none();
    let recorded = async {
        match again && !question.no_recorded_answer {
            true => control.answered(&identity, &planned.datasets).await,
            false => Ok(None),
        }
    };
    let (recorded, looked) = tokio::try_join!(recorded, pruning::look(control, &planned.datasets))?;
    let pruning::Looked { changed, grown } = looked;
    let changed = changed.filter(|_| !question.no_reuse && !question.skip_missing);
    match recorded {
        Some(job) if changed.is_none() => {
            return Ok(Asked {
                answer: Answer::Recorded(Box::new(job)),
                changed,
                grown,
                database: control.store()?.database().to_string(),
            });
        }
        _ => {}
    }
    let told = recorded_but_changed(recorded.is_some(), changed.as_deref());
    planned.plan(Some(identity).filter(|_| again)).await?;
    let Planned {
        query,
        datasets,
        runtime,
        tables,
    } = planned;
    if question.into.is_none()
        && let Some(answer) = runtime.no_rows(&query).await.map_err(wrong)?
    {
        return Ok(Asked {
            answer: Answer::NoRows(answer),
            changed: None,
            grown,
            database: control.store()?.database().to_string(),
        });
    }
    let chosen = pruning::needed(control, &runtime, &query, datasets.clone()).await?;
    let bytes = pruning::bytes(&chosen);
    let spec = spec_of(question, query, &datasets, changed.is_none());
    let job = control.submit_with(spec, chosen, tables).await?;
    Ok(Asked {
        answer: Answer::Submitted { job, bytes },
        changed: told,
        grown,
        database: control.store()?.database().to_string(),
    })
}

/// That a file has changed is of interest to who would have got what is recorded.
fn recorded_but_changed(is_recorded: bool, changed: Option<&str>) -> Option<String> {
    changed.filter(|_| is_recorded).map(str::to_string)
}

/// An answer in the place of that of a view would be replaced again, and one in the place of what another program keeps would
/// destroy that.
async fn refuse_others_collection(control: &Control, question: &Question) -> Result<(), Error> {
    let Some(into) = &question.into else { return Ok(()) };
    storage::check_collection(into)?;
    if let Ok(name) = Name::new(into.as_str())
        && control.store()?.view(&name).await?.is_some()
    {
        return Err(Error::Usage(format!(
            "the collection {name} is the answer of the view {name}: name another with --into"
        )));
    }
    match control.store()?.check_replaceable(into).await {
        Err(storage::Error::Taken { .. }) => Err(Error::Usage(format!(
            "the collection {into} exists and was not made by `sawmill query --into`, so it is not replaced: name another with \
             --into, or drop it first"
        ))),
        checked => Ok(checked.map(drop)?),
    }
}

fn spec_of(question: &Question, query: Query, datasets: &[Dataset], unchanged: bool) -> JobSpec {
    let mut names = datasets.iter().map(|dataset| dataset.name.clone());
    let first = names.next().expect("a query reads a dataset");
    let reuse = !question.no_reuse && unchanged && query.is_reusable();
    JobSpec {
        priority: question.priority,
        also: names.collect(),
        reuse,
        skip_missing: question.skip_missing,
        ..JobSpec::new(first, Processor::Query(query))
    }
}

/// Datasets, each with the ranges of its blocks that take part.
type Chosen = Vec<(Dataset, Vec<Range<u32>>)>;

/// A query that is wrong is a mistake of the one who asks.
fn wrong(error: sql::Error) -> Error {
    Error::Usage(error.to_string())
}
