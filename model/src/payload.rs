//! Bytes that travel: small ones inside a znode or document, large ones by reference into the block store.

use base64::{Engine, engine::general_purpose::STANDARD};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};

/// Arbitrary bytes, written as text where they are UTF-8 so that `zkCli` shows them, else as `{"base64": …}`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Payload(pub Vec<u8>);

#[derive(Serialize, Deserialize)]
#[serde(untagged)]
enum Written<'a> {
    Text(std::borrow::Cow<'a, str>),
    Bytes { base64: String },
}

impl Serialize for Payload {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match std::str::from_utf8(&self.0) {
            Ok(text) => serializer.serialize_str(text),
            Err(_) => Written::Bytes {
                base64: STANDARD.encode(&self.0),
            }
            .serialize(serializer),
        }
    }
}

impl<'de> Deserialize<'de> for Payload {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match Written::deserialize(deserializer)? {
            Written::Text(text) => Ok(Self(text.into_owned().into_bytes())),
            Written::Bytes { base64 } => STANDARD.decode(base64).map(Self).map_err(D::Error::custom),
        }
    }
}

impl Payload {
    /// Bytes that it takes inside JSON: control characters become six, quotes and backslashes two.
    pub fn written_bytes(&self) -> usize {
        match std::str::from_utf8(&self.0) {
            Ok(text) => text
                .bytes()
                .map(|b| {
                    if b < 0x20 {
                        6
                    } else {
                        1 + usize::from(b == b'"' || b == b'\\')
                    }
                })
                .sum(),
            Err(_) => self.0.len().div_ceil(3) * 4 + "{\"base64\":\"\"}".len(),
        }
    }
}

impl From<&str> for Payload {
    fn from(text: &str) -> Self {
        Self(text.as_bytes().to_vec())
    }
}

/// What a subtask gave: its bytes, or where in the block store they are.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Output {
    /// The bytes themselves.
    Inline(Payload),
    /// A byte range of an object in the block store.
    Stored {
        /// The object, relative to the root of the block store.
        object: String,
        /// First byte.
        start: u64,
        /// Number of bytes.
        length: u64,
    },
}

impl Output {
    /// Number of bytes of the output itself.
    pub fn len(&self) -> u64 {
        match self {
            Self::Inline(payload) => payload.0.len() as u64,
            Self::Stored { length, .. } => *length,
        }
    }

    /// Whether the output has no bytes.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_stays_readable_and_bytes_survive() {
        assert_eq!(
            serde_json::to_string(&Payload::from("GET /")).unwrap(),
            "\"GET /\""
        );
        let bytes = Payload(vec![0xff, 0, 0x41]);
        let json = serde_json::to_string(&bytes).unwrap();
        assert_eq!(json, r#"{"base64":"/wBB"}"#);
        assert_eq!(serde_json::from_str::<Payload>(&json).unwrap(), bytes);
        for payload in [bytes, Payload::from("a\u{1}b\"c\\"), Payload::default()] {
            let quotes = if std::str::from_utf8(&payload.0).is_ok() {
                2
            } else {
                0
            };
            assert_eq!(
                payload.written_bytes() + quotes,
                serde_json::to_string(&payload).unwrap().len()
            );
        }
    }
}
