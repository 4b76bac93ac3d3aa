//! Reading lines from a terminal, on a thread of its own.

use std::{
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
};

use anyhow::Context as _;
use rustyline::{
    CompletionType, Config, Editor, Helper, completion,
    error::ReadlineError,
    history::DefaultHistory,
    validate::{ValidationContext, ValidationResult, Validator},
};

use super::{meta::Meta, statements, words::Words};
use crate::output;

/// Entries that the history keeps.
const HISTORY: usize = 10_000;
/// Stands before what is typed.
const PROMPT: &str = "sawmill> ";

/// What was typed.
#[derive(Debug)]
pub(super) enum Typed {
    /// Whole statements, or a command.
    Text(String),
    /// Ctrl-C.
    Dropped,
    /// Ctrl-D.
    End,
}

/// A line editor with its history.
pub(super) struct Lines {
    editor: Editor<Hints, DefaultHistory>,
    history: Option<PathBuf>,
}

struct Hints(Arc<Mutex<Words>>);

impl Helper for Hints {}
impl rustyline::highlight::Highlighter for Hints {}
impl rustyline::hint::Hinter for Hints {
    type Hint = String;
}

impl completion::Completer for Hints {
    type Candidate = String;

    fn complete(
        &self,
        line: &str,
        pos: usize,
        _context: &rustyline::Context<'_>,
    ) -> rustyline::Result<(usize, Vec<String>)> {
        let words = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        Ok(words.complete(&line[..pos]))
    }
}

impl Validator for Hints {
    fn validate(&self, context: &mut ValidationContext<'_>) -> rustyline::Result<ValidationResult> {
        let text = context.input();
        let is_command = !matches!(Meta::of(text), Ok(None));
        let is_whole = is_command || statements::split(text).rest.is_empty();
        Ok(if is_whole {
            ValidationResult::Valid(None)
        } else {
            ValidationResult::Incomplete
        })
    }
}

impl Lines {
    /// # Errors
    /// A terminal that can't be used.
    pub(super) fn open(words: Arc<Mutex<Words>>) -> anyhow::Result<Self> {
        let config = Config::builder()
            .max_history_size(HISTORY)?
            .history_ignore_space(true)
            .completion_type(CompletionType::List)
            .build();
        let mut editor = Editor::with_config(config).context("can't read from this terminal")?;
        editor.set_helper(Some(Hints(words)));
        let history = history_file();
        if let Some(path) = &history {
            // The first time there is none.
            editor.load_history(path).unwrap_or_default();
        }
        Ok(Self { editor, history })
    }

    /// Reads until a statement is whole; gives the editor back with what was typed.
    ///
    /// # Errors
    /// What the terminal says.
    pub(super) async fn read(mut self) -> anyhow::Result<(Self, Typed)> {
        let reading = tokio::task::spawn_blocking(move || {
            let typed = match self.editor.readline(PROMPT) {
                Ok(text) => {
                    self.remember(&text);
                    Ok(Typed::Text(text))
                }
                Err(ReadlineError::Interrupted) => Ok(Typed::Dropped),
                Err(ReadlineError::Eof) => Ok(Typed::End),
                Err(error) => Err(error),
            };
            typed.map(|typed| (self, typed))
        });
        reading.await?.context("can't read from this terminal")
    }

    fn remember(&mut self, text: &str) {
        let is_new = self.editor.add_history_entry(text.trim()).unwrap_or_default();
        let Some(path) = self.history.as_ref().filter(|_| is_new) else {
            return;
        };
        let kept = path
            .parent()
            .map_or(Ok(()), folders::own)
            .map_err(ReadlineError::Io)
            .and_then(|()| self.editor.append_history(path));
        if let Err(error) = kept {
            output::note(format_args!(
                "the history can't be kept in {}: {error}",
                path.display()
            ));
            self.history = None;
        }
    }
}

/// `$XDG_STATE_HOME/sawmill/history`, else below `~/.local/state`; none where there is no home.
fn history_file() -> Option<PathBuf> {
    let absolute = |name| {
        std::env::var_os(name)
            .map(PathBuf::from)
            .filter(|path| path.is_absolute())
    };
    let state = absolute("XDG_STATE_HOME").or_else(|| Some(absolute("HOME")?.join(".local/state")))?;
    Some(state.join("sawmill/history"))
}
