//! The one URI in which a certificate tells role, name and rights: `sawmill://agent/web7?dataset=access&dataset=app-*`.
//!
//! Promise: what [`Peer::to_uri`] writes, [`Peer::from_uri`] reads as the same peer; what is not exactly of this form is
//! refused, so that a right of a later release is never taken for none. Nothing is escaped: no part may hold a character
//! that would need it.

use std::fmt::Write as _;

use model::{Name, limits::NAME_CHARS};

use crate::{Managed, Peer, Rights, Role};

/// Longest URI, in bytes.
pub const URI_BYTES: usize = 16 * 1024;

/// Most datasets, and most queues, in one certificate.
pub const PATTERNS_MAX: usize = 128;

const SCHEME: &str = "sawmill://";

/// A URI that names no peer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadUri {
    /// There is none, or there are several.
    #[error("it holds {0} names of the form {SCHEME}ROLE/NAME, and should hold one")]
    Count(usize),
    /// Longer than [`URI_BYTES`], or with more than [`PATTERNS_MAX`] datasets or queues.
    #[error("more than {PATTERNS_MAX} datasets or queues, or {URI_BYTES} bytes")]
    TooLong,
    /// Not of the form.
    #[error("{0:?} is not of the form {SCHEME}ROLE/NAME?dataset=…&queue=…&may-exec&may-manage=…")]
    Form(String),
    /// No role.
    #[error(transparent)]
    Role(#[from] crate::peer::BadRole),
    /// No name.
    #[error(transparent)]
    Name(#[from] model::name::BadName),
    /// No dataset or queue.
    #[error("bad {kind} {pattern:?}: it is a name, or the beginning of one followed by *")]
    Pattern {
        /// `dataset` or `queue`.
        kind: &'static str,
        /// As given.
        pattern: String,
    },
    /// Nothing that can be managed.
    #[error(transparent)]
    Managed(#[from] crate::peer::BadManaged),
    /// A right that means nothing for the role.
    #[error(
        "{right} is no right of the role {role}: datasets are for agents; queues, may-exec and may-manage for users"
    )]
    Right {
        /// Which.
        right: &'static str,
        /// Whose.
        role: Role,
    },
}

impl Peer {
    /// A peer whose rights suit its role.
    ///
    /// # Errors
    /// [`BadUri::Pattern`], [`BadUri::Right`], [`BadUri::TooLong`].
    pub fn new(role: Role, name: Name, rights: Rights) -> Result<Self, BadUri> {
        rights.check(role)?;
        Ok(Self { role, name, rights })
    }

    /// Role, name and rights as text, as they are in a certificate.
    pub fn to_uri(&self) -> String {
        let mut uri = format!("{SCHEME}{}/{}", self.role, self.name);
        let mut sign = '?';
        let mut add = |part: std::fmt::Arguments<'_>| {
            // Writing to a string does not fail.
            write!(uri, "{sign}{part}").unwrap_or_default();
            sign = '&';
        };
        let Rights {
            datasets,
            queues,
            may_exec,
            manages,
        } = &self.rights;
        datasets
            .iter()
            .for_each(|dataset| add(format_args!("dataset={dataset}")));
        queues.iter().for_each(|queue| add(format_args!("queue={queue}")));
        if *may_exec {
            add(format_args!("may-exec"));
        }
        manages
            .iter()
            .for_each(|managed| add(format_args!("may-manage={managed}")));
        uri
    }

    /// Reads such a text.
    ///
    /// # Errors
    /// [`BadUri`].
    pub fn from_uri(uri: &str) -> Result<Self, BadUri> {
        if uri.len() > URI_BYTES {
            return Err(BadUri::TooLong);
        }
        let form = || BadUri::Form(uri.to_string());
        let rest = uri.strip_prefix(SCHEME).ok_or_else(form)?;
        let (who, query) = match rest.split_once('?') {
            Some((who, query)) => (who, Some(query)),
            None => (rest, None),
        };
        let (role, name) = who.split_once('/').ok_or_else(form)?;
        let mut rights = Rights::default();
        for part in query.into_iter().flat_map(|query| query.split('&')) {
            match part.split_once('=') {
                Some(("dataset", dataset)) => rights.datasets.push(dataset.to_string()),
                Some(("queue", queue)) => rights.queues.push(queue.to_string()),
                Some(("may-manage", managed)) => {
                    if !rights.manages.insert(managed.parse::<Managed>()?) {
                        return Err(form());
                    }
                }
                None if part == "may-exec" && !rights.may_exec => rights.may_exec = true,
                _ => return Err(form()),
            }
        }
        Self::new(role.parse()?, Name::new(name)?, rights)
    }
}

