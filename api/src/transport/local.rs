//! The token of a port that is reached from this machine alone, where there is no TLS: what its user can read and others can't.
//!
//! Promise: who listens so makes a token in a file that only its user can read, asks for it with every request but those
//! for the health of the service, and takes the file away when it stops listening; who connects so finds it by itself. Every
//! port has another token, made anew each time, so that whoever takes the port of a server that has gone learns nothing that is
//! good elsewhere or later. No promise against the user's other programs, or against who may read all files.

use std::{
    env, fmt,
    fs::{self, DirBuilder, OpenOptions},
    io::{self, Write as _},
    net::{Ipv4Addr, Ipv6Addr, SocketAddr},
    os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll},
};

use futures::future::{Either, Ready, ready};
use pki::{Peer, Token};
use tonic::{
    Code, Status,
    body::Body,
    codegen::http::{self, HeaderValue, header::AUTHORIZATION},
};
use tower::{Layer, Service};

use super::{ConnectInfo, Error};

/// What anybody may ask of any port: load balancers have neither certificate nor token.
pub const HEALTH: &str = "/grpc.health.v1.Health/";

/// Permissions of the directory, and of the files in it.
const FOLDER_MODE: u32 = 0o700;
const FILE_MODE: u32 = 0o600;

/// The file with the token of the port that listens on a loopback address: `$XDG_STATE_HOME/sawmill/tokens/HOSTNAME/ADDRESS`,
/// else below `~/.local/state`. Machines and containers that share a home have loopback addresses of their own each.
///
/// # Errors
/// Without a home directory.
pub fn token_file(address: SocketAddr) -> io::Result<PathBuf> {
    let absolute = |path: &PathBuf| path.is_absolute();
    let state = env::var_os("XDG_STATE_HOME").map(PathBuf::from).filter(absolute);
    let state = state.or_else(|| Some(env::home_dir().filter(absolute)?.join(".local/state")));
    let none = || io::Error::new(io::ErrorKind::NotFound, "this user has no home directory");
    let address = SocketAddr::new(address.ip().to_canonical(), address.port());
    Ok(state
        .ok_or_else(none)?
        .join("sawmill/tokens")
        .join(host())
        .join(address.to_string()))
}

/// The name of this machine, as gethostname tells it.
fn host() -> String {
    let name = fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    match name.trim() {
        "" | "." | ".." => "localhost".to_string(),
        name => name.replace('/', "_"),
    }
}

/// The token that the requests of a connection show; clones share it.
#[derive(Clone)]
pub struct LocalToken {
    shared: Arc<Shared>,
}

struct Shared {
    token: Token,
    address: SocketAddr,
    path: PathBuf,
}

impl LocalToken {
    /// A token for the port on `address`, which is loopback, and its file.
    pub(super) fn keep(address: SocketAddr) -> Result<(Self, Kept), Error> {
        let failed = |path: &Path, source| Error::LocalToken {
            address: address.to_string(),
            path: path.into(),
            source: Arc::new(source),
        };
        let path = token_file(address).map_err(|source| failed(Path::new("~/.local/state"), source))?;
        let token = Token::generate().map_err(|error| failed(&path, io::Error::other(error)))?;
        write(&path, &token).map_err(|source| failed(&path, source))?;
        let kept = Kept {
            token: token.clone(),
            paths: vec![path.clone()],
        };
        let shared = Arc::new(Shared { token, address, path });
        Ok((Self { shared }, kept))
    }

    /// What somebody is told who shows another token, or none.
    pub fn refusal(&self) -> Status {
        let Shared { address, path, .. } = &*self.shared;
        let message = format!(
            "{address} takes requests of its own user alone, whose token is in {}: run the command as that user, show this \
             token or one of `sawmill token create` as `authorization: Bearer sawmill_…`, or have the port use TLS (`identity`)",
            path.display()
        );
        crate::refusal(Code::Unauthenticated, "UNAUTHENTICATED", message, [])
    }
}

impl fmt::Debug for LocalToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("LocalToken").field(&self.shared.path).finish()
    }
}

/// The files of a token, for as long as somebody listens.
#[derive(Debug)]
pub(super) struct Kept {
    token: Token,
    paths: Vec<PathBuf>,
}

