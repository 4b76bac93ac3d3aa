//! Whom a certificate stands for, and what it allows.

use std::{collections::BTreeSet, fmt, str::FromStr};

use model::Name;

/// What somebody is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Role {
    /// Submits and looks at jobs.
    User,
    /// Ships logs.
    Agent,
    /// A compute node.
    Worker,
    /// A dispatcher with its gateway.
    Dispatcher,
    /// Records.
    Watcher,
    /// May do everything.
    Admin,
}

impl Role {
    /// All roles.
    pub const ALL: [Self; 6] = [
        Self::User,
        Self::Agent,
        Self::Worker,
        Self::Dispatcher,
        Self::Watcher,
        Self::Admin,
    ];

    /// The word for it, as in certificates.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::User => "user",
            Self::Agent => "agent",
            Self::Worker => "worker",
            Self::Dispatcher => "dispatcher",
            Self::Watcher => "watcher",
            Self::Admin => "admin",
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// A word that is no role.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no role: it is user, agent, worker, dispatcher, watcher or admin")]
pub struct BadRole(pub String);

impl FromStr for Role {
    type Err = BadRole;

    fn from_str(text: &str) -> Result<Self, BadRole> {
        let found = Self::ALL.into_iter().find(|role| role.as_str() == text);
        found.ok_or_else(|| BadRole(text.to_string()))
    }
}

/// What a user may be allowed to manage although it belongs to all.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Managed {
    /// Adding, removing, compacting datasets, and what they keep.
    Datasets,
    /// Cancelling the jobs of others.
    Jobs,
    /// Creating, pausing and removing views, and writing answers into collections.
    Views,
    /// Pausing, moving and removing agents.
    Agents,
}

impl Managed {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Datasets, Self::Jobs, Self::Views, Self::Agents];

    /// The word for it, as in certificates.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Datasets => "datasets",
            Self::Jobs => "jobs",
            Self::Views => "views",
            Self::Agents => "agents",
        }
    }
}

impl fmt::Display for Managed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// A word for nothing that can be managed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} can't be managed: it is datasets, jobs, views or agents")]
pub struct BadManaged(pub String);

impl FromStr for Managed {
    type Err = BadManaged;

    fn from_str(text: &str) -> Result<Self, BadManaged> {
        let found = Self::ALL.into_iter().find(|managed| managed.as_str() == text);
        found.ok_or_else(|| BadManaged(text.to_string()))
    }
}

/// What a certificate allows beyond its role.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rights {
    /// Datasets that an agent may ship to: names, or beginnings of names that end in `*`.
    pub datasets: Vec<String>,
    /// Queues that a user may submit to, written in the same way.
    pub queues: Vec<String>,
    /// Whether a user may submit commands.
    pub may_exec: bool,
    /// What a user may manage.
    pub manages: BTreeSet<Managed>,
}

/// Who is at the other end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Peer {
    /// What it is.
    pub role: Role,
    /// Its name.
    pub name: Name,
    /// What it may do.
    pub rights: Rights,
}

impl Peer {
    /// The user of the process itself, who connects to it on loopback without TLS: an administrator.
    pub fn local() -> Self {
        Self {
            role: Role::Admin,
            name: Name::new("local").expect("a valid name"),
            rights: Rights::default(),
        }
    }

    /// Whether it may ship to a dataset.
    pub fn may_ship_to(&self, dataset: &Name) -> bool {
        match self.role {
            Role::Admin => true,
            Role::Agent => matches(&self.rights.datasets, dataset.as_str()),
            _ => false,
        }
    }

    /// Whether it may submit to a queue.
    pub fn may_submit_to(&self, queue: &str) -> bool {
        match self.role {
            Role::Admin => true,
            Role::User => matches(&self.rights.queues, queue),
            _ => false,
        }
    }

    /// Whether it may submit commands.
    pub fn may_exec(&self) -> bool {
        self.role == Role::Admin || (self.role == Role::User && self.rights.may_exec)
    }

    /// Whether it may manage such things.
    pub fn may_manage(&self, what: Managed) -> bool {
        self.role == Role::Admin || (self.role == Role::User && self.rights.manages.contains(&what))
    }
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.role, self.name)
    }
}

fn matches(patterns: &[String], name: &str) -> bool {
    patterns.iter().any(|pattern| match pattern.strip_suffix('*') {
        Some(beginning) => name.starts_with(beginning),
        None => pattern == name,
    })
}
