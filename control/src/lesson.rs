//! What was learned from the first lines of files that were added.

use model::table::ColumnType;
use serde::{Deserialize, Serialize};

/// What was learned from the first lines of files, besides what was known.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Lesson {
    /// The format, where it was not known before.
    pub format: Option<String>,
    /// Why it was chosen.
    pub why: Option<String>,
    /// What else people may want to know of the lines: sentences.
    #[serde(default)]
    pub notes: Vec<String>,
    /// Columns that the dataset did not have.
    pub columns: Vec<NewColumn>,
    /// Columns of another type in a file.
    pub changed: Vec<Misfit>,
    /// Columns of text of which all values look like numbers.
    #[serde(default)]
    pub kept_as_text: Vec<KeptAsText>,
    /// How many columns a file has beside as many as a dataset takes.
    #[serde(default)]
    pub left_out: usize,
    /// Files whose first lines hardly are of the format.
    pub unfit: Vec<Unfit>,
}

/// A column of text of which all values look like numbers.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct KeptAsText {
    /// Its name.
    pub column: String,
    /// A value that a number would not keep.
    pub example: String,
    /// What it is about that value, such as `has a leading zero`.
    pub why: String,
}

/// A column that the dataset did not have.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct NewColumn {
    /// Its name.
    pub name: String,
    /// What it holds.
    #[serde(rename = "type")]
    pub kind: ColumnType,
    /// Where it was seen.
    pub file: String,
}

/// A column of another type in a file.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Misfit {
    /// Where it was seen.
    pub file: String,
    /// Its name.
    pub column: String,
    /// What it holds in the dataset.
    #[serde(rename = "type")]
    pub known: ColumnType,
    /// What it holds in the file.
    pub found: ColumnType,
}

/// A file whose first lines hardly are of the format.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Unfit {
    /// Which.
    pub file: String,
    /// The format.
    pub format: String,
    /// Lines that are of it.
    pub fit: usize,
    /// Of so many.
    pub of: usize,
}