impl Kept {
    /// Keeps the token also for who connects to `address`, behind which the same port is.
    pub(super) fn also_for(&mut self, address: SocketAddr) -> Result<(), Error> {
        let failed = |path: &Path, source| Error::LocalToken {
            address: address.to_string(),
            path: path.into(),
            source: Arc::new(source),
        };
        let path = token_file(address).map_err(|source| failed(Path::new("~/.local/state"), source))?;
        write(&path, &self.token).map_err(|source| failed(&path, source))?;
        self.paths.push(path);
        Ok(())
    }
}

impl Drop for Kept {
    fn drop(&mut self) {
        for path in &self.paths {
            // Whoever listens there by now has one of its own.
            if read(path).is_some_and(|token| token.is(&self.token)) {
                let _ = fs::remove_file(path);
            }
        }
    }
}

/// Removes what one that was killed has left for this address: nobody is asked for a token there now.
pub(super) fn forget(address: SocketAddr) {
    let of_loopback = [Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()];
    let all = of_loopback.map(|ip| SocketAddr::new(ip, address.port()));
    let addresses = match address.ip().is_unspecified() {
        true => all.to_vec(),
        false => vec![address],
    };
    for path in addresses.into_iter().flat_map(token_file) {
        let _ = fs::remove_file(path);
    }
}

/// Writes a token where only this user can read it.
fn write(path: &Path, token: &Token) -> io::Result<()> {
    let folder = path.parent().unwrap_or(Path::new("/"));
    DirBuilder::new()
        .recursive(true)
        .mode(FOLDER_MODE)
        .create(folder)?;
    // That of all machines first: whose it is may replace what is in it.
    for folder in folder.parent().into_iter().chain([folder]) {
        let found = fs::symlink_metadata(folder)?;
        let denied = |why: &str| Err(io::Error::new(io::ErrorKind::PermissionDenied, why));
        if !found.is_dir() {
            return denied("its directory is a link");
        }
        if found.uid() != nix::unistd::geteuid().as_raw() {
            return denied("its directory belongs to another user");
        }
        if found.permissions().mode() & 0o077 != 0 {
            fs::set_permissions(folder, fs::Permissions::from_mode(FOLDER_MODE))?;
        }
    }
    // Readers see the old one or the new one, whole.
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let new = folder.join(format!(".{name}.{}", std::process::id()));
    let _ = fs::remove_file(&new);
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(FILE_MODE)
        .open(&new)?;
    writeln!(file, "{}", token.expose())?;
    fs::rename(&new, path)
}

fn read(path: &Path) -> Option<Token> {
    fs::read_to_string(path).ok()?.trim().parse().ok()
}

/// What a channel shows on loopback: the token of whom it is connected to.
#[derive(Debug, Default)]
pub(super) struct Shown {
    last: Mutex<Last>,
}

#[derive(Debug, Default)]
struct Last {
    address: Option<SocketAddr>,
    header: Option<HeaderValue>,
}

impl Shown {
    /// Tells to whom the channel is connected now.
    pub(super) fn connected(&self, address: Option<SocketAddr>) {
        let address = address.filter(|address| address.ip().to_canonical().is_loopback());
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        if last.address != address {
            *last = Last {
                address,
                header: None,
            };
        }
    }

    /// What a request shows. It is read each time, as whoever listens there by now may have another; one that stops has taken
    /// its file away, and still ends what is under way.
    pub(super) fn header(&self) -> Option<HeaderValue> {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(token) = read(&token_file(last.address?).ok()?) {
            let mut header = HeaderValue::try_from(format!("Bearer {}", token.expose())).ok()?;
            header.set_sensitive(true);
            last.header = Some(header);
        }
        last.header.clone()
    }
}

/// The token in `authorization`, where there is one.
pub fn bearer(headers: &http::HeaderMap) -> Option<Token> {
    let text = headers.get(AUTHORIZATION)?.to_str().ok()?;
    let (scheme, token) = text.split_once(' ')?;
    let is_bearer = scheme.eq_ignore_ascii_case("bearer");
    token.trim().parse().ok().filter(|_| is_bearer)
}

/// Asks for the token of the port, where it has one: who shows it is the user of the process.
#[derive(Clone, Copy, Debug, Default)]
pub struct LocalUsers;

impl<S> Layer<S> for LocalUsers {
    type Service = OfLocalUsers<S>;

    fn layer(&self, inner: S) -> OfLocalUsers<S> {
        OfLocalUsers { inner }
    }
}

/// A service behind the token of its port.
#[derive(Clone, Debug)]
pub struct OfLocalUsers<S> {
    inner: S,
}

