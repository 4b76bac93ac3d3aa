//! Files of Parquet as datasets: the same answers as from lines, whatever the types, and no crash whatever the bytes.
#![allow(clippy::unwrap_used)]

use std::{fmt::Write as _, ops::Range, sync::Arc};

use bytes::Bytes;
use datafusion::arrow::{
    array::{
        ArrayRef, BinaryArray, BooleanArray, Date32Array, Decimal128Array, Int32Array, ListArray,
        RecordBatch, StringArray, StructArray, TimestampNanosecondArray, UInt64Array,
    },
    datatypes::{DataType, Field, Int32Type},
    ipc::reader::StreamReader,
};
use model::{
    processor::{Query, QueryTable},
    table::{Column, ColumnType, Table},
};
use parquet::{
    arrow::ArrowWriter,
    basic::Compression,
    file::properties::{EnabledStatistics, WriterProperties},
};
use rand::{RngExt, SeedableRng, rngs::StdRng};
use sql::{BlockAt, ColumnCache, Error, Footer, LowerHalf, Rendering, Runtime};

fn query(sql: &str, table: &Table) -> Query {
    Query {
        sql: sql.into(),
        tables: vec![QueryTable {
            name: "t".into(),
            table: table.clone(),
            lower_half: None,
        }],
        time_zone: "UTC".into(),
        version: sql::VERSION.into(),
        ..Query::default()
    }
}

/// A file with row groups of so many rows.
fn file(batches: &[RecordBatch], rows: usize, compression: Compression) -> Vec<u8> {
    let properties = WriterProperties::builder()
        .set_max_row_group_row_count(Some(rows))
        .set_compression(compression)
        .set_dictionary_enabled(compression != Compression::UNCOMPRESSED)
        .set_statistics_enabled(EnabledStatistics::Chunk)
        .build();
    let mut bytes = Vec::new();
    let mut writer = ArrowWriter::try_new(&mut bytes, batches[0].schema(), Some(properties)).unwrap();
    for batch in batches {
        writer.write(batch).unwrap();
    }
    writer.close().unwrap();
    bytes
}

fn footer(file: &[u8]) -> Result<Footer, Error> {
    let length = usize::try_from(sql::footer_bytes(file)?).unwrap();
    Footer::read(&file[file.len().saturating_sub(length)..], file.len() as u64)
}

/// What the lower halves give over one block of a file.
async fn lower(
    runtime: &Runtime,
    query: &Arc<Query>,
    file: &[u8],
    number: u32,
    block: &Range<u64>,
) -> Result<Vec<u8>, Error> {
    let at = BlockAt {
        number,
        begins_file: false,
        contents: None,
    };
    let mut half = LowerHalf::new(runtime, query.clone(), 0, at, ColumnCache::new(0)).await?;
    assert!(half.needs_bytes() && half.is_of_row_groups());
    let groups = footer(file)?.row_groups(block)?;
    let ranges = half.pieces(&groups)?;
    let pieces = ranges.into_iter().map(|range| {
        let at = |place: u64| usize::try_from(place).unwrap().min(file.len());
        (
            range.start,
            Bytes::copy_from_slice(&file[at(range.start)..at(range.end)]),
        )
    });
    half.read_pieces(&groups, pieces.collect())?;
    half.run().await
}

/// The answer over a file, block by block, and how many blocks these were.
async fn ask(sql: &str, table: &Table, file: &[u8], block_bytes: u64) -> Result<(String, usize), Error> {
    let (runtime, query) = (Runtime::for_planning(), Arc::new(query(sql, table)));
    let blocks = footer(file)?.blocks(block_bytes)?;
    let mut partials = Vec::new();
    for (number, block) in (0..).zip(&blocks) {
        partials.extend(lower(&runtime, &query, file, number, block).await?);
    }
    let answer = sql::upper(&runtime, &query, &partials[..]).await?;
    Ok((shown(&answer), blocks.len()))
}

