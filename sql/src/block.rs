//! The rows of one block.

use std::sync::Arc;

use datafusion::arrow::{
    array::{ArrayRef, Int64Array, RecordBatch, RecordBatchOptions, StringViewArray},
    datatypes::SchemaRef,
};
use model::table::{BLOCK, EVERYWHERE, FILE, HOST, LINE, Table};

use crate::{
    Error, Tally,
    decode::{Column, Decoded, decode},
    schema::schema,
    time::DAY_US,
};

/// Rows of one batch: most blocks are one, for some expressions, such as regular ones, are prepared anew for each.
const BATCH_ROWS: usize = 64 * 1024;

/// Where a block comes from.
#[derive(Clone, Copy, Debug)]
pub struct Origin {
    /// Its number in the dataset.
    pub block: u32,
    /// Whether it is the first one of its file, where a header or a byte order mark may stand.
    pub begins_file: bool,
    /// The moment of the query, in microseconds since 1970 UTC: what `now()` is, and times without a year are near.
    pub now_us: i64,
}

/// The wanted columns of a block.
#[derive(Debug)]
pub struct BlockRows {
    /// The rows, with the columns that were asked for.
    pub batches: Vec<RecordBatch>,
    /// How many there are, and how many of them are lines that did not parse.
    pub tally: Tally,
}

impl BlockRows {
    /// Parses the bytes of a block; `projection` names the wanted columns by their places in the schema of the table.
    ///
    /// # Errors
    /// [`Error::BadFormat`]; never for what the lines are.
    pub fn parse(table: &Table, bytes: &[u8], projection: &[usize], origin: Origin) -> Result<Self, Error> {
        let wanted: Vec<usize> = projection
            .iter()
            .copied()
            .filter(|&place| is_in_lines(table, place))
            .collect();
        let decoded = decode(table, bytes, &wanted, origin, bytes.len() as u64)?;
        let columns: Vec<(usize, Column)> = wanted.into_iter().zip(decoded.columns).collect();
        let lines = Lines {
            rows: decoded.rows,
            broken: decoded.broken,
        };
        Self::assemble(table, projection, &lines, &columns, origin.block)
    }

    /// Puts the columns of a block side by side; `columns` holds, by place, those of the projection that stand in the lines.
    pub(crate) fn assemble(
        table: &Table,
        projection: &[usize],
        lines: &Lines,
        columns: &[(usize, Column)],
        block: u32,
    ) -> Result<Self, Error> {
        let rows = lines.rows as usize;
        let arrays = projection.iter().map(|&place| {
            let known = columns.iter().find(|(known, _)| *known == place);
            match (known, everywhere(table, place)) {
                (Some((_, column)), _) => Ok(column.array.clone()),
                (None, Some(LINE)) => {
                    Ok(Arc::new(Int64Array::from_iter_values(1..=i64::from(lines.rows))) as ArrayRef)
                }
                // Who parses bytes alone knows no file.
                (None, Some(FILE | HOST)) => Ok(Arc::new(StringViewArray::new_null(rows)) as ArrayRef),
                (None, Some(BLOCK)) => Ok(Arc::new(Int64Array::from_value(block.into(), rows)) as ArrayRef),
                (None, _) => Err(Error::Query(format!("column {place} of a block was not decoded"))),
            }
        });
        let arrays: Vec<ArrayRef> = arrays.collect::<Result<_, _>>()?;
        let projected: SchemaRef = schema(table).project(projection)?.into();
        let options = RecordBatchOptions::new().with_row_count(Some(rows));
        let whole = RecordBatch::try_new_with_options(projected, arrays, &options)?;
        let batches = (0..rows)
            .step_by(BATCH_ROWS)
            .map(|from| whole.slice(from, BATCH_ROWS.min(rows - from)))
            .collect();
        let misfits = columns.iter().map(|(_, column)| &column.misfits);
        let tally = Tally {
            rows: lines.rows.into(),
            errors: different(std::iter::once(&lines.broken).chain(misfits)),
        };
        Ok(Self { batches, tally })
    }
}

/// What is known of the lines of a block beside their values.
#[derive(Clone, Debug)]
pub(crate) struct Lines {
    /// How many there are.
    pub(crate) rows: u32,
    /// Those that are not of the format, from 0, in order.
    pub(crate) broken: Arc<[u32]>,
}

