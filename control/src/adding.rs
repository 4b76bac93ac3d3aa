//! What is taken of files that are added to a dataset, seen beside those that it has.
//!
//! A file that the dataset has and that has grown gives what came behind its end alone; one that has not changed gives
//! nothing. One that stands in the place of another is a new file. One that has what another had before that was renamed or
//! overwritten is read in its place.

use std::collections::HashSet;

use model::{
    Block, Name,
    table::{Format, Table},
};
use serde::{Deserialize, Serialize};
use storage::{Amendment, Dataset, Held, Since, held, shown};

use crate::{AddReport, Adding, Control, Error, Lesson, Source};

/// Of datasets with more blocks it is not looked which files they have.
pub(crate) const LOOKED_THROUGH: u32 = 50_000;
/// Fewest bytes of a block.
const LEAST_BLOCK_BYTES: u64 = 1024;

/// What became of a file that was to be added, or was added.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileReport {
    /// Its path or URL.
    pub file: String,
    /// What became of it.
    pub what: What,
    /// Bytes that were added, as stored; of one that [has grown](What::Grown), that have come behind its end.
    pub bytes: u64,
    /// Of one that was renamed what it was before; else why, where there is a reason.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
}

/// What became of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum What {
    /// It is new.
    Added,
    /// It was there, and counts once more.
    Again,
    /// It is new, and stands where another one did whose blocks can't be read any more.
    InPlaceOfAnother,
    /// It has what another one had before: that is read from it now, with what has come behind it.
    Renamed,
    /// What has come behind its end was added.
    Tail,
    /// It has grown, and that was not added.
    Grown,
    /// Nothing.
    Unchanged,
    /// It was written anew, or another one is in its place.
    Changed,
    /// It can't be read any more.
    Gone,
    /// That can't be told from here.
    Elsewhere,
}

impl What {
    const ALL: [Self; 10] = [
        Self::Added,
        Self::Again,
        Self::InPlaceOfAnother,
        Self::Renamed,
        Self::Tail,
        Self::Grown,
        Self::Unchanged,
        Self::Changed,
        Self::Gone,
        Self::Elsewhere,
    ];

    /// In one word, for programs.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Added => "added",
            Self::Again => "again",
            Self::InPlaceOfAnother => "in_place_of_another",
            Self::Renamed => "renamed",
            Self::Tail => "tail",
            Self::Grown => "grown",
            Self::Unchanged => "unchanged",
            Self::Changed => "changed",
            Self::Gone => "gone",
            Self::Elsewhere => "elsewhere",
        }
    }

    /// Reads what [`What::as_str`] wrote.
    pub fn read(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|what| what.as_str() == text)
    }
}

impl FileReport {
    fn new(place: &str, what: What) -> Self {
        Self {
            file: shown(place),
            what,
            bytes: 0,
            why: None,
        }
    }

    /// What has become of a file since it was added.
    fn of(file: &Held) -> Self {
        let of = |what| Self::new(&file.url, what);
        match &file.since {
            Since::Unchanged => of(What::Unchanged),
            Since::Grown(bytes) => Self {
                bytes: *bytes,
                ..of(What::Grown)
            },
            Since::Changed(why) => Self {
                why: Some(why.clone()),
                ..of(What::Changed)
            },
            Since::Gone(why) => Self {
                why: Some(why.clone()),
                ..of(What::Gone)
            },
            Since::Elsewhere => of(What::Elsewhere),
        }
    }
}

/// A file that is to be added, with its blocks.
#[cfg_attr(not(feature = "sql"), expect(dead_code, reason = "tables are of SQL"))]
pub(crate) struct File {
    /// Its absolute path, or its URL.
    pub(crate) place: String,
    pub(crate) blocks: Vec<Block>,
    /// What it says of its columns; none of a file of lines.
    pub(crate) table: Option<Table>,
}

/// What is to be taken of a file.
pub(crate) struct Taking {
    /// Its absolute path, or its URL.
    pub(crate) place: String,
    /// Blocks of what came behind its end; none: all of it is to be split.
    pub(crate) tail: Option<Vec<Block>>,
    /// Blocks that these stand for too.
    out: Vec<(u32, Block)>,
    report: FileReport,
}

