//! Texts that must not be shown.

use std::fmt;

/// A text that is, or contains, a password. Shown only with the password replaced by `***`.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

/// What stands in place of a password.
const MASK: &str = "***";

/// Parameters of a connection string whose values are secrets, in lower case.
const SECRET_PARAMETERS: [&str; 3] = [
    "authmechanismproperties",
    "tlscertificatekeyfilepassword",
    "password",
];

impl Secret {
    /// Takes a text in charge.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The text itself, to be handed to what needs it and to nothing else.
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// The text with every password in it replaced: of a URL only those parts, of `user:password` the password.
    pub fn masked(&self) -> String {
        match self.0.split_once("://") {
            Some((scheme, rest)) => format!("{scheme}://{}", mask_url_rest(rest)),
            None => mask_credentials(&self.0),
        }
    }
}

fn mask_credentials(text: &str) -> String {
    match text.split_once(':') {
        Some((user, _)) => format!("{user}:{MASK}"),
        None => MASK.to_string(),
    }
}

fn mask_url_rest(rest: &str) -> String {
    // An unescaped '/' or '?' in a password is wrong, and yet must not show it: the last '@' ends the credentials.
    let rest = match rest.rsplit_once('@') {
        Some((credentials, tail)) if credentials.contains(':') => {
            format!("{}@{tail}", mask_credentials(credentials))
        }
        _ => rest.to_string(),
    };
    let Some((head, query)) = rest.split_once('?') else {
        return rest;
    };
    let parameters = query.split('&').map(|parameter| match parameter.split_once('=') {
        Some((name, _)) if SECRET_PARAMETERS.contains(&name.to_lowercase().as_str()) => {
            format!("{name}={MASK}")
        }
        _ => parameter.to_string(),
    });
    format!("{head}?{}", parameters.collect::<Vec<_>>().join("&"))
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.masked())
    }
}

impl fmt::Display for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.masked())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shows_everything_but_the_password() {
        let cases = [
            ("mill:topsecret", "mill:***"),
            ("topsecret", "***"),
            (
                "mongodb://localhost:27017/sawmill",
                "mongodb://localhost:27017/sawmill",
            ),
            ("mongodb://me@db:27017/sawmill", "mongodb://me@db:27017/sawmill"),
            (
                "mongodb://me:pa:ss@db,db2:1/x?w=1",
                "mongodb://me:***@db,db2:1/x?w=1",
            ),
            ("mongodb://me:p/a?s@s@db/x", "mongodb://me:***@db/x"),
            (
                "mongodb+srv://db/x?tlsCertificateKeyFilePassword=hush&w=2",
                "mongodb+srv://db/x?tlsCertificateKeyFilePassword=***&w=2",
            ),
        ];
        for (secret, shown) in cases {
            assert_eq!(Secret::new(secret).masked(), shown);
            assert_eq!(format!("{:?}", Secret::new(secret)), shown);
        }
    }
}