impl From<&Decoded> for Lines {
    fn from(decoded: &Decoded) -> Self {
        Self {
            rows: decoded.rows,
            broken: decoded.broken.clone(),
        }
    }
}

/// The name of a column that every table has.
pub(crate) fn everywhere(table: &Table, place: usize) -> Option<&'static str> {
    let place = place.checked_sub(table.columns.len())?;
    EVERYWHERE.get(place).map(|(name, _)| *name)
}

/// Whether a column is read out of the lines; the others follow from where these are.
pub(crate) fn is_in_lines(table: &Table, place: usize) -> bool {
    !matches!(everywhere(table, place), Some(LINE | BLOCK | FILE | HOST))
}

/// Whether a column tells where the lines come from.
pub(crate) fn is_of_origin(table: &Table, place: usize) -> bool {
    matches!(everywhere(table, place), Some(FILE | HOST))
}

/// How many different numbers there are in ascending lists.
fn different<'a>(lists: impl Iterator<Item = &'a Arc<[u32]>>) -> u64 {
    let mut lists = lists.filter(|list| !list.is_empty());
    let Some(first) = lists.next() else { return 0 };
    let Some(second) = lists.next() else {
        return first.len() as u64;
    };
    let mut all: Vec<u32> = first
        .iter()
        .chain(second.iter())
        .chain(lists.flat_map(|list| list.iter()))
        .copied()
        .collect();
    all.sort_unstable();
    all.dedup();
    all.len() as u64
}

/// The midnight before a moment: what a block gives is to be the same for a whole day.
pub(crate) fn begin_of_day(now_us: i64) -> i64 {
    now_us - now_us.rem_euclid(DAY_US)
}

#[cfg(test)]
mod tests {
    use datafusion::arrow::util::pretty::pretty_format_batches;
    use model::table::{Column, ColumnType, Format};

    use super::*;
    use crate::{named, parse::fixed_columns};

    const ORIGIN: Origin = Origin {
        block: 7,
        begins_file: true,
        now_us: 1_700_000_000_000_000,
    };

    fn table(format: Format, columns: &[(&str, ColumnType)]) -> Table {
        let given = columns.iter().map(|&(name, kind)| Column {
            name: name.into(),
            kind,
        });
        Table {
            columns: fixed_columns(&format).unwrap_or_else(|| given.collect()),
            format,
            least: None,
        }
    }

    fn rows(table: &Table, text: &[u8], names: &[&str]) -> (String, Tally) {
        let all = schema(table);
        let projection: Vec<usize> = names.iter().map(|name| all.index_of(name).unwrap()).collect();
        let parsed = BlockRows::parse(table, text, &projection, ORIGIN).unwrap();
        let lines = pretty_format_batches(&parsed.batches).unwrap().to_string();
        let body: Vec<String> = lines
            .lines()
            .filter(|line| line.starts_with('|'))
            .skip(1)
            .map(|line| {
                let cells = line.trim_matches('|').split('|').map(str::trim);
                cells.collect::<Vec<_>>().join("|")
            })
            .collect();
        (body.join("\n"), parsed.tally)
    }

    #[test]
    fn access_logs_common_combined_and_with_time() {
        let table = table(Format::Access, &[]);
        let text = "1.2.3.4 - al ice [10/Oct/2000:13:55:36 -0700] \"GET /a \\\"b\\\" HTTP/1.0\" 200 2326\r\n\
                    ::1 - - [10/Oct/2000:13:55:36 +0000] \"\\x16\\x03\" 400 - \"-\" \"curl\" 0.25\n\
                    what is this\n";
        let names = [
            "host",
            "user",
            "time",
            "method",
            "path",
            "protocol",
            "status",
            "bytes",
            "request_time",
        ];
        let (rows, tally) = rows(&table, text.as_bytes(), &names);
        assert_eq!(
            rows,
            "1.2.3.4|al ice|2000-10-10T20:55:36Z|GET|/a \\\"b\\\"|HTTP/1.0|200|2326|\n\
             ::1||2000-10-10T13:55:36Z||\\x16\\x03||400||0.25\n\
             ||||||||"
        );
        assert_eq!((tally.rows, tally.errors), (3, 1));
    }

