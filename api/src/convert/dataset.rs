//! Datasets: their tables and blocks.

use model::{
    Block, Codec, Content, Made, Payload,
    table::{Column, ColumnType, Format, Reads, Table},
};

use super::Malformed;
use crate::v1::{self, block};

impl From<ColumnType> for v1::ColumnType {
    fn from(kind: ColumnType) -> Self {
        match kind {
            ColumnType::Text => Self::Text,
            ColumnType::Integer => Self::Integer,
            ColumnType::Float => Self::Float,
            ColumnType::Boolean => Self::Boolean,
            ColumnType::Timestamp => Self::Timestamp,
        }
    }
}

impl TryFrom<v1::ColumnType> for ColumnType {
    type Error = Malformed;

    fn try_from(kind: v1::ColumnType) -> Result<Self, Malformed> {
        Ok(match kind {
            v1::ColumnType::Unspecified => return Err(Malformed::missing("columns.type")),
            v1::ColumnType::Text => Self::Text,
            v1::ColumnType::Integer => Self::Integer,
            v1::ColumnType::Float => Self::Float,
            v1::ColumnType::Boolean => Self::Boolean,
            v1::ColumnType::Timestamp => Self::Timestamp,
        })
    }
}

impl From<&Column> for v1::Column {
    fn from(column: &Column) -> Self {
        Self {
            name: column.name.clone(),
            r#type: v1::ColumnType::from(column.kind).into(),
        }
    }
}

impl TryFrom<v1::Column> for Column {
    type Error = Malformed;

    fn try_from(column: v1::Column) -> Result<Self, Malformed> {
        let kind = v1::ColumnType::try_from(column.r#type);
        Ok(Self {
            name: column.name,
            kind: kind
                .map_err(|error| Malformed::new("columns.type", error))?
                .try_into()?,
        })
    }
}

impl From<&Format> for v1::Format {
    fn from(format: &Format) -> Self {
        let mut told = Self::default();
        told.kind = match format {
            Format::Access => "access",
            Format::Json => "json",
            Format::Logfmt => "logfmt",
            Format::Syslog => "syslog",
            Format::Syslog5424 => "syslog5424",
            Format::Separated { separator } => {
                told.separator = separator.to_string();
                "separated"
            }
            Format::Regex { pattern } => {
                told.pattern.clone_from(pattern);
                "regex"
            }
            Format::Parquet => "parquet",
            Format::Text { joined, yearless } => {
                (told.joined, told.yearless) = (*joined, *yearless);
                "text"
            }
            Format::Known {
                name,
                reads,
                yearless,
            } => {
                told.name.clone_from(name);
                told.yearless = *yearless;
                match reads {
                    Reads::Pattern(pattern) => told.pattern.clone_from(pattern),
                    Reads::Members(members) => told.members.clone_from(members),
                    Reads::Directives { separator } => told.separator = separator.to_string(),
                }
                "known"
            }
            Format::Raw => "raw",
        }
        .into();
        told
    }
}

impl TryFrom<v1::Format> for Format {
    type Error = Malformed;

    fn try_from(format: v1::Format) -> Result<Self, Malformed> {
        Ok(match format.kind.as_str() {
            "access" => Self::Access,
            "json" => Self::Json,
            "logfmt" => Self::Logfmt,
            "syslog" => Self::Syslog,
            "syslog5424" => Self::Syslog5424,
            "separated" => Self::Separated {
                separator: separator(&format.separator)?,
            },
            "regex" => Self::Regex {
                pattern: format.pattern,
            },
            "parquet" => Self::Parquet,
            "text" => Self::Text {
                joined: format.joined,
                yearless: format.yearless,
            },
            "known" => Self::Known {
                name: format.name,
                reads: if !format.pattern.is_empty() {
                    Reads::Pattern(format.pattern)
                } else if !format.separator.is_empty() {
                    Reads::Directives {
                        separator: separator(&format.separator)?,
                    }
                } else {
                    Reads::Members(format.members)
                },
                yearless: format.yearless,
            },
            "raw" => Self::Raw,
            other => return Err(Malformed::new("format.kind", format!("{other:?} is none"))),
        })
    }
}

fn separator(text: &str) -> Result<char, Malformed> {
    let mut characters = text.chars();
    match (characters.next(), characters.next()) {
        (Some(separator), None) => Ok(separator),
        _ => Err(Malformed::new("format.separator", "it is not one character")),
    }
}

impl From<&Table> for v1::Table {
    fn from(table: &Table) -> Self {
        Self {
            format: Some((&table.format).into()),
            columns: table.columns.iter().map(Into::into).collect(),
            least: table.least,
        }
    }
}

impl TryFrom<v1::Table> for Table {
    type Error = Malformed;

