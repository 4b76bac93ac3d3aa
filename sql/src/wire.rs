//! Partial and final results as they travel.
//!
//! What the lower halves gave for one block is a row of frames: a number (32 bits, little-endian), a length in bytes (64
//! bits) and so many bytes. The frame [`TALLY`] is first and holds what was counted, as JSON; each other one holds what the
//! lower half with its number gave, as an Arrow IPC stream. For a block of which nothing can be read the frame [`LEFT_OUT`]
//! names it, as JSON. The answer is one stream, with what was counted and left out in the metadata of its schema.

use std::{collections::HashMap, fmt::Display, io::Read, sync::Arc};

use datafusion::arrow::{
    array::{ArrayRef, AsArray, RecordBatch, RecordBatchOptions},
    datatypes::{DataType, Schema, SchemaRef},
    ipc::{reader::StreamReader, writer::StreamWriter},
};
use serde::{Deserialize, Serialize};

use crate::{Error, LeftOut};

/// What was counted on the way.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tally {
    /// Lines that were read.
    pub rows: u64,
    /// Those among them that did not parse.
    pub errors: u64,
}

const ROWS: &str = "sawmill.rows";
const ERRORS: &str = "sawmill.errors";
const NOT_READ: &str = "sawmill.left_out";

impl Tally {
    /// Adds another count to this one.
    pub fn add(&mut self, other: Self) {
        self.rows += other.rows;
        self.errors += other.errors;
    }

    fn of(schema: &Schema) -> Self {
        let number = |key: &str| {
            let text = schema.metadata().get(key);
            text.and_then(|text| text.parse().ok()).unwrap_or_default()
        };
        Self {
            rows: number(ROWS),
            errors: number(ERRORS),
        }
    }
}

/// What was counted of one partial result.
///
/// # Errors
/// [`Error::BadPartial`].
pub fn tally(bytes: &[u8]) -> Result<Tally, Error> {
    match split(bytes)? {
        Some(frame) if frame.number == TALLY => read_tally(frame.content),
        _ => Err(bad(&"it does not begin with what was counted")),
    }
}

fn read_tally(content: &[u8]) -> Result<Tally, Error> {
    serde_json::from_slice(content).map_err(|error| bad(&error))
}

struct Frame<'b> {
    number: u32,
    content: &'b [u8],
    behind: &'b [u8],
}

/// The first frame; none at the end.
fn split(bytes: &[u8]) -> Result<Option<Frame<'_>>, Error> {
    if bytes.is_empty() {
        return Ok(None);
    }
    let cut_off = || bad(&"it ends in the middle of a frame");
    let (number, rest) = bytes.split_first_chunk().ok_or_else(cut_off)?;
    let (length, rest) = rest.split_first_chunk().ok_or_else(cut_off)?;
    let length = usize::try_from(u64::from_le_bytes(*length)).map_err(|error| bad(&error))?;
    let (content, behind) = rest.split_at_checked(length).ok_or_else(cut_off)?;
    Ok(Some(Frame {
        number: u32::from_le_bytes(*number),
        content,
        behind,
    }))
}

/// Views point into whole blocks, which must not travel with them.
fn compact(batch: &RecordBatch) -> Result<RecordBatch, Error> {
    let columns = batch.columns().iter().map(|column| match column.data_type() {
        DataType::Utf8View => Arc::new(column.as_string_view().gc()) as ArrayRef,
        _ => column.clone(),
    });
    let options = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
    Ok(RecordBatch::try_new_with_options(
        batch.schema(),
        columns.collect(),
        &options,
    )?)
}

/// The same columns under a schema that differs in its metadata.
fn under(schema: &SchemaRef, batch: &RecordBatch) -> Result<RecordBatch, Error> {
    let options = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
    let columns = batch.columns().to_vec();
    Ok(RecordBatch::try_new_with_options(
        schema.clone(),
        columns,
        &options,
    )?)
}

/// Writes one stream.
pub(crate) fn write(
    schema: &Schema,
    batches: &[RecordBatch],
    tally: Tally,
    left_out: &[LeftOut],
) -> Result<Vec<u8>, Error> {
    let metadata = [(ROWS, tally.rows), (ERRORS, tally.errors)];
    let metadata = metadata.map(|(key, number)| (key.to_string(), number.to_string()));
    let mut metadata = HashMap::from(metadata);
    if !left_out.is_empty() {
        let named = serde_json::to_string(left_out).map_err(|error| bad(&error))?;
        metadata.insert(NOT_READ.to_string(), named);
    }
    let schema: SchemaRef = Schema::new_with_metadata(schema.fields().clone(), metadata).into();
    let mut writer = StreamWriter::try_new(Vec::new(), &schema)?;
    for batch in batches.iter().filter(|batch| batch.num_rows() > 0) {
        writer.write(&under(&schema, &compact(batch)?)?)?;
    }
    Ok(writer.into_inner()?)
}

/// Number of the frame with what was counted.
const TALLY: u32 = u32::MAX;
/// Number of the frame with the blocks of which nothing was read.
const LEFT_OUT: u32 = u32::MAX - 1;
/// Bytes of the number and the length of a frame.
const HEAD_BYTES: usize = 12;