    #[test]
    fn what_every_table_has() {
        let table = table(Format::Access, &[]);
        let (rows, _) = rows(&table, b"bad\n\nworse", &["_raw", "_line", "_block", "_error"]);
        assert_eq!(
            rows, "bad|1|7|the host is missing\n|2|7|\nworse|3|7|the host is missing",
            "a blank line is a row"
        );
    }

    #[test]
    fn json_reaches_into_objects() {
        let columns = [
            ("a.b", ColumnType::Integer),
            ("t", ColumnType::Timestamp),
            ("x", ColumnType::Text),
        ];
        let table = table(Format::Json, &columns);
        let text = "{\"a\":{\"b\":1},\"t\":\"2024-01-01T00:00:00Z\",\"x\":\"\\u00e4\\n\"}\n{\"a.b\":2,\"x\":[1]}\n[]\n{\"a\":{\"b\":\"no\"}}";
        let (rows, tally) = rows(&table, text.as_bytes(), &["a.b", "t", "_error"]);
        assert_eq!(
            rows,
            "1|2024-01-01T00:00:00Z|\n2||\n||no JSON object: invalid type: sequence, expected a map at line 1 column 0\n\
             ||a.b: \"no\" is not a plain integer of 64 bits"
        );
        assert_eq!((tally.rows, tally.errors), (4, 2));
    }

    #[test]
    fn logfmt_syslog_and_patterns() {
        let columns = [("level", ColumnType::Text), ("took", ColumnType::Float)];
        let logfmt = table(Format::Logfmt, &columns);
        let text = b"level=info msg=\"a \\\"b\\\"\" took=1.5 ok\nnothing\n";
        assert_eq!(rows(&logfmt, text, &["level", "took"]).0, "info|1.5\n|");

        let bsd = table(Format::Syslog, &[]);
        let text = b"<34>Oct 11 22:14:15 mymachine su[7]: 'su root' failed\nJun 14 15:16:01 combo kernel: x: y\nno\n";
        let names = ["priority", "time", "host", "app", "pid", "message"];
        assert_eq!(
            rows(&bsd, text, &names).0,
            "34|2023-10-11T22:14:15Z|mymachine|su|7|'su root' failed\n|2023-06-14T15:16:01Z|combo|kernel||x: y\n|||||"
        );

        let new = table(Format::Syslog5424, &[]);
        let text = b"<165>1 2003-10-11T22:14:15.003Z host app - ID47 [x@1 a=\"]\"][y] hello\n";
        let names = ["priority", "time", "host", "pid", "message_id", "data", "message"];
        assert_eq!(
            rows(&new, text, &names).0,
            "165|2003-10-11T22:14:15.003Z|host||ID47|[x@1 a=\"]\"][y]|hello"
        );

        let by_regex = named("regex:^(?<level>[A-Z]+) +(?<n>\\d+)$", b"WARN 1\n").unwrap();
        let (found, tally) = rows(&by_regex.table, b"WARN 1\nINFO  22\nx\n", &["level", "n"]);
        assert_eq!(found, "WARN|1\nINFO|22\n|");
        assert_eq!((tally.rows, tally.errors), (3, 1));
    }

    #[test]
    fn years_are_the_same_for_a_whole_day() {
        let bsd = table(Format::Syslog, &[]);
        let place = schema(&bsd).index_of("time").unwrap();
        let time = |now_us| {
            let origin = Origin { now_us, ..ORIGIN };
            let parsed = BlockRows::parse(&bsd, b"Nov 15 23:00:00 h a: x\n", &[place], origin).unwrap();
            pretty_format_batches(&parsed.batches).unwrap().to_string()
        };
        let day = ORIGIN.now_us - ORIGIN.now_us % 86_400_000_000;
        assert_eq!(time(day), time(day + 86_399_999_999));
        assert_ne!(time(day), time(day + 86_400_000_000));
    }

    #[test]
    fn separated_values_skip_the_header_of_their_file() {
        let columns = [("a", ColumnType::Integer), ("b", ColumnType::Text)];
        let table = table(Format::Separated { separator: ',' }, &columns);
        let text = "\u{feff}a,b\n1,\"x, \"\"y\"\"\"\n2,\n3\n\na,b\n4,z\n";
        let (found, tally) = rows(&table, text.as_bytes(), &["a", "b"]);
        assert_eq!(found, "1|x, \"y\"\n2|\n|\n|\n4|z");
        assert_eq!((tally.rows, tally.errors), (5, 1));
    }

