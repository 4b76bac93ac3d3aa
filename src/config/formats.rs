//! The formats of lines that a file of settings defines.

use figment::Figment;
use sql::formats::{Definition, define};

use super::{Error, FORMATS, Settings, bad_value};

/// The tables `[[formats]]`; none where there are none.
pub(super) fn read(figment: &Figment) -> Result<Vec<Definition>, Error> {
    if figment.find_value(FORMATS).is_err() {
        return Ok(Vec::new());
    }
    figment
        .extract_inner(FORMATS)
        .map_err(|mut error: figment::Error| {
            // The name of the outermost table comes last.
            error.path.rotate_right(1);
            bad_value(figment, error)
        })
}

impl Settings {
    /// Makes the formats of these settings known to the process.
    ///
    /// # Errors
    /// [`Error::BadValue`] for a definition that its own samples contradict.
    pub fn define_formats(&self) -> Result<(), Error> {
        define(self.formats.clone()).map_err(|error| Error::BadValue {
            key: FORMATS.into(),
            origin: self.origin(FORMATS).into(),
            message: error.to_string(),
        })
    }
}