/// What is to be taken of files.
pub(crate) struct Plan {
    /// The dataset as it was; none where it is yet to be made.
    before: Option<Dataset>,
    /// Whole files, then what came behind the ends of others.
    pub(crate) takings: Vec<Taking>,
    /// What nothing is taken of.
    others: Vec<FileReport>,
}

impl Plan {
    fn of(before: Option<Dataset>) -> Self {
        Self {
            before,
            takings: Vec::new(),
            others: Vec::new(),
        }
    }

    fn take(&mut self, place: &str, what: What) {
        self.takings.push(Taking {
            place: place.to_string(),
            tail: None,
            out: Vec::new(),
            report: FileReport::new(place, what),
        });
    }
}

impl Control {
    /// Adds files that this process can read, or the gateway can, to a dataset: splits them into blocks, and learns what their
    /// first lines have. Of a file that the dataset has already it takes what has come behind its end.
    ///
    /// # Errors
    /// [`Error::Usage`] for a format or a type that can't be, or blocks of next to nothing; [`Error::Failed`] where there is
    /// nothing to add; [`Error::Storage`] that names the file that is missing, no file or not readable. Then nothing was
    /// changed.
    pub async fn add_files(&self, adding: &Adding) -> Result<AddReport, Error> {
        if let Some(remote) = self.remote() {
            return remote.add_files(adding).await;
        }
        check_block_size(adding.block_size)?;
        self.store()?.init().await?;
        #[cfg(feature = "sql")]
        return crate::query::add(self, adding).await;
        #[cfg(not(feature = "sql"))]
        {
            if adding.format.is_some() || !adding.types.is_empty() {
                return Err(Error::NoSql);
            }
            let plan = self.plan(adding).await?;
            self.split_and_append(&adding.dataset, plan, adding.block_size)
                .await
        }
    }

    /// Adds what has come behind the ends of the files of a dataset, and tells what has become of the others.
    ///
    /// # Errors
    /// [`Error::NoSuchDataset`], [`Error::Failed`] for a dataset of too many blocks, [`Error::Storage`].
    pub async fn refresh_dataset(&self, name: &Name, block_size: u64) -> Result<AddReport, Error> {
        if let Some(remote) = self.remote() {
            return remote.refresh_dataset(name, block_size).await;
        }
        check_block_size(block_size)?;
        let dataset = self.dataset(name).await?;
        let files = self.files_of(&dataset).await?;
        let files = self.store()?.look(files, true).await;
        let mut plan = Plan::of(Some(dataset));
        for (at, file) in files.iter().enumerate() {
            // One that was added again, or gave way to another of its name, is as it was.
            let is_last = files[at + 1..].iter().all(|later| later.url != file.url);
            match file.since {
                Since::Grown(_) if is_last && !plan.is_of_parquet() => {
                    let taking = self.tail_of(file, &file.place(), block_size).await?;
                    plan.takings.push(taking);
                }
                _ => plan.others.push(FileReport::of(file)),
            }
        }
        #[cfg(feature = "sql")]
        return crate::query::add_planned(self, name, plan, &Default::default(), block_size).await;
        #[cfg(not(feature = "sql"))]
        self.split_and_append(name, plan, block_size).await
    }

    /// What has become of the files of a dataset since they were added, as far as can be told from here.
    ///
    /// # Errors
    /// As [`Control::refresh_dataset`].
    pub async fn look_at_files(&self, name: &Name) -> Result<Vec<FileReport>, Error> {
        if let Some(remote) = self.remote() {
            return remote.look_at_files(name).await;
        }
        let dataset = self.dataset(name).await?;
        let files = self.files_of(&dataset).await?;
        let files = self.store()?.look(files, false).await;
        Ok(files.iter().map(FileReport::of).collect())
    }

