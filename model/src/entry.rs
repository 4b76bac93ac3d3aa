//! Entry names: `entry-{priority:03}-{dataset}:{block}-{sequence:010}`, with `@{host}` behind the block where nodes keep it.
//!
//! A listing of names alone gives the order (higher priority first, then lower sequence) and the locality.

use std::{cmp::Ordering, fmt, str::FromStr};

use serde::{Deserialize, Serialize};

use crate::name::Name;

/// How urgent a job is: 0 to 999, a higher number goes first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "u16", into = "u16")]
pub struct Priority(u16);

/// A number that is no [`Priority`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("bad priority {0}: it must be 0 to 999, a higher number goes first")]
pub struct BadPriority(pub u16);

impl Priority {
    /// The priority of a job that asks for none: 100.
    pub const DEFAULT: Self = Self(100);

    /// Checks the range.
    ///
    /// # Errors
    /// [`BadPriority`] above 999.
    pub fn new(value: u16) -> Result<Self, BadPriority> {
        if value <= 999 {
            Ok(Self(value))
        } else {
            Err(BadPriority(value))
        }
    }

    /// 0 to 999.
    pub fn get(self) -> u16 {
        self.0
    }
}

impl Default for Priority {
    fn default() -> Self {
        Self::DEFAULT
    }
}

impl TryFrom<u16> for Priority {
    type Error = BadPriority;
    fn try_from(value: u16) -> Result<Self, BadPriority> {
        Self::new(value)
    }
}

impl From<Priority> for u16 {
    fn from(priority: Priority) -> u16 {
        priority.0
    }
}

/// What the first subtask of an entry works on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Spot {
    /// The block with this index in its dataset.
    Block(u32),
    /// The partial results of the job.
    Merge,
}

impl fmt::Display for Spot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Block(index) => write!(f, "{index}"),
            Self::Merge => f.write_str("merge"),
        }
    }
}

/// The name of a znode that stands for one subtask or a bundle of consecutive ones.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct EntryName {
    /// Of the job.
    pub priority: Priority,
    /// Where the data is from.
    pub dataset: Name,
    /// What the first subtask works on.
    pub spot: Spot,
    /// The node that keeps its blocks; none where all nodes reach them alike.
    pub host: Option<Name>,
    /// Given by the leading dispatcher, unique for the life of the roots.
    pub sequence: u64,
}

impl EntryName {
    /// What data the entry is near to, for the rendezvous hash: `dataset:block`.
    pub fn locality_key(&self) -> String {
        format!("{}:{}", self.dataset, self.spot)
    }

    fn rank(&self) -> (std::cmp::Reverse<Priority>, u64) {
        (std::cmp::Reverse(self.priority), self.sequence)
    }
}

impl fmt::Display for EntryName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "entry-{:03}-{}:{}", self.priority.0, self.dataset, self.spot)?;
        if let Some(host) = &self.host {
            write!(f, "@{host}")?;
        }
        write!(f, "-{:010}", self.sequence)
    }
}

/// In the order of claiming: higher priority first, then lower sequence.
impl Ord for EntryName {
    fn cmp(&self, other: &Self) -> Ordering {
        self.rank()
            .cmp(&other.rank())
            .then_with(|| self.dataset.cmp(&other.dataset))
            .then_with(|| self.spot.cmp(&other.spot))
            .then_with(|| self.host.cmp(&other.host))
    }
}

impl PartialOrd for EntryName {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

/// A znode name that is no [`EntryName`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no entry name: expected entry-PPP-DATASET:BLOCK[@NODE]-SSSSSSSSSS")]
pub struct BadEntryName(pub String);

impl FromStr for EntryName {
    type Err = BadEntryName;