fn shown(answer: &[u8]) -> String {
    let mut shown = Vec::new();
    sql::render(answer, Rendering::Json, &mut shown).unwrap();
    String::from_utf8(shown).unwrap()
}

fn csv() -> String {
    let mut text = "n,f,ok,at,path\n".to_string();
    for n in 0..1000 {
        let (f, ok) = (f64::from(n) / 8.0, n % 3 == 0);
        let at = format!("2024-01-{:02}T00:{:02}:00Z", n / 60 + 1, n % 60);
        match n % 10 {
            0 => writeln!(text, "{n},,{ok},{at},").unwrap(),
            _ => writeln!(text, "{n},{f},{ok},{at},/some/longer/path/{}", n % 7).unwrap(),
        }
    }
    text
}

#[tokio::test]
async fn the_same_rows_give_the_same_answers_as_lines_and_as_parquet() {
    let text = csv();
    let lines = sql::detect(text.as_bytes()).table;
    let runtime = Runtime::for_planning();
    let of_lines = async |sql: &str| {
        let query = query(sql, &lines);
        let partial = sql::lower(&runtime, &query, 0, text.as_bytes(), 0, true)
            .await
            .unwrap();
        sql::upper(&runtime, &query, &partial[..]).await.unwrap()
    };
    let rows = of_lines("SELECT n, f, ok, at, path FROM t ORDER BY n").await;
    let batches: Vec<_> = StreamReader::try_new(&rows[..], None)
        .unwrap()
        .map(Result::unwrap)
        .collect();
    for compression in [
        Compression::UNCOMPRESSED,
        Compression::SNAPPY,
        Compression::LZ4_RAW,
    ] {
        let file = file(&batches, 100, compression);
        let table = footer(&file).unwrap().table();
        assert_eq!(table.columns, lines.columns);
        for sql in [
            "SELECT count(*) FROM t",
            "SELECT ok, count(*) AS n, sum(n) AS s, avg(f) AS f FROM t GROUP BY ok ORDER BY ok",
            "SELECT path, max(at) AS at, count(DISTINCT n) AS n FROM t GROUP BY path ORDER BY path",
            "SELECT * EXCEPT (_raw, _line, _block) FROM t ORDER BY n DESC LIMIT 20",
            "SELECT n, _error FROM t WHERE path LIKE '%/3' AND at >= '2024-01-05' ORDER BY n",
            "SELECT date_bin(INTERVAL '1 day', at) AS day, count(f) AS n FROM t GROUP BY 1 ORDER BY 1",
        ] {
            let expected = shown(&of_lines(sql).await);
            assert!(!expected.is_empty());
            for (block_bytes, blocks) in [(1, 10), (u64::MAX, 1)] {
                let found = ask(sql, &table, &file, block_bytes).await.unwrap();
                assert_eq!(found, (expected.clone(), blocks), "{sql}");
            }
        }
    }
}

/// Of all kinds of types, in row groups of 10 of 30 rows.
fn mixed() -> Vec<u8> {
    let numbers = || (0..30).map(|n| (n % 7 != 0).then_some(n));
    let name = numbers()
        .map(|n| n.map(|n| format!("u{n}")))
        .collect::<StringArray>();
    let user = StructArray::from(vec![(
        Arc::new(Field::new("name", DataType::Utf8, true)),
        Arc::new(name) as ArrayRef,
    )]);
    let price = Decimal128Array::from_iter_values((0..30).map(|n| n * 50));
    let big = (0..30).map(|n| if n == 5 { u64::MAX } else { n });
    let bytes = (0..30).map(|n| {
        Some(if n == 1 {
            b"\xff\0".to_vec()
        } else {
            b"text".to_vec()
        })
    });
    let columns: Vec<(&str, ArrayRef)> = vec![
        ("n", Arc::new(numbers().collect::<Int32Array>())),
        ("big", Arc::new(UInt64Array::from_iter_values(big))),
        (
            "even",
            Arc::new((0..30).map(|n| Some(n % 2 == 0)).collect::<BooleanArray>()),
        ),
        (
            "at",
            Arc::new(TimestampNanosecondArray::from_iter_values(
                (0..30).map(|n| n * 1_000_000_000),
            )),
        ),
        ("day", Arc::new(Date32Array::from_iter_values(0..30))),
        ("price", Arc::new(price.with_precision_and_scale(10, 2).unwrap())),
        ("user", Arc::new(user)),
        ("_line", Arc::new(numbers().collect::<Int32Array>())),
        (
            "list",
            Arc::new(ListArray::from_iter_primitive::<Int32Type, _, _>(
                (0..30).map(|n| Some(vec![Some(n)])),
            )),
        ),
        ("bytes", Arc::new(bytes.collect::<BinaryArray>())),
    ];
    file(
        &[RecordBatch::try_from_iter(columns).unwrap()],
        10,
        Compression::SNAPPY,
    )
}

