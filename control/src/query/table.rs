//! What the lines of a dataset are: detected once, then kept with the dataset, and extended by what later files have.

use std::{borrow::Cow, io::Read as _};

use model::{
    Block, Name,
    compaction::TARGET_BYTES,
    table::{Column, ColumnType, Format, Table},
};
use storage::Dataset;

use super::wrong;
use crate::{
    Control, Error,
    adding::File,
    lesson::{KeptAsText, Lesson, Misfit, NewColumn, Unfit},
};

/// How much of a dataset is looked at to know its format.
const SAMPLE_BYTES: u64 = 256 * 1024;
/// How much of its last block beside: it may begin with a banner.
const END_BYTES: u64 = 64 * 1024;
/// Of how many of its first blocks, where they are small.
const FIRST_BLOCKS: u32 = 8;
/// How much of each file that is added later.
const LATER_SAMPLE_BYTES: u64 = 64 * 1024;
/// Of how many of the blocks that agents have shipped since the last look.
const LATER_BLOCKS: u32 = 8;
/// How often two who add to a dataset at once look again at what the other made of its table.
const TRIES: u32 = 20;

/// What a user says of the lines.
#[derive(Clone, Debug, Default)]
pub(crate) struct Said {
    /// Name of the format.
    pub(super) format: Option<String>,
    /// Types of columns.
    pub(super) types: Vec<(String, ColumnType)>,
    /// To take the format that was named for lines that hardly are of it.
    pub(super) force: bool,
}

/// What is looked at of a file.
enum Sample {
    /// Its first lines.
    Lines(Vec<u8>),
    /// What a Parquet file says of itself.
    Table(Table),
}

impl Sample {
    fn is_parquet(&self) -> bool {
        matches!(self, Self::Table(_))
    }

    /// The table of a dataset that begins with it.
    fn detected(&self, format: Option<&str>) -> Result<sql::Detected, sql::Error> {
        match (self, format) {
            (Self::Table(table), _) => Ok(sql::Detected {
                table: table.clone(),
                why: "they begin and end with PAR1".into(),
                notes: Vec::new(),
            }),
            (Self::Lines(lines), Some(name)) => sql::named(name, lines),
            (Self::Lines(lines), None) => Ok(sql::detect(lines)),
        }
    }

    /// What the first lines of a dataset are after all, with these.
    fn reconsidered(&self, table: &Table, so_far: &[u8]) -> Option<sql::Detected> {
        match self {
            Self::Lines(lines) => sql::reconsider(table, so_far, lines),
            Self::Table(_) => None,
        }
    }

    fn grow(&self, table: &Table) -> Result<sql::Growth, sql::Error> {
        match self {
            Self::Lines(lines) => sql::grow(table, lines),
            Self::Table(found) => Ok(sql::grow_by(table, found)),
        }
    }
}

/// A table in the making.
struct Draft {
    table: Option<Table>,
    why: String,
    lesson: Lesson,
}

/// Makes the table of a dataset ready for files that are about to be added to it: detects it, or adds the columns that
/// their first lines have beside those that are known. Makes the dataset where there is none, once all is well.
///
/// # Errors
/// A format or a type that can't be; separated values with other columns; a file that can't be read. Then nothing was
/// changed.
pub(super) async fn learn(
    control: &Control,
    name: &Name,
    files: &[File],
    said: &Said,
) -> Result<Lesson, Error> {
    let mut samples = Vec::new();
    for File { place, blocks, table } in files {
        if let Some(table) = table {
            samples.push((place.as_str(), Sample::Table(table.clone())));
            continue;
        }
        let most = if samples.is_empty() {
            SAMPLE_BYTES
        } else {
            LATER_SAMPLE_BYTES
        };
        if let Some((first, further)) = blocks.split_first() {
            let unreadable = |error: Error| cant_read(place, &error);
            let mut lines = whole_lines(control, first, most).await.map_err(unreadable)?;
            let checked = sql::check_encoding(&lines);
            checked.map_err(|error| Error::Usage(format!("{place}: {error}")))?;
            if let Some(last) = further.last() {
                let end = whole_lines(control, last, END_BYTES).await;
                lines.extend(end.map_err(unreadable)?);
            }
            samples.push((place.as_str(), Sample::Lines(lines)));
        }
    }
    for _ in 0..TRIES {
        let before = control.store()?.get(name).await?;
        let Draft { table, why, lesson } = draft(control, before.as_ref(), &samples, said).await?;
        let dataset = control.dataset_or_new(name).await?;
        let Some(table) = table else {
            return Ok(lesson);
        };
        if dataset.table.as_ref() == Some(&table)
            || control.store()?.set_table(&dataset, &table, &why).await?
        {
            return Ok(lesson);
        }
    }
    Err(Error::Failed(format!(
        "others change dataset {name} all the time"
    )))
}

