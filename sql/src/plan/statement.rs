//! What was typed: whether it is a question, which tables it names, and what is wrong with it.

use std::{borrow::Cow, fmt::Write as _, ops::ControlFlow};

use datafusion::{
    common::{SchemaError, TableReference},
    error::DataFusionError,
    sql::{
        parser::{DFParserBuilder, Statement},
        resolve::resolve_table_references,
        sqlparser::{
            ast::{self, Statement as Sql, TableFactor, Visit, Visitor},
            dialect::GenericDialect,
            keywords::Keyword,
            parser::ParserError,
            tokenizer::{Token, Tokenizer},
        },
    },
};
use model::{name::nearest, processor::Query};

use crate::Error;

/// Columns that are listed when none is like the one that was asked for.
const LISTED: usize = 40;

/// The statement of a query.
///
/// # Errors
/// [`Error::Query`] for what is no SQL, or no question.
pub(super) fn question(sql: &str) -> Result<Statement, Error> {
    // No session: making one takes longer than all else that is done for a query whose answer is recorded.
    let parsed = DFParserBuilder::new(sql).build();
    let parsed = parsed.and_then(|mut parser| parser.parse_statements());
    let mut parsed = parsed.map_err(|error| Error::Query(unread(sql, &error)))?;
    let statement = match (parsed.pop_front(), parsed.pop_front()) {
        (Some(statement), None) => statement,
        (None, _) => return Err(Error::Query("the query is empty".into())),
        (Some(_), Some(_)) => return Err(Error::Query("one query can be asked at a time".into())),
    };
    let refused = |what: &str| {
        Err(Error::Query(format!(
            "{what} is no question: only SELECT, WITH and VALUES are answered, and nothing is changed by them"
        )))
    };
    match &statement {
        Statement::Statement(sql) => match sql.as_ref() {
            Sql::Query(query) if changes(query) => refused("a statement that writes"),
            Sql::Query(_) => Ok(statement),
            Sql::ExplainTable { .. } => Err(Error::Query(
                "`sawmill dataset show NAME` describes the columns of a dataset".into(),
            )),
            other => refused(&first_words(&other.to_string())),
        },
        Statement::Explain(_) => Err(Error::Query(
            "EXPLAIN is no question: leave it out and say `sawmill explain` instead of `sawmill query`"
                .into(),
        )),
        other => refused(&first_words(&other.to_string())),
    }
}

/// Why a text is no SQL.
fn unread(sql: &str, error: &DataFusionError) -> String {
    match hyphenated(sql) {
        Some(name) => format!("a name with a hyphen is quoted: \"{name}\""),
        None => words(error),
    }
}

/// The first name behind FROM or JOIN that has a hyphen and no quotes.
fn hyphenated(sql: &str) -> Option<String> {
    let tokens = Tokenizer::new(&GenericDialect {}, sql).tokenize().ok()?;
    let is_from = |token: &Token| matches!(token, Token::Word(word) if matches!(word.keyword, Keyword::FROM | Keyword::JOIN));
    let starts = tokens.iter().enumerate().filter(|(_, token)| is_from(token));
    starts
        .map(|(at, _)| {
            let behind = tokens[at + 1..].iter();
            let name = behind.skip_while(|token| matches!(token, Token::Whitespace(_)));
            let parts = name.map_while(|token| match token {
                Token::Word(word) if word.quote_style.is_none() => Some(word.value.clone()),
                Token::Number(digits, _) => Some(digits.clone()),
                Token::Minus => Some("-".into()),
                _ => None,
            });
            parts.collect::<String>()
        })
        .find(|name| name.contains('-') && !name.starts_with('-'))
}

/// The query behind `EXPLAIN`; none for what does not begin so.
///
/// # Errors
/// [`Error::Query`] for `EXPLAIN` with more words before the query.
pub fn to_explain(sql: &str) -> Result<Option<&str>, Error> {
    let Some(query) = behind(sql, "EXPLAIN") else {
        return Ok(None);
    };
    for word in ["ANALYZE", "VERBOSE", "FORMAT"] {
        if behind(query, word).is_some() {
            return Err(Error::Query(format!(
                "EXPLAIN takes the query alone, without {word}: nothing is run, and --output json gives the form for programs"
            )));
        }
    }
    Ok(Some(query))
}

