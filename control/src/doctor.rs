//! Is every part there, and fit for the work? Each answer with what to do about it.

use std::time::Duration;

use coordination::{Candidacy, Office, Snapshot, Term};
use model::{JobId, znode::CandidateData};
use serde::Serialize;
use storage::{Spill, Store};

use crate::{Control, Status, new_job_id, obstacles::missing_roles, stalled::stalled};

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// As it should be.
    Ok,
    /// Works, and yet somebody should look at it.
    Warning,
    /// Does not work.
    Failed,
}

/// One thing that was checked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Check {
    /// What, in a few words.
    pub name: &'static str,
    /// How bad it is.
    pub verdict: Verdict,
    /// What was found.
    pub found: String,
    /// What to do about it.
    pub advice: Option<String>,
}

impl Check {
    fn ok(name: &'static str, found: impl Into<String>) -> Self {
        Self {
            name,
            verdict: Verdict::Ok,
            found: found.into(),
            advice: None,
        }
    }

    fn warning(name: &'static str, found: impl Into<String>, advice: impl Into<String>) -> Self {
        Self {
            name,
            verdict: Verdict::Warning,
            found: found.into(),
            advice: Some(advice.into()),
        }
    }

    fn failed(name: &'static str, found: impl Into<String>, advice: impl Into<String>) -> Self {
        Self {
            name,
            verdict: Verdict::Failed,
            found: found.into(),
            advice: Some(advice.into()),
        }
    }
}

/// Clocks that are further apart than this make times in documents misleading.
const SKEW_NOTICED: Duration = Duration::from_millis(500);
/// Clocks that are further apart than this make retention and schedules wrong.
const SKEW_BAD: Duration = storage::MOST_APART;
/// A round trip to a store that is longer than this makes everything slow.
const SLOW: Duration = Duration::from_millis(50);

/// Checks every part, in an order in which the first failure explains the later ones. Never fails itself.
///
/// Makes the three roots and the collections where they are missing, as every role does when it starts; otherwise
/// leaves nothing behind.
pub async fn examine(zookeeper: &coordination::Config, storage: &storage::Config) -> Vec<Check> {
    let mut checks = Vec::new();
    let term = examine_zookeeper(zookeeper, &mut checks).await;
    let store = examine_mongodb(storage, &mut checks).await;
    if let Some(term) = term {
        if let Some(store) = store {
            let control = Control::open(zookeeper.clone(), store.clone());
            examine_roles(&control, &mut checks).await;
            examine_jobs(&term, &store, &mut checks).await;
        }
        term.close().await;
    }
    checks
}

async fn examine_zookeeper(config: &coordination::Config, checks: &mut Vec<Check>) -> Option<Term> {
    const NAME: &str = "zookeeper";
    let begin = std::time::Instant::now();
    let term = match Term::begin(config).await {
        Ok(term) => term,
        Err(error) => {
            checks.push(Check::failed(NAME, error.to_string(), zookeeper_advice(&error)));
            return None;
        }
    };
    checks.push(Check::ok(
        NAME,
        format!("{} answers within {:?}", config.connect, rounded(begin.elapsed())),
    ));
    for (address, answer) in coordination::servers(config).await {
        checks.push(match answer {
            Ok(server) => {
                let found = format!("{address}: version {}, {}, {} znodes", server.version, server.mode, server.znodes);
                Check::ok("zookeeper server", found)
            }
            Err(why) => Check::warning(
                "zookeeper server",
                format!("{address}: version unknown: {why}"),
                "allow `srvr` with 4lw.commands.whitelist to have it shown; a cluster works while most servers do",
            ),
        });
    }
    checks.push(match probe_rights(&term, config).await {
        Ok(found) => Check::ok("zookeeper rights", found),
        Err(error) => Check::failed("zookeeper rights", error.to_string(), zookeeper_advice(&error)),
    });
    if config.auth.is_some() {
        checks.push(examine_openness(&term).await);
    }
    match Snapshot::take(&term).await {
        Ok(snapshot) => examine_roots(&snapshot, checks),
        Err(error) => checks.push(Check::failed(
            "roots",
            error.to_string(),
            zookeeper_advice(&error),
        )),
    }
    Some(term)
}

/// Stands for the office of the dispatcher for a moment: makes an ephemeral below `/owned` and deletes it.
///
/// It never takes office, and stands last in the line. The users of workers and watchers may not, and need not.
async fn probe_rights(term: &Term, config: &coordination::Config) -> Result<String, coordination::Error> {
    let auth = config.auth.as_deref().unwrap_or_default();
    if let Some(users) = term.users()
        && let Some(role @ ("worker" | "watcher")) = users.role_of(auth)
    {
        return Ok(format!("znodes can be read, as the user of the role {role}"));
    }
    let data = CandidateData {
        v: model::FORMAT,
        host: "doctor".to_string(),
        pid: std::process::id(),
        version: String::new(),
        gateway: None,
    };
    Candidacy::enter(term, Office::Dispatcher, &data)
        .await?
        .withdraw()
        .await;
    Ok("znodes can be made and deleted".to_string())
}

