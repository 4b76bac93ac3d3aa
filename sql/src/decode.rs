//! From the bytes of a block to columns of values.
//!
//! Which lines are broken does not depend on the columns that are wanted, so that columns of one block that were decoded
//! at different times fit together.

use std::{collections::BTreeMap, io::Read, sync::Arc};

use datafusion::arrow::array::ArrayRef;
use memchr::memchr;
use model::table::{ColumnType, ERROR, EVERYWHERE, Format, RAW, Table};

use crate::{
    Error,
    block::{Origin, begin_of_day},
    columns::{Builder, Padding},
    detect::seen,
    parse::{
        Parser, Value, access, beginning, parser,
        separated::Separated,
        text::{self, Text},
    },
    portions::portions,
    time::Clock,
};

/// The values of one column of a block, one for each line.
#[derive(Clone, Debug)]
pub(crate) struct Column {
    pub(crate) array: ArrayRef,
    /// Lines, from 0 and in order, of which the value is not of the type of the column.
    pub(crate) misfits: Arc<[u32]>,
}

/// What was read of a block.
#[derive(Debug)]
pub(crate) struct Decoded {
    /// How many lines there are.
    pub(crate) rows: u32,
    /// Those that are not of the format, from 0, in order.
    pub(crate) broken: Arc<[u32]>,
    /// The wanted columns, in the order in which they were wanted.
    pub(crate) columns: Vec<Column>,
    /// Lines of the block that begin no row, from 0, in order: headers, and all but the first line of a record. None in a block
    /// that begins a file.
    pub(crate) no_rows: Vec<u32>,
}

/// A line is rarely shorter; room for values is made by it.
const LINE_BYTES: u64 = 128;
/// Room is made for at most so many lines ahead.
const MOST_ROWS_AHEAD: usize = 1 << 17;

/// Most lines of a block: those of ordinary length would be many gigabytes, but a block of nothing but line feeds must not
/// take the memory of its node.
pub(crate) const MOST_ROWS: u32 = 1 << 26;

/// Reads the wanted columns, by their places in the schema of the table, out of a block, which is never in memory as a
/// whole; `bytes_expected` is about how many it has.
///
/// # Errors
/// [`Error::BadFormat`], [`Error::Read`], [`Error::TooManyLines`]; never for what the lines are.
pub(crate) fn decode(
    table: &Table,
    from: impl Read,
    wanted: &[usize],
    origin: Origin,
    bytes_expected: u64,
) -> Result<Decoded, Error> {
    let sink = Sink::new(table, wanted, bytes_expected, origin)?;
    Ok(fill(sink, from, origin, MOST_ROWS)?.finish(wanted))
}

/// Takes up all lines, at most about so many.
fn fill(mut sink: Sink<'_>, from: impl Read, origin: Origin, most_rows: u32) -> Result<Sink<'_>, Error> {
    let table = sink.table;
    let separated = match table.format {
        Format::Separated { separator } => {
            sink.head = Some(Head::of(table, origin.begins_file));
            Some(Separated::new(separator)?)
        }
        _ => None,
    };
    let text = Text::of(&table.format, begin_of_day(origin.now_us));
    portions(from, |portion, last| {
        let mut taken = portion.len();
        match (&table.format, separated, text) {
            (Format::Access, ..) => access::scan(portion, &mut sink),
            (_, Some(separated), _) => taken = records(separated, portion, last, &mut sink),
            (_, _, Some(text)) => {
                if !last {
                    taken = text.whole(portion);
                }
                text::scan(&portion[..taken], text, &mut sink);
            }
            _ => {
                let mut row = vec![None; table.columns.len()];
                for line in Split(portion) {
                    if !sink.directs(line) {
                        sink.line(line, &mut row);
                    }
                }
            }
        }
        if sink.rows as usize + sink.no_rows.len() > most_rows as usize {
            return Err(Error::TooManyLines { most: most_rows });
        }
        Ok(taken)
    })?;
    Ok(sink)
}

/// Takes up the records of separated values that are whole; how many bytes these were.
fn records(separated: Separated, text: &[u8], last: bool, sink: &mut Sink<'_>) -> usize {
    let mut row = vec![None; sink.table.columns.len()];
    let mut rest = text;
    while !rest.is_empty()
        && let Some(end) = separated.record(rest, last)
    {
        let record = without_return(&rest[..end.bytes]);
        if !sink.passes_over(record, end.lines) {
            sink.line(record, &mut row);
        }
        rest = rest.get(end.bytes + 1..).unwrap_or_default();
    }
    text.len() - rest.len()
}

/// The header of separated values, where it may stand anywhere: a shipped block has lines of several files, and so has a file
/// that others were joined to.
struct Head<'t> {
    table: &'t Table,
    /// Whether the next record that is not blank is the header of the file, whatever it is.
    begins: bool,
    /// Whether the last header named the columns in another order: values are found by their place.
    in_other_order: bool,
    /// With which bytes the name of a column begins.
    beginnings: [bool; 256],
    /// Whether it is noted which lines begin no row.
    notes: bool,
    /// How many lines were looked at.
    lines: u32,
    /// Which of them begin no row: those of headers, and all but the first of a record.
    no_rows: Vec<u32>,
}