    fn from_str(text: &str) -> Result<Self, BadEntryName> {
        parse(text).ok_or_else(|| BadEntryName(text.to_string()))
    }
}

fn parse(text: &str) -> Option<EntryName> {
    let rest = text.strip_prefix("entry-")?;
    let (priority, rest) = rest.split_at_checked(3)?;
    let rest = rest.strip_prefix('-')?;
    let (rest, sequence) = rest.rsplit_once('-')?;
    let (dataset, spot) = rest.rsplit_once(':')?;
    let (spot, host) = match spot.split_once('@') {
        Some((spot, host)) => (spot, Some(Name::new(host).ok()?)),
        None => (spot, None),
    };
    if sequence.len() < 10 || (sequence.len() > 10 && sequence.starts_with('0')) {
        return None;
    }
    let digits = spot.len();
    let spot = if spot == "merge" {
        Spot::Merge
    } else {
        Spot::Block(number(spot)?)
    };
    if let Spot::Block(index) = spot
        && index.to_string().len() != digits
    {
        return None;
    }
    Some(EntryName {
        priority: Priority::new(number(priority)?).ok()?,
        dataset: Name::new(dataset).ok()?,
        spot,
        host,
        sequence: number(sequence)?,
    })
}

/// Digits only: `parse` of the standard library would also take a sign.
fn number<T: FromStr>(text: &str) -> Option<T> {
    if text.bytes().all(|b| b.is_ascii_digit()) {
        text.parse().ok()
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn any_entry() -> impl Strategy<Value = EntryName> {
        let spot = prop_oneof![Just(Spot::Merge), any::<u32>().prop_map(Spot::Block)];
        let name = || "[A-Za-z0-9][A-Za-z0-9._-]{0,63}".prop_map(|name| Name::new(name).unwrap());
        let host = prop::option::of(name());
        (0u16..=999, name(), spot, host, any::<u64>()).prop_map(
            |(priority, dataset, spot, host, sequence)| EntryName {
                priority: Priority::new(priority).unwrap(),
                dataset,
                spot,
                host,
                sequence,
            },
        )
    }

    proptest! {
        #[test]
        fn prints_and_parses_back(entry in any_entry()) {
            prop_assert_eq!(entry.to_string().parse::<EntryName>().unwrap(), entry);
        }

        #[test]
        fn whatever_parses_prints_the_same(text in "entry-[0-9]{3}-[a-z:-]{1,8}:[0-9]{1,3}(@[a-z:@-]{0,4})?-[0-9]{9,11}") {
            if let Ok(entry) = text.parse::<EntryName>() {
                prop_assert_eq!(entry.to_string(), text);
            }
        }

        #[test]
        fn never_panics(text in "\\PC*") {
            let _ = text.parse::<EntryName>();
        }

        #[test]
        fn higher_priority_first_then_lower_sequence(a in any_entry(), b in any_entry()) {
            if a.priority != b.priority {
                prop_assert_eq!(a < b, a.priority > b.priority);
            } else if a.sequence != b.sequence {
                prop_assert_eq!(a < b, a.sequence < b.sequence);
            }
        }
    }

    #[test]
    fn looks_as_documented() {
        let entry: EntryName = "entry-100-nginx:42-0000000017".parse().unwrap();
        assert_eq!(
            (entry.priority.get(), entry.spot, entry.sequence),
            (100, Spot::Block(42), 17)
        );
        assert_eq!(entry.locality_key(), "nginx:42");
        let kept: EntryName = "entry-100-nginx:42@rack1-a-0000000017".parse().unwrap();
        assert_eq!(
            (kept.spot, kept.host.unwrap().as_str()),
            (Spot::Block(42), "rack1-a")
        );
        for bad in [
            "entry-100-nginx:42-17",
            "entry-+10-n:4-0000000017",
            "entry-1000-n:4-0000000017",
            "entry-100-n-0000000017",
            "entry-100-n:042-0000000017",
            "entry-100-n:4-00000000017",
            "entry-100-n:4@-0000000017",
            "entry-100-n:4@a@b-0000000017",
            "client-web7",
            "entry-é00-n:4-0000000017",
        ] {
            assert!(bad.parse::<EntryName>().is_err(), "{bad}");
        }
    }
}
