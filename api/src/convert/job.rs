//! Jobs.

use model::{
    Counts, Job, JobId, JobSpec, JobState, Name, Parts, Priority, Processor,
    job::DEFAULT_MAX_FAILED,
    parts::{Part, Source},
    processor::{Command, DEFAULT_OUTPUT_LIMIT_BYTES},
    retry::RetryPolicy,
};

use super::Malformed;
use crate::v1::{self, job_spec};

impl From<JobState> for v1::JobState {
    fn from(state: JobState) -> Self {
        match state {
            JobState::Pending => Self::Pending,
            JobState::Staging => Self::Staging,
            JobState::Running => Self::Running,
            JobState::Successful => Self::Successful,
            JobState::Failed => Self::Failed,
            JobState::Cancelled => Self::Cancelled,
        }
    }
}

impl TryFrom<v1::JobState> for JobState {
    type Error = Malformed;

    fn try_from(state: v1::JobState) -> Result<Self, Malformed> {
        Ok(match state {
            v1::JobState::Unspecified => return Err(Malformed::new("state", "it is none")),
            v1::JobState::Pending => Self::Pending,
            v1::JobState::Staging => Self::Staging,
            v1::JobState::Running => Self::Running,
            v1::JobState::Successful => Self::Successful,
            v1::JobState::Failed => Self::Failed,
            v1::JobState::Cancelled => Self::Cancelled,
        })
    }
}

/// A state as it is written in messages.
///
/// # Errors
/// A number that is none.
pub fn state(number: i32) -> Result<JobState, Malformed> {
    let state = v1::JobState::try_from(number).map_err(|error| Malformed::new("state", error))?;
    state.try_into()
}

impl From<Counts> for v1::Counts {
    fn from(counts: Counts) -> Self {
        let Counts {
            ok,
            failed,
            cancelled,
            again,
            already,
            executed,
            busy_us,
        } = counts;
        Self {
            ok,
            failed,
            cancelled,
            again,
            already,
            executed,
            busy_us,
        }
    }
}

impl From<v1::Counts> for Counts {
    fn from(counts: v1::Counts) -> Self {
        let v1::Counts {
            ok,
            failed,
            cancelled,
            again,
            already,
            executed,
            busy_us,
        } = counts;
        Self {
            ok,
            failed,
            cancelled,
            again,
            already,
            executed,
            busy_us,
        }
    }
}

impl From<&Processor> for job_spec::Processor {
    fn from(processor: &Processor) -> Self {
        match processor {
            Processor::Noop => Self::Noop(v1::Noop {}),
            Processor::Command(command) => Self::Command(v1::Command {
                map: command.map.clone(),
                reduce: command.reduce.clone(),
                timeout_ms: command.timeout_ms,
                output_limit_bytes: Some(command.output_limit_bytes),
                no_pipefail: !command.pipefail,
                ok_exit: command.ok_exit.iter().map(|code| u32::from(*code)).collect(),
                env: command.env.clone().into_iter().collect(),
            }),
            Processor::Query(query) => Self::Query(v1::Query {
                sql: query.sql.clone(),
                time_zone: query.time_zone.clone(),
                version: query.version.clone(),
                // A query is text and numbers alone, which JSON always takes.
                document_json: serde_json::to_string(query).unwrap_or_default(),
            }),
        }
    }
}

impl TryFrom<job_spec::Processor> for Processor {
    type Error = Malformed;

    fn try_from(processor: job_spec::Processor) -> Result<Self, Malformed> {
        Ok(match processor {
            job_spec::Processor::Noop(_) => Self::Noop,
            job_spec::Processor::Command(command) => Self::Command(Command {
                map: command.map,
                reduce: command.reduce,
                timeout_ms: command.timeout_ms,
                output_limit_bytes: command.output_limit_bytes.unwrap_or(DEFAULT_OUTPUT_LIMIT_BYTES),
                pipefail: !command.no_pipefail,
                ok_exit: command
                    .ok_exit
                    .into_iter()
                    .map(exit_code)
                    .collect::<Result<_, _>>()?,
                env: command.env.into_iter().collect(),
            }),
            job_spec::Processor::Query(query) => {
                let query = serde_json::from_str(&query.document_json);
                Self::Query(query.map_err(|error| Malformed::new("query.document_json", error))?)
            }
        })
    }
}

fn exit_code(number: u32) -> Result<u8, Malformed> {
    u8::try_from(number).map_err(|_| Malformed::new("ok_exit", format!("{number} is not within 0 to 255")))
}

