//! One ZooKeeper session's span: connecting, keeping the clock, ending.
//!
//! Promise: when the term is over, [`Term::ended`] is cancelled, whatever was waiting returns
//! [`Error::TermOver`], and the client behind it is dropped, so that the session closes as soon as ZooKeeper can be
//! told. Not promised: that the session is over in ZooKeeper at that moment (only [`Term::close`] waits for it).
//! Every role and `control` begin here.

use std::{
    fmt,
    path::PathBuf,
    sync::{Arc, OnceLock, RwLock},
    time::{Duration, Instant},
};

use tokio_util::{sync::CancellationToken, task::AbortOnDropHandle};
use zookeeper_client as zk;
use zookeeper_client::{Acls, Client, CreateMode, CreateOptions, SessionInfo, SessionState, StateWatcher};

use crate::{
    connect::{bad_address, connect, until_terminated},
    error::{Error, is_lost_reply},
    rights::{DIGEST, Granted, Kind, Users},
    roots,
};

/// How to reach ZooKeeper.
#[derive(Clone, PartialEq, Eq)]
pub struct Config {
    /// `host:port[,host:port…][/chroot]`.
    pub connect: String,
    /// How long ZooKeeper keeps a session it hears nothing from; the server may narrow it.
    pub session_timeout: Duration,
    /// `user:password` for the digest scheme; what is created is then open to that user only, or to the users of the roles
    /// where [`crate::rights::protect`] has been.
    pub auth: Option<String>,
    /// Certificates, where the servers speak TLS.
    pub tls: Option<TlsConfig>,
    /// How long [`Term::begin`] waits for an answer.
    pub connect_timeout: Duration,
}

/// Certificates for TLS, as PEM files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsConfig {
    /// Authorities that may vouch for the servers.
    pub ca: PathBuf,
    /// Our own certificate, where the servers ask for one.
    pub cert: Option<PathBuf>,
    /// The key of our own certificate.
    pub key: Option<PathBuf>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            connect: "127.0.0.1:2181".into(),
            session_timeout: Duration::from_secs(10),
            auth: None,
            tls: None,
            connect_timeout: Duration::from_secs(5),
        }
    }
}

/// Without the password.
impl fmt::Debug for Config {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Config")
            .field("connect", &self.connect)
            .field("session_timeout", &self.session_timeout)
            .field(
                "auth",
                &self
                    .auth
                    .as_deref()
                    .map(|auth| auth.split(':').next().unwrap_or_default()),
            )
            .field("tls", &self.tls)
            .field("connect_timeout", &self.connect_timeout)
            .finish()
    }
}

impl Config {
    /// The addresses and the chroot, which is `/` where none is given.
    pub(crate) fn split(&self) -> (&str, &str) {
        match self.connect.find('/') {
            Some(at) => self.connect.split_at(at),
            None => (&self.connect, "/"),
        }
    }
}

/// Why a term is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// ZooKeeper has given the session up.
    Expired,
    /// Disconnected for half the session timeout, by our own clock.
    TooLongDisconnected,
    /// Closed by ourselves.
    Closed,
    /// ZooKeeper refused the credentials.
    AuthFailed,
}

impl fmt::Display for Ending {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Expired => "the ZooKeeper session has expired",
            Self::TooLongDisconnected => "no connection to ZooKeeper for half the session timeout",
            Self::Closed => "the ZooKeeper session was closed",
            Self::AuthFailed => "ZooKeeper refused the credentials",
        })
    }
}

/// One ZooKeeper session's span of a role; clones share it.
///
/// Dropping all clones closes the session without waiting for it.
#[derive(Clone)]
pub struct Term {
    inner: Arc<Inner>,
}

struct Inner {
    core: Arc<Core>,
    _clock: AbortOnDropHandle<()>,
}

/// To whom new znodes are open.
#[derive(Debug)]
pub(crate) enum Access {
    /// To everybody.
    Open,
    /// To the user of this session.
    Own,
    /// To the users of the roles, as their steps need it.
    Roles(Box<Granted>),
}