impl<'t> Head<'t> {
    fn of(table: &'t Table, begins_file: bool) -> Self {
        let mut beginnings = [false; 256];
        let first = |column: &model::table::Column| column.name.bytes().next();
        for byte in table.columns.iter().filter_map(first) {
            beginnings[usize::from(byte)] = true;
        }
        Self {
            table,
            begins: begins_file,
            in_other_order: false,
            beginnings,
            // All lines of a file are its own.
            notes: !begins_file,
            lines: 0,
            no_rows: Vec::new(),
        }
    }

    /// Whether the next record, which takes so many lines, is a header.
    fn passes_over(&mut self, record: &[u8], lines: u32) -> bool {
        let is_first = self.begins && !record.is_empty();
        self.begins &= !is_first;
        let is_head = self.is(record) || is_first;
        if self.notes {
            let from = self.lines + u32::from(!is_head);
            self.lines = self.lines.saturating_add(lines);
            self.no_rows.extend(from..self.lines);
        }
        is_head
    }

    /// Whether a record names the columns; those of older files lack the last of them.
    #[inline]
    fn is(&mut self, record: &[u8]) -> bool {
        let (record, _) = beginning(record);
        let bare = record.strip_prefix(b"\"").unwrap_or(record).trim_ascii_start();
        let may = bare
            .first()
            .is_some_and(|&byte| self.beginnings[usize::from(byte)]);
        may && self.names_columns(record, bare)
    }

    fn names_columns(&mut self, record: &[u8], bare: &[u8]) -> bool {
        let columns = &self.table.columns;
        if !columns
            .iter()
            .any(|column| bare.starts_with(column.name.as_bytes()))
        {
            return false;
        }
        let named = seen(&self.table.format, &[record]).unwrap_or_default();
        let least = self.table.least.map_or(columns.len(), |least| least as usize);
        if !(least..=columns.len()).contains(&named.len()) {
            return false;
        }
        let is_same = named
            .iter()
            .zip(columns)
            .all(|(one, other)| one.name == other.name);
        let is_column = |name: &str| columns.iter().any(|column| column.name == name);
        let is_other = !is_same && named.len() > 1 && named.iter().all(|one| is_column(&one.name));
        if is_same || is_other {
            self.in_other_order = is_other;
        }
        is_same || is_other
    }
}

/// The lines of a text, without their ends.
struct Split<'a>(&'a [u8]);

impl<'a> Iterator for Split<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<&'a [u8]> {
        if self.0.is_empty() {
            return None;
        }
        let end = memchr(b'\n', self.0).unwrap_or(self.0.len());
        let line = &self.0[..end];
        self.0 = &self.0[(end + 1).min(self.0.len())..];
        Some(without_return(line))
    }
}

/// A line without the carriage return at its end.
pub(crate) fn without_return(line: &[u8]) -> &[u8] {
    line.strip_suffix(b"\r").unwrap_or(line)
}