/// What stands behind a word, where the text begins with it.
fn behind<'s>(text: &'s str, word: &str) -> Option<&'s str> {
    let text = without_comments(text);
    let begin = text.get(..word.len())?;
    let rest = &text[word.len()..];
    let goes_on = rest.starts_with(|c: char| c.is_alphanumeric() || c == '_');
    (begin.eq_ignore_ascii_case(word) && !goes_on).then(|| without_comments(rest))
}

/// A text from its first word on.
fn without_comments(mut text: &str) -> &str {
    loop {
        text = text.trim_start();
        let end = if text.starts_with("--") {
            "\n"
        } else if text.starts_with("/*") {
            "*/"
        } else {
            return text;
        };
        text = text.split_once(end).map_or("", |(_, rest)| rest);
    }
}

/// `WITH … INSERT`, `SELECT … INTO`.
fn changes(query: &ast::Query) -> bool {
    match query.body.as_ref() {
        ast::SetExpr::Select(select) => select.into.is_some(),
        ast::SetExpr::Insert(_)
        | ast::SetExpr::Update(_)
        | ast::SetExpr::Delete(_)
        | ast::SetExpr::Merge(_) => true,
        ast::SetExpr::Query(inner) => changes(inner),
        _ => false,
    }
}

fn first_words(statement: &str) -> String {
    let words = statement.split_whitespace().take(2);
    words.collect::<Vec<_>>().join(" ")
}

/// The tables that a query reads, by name, each once and in the order in which it names them.
///
/// # Errors
/// [`Error::Query`] for what is no SQL, or no question.
pub fn tables(sql: &str) -> Result<Vec<String>, Error> {
    let statement = question(sql)?;
    let (references, _) = resolve_table_references(&statement, true)?;
    let in_schema = |table: &&TableReference| table.schema().is_some_and(|schema| schema != "public");
    if let Some(dotted) = references.iter().find(in_schema) {
        return Err(Error::Query(format!("a name with a dot is quoted: \"{dotted}\"")));
    }
    let mut called = Called(Vec::new());
    if let Statement::Statement(sql) = &statement {
        let _ = sql.visit(&mut called);
    }
    let mut order = Named(Vec::new());
    if let Statement::Statement(sql) = &statement {
        let _ = sql.visit(&mut order);
    }
    let mut tables: Vec<String> = references
        .iter()
        .filter(|table| !called.0.contains(&table.table().to_lowercase()))
        .map(|table| table.table().to_string())
        .collect();
    tables.dedup();
    let place = |name: &String| order.0.iter().position(|known| known == &name.to_lowercase());
    tables.sort_by_key(|name| place(name).unwrap_or(usize::MAX));
    Ok(tables)
}

/// Functions that are called as tables.
struct Called(Vec<String>);

impl Visitor for Called {
    type Break = ();

    fn pre_visit_table_factor(&mut self, factor: &TableFactor) -> ControlFlow<()> {
        if let TableFactor::Table {
            name, args: Some(_), ..
        } = factor
        {
            self.0.push(last(name));
        }
        ControlFlow::Continue(())
    }
}

/// Tables in the order of the text.
struct Named(Vec<String>);

impl Visitor for Named {
    type Break = ();

    fn pre_visit_relation(&mut self, name: &ast::ObjectName) -> ControlFlow<()> {
        self.0.push(last(name));
        ControlFlow::Continue(())
    }
}

fn last(name: &ast::ObjectName) -> String {
    let name = name.0.last().and_then(|part| part.as_ident());
    name.map(|name| name.value.to_lowercase()).unwrap_or_default()
}

