//! Directories that other users of a machine can't have made first.
//!
//! Promise: a directory below one where everybody may write (`/tmp`, `/var/tmp`) is used only if it belongs to this user or to
//! root, and what is made here is open to this user alone. No promise about directories whose parents only chosen users
//! may write to: whoever named them chose these users too.
//!
//! Called by all that keeps files: agents, nodes, the block store, the servers of `sawmill dev`.

use std::{
    fs::{self, DirBuilder, File, OpenOptions, Permissions},
    io,
    os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _},
    path::Path,
};

use nix::{libc, unistd::geteuid};

/// The owner alone.
const PRIVATE: u32 = 0o700;
/// The owner's group and everybody may write.
const SHARED_WRITE: u32 = 0o022;
/// Everybody may write.
const WORLD_WRITE: u32 = 0o002;

/// Makes the directory and its parents, for this user alone, or takes the one that is there.
///
/// # Errors
/// What the system says, and `PermissionDenied` for a directory that another user may have put there.
pub fn own(path: &Path) -> io::Result<()> {
    let path = std::path::absolute(path)?;
    // From the root on: nothing is made below what is not ours.
    let mut steps: Vec<&Path> = path.ancestors().collect();
    steps.reverse();
    for pair in steps.windows(2) {
        let [parent, child] = pair else { continue };
        if !is_directory(child) {
            match DirBuilder::new().mode(PRIVATE).create(child) {
                // Somebody was faster.
                Err(_) if is_directory(child) => {}
                made => made?,
            }
        }
        if fs::metadata(parent)?.mode() & WORLD_WRITE == 0 {
            continue;
        }
        // Not where a link leads to: who made the link decides that.
        let owner = fs::symlink_metadata(child)?.uid();
        if owner != 0 && owner != geteuid().as_raw() {
            return Err(foreign(child, owner));
        }
    }
    Ok(())
}

/// The same for a directory that nobody else has any business in. One of this user that others may only read is closed to them.
///
/// # Errors
/// As [`own`], also for a symbolic link, a directory of root, and one where others may write.
pub fn private(path: &Path) -> io::Result<()> {
    own(path)?;
    let opened = OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_DIRECTORY | libc::O_NOFOLLOW)
        .open(path);
    let folder: File = match opened {
        Err(_) if fs::symlink_metadata(path).is_ok_and(|found| found.is_symlink()) => {
            return Err(denied(
                "it is a symbolic link: remove it, or name another directory",
            ));
        }
        opened => opened?,
    };
    let found = folder.metadata()?;
    if found.uid() != geteuid().as_raw() {
        return Err(foreign(path, found.uid()));
    }
    if found.mode() & SHARED_WRITE != 0 {
        return Err(denied(&format!(
            "others may write there (mode {:04o}), and may have put anything there: remove it, or name another directory",
            found.mode() & 0o7777
        )));
    }
    if found.mode() & 0o7777 & !PRIVATE != 0 {
        folder.set_permissions(Permissions::from_mode(PRIVATE))?;
    }
    Ok(())
}

fn is_directory(path: &Path) -> bool {
    fs::metadata(path).is_ok_and(|found| found.is_dir())
}

fn foreign(path: &Path, owner: u32) -> io::Error {
    denied(&format!(
        "{} belongs to another user (uid {owner}), who may have put anything there: remove it, or name another directory",
        path.display()
    ))
}

fn denied(why: &str) -> io::Error {
    io::Error::new(io::ErrorKind::PermissionDenied, why)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{chown, symlink};

    use super::*;

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().mode() & 0o7777
    }

    fn allow(path: &Path, mode: u32) {
        fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
    }

    /// As `/tmp` is.
    fn shared() -> tempfile::TempDir {
        let shared = tempfile::tempdir().unwrap();
        allow(shared.path(), 0o1777);
        shared
    }

    #[test]
    fn what_is_made_is_open_to_its_owner_alone() {
        let shared = shared();
        let deep = shared.path().join("sawmill/store");
        own(&deep).unwrap();
        assert_eq!([mode(&deep), mode(deep.parent().unwrap())], [PRIVATE, PRIVATE]);
        // What somebody has opened to others stays as it is, unless nobody has any business there.
        allow(&deep, 0o755);
        own(&deep).unwrap();
        assert_eq!(mode(&deep), 0o755);
        private(&deep).unwrap();
        assert_eq!(mode(&deep), PRIVATE);
        let file = shared.path().join("file");
        fs::write(&file, "").unwrap();
        assert!(own(&file).is_err() && private(&file).is_err());
    }

    #[test]
    fn what_others_may_write_to_is_not_private() {
        let shared = shared();
        let tasks = shared.path().join("tasks");
        for open in [0o777, 0o1777, 0o770] {
            fs::create_dir(&tasks).unwrap();
            allow(&tasks, open);
            let refused = private(&tasks).unwrap_err();
            assert_eq!(refused.kind(), io::ErrorKind::PermissionDenied);
            assert!(
                refused.to_string().contains(&format!("mode {open:04o}")),
                "{refused}"
            );
            fs::remove_dir(&tasks).unwrap();
        }
        let elsewhere = shared.path().join("elsewhere");
        fs::create_dir(&elsewhere).unwrap();
        symlink(&elsewhere, &tasks).unwrap();
        let refused = private(&tasks).unwrap_err().to_string();
        assert!(refused.contains("symbolic link"), "{refused}");
    }

    #[test]
    fn what_another_user_made_first_is_refused() {
        // Only root can make what belongs to somebody else.
        if !geteuid().is_root() {
            return;
        }
        let shared = shared();
        let theirs = shared.path().join("sawmill");
        fs::create_dir(&theirs).unwrap();
        chown(&theirs, Some(65534), Some(65534)).unwrap();
        for refused in [own(&theirs.join("store")), own(&theirs), private(&theirs)] {
            let refused = refused.unwrap_err().to_string();
            assert!(refused.contains("uid 65534"), "{refused}");
        }
        assert!(!theirs.join("store").exists());
        // So is a link of theirs to what is ours.
        let ours = shared.path().join("ours");
        own(&ours).unwrap();
        let link = shared.path().join("link");
        symlink(&ours, &link).unwrap();
        nix::unistd::fchownat(
            nix::fcntl::AT_FDCWD,
            &link,
            Some(65534.into()),
            None,
            nix::fcntl::AtFlags::AT_SYMLINK_NOFOLLOW,
        )
        .unwrap();
        assert!(own(&link).is_err());
        // Where only chosen users may write, a directory of another user is theirs to give.
        allow(shared.path(), 0o755);
        own(&theirs).unwrap();
        assert!(private(&theirs).is_err());
    }
}