impl From<&JobSpec> for v1::JobSpec {
    fn from(spec: &JobSpec) -> Self {
        Self {
            dataset: spec.dataset.to_string(),
            also: spec.also.iter().map(ToString::to_string).collect(),
            processor: Some((&spec.processor).into()),
            priority: Some(spec.priority.get().into()),
            retry: Some(v1::RetryPolicy {
                max_attempts: spec.retry.max_attempts,
                initial_ms: spec.retry.initial_ms,
                max_ms: spec.retry.max_ms,
            }),
            reuse: spec.reuse,
            max_failed: Some(spec.max_failed),
            skip_missing: spec.skip_missing,
        }
    }
}

impl TryFrom<v1::JobSpec> for JobSpec {
    type Error = Malformed;

    fn try_from(spec: v1::JobSpec) -> Result<Self, Malformed> {
        let name = |text: String| Name::new(text).map_err(|error| Malformed::new("dataset", error));
        let retry = match spec.retry {
            None => RetryPolicy::default(),
            Some(retry) if retry.max_attempts == 0 => {
                return Err(Malformed::new("retry.max_attempts", "it must be at least 1"));
            }
            Some(retry) => RetryPolicy {
                max_attempts: retry.max_attempts,
                initial_ms: retry.initial_ms,
                max_ms: retry.max_ms,
            },
        };
        let max_failed = spec.max_failed.unwrap_or(DEFAULT_MAX_FAILED);
        if max_failed == 0 {
            return Err(Malformed::new("max_failed", "it must be at least 1"));
        }
        let processor = spec.processor.ok_or_else(|| Malformed::missing("processor"))?;
        Ok(Self {
            dataset: name(spec.dataset)?,
            also: spec.also.into_iter().map(name).collect::<Result<_, _>>()?,
            processor: processor.try_into()?,
            priority: priority(spec.priority)?,
            retry,
            reuse: spec.reuse,
            max_failed,
            skip_missing: spec.skip_missing,
        })
    }
}

/// A priority as it is written in messages.
///
/// # Errors
/// A number that is none.
pub fn priority(given: Option<u32>) -> Result<Priority, Malformed> {
    let Some(number) = given else {
        return Ok(Priority::DEFAULT);
    };
    let bad = || Malformed::new("priority", format!("{number} is not within 0 to 999"));
    let number = u16::try_from(number).map_err(|_| bad())?;
    Priority::new(number).map_err(|_| bad())
}

impl From<&Job> for v1::Job {
    fn from(job: &Job) -> Self {
        let sources = job.parts.sources().iter().map(|source| v1::JobSource {
            id: source.id.to_string(),
            first: source.first,
            blocks: source.blocks,
            generation: source.generation,
            void: source.void,
        });
        let parts = job.parts.parts().iter().map(|part| v1::JobPart {
            source: part.table,
            first: part.first,
            count: part.count,
        });
        Self {
            id: job.id.to_string(),
            spec: Some((&job.spec).into()),
            state: v1::JobState::from(job.state).into(),
            counts: Some(job.counts.into()),
            subtasks: job.subtasks(),
            low_water: job.low_water,
            cancel_requested: job.cancel_requested,
            error: job.error.clone(),
            submitted_ms: job.submitted_ms,
            admitted_ms: job.admitted_ms,
            finished_ms: job.finished_ms,
            sources: sources.collect(),
            parts: parts.collect(),
            submitted_by: job.submitted_by.clone(),
        }
    }
}

impl TryFrom<v1::Job> for Job {
    type Error = Malformed;

    fn try_from(job: v1::Job) -> Result<Self, Malformed> {
        let source = |source: &v1::JobSource| {
            let id = source
                .id
                .parse()
                .map_err(|error| Malformed::new("sources.id", error))?;
            Ok(Source {
                id,
                first: source.first,
                blocks: source.blocks,
                generation: source.generation,
                void: source.void,
            })
        };
        let part = |part: &v1::JobPart| Part {
            table: part.source,
            first: part.first,
            count: part.count,
        };
        let sources = job.sources.iter().map(source).collect::<Result<_, Malformed>>()?;
        let parts = Parts::of(sources, job.parts.iter().map(part).collect());
        let parts = parts.map_err(|error| Malformed::new("parts", error))?;
        let id = job.id.parse().map_err(|error| Malformed::new("id", error))?;
        let spec = job.spec.ok_or_else(|| Malformed::missing("spec"))?;
        Ok(Self {
            state: state(job.state)?,
            counts: job.counts.unwrap_or_default().into(),
            low_water: job.low_water,
            cancel_requested: job.cancel_requested,
            error: job.error,
            admitted_ms: job.admitted_ms,
            finished_ms: job.finished_ms,
            submitted_by: job.submitted_by,
            ..Self::new(JobId(id), spec.try_into()?, parts, job.submitted_ms)
        })
    }
}