impl<S, B> Service<http::Request<B>> for OfLocalUsers<S>
where
    S: Service<http::Request<B>, Response = http::Response<Body>>,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = Either<S::Future, Ready<Result<S::Response, S::Error>>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, mut request: http::Request<B>) -> Self::Future {
        let info = request.extensions_mut().get_mut::<ConnectInfo>();
        let Some((info, local)) = info.and_then(|info| info.local.clone().map(|local| (info, local))) else {
            return Either::Left(self.inner.call(request));
        };
        let needs_token = info.needs_token;
        match bearer(request.headers()) {
            Some(token) if token.is(&local.shared.token) => {
                if let Some(info) = request.extensions_mut().get_mut::<ConnectInfo>() {
                    (info.peer, info.needs_token) = (Peer::local(), false);
                    // From now on the connection makes no room for those of strangers.
                    let known = info.place.as_ref().map(|place| place.known(&info.holder()));
                    if let Some(Err(status)) = known {
                        return Either::Right(ready(Ok(status.into_http())));
                    }
                }
                // Nobody behind this needs it.
                request.headers_mut().remove(AUTHORIZATION);
                Either::Left(self.inner.call(request))
            }
            // The gateway looks up what may be a token of another user.
            Some(_) if needs_token => Either::Left(self.inner.call(request)),
            _ if request.uri().path().starts_with(HEALTH) => Either::Left(self.inner.call(request)),
            _ => Either::Right(ready(Ok(local.refusal().into_http()))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_where_only_its_user_can_read_it_for_as_long_as_it_is_kept() {
        // Of a network of its own: no port of another test.
        let address: SocketAddr = "127.77.0.1:1".parse().unwrap();
        let (token, kept) = LocalToken::keep(address).unwrap();
        let path = token_file(address).unwrap();
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o7777;
        assert_eq!((mode(&path), mode(path.parent().unwrap())), (0o600, 0o700));
        assert!(path.ends_with(format!("sawmill/tokens/{}/127.77.0.1:1", host())));
        let shown = Shown::default();
        assert_eq!(shown.header(), None);
        shown.connected(Some(address));
        let mut headers = http::HeaderMap::new();
        headers.insert(AUTHORIZATION, shown.header().unwrap());
        assert!(bearer(&headers).unwrap().is(&token.shared.token));

        // Whoever comes next has another, which the first one leaves alone.
        let (next, kept_next) = LocalToken::keep(address).unwrap();
        assert!(!next.shared.token.is(&token.shared.token));
        drop(kept);
        headers.insert(AUTHORIZATION, shown.header().unwrap());
        assert!(bearer(&headers).unwrap().is(&next.shared.token));
        drop(kept_next);
        assert!(!path.exists());
        // What is under way while it stops is let end.
        assert!(shown.header().is_some());
        // An address that others reach has none.
        shown.connected(Some("10.0.0.1:1".parse().unwrap()));
        assert_eq!(shown.header(), None);
    }

    #[test]
    fn a_directory_of_anybody_else_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let token = Token::generate().unwrap();
        let open = folder.path().join("open");
        fs::create_dir(&open).unwrap();
        fs::set_permissions(&open, fs::Permissions::from_mode(0o755)).unwrap();
        write(&open.join("a"), &token).unwrap();
        assert_eq!(fs::metadata(&open).unwrap().permissions().mode() & 0o777, 0o700);
        std::os::unix::fs::symlink(&open, folder.path().join("link")).unwrap();
        let refused = write(&folder.path().join("link/a"), &token).unwrap_err();
        assert!(refused.to_string().contains("is a link"), "{refused}");
        let other = match nix::unistd::geteuid().is_root() {
            true => {
                nix::unistd::chown(&open, Some(nix::unistd::Uid::from_raw(65534)), None).unwrap();
                open.join("a")
            }
            false => PathBuf::from("/a"),
        };
        let refused = write(&other, &token).unwrap_err();
        assert!(refused.to_string().contains("another user"), "{refused}");
    }

    #[test]
    fn only_a_bearer_of_the_form_is_a_token() {
        let token = Token::generate().unwrap().expose();
        let read = |text: &str| {
            let mut headers = http::HeaderMap::new();
            headers.insert(AUTHORIZATION, text.parse().unwrap());
            bearer(&headers).is_some()
        };
        assert!(read(&format!("Bearer {token}")) && read(&format!("bearer  {token}")));
        for bad in [
            "",
            "Bearer",
            "Bearer ",
            "Basic x",
            &token,
            &format!("Basic {token}"),
        ] {
            assert!(!read(bad), "{bad}");
        }
    }
}