    #[test]
    fn line_feeds_in_quotes_belong_to_their_value() {
        let columns = [
            ("a", ColumnType::Integer),
            ("b", ColumnType::Text),
            ("c", ColumnType::Integer),
        ];
        let table = table(Format::Separated { separator: ';' }, &columns);
        let text = "a;b;c\n1;\"x\n7;y;7\n\";2\r\n3;\"never closed;4\n5;z;6\n";
        let (found, tally) = rows(&table, text.as_bytes(), &["a", "c", "_line", "_error"]);
        assert_eq!(found, "1|2|1|\n||2|a closing quote is missing\n5|6|3|");
        assert_eq!((tally.rows, tally.errors), (3, 1));
        let places = [1, 3];
        let parsed = BlockRows::parse(&table, text.as_bytes(), &places, ORIGIN).unwrap();
        let value = |column: usize| {
            let column = parsed.batches[0].column(column);
            column
                .as_any()
                .downcast_ref::<StringViewArray>()
                .unwrap()
                .value(0)
                .to_string()
        };
        assert_eq!(value(0), "x\n7;y;7\n");
        assert_eq!(value(1), "1;\"x\n7;y;7\n\";2");
    }

    #[test]
    fn a_record_longer_than_a_portion_stays_whole() {
        let columns = [("a", ColumnType::Integer), ("b", ColumnType::Text)];
        let table = table(Format::Separated { separator: ',' }, &columns);
        let long = "line\n".repeat(150_000);
        let text = format!("a,b\n1,\"{long}\"\n2,x\n").repeat(2);
        let (found, tally) = rows(&table, text.as_bytes(), &["a"]);
        assert_eq!((&*found, tally.errors), ("1\n2\n1\n2", 0));
    }

    #[test]
    fn a_header_in_another_order_is_no_row_and_breaks_those_behind_it() {
        let columns = [("a", ColumnType::Text), ("b", ColumnType::Text)];
        let table = table(Format::Separated { separator: ',' }, &columns);
        let (found, tally) = rows(&table, b"a,b\n1,2\nb,a\n3,4\na,b\n5,6\n", &["a", "b"]);
        assert_eq!((&*found, tally.errors), ("1|2\n|\n5|6", 1));
        let (told, _) = rows(&table, b"a,b\nb,a\n3,4\n", &["_error"]);
        assert!(told.contains("in another order"), "{told}");
    }

    #[test]
    fn keys_with_dots_are_reached_in_any_split() {
        let names = [
            "k8s.labels.app.kubernetes.io/name",
            "hosts.db1.example.com.ms",
            "a.b.c",
            "a.b",
            ".x",
        ];
        let table = table(Format::Json, &names.map(|name| (name, ColumnType::Text)));
        let text = br#"{"k8s":{"labels":{"app.kubernetes.io/name":"web","x":1}}}
{"hosts":{"db1.example.com":{"ms":12}}}
{"a.b":{"c":1}}
{"a":{"b.c":2}}
{"a.b.c":3,"":{"x":4}}
{"a":{"b":{"c":5}}}
{"a.b.c":6,"a":{"b":{"c":7}}}
{"a.b.c.d":8,"a.x":9,"k8s.labels":{"app":{"kubernetes.io/name":"db"}}}
"#;
        let (found, tally) = rows(&table, text, &names);
        let expected = "web||||\n|12|||\n||1|{\"c\":1}|\n||2||\n||3||4\n||5|{\"c\":5}|\n||||\ndb||||";
        assert_eq!((&*found, tally.errors), (expected, 1));
        let (told, _) = rows(&table, text, &["_error"]);
        assert_eq!(told.trim_matches('\n'), "\"a.b.c\" is in it twice");
    }