#[tokio::test]
async fn types_become_those_of_tables() {
    let file = mixed();
    let mut table = footer(&file).unwrap().table();
    let columns: Vec<_> = table
        .columns
        .iter()
        .map(|column| (column.name.as_str(), column.kind))
        .collect();
    let expected = [
        ("n", ColumnType::Integer),
        ("big", ColumnType::Integer),
        ("even", ColumnType::Boolean),
        ("at", ColumnType::Timestamp),
        ("day", ColumnType::Timestamp),
        ("price", ColumnType::Float),
        ("user.name", ColumnType::Text),
        ("_line_2", ColumnType::Integer),
        ("list", ColumnType::Text),
        ("bytes", ColumnType::Text),
    ];
    assert_eq!(columns, expected);
    let told = async |sql: &str, table: &Table| ask(sql, table, &file, 1).await.unwrap().0;
    let row = told("SELECT * FROM t WHERE n = 11", &table).await;
    assert_eq!(
        row,
        "{\"n\":11,\"big\":11,\"even\":false,\"at\":\"1970-01-01T00:00:11Z\",\"day\":\"1970-01-12T00:00:00Z\",\
         \"price\":5.5,\"user.name\":\"u11\",\"_line_2\":11,\"list\":\"[11]\",\"bytes\":\"text\",\"_raw\":null,\
         \"_line\":2,\"_block\":1,\"_error\":null,\"_file\":null,\"_host\":null}\n"
    );
    let nulls = "SELECT count(*) AS n FROM t WHERE \"user.name\" IS NULL AND n IS NULL";
    assert_eq!(told(nulls, &table).await, "{\"n\":5}\n");
    assert_eq!(
        told("SELECT bytes FROM t WHERE n = 1", &table).await,
        "{\"bytes\":\"ff00\"}\n"
    );
    // What is too large is told, and there as text.
    let error = "SELECT big, _error FROM t WHERE _error IS NOT NULL";
    assert_eq!(
        told(error, &table).await,
        "{\"big\":null,\"_error\":\"big: \\\"18446744073709551615\\\" is not a plain integer of 64 bits\"}\n"
    );
    let retype = [("big", ColumnType::Text), ("price", ColumnType::Integer)];
    sql::retype(&mut table, &retype.map(|(name, kind)| (name.to_string(), kind))).unwrap();
    let told = told("SELECT big, price FROM t WHERE n = 5 OR n = 2", &table).await;
    assert_eq!(
        told,
        "{\"big\":\"2\",\"price\":null}\n{\"big\":\"18446744073709551615\",\"price\":null}\n"
    );
}