/// What the clock shares with the term.
struct Core {
    /// Taken out when the term ends: the session closes once nobody holds the client.
    client: RwLock<Option<Arc<Client>>>,
    states: StateWatcher,
    session: SessionInfo,
    session_timeout: Duration,
    chroot: String,
    access: Access,
    ended: CancellationToken,
    why: OnceLock<Ending>,
}

impl fmt::Debug for Term {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Term")
            .field("session", &format_args!("{:#x}", self.session()))
            .field("why", &self.why())
            .finish_non_exhaustive()
    }
}

/// How long [`Term::close`] waits for ZooKeeper to confirm: it may be gone itself.
const CLOSE_WAIT: Duration = Duration::from_secs(2);
/// How often a request is sent again after its reply was lost.
const MOST_LOSSES: u32 = 6;

impl Term {
    /// Connects, creates the chroot and the roots where they are missing, and starts the clock.
    ///
    /// What it creates is open to the users that `/rights` names, else to its user only when `auth` is given, else to
    /// anybody. Safe to repeat, and to drop half-way.
    ///
    /// # Errors
    /// [`Error::BadAddress`], [`Error::BadTls`]; [`Error::Unreachable`] after `connect_timeout`;
    /// [`Error::NoAuth`] where the chroot or a root belongs to another user; [`Error::RootMissing`] where this role may not
    /// create what is missing.
    pub async fn begin(config: &Config) -> Result<Self, Error> {
        Self::begin_as(config, &[], None).await
    }

    /// As [`Term::begin`], as these users beside that of the configuration, and of a role that has `known` these users in an
    /// earlier term: should `/rights` be gone with all the rest, it is created again.
    ///
    /// # Errors
    /// As [`Term::begin`].
    pub(crate) async fn begin_as(
        config: &Config,
        also: &[&str],
        known: Option<&Users>,
    ) -> Result<Self, Error> {
        let client = connect(config).await?;
        for credentials in also {
            // Sent before all that follows; a refusal ends the session.
            drop(client.auth(DIGEST, credentials.as_bytes()));
        }
        let (_, chroot) = config.split();
        let client = client
            .chroot(chroot)
            .map_err(|_| bad_address(config, "the chroot is no valid path"))?;
        let access = match &config.auth {
            Some(_) => roots::access(&client, config.connect_timeout, known).await?,
            None => Access::Open,
        };
        let core = Arc::new(Core {
            states: client.state_watcher(),
            session: client.session().clone(),
            session_timeout: client.session_timeout(),
            chroot: chroot.to_string(),
            access,
            ended: CancellationToken::new(),
            why: OnceLock::new(),
            client: RwLock::new(Some(Arc::new(client))),
        });
        let clock = tokio::spawn(keep_clock(Arc::clone(&core)));
        let term = Self {
            inner: Arc::new(Inner {
                core,
                _clock: AbortOnDropHandle::new(clock),
            }),
        };
        roots::ensure(&term, roots::Counters::default()).await?;
        roots::check_rights(&term).await?;
        Ok(term)
    }

    fn core(&self) -> &Core {
        &self.inner.core
    }

    /// Cancelled when the term is over; all that belongs to the term hangs on it.
    pub fn ended(&self) -> CancellationToken {
        self.core().ended.clone()
    }

    /// Why the term is over; none while it lasts.
    pub fn why(&self) -> Option<Ending> {
        self.core().why.get().copied()
    }

    /// Whether there is a connection at this moment.
    pub fn is_connected(&self) -> bool {
        self.why().is_none() && self.core().states.peek_state() == SessionState::SyncConnected
    }

    /// The session timeout that the server granted.
    pub fn session_timeout(&self) -> Duration {
        self.core().session_timeout
    }

