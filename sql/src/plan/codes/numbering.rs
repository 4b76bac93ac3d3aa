//! Numbers for the texts of a column.

use std::collections::HashMap;

use datafusion::arrow::{
    array::{Array, StringViewArray, StringViewBuilder, UInt32Array},
    buffer::Buffer,
};
use foldhash::fast::FixedState;

/// Texts and their numbers, in the order in which they came.
#[derive(Default)]
pub(super) struct Codes {
    /// By views into `buffers`.
    by_view: HashMap<u128, u32, FixedState>,
    /// What the views of the batch at hand point into.
    buffers: Vec<Buffer>,
    /// By the texts themselves: equal ones may have several views.
    by_text: HashMap<Box<str>, u32, FixedState>,
    texts: StringViewBuilder,
    count: u32,
    /// All texts so far; none since there are more.
    finished: Option<StringViewArray>,
}

impl Codes {
    /// The numbers of the texts; nothing for nothing.
    pub(super) fn encode(&mut self, texts: &StringViewArray) -> UInt32Array {
        self.look_into(texts.data_buffers());
        let mut codes = Vec::with_capacity(texts.len());
        for (place, &view) in texts.views().iter().enumerate() {
            let code = match self.by_view.get(&view) {
                Some(&code) => code,
                None if texts.is_null(place) => 0,
                None => {
                    let code = self.number(texts.value(place));
                    self.by_view.insert(view, code);
                    code
                }
            };
            codes.push(code);
        }
        UInt32Array::new(codes.into(), texts.nulls().cloned())
    }

    /// Forgets the views into other buffers.
    fn look_into(&mut self, buffers: &[Buffer]) {
        let same = |(one, other): (&Buffer, &Buffer)| one.ptr_eq(other);
        if self.buffers.len() == buffers.len() && self.buffers.iter().zip(buffers).all(same) {
            return;
        }
        self.buffers = buffers.to_vec();
        self.by_view.clear();
    }

    fn number(&mut self, text: &str) -> u32 {
        if let Some(&code) = self.by_text.get(text) {
            return code;
        }
        let code = self.count;
        self.by_text.insert(text.into(), code);
        self.texts.append_value(text);
        self.finished = None;
        self.count += 1;
        code
    }

    /// All texts by their numbers.
    pub(super) fn texts(&mut self) -> &StringViewArray {
        self.finished.get_or_insert_with(|| self.texts.finish_cloned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LONG: &str = "a text that is too long for its view";

    fn decoded(codes: &mut Codes, batch: &[Option<&str>]) -> (Vec<u32>, Vec<Option<String>>) {
        let numbers = codes.encode(&StringViewArray::from(batch.to_vec()));
        let texts = codes.texts();
        let back = numbers
            .iter()
            .map(|number| number.map(|number| texts.value(number as usize).to_string()));
        (numbers.values().to_vec(), back.collect())
    }

    #[test]
    fn texts_come_back_from_their_numbers_over_batches() {
        let mut codes = Codes::default();
        let first = [Some("a"), None, Some(LONG), Some("a"), Some("")];
        let second = [Some(LONG), Some("b"), Some("b"), None, Some("a")];
        for batch in [first, second] {
            let (_, back) = decoded(&mut codes, &batch);
            let back: Vec<_> = back.iter().map(Option::as_deref).collect();
            assert_eq!(back, batch);
        }
        // The view of the long text points into another batch, and yet it is known.
        assert_eq!(codes.texts().len(), 4, "{:?}", codes.texts());
        let (numbers, _) = decoded(&mut codes, &second);
        assert_eq!([numbers[0], numbers[1], numbers[4]], [1, 3, 0]);
    }

    #[test]
    fn each_text_has_one_number_over_pieces_and_batches() {
        let once_each = |texts: [&str; 9]| {
            let mut builder = StringViewBuilder::new().with_deduplicate_strings();
            for text in texts {
                builder.append_value(format!("{LONG} {text}"));
            }
            builder.finish()
        };
        let batch = once_each(["a", "b", "c", "a", "b", "c", "a", "b", "c"]);
        let mut codes = Codes::default();
        for from in [0, 3, 6] {
            let numbers = codes.encode(&batch.slice(from, 3));
            assert_eq!(numbers.values().to_vec(), [0, 1, 2]);
        }
        let other = once_each(["c", "b", "a", "a", "a", "a", "a", "a", "a"]);
        assert_eq!(codes.by_view.len(), 3);
        assert_eq!(codes.encode(&other).values()[..4], [2, 1, 0, 0]);
        assert_eq!(codes.texts().len(), 3);
    }
}
