//! What there is to know of text: whether its times have a year, and whether its records have several lines.

use model::table::Format;

use crate::parse::text::head::Heads;

/// Lines that belong to the record above them are told when there are so many in a hundred.
const TOLD_FROM: usize = 2;

/// The heads of lines, counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Counted {
    lines: usize,
    with_year: usize,
    without_year: usize,
    /// Indented, without a time stamp, and behind a line that has one.
    continuations: usize,
}

impl Counted {
    pub(super) fn of(lines: &[&[u8]]) -> Self {
        // Any moment is near a day of the year.
        let (mut dated, mut yearless) = (Heads::new(None), Heads::new(Some(1_700_000_000_000_000)));
        let mut counted = Self {
            lines: lines.len(),
            ..Self::default()
        };
        for line in lines {
            let with_year = dated.read(line).time_us.is_some();
            let without_year = !with_year && yearless.read(line).time_us.is_some();
            counted.with_year += usize::from(with_year);
            counted.without_year += usize::from(without_year);
            let is_indented = line.first().is_some_and(u8::is_ascii_whitespace);
            let begun = counted.with_year + counted.without_year > 0;
            counted.continuations += usize::from(begun && is_indented && !with_year && !without_year);
        }
        counted
    }

    /// The format of these lines as text.
    pub(super) fn format(self, joined: bool) -> Format {
        Format::Text {
            joined,
            yearless: self.without_year > self.with_year,
        }
    }

    /// How many of the lines have a time stamp.
    pub(super) fn stamped(self) -> usize {
        self.with_year.max(self.without_year)
    }

    /// What a user may want to do about records of several lines.
    pub(super) fn note(self) -> Option<String> {
        let Self {
            lines, continuations, ..
        } = self;
        (continuations > 0 && continuations * 100 >= lines * TOLD_FROM).then(|| {
            format!(
                "{continuations} of {lines} sampled lines are indented and have no time: --format text:joined makes them a \
                 part of the record above"
            )
        })
    }
}
