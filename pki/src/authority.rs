//! The private authority: makes itself, issues, renews, revokes. Its key never leaves its directory.

use std::{
    collections::BTreeSet,
    net::IpAddr,
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, DnType, ExtendedKeyUsagePurpose,
    IsCa, Issuer, KeyIdMethod, KeyPair, KeyUsagePurpose, RevocationReason, RevokedCertParams, SanType,
    SerialNumber,
};
use rustls::pki_types::ServerName;
use time::OffsetDateTime;

use crate::{
    Details, Error, Issued, Peer, Role,
    certificate::{hex, sha256},
    files::{self, PUBLIC_MODE, SECRET_MODE},
    index::Index,
};

/// How long an authority is valid: replacing it means touching every machine.
pub const CA_VALID: Duration = Duration::from_secs(10 * 365 * DAY);

/// How much a certificate begins before it is made: clocks differ.
const BEGINS_EARLIER: Duration = Duration::from_secs(5 * 60);

/// Shortest time for which a certificate is valid.
const VALID_MIN: Duration = Duration::from_secs(60);

const DAY: u64 = 24 * 60 * 60;

/// The key of the authority, in its directory.
const CA_KEY: &str = "ca-key.pem";

/// A certificate that is wanted.
#[derive(Clone, Debug)]
pub struct Order {
    /// Whom it stands for, with its rights.
    pub peer: Peer,
    /// DNS names and IP addresses under which it is connected to; dispatchers and workers need one at least.
    pub hosts: Vec<String>,
    /// For how long.
    pub valid: Duration,
}

/// What a renewal leads to.
#[derive(Clone, Debug)]
pub struct Renewal {
    /// The new certificate.
    pub issued: Issued,
    /// Serial number of the one before, which stays valid until it ends.
    pub before: String,
}

/// An authority with its key.
pub struct Authority {
    dir: PathBuf,
    pem: String,
    issuer: Issuer<'static, KeyPair>,
    valid_until: i64,
}

impl Authority {
    /// Makes an authority in a directory, which is made.
    ///
    /// # Errors
    /// [`Error::Exists`], [`Error::File`], [`Error::Making`].
    pub fn create(dir: &Path, now: SystemTime) -> Result<Self, Error> {
        for name in [files::CA, CA_KEY] {
            let path = dir.join(name);
            if path.exists() {
                return Err(Error::Exists { path });
            }
        }
        make_dir(dir)?;
        let key = KeyPair::generate()?;
        let mut params = CertificateParams::default();
        // Two authorities of one name would be told as a bad signature instead of as another authority.
        let id = &hex(&sha256(key.public_key_raw()))[..8];
        params
            .distinguished_name
            .push(DnType::CommonName, format!("Sawmill authority {id}"));
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        (params.not_before, params.not_after) = (
            OffsetDateTime::from(now - BEGINS_EARLIER),
            OffsetDateTime::from(now + CA_VALID),
        );
        let certificate = params.self_signed(&key)?;
        files::replace(&dir.join(CA_KEY), &key.serialize_pem(), SECRET_MODE)?;
        files::replace(&dir.join(files::CA), &certificate.pem(), PUBLIC_MODE)?;
        let authority = Self::open(dir)?;
        authority.write_revoked(&Index::open(dir)?, now)?;
        Ok(authority)
    }

    /// Opens an authority.
    ///
    /// # Errors
    /// [`Error::NoAuthority`], [`Error::File`], [`Error::Content`], [`Error::OpenKey`].
    pub fn open(dir: &Path) -> Result<Self, Error> {
        let (ca, key_path) = (dir.join(files::CA), dir.join(CA_KEY));
        if !key_path.exists() {
            return Err(Error::NoAuthority { path: dir.into() });
        }
        let key = files::key(&key_path)?;
        let content = |error: rcgen::Error| Error::Content {
            path: key_path.clone(),
            what: "key of an authority",
            why: error.to_string(),
        };
        let key = KeyPair::try_from(&key).map_err(content)?;
        let pem = String::from_utf8_lossy(&files::read(&ca)?).into_owned();
        let issuer = Issuer::from_ca_cert_pem(&pem, key).map_err(content)?;
        Ok(Self {
            valid_until: Details::of_file(&ca)?.not_after,
            dir: dir.into(),
            pem,
            issuer,
        })
    }

    /// All that was issued, the oldest first.
    ///
    /// # Errors
    /// [`Error::File`], [`Error::Content`].
    pub fn issued(&self) -> Result<Vec<Issued>, Error> {
        Ok(Index::open(&self.dir)?.issued().to_vec())
    }

