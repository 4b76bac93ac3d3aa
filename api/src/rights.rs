//! Who may call which method: a rule for each, and what has none is not served.
//!
//! Promise: [`Rules`] lets a call through to its service only where a rule of the port names its method and grants it to the
//! peer. What depends on more than the method (whose job it is, whether a job runs commands) the service checks besides.
//! `docs/security.md` has the same table for people; a test compares the two.
//!
//! Called by the gateway and by workers, each for its port.

use std::{
    fmt,
    task::{Context, Poll},
};

use futures::future::{Either, Ready, ready};
use pki::{Managed, Peer, Role};
use tonic::{Code, Status, body::Body, codegen::http};
use tower::{Layer, Service};

use crate::transport::ConnectInfo;

/// All jobs are in this queue.
pub const QUEUE: &str = "default";

/// What a call takes. Administrators have all of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Needs {
    /// Nothing: load balancers have neither certificate nor token.
    Nothing,
    /// Some certificate or token.
    Any,
    /// A user: looking at jobs, datasets and who works, and at what is its own.
    Look,
    /// A user who may submit to [`QUEUE`].
    Submit,
    /// A user who may run commands.
    Exec,
    /// A user who may manage such things.
    Manage(Managed),
    /// An administrator.
    Administer,
    /// One of these roles.
    Roles(&'static [Role]),
}

impl Needs {
    /// Whether somebody has it.
    pub fn is_met_by(self, peer: &Peer) -> bool {
        let is_admin = peer.role == Role::Admin;
        match self {
            Self::Nothing | Self::Any => true,
            Self::Look => is_admin || peer.role == Role::User,
            Self::Submit => peer.may_submit_to(QUEUE),
            Self::Exec => peer.may_exec(),
            Self::Manage(what) => peer.may_manage(what),
            Self::Administer => is_admin,
            Self::Roles(roles) => is_admin || roles.contains(&peer.role),
        }
    }

    /// Checks that somebody has it.
    ///
    /// # Errors
    /// PERMISSION_DENIED, with what it takes.
    pub fn check(self, peer: &Peer, to: impl fmt::Display) -> Result<(), Status> {
        if self.is_met_by(peer) {
            return Ok(());
        }
        let message = format!("{peer} may not {to}: that takes {self}");
        Err(crate::refusal(
            Code::PermissionDenied,
            "PERMISSION_DENIED",
            message,
            [],
        ))
    }
}

/// Who has it, in words: as in the documentation.
impl fmt::Display for Needs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Nothing => f.write_str("nothing"),
            Self::Any => f.write_str("a certificate or token"),
            Self::Look => f.write_str("a user"),
            Self::Submit => write!(f, "a user with `--queue {QUEUE}`"),
            Self::Exec => f.write_str("a user with `--may-exec`"),
            Self::Manage(what) => write!(f, "a user with `--may-manage {what}`"),
            Self::Administer => f.write_str("an administrator"),
            Self::Roles(roles) => {
                let roles: Vec<&str> = roles.iter().map(|role| role.as_str()).collect();
                write!(f, "the role {}", roles.join(" or "))
            }
        }
    }
}

