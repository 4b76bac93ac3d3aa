//! Names that users give: datasets, nodes, queues.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

use crate::limits::NAME_CHARS;

/// A valid name of a dataset, node or queue: 1 to 64 characters of `A-Z a-z 0-9 . _ -`, the first a letter or digit.
///
/// The rule keeps names safe inside a znode path and makes entry names parse without escapes.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Name(String);

/// A string that is no [`Name`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "bad name {0:?}: a name has 1 to {NAME_CHARS} characters of A-Z a-z 0-9 . _ - and starts with a letter or digit"
)]
pub struct BadName(pub String);

impl Name {
    /// Checks `text` against the rule.
    ///
    /// # Errors
    /// [`BadName`] with the offending text.
    pub fn new(text: impl Into<String>) -> Result<Self, BadName> {
        let text = text.into();
        let starts_well = text.bytes().next().is_some_and(|b| b.is_ascii_alphanumeric());
        let all_good = text
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-'));
        if starts_well && all_good && text.len() <= NAME_CHARS {
            Ok(Self(text))
        } else {
            Err(BadName(text))
        }
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl FromStr for Name {
    type Err = BadName;
    fn from_str(text: &str) -> Result<Self, BadName> {
        Self::new(text)
    }
}

impl TryFrom<String> for Name {
    type Error = BadName;
    fn try_from(text: String) -> Result<Self, BadName> {
        Self::new(text)
    }
}

impl From<Name> for String {
    fn from(name: Name) -> String {
        name.0
    }
}

impl AsRef<str> for Name {
    fn as_ref(&self) -> &str {
        &self.0
    }
}

/// The name that somebody who wrote `wanted` most likely meant; none when none is like it.
pub fn nearest<'a>(wanted: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let wanted = wanted.to_lowercase();
    let distance = |name: &str| strsim::damerau_levenshtein(&wanted, &name.to_lowercase());
    let near = known
        .into_iter()
        .map(|name| (distance(name), name))
        .min_by_key(|(distance, _)| *distance)?;
    (near.0 <= wanted.chars().count().div_ceil(3)).then_some(near.1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accepts_the_rule_and_nothing_else() {
        for good in ["a", "nginx", "web-7.example_com", "0", &"x".repeat(64)] {
            assert!(Name::new(good).is_ok(), "{good}");
        }
        for bad in ["", "-a", ".a", "a/b", "a:b", "a b", "ä", &"x".repeat(65)] {
            assert_eq!(Name::new(bad), Err(BadName(bad.to_string())));
        }
    }

    #[test]
    fn a_typing_error_is_told_from_another_name() {
        let known = ["access", "syslog"];
        assert_eq!(nearest("acess", known), Some("access"));
        assert_eq!(nearest("SYSLOG", known), Some("syslog"));
        assert_eq!(nearest("orders", known), None);
        assert_eq!(nearest("access", []), None);
    }
}
