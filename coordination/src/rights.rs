//! Who may do what in ZooKeeper: the user of each role, and the rights of each kind of znode.
//!
//! Promise: where [`protect`] has been, a role has the rights that its steps need and no others, and whoever is no role
//! has none, not even to read. Known to the roles by the znode `/rights`, which the admin alone may write. Without it,
//! znodes are open to the one user of all roles, or to everybody where there is no user.
//! Not promised: what ZooKeeper can't express. CREATE and DELETE are rights on a folder, so whoever may take one entry
//! out of `/unowned` may take them all; and members of one role are one user, except in the folder of a worker, where
//! only that incarnation creates and, beside the dispatchers, deletes.

mod inspect;
mod protect;

use std::fmt;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use model::{FORMAT, znode::Formatted};
use serde::{Deserialize, Serialize};
use sha1::{Digest, Sha1};
use zookeeper_client::{Acl, AuthId, Permission};

pub use inspect::{Loose, loose};
pub use protect::protect;

use crate::{
    error::Error,
    layout::{DONE, OWNED, Office, RIGHTS, UNOWNED, WorkerNumber, is_client},
};

/// Longest name of a user: it stands in the rights of each znode that is created.
const USER_CHARS: usize = 64;
/// Characters of a SHA-1 in base64.
const DIGEST_CHARS: usize = 28;

/// A user of ZooKeeper's digest scheme, `user:BASE64(SHA1(user:password))`. No password, and yet not to be shown: it
/// lets others try passwords.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct UserId(String);

impl UserId {
    /// The user of `user:password`.
    ///
    /// # Errors
    /// What is wrong with the form, without the password.
    pub fn of(credentials: &str) -> Result<Self, String> {
        let id = match credentials.split_once(':') {
            Some((user, password)) if !password.is_empty() => {
                let digest = Sha1::digest(credentials.as_bytes());
                Self(format!("{user}:{}", STANDARD.encode(digest)))
            }
            _ => return Err("expected user:password".to_string()),
        };
        if id.is_valid() {
            Ok(id)
        } else {
            Err(format!(
                "the name of a user has 1 to {USER_CHARS} characters, none of them a blank"
            ))
        }
    }

    fn is_valid(&self) -> bool {
        let plain = |text: &str| text.chars().all(|c| !c.is_whitespace() && !c.is_control());
        self.0.split_once(':').is_some_and(|(user, digest)| {
            !user.is_empty()
                && user.len() <= USER_CHARS
                && plain(user)
                && digest.len() == DIGEST_CHARS
                && !digest.contains(':')
        })
    }

    /// The name of the user.
    pub fn user(&self) -> &str {
        self.0.split(':').next().unwrap_or_default()
    }

    fn may(&self, permission: Permission) -> Acl {
        Acl::new(permission, AuthId::new(DIGEST, &self.0))
    }
}

impl fmt::Debug for UserId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:…", self.user())
    }
}

/// The scheme of all users.
pub(crate) const DIGEST: &str = "digest";

/// The user of each role: the data of `/rights`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Users {
    /// Format number.
    v: u32,
    /// May do everything: the operators.
    pub admin: UserId,
    /// Of the dispatchers.
    pub dispatcher: UserId,
    /// Of the compute nodes.
    pub worker: UserId,
    /// Of the watchers.
    pub watcher: UserId,
}

impl Formatted for Users {
    fn format(&self) -> u32 {
        self.v
    }
}

impl Users {
    /// These users.
    ///
    /// # Errors
    /// Two roles have the same user.
    pub fn new(admin: UserId, dispatcher: UserId, worker: UserId, watcher: UserId) -> Result<Self, String> {
        let users = Self {
            v: FORMAT,
            admin,
            dispatcher,
            worker,
            watcher,
        };
        let all = users.all();
        for (at, (role, id)) in all.iter().enumerate() {
            if let Some((other, _)) = all[..at].iter().find(|(_, other)| other == id) {
                return Err(format!(
                    "{other} and {role} have the same user: each needs its own"
                ));
            }
        }
        Ok(users)
    }

