//! The users of ZooKeeper that `sawmill init --acl` gives the roles, each in a file of its own.

use std::{
    fs::{self, OpenOptions},
    io::{self, Write},
    os::unix::fs::{OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
};

use anyhow::Context as _;
use coordination::{Term, UserId, Users};
use uuid::Uuid;

use super::Context;
use crate::{
    config::Settings,
    exit::{unless_forced, usage},
};

/// The files, which are named after the roles.
const ROLES: [&str; 4] = ["admin", "dispatcher", "worker", "watcher"];

/// What the files hold, or are to hold.
pub(super) struct Files {
    /// Those that are not there yet, with what goes into them.
    missing: Vec<(PathBuf, String)>,
    /// `user:password` of the admin.
    admin: String,
    users: Users,
}

impl Files {
    /// Reads the files of `folder`; for those that are not there random passwords are made, and written by
    /// [`Files::protect`].
    ///
    /// # Errors
    /// ZooKeeper without a chroot; a file that others may read, or that holds no user.
    pub(super) fn read(folder: &Path, settings: &Settings) -> anyhow::Result<Self> {
        if !settings.zookeeper.contains('/') {
            return Err(usage(format!(
                "--acl needs a folder of the mill's own in ZooKeeper, as in --zookeeper {}/mill: the rights of / are everybody's",
                settings.zookeeper
            )));
        }
        let mut missing = Vec::new();
        let mut held = Vec::new();
        let mut ids = Vec::new();
        for role in ROLES {
            let path = folder.join(role);
            let credentials = match read(&path)? {
                Some(credentials) => credentials,
                None => {
                    let password = [Uuid::new_v4(), Uuid::new_v4()].map(|part| part.simple().to_string());
                    let credentials = format!("{role}:{}", password.concat());
                    missing.push((path.clone(), credentials.clone()));
                    credentials
                }
            };
            let id = UserId::of(&credentials);
            ids.push(id.map_err(|why| usage(format!("{}: {why}", path.display())))?);
            held.push(credentials);
        }
        let [admin, dispatcher, worker, watcher] =
            <[UserId; 4]>::try_from(ids).map_err(|_| usage("a role is missing"))?;
        let users = Users::new(admin, dispatcher, worker, watcher)
            .map_err(|why| usage(format!("{}: {why}", folder.display())))?;
        let admin = held.swap_remove(0);
        Ok(Self {
            missing,
            admin,
            users,
        })
    }

    /// Writes the files that are missing, for their owner alone, and gives the roles their rights, as the user of the settings and as the admin; how many znodes there are.
    ///
    /// # Errors
    /// What can't be reached; a znode that belongs to neither; roles or agents that are connected, unless `force`: nothing is
    /// written then.
    pub(super) async fn protect(&self, context: &Context, force: bool) -> anyhow::Result<usize> {
        let mut config = context.settings.coordination();
        config.auth.get_or_insert_with(|| self.admin.clone());
        if !force {
            let term = Term::begin(&config).await?;
            let idle = coordination::check_idle(&term).await;
            term.close().await;
            idle.map_err(|error| unless_forced("--acl", error))?;
        }
        for (path, credentials) in &self.missing {
            make(path, credentials).with_context(|| format!("can't write {}", path.display()))?;
        }
        let protected = coordination::rights::protect(&config, &[&self.admin], &self.users, force).await;
        let count = protected.map_err(|error| unless_forced("--acl", error))?;
        let users = [
            &self.users.admin,
            &self.users.dispatcher,
            &self.users.worker,
            &self.users.watcher,
        ];
        let named = ROLES.into_iter().zip(users);
        let told: Vec<String> = named.map(|(role, id)| format!("{role}: {}", id.user())).collect();
        let chroot = config.connect.find('/').map(|at| &config.connect[at..]);
        context
            .log("zookeeper.acl", chroot.unwrap_or("/"), told.join(", "))
            .await?;
        Ok(count)
    }
}

/// What a file holds; none where there is no such file.
fn read(path: &Path) -> anyhow::Result<Option<String>> {
    const OTHERS: u32 = 0o007;
    match fs::read_to_string(path) {
        Ok(text) => {
            let mode = fs::metadata(path)
                .with_context(|| format!("can't read {}", path.display()))?
                .permissions()
                .mode();
            if mode & OTHERS != 0 {
                return Err(usage(format!(
                    "{} may be read by every user of this machine: chmod 600 it",
                    path.display()
                )));
            }
            Ok(Some(text.trim().to_string()))
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error).with_context(|| format!("can't read {}", path.display())),
    }
}

fn make(path: &Path, credentials: &str) -> io::Result<()> {
    if let Some(folder) = path.parent() {
        folders::own(folder)?;
    }
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)?;
    writeln!(file, "{credentials}")?;
    file.sync_all()
}
