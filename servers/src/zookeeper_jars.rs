//! Where ZooKeeper and Java are on this machine.
//!
//! Looks, in this order, into `$ZOOKEEPER_HOME`, beside a `zkServer.sh` on the PATH (an unpacked Apache ZooKeeper), and
//! where Debian and Ubuntu put the jars. Called by [`crate::ZooKeeper`] before each start.

use crate::Error;
use crate::hold::{is_executable, on_path};
use std::path::{Path, PathBuf};

/// The class that runs one server.
pub(crate) const MAIN_CLASS: &str = "org.apache.zookeeper.server.quorum.QuorumPeerMain";

const DEBIAN_JARS: &str = "/usr/share/java";
/// Debian's `zookeeper.jar` names what it needs in its manifest, except for a logger.
const DEBIAN_NAMES: [&str; 3] = ["zookeeper.jar", "slf4j-log4j12.jar", "log4j-1.2.jar"];

const ADVICE: &str = "install it with `apt-get install zookeeper default-jre-headless`, or unpack Apache ZooKeeper \
                      (https://zookeeper.apache.org/releases.html) and set ZOOKEEPER_HOME to its directory";
const JAVA_ADVICE: &str =
    "ZooKeeper needs it: install it with `apt-get install default-jre-headless`, or set JAVA_HOME";

/// The `java` to run: that of `$JAVA_HOME`, else the one on the PATH.
pub(crate) fn java() -> Result<PathBuf, Error> {
    let home = std::env::var_os("JAVA_HOME").map(|home| Path::new(&home).join("bin/java"));
    home.filter(|java| is_executable(java))
        .or_else(|| on_path("java"))
        .ok_or_else(|| Error::NotInstalled {
            server: "java",
            advice: JAVA_ADVICE.to_owned(),
        })
}

/// The class path of ZooKeeper.
pub(crate) fn class_path() -> Result<Vec<PathBuf>, Error> {
    let home = std::env::var_os("ZOOKEEPER_HOME").map(PathBuf::from);
    let unpacked = on_path("zkServer.sh").and_then(|script| {
        let script = script.canonicalize().ok()?;
        Some(script.parent()?.parent()?.to_owned())
    });
    home.into_iter()
        .chain(unpacked)
        .find_map(|home| jars_of(&home))
        .or_else(|| debian_jars(Path::new(DEBIAN_JARS)))
        .ok_or_else(|| Error::NotInstalled {
            server: "ZooKeeper",
            advice: ADVICE.to_owned(),
        })
}

fn jars_of(home: &Path) -> Option<Vec<PathBuf>> {
    let mut jars: Vec<PathBuf> = ["lib", ""]
        .iter()
        .filter_map(|folder| std::fs::read_dir(home.join(folder)).ok())
        .flatten()
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| path.extension().is_some_and(|end| end == "jar"))
        .collect();
    jars.sort();
    jars.iter().any(|jar| is_server_jar(jar)).then_some(jars)
}

fn debian_jars(folder: &Path) -> Option<Vec<PathBuf>> {
    let jars = DEBIAN_NAMES
        .iter()
        .map(|name| folder.join(name))
        .filter(|jar| jar.is_file());
    let jars: Vec<PathBuf> = jars.collect();
    jars.iter().any(|jar| is_server_jar(jar)).then_some(jars)
}

/// `zookeeper.jar` or `zookeeper-3.9.3.jar`, but not `zookeeper-jute-3.9.3.jar`.
fn is_server_jar(jar: &Path) -> bool {
    let name = jar.file_name().unwrap_or_default().to_string_lossy();
    name.strip_prefix("zookeeper")
        .and_then(|rest| rest.strip_suffix(".jar"))
        .is_some_and(|version| {
            version
                .trim_start_matches('-')
                .chars()
                .all(|c| c.is_ascii_digit() || c == '.')
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unpacked_release_is_found_and_a_folder_without_the_server_is_not() {
        let home = tempfile::tempdir().unwrap();
        std::fs::create_dir(home.path().join("lib")).unwrap();
        std::fs::write(home.path().join("lib/zookeeper-jute-3.9.3.jar"), "").unwrap();
        assert_eq!(jars_of(home.path()), None);
        std::fs::write(home.path().join("lib/zookeeper-3.9.3.jar"), "").unwrap();
        assert_eq!(jars_of(home.path()).map(|jars| jars.len()), Some(2));
        assert_eq!(debian_jars(home.path()), None);
    }
}
