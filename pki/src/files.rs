//! The PEM files: read with a limit and checked, written whole or not at all.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Read as _, Write as _},
    os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
};

use rustls::pki_types::{
    CertificateDer, CertificateRevocationListDer, PrivateKeyDer,
    pem::{self, PemObject},
};

use crate::Error;

/// The certificate of the authority.
pub(crate) const CA: &str = "ca.pem";
/// Our certificate.
pub(crate) const CERTIFICATE: &str = "cert.pem";
/// Our key.
pub(crate) const KEY: &str = "key.pem";
/// What is revoked.
pub(crate) const CRL: &str = "crl.pem";

/// Permissions of a key.
pub(crate) const SECRET_MODE: u32 = 0o600;
/// Permissions of everything else.
pub(crate) const PUBLIC_MODE: u32 = 0o644;

/// Largest file that is read: a list of 100,000 revoked certificates is 4 MB.
const BYTES_MAX: u64 = 16 << 20;

pub(crate) fn failed(path: &Path) -> impl FnOnce(io::Error) -> Error + '_ {
    move |source| Error::File {
        path: path.into(),
        source,
    }
}

/// The whole file, up to [`BYTES_MAX`].
pub(crate) fn read(path: &Path) -> Result<Vec<u8>, Error> {
    let mut bytes = Vec::new();
    let file = File::open(path).map_err(failed(path))?;
    file.take(BYTES_MAX)
        .read_to_end(&mut bytes)
        .map_err(failed(path))?;
    Ok(bytes)
}

/// All items of one kind in a PEM file; at least one.
pub(crate) fn items<T: PemObject>(path: &Path, bytes: &[u8], what: &'static str) -> Result<Vec<T>, Error> {
    let content = |why| Error::Content {
        path: path.into(),
        what,
        why,
    };
    let items: Result<Vec<T>, pem::Error> = T::pem_slice_iter(bytes).collect();
    let items = items.map_err(|error| content(format!("it is no good PEM ({error:?})")))?;
    if items.is_empty() {
        return Err(content("there is no such section in it".to_string()));
    }
    Ok(items)
}

pub(crate) fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, Error> {
    items(path, &read(path)?, "certificate")
}

/// The lists of what is revoked; none without a file.
pub(crate) fn revoked(path: &Path) -> Result<Vec<CertificateRevocationListDer<'static>>, Error> {
    match read(path) {
        Ok(bytes) => items(path, &bytes, "list of revoked certificates"),
        Err(Error::File { source, .. }) if source.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(error),
    }
}

/// A key, unless others than owner and group may read it.
pub(crate) fn key(path: &Path) -> Result<PrivateKeyDer<'static>, Error> {
    const OTHERS: u32 = 0o007;
    let mode = fs::metadata(path).map_err(failed(path))?.permissions().mode() & 0o7777;
    if mode & OTHERS != 0 {
        return Err(Error::OpenKey {
            path: path.into(),
            mode,
        });
    }
    let keys: Vec<PrivateKeyDer<'static>> = items(path, &read(path)?, "private key")?;
    keys.into_iter().next().ok_or_else(|| Error::Content {
        path: path.into(),
        what: "private key",
        why: "it is empty".to_string(),
    })
}

/// Writes a file so that readers see the old one or the new one, whole, and it survives a loss of power.
pub(crate) fn replace(path: &Path, text: &str, mode: u32) -> Result<(), Error> {
    let new = PathBuf::from(format!("{}.new", path.display()));
    // What a crash left behind may have other permissions.
    match fs::remove_file(&new) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed(&new)(error)),
        _ => {}
    }
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(mode)
        .open(&new)
        .map_err(failed(&new))?;
    file.write_all(text.as_bytes())
        .and_then(|()| file.sync_all())
        .map_err(failed(&new))?;
    fs::rename(&new, path).map_err(failed(path))?;
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
    let folder = folder.unwrap_or(Path::new("."));
    File::open(folder)
        .and_then(|folder| folder.sync_all())
        .map_err(failed(folder))
}