/// A rule: a method as `PACKAGE.SERVICE/METHOD`, or all of a service as `PACKAGE.SERVICE/`, and what it takes.
pub type Rule = (&'static str, Needs);

/// Of gateways.
pub const GATEWAY: &[Rule] = &[
    ("grpc.health.v1.Health/", Needs::Nothing),
    ("grpc.reflection.v1.ServerReflection/", Needs::Any),
    ("grpc.reflection.v1alpha.ServerReflection/", Needs::Any),
    ("sawmill.v1.Queue/Submit", Needs::Submit),
    ("sawmill.v1.Queue/SubmitStream", Needs::Submit),
    ("sawmill.v1.Queue/GetJob", Needs::Look),
    ("sawmill.v1.Queue/ListJobs", Needs::Look),
    ("sawmill.v1.Queue/WatchJob", Needs::Look),
    ("sawmill.v1.Queue/CancelJob", Needs::Look),
    ("sawmill.v1.Queue/JobOutput", Needs::Look),
    ("sawmill.v1.Queue/WatchAnswer", Needs::Look),
    ("sawmill.v1.Queue/ListFailures", Needs::Look),
    ("sawmill.v1.Queue/Obstacles", Needs::Look),
    ("sawmill.v1.Queue/SampleJob", Needs::Look),
    ("sawmill.v1.Catalog/ListDatasets", Needs::Look),
    ("sawmill.v1.Catalog/GetDataset", Needs::Look),
    ("sawmill.v1.Catalog/ListBlocks", Needs::Look),
    ("sawmill.v1.Catalog/Head", Needs::Look),
    ("sawmill.v1.Catalog/AddFiles", Needs::Manage(Managed::Datasets)),
    ("sawmill.v1.Catalog/SetDataset", Needs::Manage(Managed::Datasets)),
    (
        "sawmill.v1.Catalog/CompactDataset",
        Needs::Manage(Managed::Datasets),
    ),
    (
        "sawmill.v1.Catalog/RefreshDataset",
        Needs::Manage(Managed::Datasets),
    ),
    ("sawmill.v1.Catalog/LookAtFiles", Needs::Look),
    ("sawmill.v1.Catalog/RemoveFile", Needs::Manage(Managed::Datasets)),
    ("sawmill.v1.Catalog/UndoAdd", Needs::Manage(Managed::Datasets)),
    (
        "sawmill.v1.Catalog/RemoveDataset",
        Needs::Manage(Managed::Datasets),
    ),
    ("sawmill.v1.Catalog/Ask", Needs::Submit),
    ("sawmill.v1.Catalog/Explain", Needs::Look),
    ("sawmill.v1.Catalog/ListViews", Needs::Look),
    ("sawmill.v1.Catalog/GetView", Needs::Look),
    ("sawmill.v1.Catalog/ViewAnswer", Needs::Look),
    ("sawmill.v1.Catalog/CreateView", Needs::Manage(Managed::Views)),
    ("sawmill.v1.Catalog/SetViewState", Needs::Manage(Managed::Views)),
    ("sawmill.v1.Worker/StartTask", Needs::Exec),
    ("sawmill.v1.Worker/StopTask", Needs::Look),
    ("sawmill.v1.Worker/GetTask", Needs::Look),
    ("sawmill.v1.Worker/ListTasks", Needs::Look),
    ("sawmill.v1.Worker/TaskOutput", Needs::Look),
    ("sawmill.v1.Registry/Attach", Needs::Roles(&[Role::Agent])),
    ("sawmill.v1.Registry/ListWorkers", Needs::Look),
    ("sawmill.v1.Registry/ListAgents", Needs::Look),
    ("sawmill.v1.Registry/SetAgent", Needs::Manage(Managed::Agents)),
    ("sawmill.v1.Registry/RemoveAgent", Needs::Manage(Managed::Agents)),
    ("sawmill.v1.Registry/Status", Needs::Look),
    ("sawmill.v1.Registry/Audit", Needs::Look),
    ("sawmill.v1.Admin/CreateToken", Needs::Administer),
    ("sawmill.v1.Admin/ListTokens", Needs::Administer),
    ("sawmill.v1.Admin/RevokeTokens", Needs::Administer),
    ("sawmill.v1.Admin/ListChanges", Needs::Administer),
];

/// Of workers. Tasks are asked for by a dispatcher for a user, whose rights count ([`crate::behalf`]).
pub const WORKER: &[Rule] = &[
    ("grpc.health.v1.Health/", Needs::Nothing),
    ("sawmill.v1.Worker/StartTask", Needs::Roles(&[Role::Dispatcher])),
    ("sawmill.v1.Worker/StopTask", Needs::Roles(&[Role::Dispatcher])),
    ("sawmill.v1.Worker/GetTask", Needs::Roles(&[Role::Dispatcher])),
    ("sawmill.v1.Worker/ListTasks", Needs::Roles(&[Role::Dispatcher])),
    ("sawmill.v1.Worker/TaskOutput", Needs::Roles(&[Role::Dispatcher])),
    ("sawmill.v1.Blocks/Put", Needs::Roles(&[Role::Worker])),
    (
        "sawmill.v1.Blocks/Get",
        Needs::Roles(&[Role::Dispatcher, Role::Worker, Role::Watcher]),
    ),
    ("sawmill.v1.Ingest/Ship", Needs::Roles(&[Role::Agent])),
];

/// The rule for a method, `PACKAGE.SERVICE/METHOD`.
fn rule(rules: &[Rule], method: &str) -> Option<Needs> {
    let is_for = |of: &str| of == method || (of.ends_with('/') && method.starts_with(of));
    rules.iter().find(|(of, _)| is_for(of)).map(|(_, needs)| *needs)
}

/// Lets through what a rule grants, and nothing else. Stands behind whatever says who asks.
#[derive(Clone, Copy, Debug)]
pub struct Rules(pub &'static [Rule]);

impl Rules {
    fn check(self, path: &str, info: Option<&ConnectInfo>) -> Result<(), Status> {
        let method = path.strip_prefix('/').unwrap_or(path);
        let Some(needs) = rule(self.0, method) else {
            let message = format!("there is no method {method} at this port");
            return Err(crate::refusal(Code::Unimplemented, "NO_SUCH_METHOD", message, []));
        };
        // Only a call from within the process has none.
        let Some(info) = info else { return Ok(()) };
        let name = method.strip_prefix("sawmill.v1.").unwrap_or(method);
        needs.check(&info.peer, format_args!("call {name}"))
    }
}

impl<S> Layer<S> for Rules {
    type Service = Ruled<S>;

    fn layer(&self, inner: S) -> Ruled<S> {
        Ruled { inner, rules: *self }
    }
}

/// A service behind the rules.
#[derive(Clone, Debug)]
pub struct Ruled<S> {
    inner: S,
    rules: Rules,
}

impl<S, B> Service<http::Request<B>> for Ruled<S>
where
    S: Service<http::Request<B>, Response = http::Response<Body>>,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = Either<S::Future, Ready<Result<S::Response, S::Error>>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: http::Request<B>) -> Self::Future {
        match self.rules.check(request.uri().path(), request.extensions().get()) {
            Ok(()) => Either::Left(self.inner.call(request)),
            Err(status) => Either::Right(ready(Ok(status.into_http()))),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use prost::Message as _;
    use prost_types::FileDescriptorSet;

    use super::*;

    /// Every method of the package.
    fn methods() -> BTreeSet<String> {
        let files = FileDescriptorSet::decode(crate::v1::DESCRIPTORS).unwrap().file;
        let services = files.iter().filter(|file| file.package() == "sawmill.v1");
        let services = services.flat_map(|file| &file.service);
        services
            .flat_map(|service| {
                let of = |method: &str| format!("sawmill.v1.{}/{method}", service.name());
                service.method.iter().map(move |method| of(method.name()))
            })
            .collect()
    }

    #[test]
    fn every_method_has_one_rule_and_every_rule_a_method() {
        let methods = methods();
        assert!(methods.len() > 40, "{methods:?}");
        let all = || GATEWAY.iter().chain(WORKER).map(|(of, _)| (*of).to_string());
        let ruled: BTreeSet<String> = all().filter(|of| of.starts_with("sawmill.")).collect();
        assert_eq!(ruled, methods);
        for rules in [GATEWAY, WORKER] {
            let once: BTreeSet<&str> = rules.iter().map(|(of, _)| *of).collect();
            assert_eq!(once.len(), rules.len());
        }
        // Only load balancers are let in without anything.
        let open = GATEWAY.iter().chain(WORKER);
        let open: BTreeSet<&str> = open
            .filter(|(_, needs)| *needs == Needs::Nothing)
            .map(|(of, _)| *of)
            .collect();
        assert_eq!(open, BTreeSet::from(["grpc.health.v1.Health/"]));
    }

    #[test]
    fn what_has_no_rule_is_not_served() {
        let admin = ConnectInfo {
            peer: Peer::local(),
            ..info("sawmill://admin/root")
        };
        for path in [
            "/sawmill.v1.Queue/RemoveEverything",
            "/sawmill.v1.Queue/",
            "/sawmill.v1.Ingest/Ship",
            "//sawmill.v1.Queue/ListJobs",
            "/grpc.health.v1.Healthy/Check",
            "",
        ] {
            let refused = Rules(GATEWAY).check(path, Some(&admin)).unwrap_err();
            assert_eq!(refused.code(), Code::Unimplemented, "{path}");
        }
        assert!(
            Rules(WORKER)
                .check("/sawmill.v1.Ingest/Ship", Some(&admin))
                .is_ok()
        );
    }

    fn info(uri: &str) -> ConnectInfo {
        ConnectInfo {
            peer: Peer::from_uri(uri).unwrap(),
            tcp: tonic::transport::server::TcpConnectInfo {
                local_addr: None,
                remote_addr: None,
            },
            is_private: true,
            needs_token: false,
            local: None,
            place: None,
        }
    }

    #[test]
    fn each_right_grants_its_own_and_no_more() {
        // Of whom; of the methods of a gateway that change something, those it may call.
        let changing: Vec<&str> = GATEWAY
            .iter()
            .filter(|(_, needs)| !matches!(needs, Needs::Nothing | Needs::Any | Needs::Look))
            .map(|(of, _)| *of)
            .collect();
        let submit = ["Queue/Submit", "Queue/SubmitStream", "Catalog/Ask"];
        let datasets = [
            "Catalog/AddFiles",
            "Catalog/SetDataset",
            "Catalog/CompactDataset",
            "Catalog/RefreshDataset",
            "Catalog/RemoveFile",
            "Catalog/UndoAdd",
            "Catalog/RemoveDataset",
        ];
        let cases: [(&str, &[&str]); 11] = [
            ("user/looker", &[]),
            ("user/other?queue=night-*", &[]),
            ("user/anna?queue=def*", &submit),
            ("user/bob?may-exec", &["Worker/StartTask"]),
            ("user/carl?may-manage=datasets", &datasets),
            (
                "user/dora?may-manage=views",
                &["Catalog/CreateView", "Catalog/SetViewState"],
            ),
            (
                "user/emil?may-manage=agents",
                &["Registry/SetAgent", "Registry/RemoveAgent"],
            ),
            ("user/fred?may-manage=jobs", &[]),
            ("agent/web7?dataset=*", &["Registry/Attach"]),
            ("worker/node1", &[]),
            ("watcher/nobody", &[]),
        ];
        for (who, may) in cases {
            let info = info(&format!("sawmill://{who}"));
            for method in &changing {
                let is_let = Rules(GATEWAY).check(&format!("/{method}"), Some(&info)).is_ok();
                let short = method.strip_prefix("sawmill.v1.").unwrap();
                assert_eq!(is_let, may.contains(&short), "{who}: {method}");
            }
        }
        let root = info("sawmill://admin/root");
        assert!(
            changing
                .iter()
                .all(|method| Rules(GATEWAY).check(&format!("/{method}"), Some(&root)).is_ok())
        );
    }

    #[test]
    fn a_refusal_says_which_right_is_missing() {
        let anna = info("sawmill://user/anna?queue=default&may-exec");
        let refused = Rules(GATEWAY)
            .check("/sawmill.v1.Catalog/RemoveDataset", Some(&anna))
            .unwrap_err();
        assert_eq!(crate::reason(&refused).as_deref(), Some("PERMISSION_DENIED"));
        assert_eq!(
            refused.message(),
            "user anna may not call Catalog/RemoveDataset: that takes a user with `--may-manage datasets`"
        );
    }

    /// `docs/security.md` has a row for each rule: the method, and who may call it.
    #[test]
    fn the_documented_table_is_that_of_the_rules() {
        let page = include_str!("../../docs/security.md");
        let is_row = |line: &&str| line.starts_with("| `sawmill.v1") || line.starts_with("| `grpc.");
        let rows: Vec<&str> = page.lines().filter(is_row).collect();
        let told = |port: &str, rules: &[Rule]| -> Vec<String> {
            let row = |(of, needs): &Rule| format!("| `{}` | {port} | {needs} |", of.trim_end_matches('/'));
            rules.iter().map(row).collect()
        };
        let expected = [told("gateway", GATEWAY), told("worker", WORKER)].concat();
        for row in &expected {
            assert!(
                rows.iter().any(|line| line.starts_with(row.as_str())),
                "docs/security.md lacks {row}"
            );
        }
        assert_eq!(
            rows.len(),
            expected.len(),
            "docs/security.md has rows without a rule"
        );
    }
}