#[tokio::test]
async fn columns_that_other_files_have_are_null() {
    let file = mixed();
    let found = footer(&file).unwrap().table();
    let mut table = found.clone();
    let later = Column {
        name: "later".into(),
        kind: ColumnType::Float,
    };
    table.columns.insert(0, later.clone());
    let told = ask("SELECT count(*) AS n, count(later) AS l FROM t", &table, &file, 1)
        .await
        .unwrap();
    assert_eq!(told.0, "{\"n\":30,\"l\":0}\n");
    let growth = sql::grow_by(&found, &table);
    assert_eq!(
        (growth.added, growth.changed, growth.unfit),
        (vec![later], vec![], None)
    );
}

#[test]
fn what_is_no_parquet_is_refused() {
    let file = mixed();
    let told = |bytes: &[u8]| footer(bytes).unwrap_err().to_string();
    assert!(told(&file[..file.len() - 1]).contains("cut off"));
    assert!(told(b"PAR1").contains("too short"));
    assert!(told(b"PAR1....\0\0\0\0PARE").contains("encrypted"));
    assert!(told(b"12345678\xff\xff\xff\x7fPAR1").contains("footer"));
    assert!(told(&file[file.len() - 100..]).contains("footer is cut off"));
    let columns: Vec<(&str, ArrayRef)> = vec![("n", Arc::new(Int32Array::from(Vec::<i32>::new())))];
    let empty = self::file(
        &[RecordBatch::try_from_iter(columns).unwrap()],
        10,
        Compression::UNCOMPRESSED,
    );
    let empty = footer(&empty).unwrap();
    assert_eq!(
        (empty.blocks(1).unwrap().len(), empty.table().columns.len()),
        (0, 1)
    );
    assert!(empty.row_groups(&(0..1000)).is_err());
}

/// Whoever walked down such a schema would leave the stack.
#[test]
fn a_schema_without_bottom_is_refused() {
    const DEPTH: u32 = 1 << 16;
    // An optional structure named `a` that has one child, in Thrift's compact protocol.
    let structure = [0x35, 2, 0x18, 1, b'a', 0x15, 2, 0];
    let mut description = vec![0x15, 2, 0x19, 0xfc, 0x80, 0x80, 0x04];
    description.extend(structure.repeat(DEPTH as usize));
    description.extend([0x16, 0, 0x19, 0x0c, 0]);
    let length = u32::try_from(description.len()).unwrap().to_le_bytes();
    let file = [&b"PAR1"[..], &description, &length, b"PAR1"].concat();
    let told = footer(&file).unwrap_err().to_string();
    assert!(told.contains("nested too deeply"), "{told}");
}

/// Wrong bytes give an error or other values, and nothing worse.
#[tokio::test]
async fn damaged_files_are_errors() {
    // What a reader panics over is caught, and need not be shown.
    std::panic::set_hook(Box::new(|_| {}));
    let whole = mixed();
    let table = footer(&whole).unwrap().table();
    let block = footer(&whole).unwrap().blocks(u64::MAX).unwrap().remove(0);
    let runtime = Runtime::for_planning();
    let every = Arc::new(query("SELECT * FROM t", &table));
    let mut dice = StdRng::seed_from_u64(3);
    let (mut errors, rounds) = (0, 1000);
    for round in 0..rounds {
        let mut file = whole.clone();
        for _ in 0..dice.random_range(1..4u32) {
            let at = if round % 2 == 0 {
                dice.random_range(0..file.len())
            } else {
                // The footer says more.
                dice.random_range(usize::try_from(block.end).unwrap()..file.len())
            };
            file[at] = match dice.random_range(0..3u32) {
                0 => file[at] ^ (1 << dice.random_range(0..8u32)),
                1 => 0xff,
                _ => dice.random(),
            };
        }
        if round % 16 == 0 {
            file.truncate(dice.random_range(0..file.len()));
        }
        let blocks = footer(&file).and_then(|footer| footer.blocks(1));
        let given = lower(&runtime, &every, &file, 0, &block).await;
        errors += u32::from(blocks.is_err() || given.is_err());
    }
    drop(std::panic::take_hook());
    assert!(errors > rounds / 4 && errors < rounds, "{errors}");
}
