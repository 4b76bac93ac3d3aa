//! Giving each role its rights: `sawmill init --acl`.

use zookeeper_client as zk;
use zookeeper_client::{Acl, CreateMode};

use super::{Granted, Kind, Users, is_incarnation};
use crate::{
    connect::bad_address,
    error::Error,
    layout::{RIGHTS, ROOTS},
    listing::below,
    reset::refuse_live,
    term::{Config, Term},
};

/// Gives chroot, roots and all that is in them to the users of the roles, and to nobody else; gives how many znodes there
/// are.
///
/// `config` and `also` are credentials of who may do that: the admin, and whoever was it before. Safe to repeat, and to be
/// repeated after it was dropped half-way. With `force` also while roles are connected: they take note of it with their next
/// term, and what they create until then has the rights of before; repeat it when all have been started again.
///
/// # Errors
/// [`Error::BadAddress`] without a chroot; [`Error::LiveSessions`] while a role or an agent is connected and `force` is not
/// given, nothing is changed then; [`Error::NoAuth`] where a znode belongs to none of the users given; as
/// [`Term::begin`].
pub async fn protect(config: &Config, also: &[&str], users: &Users, force: bool) -> Result<usize, Error> {
    if config.split().1 == "/" {
        let why =
            "rights need a folder of the mill's own, as in HOST:2181/mill: the rights of / are everybody's";
        return Err(bad_address(config, why));
    }
    let term = Term::begin_as(config, also, None).await?;
    let done = protect_all(&term, users, force).await;
    term.close().await;
    done
}

async fn protect_all(term: &Term, users: &Users, force: bool) -> Result<usize, Error> {
    let granted = Granted::to(users);
    let mut found = Vec::new();
    for root in ROOTS {
        below(term, root, &mut found).await?;
    }
    if !force {
        refuse_live(&found)?;
    }
    // The deepest first, so that a folder is the new user's only when all in it is.
    let mut paths: Vec<String> = found.into_iter().rev().map(|znode| znode.path).collect();
    paths.push("/".to_string());
    let mut count = 0;
    for path in &paths {
        let own = match Kind::of(path) {
            Kind::Worker => own_rights(term, path).await?,
            _ => Vec::new(),
        };
        let list = [granted.list(Kind::of(path)), &own].concat();
        count += usize::from(set(term, path, &list).await?);
    }
    publish(term, &granted).await?;
    Ok(count + 1)
}

/// What the incarnation that has a folder may do in it.
async fn own_rights(term: &Term, path: &str) -> Result<Vec<Acl>, Error> {
    let answer = term.ask(path, |client| async move { client.get_acl(path).await });
    match answer.await? {
        Ok((list, _)) => Ok(list.into_iter().filter(is_incarnation).collect()),
        Err(zk::Error::NoNode) => Ok(Vec::new()),
        Err(failure) => Err(Error::refused(path, failure)),
    }
}

/// Sets the rights of one znode; false when it is gone.
async fn set(term: &Term, path: &str, list: &[Acl]) -> Result<bool, Error> {
    let answer = term.ask(
        path,
        |client| async move { client.set_acl(path, list, None).await },
    );
    match answer.await? {
        Ok(_) => Ok(true),
        Err(zk::Error::NoNode) => Ok(false),
        Err(failure) => Err(Error::refused(path, failure)),
    }
}

/// Tells the roles, at last.
async fn publish(term: &Term, granted: &Granted) -> Result<(), Error> {
    let data = model::znode::encode(granted.users());
    let list = granted.list(Kind::Rights);
    let options = CreateMode::Persistent.with_acls(list.into());
    let (data, options) = (&data, &options);
    let created = term.ask(RIGHTS, |client| async move {
        client.create(RIGHTS, data, options).await.map(drop)
    });
    match created.await? {
        Ok(()) => return Ok(()),
        Err(zk::Error::NodeExists) => {}
        Err(failure) => return Err(Error::refused(RIGHTS, failure)),
    }
    let written = term.ask(RIGHTS, |client| async move {
        client.set_data(RIGHTS, data, None).await.map(drop)
    });
    written
        .await?
        .map_err(|failure| Error::refused(RIGHTS, failure))?;
    set(term, RIGHTS, list).await.map(drop)
}
