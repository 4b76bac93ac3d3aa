//! Which values of a column are null; nothing is kept while none is.

use datafusion::arrow::{array::BooleanBufferBuilder, buffer::NullBuffer};

#[derive(Default)]
pub(crate) struct Nulls {
    valid: Option<BooleanBufferBuilder>,
}

impl Nulls {
    /// The last of `length` values is none.
    #[inline]
    pub(crate) fn null(&mut self, length: usize) {
        let valid = self.valid.get_or_insert_with(|| {
            let mut all = BooleanBufferBuilder::new(length);
            all.append_n(length - 1, true);
            all
        });
        valid.append(false);
    }

    /// The last of the values is one.
    #[inline]
    pub(crate) fn valid(&mut self) {
        if let Some(valid) = &mut self.valid {
            valid.append(true);
        }
    }

    pub(crate) fn finish(self) -> Option<NullBuffer> {
        self.valid.map(|mut valid| NullBuffer::new(valid.finish()))
    }
}