    fn all(&self) -> [(&'static str, &UserId); 4] {
        [
            ("admin", &self.admin),
            ("dispatcher", &self.dispatcher),
            ("worker", &self.worker),
            ("watcher", &self.watcher),
        ]
    }

    /// The role whose user `user:password` is; none for a stranger.
    pub fn role_of(&self, credentials: &str) -> Option<&'static str> {
        let id = UserId::of(credentials).ok()?;
        let found = self.all().into_iter().find(|(_, other)| **other == id);
        found.map(|(role, _)| role)
    }

    /// Whether all are of the form that ZooKeeper takes.
    pub(crate) fn are_valid(&self) -> bool {
        self.all().iter().all(|(_, id)| id.is_valid())
    }
}

/// What a znode is, as far as rights go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// A folder above the chroot.
    Above,
    /// The chroot.
    Chroot,
    /// `/rights`.
    Rights,
    /// `/unowned`.
    Unowned,
    /// `/owned`.
    Owned,
    /// `/done`.
    Done,
    /// `/owned/dispatcher`.
    Dispatchers,
    /// `/owned/watcher`.
    Watchers,
    /// `/owned/worker-N`.
    Worker,
    /// `/unowned/client-NAME`.
    Waiting,
    /// An entry, a candidate, `alive`, an agent that is held.
    Leaf,
}

impl Kind {
    /// All of them.
    const ALL: [Self; 11] = [
        Self::Above,
        Self::Chroot,
        Self::Rights,
        Self::Unowned,
        Self::Owned,
        Self::Done,
        Self::Dispatchers,
        Self::Watchers,
        Self::Worker,
        Self::Waiting,
        Self::Leaf,
    ];

    /// What the znode at a path below the chroot is.
    pub(crate) fn of(path: &str) -> Self {
        match path {
            "/" => return Self::Chroot,
            RIGHTS => return Self::Rights,
            UNOWNED => return Self::Unowned,
            OWNED => return Self::Owned,
            DONE => return Self::Done,
            _ if path == Office::Dispatcher.path() => return Self::Dispatchers,
            _ if path == Office::Watcher.path() => return Self::Watchers,
            _ => {}
        }
        match path.rsplit_once('/') {
            Some((OWNED, name)) if name.parse::<WorkerNumber>().is_ok() => Self::Worker,
            Some((UNOWNED, name)) if is_client(name) => Self::Waiting,
            _ => Self::Leaf,
        }
    }

    /// What dispatchers, workers and watchers may beside reading: each for a step of theirs.
    fn beside_reading(self) -> [Permission; 3] {
        const NONE: Permission = Permission::NONE;
        let (create, delete, write) = (Permission::CREATE, Permission::DELETE, Permission::WRITE);
        match self {
            // Whoever comes first to an empty ZooKeeper.
            Self::Above => [create, create, create],
            // The leader creates roots that are missing.
            Self::Chroot => [create, NONE, NONE],
            Self::Rights | Self::Leaf => [NONE; 3],
            // Feed, attach and revoke; claim and accept.
            Self::Unowned => [create | delete | write, delete, NONE],
            // Recover deletes folders, offices that are missing are created; register and resign.
            Self::Owned => [create | delete, create | delete | write, NONE],
            // Recover and revoke; finish; record.
            Self::Done => [create, create, delete],
            Self::Dispatchers => [create | delete, NONE, NONE],
            Self::Watchers => [NONE, NONE, create | delete],
            // Recover, revoke, move; wake. Claim, accept, finish and resign: see `Granted::folder`.
            Self::Worker => [delete | write, NONE, NONE],
            // Offer.
            Self::Waiting => [write, NONE, NONE],
        }
    }
}

/// The rights of znodes that a session creates.
#[derive(Debug)]
pub(crate) struct Granted {
    users: Users,
    /// By kind, in the order of [`Kind::ALL`].
    lists: Vec<Vec<Acl>>,
}