    /// Ends the session and waits until ZooKeeper has dropped its ephemerals; at most two seconds, when ZooKeeper
    /// itself does not answer, and not at all for a term that is over by itself. Requests that were sent before are
    /// carried out before.
    ///
    /// Clones and whatever was made from them return [`Error::TermOver`] from then on. Dropped half-way, it has
    /// closed the session but not waited.
    pub async fn close(self) {
        if self.why().is_some() {
            return;
        }
        let mut states = self.core().states.clone();
        self.core().end(Ending::Closed);
        let closed = until_terminated(&mut states);
        if tokio::time::timeout(CLOSE_WAIT, closed).await.is_err() {
            tracing::warn!("ZooKeeper has not confirmed the end of the session; it will expire");
        }
    }

    /// The session as it stands in `ephemeralOwner`.
    pub(crate) fn session(&self) -> i64 {
        self.core().session.id().0
    }

    /// The session, where the term was ended by its own clock: ZooKeeper may still keep it.
    pub(crate) fn given_up(&self) -> Option<SessionInfo> {
        let is_given_up = self.why() == Some(Ending::TooLongDisconnected);
        is_given_up.then(|| self.core().session.clone())
    }

    /// Path of the chroot from the root of ZooKeeper, `/` where there is none.
    pub(crate) fn chroot(&self) -> &str {
        &self.core().chroot
    }

    /// To whom new znodes are open.
    pub(crate) fn access(&self) -> &Access {
        &self.core().access
    }

    /// The users of the roles, where each has its own.
    pub fn users(&self) -> Option<&Users> {
        match self.access() {
            Access::Open | Access::Own => None,
            Access::Roles(granted) => Some(granted.users()),
        }
    }

    /// Who may do what with a new znode.
    pub(crate) fn acls(&self, kind: Kind) -> Acls<'_> {
        match self.access() {
            Access::Open => Acls::anyone_all(),
            Access::Own => Acls::creator_all(),
            Access::Roles(granted) => granted.list(kind).into(),
        }
    }

    /// How a new persistent znode is created.
    pub(crate) fn persistent(&self, kind: Kind) -> CreateOptions<'_> {
        CreateMode::Persistent.with_acls(self.acls(kind))
    }

    /// Makes the session another user too, from the next request on.
    pub(crate) async fn authenticate(&self, credentials: &str) -> Result<(), Error> {
        let answer = self.ask("/", |client| async move {
            client.auth(DIGEST, credentials.as_bytes()).await
        });
        answer.await?.map_err(|failure| Error::refused("/", failure))
    }

    /// The client while the term lasts. Hold it no longer than one request: the session closes when nobody does.
    pub(crate) fn client(&self) -> Result<Arc<Client>, Error> {
        let held = self
            .core()
            .client
            .read()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        held.clone().ok_or_else(|| self.over())
    }

    /// The error of a term that is over.
    pub(crate) fn over(&self) -> Error {
        Error::TermOver(self.why().unwrap_or(Ending::Closed))
    }

    /// Waits for `future`, but not beyond the term.
    pub(crate) async fn wait<T>(&self, future: impl Future<Output = T>) -> Result<T, Error> {
        tokio::select! {
            biased;
            done = future => Ok(done),
            () = self.core().ended.cancelled() => Err(self.over()),
        }
    }

    /// Sends a request that may be repeated, until it is answered.
    ///
    /// # Errors
    /// [`Error::TermOver`], [`Error::Disconnected`]; what ZooKeeper answers is inside.
    pub(crate) async fn ask<T, F>(
        &self,
        path: &str,
        request: impl Fn(Arc<Client>) -> F,
    ) -> Result<Result<T, zk::Error>, Error>
    where
        F: Future<Output = Result<T, zk::Error>>,
    {
        let mut losses = 0;
        loop {
            match self.wait(request(self.client()?)).await? {
                Err(failure) if is_lost_reply(&failure) => {
                    self.after_loss(&mut losses, path, &failure).await?
                }
                answer => return Ok(answer),
            }
        }
    }

    /// Sends one request per path at once, and repeats those whose replies are lost.
    ///
    /// # Errors
    /// As [`Term::ask`].
    pub(crate) async fn ask_all<T, F>(
        &self,
        paths: &[String],
        request: impl Fn(&Client, &str) -> F,
    ) -> Result<Vec<Result<T, zk::Error>>, Error>
    where
        F: Future<Output = Result<T, zk::Error>>,
    {
        let mut answers: Vec<Option<Result<T, zk::Error>>> = paths.iter().map(|_| None).collect();
        let mut losses = 0;
        loop {
            let mut lost = None;
            {
                let client = self.client()?;
                let open = (0..paths.len()).filter(|&i| answers[i].is_none());
                let sent: Vec<_> = open.map(|i| (i, request(&client, &paths[i]))).collect();
                for (i, reply) in sent {
                    match self.wait(reply).await? {
                        Err(failure) if is_lost_reply(&failure) => lost = Some((i, failure)),
                        answer => answers[i] = Some(answer),
                    }
                }
            }
            let Some((i, failure)) = lost else { break };
            self.after_loss(&mut losses, &paths[i], &failure).await?;
        }
        Ok(answers.into_iter().flatten().collect())
    }

    /// After this, reads see whatever was written before it through any server.
    pub(crate) async fn sync(&self) -> Result<(), Error> {
        let answer = self
            .ask("/", |client| async move { client.sync("/").await })
            .await?;
        answer.map_err(|failure| Error::refused("/", failure))
    }

    /// Pauses after a lost reply; gives up after too many.
    pub(crate) async fn after_loss(
        &self,
        losses: &mut u32,
        path: &str,
        failure: &zk::Error,
    ) -> Result<(), Error> {
        *losses += 1;
        tracing::debug!(path, losses = *losses, %failure, "lost the reply to a request");
        if *losses > MOST_LOSSES {
            return Err(Error::Disconnected {
                path: path.to_string(),
                losses: *losses,
            });
        }
        self.pause(*losses).await
    }

    /// Waits a while with jitter, longer each `round` (from 1): about 10, 20, 40 … 160 ms.
    pub(crate) async fn pause(&self, round: u32) -> Result<(), Error> {
        let full = 10u64 << round.saturating_sub(1).min(4);
        let wait = Duration::from_millis(full).mul_f64(0.5 + rand::random::<f64>());
        self.wait(tokio::time::sleep(wait)).await
    }
}

