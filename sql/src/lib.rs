//! SQL over lines, and over rows of Parquet files: from the bytes of a block to columns, and from a query to the two halves that it is split into.
//!
//! Promise: the lower halves over each block and the upper half over all that they gave come to what the whole query over
//! all lines comes to; both are made from the text of the query, its tables, the time zone and the moment of `now()`
//! alone, so that only these travel. A line that does not parse is a row all the same, with the reason in `_error`.
//! Not promised: that every query can be split; what can't is refused with the reason.
//!
//! The only user of DataFusion, which plans and runs the halves. Called by `engine` on compute nodes and by the command
//! line.

mod block;
mod cache;
mod columns;
mod cuts;
mod decode;
mod detect;
mod encoding;
mod error;
pub mod formats;
mod functions;
mod growth;
mod half;
mod left_out;
mod parquet;
mod parse;
mod plan;
mod portions;
mod prune;
mod question;
mod render;
mod rows;
mod runtime;
mod schema;
mod sentences;
mod small;
mod spill;
mod stats;
mod time;
mod types;
mod whence;
mod wire;

pub use block::{BlockRows, Origin};
pub use cache::{BlockAt, ColumnCache};
pub use cuts::RecordCuts;
pub use detect::{Detected, NAMED, detect, format, named};
pub use encoding::check_encoding;
pub use error::Error;
pub use functions::functions;
pub use growth::{Changed, Growth, grow, grow_by, reconsider, retype};
pub use half::{LowerHalf, lower, merge, upper};
pub use left_out::{LeftOut, left_out};
pub use parquet::{Footer, RowGroups, footer_bytes, is_parquet};
pub use plan::{Explained, ExplainedHalf, tables, to_explain};
pub use prune::Pruner;
pub use question::question;
pub use render::{Rendering, render};
pub use rows::rows;
pub use runtime::Runtime;
pub use small::{checksum, small_table};
pub use types::KeptAsText;
pub use whence::Whence;
pub use wire::{Tally, counted, tally};

/// What halves of different builds must agree on: partial states of one version of DataFusion mean nothing to another.
/// The last part is the form in which they travel, and how lines are read.
pub const VERSION: &str = concat!(env!("CARGO_PKG_VERSION"), "+datafusion-55.2+5");
