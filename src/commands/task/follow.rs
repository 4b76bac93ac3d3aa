//! What tasks print, on our own standard output and error.

use anyhow::anyhow;
use api::v1::{Task, TaskOutputRequest, TaskState, task_output_reply::Message};

use super::{Client, refused, state};
use crate::{
    exit::Exit,
    output::{self, Printed},
};

/// A line of one of several tasks is printed in pieces of at most so many bytes.
const LINE_BYTES: usize = 64 * 1024;

/// Prints what a task has printed, and with `follow` what it prints until it ends.
///
/// # Errors
/// No such task; its worker is gone.
pub(super) async fn print(client: &mut Client, task: String, follow: bool) -> anyhow::Result<Exit> {
    let asked = TaskOutputRequest {
        until_now: !follow,
        ..of(&task)
    };
    let stream = client.task_output(asked).await;
    let mut stream = stream.map_err(refused)?.into_inner();
    let (mut out, mut err) = (Printed::to_stdout(), Printed::to_stderr());
    let mut end = None;
    while let Some(reply) = stream.message().await.map_err(refused)? {
        match reply.message {
            Some(Message::Stdout(bytes)) => out.write(&bytes)?,
            Some(Message::Stderr(bytes)) => err.write(&bytes)?,
            Some(Message::Ended(task)) if follow => {
                end = Some(task);
                break;
            }
            _ => {}
        }
    }
    out.end()?;
    err.end()?;
    if let Some(task) = end {
        return Ok(ended(&task));
    }
    if follow {
        return Err(anyhow!("the output of {task} ended before the task did"));
    }
    Ok(Exit::Success)
}

/// The same for one of several, until it ends: each line behind `prefix`.
///
/// # Errors
/// As [`print`].
pub(super) async fn beside_others(mut client: Client, task: String, prefix: &str) -> anyhow::Result<Exit> {
    let stream = client.task_output(of(&task)).await;
    let mut stream = stream.map_err(refused)?.into_inner();
    let (mut out, mut err) = (Vec::new(), Vec::new());
    while let Some(reply) = stream.message().await.map_err(refused)? {
        match reply.message {
            Some(Message::Stdout(bytes)) => {
                out.extend_from_slice(&bytes);
                output::bytes(&lines(&mut out, prefix, false))?;
            }
            Some(Message::Stderr(bytes)) => {
                err.extend_from_slice(&bytes);
                Printed::to_stderr().write(&lines(&mut err, prefix, false))?;
            }
            Some(Message::Ended(task)) => {
                output::bytes(&lines(&mut out, prefix, true))?;
                Printed::to_stderr().write(&lines(&mut err, prefix, true))?;
                return Ok(ended(&task));
            }
            None => {}
        }
    }
    Err(anyhow!("the output of {task} ended before the task did"))
}

fn of(task: &str) -> TaskOutputRequest {
    TaskOutputRequest {
        task: task.to_string(),
        ..TaskOutputRequest::default()
    }
}

/// Takes the whole lines out of `pending`, each behind `prefix`; with `all` also what has no line feed yet.
fn lines(pending: &mut Vec<u8>, prefix: &str, all: bool) -> Vec<u8> {
    let mut ready = Vec::new();
    let mut begin = 0;
    while begin < pending.len() {
        let rest = &pending[begin..];
        let found = rest.iter().take(LINE_BYTES).position(|&byte| byte == b'\n');
        let length = match found {
            Some(at) => at,
            None if all || rest.len() >= LINE_BYTES => rest.len().min(LINE_BYTES),
            None => break,
        };
        ready.extend_from_slice(prefix.as_bytes());
        ready.extend_from_slice(&rest[..length]);
        ready.push(b'\n');
        begin += length + usize::from(found.is_some());
    }
    pending.drain(..begin);
    ready
}

/// What the end of a task means for ours.
fn ended(task: &Task) -> Exit {
    if (task.state(), task.exit_code) == (TaskState::Exited, Some(0)) {
        return Exit::Success;
    }
    let why = if task.message.is_empty() {
        String::new()
    } else {
        format!(": {}", task.message)
    };
    output::note(format_args!("{}: {}{why}", task.name, state(task)));
    Exit::Failure
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_one_of_several_are_whole() {
        let mut pending = b"a\nb\nun".to_vec();
        assert_eq!(lines(&mut pending, "n1 | ", false), b"n1 | a\nn1 | b\n");
        pending.extend(b"done\n\n");
        assert_eq!(lines(&mut pending, "n1 | ", false), b"n1 | undone\nn1 | \n");
        pending.extend(b"end");
        assert_eq!(lines(&mut pending, "n1 | ", true), b"n1 | end\n");
        assert!(pending.is_empty());
        let mut long = vec![b'x'; LINE_BYTES + 1];
        assert_eq!(lines(&mut long, "", false).len(), LINE_BYTES + 1);
        assert_eq!(long, b"x");
    }
}
