//! What a guard process says and is told, over any bytes: for tests and fuzz targets.

pub use crate::guard::message::{decode_any as guard, seeds};
