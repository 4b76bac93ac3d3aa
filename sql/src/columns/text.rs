//! A column of text: views of 16 bytes, with what is longer than 12 bytes in a buffer of the column.
//!
//! Logs repeat themselves. A value that was seen a moment ago is pointed at again instead of copied, so that a column of a
//! block takes little more than its views, and grouping by it finds its bytes in the processor's cache. What is forgotten
//! meanwhile is stored once more, which costs nothing but room.

use std::borrow::Cow;

use datafusion::arrow::{
    array::{ByteView, StringViewArray, make_view},
    buffer::{Buffer, ScalarBuffer},
};

use super::nulls::Nulls;

/// Values of up to so many bytes stand in the view itself.
const INLINE_BYTES: usize = 12;
/// Most values remembered; their views fit into the second cache of a processor.
const REMEMBERED: usize = 8192;
/// So many values of one hash are remembered: their views fill one line of a cache.
const WAYS: usize = 4;

pub(crate) struct Text {
    views: Vec<u128>,
    nulls: Nulls,
    /// What the views of long values point into; always whole values of valid UTF-8, one behind the other.
    bytes: Vec<u8>,
    /// Views of long values, each in the places that its hash gives, the latest first.
    recent: Vec<u128>,
}

impl Text {
    pub(crate) fn new(rows: usize) -> Self {
        let remembered = (rows / 4).next_power_of_two().clamp(16, REMEMBERED);
        Self {
            views: Vec::with_capacity(rows),
            nulls: Nulls::default(),
            bytes: Vec::new(),
            recent: vec![0; remembered],
        }
    }

    #[inline]
    pub(crate) fn null(&mut self) {
        self.views.push(0);
        self.nulls.null(self.views.len());
    }

    /// Appends bytes; what is no UTF-8 among them is replaced by U+FFFD.
    #[inline]
    pub(crate) fn push_bytes(&mut self, value: &[u8]) {
        match simdutf8::basic::from_utf8(value) {
            Ok(text) => self.push(text),
            Err(_) => match String::from_utf8_lossy(value) {
                Cow::Borrowed(text) => self.push(text),
                Cow::Owned(text) => self.push(&text),
            },
        }
    }

    #[inline]
    pub(crate) fn push(&mut self, value: &str) {
        let value = value.as_bytes();
        let view = if value.len() <= INLINE_BYTES {
            inlined(value)
        } else {
            self.stored(value)
        };
        self.views.push(view);
        self.nulls.valid();
    }

    #[inline]
    fn stored(&mut self, value: &[u8]) -> u128 {
        let place = WAYS * place(value, self.recent.len() / WAYS);
        for &known in &self.recent[place..place + WAYS] {
            let at = ByteView::from(known);
            if at.length as usize == value.len() {
                let from = at.offset as usize;
                if self.bytes.get(from..from + value.len()) == Some(value) {
                    return known;
                }
            }
        }
        self.store(value, place)
    }

    fn store(&mut self, value: &[u8], place: usize) -> u128 {
        // A block is far smaller than what an offset can tell; what were more would be cut off here, not misread.
        let Ok(offset) = u32::try_from(self.bytes.len()) else {
            return inlined(b"");
        };
        self.bytes.extend_from_slice(value);
        let view = make_view(value, 0, offset);
        self.recent.copy_within(place..place + WAYS - 1, place + 1);
        self.recent[place] = view;
        view
    }

    pub(crate) fn finish(mut self) -> StringViewArray {
        self.bytes.shrink_to_fit();
        let buffers = if self.bytes.is_empty() {
            Vec::new()
        } else {
            vec![Buffer::from_vec(self.bytes)]
        };
        let views = ScalarBuffer::from(self.views);
        let nulls = self.nulls.finish();
        // SAFETY: each view was made of a whole `&str`: short ones hold it themselves, padded with zeros; long ones tell
        // its length, its first four bytes and where it stands in `bytes`, which is buffer 0 and was never shortened. A
        // null has the view of an empty text.
        #[expect(
            unsafe_code,
            reason = "checking all values again costs as much as parsing them"
        )]
        unsafe {
            StringViewArray::new_unchecked(views, buffers, nulls)
        }
    }
}

/// The view of a short value: its length in the lowest four bytes, then the value, padded with zeros.
#[inline]
fn inlined(value: &[u8]) -> u128 {
    let mut view = [0; 16];
    view[0] = value.len() as u8;
    view[4..4 + value.len()].copy_from_slice(value);
    u128::from_le_bytes(view)
}

/// Where a view is remembered among `places`, a power of two: both halves of it count.
#[inline]
#[expect(clippy::cast_possible_truncation, reason = "the halves of it, and few bits")]
pub(crate) fn slot(view: u128, places: usize) -> usize {
    let folded = (view as u64) ^ ((view >> 64) as u64).rotate_left(29);
    (folded.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 40) as usize & (places - 1)
}

/// Where a value of more than 12 bytes is looked for among `places`, a power of two: from its beginning, middle and end.
#[inline]
fn place(value: &[u8], places: usize) -> usize {
    let word = |from: usize| {
        let bytes: [u8; 8] = value[from..from + 8].try_into().unwrap_or_default();
        u64::from_le_bytes(bytes)
    };
    let last = value.len() - 8;
    let mixed = word(0)
        .wrapping_mul(0x9e37_79b9_7f4a_7c15)
        .rotate_left(29)
        .wrapping_add(word(last / 2))
        .wrapping_mul(0xc2b2_ae3d_27d4_eb4f)
        .rotate_left(31)
        .wrapping_add(word(last) ^ value.len() as u64)
        .wrapping_mul(0x9e37_79b9_7f4a_7c15);
    (mixed >> 40) as usize & (places - 1)
}

#[cfg(test)]
mod tests {
    use datafusion::arrow::array::Array;

    use super::*;

    #[test]
    fn values_come_back_and_are_stored_once() {
        let values = [
            "",
            "short",
            "just 12 byte",
            "thirteen byte",
            "ein längerer Wert, mit Umlaut",
        ];
        let mut text = Text::new(10);
        for _ in 0..3 {
            values.iter().for_each(|value| text.push(value));
            text.null();
        }
        let array = text.finish();
        array.to_data().validate_full().unwrap();
        for round in 0..3 {
            for (place, value) in values.iter().enumerate() {
                assert_eq!(array.value(round * 6 + place), *value);
            }
            assert!(array.is_null(round * 6 + 5));
        }
        let stored: usize = array.data_buffers().iter().map(|buffer| buffer.len()).sum();
        assert_eq!(stored, values[3].len() + values[4].len());
    }

    #[test]
    fn what_collides_is_stored_again() {
        let mut text = Text::new(1);
        let values: Vec<String> = (0..500)
            .map(|number| format!("a value with number {number}"))
            .collect();
        for value in values.iter().chain(&values) {
            text.push(value);
        }
        let array = text.finish();
        array.to_data().validate_full().unwrap();
        for (place, value) in values.iter().chain(&values).enumerate() {
            assert_eq!(array.value(place), value);
        }
    }

    #[test]
    fn no_utf8_is_replaced() {
        let mut text = Text::new(1);
        text.push_bytes(b"a\xff");
        text.push_bytes("thirteen byt\u{e9}".as_bytes());
        let array = text.finish();
        assert_eq!(
            (array.value(0), array.value(1)),
            ("a\u{fffd}", "thirteen byt\u{e9}")
        );
    }
}
