//! How the lines of a dataset become rows of a table.

use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// How a line is written.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Format {
    /// The access log of Apache and nginx, common or combined, with an optional request time in seconds behind it.
    Access,
    /// One JSON object per line; nested members are columns named by their path, such as `user.id`.
    Json,
    /// `key=value` pairs, values quoted where they contain spaces.
    Logfmt,
    /// Syslog as BSD writes it (RFC 3164): no year, local time taken as UTC.
    Syslog,
    /// Syslog of RFC 5424.
    Syslog5424,
    /// Separated values; the names of the columns are those of the first line of each file.
    Separated {
        /// Between two values.
        separator: char,
    },
    /// A regular expression with named groups.
    Regex {
        /// In the syntax of the `regex` crate.
        pattern: String,
    },
    /// Not lines but the rows of Parquet files, whose columns have types.
    Parquet,
    /// Anything else: a time stamp, a level and a message, as far as a line has them.
    Text {
        /// Whether lines without a time stamp belong to the record that begins above them, as those of a stack trace do.
        joined: bool,
        /// Whether the time stamps have no year, so that it depends on the moment of the query; stamps with a year do not
        /// count then, nor do those without one otherwise.
        yearless: bool,
    },
    /// Defined by name: one of the formats that Sawmill knows, or one of the user's configuration. The definition travels
    /// with the table, so that nodes need not know the name.
    Known {
        /// Its name on the command line.
        name: String,
        /// How the columns are found.
        reads: Reads,
        /// Whether its time stamps have no year.
        yearless: bool,
    },
    /// Nothing is known of the lines: only `_raw`.
    Raw,
}

/// How the columns of a [`Format::Known`] are found in a line.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reads {
    /// By a regular expression; its named groups are the columns, in their order.
    Pattern(String),
    /// In an object of JSON: the path of each column, in their order.
    Members(Vec<String>),
    /// By their places between separators; a line that begins with `#Fields:` names them, and other lines that begin with
    /// `#` are no rows (<https://www.w3.org/TR/WD-logfile.html>).
    Directives {
        /// Between two values.
        separator: char,
    },
}

/// What a column holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ColumnType {
    /// UTF-8.
    Text,
    /// Signed, 64 bits.
    Integer,
    /// Double precision.
    Float,
    /// True or false.
    Boolean,
    /// Microseconds since 1970 UTC.
    Timestamp,
}

impl ColumnType {
    /// All types.
    pub const ALL: [Self; 5] = [
        Self::Text,
        Self::Integer,
        Self::Float,
        Self::Boolean,
        Self::Timestamp,
    ];

    /// Whether what is of type `other` can be read as this one without loss.
    pub fn takes(self, other: Self) -> bool {
        self == other || self == Self::Text || (self == Self::Float && other == Self::Integer)
    }

    /// Its name for people.
    pub fn name(self) -> &'static str {
        match self {
            Self::Text => "text",
            Self::Integer => "integer",
            Self::Float => "float",
            Self::Boolean => "boolean",
            Self::Timestamp => "timestamp",
        }
    }
}

impl FromStr for ColumnType {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let found = Self::ALL.into_iter().find(|kind| kind.name() == text);
        found.ok_or_else(|| {
            let all = Self::ALL.map(Self::name).join(", ");
            format!("no such type {text:?}: it is one of {all}")
        })
    }
}

/// One column.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Column {
    /// Its name; for JSON the path to it.
    pub name: String,
    /// What it holds.
    pub kind: ColumnType,
}

/// The table that a dataset is: its format and the columns that its lines have.
///
/// Every table has the columns of [`EVERYWHERE`] besides these.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Table {
    /// How a line is written.
    pub format: Format,
    /// Its columns, in their order.
    pub columns: Vec<Column>,
    /// How many values a line of separated values has at least: the columns behind came with later files. None: all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub least: Option<u32>,
}

/// The line as it is, without its line feed.
pub const RAW: &str = "_raw";
/// Number of the line in its block, from 1.
pub const LINE: &str = "_line";
/// Number of the block in the dataset, from 0.
pub const BLOCK: &str = "_block";
/// Why a line did not parse; null where it did.
pub const ERROR: &str = "_error";

/// The file that the line stood in: its path on its machine, or the URL of its object.
pub const FILE: &str = "_file";
/// Host name of the machine that the line was shipped from; null where it was not shipped.
pub const HOST: &str = "_host";

/// The columns that every table has, behind its own.
pub const EVERYWHERE: [(&str, ColumnType); 6] = [
    (RAW, ColumnType::Text),
    (LINE, ColumnType::Integer),
    (BLOCK, ColumnType::Integer),
    (ERROR, ColumnType::Text),
    (FILE, ColumnType::Text),
    (HOST, ColumnType::Text),
];

impl Format {
    /// Whether its columns and their types are the same for all lines there are.
    pub fn is_fixed(&self) -> bool {
        match self {
            Self::Access | Self::Syslog | Self::Syslog5424 | Self::Text { .. } | Self::Raw => true,
            Self::Known { reads, .. } => !matches!(reads, Reads::Directives { .. }),
            Self::Json | Self::Logfmt | Self::Separated { .. } | Self::Regex { .. } | Self::Parquet => false,
        }
    }

    /// Whether times depend on the moment of the query, since the lines do not tell the year.
    pub fn is_yearless(&self) -> bool {
        match self {
            Self::Syslog => true,
            Self::Text { yearless, .. } | Self::Known { yearless, .. } => *yearless,
            _ => false,
        }
    }

    /// Whether a value is found by the name of its column, not by its place.
    pub fn finds_by_name(&self) -> bool {
        matches!(self, Self::Json | Self::Logfmt | Self::Parquet)
    }

    /// Its name on the command line.
    pub fn name(&self) -> String {
        match self {
            Self::Access => "access".into(),
            Self::Json => "json".into(),
            Self::Logfmt => "logfmt".into(),
            Self::Syslog => "syslog".into(),
            Self::Syslog5424 => "syslog5424".into(),
            Self::Separated { separator: ',' } => "csv".into(),
            Self::Separated { separator: '\t' } => "tsv".into(),
            Self::Separated { separator } => format!("separated:{separator}"),
            Self::Regex { pattern } => format!("regex:{pattern}"),
            Self::Parquet => "parquet".into(),
            Self::Text { joined: false, .. } => "text".into(),
            Self::Text { joined: true, .. } => "text:joined".into(),
            Self::Known { name, .. } => name.clone(),
            Self::Raw => "raw".into(),
        }
    }
}
