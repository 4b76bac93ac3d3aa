//! Whether two queries ask the same question.

use datafusion::{
    common::tree_node::{TreeNode, TreeNodeRecursion},
    error::Result as Fallible,
    logical_expr::{Expr, LogicalPlan, Volatility},
    sql::sqlparser::{
        dialect::GenericDialect,
        tokenizer::{Token, Tokenizer},
    },
};
use model::{
    Output, Payload,
    processor::{Query, QueryTable},
};

use crate::{Error, block::begin_of_day};

/// Identifies what a query asks, in hexadecimal digits: queries of one digest have the same answer over the same blocks,
/// if the answer does not depend on when it is asked for, which [`crate::Runtime::is_repeatable`] tells.
///
/// blake3 over the words of the query, in which spaces, comments and the case of what is not quoted do not count, and
/// over all else that shapes its answer. Plans nothing, so that asking again costs nothing.
///
/// # Errors
/// [`Error::Query`] for what is no SQL.
pub fn question(query: &Query) -> Result<String, Error> {
    // A time without a year is near the moment of the query.
    let of_day = |table: &QueryTable| table.table.format.is_yearless();
    let mut asked = Query {
        sql: words(&query.sql)?,
        now_us: if query.tables.iter().any(of_day) {
            begin_of_day(query.now_us)
        } else {
            0
        },
        question: None,
        into: None,
        refresh: None,
        ..query.clone()
    };
    for table in &mut asked.tables {
        table.lower_half = None;
    }
    // The same rows may lie anywhere.
    for small in &mut asked.with {
        small.stored = Output::Inline(Payload(Vec::new()));
    }
    let bytes = serde_json::to_vec(&asked).map_err(|error| Error::Query(error.to_string()))?;
    let digest = blake3::hash(&bytes);
    Ok(digest.as_bytes()[..16]
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect())
}

fn words(sql: &str) -> Result<String, Error> {
    let tokens = Tokenizer::new(&GenericDialect {}, sql).tokenize();
    let mut tokens = tokens.map_err(|error| Error::Query(error.to_string()))?;
    tokens.retain(|token| !matches!(token, Token::Whitespace(_)));
    while tokens.pop_if(|token| *token == Token::SemiColon).is_some() {}
    for token in &mut tokens {
        if let Token::Word(word) = token
            && word.quote_style.is_none()
        {
            word.value.make_ascii_lowercase();
        }
    }
    Ok(format!("{tokens:?}"))
}

/// Whether the plan, not optimized yet, gives the same answer whenever it runs over the same rows: no `now()`, no
/// `random()`.
pub(crate) fn is_repeatable(plan: &LogicalPlan) -> Fallible<bool> {
    let mut repeatable = true;
    plan.apply_with_subqueries(|node| {
        node.apply_expressions(|expression| {
            expression.apply(|part| {
                let volatility = match part {
                    Expr::ScalarFunction(call) => call.func.signature().volatility,
                    Expr::AggregateFunction(call) => call.func.signature().volatility,
                    Expr::WindowFunction(call) => call.fun.signature().volatility,
                    _ => Volatility::Immutable,
                };
                repeatable &= volatility == Volatility::Immutable;
                Ok(TreeNodeRecursion::Continue)
            })
        })
    })?;
    Ok(repeatable)
}

#[cfg(test)]
mod tests {
    use model::table::{Format, Table};

    use super::*;
    use crate::VERSION;

    fn query(sql: &str, now_us: i64, format: Format) -> Query {
        Query {
            sql: sql.into(),
            tables: vec![QueryTable {
                name: "t".into(),
                table: Table {
                    format,
                    columns: Vec::new(),
                    least: None,
                },
                lower_half: None,
            }],
            time_zone: "UTC".into(),
            now_us,
            version: VERSION.into(),
            ..Query::default()
        }
    }

    #[test]
    fn what_asks_the_same_has_one_digest() {
        let of = |sql: &str| question(&query(sql, 5, Format::Raw)).unwrap();
        let asked = of("SELECT count(*) FROM t WHERE _raw = 'A b'");
        assert_eq!(
            asked,
            of("select  COUNT(*)\nfrom T -- all of them\nwhere _raw = 'A b';")
        );
        for other in [
            "SELECT count(*) FROM t WHERE _raw = 'a b'",
            "SELECT count(*) FROM t WHERE _raw = 'A  b'",
            "SELECT count(*) FROM \"T\" WHERE _raw = 'A b'",
            "SELECT count(*) FROM t WHERE _raw = \"A b\"",
        ] {
            assert_ne!(asked, of(other), "{other}");
        }
        assert!(question(&query("SELECT 'unfinished", 5, Format::Raw)).is_err());
    }

    #[test]
    fn the_day_counts_where_times_have_no_year() {
        let of = |now_us, format| question(&query("SELECT 1 FROM t", now_us, format)).unwrap();
        let later = 2 * crate::time::DAY_US;
        assert_eq!(of(5, Format::Raw), of(later, Format::Raw));
        assert_ne!(of(5, Format::Syslog), of(later, Format::Syslog));
    }

    #[tokio::test]
    async fn now_and_chance_are_not_repeatable() {
        let runtime = crate::Runtime::for_planning();
        for (sql, expected) in [
            ("SELECT count(*), min(_raw) FROM t WHERE _line > 7", true),
            (
                "SELECT date_bin(INTERVAL '1 day', to_timestamp(_line)) FROM t",
                true,
            ),
            ("SELECT now() FROM t", false),
            (
                "SELECT count(*) FROM t WHERE to_timestamp(_line) > now() - INTERVAL '1 day'",
                false,
            ),
            ("SELECT current_date FROM t", false),
            ("SELECT _line FROM t ORDER BY random() LIMIT 3", false),
            (
                "WITH a AS (SELECT now() AS n, _line FROM t) SELECT max(n) FROM a",
                false,
            ),
        ] {
            let found = runtime.is_repeatable(&query(sql, 5, Format::Raw)).await.unwrap();
            assert_eq!(found, expected, "{sql}");
        }
    }
}