    /// The files of a dataset; nobody has looked at them yet.
    async fn files_of(&self, dataset: &Dataset) -> Result<Vec<Held>, Error> {
        if dataset.count() > LOOKED_THROUGH {
            return Err(Error::Failed(format!(
                "dataset {} has more than {LOOKED_THROUGH} blocks: it is not looked which files they are of",
                dataset.name
            )));
        }
        Ok(held(self.first_blocks(dataset, LOOKED_THROUGH).await?))
    }

    /// Chooses what is taken of each file.
    pub(crate) async fn plan(&self, adding: &Adding) -> Result<Plan, Error> {
        let store = self.store()?;
        let before = store.get(&adding.dataset).await?;
        let files = match &before {
            Some(dataset) if dataset.count() <= LOOKED_THROUGH => self.files_of(dataset).await?,
            _ => Vec::new(),
        };
        let mut plan = Plan::of(before);
        let mut given = HashSet::new();
        let mut looked = None;
        for place in adding.sources.iter().map(Source::as_str) {
            let url = store.url_of(place)?;
            let known = files.iter().rfind(|file| file.url == url);
            let is_known = known.is_some() || given.contains(&url);
            let is_first = given.insert(url.clone());
            match known {
                _ if adding.again && is_known => plan.take(place, What::Again),
                _ if !is_first => plan.others.push(FileReport::new(place, What::Unchanged)),
                Some(file) => {
                    let file = store.look(vec![file.clone()], true).await.into_iter().next();
                    match file {
                        Some(file) => {
                            self.take_known(&mut plan, &file, place, adding.block_size)
                                .await?
                        }
                        None => plan.take(place, What::Added),
                    }
                }
                None => {
                    if looked.is_none() {
                        looked = Some(store.look(files.clone(), false).await);
                    }
                    plan.take(place, What::Added);
                    let lost = looked.iter().flatten().filter(|file| file.is_lost());
                    let lost: Vec<&Held> = lost.collect();
                    self.find_renamed(&mut plan, &url, &lost).await?;
                }
            }
        }
        plan.takings.sort_by_key(|taking| taking.tail.is_some());
        match (&plan.takings[..], &plan.others[..]) {
            ([], [first, rest @ ..]) => {
                let more = match rest.len() {
                    0 => String::new(),
                    more => format!(", and so are the other {more}"),
                };
                Err(Error::Failed(format!(
                    "nothing to add: {} is in dataset {} already and has not changed{more}; --again adds it once more",
                    first.file, adding.dataset
                )))
            }
            _ => Ok(plan),
        }
    }

    async fn take_known(
        &self,
        plan: &mut Plan,
        file: &Held,
        place: &str,
        block_size: u64,
    ) -> Result<(), Error> {
        match file.since {
            Since::Grown(_) if !plan.is_of_parquet() => {
                let taking = self.tail_of(file, place, block_size).await?;
                plan.takings.push(taking);
            }
            Since::Unchanged => plan.others.push(FileReport::new(place, What::Unchanged)),
            _ => plan.take(place, What::InPlaceOfAnother),
        }
        Ok(())
    }

    /// Where the file that is taken last has what one had that is lost, that gives way to it.
    async fn find_renamed(&self, plan: &mut Plan, url: &str, lost: &[&Held]) -> Result<(), Error> {
        let Some(taking) = plan.takings.last_mut() else {
            return Ok(());
        };
        for file in lost {
            if self.store()?.has(url, file).await {
                taking.out.clone_from(&file.blocks);
                taking.report.what = What::Renamed;
                taking.report.why = Some(file.place());
                break;
            }
        }
        Ok(())
    }

    async fn tail_of(&self, file: &Held, place: &str, block_size: u64) -> Result<Taking, Error> {
        let tail = self.store()?.tail(file, block_size).await?;
        Ok(Taking {
            place: place.to_string(),
            tail: Some(tail.blocks),
            out: tail.instead_of,
            report: FileReport::new(place, What::Tail),
        })
    }