    fn try_from(table: v1::Table) -> Result<Self, Malformed> {
        let columns = table.columns.into_iter().map(Column::try_from);
        Ok(Self {
            format: table
                .format
                .ok_or_else(|| Malformed::missing("format"))?
                .try_into()?,
            columns: columns.collect::<Result<_, _>>()?,
            least: table.least,
        })
    }
}

fn codec_name(codec: Codec) -> &'static str {
    match codec {
        Codec::None => "none",
        Codec::Gzip => "gzip",
        Codec::Zstd => "zstd",
        Codec::Bzip2 => "bzip2",
        Codec::Xz => "xz",
    }
}

fn codec(name: &str) -> Result<Codec, Malformed> {
    let all = [Codec::None, Codec::Gzip, Codec::Zstd, Codec::Bzip2, Codec::Xz];
    let found = all.into_iter().find(|codec| codec_name(*codec) == name);
    found.ok_or_else(|| Malformed::new("codec", format!("{name:?} is none")))
}

impl From<&Block> for v1::Block {
    fn from(block: &Block) -> Self {
        let content = match &block.content {
            Content::Inline(payload) => block::Content::Inline(payload.0.clone().into()),
            Content::Object {
                url,
                start,
                end,
                codec,
                size,
                mtime_ms,
            } => block::Content::Object(v1::ObjectRange {
                url: url.clone(),
                start: *start,
                end: *end,
                codec: codec_name(*codec).into(),
                size: *size,
                mtime_ms: *mtime_ms,
            }),
        };
        Self {
            content: Some(content),
            checksum: block.checksum.clone(),
            raw_bytes: block.raw_bytes,
            made: block.made.map(|made| v1::Made {
                generation: made.generation,
                newest_ms: made.newest_ms,
            }),
            registered_ms: block.registered_ms,
            number: None,
        }
    }
}

impl TryFrom<v1::Block> for Block {
    type Error = Malformed;

    fn try_from(block: v1::Block) -> Result<Self, Malformed> {
        let content = match block.content.ok_or_else(|| Malformed::missing("content"))? {
            block::Content::Inline(bytes) => Content::Inline(Payload(bytes.into())),
            block::Content::Object(object) => Content::Object {
                codec: codec(&object.codec)?,
                url: object.url,
                start: object.start,
                end: object.end,
                size: object.size,
                mtime_ms: object.mtime_ms,
            },
        };
        Ok(Self {
            content,
            checksum: block.checksum,
            raw_bytes: block.raw_bytes,
            made: block.made.map(|made| Made {
                generation: made.generation,
                newest_ms: made.newest_ms,
            }),
            registered_ms: block.registered_ms,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn known(reads: Reads) -> Format {
        Format::Known {
            name: "mine".into(),
            reads,
            yearless: true,
        }
    }

    #[test]
    fn tables_of_all_formats_come_back_as_they_were() {
        let formats = [
            Format::Access,
            Format::Json,
            Format::Logfmt,
            Format::Syslog,
            Format::Syslog5424,
            Format::Separated { separator: '→' },
            Format::Regex {
                pattern: "^(.*)$".into(),
            },
            Format::Parquet,
            Format::Text {
                joined: true,
                yearless: false,
            },
            Format::Text {
                joined: false,
                yearless: true,
            },
            known(Reads::Pattern("(?<a>x)".into())),
            known(Reads::Members(vec!["a".into(), "b.c".into()])),
            known(Reads::Directives { separator: '\t' }),
            Format::Raw,
        ];
        for format in formats {
            let columns = ColumnType::ALL.map(|kind| Column {
                name: format!("c {}", kind.name()),
                kind,
            });
            let table = Table {
                format,
                columns: columns.into(),
                least: Some(3),
            };
            assert_eq!(Table::try_from(v1::Table::from(&table)).unwrap(), table);
        }
        let bad = v1::Format {
            kind: "separated".into(),
            separator: "ab".into(),
            ..Default::default()
        };
        assert_eq!(Format::try_from(bad).unwrap_err().field, "format.separator");
    }

    #[test]
    fn blocks_come_back_as_they_were() {
        for name in ["none", "gzip", "zstd", "bzip2", "xz"] {
            let block = Block {
                content: Content::Object {
                    url: "file:///a".into(),
                    start: 1,
                    end: 2,
                    codec: codec(name).unwrap(),
                    size: 3,
                    mtime_ms: -4,
                },
                checksum: Some("ab".into()),
                raw_bytes: Some(5),
                made: Some(Made {
                    generation: 6,
                    newest_ms: -7,
                }),
                registered_ms: Some(8),
            };
            assert_eq!(Block::try_from(v1::Block::from(&block)).unwrap(), block);
        }
        let inline = Block::inline(vec![0, 255]);
        assert_eq!(Block::try_from(v1::Block::from(&inline)).unwrap(), inline);
        assert!(codec("lzma").is_err());
    }
}