impl Granted {
    pub(crate) fn to(users: &Users) -> Self {
        let list = |kind: Kind| {
            let [dispatcher, worker, watcher] = kind.beside_reading();
            vec![
                users.admin.may(Permission::ALL),
                users.dispatcher.may(Permission::READ | dispatcher),
                users.worker.may(Permission::READ | worker),
                users.watcher.may(Permission::READ | watcher),
            ]
        };
        Self {
            users: users.clone(),
            lists: Kind::ALL.into_iter().map(list).collect(),
        }
    }

    pub(crate) fn users(&self) -> &Users {
        &self.users
    }

    pub(crate) fn list(&self, kind: Kind) -> &[Acl] {
        &self.lists[kind as usize]
    }

    /// The rights of a worker's folder: its entries are created and deleted by this incarnation alone.
    pub(crate) fn folder(&self, own: &[Acl]) -> Vec<Acl> {
        [self.list(Kind::Worker), own].concat()
    }
}

/// The name of the user that an incarnation of a worker has beside that of its role.
const INCARNATION: &str = "incarnation";

/// New credentials of an incarnation, and what they may in its folder. They live as long as its session.
pub(crate) fn incarnation() -> (String, Vec<Acl>) {
    let credentials = format!("{INCARNATION}:{:032x}", rand::random::<u128>());
    let id = UserId::of(&credentials).map(|id| id.may(Permission::CREATE | Permission::DELETE));
    (credentials, id.into_iter().collect())
}

/// Whether these rights are those of an incarnation in its folder.
fn is_incarnation(acl: &Acl) -> bool {
    acl.scheme() == DIGEST && acl.id().split(':').next() == Some(INCARNATION)
}

/// The error of users that can't be used.
pub(crate) fn bad_users(why: impl fmt::Display) -> Error {
    Error::BadData {
        path: RIGHTS.to_string(),
        why: why.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn users() -> Users {
        let id = |name: &str| UserId::of(&format!("{name}:secret")).unwrap();
        Users::new(id("admin"), id("dispatcher"), id("worker"), id("watcher")).unwrap()
    }

    #[test]
    fn digests_are_those_of_zookeeper() {
        // As `DigestAuthenticationProvider.generateDigest` of ZooKeeper gives it.
        let id = UserId::of("super:admin").unwrap();
        assert_eq!(id.0, "super:xQJmxLMiHGwaqBvst5y6rkB6HQs=");
        assert_eq!(format!("{id:?}"), "super:…");
        let long = format!("{}:x", "u".repeat(USER_CHARS + 1));
        for bad in ["", "user", "user:", ":secret", "a b:secret", &long] {
            assert!(UserId::of(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn each_role_has_its_own_user() {
        let users = users();
        assert_eq!(users.role_of("worker:secret"), Some("worker"));
        assert_eq!(users.role_of("worker:other"), None);
        let same = users.worker.clone();
        let failure = Users::new(users.admin.clone(), same.clone(), same, users.watcher.clone());
        assert!(failure.unwrap_err().contains("dispatcher and worker"));
        let encoded = model::znode::encode(&users);
        assert_eq!(model::znode::decode::<Users>(&encoded).unwrap(), users);
    }

    #[test]
    fn kinds_are_in_order_and_nothing_is_open_to_the_world() {
        let granted = Granted::to(&users());
        for (at, kind) in Kind::ALL.into_iter().enumerate() {
            assert_eq!(kind as usize, at);
            let list = granted.list(kind);
            assert!(list.iter().all(|acl| acl.scheme() == DIGEST));
            let admins = list.iter().filter(|acl| acl.permission().has(Permission::ADMIN));
            assert_eq!(admins.count(), 1, "{kind:?}");
        }
        let kinds = [
            ("/owned/worker-0000000004", Kind::Worker),
            ("/owned/worker-0000000004/alive", Kind::Leaf),
            ("/owned/worker-0000000004/client-a", Kind::Leaf),
            ("/unowned/client-a", Kind::Waiting),
            ("/owned/watcher", Kind::Watchers),
            ("/owned/watcher/candidate-0000000001", Kind::Leaf),
            ("/", Kind::Chroot),
        ];
        for (path, kind) in kinds {
            assert_eq!(Kind::of(path), kind, "{path}");
        }
    }
}
