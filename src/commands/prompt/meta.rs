//! Commands of the prompt itself: what begins with a backslash, and the words that stand for some of them.

use clap::ValueEnum as _;
use model::Name;

use crate::output::Format;

/// A command of the prompt itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::commands) enum Meta {
    /// List the datasets.
    Datasets,
    /// Show the columns of one.
    Columns(Name),
    /// Tell after each answer how long it took, or no longer.
    Timing,
    /// Print answers in this form.
    Output(Format),
    /// List these commands.
    Help,
    /// Leave.
    Quit,
}

/// For people.
pub(super) const HELP: &str = "\
A query ends with a semicolon and may take several lines. Tab completes the names of datasets, columns and functions.
EXPLAIN before a query tells what it would do.
  \\d            list the datasets, as SHOW TABLES does
  \\d NAME       show the columns of a dataset, as DESCRIBE NAME does
  \\timing       tell how long each answer took, or no longer
  \\o FORMAT     print answers as table, json or csv
  help, \\?      this
  exit, \\q      leave, as Ctrl-D does
Ctrl-C cancels the query that runs, or drops the line.";

/// The forms in which a terminal can show answers.
pub(super) const FORMATS: [&str; 3] = ["table", "json", "csv"];

/// The names of all commands, for completion.
pub(super) const NAMES: [&str; 6] = ["\\?", "\\d", "\\l", "\\o", "\\q", "\\timing"];

impl Meta {
    /// The command that a line is; none for a query.
    ///
    /// # Errors
    /// What is wrong with it.
    pub(super) fn of(line: &str) -> Result<Option<Self>, String> {
        if line.trim_start().starts_with('\\') {
            return Self::parse(line).map(Some);
        }
        Ok(Self::in_words(line))
    }

    /// The command that words stand for; a semicolon behind them is not minded.
    pub(in crate::commands) fn in_words(text: &str) -> Option<Self> {
        let words: Vec<&str> = text.trim().trim_end_matches(';').split_whitespace().collect();
        let small: Vec<String> = words.iter().map(|word| word.to_ascii_lowercase()).collect();
        let small: Vec<&str> = small.iter().map(String::as_str).collect();
        match small[..] {
            ["exit" | "quit"] => Some(Self::Quit),
            ["help"] => Some(Self::Help),
            ["show", "tables" | "datasets"] => Some(Self::Datasets),
            ["describe" | "desc", _] | ["show", "columns", "from", _] => {
                let name = words.last()?.trim_matches('"');
                Name::new(name).ok().map(Self::Columns)
            }
            _ => None,
        }
    }

    /// Whether it lists datasets or columns, which makes sense without a prompt too.
    pub(in crate::commands) fn is_list(&self) -> bool {
        matches!(self, Self::Datasets | Self::Columns(_))
    }

    /// Reads a line that begins with a backslash. A semicolon behind it is not minded.
    ///
    /// # Errors
    /// What is wrong with it.
    fn parse(line: &str) -> Result<Self, String> {
        let mut words = line.trim().trim_end_matches(';').split_whitespace();
        let (name, given, more) = (words.next().unwrap_or_default(), words.next(), words.next());
        if more.is_some() {
            return Err(format!("{name} takes one word; \\? lists the commands"));
        }
        match (name, given) {
            ("\\d" | "\\l", None) => Ok(Self::Datasets),
            ("\\d", Some(dataset)) => {
                let dataset = Name::new(dataset.trim_matches('"')).map_err(|error| error.to_string())?;
                Ok(Self::Columns(dataset))
            }
            ("\\timing", None) => Ok(Self::Timing),
            ("\\o", Some(format)) if FORMATS.contains(&format) => {
                Format::from_str(format, true).map(Self::Output)
            }
            ("\\o", _) => Err(format!("\\o takes one of {}", FORMATS.join(", "))),
            ("\\?" | "\\h" | "\\help", None) => Ok(Self::Help),
            ("\\q" | "\\quit" | "\\exit", None) => Ok(Self::Quit),
            (known, Some(_)) if NAMES.contains(&known) => Err(format!("{known} takes nothing")),
            _ => Err(format!(
                "there is no command {name}; \\? lists those that there are"
            )),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_are_read() {
        let access = Name::new("access").unwrap();
        for (line, meta) in [
            ("\\d", Meta::Datasets),
            (" \\l ; ", Meta::Datasets),
            ("\\d \"access\"", Meta::Columns(access)),
            ("\\timing", Meta::Timing),
            ("\\o json", Meta::Output(Format::Json)),
            ("\\?", Meta::Help),
            ("\\q;", Meta::Quit),
        ] {
            assert_eq!(Meta::parse(line), Ok(meta), "{line}");
        }
        let logs = Name::new("my-logs").unwrap();
        for (text, meta) in [
            ("exit", Some(Meta::Quit)),
            (" QUIT; ", Some(Meta::Quit)),
            ("help", Some(Meta::Help)),
            ("SHOW TABLES;", Some(Meta::Datasets)),
            ("describe \"my-logs\"", Some(Meta::Columns(logs.clone()))),
            ("SHOW COLUMNS FROM my-logs", Some(Meta::Columns(logs))),
            ("SELECT exit FROM t;", None),
            ("exit now", None),
            ("DESCRIBE SELECT 1", None),
        ] {
            assert_eq!(Meta::of(text), Ok(meta), "{text}");
        }
        for (line, told) in [
            ("\\x", "there is no command \\x"),
            ("\\o xml", "one of table, json, csv"),
            ("\\o", "one of table, json, csv"),
            ("\\q now", "takes nothing"),
            ("\\d a b", "takes one word"),
            ("\\d a/b", "a name has"),
        ] {
            let error = Meta::parse(line).unwrap_err();
            assert!(error.contains(told), "{line}: {error}");
        }
    }
}