impl Rights {
    /// Checks that these are rights of `role`.
    ///
    /// # Errors
    /// [`BadUri::Pattern`], [`BadUri::Right`], [`BadUri::TooLong`].
    pub fn check(&self, role: Role) -> Result<(), BadUri> {
        let wrong = |right| Err(BadUri::Right { right, role });
        if !self.datasets.is_empty() && role != Role::Agent {
            return wrong("dataset");
        }
        if !self.queues.is_empty() && role != Role::User {
            return wrong("queue");
        }
        if self.may_exec && role != Role::User {
            return wrong("may-exec");
        }
        if !self.manages.is_empty() && role != Role::User {
            return wrong("may-manage");
        }
        if self.datasets.len().max(self.queues.len()) > PATTERNS_MAX {
            return Err(BadUri::TooLong);
        }
        for (kind, patterns) in [("dataset", &self.datasets), ("queue", &self.queues)] {
            if let Some(pattern) = patterns.iter().find(|pattern| !is_pattern(pattern)) {
                let pattern = pattern.clone();
                return Err(BadUri::Pattern { kind, pattern });
            }
        }
        Ok(())
    }
}

/// A name, or a beginning of one (which may be empty) with a `*` behind it.
fn is_pattern(text: &str) -> bool {
    match text.strip_suffix('*') {
        Some("") => true,
        Some(beginning) => beginning.len() <= NAME_CHARS && Name::new(beginning).is_ok(),
        None => Name::new(text).is_ok(),
    }
}

#[cfg(test)]
mod tests {
    use proptest::{collection::vec, prelude::*};

    use super::*;

    fn name() -> impl Strategy<Value = Name> {
        "[a-zA-Z0-9][a-zA-Z0-9._-]{0,63}".prop_map(|text| Name::new(text).unwrap())
    }

    fn pattern() -> impl Strategy<Value = String> {
        prop_oneof![
            Just("*".to_string()),
            name().prop_map(String::from),
            name().prop_map(|name| format!("{name}*")),
        ]
    }

