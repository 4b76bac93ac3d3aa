//! The users of ZooKeeper that `sawmill init --acl` gives the roles, each in a file of its own.

use std::{
    fs::{self, OpenOptions},
    io::{self, Write},
    os::unix::fs::{OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
};

use anyhow::Context as _;
use coordination::{UserId, Users};
use uuid::Uuid;

use super::Context;
use crate::{config::Settings, exit::usage};

/// The files, which are named after the roles.
const ROLES: [&str; 4] = ["admin", "dispatcher", "worker", "watcher"];

/// What the files hold.
pub(super) struct Files {
    /// `user:password` of the admin.
    admin: String,
    users: Users,
}

impl Files {
    /// Reads the files of `folder`; makes those that are not there, with random passwords that their owner alone may read.
    ///
    /// # Errors
    /// ZooKeeper without a chroot; a file that others may read, or that holds no user.
    pub(super) fn read_or_make(folder: &Path, settings: &Settings) -> anyhow::Result<Self> {
        if !settings.zookeeper.contains('/') {
            return Err(usage(format!(
                "--acl needs a folder of the mill's own in ZooKeeper, as in --zookeeper {}/mill: the rights of / are everybody's",
                settings.zookeeper
            )));
        }
        folders::own(folder).with_context(|| format!("can't keep passwords in {}", folder.display()))?;
        let mut held = Vec::new();
        let mut ids = Vec::new();
        for role in ROLES {
            let path = folder.join(role);
            let credentials = read_or_make(role, &path)?;
            let id = UserId::of(&credentials);
            ids.push(id.map_err(|why| usage(format!("{}: {why}", path.display())))?);
            held.push(credentials);
        }
        let [admin, dispatcher, worker, watcher] =
            <[UserId; 4]>::try_from(ids).map_err(|_| usage("a role is missing"))?;
        let users = Users::new(admin, dispatcher, worker, watcher)
            .map_err(|why| usage(format!("{}: {why}", folder.display())))?;
        let admin = held.swap_remove(0);
        Ok(Self { admin, users })
    }

    /// Gives the roles their rights, as the user of the settings and as the admin; how many znodes there are.
    ///
    /// # Errors
    /// What can't be reached; a znode that belongs to neither.
    pub(super) async fn protect(&self, context: &Context) -> anyhow::Result<usize> {
        let mut config = context.settings.coordination();
        config.auth.get_or_insert_with(|| self.admin.clone());
        let count = coordination::rights::protect(&config, &[&self.admin], &self.users).await?;
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

fn read_or_make(role: &str, path: &PathBuf) -> anyhow::Result<String> {
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
            Ok(text.trim().to_string())
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let password = [Uuid::new_v4(), Uuid::new_v4()].map(|part| part.simple().to_string());
            let credentials = format!("{role}:{}", password.concat());
            make(path, &credentials).with_context(|| format!("can't write {}", path.display()))?;
            Ok(credentials)
        }
        Err(error) => Err(error).with_context(|| format!("can't read {}", path.display())),
    }
}

fn make(path: &Path, credentials: &str) -> io::Result<()> {
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)?;
    writeln!(file, "{credentials}")?;
    file.sync_all()
}