async fn draft(
    control: &Control,
    dataset: Option<&Dataset>,
    samples: &[(&str, Sample)],
    said: &Said,
) -> Result<Draft, Error> {
    let bad = wrong;
    let known = dataset.filter(|dataset| dataset.blocks > 0);
    let mut lesson = Lesson::default();
    let mut table = known.and_then(|dataset| dataset.table.clone());
    let mut why = known
        .and_then(|dataset| dataset.table_why.clone())
        .unwrap_or_default();
    let named = said.format.as_deref().map(sql::format).transpose().map_err(bad)?;
    check_kinds(known, samples, named.as_ref())?;
    let is_known = |table: &Table| {
        let name = named.as_ref().map(Format::name);
        name.is_none_or(|name| name == table.format.name())
    };
    let first = samples.first().map(|(_, sample)| sample);
    let detected = match table.as_ref().filter(|table| is_known(table)) {
        None => {
            let of_dataset = match known {
                Some(dataset) => first_lines(control, dataset).await?.map(Sample::Lines),
                None => None,
            };
            let sample = of_dataset.as_ref().or(first);
            let detected = sample.map(|sample| sample.detected(said.format.as_deref()));
            detected.transpose().map_err(bad)?
        }
        // A few lines decide nothing for good, unless the user did.
        Some(table) if why != sql::NAMED && said.format.is_none() => match (known, first) {
            (Some(dataset), Some(first)) if dataset.bytes < LATER_SAMPLE_BYTES => {
                // Where they can't be read any more, as after a rotation, the table stands.
                match first_lines(control, dataset).await {
                    Ok(so_far) => first.reconsidered(table, &so_far.unwrap_or_default()),
                    Err(_) => None,
                }
            }
            _ => None,
        },
        Some(_) => None,
    };
    if let Some(detected) = detected {
        lesson.format = Some(detected.table.format.name());
        lesson.why = Some(detected.why.clone());
        lesson.notes = detected.notes;
        (table, why) = (Some(detected.table), detected.why);
    }
    if let Some(table) = &mut table {
        let has = |name: &str| table.columns.iter().any(|column| column.name == name);
        let ready = |(name, _): &&(String, _)| table.format.finds_by_name() || has(name);
        let first: Vec<_> = said.types.iter().filter(ready).cloned().collect();
        sql::retype(table, &first).map_err(bad)?;
        for (file, sample) in samples {
            let growth = sample
                .grow(table)
                .map_err(|error| Error::Usage(format!("{file}: {error}")))?;
            if said.format.is_some() && !said.force {
                check_fit(file, &growth)?;
            }
            lesson.note(file, &growth);
            *table = growth.table;
        }
        let is_said = |column: &str| said.types.iter().any(|(name, _)| name == column);
        lesson.kept_as_text.retain(|kept| !is_said(&kept.column));
        // A file may have brought the others that were spoken of.
        sql::retype(table, &said.types).map_err(bad)?;
    }
    Ok(Draft { table, why, lesson })
}

/// A format that a user names must make sense of most lines.
fn check_fit(file: &str, growth: &sql::Growth) -> Result<(), Error> {
    let Some((fit, of)) = growth.unfit else {
        return Ok(());
    };
    Err(Error::Usage(format!(
        "--format {} makes sense of only {fit} of {of} sampled lines of {file}; the first of the others: {}. Leave --format \
         out to have the format detected, or add --force to take it all the same",
        growth.table.format.name(),
        growth.failing.join("; ")
    )))
}

/// Rows of Parquet and lines do not go together.
fn check_kinds(
    known: Option<&Dataset>,
    samples: &[(&str, Sample)],
    named: Option<&Format>,
) -> Result<(), Error> {
    let is_parquet = |dataset: &Dataset| {
        let table = dataset.table.as_ref();
        table.is_some_and(|table| table.format == Format::Parquet)
    };
    let (all, whose) = match (known, samples) {
        (Some(dataset), _) => (is_parquet(dataset), format!("dataset {}", dataset.name)),
        (None, [(file, first), ..]) => (first.is_parquet(), (*file).to_string()),
        (None, []) => return Ok(()),
    };
    let words = |parquet| if parquet { "Parquet" } else { "lines" };
    let other = samples.iter().find(|(_, sample)| sample.is_parquet() != all);
    let other = match (other, named) {
        (Some((file, sample)), _) => Some((*file, sample.is_parquet())),
        (None, Some(named)) if (*named == Format::Parquet) != all => Some(("--format", !all)),
        _ => None,
    };
    match other {
        None => Ok(()),
        Some((what, parquet)) => Err(Error::Usage(format!(
            "{what} is of {}, and {whose} of {}, which do not go together: add it to a dataset of its own",
            words(parquet),
            words(all)
        ))),
    }
}