    fn peer() -> impl Strategy<Value = Peer> {
        let role = prop::sample::select(Role::ALL.to_vec());
        let managed = prop::sample::subsequence(Managed::ALL.to_vec(), 0..=Managed::ALL.len());
        (role, name(), vec(pattern(), 0..6), any::<bool>(), managed).prop_map(
            |(role, name, patterns, may_exec, managed)| {
                let mut rights = Rights::default();
                match role {
                    Role::Agent => rights.datasets = patterns,
                    Role::User => {
                        rights = Rights {
                            queues: patterns,
                            may_exec,
                            manages: managed.into_iter().collect(),
                            ..rights
                        }
                    }
                    _ => {}
                }
                Peer::new(role, name, rights).unwrap()
            },
        )
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(peer in peer()) {
            prop_assert_eq!(Peer::from_uri(&peer.to_uri()), Ok(peer));
        }

        #[test]
        fn no_text_makes_it_panic_and_what_it_reads_it_writes_alike(
            text in prop_oneof![
                any::<String>(),
                "sawmill://(user|agent|admin|x)?/?[a-z*.-]{0,8}[?&]?((dataset|queue|may-exec|may-manage|views|jobs|=|&|\\*|[a-z]{1,3}|\u{e9})){0,9}",
            ]
        ) {
            if let Ok(peer) = Peer::from_uri(&text) {
                prop_assert_eq!(Peer::from_uri(&peer.to_uri()), Ok(peer));
            }
        }

        /// One changed character never turns into more rights of the same peer.
        #[test]
        fn a_right_is_what_is_written_and_no_more(peer in peer(), dataset in name(), queue in name()) {
            let by_hand = |patterns: &[String], name: &Name| patterns.iter().any(|pattern| {
                pattern.as_str() == name.as_str()
                    || (pattern.ends_with('*') && name.as_str().starts_with(&pattern[..pattern.len() - 1]))
            });
            let admin = peer.role == Role::Admin;
            prop_assert_eq!(peer.may_ship_to(&dataset), admin || by_hand(&peer.rights.datasets, &dataset));
            prop_assert_eq!(peer.may_submit_to(queue.as_str()), admin || by_hand(&peer.rights.queues, &queue));
            prop_assert_eq!(peer.may_exec(), admin || peer.rights.may_exec);
            for managed in Managed::ALL {
                let named = peer.to_uri().contains(&format!("may-manage={managed}"));
                prop_assert_eq!(peer.may_manage(managed), admin || named);
            }
        }
    }

    #[test]
    fn what_is_not_of_the_form_is_refused() {
        for bad in [
            "",
            "sawmill://",
            "sawmill://user",
            "sawmill://user/",
            "sawmill://root/anna",
            "http://user/anna",
            "sawmill://user/anna?",
            "sawmill://user/anna?may-exec=1",
            "sawmill://user/anna?may-exec&may-exec",
            "sawmill://user/anna?may-manage",
            "sawmill://user/anna?may-manage=",
            "sawmill://user/anna?may-manage=everything",
            "sawmill://user/anna?may-manage=views&may-manage=views",
            "sawmill://agent/web7?may-manage=datasets",
            "sawmill://admin/root?may-manage=jobs",
            "sawmill://user/anna?dataset=x",
            "sawmill://agent/web7?queue=x",
            "sawmill://agent/web7?dataset=",
            "sawmill://agent/web7?dataset=a/b",
            "sawmill://agent/web7?dataset=a*b",
            "sawmill://agent/web7?dataset=-*",
            "sawmill://agent/../web7",
            "sawmill://admin/a?later=1",
        ] {
            assert!(Peer::from_uri(bad).is_err(), "{bad}");
        }
        let many = "&queue=q".repeat(PATTERNS_MAX);
        assert_eq!(
            Peer::from_uri(&format!("sawmill://user/anna?may-exec{many}"))
                .map(|peer| peer.rights.queues.len()),
            Ok(PATTERNS_MAX)
        );
        assert_eq!(
            Peer::from_uri(&format!("sawmill://user/anna?queue=q{many}")),
            Err(BadUri::TooLong)
        );
    }

    #[test]
    fn the_documented_examples_are_read() {
        let agent = Peer::from_uri("sawmill://agent/web7?dataset=access&dataset=app-*").unwrap();
        assert!(agent.may_ship_to(&Name::new("app-1").unwrap()));
        assert!(!agent.may_ship_to(&Name::new("access2").unwrap()));
        let user = Peer::from_uri("sawmill://user/anna?queue=default&may-exec").unwrap();
        assert!(user.may_exec() && user.may_submit_to("default") && !user.may_submit_to("night"));
        // One of before there were these rights has none of them.
        assert!(Managed::ALL.iter().all(|managed| !user.may_manage(*managed)));
        let user =
            Peer::from_uri("sawmill://user/ben?queue=default&may-manage=datasets&may-manage=views").unwrap();
        assert!(user.may_manage(Managed::Datasets) && !user.may_manage(Managed::Jobs));
    }
}
