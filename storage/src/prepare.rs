//! From ends to documents: what of an entry becomes a result, what a failure, and what it adds to the job's counts.
//!
//! Pure and done outside the transaction, so that the transaction holds the job's counter for as short as it can.

use bson::{RawDocumentBuf, cstr, raw::RawDocumentBuf as Raw, rawdoc};
use model::{
    Counts, FORMAT, Failure, FailureKind, JobId, Outcome, Output,
    outcome::{Past, Run},
    znode::DoneData,
};

use crate::{
    record::DoneItem,
    reuse::Sources,
    schema::{date, failure_key, now_ms, raw_key, raw_uuid, result_key, signed, uuid_binary},
};

/// What one document adds to its job.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Effect {
    Ok,
    Already,
    Executed,
    /// A final failure of the subtask with this index.
    Dead {
        index: u32,
        reason: String,
    },
    /// So many subtasks run again.
    Again(u32),
}

/// One document to insert, and what it stands for.
#[derive(Clone, Debug)]
pub(crate) struct Piece {
    /// The caller's word for the entry it is from.
    pub(crate) tag: usize,
    pub(crate) job: JobId,
    /// The subtasks it ends; for a result the one.
    pub(crate) run: Run,
    pub(crate) effect: Effect,
    /// The whole run time of the entry is on its first piece, so that it is counted once.
    pub(crate) busy_us: u64,
    /// A failure's lacks its ordinal, which only the transaction knows.
    pub(crate) document: RawDocumentBuf,
}

impl Piece {
    pub(crate) fn is_failure(&self) -> bool {
        matches!(self.effect, Effect::Again(_))
    }

    /// The key of its document.
    pub(crate) fn key(&self) -> Vec<u8> {
        if self.is_failure() {
            failure_key(self.job, self.run.first, self.run.attempt).to_vec()
        } else {
            result_key(self.job, self.run.first).to_vec()
        }
    }

    /// What it adds to the counts of its job.
    pub(crate) fn adds(&self) -> Counts {
        let mut counts = Counts {
            busy_us: self.busy_us,
            ..Counts::default()
        };
        match &self.effect {
            Effect::Ok => counts.ok = 1,
            Effect::Already => (counts.ok, counts.already) = (1, 1),
            Effect::Executed => (counts.ok, counts.executed) = (1, 1),
            Effect::Dead { .. } => counts.failed = 1,
            Effect::Again(count) => counts.again = u64::from(*count),
        }
        counts
    }

    /// The same subtask ended as refused, with what the server said; a failed attempt stays one, without its details.
    pub(crate) fn refused(&self, why: &str) -> Self {
        let failure = Failure::new(
            FailureKind::Refused,
            format!("what came back could not be recorded: {why}"),
        );
        let mut piece = self.clone();
        if self.is_failure() {
            let outcome = Outcome::Failed(failure);
            piece.document = failure_document(self.job, self.run, &Past::default(), None, &outcome);
        } else {
            piece.effect = Effect::Dead {
                index: self.run.first,
                reason: failure.message.clone(),
            };
            piece.document = dead_document(self.job, self.run, &failure);
        }
        piece
    }
}

/// All documents of `items`, with what was found of the results that they reuse.
pub(crate) fn pieces(items: Vec<DoneItem>, sources: &Sources) -> Vec<Piece> {
    let mut pieces = Vec::with_capacity(items.iter().map(|item| item.data.ends.len()).sum());
    for DoneItem { tag, data } in items {
        let from = pieces.len();
        of_entry(tag, &data, sources, &mut pieces);
        if let Some(first) = pieces.get_mut(from) {
            first.busy_us = data.busy_us;
        }
    }
    pieces
}

fn of_entry(tag: usize, data: &DoneData, sources: &Sources, pieces: &mut Vec<Piece>) {
    for end in &data.ends {
        let run = |first, count| Run {
            first,
            count,
            attempt: data.run.attempt,
        };
        let mut push = |run, effect, document| {
            pieces.push(Piece {
                tag,
                job: data.job,
                run,
                effect,
                busy_us: 0,
                document,
            });
        };
        let all = run(end.first, end.count);
        let again = || {
            let node = data.node.as_ref().map(model::Name::as_str);
            failure_document(data.job, all, &data.past, node, &end.outcome)
        };
        match &end.outcome {
            Outcome::Cancelled => {}
            Outcome::Failed(_) | Outcome::Lost | Outcome::Returned | Outcome::Moved => {
                push(all, Effect::Again(end.count), again());
            }
            Outcome::Ok {
                output,
                fingerprint,
                stderr_tail,
            } => {
                for index in all.indexes() {
                    let fingerprint = fingerprint.as_deref().and_then(hex);
                    let mut document = ok_document(data.job, run(index, 1), output, fingerprint);
                    if !stderr_tail.is_empty() {
                        document.append(cstr!("stderr_tail"), stderr_tail.as_str());
                    }
                    push(run(index, 1), Effect::Ok, document);
                }
            }
            Outcome::Dead(failure) => {
                for index in all.indexes() {
                    let effect = Effect::Dead {
                        index,
                        reason: failure.message.clone(),
                    };
                    push(
                        run(index, 1),
                        effect,
                        dead_document(data.job, run(index, 1), failure),
                    );
                }
            }
            Outcome::Reused { job, index, waited } => match sources.get(&(*job, *index)) {
                Some(found) => {
                    for index in all.indexes() {
                        let effect = if *waited {
                            Effect::Executed
                        } else {
                            Effect::Already
                        };
                        push(
                            run(index, 1),
                            effect,
                            ok_document(data.job, run(index, 1), &found.output, found.fingerprint),
                        );
                    }
                }
                // Its source is gone: to be run like any other.
                None => {
                    let document = failure_document(data.job, all, &data.past, None, &Outcome::Returned);
                    push(all, Effect::Again(end.count), document);
                }
            },
        }
    }
}

