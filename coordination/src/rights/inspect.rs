//! Whether the rights are as they were given, for the doctor.

use zookeeper_client as zk;
use zookeeper_client::Acl;

use super::{Kind, is_incarnation};
use crate::{
    error::Error,
    layout::{RIGHTS, ROOTS},
    listing::below,
    term::{Access, Term},
};

/// Most znodes that are looked at.
const LOOKED_AT: usize = 2_000;

/// A znode that others may use than should.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Loose {
    /// Where.
    pub path: String,
    /// Who may what there, as `user rights`; digests are left out. Empty where that may not be read.
    pub found: Vec<String>,
}

/// Znodes whose rights are not those that the users of this mill have: where all roles have one user, those that are open
/// to everybody; none where there is no user. At most 2,000 are looked at.
///
/// # Errors
/// [`Error::TermOver`], [`Error::Disconnected`], [`Error::NoAuth`].
pub async fn loose(term: &Term) -> Result<Vec<Loose>, Error> {
    let mut found = Vec::new();
    for root in ROOTS {
        below(term, root, &mut found).await?;
    }
    let mut paths = vec!["/".to_string(), RIGHTS.to_string()];
    paths.extend(found.into_iter().map(|znode| znode.path));
    paths.truncate(LOOKED_AT);
    let mut loose = Vec::new();
    for path in paths {
        let at = path.as_str();
        let list = match term
            .ask(at, |client| async move { client.get_acl(at).await })
            .await?
        {
            Ok((list, _)) => list,
            Err(zk::Error::NoNode) => continue,
            Err(zk::Error::NoAuth) => Vec::new(),
            Err(failure) => return Err(Error::refused(path, failure)),
        };
        if !is_as_given(term, &path, &list) {
            let mut found: Vec<String> = list.iter().map(told).collect();
            found.sort();
            loose.push(Loose { path, found });
        }
    }
    Ok(loose)
}

fn is_as_given(term: &Term, path: &str, list: &[Acl]) -> bool {
    match term.access() {
        Access::Open => true,
        // Who made the chroot may be another.
        Access::Own => path == "/" || list.iter().all(|acl| acl.scheme() != "world"),
        Access::Roles(granted) => {
            let wanted = granted.list(Kind::of(path));
            let found: Vec<&Acl> = list.iter().filter(|acl| !is_incarnation(acl)).collect();
            found.len() == wanted.len()
                && wanted
                    .iter()
                    .all(|wanted| found.iter().any(|found| is_same(wanted, found)))
        }
    }
}

/// Whether somebody's rights are those that were given; ZooKeeper shows digests to the admin only, and `x` to others.
fn is_same(wanted: &Acl, found: &Acl) -> bool {
    let hidden = found.id().strip_suffix(":x") == Some(user(wanted));
    wanted.scheme() == found.scheme()
        && wanted.permission() == found.permission()
        && (wanted.id() == found.id() || hidden)
}

fn user(acl: &Acl) -> &str {
    acl.id().split(':').next().unwrap_or_default()
}

fn told(acl: &Acl) -> String {
    let user = user(acl);
    match acl.scheme() {
        "world" => format!("everybody {}", acl.permission()),
        _ => format!("{user} {}", acl.permission()),
    }
}