impl Lesson {
    fn note(&mut self, file: &str, growth: &sql::Growth) {
        let file = file.to_string();
        // What the first file of a dataset has is no news.
        self.columns
            .extend(growth.added.iter().map(|Column { name, kind }| NewColumn {
                name: name.clone(),
                kind: *kind,
                file: file.clone(),
            }));
        for kept in &growth.kept_as_text {
            let is_new = self.format.is_some() || growth.added.iter().any(|added| added.name == kept.column);
            if is_new && self.kept_as_text.iter().all(|known| known.column != kept.column) {
                self.kept_as_text.push(KeptAsText {
                    column: kept.column.clone(),
                    example: kept.example.clone(),
                    why: kept.why.to_string(),
                });
            }
        }
        self.left_out = self.left_out.max(growth.left_out);
        self.changed.extend(growth.changed.iter().map(|changed| Misfit {
            file: file.clone(),
            column: changed.name.clone(),
            known: changed.known,
            found: changed.found,
        }));
        // That nothing fits is why the format was chosen, or known to whoever named it.
        if let (Some((fit, of)), None) = (growth.unfit, &self.format) {
            let format = growth.table.format.name();
            self.unfit.push(Unfit {
                file,
                format,
                fit,
                of,
            });
        }
    }
}

/// How the lines of a dataset become rows: what is kept of it, with the members that the latest shipped blocks have beside,
/// else what its first lines look like, which is kept then. Nothing is kept of an empty dataset: its lines are yet to come.
///
/// # Errors
/// A dataset that is gone; a first block that can't be read.
pub(crate) async fn of(control: &Control, dataset: &Dataset) -> Result<Table, Error> {
    let mut dataset = Cow::Borrowed(dataset);
    for _ in 0..TRIES {
        let store = control.store()?;
        if let Some(table) = &dataset.table {
            let why = dataset.table_why.as_deref().unwrap_or_default();
            let (grown, why) = match settled(control, &dataset, table).await? {
                Some(detected) => (detected.table, Cow::Owned(detected.why)),
                None => (with_later(control, &dataset, table).await?, Cow::Borrowed(why)),
            };
            if grown == *table || store.set_table(&dataset, &grown, &why).await? {
                return Ok(grown);
            }
            dataset = Cow::Owned(control.dataset(&dataset.name).await?);
            continue;
        }
        let Some(sample) = first_lines(control, &dataset).await? else {
            return Ok(sql::detect(b"").table);
        };
        let detected = sql::detect(&sample);
        if store.set_table(&dataset, &detected.table, &detected.why).await? {
            return Ok(detected.table);
        }
        dataset = Cow::Owned(control.dataset(&dataset.name).await?);
    }
    Err(Error::Failed(format!(
        "others change dataset {} all the time",
        dataset.name
    )))
}

/// What the lines of a dataset are after all, where few told it and agents have shipped more since.
async fn settled(
    control: &Control,
    dataset: &Dataset,
    table: &Table,
) -> Result<Option<sql::Detected>, Error> {
    let known = dataset.first..dataset.looked_at.max(dataset.first);
    let is_detected = dataset.table_why.as_deref() != Some(sql::NAMED);
    let is_text = matches!(table.format, Format::Text { .. });
    if !is_text || !is_detected || known.is_empty() || known.len() > FIRST_BLOCKS as usize {
        return Ok(None);
    }
    if known.end >= dataset.blocks {
        return Ok(None);
    }
    let later = known.end..dataset.blocks.min(known.end + LATER_BLOCKS);
    let so_far = lines_of(control, dataset, known).await?;
    let more = lines_of(control, dataset, later).await?;
    let detected = sql::reconsider(table, &so_far, &more);
    if detected.is_none() {
        control.store()?.note_look(dataset).await?;
    }
    Ok(detected)
}

/// The first lines of some blocks.
async fn lines_of(
    control: &Control,
    dataset: &Dataset,
    numbers: std::ops::Range<u32>,
) -> Result<Vec<u8>, Error> {
    let mut lines = Vec::new();
    for block in control.store()?.blocks(dataset.edition(), numbers).await? {
        let place = || format!("a block of dataset {}", dataset.name);
        let sample = whole_lines(control, &block, LATER_SAMPLE_BYTES).await;
        lines.extend(sample.map_err(|error| cant_read(place(), &error))?);
    }
    Ok(lines)
}

