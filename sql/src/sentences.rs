//! What DataFusion says is wrong, as sentences that tell what to do about it.

use std::{borrow::Cow, sync::LazyLock};

use regex::{Captures, Regex};

type Sentence = fn(&Captures<'_>) -> String;

/// What is known, by what DataFusion says.
static KNOWN: LazyLock<Vec<(Regex, Sentence)>> = LazyLock::new(|| {
    let known: [(&str, Sentence); 19] = [
        (r"^Divide by zero error", |_| {
            "a division by zero: divide by nullif(x, 0), which gives null, or leave such rows out with WHERE"
                .into()
        }),
        (
            r"^Error parsing timestamp from '(.*)' using format '(.*)': (.*)",
            |found| {
                format!(
                    "'{}' is no time of the format '{}' ({})",
                    &found[1], &found[2], &found[3]
                )
            },
        ),
        (r"^Error parsing timestamp from '(.*)':", |found| {
            format!(
                "'{}' is no time such as '2026-01-31 12:00:00': compute one, as in now() - INTERVAL '1 day', or have \
                 TRY_CAST(x AS TIMESTAMP) give null for texts that are none",
                &found[1]
            )
        }),
        (r"^Unable to cast to Date32", |_| {
            "a text is no date such as '2026-01-31': TRY_CAST(x AS DATE) gives null for it".into()
        }),
        (r#"^Invalid input syntax for type interval: "(.*)""#, |found| {
            format!(
                "'{}' is no interval such as '90 minutes' or '1 day 12 hours'",
                &found[1]
            )
        }),
        (r"^Cannot cast string '(.*)' to value of (\w+) type", |found| {
            let (kind, sql) = (one(&found[2]), sql(&found[2]));
            format!(
                "'{}' is not {kind}: write one, or have TRY_CAST(x AS {sql}) give null for texts that are none",
                &found[1]
            )
        }),
        (r"^Can't cast value (.*) to type (\w+)", |found| {
            format!(
                "{} does not fit into the type {}: cast to a larger one, such as BIGINT",
                &found[1], &found[2]
            )
        }),
        (
            r"^Cannot coerce arithmetic expression (.*) (\S+) (.*) to valid types",
            |found| not_together(&found[1], &found[2], &found[3], "computed with"),
        ),
        (
            r"^Cannot infer common argument type for [a-z ]*operation (.*) (\S+) (.*)",
            |found| not_together(&found[1], &found[2], &found[3], "compared by"),
        ),
        (
            r"^There isn't a common type to coerce (.*) and (.*) in (.*) expression",
            |found| not_together(&found[1], &found[3], &found[2], "compared by"),
        ),
        (
            r"^Cannot create filter with non-boolean predicate '(.*)' returning (.*)",
            |found| {
                format!(
                    "{} is {}, no condition: compare it with something",
                    &found[1],
                    one(&found[2])
                )
            },
        ),
        (
            r"No function matches the given name and argument types '(\w+)\((.*)\)'\..*Candidate functions: (.*)",
            |found| {
                let mut takes: Vec<String> = plain(&found[3])
                    .split_inclusive(") ")
                    .map(str::to_string)
                    .collect();
                takes.dedup();
                format!(
                    "{} does not take ({}): convert what it is given, as in CAST(x AS BIGINT) or CAST(x AS TEXT); it takes {}",
                    &found[1],
                    plain(&found[2]),
                    takes.concat().replace(") ", "), ")
                )
            },
        ),
        (
            r#"column "(.*)" must appear in the GROUP BY clause or must be part of an aggregate function"#,
            |found| {
                format!(
                    "{0} is neither grouped by nor within an aggregate: name it behind GROUP BY, or take one of its values, as in \
                     min({0})",
                    &found[1]
                )
            },
        ),
        (r"^Ambiguous reference to unqualified field (.*)", |found| {
            format!(
                "several tables have a column {0}: name the one that is meant, as in a.{0}",
                &found[1]
            )
        }),
        (
            r#"^Projections require unique expression names but the expression "(.*)" at position \d+ and "(.*)" at position \d+"#,
            |found| {
                format!(
                    "two columns have one name ({}, {}): give one another with AS",
                    &found[1], &found[2]
                )
            },
        ),
        (r"^Scalar subquery returned more than one row", |_| {
            "a subquery that stands for one value gives more than one row: use an aggregate, LIMIT 1, or IN"
                .into()
        }),
        (
            r"^(input_file_name|file_row_index)\(\) is source dependent",
            |found| {
                format!(
                    "{}() knows nothing of datasets: _file, _block and _line tell where a line stands",
                    &found[1]
                )
            },
        ),
        (r"^Dot access not supported", |_| {
            "a name with a dot is quoted, as in \"user.id\"".into()
        }),
        (
            r"^Internal error: (.*?)(?:\. ?This issue was likely caused.*)?$",
            |found| format!("a fault that is not the query's, please report it: {}", &found[1]),
        ),
    ];
    known
        .into_iter()
        .filter_map(|(pattern, sentence)| Some((Regex::new(pattern).ok()?, sentence)))
        .collect()
});