    /// The list of what is revoked, to be copied to the identities of those who are connected to.
    pub fn revoked_path(&self) -> PathBuf {
        self.dir.join(files::CRL)
    }

    /// Issues a certificate with a new key and writes a directory for [`crate::Identity::load`].
    ///
    /// # Errors
    /// [`Error::Exists`] when `out` has a certificate already; [`Error::NoHosts`], [`Error::BadHost`],
    /// [`Error::BadValidity`], [`Error::NoPeer`] for rights of another role; [`Error::File`], [`Error::Making`].
    pub fn issue(&self, order: &Order, out: &Path, now: SystemTime) -> Result<Issued, Error> {
        for name in [files::CERTIFICATE, files::KEY] {
            let path = out.join(name);
            if path.exists() {
                return Err(Error::Exists { path });
            }
        }
        order.peer.rights.check(order.peer.role)?;
        let may_listen = matches!(order.peer.role, Role::Dispatcher | Role::Worker);
        if may_listen && order.hosts.is_empty() {
            return Err(Error::NoHosts {
                role: order.peer.role,
            });
        }
        self.make(order, out, now)
    }

    /// Issues the certificate of an identity's directory anew: the same peer and hosts, a new key. The one before stays
    /// valid until it ends. `valid` is as long as before unless told otherwise.
    ///
    /// # Errors
    /// [`Error::Foreign`] for what this authority did not issue, [`Error::Refused`] for what was revoked, and as
    /// [`Authority::issue`].
    pub fn renew(&self, dir: &Path, valid: Option<Duration>, now: SystemTime) -> Result<Renewal, Error> {
        let path = dir.join(files::CERTIFICATE);
        let details = Details::of_file(&path)?;
        let issued = self.issued()?;
        let Some(known) = issued.iter().find(|issued| issued.serial == details.serial) else {
            return Err(Error::Foreign { path });
        };
        if known.revoked.is_some() {
            return Err(Error::Refused {
                path,
                why: "it was revoked: issue another one".to_string(),
            });
        }
        let as_before = u64::try_from(details.not_after - details.not_before)
            .map(Duration::from_secs)
            .unwrap_or_default();
        let order = Order {
            peer: details.peer()?,
            hosts: details.hosts,
            valid: valid.unwrap_or(as_before.saturating_sub(BEGINS_EARLIER)),
        };
        Ok(Renewal {
            issued: self.make(&order, dir, now)?,
            before: details.serial,
        })
    }

    /// Revokes by serial number, by name (all valid certificates of it), or by `ROLE/NAME` where several roles have the
    /// name; writes the new list and gives what was revoked by this call.
    ///
    /// # Errors
    /// [`Error::NotIssued`], [`Error::Ambiguous`], [`Error::File`], [`Error::Making`].
    pub fn revoke(&self, who: &str, now: SystemTime) -> Result<Vec<Issued>, Error> {
        let mut index = Index::open(&self.dir)?;
        let at = OffsetDateTime::from(now).unix_timestamp();
        let live = index
            .issued()
            .iter()
            .filter(|issued| issued.revoked.is_none() && issued.not_after > at);
        let fits = |issued: &&Issued| {
            let peer = issued.peer();
            let named = peer.is_some_and(|peer| {
                peer.name.as_str() == who || format!("{}/{}", peer.role, peer.name) == who
            });
            named || issued.serial.eq_ignore_ascii_case(who)
        };
        let found: Vec<Issued> = live.filter(fits).cloned().collect();
        let Some(first) = found.first() else {
            return Err(Error::NotIssued(who.to_string()));
        };
        let other = found.iter().find_map(|issued| {
            let (one, other) = (first.peer()?, issued.peer()?);
            (one.role != other.role).then_some(one)
        });
        if let Some(peer) = other {
            return Err(Error::Ambiguous {
                name: peer.name,
                role: peer.role,
            });
        }
        let serials: BTreeSet<String> = found.iter().map(|issued| issued.serial.clone()).collect();
        index.revoke(&serials, at)?;
        self.write_revoked(&index, now)?;
        let revoked = index.issued().iter();
        Ok(revoked
            .filter(|issued| serials.contains(&issued.serial))
            .cloned()
            .collect())
    }

