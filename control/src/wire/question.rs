//! Questions.

use api::{Malformed, v1};
use model::{Job, JobId};

use crate::{Answer, Asked, GrownFile, Question, WithTable};

/// A question.
pub fn question_message(question: &Question) -> v1::Question {
    let with = question.with.iter().map(|table| v1::SmallTable {
        name: table.name.clone(),
        ending: table.ending.clone().unwrap_or_default(),
        content: table.bytes.clone().into(),
    });
    v1::Question {
        sql: question.sql.clone(),
        time_zone: question.time_zone.clone(),
        gather_rows: question.gather_rows,
        with: with.collect(),
        into: question.into.clone(),
        priority: Some(question.priority.get().into()),
        no_reuse: question.no_reuse,
        skip_missing: question.skip_missing,
        no_recorded_answer: question.no_recorded_answer,
    }
}

/// A question.
///
/// # Errors
/// What does not fit.
pub fn question(message: v1::Question) -> Result<Question, Malformed> {
    let with = message.with.into_iter().map(|table| WithTable {
        name: table.name,
        ending: Some(table.ending).filter(|ending| !ending.is_empty()),
        bytes: table.content.into(),
    });
    Ok(Question {
        time_zone: match message.time_zone.as_str() {
            "" => "UTC".into(),
            zone => zone.into(),
        },
        gather_rows: message.gather_rows,
        with: with.collect(),
        into: message.into,
        priority: api::priority(message.priority)?,
        no_reuse: message.no_reuse,
        skip_missing: message.skip_missing,
        no_recorded_answer: message.no_recorded_answer,
        ..Question::new(message.sql)
    })
}

/// What became of a question.
pub fn asked_message(asked: &Asked) -> v1::Asked {
    let (answer, bytes) = match &asked.answer {
        Answer::Recorded(job) => (v1::asked::Answer::Recorded(job.as_ref().into()), 0),
        Answer::NoRows(answer) => (v1::asked::Answer::NoRows(answer.clone().into()), 0),
        Answer::Submitted { job, bytes } => (v1::asked::Answer::Submitted(job.to_string()), *bytes),
    };
    v1::Asked {
        answer: Some(answer),
        changed: asked.changed.clone(),
        grown: asked.grown.iter().map(grown_message).collect(),
        bytes,
        database: asked.database.clone(),
    }
}

fn grown_message(grown: &GrownFile) -> v1::GrownFile {
    v1::GrownFile {
        dataset: grown.dataset.to_string(),
        file: grown.file.clone(),
        bytes: grown.bytes,
    }
}

fn grown(message: v1::GrownFile) -> Result<GrownFile, Malformed> {
    Ok(GrownFile {
        dataset: super::name("grown.dataset", &message.dataset)?,
        file: message.file,
        bytes: message.bytes,
    })
}

/// What became of a question.
///
/// # Errors
/// What does not fit.
pub fn asked(message: v1::Asked) -> Result<Asked, Malformed> {
    let answer = match message.answer {
        None => return Err(Malformed::new("answer", "it is missing")),
        Some(v1::asked::Answer::Recorded(job)) => Answer::Recorded(Box::new(Job::try_from(job)?)),
        Some(v1::asked::Answer::NoRows(answer)) => Answer::NoRows(answer.into()),
        Some(v1::asked::Answer::Submitted(id)) => Answer::Submitted {
            job: JobId(id.parse().map_err(|error| Malformed::new("submitted", error))?),
            bytes: message.bytes,
        },
    };
    Ok(Asked {
        answer,
        changed: message.changed,
        grown: message.grown.into_iter().map(grown).collect::<Result<_, _>>()?,
        database: message.database,
    })
}