/// Whether anybody but the users of this mill may use its znodes.
async fn examine_openness(term: &Term) -> Check {
    const NAME: &str = "zookeeper users";
    let loose = match coordination::rights::loose(term).await {
        Ok(loose) => loose,
        Err(error) => return Check::failed(NAME, error.to_string(), zookeeper_advice(&error)),
    };
    let Some(first) = loose.first() else {
        return Check::ok(
            NAME,
            match term.users() {
                Some(_) => "each role has its own, with the rights that it needs",
                None => "all roles have the same; `sawmill init --acl` gives each its own",
            },
        );
    };
    let found = match first.found.as_slice() {
        [] => format!("{} is another user's", first.path),
        found => format!("{} is open to: {}", first.path, found.join(", ")),
    };
    let more = match loose.len() {
        1 => found,
        count => format!("{found}; and so are {} others", count - 1),
    };
    Check::failed(
        NAME,
        more,
        "stop the roles, run `sawmill init --acl`, and start them again",
    )
}

fn examine_roots(snapshot: &Snapshot, checks: &mut Vec<Check>) {
    let missing: Vec<&str> = snapshot
        .roots
        .iter()
        .filter(|root| root.children.is_none())
        .map(|root| root.path)
        .collect();
    if missing.is_empty() {
        checks.push(Check::ok("roots", "/unowned, /owned and /done are there"));
    } else {
        let found = format!("{} missing", missing.join(", "));
        checks.push(Check::failed(
            "roots",
            found,
            "run `sawmill init`, or start a dispatcher, which makes them",
        ));
    }
    for strange in &snapshot.census.strange {
        let advice = "nobody uses it; delete it by hand if nobody needs it";
        checks.push(Check::warning(
            "strange znode",
            format!("{}: {}", strange.path, strange.why),
            advice,
        ));
    }
}

fn zookeeper_advice(error: &coordination::Error) -> &'static str {
    match error {
        coordination::Error::Unreachable { .. } => {
            "start ZooKeeper there, or say where it is with --zookeeper or SAWMILL_ZOOKEEPER; `sawmill dev` brings its own"
        }
        coordination::Error::NoAuth { .. } => {
            "give the credentials that the mill was set up with: zookeeper_auth or SAWMILL_ZOOKEEPER_AUTH"
        }
        coordination::Error::BadAddress { .. } => "the form is host:port[,host:port…][/chroot]",
        coordination::Error::BadTls { .. } => {
            "check zookeeper_tls_ca, zookeeper_tls_cert and zookeeper_tls_key"
        }
        _ => "see the log of ZooKeeper",
    }
}

async fn examine_mongodb(config: &storage::Config, checks: &mut Vec<Check>) -> Option<Store> {
    const NAME: &str = "mongodb";
    let store = match Store::open(config).await {
        Ok(store) => store,
        Err(error) => {
            let is_store = matches!(
                error,
                storage::Error::Io { .. } | storage::Error::Object { .. } | storage::Error::BadUrl { .. }
            );
            let name = if is_store { "block store" } else { NAME };
            checks.push(Check::failed(name, error.to_string(), storage_advice(&error)));
            return None;
        }
    };
    match store.server_info().await {
        Ok(info) => {
            let found = format!(
                "{} answers, version {}, database {}",
                store.address(),
                info.version,
                store.database()
            );
            let slow = format!("{found}, and takes {:?}", rounded(info.round_trip));
            checks.push(if info.round_trip < SLOW {
                Check::ok(NAME, found)
            } else {
                Check::warning(NAME, slow, "move it nearer, or give it a faster disk")
            });
            checks.push(Check::ok("replica set", info.set_name));
            checks.push(skew(info.clock_skew_ms));
        }
        Err(error) => checks.push(Check::failed(NAME, error.to_string(), storage_advice(&error))),
    }
    checks.push(match store.init().await {
        Ok(()) => Check::ok("mongodb rights", "collections and indexes are there"),
        Err(error) => {
            let advice = "give its user the role readWrite on this database";
            Check::failed("mongodb rights", error.to_string(), advice)
        }
    });
    checks.push(match probe_block_store(&store).await {
        Ok(()) => Check::ok("block store", format!("{} can be written and read", config.store)),
        Err(error) => Check::failed("block store", error.to_string(), storage_advice(&error)),
    });
    Some(store)
}

/// Writes, reads and deletes an output of a job that does not exist.
async fn probe_block_store(store: &Store) -> Result<(), storage::Error> {
    let probe = new_job_id();
    let written = store
        .put_output(probe, "probe", Spill::Bytes(b"probe".to_vec()))
        .await;
    let read = match written {
        Ok(output) => store.read_output(&output).await.map(drop),
        Err(error) => Err(error),
    };
    store.delete_job_outputs(probe).await?;
    read
}