impl Core {
    /// Ends the term; the first reason stays.
    fn end(&self, why: Ending) {
        let first = self.why.set(why).is_ok();
        drop(
            self.client
                .write()
                .unwrap_or_else(std::sync::PoisonError::into_inner)
                .take(),
        );
        self.ended.cancel();
        if first {
            tracing::info!(
                session = format_args!("{:#x}", self.session.id().0),
                "the term is over: {why}"
            );
        }
    }
}

/// Ends the term when its session does, or earlier: after half a session timeout without connection, or when this
/// process itself stood still for a whole one.
async fn keep_clock(core: Arc<Core>) {
    let mut states = core.states.clone();
    let half = core.session_timeout / 2;
    let mut state = states.state();
    let mut disconnected_since: Option<Instant> = None;
    let mut last_tick = Instant::now();
    let mut tick = tokio::time::interval((core.session_timeout / 16).max(Duration::from_millis(5)));
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        match state {
            SessionState::SyncConnected => disconnected_since = None,
            SessionState::Disconnected | SessionState::ConnectedReadOnly => {
                disconnected_since.get_or_insert_with(Instant::now);
            }
            SessionState::AuthFailed => return core.end(Ending::AuthFailed),
            SessionState::Expired => return core.end(Ending::Expired),
            SessionState::Closed => return core.end(Ending::Closed),
        }
        tokio::select! {
            changed = states.changed() => state = changed,
            _ = tick.tick() => {}
        }
        let stood_still = last_tick.elapsed() >= core.session_timeout;
        last_tick = Instant::now();
        if stood_still || disconnected_since.is_some_and(|since| since.elapsed() >= half) {
            // A state that changed in this moment may say more exactly why.
            let why = match states.peek_state() {
                SessionState::Expired => Ending::Expired,
                SessionState::AuthFailed => Ending::AuthFailed,
                _ => Ending::TooLongDisconnected,
            };
            return core.end(why);
        }
    }
}
