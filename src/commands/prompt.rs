//! `sawmill query` without a query: statements from a terminal, one after another, or from standard input.

mod editor;
mod meta;
mod statements;
mod words;

use std::{
    io::{IsTerminal as _, Read as _, stdin, stdout},
    sync::{Arc, Mutex, PoisonError},
    time::Instant,
};

use anyhow::Context as _;
use tokio::signal::unix::{SignalKind, signal};

use super::{Context, dataset, query, query::QueryArgs};
use crate::{
    cli,
    exit::{Exit, StdoutClosed, usage},
    output,
};
use editor::{Lines, Typed};
pub(super) use meta::Meta;
use words::Words;

/// Answers what is typed, or what stands in standard input where that is no terminal.
///
/// # Errors
/// At a prompt only what ends it; otherwise the first wrong query.
pub(super) async fn run(args: &QueryArgs, context: &Context) -> anyhow::Result<Exit> {
    if stdin().is_terminal() && stdout().is_terminal() {
        Session::begin(args, context).await?.last().await
    } else {
        script(args, context).await
    }
}

/// Answers all statements of standard input, and obeys its `\\` commands, up to the first that fails.
async fn script(args: &QueryArgs, context: &Context) -> anyhow::Result<Exit> {
    let read = tokio::task::spawn_blocking(|| {
        let mut text = String::new();
        stdin().read_to_string(&mut text).map(|_| text)
    });
    let text = read.await?.context("can't read queries from standard input")?;
    let mut session = Session {
        args,
        context: context.clone(),
        words: Arc::default(),
        timing: false,
    };
    let mut typed = String::new();
    for line in text.lines() {
        if typed.trim().is_empty()
            && let Some(meta) = Meta::of(line).map_err(usage)?
        {
            if !session.obey(meta).await? {
                return Ok(Exit::Success);
            }
            continue;
        }
        typed.push_str(line);
        typed.push('\n');
        let found = statements::split(&typed);
        for statement in found.complete {
            if let Some(meta) = Meta::in_words(statement) {
                if !session.obey(meta).await? {
                    return Ok(Exit::Success);
                }
                continue;
            }
            let exit = session.ask(statement).await?;
            if exit != Exit::Success {
                return Ok(exit);
            }
        }
        typed = found.rest.to_string();
    }
    match typed.trim() {
        "" => Ok(Exit::Success),
        last => session.ask(last).await,
    }
}

/// A prompt.
struct Session<'a> {
    args: &'a QueryArgs,
    context: Context,
    words: Arc<Mutex<Words>>,
    timing: bool,
}

impl<'a> Session<'a> {
    async fn begin(args: &'a QueryArgs, context: &Context) -> anyhow::Result<Self> {
        let words = Words {
            functions: sql::functions(),
            ..Words::default()
        };
        let session = Self {
            args,
            context: context.clone(),
            words: Arc::new(Mutex::new(words)),
            timing: false,
        };
        // A mill that can't be reached is told here, not after the first query.
        session.learn_names().await?;
        Ok(session)
    }

    async fn last(mut self) -> anyhow::Result<Exit> {
        // Between two queries it means nothing: the terminal gives it as a key while it is read.
        let _ctrl_c = signal(SignalKind::interrupt()).context("can't take over Ctrl-C")?;
        output::note("A query ends with a semicolon; help tells more, exit leaves.");
        let mut lines = Lines::open(self.words.clone())?;
        loop {
            let typed;
            (lines, typed) = lines.read().await?;
            let went_on = match typed {
                Typed::Text(text) => self.answer(&text).await,
                Typed::Dropped => Ok(true),
                Typed::End => Ok(false),
            };
            match went_on {
                Ok(true) => {}
                Ok(false) => return Ok(Exit::Success),
                Err(error) if error.chain().any(|cause| cause.is::<StdoutClosed>()) => return Err(error),
                Err(error) => output::note(format_args!("error: {}", cli::told(&error))),
            }
            // What can't be asked for now can't be completed, and that is all.
            self.learn_names().await.unwrap_or_default();
        }
    }

    /// Does what was typed; whether to go on.
    async fn answer(&mut self, text: &str) -> anyhow::Result<bool> {
        if let Some(meta) = Meta::of(text).map_err(anyhow::Error::msg)? {
            return self.obey(meta).await;
        }
        for statement in statements::split(text).complete {
            if let Some(meta) = Meta::in_words(statement) {
                if !self.obey(meta).await? {
                    return Ok(false);
                }
            } else if self.ask(statement).await? != Exit::Success {
                break;
            }
        }
        Ok(true)
    }

    async fn ask(&self, statement: &str) -> anyhow::Result<Exit> {
        let begun = Instant::now();
        let exit = query::ask(statement, self.args, &self.context).await?;
        if self.timing && exit == Exit::Success {
            output::note(format_args!("{:.1} ms", begun.elapsed().as_secs_f64() * 1000.0));
        }
        Ok(exit)
    }

    async fn obey(&mut self, meta: Meta) -> anyhow::Result<bool> {
        match meta {
            Meta::Datasets | Meta::Columns(_) => list(meta, &self.context).await?,
            Meta::Timing => {
                self.timing = !self.timing;
                let state = if self.timing { "on" } else { "off" };
                output::note(format_args!("timing is {state}"));
            }
            Meta::Output(format) => self.context.format = format,
            Meta::Help => output::line(meta::HELP)?,
            Meta::Quit => return Ok(false),
        }
        Ok(true)
    }

    /// Asks for the names of all datasets and their columns.
    async fn learn_names(&self) -> anyhow::Result<()> {
        let datasets = self.context.control().await?.datasets().await?;
        let names = datasets.iter().map(|dataset| {
            let table = dataset.table.iter();
            let columns = table.flat_map(|table| dataset::columns(table).map(|(name, _)| name.to_string()));
            (dataset.name.to_string(), columns.collect())
        });
        self.words.lock().unwrap_or_else(PoisonError::into_inner).datasets = names.collect();
        Ok(())
    }
}

/// Prints the list that is asked for.
pub(super) async fn list(meta: Meta, context: &Context) -> anyhow::Result<()> {
    let command = match meta {
        Meta::Columns(name) => dataset::Command::schema(name),
        _ => dataset::Command::List,
    };
    dataset::run(command, context).await.map(drop)
}
