//! Files that are about to be added to a dataset: of lines, or Parquet.

use model::{Codec, Content, Name};

use super::{
    records,
    table::{Said, learn, sample},
    wrong,
};
use crate::{
    AddReport, Adding, Control, Error,
    adding::{File, Plan, Taking},
};

/// So many bytes at the beginning tell what a file is.
const MAGIC_BYTES: u64 = 4;

/// Splits files into blocks of about `block_size` bytes: between lines, or between the row groups of Parquet files, which are
/// known by how they begin unless `format` says that they are something else.
///
/// # Errors
/// What can't be read, or is not what `format` says.
pub(super) async fn split(
    control: &Control,
    takings: &[Taking],
    block_size: u64,
    format: Option<&str>,
) -> Result<Vec<File>, Error> {
    let mut files = Vec::with_capacity(takings.len());
    for taking in takings {
        let place = taking.place.as_str();
        if let Some(blocks) = &taking.tail {
            files.push(File {
                place: place.to_string(),
                blocks: blocks.clone(),
                table: None,
            });
            continue;
        }
        let parquet = match format {
            None | Some("parquet") => parquet(control, place, block_size).await?,
            Some(_) => None,
        };
        if parquet.is_none() && format == Some("parquet") {
            return Err(Error::Usage(format!(
                "{place} is no Parquet file: it does not begin with PAR1"
            )));
        }
        files.push(match parquet {
            Some(file) => file,
            None => File {
                place: place.to_string(),
                blocks: control.store()?.split(place, block_size).await?,
                table: None,
            },
        });
    }
    Ok(files)
}

/// The file where it is Parquet.
async fn parquet(control: &Control, place: &str, block_size: u64) -> Result<Option<File>, Error> {
    let whole = control.store()?.split(place, u64::MAX).await?;
    let [whole] = &whole[..] else {
        return Ok(None);
    };
    let Content::Object {
        codec: Codec::None,
        size,
        ..
    } = whole.content
    else {
        return Ok(None);
    };
    let head = whole.with_range(0..size.min(MAGIC_BYTES));
    if !sql::is_parquet(&sample(control, &head, MAGIC_BYTES).await?) {
        return Ok(None);
    }
    let unreadable = |why: String| {
        Error::Failed(format!(
            "can't read {place} (a file of lines that begins so needs --format): {why}"
        ))
    };
    let footer = engine::row_groups::footer(control.store()?, whole).await;
    let footer = footer.map_err(|failure| unreadable(failure.message))?;
    let ranges = footer.blocks(block_size);
    let ranges = ranges.map_err(|error| unreadable(error.to_string()))?;
    Ok(Some(File {
        place: place.to_string(),
        blocks: ranges.into_iter().map(|range| whole.with_range(range)).collect(),
        table: Some(footer.table()),
    }))
}

/// Splits files and adds their blocks to a dataset, whose table learns what their first lines have.
pub(crate) async fn add(control: &Control, adding: &Adding) -> Result<AddReport, Error> {
    if let Some(format) = &adding.format {
        sql::format(format).map_err(wrong)?;
    }
    let said = Said {
        format: adding.format.clone(),
        types: adding.types.clone(),
        force: adding.force,
    };
    let plan = control.plan(adding).await?;
    add_planned(control, &adding.dataset, plan, &said, adding.block_size).await
}

/// Splits what is to be taken of files and adds it.
pub(crate) async fn add_planned(
    control: &Control,
    name: &Name,
    plan: Plan,
    said: &Said,
    block_size: u64,
) -> Result<AddReport, Error> {
    let mut files = split(control, &plan.takings, block_size, said.format.as_deref()).await?;
    let learned = learn(control, name, &files[..plan.looked_at()], said).await?;
    records::cut(control, name, &mut files, block_size).await?;
    Ok(AddReport {
        learned,
        ..control.append(name, plan, files).await?
    })
}
