//! Tokens: what a script shows instead of a certificate. Only its hash is kept anywhere.

use std::{fmt, str::FromStr};

use rustls::crypto::aws_lc_rs;

use crate::certificate::hex;

/// What every token begins with, so that scanners for secrets find it.
const PREFIX: &str = "sawmill_";

/// Random bytes of a token.
const BYTES: usize = 32;

/// 256 random bits that stand for a user. Its text is shown once, when it is made; it is not shown by `Debug`.
#[derive(Clone, PartialEq, Eq)]
pub struct Token([u8; BYTES]);

/// A text that is no token.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no token: it is {PREFIX} and 64 hexadecimal digits, as `sawmill token create` prints it")]
pub struct BadToken;

/// The system gives no random numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the system gives no random numbers")]
pub struct NoRandomness;

impl Token {
    /// A new one.
    ///
    /// # Errors
    /// [`NoRandomness`].
    pub fn generate() -> Result<Self, NoRandomness> {
        let mut bytes = [0; BYTES];
        let random = aws_lc_rs::default_provider().secure_random;
        random.fill(&mut bytes).map_err(|_| NoRandomness)?;
        Ok(Self(bytes))
    }

    /// Its text, to be shown to whom it is for.
    pub fn expose(&self) -> String {
        format!("{PREFIX}{}", hex(&self.0))
    }

    /// Whether it is the same, in a time that does not tell how much of it is.
    pub fn is(&self, other: &Self) -> bool {
        // Digests compare in constant time.
        blake3::hash(&self.0) == blake3::hash(&other.0)
    }

    /// What is kept of it: BLAKE3 in hexadecimal digits. It has 256 random bits, so that no salt is needed.
    pub fn hash(&self) -> String {
        blake3::hash(&self.0).to_hex().to_string()
    }
}

impl FromStr for Token {
    type Err = BadToken;

    fn from_str(text: &str) -> Result<Self, BadToken> {
        let digits = text.strip_prefix(PREFIX).ok_or(BadToken)?.as_bytes();
        if digits.len() != 2 * BYTES {
            return Err(BadToken);
        }
        let mut bytes = [0; BYTES];
        for (byte, pair) in bytes.iter_mut().zip(digits.chunks(2)) {
            let digit = |place: usize| char::from(pair[place]).to_digit(16).ok_or(BadToken);
            *byte = u8::try_from(digit(0)? * 16 + digit(1)?).map_err(|_| BadToken)?;
        }
        Ok(Self(bytes))
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(***)")
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn each_is_another_and_is_read_as_it_was_shown() {
        let (one, other) = (Token::generate().unwrap(), Token::generate().unwrap());
        assert_ne!(one.hash(), other.hash());
        assert!(one.is(&one.clone()) && !one.is(&other));
        assert_eq!(one.expose().parse(), Ok(one.clone()));
        assert!(!format!("{one:?}").contains(&one.expose()[10..]));
    }

    proptest! {
        #[test]
        fn nothing_else_is_a_token(text in prop_oneof![any::<String>(), "sawmill_[0-9a-fA-F+ é]{60,66}"]) {
            if let Ok(token) = text.parse::<Token>() {
                prop_assert_eq!(token.expose(), text.to_lowercase());
            }
        }
    }
}