/// A table with the members that the latest blocks have beside, which agents have shipped since the last look: nobody looked
/// at those when they came.
async fn with_later(control: &Control, dataset: &Dataset, table: &Table) -> Result<Table, Error> {
    let grows = table.format.finds_by_name() && table.format != Format::Parquet;
    let first = dataset.looked_at.max(dataset.first);
    if !grows || first >= dataset.blocks {
        return Ok(table.clone());
    }
    let store = control.store()?;
    let latest = first.max(dataset.blocks.saturating_sub(LATER_BLOCKS))..dataset.blocks;
    let mut grown = table.clone();
    let blocks = store.blocks(dataset.edition(), latest).await?;
    // The checksum of what was added as a file is not known yet.
    for block in blocks.iter().filter(|block| block.checksum.is_some()) {
        // One that can't be read is told when it is asked for.
        // One that was made of others has the lines of many.
        let most = match block.made {
            Some(_) => TARGET_BYTES,
            None => LATER_SAMPLE_BYTES,
        };
        let Ok(lines) = sample(control, block, most).await else {
            continue;
        };
        grown = sql::grow(&grown, &lines).map_err(wrong)?.table;
    }
    if grown == *table {
        store.note_look(dataset).await?;
    }
    Ok(grown)
}

/// Gives columns of a dataset other types.
///
/// # Errors
/// An unknown dataset or column; a format that fixes its types.
pub(crate) async fn retype(
    control: &Control,
    name: &Name,
    types: &[(String, ColumnType)],
) -> Result<(), Error> {
    of(control, &control.dataset(name).await?).await?;
    for _ in 0..TRIES {
        let dataset = control.dataset(name).await?;
        let Some(mut table) = dataset.table.clone() else {
            continue;
        };
        sql::retype(&mut table, types).map_err(wrong)?;
        let why = dataset.table_why.as_deref().unwrap_or_default();
        if control.store()?.set_table(&dataset, &table, why).await? {
            return Ok(());
        }
    }
    Err(Error::Failed(format!(
        "others change dataset {name} all the time"
    )))
}

/// The first lines of a dataset, of several blocks where they are small; none where it is empty.
async fn first_lines(control: &Control, dataset: &Dataset) -> Result<Option<Vec<u8>>, Error> {
    let mut lines: Option<Vec<u8>> = None;
    for (number, block) in control.first_blocks(dataset, FIRST_BLOCKS).await? {
        let known = lines.as_ref().map_or(0, |lines| lines.len() as u64);
        if known >= SAMPLE_BYTES {
            break;
        }
        match (
            whole_lines(control, &block, SAMPLE_BYTES - known).await,
            &mut lines,
        ) {
            (Ok(more), Some(lines)) => lines.extend(more),
            (Ok(first), None) => lines = Some(first),
            // One that can't be read is told when it is asked for.
            (Err(_), Some(_)) => break,
            (Err(error), None) => {
                let place = format!("block {number} of dataset {}", dataset.name);
                return Err(cant_read(place, &error));
            }
        }
    }
    if lines.as_deref().is_some_and(sql::is_parquet) {
        return Err(Error::Failed(format!(
            "dataset {} is of Parquet files that were split as lines: remove it and add them again",
            dataset.name
        )));
    }
    Ok(lines)
}

/// The first lines of a block, each with its end.
async fn whole_lines(control: &Control, block: &Block, most: u64) -> Result<Vec<u8>, Error> {
    let mut lines = sample(control, block, most).await?;
    if (lines.len() as u64) < most {
        if lines.last().is_some_and(|&byte| byte != b'\n') {
            lines.push(b'\n');
        }
    } else if let Some(end) = lines.iter().rposition(|&byte| byte == b'\n') {
        lines.truncate(end + 1);
    }
    Ok(lines)
}

/// The first bytes of a block.
pub(super) async fn sample(control: &Control, block: &Block, most: u64) -> Result<Vec<u8>, Error> {
    let reader = control.store()?.reader(block).await?;
    let read = tokio::task::spawn_blocking(move || {
        let mut sample = Vec::new();
        reader.take(most).read_to_end(&mut sample).map(|_| sample)
    });
    let read = read.await.map_err(|error| Error::Failed(error.to_string()))?;
    read.map_err(|error| Error::Failed(error.to_string()))
}

/// An error that names where it was met.
pub(super) fn cant_read(place: impl std::fmt::Display, error: &impl std::fmt::Display) -> Error {
    Error::Failed(format!("can't read {place}: {error}"))
}