/// Takes up lines, one after the other.
pub(crate) struct Sink<'t> {
    table: &'t Table,
    parser: Box<dyn Parser>,
    /// The table's own columns that are looked at, by place.
    pub(crate) own: Vec<Option<Builder>>,
    /// The lines themselves.
    pub(crate) raw: Option<Builder>,
    /// Why lines did not parse, by line, when that is asked for.
    problems: Option<BTreeMap<u32, String>>,
    rows: u32,
    broken: Vec<u32>,
    misfits: Vec<Vec<u32>>,
    head: Option<Head<'t>>,
    /// Lines that begin no row, where there is no header.
    no_rows: Vec<u32>,
}

impl<'t> Sink<'t> {
    fn new(table: &'t Table, wanted: &[usize], bytes: u64, origin: Origin) -> Result<Self, Error> {
        let own = table.columns.len();
        let wants = |name: &str| {
            let place = EVERYWHERE.iter().position(|(known, _)| *known == name);
            place.is_some_and(|place| wanted.contains(&(own + place)))
        };
        let now_us = begin_of_day(origin.now_us);
        let clock = match table.format {
            Format::Syslog | Format::Known { yearless: true, .. } => Clock::either(now_us),
            Format::Text { yearless: true, .. } => Clock::new(Some(now_us)),
            _ => Clock::new(None),
        };
        // Whether a line parses shows only when all its values are looked at.
        let typed = |kind| wants(ERROR) && kind != ColumnType::Text;
        let looked_at: Vec<bool> = (0..)
            .zip(&table.columns)
            .map(|(place, column)| wanted.contains(&place) || typed(column.kind))
            .collect();
        let rows = usize::try_from(bytes / LINE_BYTES)
            .unwrap_or_default()
            .min(MOST_ROWS_AHEAD);
        let builders = table.columns.iter().zip(&looked_at).map(|(column, &looked_at)| {
            looked_at.then(|| Builder::new(column.kind, clock.clone(), padding(&table.format, column), rows))
        });
        Ok(Self {
            table,
            parser: parser(table, &looked_at)?,
            own: builders.collect(),
            raw: wants(RAW).then(|| Builder::text_of(rows)),
            problems: wants(ERROR).then(BTreeMap::new),
            rows: 0,
            broken: Vec::new(),
            misfits: vec![Vec::new(); own],
            head: None,
            no_rows: Vec::new(),
        })
    }

    /// Whether the next record is a header and no row.
    fn passes_over(&mut self, record: &[u8], lines: u32) -> bool {
        self.head
            .as_mut()
            .is_some_and(|head| head.passes_over(record, lines))
    }

    /// Whether the next line is no row but tells how those below it are read.
    fn directs(&mut self, line: &[u8]) -> bool {
        let directs = self.parser.passes_over(line);
        if directs {
            self.no_rows.push(self.next_line());
        }
        directs
    }

    /// The number of the next line, where each begins a row or is noted not to.
    fn next_line(&self) -> u32 {
        let before = u32::try_from(self.no_rows.len()).unwrap_or(u32::MAX);
        self.rows.saturating_add(before)
    }

    /// Whether a column of the table is looked at.
    pub(crate) fn looks_at(&self, place: usize) -> bool {
        self.own[place].is_some()
    }

    /// Takes up a line by the parser of the format; `row` is used again for each line, and has a place for each column.
    pub(crate) fn line<'a>(&mut self, line: &'a [u8], row: &mut [Value<'a>]) {
        row.fill(None);
        let (line, nuls) = beginning(line);
        if let Err(problem) = self.parsed(line, nuls, row) {
            // What was read before the parser gave up is no more certain than what was not.
            row.fill(None);
            self.broken.push(self.rows);
            if let Some(problems) = &mut self.problems {
                problems.insert(self.rows, problem);
            }
        }
        for (place, value) in row.iter().enumerate() {
            match value {
                Some(value) => self.value(place, value),
                None => {
                    if let Some(builder) = &mut self.own[place] {
                        builder.null();
                    }
                }
            }
        }
        self.end_of_line(line);
    }

    fn parsed<'a>(&mut self, line: &'a [u8], nuls: usize, row: &mut [Value<'a>]) -> Result<(), String> {
        if self.head.as_ref().is_some_and(|head| head.in_other_order) && !line.is_empty() {
            return Err("the header before it names the columns in another order: files with that header belong into a \
                        dataset of their own"
                .into());
        }
        // A blank line is a row of which nothing is known.
        if !line.is_empty() {
            self.parser.parse(line, row)?;
        }
        match nuls {
            0 => Ok(()),
            _ => Err(nuls_before(nuls)),
        }
    }

