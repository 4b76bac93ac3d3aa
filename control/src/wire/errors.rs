//! Errors: the same code, reason and message on both sides.

use api::Malformed;
use tonic::{Code, Status};

use crate::Error;

/// The status of an error.
pub fn status(error: &Error) -> Status {
    let place = match error {
        Error::NoSuchDataset { name, .. } => ("dataset", name.to_string()),
        Error::NoLines { dataset } => ("dataset", dataset.to_string()),
        Error::NoSuchView { name, .. } | Error::ViewKeepsChanging { name } => ("view", name.to_string()),
        Error::NoSuchAgent { name, .. } | Error::AgentLives { name } => ("agent", name.to_string()),
        Error::NoSuchWorker { reference, .. } => ("worker", reference.clone()),
        Error::NoSuchJob { reference } => ("job", reference.clone()),
        Error::AlreadyEnded { job, .. }
        | Error::NoResult { job, .. }
        | Error::ResultsGone { job, .. }
        | Error::NotEnded { job, .. } => ("job", job.to_string()),
        Error::BadFile { path, .. } => ("path", path.clone()),
        _ => return api::refusal(code(error), error.reason(), error.to_string(), []),
    };
    api::refusal(code(error), error.reason(), error.to_string(), [place])
}

/// The status of a message that means nothing.
pub fn malformed(error: &Malformed) -> Status {
    let place = ("field", error.field.to_string());
    api::refusal(Code::InvalidArgument, "MALFORMED", error.to_string(), [place])
}

fn code(error: &Error) -> Code {
    use storage::Error as E;
    match error {
        error if error.is_usage() => Code::InvalidArgument,
        error if error.is_retryable() => Code::Unavailable,
        Error::NoSuchDataset { .. } | Error::NoSuchView { .. } | Error::NoSuchJob { .. } => Code::NotFound,
        Error::NoSuchAgent { .. } | Error::NoSuchWorker { .. } => Code::NotFound,
        Error::AgentLives { .. } => Code::FailedPrecondition,
        Error::ResultsGone { .. } | Error::NoSuchToken { .. } => Code::NotFound,
        Error::AlreadyEnded { .. } | Error::NoResult { .. } | Error::NotEnded { .. } => {
            Code::FailedPrecondition
        }
        Error::ViewKeepsChanging { .. } => Code::Aborted,
        Error::Failed(_) | Error::NoSql | Error::BadFile { .. } => Code::FailedPrecondition,
        Error::BadParts(_) => Code::ResourceExhausted,
        Error::Storage(error) => match error {
            E::NotFound { .. } => Code::NotFound,
            E::Exists { .. } | E::Taken { .. } => Code::AlreadyExists,
            E::Ambiguous { .. }
            | E::InUse { .. }
            | E::Irrevocable { .. }
            | E::Changed { .. }
            | E::NotAFile { .. }
            | E::Io { .. }
            | E::Object { .. }
            | E::NoReplicaSet { .. }
            | E::Newer { .. } => Code::FailedPrecondition,
            _ => Code::Internal,
        },
        _ => Code::Internal,
    }
}

/// The error that a gateway told; one that the connection met names the gateway.
pub fn refused(status: &Status, server: &str) -> Error {
    let reason = api::reason(status);
    let message = match &reason {
        Some(_) => status.message().to_string(),
        None => format!("gateway {server}: {}", api::transport::why(status)),
    };
    Error::Refused {
        code: status.code(),
        reason,
        message,
    }
}

#[cfg(test)]
mod tests {
    use model::{JobId, JobState, Name};

    use super::*;
    use crate::reason;

    #[test]
    fn errors_say_the_same_on_the_other_side() {
        let job = JobId(uuid::Uuid::from_u128(7));
        let name = Name::new("access").unwrap();
        let errors = [
            Error::NoSuchDataset {
                name: name.clone(),
                near: Some(Name::new("acces").unwrap()),
            },
            Error::NoSuchView { name, near: None },
            Error::AlreadyEnded {
                job,
                state: JobState::Failed,
            },
            Error::ResultsGone {
                job,
                found: 1,
                expected: 2,
            },
            Error::Usage("a query is wrong".into()),
            Error::Failed("can't read é: gone".into()),
            Error::NoSql,
            Error::Storage(storage::Error::Concurrent { name: "a".into() }),
            Error::Storage(storage::Error::BadUrl {
                url: "x".into(),
                why: "y".into(),
            }),
        ];
        for error in errors {
            let told = refused(&status(&error), "mill:7766");
            assert_eq!(
                (
                    told.to_string(),
                    told.reason(),
                    told.is_usage(),
                    told.is_retryable()
                ),
                (
                    error.to_string(),
                    error.reason(),
                    error.is_usage(),
                    error.is_retryable()
                ),
                "{error:?}"
            );
        }
        let lost = refused(&Status::unavailable("connection reset"), "mill:7766");
        assert_eq!(lost.to_string(), "gateway mill:7766: connection reset");
        assert!(lost.is_retryable() && lost.is("CONNECTION") && !lost.is(reason::NOT_ENDED));
    }
}