    /// Makes key and certificate and writes the directory. The index knows of it first: what is out can be revoked.
    fn make(&self, order: &Order, out: &Path, now: SystemTime) -> Result<Issued, Error> {
        if !(VALID_MIN..=CA_VALID).contains(&order.valid) {
            return Err(Error::BadValidity);
        }
        let until = OffsetDateTime::from(now + order.valid);
        if until.unix_timestamp() > self.valid_until {
            return Err(Error::BadValidity);
        }
        let key = KeyPair::generate()?;
        let mut params = CertificateParams::default();
        let Peer { role, name, .. } = &order.peer;
        params
            .distinguished_name
            .push(DnType::CommonName, format!("{role} {name}"));
        params.subject_alt_names = names(order)?;
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        if matches!(role, Role::Dispatcher | Role::Worker) {
            params
                .extended_key_usages
                .push(ExtendedKeyUsagePurpose::ServerAuth);
        }
        params.use_authority_key_identifier_extension = true;
        params.serial_number = Some(serial(&key));
        (params.not_before, params.not_after) = (OffsetDateTime::from(now - BEGINS_EARLIER), until);
        let certificate = params.signed_by(&key, &self.issuer)?;
        let path = out.join(files::CERTIFICATE);
        let details = Details::of(certificate.der()).map_err(|why| Error::Content {
            path: path.clone(),
            what: "certificate",
            why,
        })?;
        make_dir(out)?;
        let at = OffsetDateTime::from(now).unix_timestamp();
        let issued = Index::open(&self.dir)?.add(&details, order.peer.to_uri(), at)?;
        files::replace(&out.join(files::CA), &self.pem, PUBLIC_MODE)?;
        let revoked = files::read(&self.revoked_path())?;
        files::replace(
            &out.join(files::CRL),
            &String::from_utf8_lossy(&revoked),
            PUBLIC_MODE,
        )?;
        files::replace(&out.join(files::KEY), &key.serialize_pem(), SECRET_MODE)?;
        files::replace(&path, &certificate.pem(), PUBLIC_MODE)?;
        Ok(issued)
    }

    /// Signs the list of what is revoked. What has ended by itself is not in it.
    fn write_revoked(&self, index: &Index, now: SystemTime) -> Result<(), Error> {
        let at = OffsetDateTime::from(now).unix_timestamp();
        let revoked = index.issued().iter().filter(|issued| issued.not_after > at);
        let revoked = revoked.filter_map(|issued| {
            let time = OffsetDateTime::from_unix_timestamp(issued.revoked?).ok()?;
            Some(RevokedCertParams {
                serial_number: SerialNumber::from(unhex(&issued.serial)?),
                revocation_time: time,
                reason_code: Some(RevocationReason::Unspecified),
                invalidity_date: None,
            })
        });
        let params = CertificateRevocationListParams {
            this_update: OffsetDateTime::from(now),
            // Whoever has a list keeps to it until there is another one.
            next_update: OffsetDateTime::from(now + CA_VALID),
            crl_number: SerialNumber::from(at.unsigned_abs()),
            issuing_distribution_point: None,
            revoked_certs: revoked.collect(),
            key_identifier_method: KeyIdMethod::Sha256,
        };
        let list = params.signed_by(&self.issuer)?.pem()?;
        files::replace(&self.revoked_path(), &list, PUBLIC_MODE)
    }
}

/// The names in a certificate: the peer as a URI, then its hosts.
fn names(order: &Order) -> Result<Vec<SanType>, Error> {
    let mut names = vec![SanType::URI(order.peer.to_uri().try_into()?)];
    for host in &order.hosts {
        let bad = || Error::BadHost(host.clone());
        names.push(match host.parse::<IpAddr>() {
            Ok(address) => SanType::IpAddress(address),
            Err(_) => {
                ServerName::try_from(host.as_str()).map_err(|_| bad())?;
                SanType::DnsName(host.clone().try_into()?)
            }
        });
    }
    Ok(names)
}

/// 16 bytes of a new key's hash: no two certificates have the same.
fn serial(key: &KeyPair) -> SerialNumber {
    let mut bytes = sha256(key.public_key_raw());
    bytes.truncate(16);
    // Positive, and without leading zeros, which some would drop.
    bytes[0] = (bytes[0] & 0x7f) | 0x40;
    SerialNumber::from(bytes)
}

fn unhex(text: &str) -> Option<Vec<u8>> {
    let digits = text.as_bytes();
    let pairs = digits.chunks(2).map(|pair| {
        let pair = std::str::from_utf8(pair).ok().filter(|pair| pair.len() == 2)?;
        u8::from_str_radix(pair, 16).ok()
    });
    pairs.collect()
}

fn make_dir(dir: &Path) -> Result<(), Error> {
    folders::own(dir).map_err(files::failed(dir))
}
