//! What certificates say, for people and programs.

use std::{collections::BTreeSet, path::Path};

use pki::{Authority, Details, Identity, Peer, Role};
use serde::Serialize;

use crate::output;

/// One certificate as `--output json` shows it; fields are only ever added.
#[derive(Serialize)]
struct Shown<'a> {
    #[serde(flatten)]
    details: &'a Details,
    role: Option<&'static str>,
    name: Option<String>,
    datasets: Vec<String>,
    queues: Vec<String>,
    may_exec: bool,
    may_manage: BTreeSet<String>,
    /// `valid`, `expired`, `not yet valid` or `revoked`.
    state: &'static str,
    /// Why a directory is not ready for `--identity`.
    #[serde(skip_serializing_if = "Option::is_none")]
    trouble: Option<String>,
}

/// Tells what a certificate, an identity or an authority is.
pub(super) fn run(path: &Path, json: bool) -> anyhow::Result<()> {
    if path.join("ca-key.pem").exists() {
        return office(path, json);
    }
    if path.is_dir() {
        let details = Details::of_file(&path.join("cert.pem"))?;
        let is_revoked = details.is_revoked(&path.join("crl.pem")).unwrap_or(false);
        let trouble = Identity::load(path).err().map(|error| error.to_string());
        return one(&details, is_revoked, trouble, json);
    }
    one(&Details::of_file(path)?, false, None, json)
}

fn now() -> i64 {
    jiff::Timestamp::now().as_second()
}

fn state(not_before: i64, not_after: i64, is_revoked: bool) -> &'static str {
    match now() {
        _ if is_revoked => "revoked",
        now if now > not_after => "expired",
        now if now < not_before => "not yet valid",
        _ => "valid",
    }
}

fn one(details: &Details, is_revoked: bool, trouble: Option<String>, json: bool) -> anyhow::Result<()> {
    let peer = details.peer().ok();
    let state = state(details.not_before, details.not_after, is_revoked);
    if json {
        let rights = peer.as_ref().map(|peer| peer.rights.clone()).unwrap_or_default();
        return output::json(&Shown {
            details,
            role: peer.as_ref().map(|peer| peer.role.as_str()),
            name: peer.as_ref().map(|peer| peer.name.to_string()),
            datasets: rights.datasets,
            queues: rights.queues,
            may_exec: rights.may_exec,
            may_manage: rights.manages.iter().map(ToString::to_string).collect(),
            state,
            trouble,
        });
    }
    let mut pairs = Vec::new();
    match &peer {
        Some(peer) => {
            pairs.push(("role", peer.role.to_string()));
            pairs.push(("name", peer.name.to_string()));
            pairs.push(("rights", rights(peer)));
        }
        None if details.is_authority => pairs.push(("role", "an authority".to_string())),
        None => pairs.push(("role", "none: it was not made by `sawmill pki`".to_string())),
    }
    if !details.hosts.is_empty() {
        pairs.push(("hosts", details.hosts.join("\n")));
    }
    pairs.push((
        "state",
        trouble.map_or_else(|| state.to_string(), |why| format!("{state}, but {why}")),
    ));
    pairs.push(("valid from", output::time(details.not_before * 1000)));
    pairs.push(("valid until", output::time(details.not_after * 1000)));
    pairs.push(("serial", details.serial.clone()));
    pairs.push(("sha256", details.fingerprint.clone()));
    pairs.push(("issuer", details.issuer.clone()));
    output::pairs(&pairs)
}

/// What an authority has issued.
fn office(dir: &Path, json: bool) -> anyhow::Result<()> {
    let authority = Authority::open(dir)?;
    let issued = authority.issued()?;
    let details = Details::of_file(&dir.join("ca.pem"))?;
    if json {
        return output::json(&serde_json::json!({ "authority": details, "issued": issued }));
    }
    output::line(format_args!(
        "{}, valid until {}\n",
        details.subject,
        output::time(details.not_after * 1000)
    ))?;
    let rows = issued.iter().map(|issued| {
        let peer = issued.peer();
        [
            peer.as_ref()
                .map_or_else(String::new, |peer| peer.role.to_string()),
            peer.as_ref()
                .map_or_else(|| issued.uri.clone(), |peer| peer.name.to_string()),
            state(issued.not_before, issued.not_after, issued.revoked.is_some()).to_string(),
            output::time(issued.not_after * 1000),
            issued.serial.clone(),
            peer.as_ref().map_or_else(String::new, rights),
            issued.hosts.join(" "),
        ]
    });
    let headings = [
        "ROLE",
        "NAME",
        "STATE",
        "VALID UNTIL",
        "SERIAL",
        "RIGHTS",
        "HOSTS",
    ];
    output::table(&headings, rows)
}

/// What somebody may do, in words.
fn rights(peer: &Peer) -> String {
    let rights = &peer.rights;
    let of = |patterns: &[String]| match patterns {
        [] => "nothing".to_string(),
        some => some.join(" "),
    };
    match peer.role {
        Role::User => {
            let commands = if rights.may_exec { ", and commands" } else { "" };
            let manages: Vec<&str> = rights.manages.iter().map(|managed| managed.as_str()).collect();
            let manage = if manages.is_empty() { "" } else { "; manage " };
            format!(
                "submit to {}{commands}{manage}{}",
                of(&rights.queues),
                manages.join(" ")
            )
        }
        Role::Agent => format!("ship to {}", of(&rights.datasets)),
        Role::Admin => "everything".to_string(),
        Role::Worker | Role::Dispatcher | Role::Watcher => "as its role".to_string(),
    }
}

/// A certificate with which one can do less than was probably meant.
pub(super) fn nothing_allowed(peer: &Peer) -> Option<&'static str> {
    match peer.role {
        Role::User if peer.rights.queues.is_empty() => {
            Some("this user may look and submit nothing: --queue names queues to submit to")
        }
        Role::Agent if peer.rights.datasets.is_empty() => {
            Some("this agent may ship nothing: --dataset names datasets to ship to")
        }
        _ => None,
    }
}