    /// Takes up the value of a column of the line that is being read.
    #[inline]
    pub(crate) fn value(&mut self, place: usize, value: &[u8]) {
        if let Some(builder) = &mut self.own[place]
            && !builder.value(value)
        {
            self.misfit(place, value);
        }
    }

    /// Notes that the value of a column is not of its type.
    #[cold]
    pub(crate) fn misfit(&mut self, place: usize, value: &[u8]) {
        self.misfits[place].push(self.rows);
        if let Some(problems) = &mut self.problems {
            let column = &self.table.columns[place];
            problems.entry(self.rows).or_insert_with(|| misfit(column, value));
        }
    }

    /// Notes that there are so many NUL bytes before a line.
    #[cold]
    pub(crate) fn nuls_before(&mut self, nuls: usize) {
        self.broken.push(self.rows);
        if let Some(problems) = &mut self.problems {
            problems.insert(self.rows, nuls_before(nuls));
        }
    }

    /// The line that was read is complete.
    #[inline]
    pub(crate) fn end_of_line(&mut self, line: &[u8]) {
        if let Some(raw) = &mut self.raw {
            raw.value(line);
        }
        self.rows += 1;
    }

    /// A line belongs to the record that is being read.
    #[inline]
    pub(crate) fn continuation(&mut self) {
        self.no_rows.push(self.next_line().saturating_add(1));
    }

    fn finish(mut self, wanted: &[usize]) -> Decoded {
        let (own, none): (usize, Arc<[u32]>) = (self.own.len(), Arc::default());
        let columns = wanted.iter().map(|&place| {
            let (builder, misfits) = match place.checked_sub(own) {
                None => (
                    self.own[place].take(),
                    std::mem::take(&mut self.misfits[place]).into(),
                ),
                Some(place) if EVERYWHERE[place].0 == RAW => (self.raw.take(), none.clone()),
                Some(_) => (Some(self.errors()), self.problem_lines()),
            };
            let builder = builder.unwrap_or_else(|| Builder::text_of(0));
            Column {
                array: builder.finish(),
                misfits,
            }
        });
        Decoded {
            columns: columns.collect(),
            rows: self.rows,
            broken: self.broken.into(),
            no_rows: self.head.map_or(self.no_rows, |head| head.no_rows),
        }
    }

    /// The lines of which it is told why they did not parse.
    fn problem_lines(&self) -> Arc<[u32]> {
        self.problems.iter().flat_map(BTreeMap::keys).copied().collect()
    }

    fn errors(&self) -> Builder {
        let mut builder = Builder::text_of(self.rows as usize);
        let none = BTreeMap::new();
        let mut problems = self.problems.as_ref().unwrap_or(&none).iter().peekable();
        for line in 0..self.rows {
            match problems.next_if(|(known, _)| **known == line) {
                Some((_, problem)) => builder.text(problem),
                None => builder.null(),
            }
        }
        builder
    }
}

/// What types the format itself gives may be written in any way.
fn padding(format: &Format, column: &model::table::Column) -> Padding {
    let is_typed = match format {
        Format::Regex { pattern } => pattern.contains(&format!("<{}__{}>", column.name, column.kind.name())),
        format => format.is_fixed(),
    };
    if is_typed {
        Padding::Allowed
    } else {
        Padding::Refused
    }
}

fn nuls_before(nuls: usize) -> String {
    match nuls {
        1 => "there is a NUL byte before it".into(),
        _ => format!("there are {nuls} NUL bytes before it, as a crash leaves them"),
    }
}

/// Why a value is not of the type of its column.
pub(crate) fn misfit(column: &model::table::Column, value: &[u8]) -> String {
    let kind = match column.kind {
        ColumnType::Text => "text",
        ColumnType::Integer => "a plain integer of 64 bits",
        ColumnType::Float => "a number that a float keeps",
        ColumnType::Boolean => "true or false",
        ColumnType::Timestamp => "a time",
    };
    format!(
        "{}: {:?} is not {kind}",
        column.name,
        String::from_utf8_lossy(value)
    )
}