#[cfg(test)]
mod tests {
    use model::processor::Query;
    use proptest::{collection::btree_map, option, prelude::*};

    use super::*;

    fn processor() -> impl Strategy<Value = Processor> {
        let limits = (option::of(any::<u64>()), any::<u64>());
        let added = (any::<bool>(), any::<Vec<u8>>(), btree_map(".*", ".*", 0..3));
        let command = (".*", option::of(".*"), limits, added);
        let command = command.prop_map(|(map, reduce, limits, (pipefail, ok_exit, env))| {
            Processor::Command(Command {
                map,
                reduce,
                timeout_ms: limits.0,
                output_limit_bytes: limits.1,
                pipefail,
                ok_exit,
                env,
            })
        });
        let query = (".*", any::<i64>(), option::of(any::<u64>())).prop_map(|(sql, now_us, gather_rows)| {
            Processor::Query(Query {
                sql,
                now_us,
                gather_rows,
                ..Query::default()
            })
        });
        prop_oneof![Just(Processor::Noop), command, query]
    }

    fn job() -> impl Strategy<Value = Job> {
        let retry =
            (1..=u32::MAX, any::<u64>(), any::<u64>()).prop_map(|(max_attempts, initial_ms, max_ms)| {
                RetryPolicy {
                    max_attempts,
                    initial_ms,
                    max_ms,
                }
            });
        let spec = (processor(), 0_u16..1000, retry, any::<[bool; 2]>(), 1..=u32::MAX);
        let spec = spec.prop_map(
            |(processor, priority, retry, [reuse, skip_missing], max_failed)| JobSpec {
                also: vec![Name::new("b").unwrap()],
                priority: Priority::new(priority).unwrap(),
                retry,
                reuse,
                max_failed,
                skip_missing,
                ..JobSpec::new(Name::new("a").unwrap(), processor)
            },
        );
        let counts = any::<[u64; 7]>().prop_map(
            |[ok, failed, cancelled, again, already, executed, busy_us]| Counts {
                ok,
                failed,
                cancelled,
                again,
                already,
                executed,
                busy_us,
            },
        );
        let times = any::<(i64, Option<i64>, Option<i64>)>();
        let parts = (0..100_u32, 0..100_u32, any::<u128>());
        (
            spec,
            counts,
            times,
            parts,
            any::<u128>(),
            option::of(".*"),
            0..6_usize,
        )
            .prop_map(
                |(spec, counts, times, (first, count, dataset), id, error, state)| {
                    let source = Source {
                        id: uuid(dataset),
                        first,
                        blocks: first + count,
                        generation: first / 2,
                        void: count / 2,
                    };
                    let empty = Source {
                        id: uuid(dataset ^ 1),
                        ..Source::default()
                    };
                    let parts = Parts::whole(vec![source, empty]).unwrap();
                    Job {
                        counts,
                        state: JobState::ALL[state],
                        error,
                        admitted_ms: times.1,
                        finished_ms: times.2,
                        submitted_by: (first % 2 == 1).then(|| "user anna".to_string()),
                        low_water: count,
                        cancel_requested: count % 2 == 1,
                        ..Job::new(JobId(uuid(id)), spec, parts, times.0)
                    }
                },
            )
    }

    fn uuid(number: u128) -> uuid::Uuid {
        uuid::Uuid::from_u128(number)
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn jobs_come_back_as_they_were(job in job()) {
            prop_assert_eq!(Job::try_from(v1::Job::from(&job)).unwrap(), job);
        }
    }

    #[test]
    fn what_is_not_said_has_its_default_and_what_is_wrong_is_named() {
        let said = v1::JobSpec {
            dataset: "access".into(),
            processor: Some(job_spec::Processor::Noop(v1::Noop {})),
            ..v1::JobSpec::default()
        };
        let expected = JobSpec::new(Name::new("access").unwrap(), Processor::Noop);
        assert_eq!(JobSpec::try_from(said.clone()).unwrap(), expected);
        let wrong = [
            v1::JobSpec {
                dataset: "a/b".into(),
                ..said.clone()
            },
            v1::JobSpec {
                processor: None,
                ..said.clone()
            },
            v1::JobSpec {
                priority: Some(1000),
                ..said.clone()
            },
            v1::JobSpec {
                max_failed: Some(0),
                ..said.clone()
            },
            v1::JobSpec {
                retry: Some(v1::RetryPolicy::default()),
                ..said
            },
        ];
        for (spec, field) in wrong.into_iter().zip([
            "dataset",
            "processor",
            "priority",
            "max_failed",
            "retry.max_attempts",
        ]) {
            assert_eq!(JobSpec::try_from(spec).unwrap_err().field, field);
        }
    }
}