/// What is wrong with a query, with the names that are nearest to one that nothing has.
pub(super) fn explained(error: DataFusionError, query: &Query) -> Error {
    let root = error.find_root();
    if let DataFusionError::SchemaError(schema, _) = root
        && let SchemaError::FieldNotFound { field, valid_fields } = schema.as_ref()
    {
        let mut known: Vec<&str> = valid_fields.iter().map(|column| column.name.as_str()).collect();
        known.dedup();
        let mut text = format!("there is no column named {}", field.flat_name());
        if query.sql.contains(&format!("\"{}\"", field.name)) {
            text += &format!("; a text is in single quotes: '{}'", field.name);
        }
        with_nearest(&mut text, &query.sql, &field.name, &known, "the columns are");
        return Error::Query(text);
    }
    let words = words(&error);
    if let Some(name) = words
        .strip_prefix("table '")
        .and_then(|rest| rest.strip_suffix("' not found"))
    {
        let name = TableReference::from(name).table().to_string();
        let tables = query.tables.iter().map(|table| table.name.as_str());
        let known: Vec<&str> = tables
            .chain(query.with.iter().map(|small| small.name.as_str()))
            .collect();
        let mut text = format!("there is no dataset or table named {name}");
        with_nearest(&mut text, &query.sql, &name, &known, "there are");
        return Error::Query(text);
    }
    Error::Query(words)
}

fn with_nearest(text: &mut String, sql: &str, wanted: &str, known: &[&str], list: &str) {
    // What was typed without the quotes that it needs.
    let unquoted = |name: &&&str| quoted(name) != **name && sql.contains(**name);
    let near = known.iter().find(unquoted).copied();
    let near = near
        .or_else(|| nearest(wanted, known.iter().copied()))
        .map(quoted);
    let told = match near {
        Some(near) => write!(text, "; did you mean {near}?"),
        None if known.is_empty() => Ok(()),
        None => {
            let more = if known.len() > LISTED { ", …" } else { "" };
            let known: Vec<_> = known.iter().take(LISTED).map(|name| quoted(name)).collect();
            write!(text, "; {list} {}{more}", known.join(", "))
        }
    };
    // Writing to a string cannot fail.
    debug_assert!(told.is_ok());
}

/// A name as a query has to write it.
fn quoted(name: &str) -> Cow<'_, str> {
    let is_plain = name
        .chars()
        .all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_');
    if is_plain && !name.starts_with(|c: char| c.is_ascii_digit()) {
        return Cow::Borrowed(name);
    }
    Cow::Owned(format!("\"{}\"", name.replace('"', "\"\"")))
}

/// DataFusion's own words, in one line and without what it wraps them in.
fn words(error: &DataFusionError) -> String {
    match error.find_root() {
        DataFusionError::SQL(error, _) => match error.as_ref() {
            ParserError::ParserError(text) | ParserError::TokenizerError(text) => text.clone(),
            other => other.to_string(),
        },
        root => crate::error::one_line(&root.strip_backtrace()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_need_quotes_are_told() {
        for (text, name) in [
            ("SELECT * FROM my-logs", Some("my-logs")),
            (
                "SELECT a - b FROM t JOIN web-2024-01 USING (x)",
                Some("web-2024-01"),
            ),
            ("SELECT * FROM \"my-logs\" WHERE", None),
            ("SELECT 'FROM my-logs', FROM t", None),
            ("SELECT 1 FROM", None),
        ] {
            assert_eq!(hyphenated(text).as_deref(), name, "{text}");
        }
        let told = tables("SELECT * FROM my-logs").unwrap_err().to_string();
        assert_eq!(told, "a name with a hyphen is quoted: \"my-logs\"");
        let told = tables("SELECT * FROM web.logs").unwrap_err().to_string();
        assert_eq!(told, "a name with a dot is quoted: \"web.logs\"");
        for (name, written) in [
            ("user_id", "user_id"),
            ("user-id", "\"user-id\""),
            ("Id", "\"Id\""),
            ("4xx", "\"4xx\""),
        ] {
            assert_eq!(quoted(name), written);
        }
    }

    #[test]
    fn explain_is_told_from_a_question() {
        for (text, query) in [
            ("EXPLAIN SELECT 1", Some("SELECT 1")),
            (" -- why?\n/* so */ explain\n(SELECT 1)", Some("(SELECT 1)")),
            ("EXPLAIN", Some("")),
            ("SELECT explain FROM t", None),
            ("EXPLAINED", None),
            ("é", None),
            ("", None),
        ] {
            assert_eq!(to_explain(text).unwrap(), query, "{text}");
        }
        for more in ["EXPLAIN ANALYZE SELECT 1", "explain verbose SELECT 1"] {
            assert!(to_explain(more).is_err(), "{more}");
        }
    }
}
