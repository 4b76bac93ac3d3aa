//! What Tab completes.

use super::meta;

/// What SQL is made of, besides names.
const KEYWORDS: [&str; 66] = [
    "ALL",
    "AND",
    "AS",
    "ASC",
    "BETWEEN",
    "BY",
    "CASE",
    "CAST",
    "COUNT",
    "CROSS",
    "DATE",
    "DESC",
    "DESCRIBE",
    "DISTINCT",
    "ELSE",
    "END",
    "EXCEPT",
    "EXISTS",
    "EXPLAIN",
    "FALSE",
    "FETCH",
    "FILTER",
    "FIRST",
    "FROM",
    "FULL",
    "GROUP",
    "HAVING",
    "ILIKE",
    "IN",
    "INNER",
    "INTERSECT",
    "INTERVAL",
    "IS",
    "JOIN",
    "LAST",
    "LEFT",
    "LIKE",
    "LIMIT",
    "NOT",
    "NULL",
    "NULLS",
    "OFFSET",
    "ON",
    "OR",
    "ORDER",
    "OUTER",
    "OVER",
    "PARTITION",
    "QUALIFY",
    "RANGE",
    "RIGHT",
    "ROWS",
    "SELECT",
    "SHOW",
    "SIMILAR",
    "TABLES",
    "THEN",
    "TIMESTAMP",
    "TRUE",
    "UNION",
    "USING",
    "VALUES",
    "WHEN",
    "WHERE",
    "WITH",
    "WITHIN",
];

/// The names that a session knows.
#[derive(Debug, Default)]
pub(super) struct Words {
    /// Each with its columns.
    pub(super) datasets: Vec<(String, Vec<String>)>,
    pub(super) functions: Vec<String>,
}

impl Words {
    /// Where the word before the end of `before` begins, and what may stand in its place.
    pub(super) fn complete(&self, before: &str) -> (usize, Vec<String>) {
        if before.starts_with('\\') {
            return self.complete_command(before);
        }
        let (begin, is_quoted) = last_word(before);
        let typed = &before[begin + usize::from(is_quoted)..];
        if typed.is_empty() && !is_quoted {
            return (begin, Vec::new());
        }
        let fits = |name: &str| name.to_lowercase().starts_with(&typed.to_lowercase());
        let mut found: Vec<String> = self
            .datasets
            .iter()
            .map(|(name, _)| name)
            .chain(self.columns_near(before))
            .filter(|name| fits(name))
            .map(|name| quoted(name, is_quoted))
            .collect();
        if !is_quoted {
            let is_lower = typed.chars().all(|c| !c.is_uppercase());
            let keywords = KEYWORDS.iter().filter(|keyword| fits(keyword));
            found.extend(keywords.map(|keyword| {
                if is_lower {
                    keyword.to_lowercase()
                } else {
                    (*keyword).to_string()
                }
            }));
            let functions = self.functions.iter().filter(|name| fits(name));
            found.extend(functions.map(|name| format!("{name}(")));
        }
        let mut seen = std::collections::HashSet::new();
        found.retain(|word| seen.insert(word.clone()));
        (begin, found)
    }

    fn complete_command(&self, before: &str) -> (usize, Vec<String>) {
        let begin = before.rfind(char::is_whitespace).map_or(0, |at| at + 1);
        let typed = &before[begin..];
        let first = before.split_whitespace().next().unwrap_or_default();
        let all: Vec<&str> = match first {
            _ if begin == 0 => meta::NAMES.to_vec(),
            "\\d" => self.datasets.iter().map(|(name, _)| name.as_str()).collect(),
            "\\o" => meta::FORMATS.to_vec(),
            _ => Vec::new(),
        };
        let fitting = all.into_iter().filter(|word| word.starts_with(typed));
        (begin, fitting.map(str::to_string).collect())
    }

    /// The columns of the datasets that are spoken of; of all where none is.
    fn columns_near(&self, text: &str) -> impl Iterator<Item = &String> {
        let named: Vec<&str> = text
            .split(|c: char| !(c.is_alphanumeric() || matches!(c, '_' | '-' | '.')))
            .collect();
        // A name may stand before a column, and contain a dot itself.
        let is_near = |name: &str| {
            let is_it = |word: &&str| {
                word.strip_prefix(name)
                    .is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
            };
            named.iter().any(is_it)
        };
        let any = self.datasets.iter().any(|(name, _)| is_near(name));
        let near: Vec<_> = self
            .datasets
            .iter()
            .filter(|(name, _)| !any || is_near(name))
            .collect();
        near.into_iter().flat_map(|(_, columns)| columns)
    }
}

/// Where the last word begins, at its quote where it has one that is still open.
fn last_word(text: &str) -> (usize, bool) {
    let mut open = None;
    for (at, character) in text.char_indices() {
        if character == '"' {
            open = match open {
                None => Some(at),
                Some(_) => None,
            };
        }
    }
    if let Some(at) = open {
        return (at, true);
    }
    let is_part = |c: char| c.is_alphanumeric() || c == '_';
    let begin = text
        .char_indices()
        .rev()
        .take_while(|&(_, c)| is_part(c))
        .last()
        .map_or(text.len(), |(at, _)| at);
    (begin, false)
}

/// A name as SQL wants it: in quotes where it would be read as something else.
fn quoted(name: &str, always: bool) -> String {
    let is_plain = !name.is_empty()
        && name.starts_with(|c: char| c.is_ascii_lowercase() || c == '_')
        && name
            .chars()
            .all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_')
        && !KEYWORDS.contains(&name.to_uppercase().as_str());
    if is_plain && !always {
        name.to_string()
    } else {
        format!("\"{}\"", name.replace('"', "\"\""))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn completed(before: &str) -> (usize, Vec<String>) {
        let columns = |names: &[&str]| names.iter().map(|name| name.to_string()).collect();
        let words = Words {
            datasets: vec![
                ("access".into(), columns(&["status", "path", "order"])),
                ("my-logs".into(), columns(&["user.id", "stack"])),
            ],
            functions: vec!["stddev".into(), "date_bin".into()],
        };
        words.complete(before)
    }

    #[test]
    fn words_are_completed_where_they_stand() {
        let cases: [(&str, usize, &[&str]); 11] = [
            ("SELECT st", 7, &["status", "stack", "stddev("]),
            ("SELECT count(*) FROM access WHERE st", 34, &["status", "stddev("]),
            ("SELECT access.st", 14, &["status", "stddev("]),
            ("SELECT user", 7, &["\"user.id\""]),
            ("SELECT \"us", 7, &["\"user.id\""]),
            ("SELECT x FROM my", 14, &["\"my-logs\""]),
            ("SEL", 0, &["SELECT"]),
            ("sel", 0, &["select"]),
            ("SELECT ord FROM access ORDER BY ord", 32, &["\"order\"", "order"]),
            ("\\d ac", 3, &["access"]),
            ("\\o", 0, &["\\o"]),
        ];
        for (before, begin, words) in cases {
            let (at, found) = completed(before);
            assert_eq!(
                (at, &found.iter().map(String::as_str).collect::<Vec<_>>()[..]),
                (begin, words),
                "{before}"
            );
        }
        assert_eq!(completed("SELECT "), (7, Vec::new()));
    }
}