fn skew(ms: i64) -> Check {
    const NAME: &str = "clock";
    const ADVICE: &str = "keep the clocks of all machines in step with NTP";
    let found = format!("MongoDB's clock is {}", apart(ms, "this machine's"));
    let apart = Duration::from_millis(ms.unsigned_abs());
    if apart >= SKEW_BAD {
        Check::failed(NAME, found, ADVICE)
    } else if apart >= SKEW_NOTICED {
        Check::warning(NAME, found, ADVICE)
    } else {
        Check::ok(NAME, found)
    }
}

fn storage_advice(error: &storage::Error) -> &'static str {
    match error {
        storage::Error::NoReplicaSet { .. } => {
            "a replica set of one member is enough; `sawmill dev` brings one"
        }
        storage::Error::BadUri { .. } => {
            "the form is mongodb://[user:password@]host:port[,host:port…]/database"
        }
        storage::Error::Newer { .. } => "use the newest Sawmill everywhere",
        error if error.is_unreachable() => {
            "start MongoDB there, or say where it is with --mongodb or SAWMILL_MONGODB; `sawmill dev` brings its own"
        }
        storage::Error::Mongo { .. } => "check user, password and rights in the connection string",
        _ => "say with --store or SAWMILL_STORE where large outputs may be written",
    }
}

async fn examine_roles(control: &Control, checks: &mut Vec<Check>) {
    let status = match control.status().await {
        Ok(status) => status,
        Err(error) => {
            checks.push(Check::failed("roles", error.to_string(), "see above"));
            return;
        }
    };
    for missing in missing_roles(&status) {
        let (found, advice) = missing.split_once(": ").unwrap_or((&missing, ""));
        checks.push(Check::warning("roles", found, advice));
    }
    if missing_roles(&status).is_empty() {
        checks.push(Check::ok("roles", roles(&status)));
    }
    let dead: Vec<&str> = status
        .workers
        .iter()
        .filter(|worker| !worker.alive)
        .map(|worker| worker.name.as_str())
        .collect();
    if !dead.is_empty() {
        let found = format!("{} died and left entries", dead.join(", "));
        checks.push(Check::warning(
            "roles",
            found,
            "a leading dispatcher recovers them within a second",
        ));
    }
    if let Some(ahead_ms) = status.leader_clock_ahead_ms {
        let found = format!(
            "no jobs, results or blocks are removed, whatever their age: the leader's clock is {}",
            apart(ahead_ms, "MongoDB's")
        );
        let advice = "one of the two is wrong: keep the clocks of all machines in step with NTP";
        checks.push(Check::failed("retention", found, advice));
    }
    versions(&status, checks);
}

async fn examine_jobs(term: &Term, store: &Store, checks: &mut Vec<Check>) {
    const NAME: &str = "jobs";
    checks.push(match stalled(term, store).await {
        Ok(stalled) if stalled.is_empty() => Check::ok(NAME, "each runs, or waits for something"),
        Ok(stalled) => {
            let ids: Vec<String> = stalled.iter().map(JobId::to_string).collect();
            let found = format!(
                "nothing runs of {}, although a compute node that may run it has a free slot",
                ids.join(", ")
            );
            let advice = "restart the leading dispatcher: the next leader compares everything; then look at `sawmill doctor --audit`";
            Check::failed(NAME, found, advice)
        }
        Err(error) => Check::failed(NAME, error.to_string(), "see above"),
    });
}

/// As in `2000 ms behind MongoDB's`.
fn apart(ahead_ms: i64, whose: &str) -> String {
    let how = if ahead_ms < 0 { "behind" } else { "ahead of" };
    format!("{} ms {how} {whose}", ahead_ms.unsigned_abs())
}

fn roles(status: &Status) -> String {
    let live: Vec<_> = status.workers.iter().filter(|worker| worker.alive).collect();
    let slots: u32 = live.iter().map(|worker| worker.slots).sum();
    let (dispatchers, watchers) = (1 + status.standby.len(), status.watchers.len());
    format!(
        "dispatchers: {dispatchers}, watchers: {watchers}, workers: {}, slots: {slots}",
        live.len()
    )
}

fn versions(status: &Status, checks: &mut Vec<Check>) {
    let candidates = status
        .leader
        .iter()
        .chain(&status.standby)
        .chain(&status.watchers);
    let mut versions: Vec<&str> = candidates.map(|candidate| candidate.version.as_str()).collect();
    versions.retain(|version| !version.is_empty());
    versions.sort_unstable();
    versions.dedup();
    if versions.len() > 1 {
        let advice = "upgrade the older ones; mixed versions are for the time of an upgrade only";
        checks.push(Check::warning("versions", versions.join(", "), advice));
    }
}

fn rounded(duration: Duration) -> Duration {
    Duration::from_millis(u64::try_from(duration.as_millis()).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clocks_are_judged() {
        assert_eq!(skew(-3).verdict, Verdict::Ok);
        assert_eq!(skew(700).verdict, Verdict::Warning);
        let bad = skew(-60_000);
        assert_eq!(
            (bad.verdict, bad.found.as_str()),
            (
                Verdict::Failed,
                "MongoDB's clock is 60000 ms behind this machine's"
            )
        );
    }
}
