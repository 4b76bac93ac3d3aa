//! The authority and what it issues: files, names, renewal, revocation, and what is refused.
#![allow(clippy::unwrap_used)]

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use pki::{Authority, Details, Error, Identity, Order, Peer};
use tempfile::TempDir;

const DAY: Duration = Duration::from_secs(24 * 60 * 60);

fn order(uri: &str, hosts: &[&str]) -> Order {
    Order {
        peer: Peer::from_uri(uri).unwrap(),
        hosts: hosts.iter().map(ToString::to_string).collect(),
        valid: 90 * DAY,
    }
}

struct Office {
    dir: TempDir,
    authority: Authority,
}

impl Office {
    fn new() -> Self {
        let dir = TempDir::new().unwrap();
        let authority = Authority::create(&dir.path().join("ca"), SystemTime::now()).unwrap();
        Self { dir, authority }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn issue(&self, out: &str, uri: &str, hosts: &[&str]) -> PathBuf {
        let out = self.path(out);
        self.authority
            .issue(&order(uri, hosts), &out, SystemTime::now())
            .unwrap();
        out
    }
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o777
}

#[test]
fn what_is_issued_says_who_it_is_for_and_is_ready_for_use() {
    let office = Office::new();
    let uri = "sawmill://worker/node1";
    let dir = office.issue("node1", uri, &["node1.example.com", "10.0.0.2", "fd00::2"]);
    assert_eq!(Identity::load(&dir).unwrap().peer(), Peer::from_uri(uri).unwrap());
    assert_eq!(mode(&dir.join("key.pem")), 0o600);
    assert_eq!(mode(&office.path("ca/ca-key.pem")), 0o600);

    let details = Details::of_file(&dir.join("cert.pem")).unwrap();
    assert_eq!(details.uri.as_deref(), Some(uri));
    assert_eq!(details.hosts, ["node1.example.com", "10.0.0.2", "fd00::2"]);
    assert!(!details.is_authority && details.fingerprint.len() == 64);
    let issued = office.authority.issued().unwrap();
    assert_eq!(issued.len(), 1);
    assert_eq!(
        (&issued[0].serial, issued[0].not_after),
        (&details.serial, details.not_after)
    );
    assert!(Details::of_file(&dir.join("ca.pem")).unwrap().is_authority);
}

#[test]
fn a_renewed_certificate_is_another_one_for_the_same_peer() {
    let office = Office::new();
    let dir = office.issue("web7", "sawmill://agent/web7?dataset=app-*", &[]);
    let before = Details::of_file(&dir.join("cert.pem")).unwrap();
    let key = fs::read(dir.join("key.pem")).unwrap();
    let later = SystemTime::now() + Duration::from_secs(1000);
    let renewal = office.authority.renew(&dir, None, later).unwrap();
    let after = Details::of_file(&dir.join("cert.pem")).unwrap();
    assert_eq!(
        (renewal.before, renewal.issued.serial),
        (before.serial.clone(), after.serial.clone())
    );
    assert_ne!(before.serial, after.serial);
    assert_eq!(before.uri, after.uri);
    assert!((after.not_after - before.not_after - 1000).abs() <= 1);
    assert_ne!(fs::read(dir.join("key.pem")).unwrap(), key);

    // By name both go.
    assert_eq!(office.authority.revoke("web7", later).unwrap().len(), 2);
    let list = office.authority.revoked_path();
    assert!(before.is_revoked(&list).unwrap() && after.is_revoked(&list).unwrap());
    let refused = office.authority.renew(&dir, None, later).unwrap_err();
    assert!(refused.to_string().contains("revoked"), "{refused}");
    assert!(matches!(
        office.authority.revoke("web7", later),
        Err(Error::NotIssued(_))
    ));

    let other = Office::new();
    let foreign = other.authority.renew(&dir, None, later).unwrap_err();
    assert!(matches!(foreign, Error::Foreign { .. }), "{foreign}");
}

#[test]
fn one_is_revoked_and_the_others_are_not() {
    let office = Office::new();
    let now = SystemTime::now();
    let anna = office.issue("anna", "sawmill://user/anna", &[]);
    let agent = office.issue("agent", "sawmill://agent/anna", &[]);
    let bert = office.issue("bert", "sawmill://user/bert", &[]);
    let told = office.authority.revoke("anna", now).unwrap_err();
    assert!(
        told.to_string().contains("anna is the name of several roles"),
        "{told}"
    );
    office.authority.revoke("user/anna", now).unwrap();
    let serial = Details::of_file(&bert.join("cert.pem")).unwrap().serial;
    office.authority.revoke(&serial.to_uppercase(), now).unwrap();

    let list = office.authority.revoked_path();
    for (dir, is_revoked) in [(&anna, true), (&agent, false), (&bert, true)] {
        let details = Details::of_file(&dir.join("cert.pem")).unwrap();
        assert_eq!(
            details.is_revoked(&list).unwrap(),
            is_revoked,
            "{}",
            dir.display()
        );
        fs::copy(&list, dir.join("crl.pem")).unwrap();
        assert_eq!(Identity::load(dir).is_err(), is_revoked, "{}", dir.display());
    }
    // The authority remembers when it is opened again.
    let again = Authority::open(&office.path("ca")).unwrap();
    let revoked = again.issued().unwrap();
    assert_eq!(
        revoked.iter().filter(|issued| issued.revoked.is_some()).count(),
        2
    );
}

#[test]
fn what_can_not_be_used_is_told_with_its_place() {
    let office = Office::new();
    let told = |dir: &Path| Identity::load(dir).unwrap_err().to_string();
    assert!(told(&office.path("nowhere")).contains("ca.pem"));

    let dir = office.issue("a", "sawmill://user/a", &[]);
    let key = dir.join("key.pem");
    fs::set_permissions(&key, fs::Permissions::from_mode(0o644)).unwrap();
    assert!(told(&dir).contains("chmod 600"), "{}", told(&dir));
    fs::set_permissions(&key, fs::Permissions::from_mode(0o640)).unwrap();
    Identity::load(&dir).unwrap();

    let other = office.issue("b", "sawmill://user/b", &[]);
    fs::copy(other.join("key.pem"), &key).unwrap();
    assert!(told(&dir).contains("does not belong to"), "{}", told(&dir));
    fs::write(&key, "no key").unwrap();
    assert!(told(&dir).contains("private key"), "{}", told(&dir));

    let strangers = Office::new();
    fs::copy(strangers.path("ca/ca.pem"), other.join("ca.pem")).unwrap();
    assert!(told(&other).contains("did not sign it"), "{}", told(&other));
    fs::copy(office.path("ca/ca.pem"), other.join("ca.pem")).unwrap();
    fs::copy(strangers.path("ca/crl.pem"), other.join("crl.pem")).unwrap();
    assert!(told(&other).contains("crl.pem"), "{}", told(&other));
    fs::write(other.join("crl.pem"), "no list").unwrap();
    assert!(told(&other).contains("crl.pem"), "{}", told(&other));
}

#[test]
fn what_is_asked_for_in_a_wrong_way_is_refused() {
    let office = Office::new();
    let now = SystemTime::now();
    let issue = |order: &Order| {
        office
            .authority
            .issue(order, &office.path("out"), now)
            .unwrap_err()
    };
    let no_hosts = issue(&order("sawmill://worker/w", &[]));
    assert!(matches!(no_hosts, Error::NoHosts { .. }) && no_hosts.is_usage());
    for bad in ["a b", "", "-x-.", "http://x"] {
        let error = issue(&order("sawmill://worker/w", &[bad]));
        assert!(matches!(error, Error::BadHost(_)), "{bad}: {error}");
    }
    for valid in [Duration::ZERO, pki::CA_VALID + DAY, Duration::MAX] {
        let order = Order {
            valid,
            ..order("sawmill://user/u", &[])
        };
        assert!(matches!(issue(&order), Error::BadValidity));
    }
    office.issue("out", "sawmill://user/u", &[]);
    assert!(matches!(
        issue(&order("sawmill://user/u", &[])),
        Error::Exists { .. }
    ));
    assert!(matches!(
        Authority::create(&office.path("ca"), now).err(),
        Some(Error::Exists { .. })
    ));
    assert!(matches!(
        Authority::open(&office.path("out")).err(),
        Some(Error::NoAuthority { .. })
    ));
    assert_eq!(office.authority.issued().unwrap().len(), 1);
}