/// What the lower halves gave for one block.
pub(crate) struct Frames {
    tally: Tally,
    bytes: Vec<u8>,
}

impl Frames {
    pub(crate) fn new(tally: Tally) -> Self {
        Self {
            tally,
            bytes: Vec::new(),
        }
    }

    /// Adds what one of them gave.
    pub(crate) fn push(
        &mut self,
        number: usize,
        schema: &Schema,
        batches: &[RecordBatch],
    ) -> Result<(), Error> {
        let number = u32::try_from(number).map_err(|_| bad(&"there are too many lower halves"))?;
        let stream = write(schema, batches, Tally::default(), &[])?;
        frame(&mut self.bytes, number, &stream);
        Ok(())
    }

    /// Adds what could not be read.
    pub(crate) fn push_left_out(&mut self, left_out: &[LeftOut]) {
        // Names and numbers can be written.
        let named = serde_json::to_vec(left_out).unwrap_or_default();
        frame(&mut self.bytes, LEFT_OUT, &named);
    }

    pub(crate) fn finish(self) -> Vec<u8> {
        // A struct of numbers can be written.
        let tally = serde_json::to_vec(&self.tally).unwrap_or_default();
        let mut bytes = Vec::with_capacity(HEAD_BYTES + tally.len() + self.bytes.len());
        frame(&mut bytes, TALLY, &tally);
        bytes.extend(self.bytes);
        bytes
    }
}

fn frame(bytes: &mut Vec<u8>, number: u32, content: &[u8]) {
    bytes.extend(number.to_le_bytes());
    bytes.extend((content.len() as u64).to_le_bytes());
    bytes.extend(content);
}

fn bad(why: &dyn Display) -> Error {
    Error::BadPartial(why.to_string())
}

/// What all frames hold.
pub(crate) struct Gathered {
    /// What each of the lower halves gave.
    pub(crate) partials: Vec<Vec<RecordBatch>>,
    pub(crate) tally: Tally,
    pub(crate) left_out: Vec<LeftOut>,
}

/// Reads the frames of all blocks, one block after another, of so many lower halves.
pub(crate) fn read_frames(bytes: &[u8], halves: usize) -> Result<Gathered, Error> {
    let mut partials = vec![Vec::new(); halves];
    let (mut rest, mut tally, mut left_out) = (bytes, Tally::default(), Vec::new());
    while let Some(Frame {
        number,
        content,
        behind,
    }) = split(rest)?
    {
        rest = behind;
        if number == TALLY {
            tally.add(read_tally(content)?);
            continue;
        }
        if number == LEFT_OUT {
            let named: Vec<LeftOut> = serde_json::from_slice(content).map_err(|error| bad(&error))?;
            left_out.extend(named);
            continue;
        }
        let partials = partials
            .get_mut(number as usize)
            .ok_or_else(|| bad(&format!("there is no lower half {number}")))?;
        partials.extend(read_all(content)?.1);
    }
    Ok(Gathered {
        partials,
        tally,
        left_out,
    })
}

/// The blocks that are not in an answer.
pub(crate) fn read_left_out(answer: &[u8]) -> Result<Vec<LeftOut>, Error> {
    if answer.is_empty() {
        return Ok(Vec::new());
    }
    let reader = StreamReader::try_new(answer, None).map_err(|error| bad(&error))?;
    let schema = reader.schema();
    let named = schema.metadata().get(NOT_READ);
    let named = named.map(|named| serde_json::from_str(named).map_err(|error| bad(&error)));
    Ok(named.transpose()?.unwrap_or_default())
}

/// What was counted on the way to an answer that [`crate::upper`] gave.
///
/// # Errors
/// [`Error::BadPartial`].
pub fn counted(answer: &[u8]) -> Result<Tally, Error> {
    let reader = StreamReader::try_new(answer, None).map_err(|error| bad(&error))?;
    Ok(Tally::of(&reader.schema()))
}

/// How many rows there are.
pub(crate) fn count(batches: &[RecordBatch]) -> usize {
    batches.iter().map(RecordBatch::num_rows).sum()
}

/// Reads all streams that stand one after another, with what they counted together.
pub(crate) fn read_all(mut bytes: impl Read) -> Result<(Option<SchemaRef>, Vec<RecordBatch>, Tally), Error> {
    let mut whole = Vec::new();
    bytes.read_to_end(&mut whole).map_err(|error| bad(&error))?;
    let (mut rest, mut schema, mut batches, mut tally) = (&whole[..], None, Vec::new(), Tally::default());
    while !rest.is_empty() {
        let mut reader = StreamReader::try_new(&mut rest, None).map_err(|error| bad(&error))?;
        tally.add(Tally::of(&reader.schema()));
        let bare: SchemaRef = Schema::new(reader.schema().fields().clone()).into();
        for batch in reader.by_ref() {
            let batch = batch.map_err(|error| bad(&error))?;
            batches.push(under(&bare, &batch).map_err(|error| bad(&error))?);
        }
        schema = Some(bare);
    }
    Ok((schema, batches, tally))
}
