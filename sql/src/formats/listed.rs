//! All formats with their columns and examples, for people.

use std::borrow::Cow;

use model::table::{Column, Format, Reads, Table};

use super::known;
use crate::parse::{fixed_columns, parser};

/// A format as it is shown.
#[derive(Clone, Debug)]
pub struct Listed {
    /// What it is called on the command line.
    pub name: String,
    /// What writes such lines.
    pub about: String,
    /// Where the format is described.
    pub reference: Option<String>,
    /// How the columns are found, where that is defined and not programmed.
    pub reads: Option<Reads>,
    /// The columns; none where only the lines tell them.
    pub columns: Vec<Column>,
    /// Some lines.
    pub samples: Vec<String>,
    /// What is in the columns of the samples.
    pub examples: Vec<Option<String>>,
}

/// What is not defined but programmed.
const BUILT_IN: [(&str, &str, Option<Format>, &str); 10] = [
    (
        "access",
        "access logs of Apache, nginx and others: common and combined, with a request time in seconds or without",
        Some(Format::Access),
        "192.0.2.4 id alice [10/Oct/2000:13:55:36 -0700] \"GET /index.html HTTP/1.1\" 200 2326 \"https://example.test/\" \"curl/8.5.0\" 0.005",
    ),
    (
        "syslog",
        "syslog of BSD (RFC 3164), also with times of RFC 3339: auth.log, mail.log, kern.log, sshd, Postfix, sudo, cron, UFW",
        Some(Format::Syslog),
        "<38>2024-05-01T12:00:00.123456+02:00 box sshd[812]: Accepted publickey for alice from 192.0.2.7 port 50000 ssh2",
    ),
    (
        "syslog5424",
        "syslog of RFC 5424",
        Some(Format::Syslog5424),
        "<34>1 2003-10-11T22:14:15.003Z box su 812 ID47 [a@1 b=\"c\"] 'su root' failed",
    ),
    (
        "json",
        "an object of JSON on each line",
        None,
        "{\"level\":\"info\",\"user\":{\"id\":7}}",
    ),
    (
        "logfmt",
        "key=value pairs",
        None,
        "level=info msg=\"it works\" took=12",
    ),
    (
        "csv",
        "values with commas between them, below a header",
        None,
        "id,name\n7,alice",
    ),
    (
        "tsv",
        "values with tabs between them, below a header",
        None,
        "id\tname\n7\talice",
    ),
    ("parquet", "Parquet files", None, ""),
    (
        "text",
        "anything else: a time stamp, a level and a message, as far as a line has them",
        Some(Format::Text {
            joined: false,
            yearless: false,
        }),
        "2024-01-02 15:04:05,123 ERROR nothing is known of this line",
    ),
    ("raw", "nothing but _raw, the line as it is", None, "any line"),
];

/// All formats: those of the user, those that come with Sawmill, and what both are read by when none of them fits.
pub fn all() -> Vec<Listed> {
    let defined = known().iter().map(|definition| {
        let samples: Vec<&[u8]> = definition
            .samples
            .iter()
            .map(|sample| sample.as_bytes())
            .collect();
        let table = definition.table(&samples);
        Listed {
            name: definition.name.clone(),
            about: definition.about.clone(),
            reference: definition.reference.clone(),
            reads: Some(definition.reads.clone()),
            examples: table
                .as_ref()
                .map(|table| examples(table, &samples))
                .unwrap_or_default(),
            columns: table.map(|table| table.columns).unwrap_or_default(),
            samples: definition.samples.clone(),
        }
    });
    let built_in = BUILT_IN.into_iter().map(|(name, about, format, sample)| {
        let columns = format.as_ref().and_then(fixed_columns).unwrap_or_default();
        let table = Table {
            format: format.unwrap_or(Format::Raw),
            columns,
            least: None,
        };
        Listed {
            name: name.into(),
            about: about.into(),
            reference: None,
            reads: None,
            examples: examples(&table, &[sample.as_bytes()]),
            columns: table.columns,
            samples: sample.lines().map(str::to_string).collect(),
        }
    });
    defined.chain(built_in).collect()
}

/// The first value of each column in some lines.
fn examples(table: &Table, lines: &[&[u8]]) -> Vec<Option<String>> {
    let mut found = vec![None; table.columns.len()];
    let Ok(mut parser) = parser(table, &vec![true; found.len()]) else {
        return found;
    };
    for line in lines {
        let mut row = vec![None; found.len()];
        if parser.passes_over(line) || parser.parse(line, &mut row).is_err() {
            continue;
        }
        for (found, value) in found.iter_mut().zip(row) {
            if found.is_none() {
                *found = value.map(|value: Cow<'_, [u8]>| String::from_utf8_lossy(&value).into_owned());
            }
        }
    }
    found
}