/// What DataFusion says in one line, as a sentence.
pub(crate) fn sentence(text: &str) -> String {
    let known = KNOWN
        .iter()
        .find_map(|(pattern, sentence)| Some(sentence(&pattern.captures(text)?)));
    known.unwrap_or_else(|| plain(text).into_owned())
}

fn not_together(left: &str, operator: &str, right: &str, how: &str) -> String {
    let (one, other) = (one(left), one(right));
    let hint = if (one == "a time") != (other == "a time") && how == "computed with" {
        "add or subtract an interval, as in time + INTERVAL '5 minutes'"
    } else {
        "convert one of them, as in CAST(x AS BIGINT), CAST(x AS TEXT) or to_timestamp(x)"
    };
    format!("{one} and {other} can't be {how} {operator}: {hint}")
}

/// The names that Arrow has for types, and those that people have.
static TYPES: LazyLock<Option<Regex>> = LazyLock::new(|| {
    Regex::new(
        r"\b(?:(Utf8View\b|LargeUtf8\b|Utf8\b)|(U?Int(?:8|16|32|64)\b)|(Float(?:16|32|64)\b)|(Boolean\b)|(Timestamp\([^()]*\))|(Date(?:32|64)\b))",
    )
    .ok()
});
const NAMES: [&str; 6] = ["text", "integer", "float", "boolean", "time", "date"];

fn name(found: &Captures<'_>) -> &'static str {
    let place = (1..=NAMES.len()).find(|&group| found.get(group).is_some());
    place.map_or("", |group| NAMES[group - 1])
}

/// A text with the types in it as people name them.
fn plain(text: &str) -> Cow<'_, str> {
    match TYPES.as_ref() {
        Some(types) => types.replace_all(text, |found: &Captures<'_>| name(found)),
        None => Cow::Borrowed(text),
    }
}

/// A value of a type.
fn one(kind: &str) -> String {
    let name = plain(kind);
    let article = if name.starts_with('i') { "an" } else { "a" };
    format!("{article} {name}")
}

/// A type as SQL names it.
fn sql(kind: &str) -> &'static str {
    match plain(kind).as_ref() {
        "integer" => "BIGINT",
        "float" => "DOUBLE",
        "boolean" => "BOOLEAN",
        "date" => "DATE",
        "time" => "TIMESTAMP",
        _ => "TEXT",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_patterns_are_regular_expressions() {
        assert_eq!(KNOWN.len(), 19);
        assert!(TYPES.is_some());
    }

    #[test]
    fn types_have_the_names_that_people_use() {
        for (text, told) in [
            ("got Utf8View", "got text"),
            ("sum(UInt64, Float32)", "sum(integer, float)"),
            ("Timestamp(µs, \"UTC\") and Date32", "time and date"),
            ("no type in Utf", "no type in Utf"),
        ] {
            assert_eq!(plain(text), told);
        }
    }
}