#[cfg(test)]
mod tests {
    use rand::{RngExt, SeedableRng, rngs::StdRng};

    use super::*;
    use crate::parse::fixed_columns;

    #[test]
    fn lines_without_end_are_refused() {
        let table = Table {
            format: Format::Raw,
            columns: Vec::new(),
            least: None,
        };
        let origin = Origin {
            block: 0,
            begins_file: false,
            now_us: 0,
        };
        let within = |most| {
            let sink = Sink::new(&table, &[], 0, origin).unwrap();
            fill(sink, &b"\n\n\n"[..], origin, most).map(|sink| sink.rows)
        };
        assert_eq!(within(3).unwrap(), 3);
        assert!(within(2).unwrap_err().to_string().contains("more than 2 lines"));
    }

    const LINES: [&str; 6] = [
        "1.2.3.4 - - [10/Oct/2000:13:55:36 -0700] \"GET /index.html HTTP/1.0\" 200 2326\n",
        "::1 - al ice [10/Oct/2000:13:55:37 -0700] \"POST /some/longer/path?x=1 HTTP/1.1\" 404 - \"-\" \"curl/8\" 0.25\r\n",
        "host.example - - [11/Oct/2000:00:00:01 +0000] \"GET /a \\\"b\\\" HTTP/1.0\" 500 12 \"http://ex\u{e4}mple.org/\" \"a \\\\\"\n",
        "1.2.3.4 - - [10/Oct/2000:13:55:36 -0700] \"-\" 408 - \"-\" \"-\"\n",
        "10.1.2.3 - - [17/May/2015:10:05:03 +0000] \"GET /p HTTP/1.1\" 200 9 \"https://a.example/b\" \"Mozilla/5.0 (X11)\" 1.5\n",
        "\n",
    ];

    /// Lines as they are, and with bytes taken away, doubled or replaced by such as matter.
    fn garbled(random: &mut StdRng) -> Vec<u8> {
        let mut text = Vec::new();
        for _ in 0..random.random_range(1..12) {
            let mut line = LINES[random.random_range(0..LINES.len())].as_bytes().to_vec();
            for _ in 0..random.random_range(0..3) {
                let at = random.random_range(0..line.len());
                match random.random_range(0..3) {
                    0 => drop(line.remove(at)),
                    1 => line.insert(at, line[at]),
                    _ => line[at] = b"\"\\[] \n-x\xff0.:"[random.random_range(0..12)],
                }
                if line.is_empty() {
                    break;
                }
            }
            text.extend(line);
        }
        text
    }

    #[test]
    fn the_fast_way_through_access_logs_gives_what_the_slow_one_does() {
        let columns = fixed_columns(&Format::Access).unwrap();
        let table = Table {
            format: Format::Access,
            columns,
            least: None,
        };
        let origin = Origin {
            block: 0,
            begins_file: false,
            now_us: 0,
        };
        let all: Vec<usize> = (0..table.columns.len() + EVERYWHERE.len()).collect();
        let mut random = StdRng::seed_from_u64(7);
        for round in 0..3000 {
            let text = garbled(&mut random);
            let wanted: Vec<usize> = match round % 3 {
                0 => all
                    .iter()
                    .copied()
                    .filter(|&place| place != 13 && place != 14)
                    .collect(),
                1 => vec![7],
                _ => (0..12).collect(),
            };
            let sink = || Sink::new(&table, &wanted, text.len() as u64, origin).unwrap();
            let (mut fast, mut slow) = (sink(), sink());
            access::scan(&text, &mut fast);
            let mut row = vec![None; table.columns.len()];
            Split(&text).for_each(|line| slow.line(line, &mut row));
            let (fast, slow) = (fast.finish(&wanted), slow.finish(&wanted));
            let shown = String::from_utf8_lossy(&text);
            assert_eq!((fast.rows, &fast.broken), (slow.rows, &slow.broken), "{shown}");
            for ((place, fast), slow) in wanted.iter().zip(&fast.columns).zip(&slow.columns) {
                assert_eq!(
                    fast.array.as_ref(),
                    slow.array.as_ref(),
                    "column {place} of {shown}"
                );
                assert_eq!(fast.misfits, slow.misfits, "column {place} of {shown}");
            }
        }
    }
}