    #[test]
    fn numbers_of_json_are_exact_or_told() {
        let columns = [
            ("i", ColumnType::Integer),
            ("f", ColumnType::Float),
            ("t", ColumnType::Text),
        ];
        let table = table(Format::Json, &columns);
        let text = br#"{"i":9223372036854775807,"f":0.1,"t":18446744073709551615}
{"i":9223372036854775808,"f":9007199254740993,"t":1.10}
{"i":"007","f":1e400,"t":[ 0.10, {"a" : 12345678901234567890} ]}
{"i":1,"i":2,"f":1e5,"t":true}
"#;
        let (found, tally) = rows(&table, text, &["i", "f", "t"]);
        assert_eq!(
            found,
            "9223372036854775807|0.1|18446744073709551615\n||1.10\n||[0.10,{\"a\":12345678901234567890}]\n||"
        );
        assert_eq!(tally.errors, 3);
        // Which lines are broken does not depend on what is wanted.
        assert_eq!(rows(&table, text, &["t"]).1.errors, 1);
    }

    #[test]
    fn marks_and_nuls_before_a_line_are_no_part_of_it() {
        let json = table(Format::Json, &[("a", ColumnType::Integer)]);
        let text = b"\xef\xbb\xbf{\"a\":1}\n\0\0{\"a\":2}\n\xef\xbb\xbf{\"a\":3}\n\0\n\n\0";
        let (found, tally) = rows(&json, text, &["a", "_raw", "_error"]);
        assert_eq!(
            found,
            "1|{\"a\":1}|\n|{\"a\":2}|there are 2 NUL bytes before it, as a crash leaves them\n3|{\"a\":3}|\n\
             ||there is a NUL byte before it\n||\n||there is a NUL byte before it"
        );
        assert_eq!((tally.rows, tally.errors), (6, 3));
        let access = table(Format::Access, &[]);
        let line = "h - - [10/Oct/2000:13:55:36 +0000] \"GET / HTTP/1.0\" 200 5\n";
        let text = format!("{line}\u{feff}{line}\0\0\0{line}\n");
        let (found, tally) = rows(&access, text.as_bytes(), &["host", "status"]);
        assert_eq!(found, "h|200\nh|200\n|\n|");
        assert_eq!((tally.rows, tally.errors), (4, 1));
    }

    #[test]
    fn headers_in_the_midst_of_a_shipped_block_are_no_rows() {
        let columns = [("a", ColumnType::Integer), ("b", ColumnType::Text)];
        let mut table = table(Format::Separated { separator: ',' }, &columns);
        let shipped = |table: &Table, text: &[u8]| {
            let origin = Origin {
                begins_file: false,
                ..ORIGIN
            };
            let parsed = BlockRows::parse(table, text, &[0, 1], origin).unwrap();
            (parsed.tally.rows, parsed.tally.errors)
        };
        assert_eq!(
            shipped(&table, b"1,x\n2,y\n"),
            (2, 0),
            "it begins in the midst of a file"
        );
        assert_eq!(
            shipped(&table, "\u{feff}a,b\n1,x\n\"a\", b\n2,y\n".as_bytes()),
            (2, 0)
        );
        assert_eq!(shipped(&table, b"a,c\nab,b\na\n"), (3, 3), "others are lines");
        table.least = Some(1);
        assert_eq!(shipped(&table, b"a\n1\na,b\n2,y\n"), (2, 0));
    }

    #[test]
    fn lines_of_older_files_lack_the_columns_that_came_later() {
        let columns = [("a", ColumnType::Integer), ("b", ColumnType::Text)];
        let mut table = table(Format::Separated { separator: ',' }, &columns);
        table.least = Some(1);
        let (found, tally) = rows(&table, b"a\n1\n2,x\n3,y,z\n", &["a", "b"]);
        assert_eq!(found, "1|\n2|x\n|");
        assert_eq!((tally.rows, tally.errors), (3, 1));
    }

    #[test]
    fn nothing_is_lost_of_what_is_no_text() {
        let table = table(Format::Raw, &[]);
        let mut text = vec![0, 0xff, b'\n'];
        text.extend(vec![b'x'; 1 << 20]);
        let raw = schema(&table).index_of("_raw").unwrap();
        let parsed = BlockRows::parse(&table, &text, &[raw], ORIGIN).unwrap();
        assert_eq!(parsed.tally.rows, 2);
        let column = parsed.batches[0].column(0);
        let column = column
            .as_any()
            .downcast_ref::<datafusion::arrow::array::StringViewArray>()
            .unwrap();
        assert_eq!(column.value(0), "\u{fffd}");
        assert_eq!(column.value(1).len(), 1 << 20);
    }
}