fn head(job: JobId, run: Run) -> Raw {
    let key = result_key(job, run.first);
    let mut document = Raw::new();
    document.append(cstr!("_id"), raw_key(&key));
    document.append(cstr!("v"), i64::from(FORMAT));
    document.append(cstr!("attempt"), i64::from(run.attempt));
    document
}

fn ok_document(job: JobId, run: Run, output: &Output, fingerprint: Option<[u8; 16]>) -> Raw {
    let mut document = head(job, run);
    match output {
        Output::Inline(payload) => match std::str::from_utf8(&payload.0) {
            Ok(text) => document.append(cstr!("output"), text),
            Err(_) => document.append(cstr!("output"), raw_key(&payload.0)),
        },
        Output::Stored {
            object,
            start,
            length,
        } => {
            let stored =
                rawdoc! { "object": object.as_str(), "start": signed(*start), "length": signed(*length) };
            document.append(cstr!("stored"), stored);
        }
    }
    if let Some(bytes) = fingerprint {
        document.append(cstr!("fingerprint"), raw_key(&bytes));
    }
    document
}

fn dead_document(job: JobId, run: Run, failure: &Failure) -> Raw {
    let mut document = head(job, run);
    document.append(cstr!("failure"), failure_part(failure));
    document
}

fn failure_part(failure: &Failure) -> Raw {
    let kind = bson::serialize_to_bson(&failure.kind)
        .ok()
        .and_then(|kind| kind.as_str().map(str::to_string));
    let mut part = Raw::new();
    part.append(cstr!("kind"), kind.as_deref().unwrap_or("refused"));
    part.append(cstr!("message"), failure.message.as_str());
    if let Some(code) = failure.exit_code {
        part.append(cstr!("exit_code"), code);
    }
    if !failure.stderr_tail.is_empty() {
        part.append(cstr!("stderr_tail"), failure.stderr_tail.as_str());
    }
    part
}

fn failure_document(job: JobId, run: Run, past: &Past, node: Option<&str>, outcome: &Outcome) -> Raw {
    let key = failure_key(job, run.first, run.attempt);
    let mut document = Raw::new();
    document.append(cstr!("_id"), raw_key(&key));
    document.append(cstr!("v"), i64::from(FORMAT));
    document.append(cstr!("job"), raw_uuid(job.0.as_bytes()));
    document.append(cstr!("first"), i64::from(run.first));
    document.append(cstr!("count"), i64::from(run.count));
    document.append(cstr!("attempt"), i64::from(run.attempt));
    let mut deaths = bson::RawArrayBuf::new();
    for death in &past.deaths {
        deaths.push(rawdoc! {
            "process": uuid_binary(JobId(death.process)),
            "evidence": death.evidence.word(),
        });
    }
    document.append(
        cstr!("past"),
        rawdoc! {
            "failed": i64::from(past.failed),
            "deaths": deaths,
            "stalls": i64::from(past.stalls),
        },
    );
    if let Some(node) = node {
        document.append(cstr!("node"), node);
    }
    document.append(cstr!("outcome"), outcome.word());
    if let Outcome::Failed(failure) = outcome {
        document.append(cstr!("failure"), failure_part(failure));
    }
    document.append(cstr!("at"), date(now_ms()));
    document
}

/// Reads the 32 digits of a fingerprint; anything else is none, and only costs a reuse.
fn hex(text: &str) -> Option<[u8; 16]> {
    let mut bytes = [0; 16];
    if text.len() != 32 || !text.is_ascii() {
        return None;
    }
    for (byte, digits) in bytes.iter_mut().zip(text.as_bytes().chunks(2)) {
        *byte = u8::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()?;
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fingerprints_are_read_or_left_out() {
        assert_eq!(hex(&"0f".repeat(16)), Some([15; 16]));
        assert_eq!(hex("0f"), None);
        assert_eq!(hex(&"zz".repeat(16)), None);
        assert_eq!(hex(&"ä".repeat(16)), None);
    }
}