    #[cfg(not(feature = "sql"))]
    async fn split_and_append(&self, name: &Name, plan: Plan, block_size: u64) -> Result<AddReport, Error> {
        let mut files = Vec::with_capacity(plan.takings.len());
        for taking in &plan.takings {
            let blocks = match &taking.tail {
                Some(blocks) => blocks.clone(),
                None => self.store()?.split(&taking.place, block_size).await?,
            };
            files.push(File {
                place: taking.place.clone(),
                blocks,
                table: None,
            });
        }
        self.append(name, plan, files).await
    }

    /// Appends the blocks of files, one for each that is to be taken, as one revision of the dataset: a new one where there
    /// is none of this name.
    pub(crate) async fn append(&self, name: &Name, plan: Plan, files: Vec<File>) -> Result<AddReport, Error> {
        let Plan {
            before,
            takings,
            others: mut reports,
        } = plan;
        let mut amendment = Amendment::default();
        let count = files.iter().filter(|file| !file.blocks.is_empty()).count();
        let mut bytes = 0;
        for (taking, file) in takings.into_iter().zip(files) {
            let mut report = taking.report;
            let replaced: u64 = taking.out.iter().map(|(_, block)| block.stored_bytes()).sum();
            let stored: u64 = file.blocks.iter().map(Block::stored_bytes).sum();
            report.bytes = match report.what {
                What::Tail => stored.saturating_sub(replaced),
                _ => stored,
            };
            bytes += report.bytes;
            reports.push(report);
            amendment.out.extend(taking.out);
            amendment.added.extend(file.blocks);
        }
        amendment.out.sort_unstable_by_key(|(number, _)| *number);
        amendment.out.dedup_by_key(|(number, _)| *number);
        let blocks = u32::try_from(amendment.added.len()).unwrap_or(u32::MAX);
        let dataset = self.dataset_or_new(name).await?;
        let as_planned = before.as_ref().map_or(0, |before| before.generation);
        if !amendment.out.is_empty() && dataset.generation != as_planned {
            let name = name.to_string();
            return Err(storage::Error::Concurrent { name }.into());
        }
        if blocks > 0 || before.is_none() {
            self.store()?
                .revise(&dataset, &amendment, before.as_ref())
                .await?;
        }
        Ok(AddReport {
            dataset: self.dataset(name).await?,
            files: count,
            blocks,
            bytes,
            reports,
            learned: Lesson::default(),
        })
    }
}

impl Plan {
    /// How many of the takings, the first ones, are looked at for columns. What came behind the end of a file has no header:
    /// only columns that are found by name can come with it.
    #[cfg(feature = "sql")]
    pub(crate) fn looked_at(&self) -> usize {
        let table = self.before.as_ref().and_then(|before| before.table.as_ref());
        match table.is_some_and(|table| table.format.finds_by_name()) {
            true => self.takings.len(),
            false => self.takings.partition_point(|taking| taking.tail.is_none()),
        }
    }

    /// Row groups can't come behind others.
    fn is_of_parquet(&self) -> bool {
        let table = self.before.as_ref().and_then(|before| before.table.as_ref());
        table.is_some_and(|table| table.format == Format::Parquet)
    }
}

/// Refuses blocks of next to nothing: who says 5 means 5MiB.
///
/// # Errors
/// [`Error::Usage`].
pub fn check_block_size(bytes: u64) -> Result<(), Error> {
    if bytes >= LEAST_BLOCK_BYTES {
        return Ok(());
    }
    Err(Error::Usage(format!(
        "block size {bytes} B: the least is {LEAST_BLOCK_BYTES} B; give a unit, such as 5MiB"
    )))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_became_of_a_file_is_read_as_it_was_written() {
        for what in What::ALL {
            assert_eq!(What::read(what.as_str()), Some(what));
            assert_eq!(serde_json::to_value(what).unwrap(), what.as_str());
        }
        assert_eq!(What::read("lost"), None);
    }

    #[test]
    fn a_block_size_without_a_unit_is_told() {
        assert!(check_block_size(1024).is_ok());
        assert_eq!(
            check_block_size(5).unwrap_err().to_string(),
            "block size 5 B: the least is 1024 B; give a unit, such as 5MiB"
        );
    }
}
