//! Who an agent says it is, and whether that may be.

use api::{
    refusal,
    v1::{AgentHello, ShipHello},
};
use model::{FORMAT, Name, znode::ClientData};
use pki::{Peer, Role};
use tonic::{Code, Status};
use uuid::Uuid;

/// Behind the name of an agent: the name under which its certificate ships files once.
const SHIP: &str = ".ship";
/// Longest text of a hello, in bytes: host, version, zone.
const TEXT_BYTES: usize = 255;
/// Most datasets that it is remembered an agent ships to.
pub(crate) const MOST_DATASETS: usize = 1024;
/// Most workers that an agent avoids.
const MOST_AVOIDED: usize = 64;

/// Whether an agent speaks our protocol: one of another is told so and gets no work.
///
/// # Errors
/// FAILED_PRECONDITION.
pub fn check_protocol(hello: &AgentHello) -> Result<(), Status> {
    if hello.protocol != api::PROTOCOL {
        return Err(refusal(
            Code::FailedPrecondition,
            "OTHER_PROTOCOL",
            format!(
                "this agent (Sawmill {}) speaks protocol {}, this mill (Sawmill {}) protocol {}: upgrade the older one",
                short(&hello.version),
                hello.protocol,
                env!("CARGO_PKG_VERSION"),
                api::PROTOCOL
            ),
            [("protocol", api::PROTOCOL.to_string())],
        ));
    }
    Ok(())
}

/// Checks what an agent says of itself against its certificate; what of it goes into ZooKeeper.
///
/// # Errors
/// INVALID_ARGUMENT, PERMISSION_DENIED.
pub fn client_data(hello: &AgentHello, peer: &Peer) -> Result<ClientData, Status> {
    let invalid = |message: String| refusal(Code::InvalidArgument, "BAD_HELLO", message, []);
    let agent = Name::new(hello.agent.clone()).map_err(|error| invalid(error.to_string()))?;
    // What ships once on the machine of an agent, while that agent runs.
    let ships = agent
        .as_str()
        .strip_suffix(SHIP)
        .is_some_and(|name| name == peer.name.as_str());
    let is_itself = peer.role == Role::Agent && (peer.name == agent || ships);
    if !is_itself && peer.role != Role::Admin {
        return Err(refusal(
            Code::PermissionDenied,
            "NOT_THIS_AGENT",
            format!("the certificate is that of {peer}, not of agent {agent}"),
            [("agent", agent.to_string())],
        ));
    }
    let instance = Uuid::from_slice(&hello.instance)
        .map_err(|_| invalid(format!("an instance has 16 bytes, not {}", hello.instance.len())))?;
    for text in [&hello.host, &hello.version, &hello.zone] {
        if text.len() > TEXT_BYTES {
            return Err(invalid(format!("a text of {} bytes in a hello", text.len())));
        }
    }
    let avoid = hello.avoid.iter().copied().take(MOST_AVOIDED).collect();
    Ok(ClientData {
        v: FORMAT,
        agent,
        instance,
        incarnation: hello.incarnation,
        host: hello.host.clone(),
        version: hello.version.clone(),
        zone: hello.zone.clone(),
        avoid,
        offer: None,
    })
}

/// Whether an agent's state belongs to this mill, or to none yet: numbers of blocks and positions of files mean nothing in
/// another.
///
/// # Errors
/// INVALID_ARGUMENT, FAILED_PRECONDITION.
pub fn check_mill(hello: &AgentHello, mill: &str) -> Result<(), Status> {
    let Some(theirs) = uuid(&hello.mill)? else {
        return Ok(());
    };
    if theirs.to_string() == mill {
        return Ok(());
    }
    Err(refusal(
        Code::FailedPrecondition,
        api::OTHER_MILL,
        format!("the state of this agent belongs to mill {theirs}, and this is mill {mill}"),
        [("mill", mill.to_string())],
    ))
}

/// A UUID in a message; none of no bytes.
///
/// # Errors
/// INVALID_ARGUMENT.
pub(crate) fn uuid(bytes: &[u8]) -> Result<Option<Uuid>, Status> {
    let of = |bytes: &[u8]| Uuid::from_slice(bytes).ok();
    match (bytes.is_empty(), of(bytes)) {
        (true, _) => Ok(None),
        (false, Some(uuid)) => Ok(Some(uuid)),
        (false, None) => {
            let message = format!("a UUID has 16 bytes, not {}", bytes.len());
            Err(refusal(Code::InvalidArgument, "BAD_HELLO", message, []))
        }
    }
}

/// The datasets that an agent says it ships to.
pub fn datasets(hello: &AgentHello) -> Vec<Name> {
    let named = hello.datasets.iter().take(MOST_DATASETS);
    named.filter_map(|name| Name::new(name.as_str()).ok()).collect()
}

fn short(text: &str) -> String {
    text.chars().take(32).collect()
}

/// The same for an agent that wants to ship to worker `own`.
pub(crate) fn ship_data(hello: &ShipHello, peer: &Peer, own: u64) -> Result<ClientData, Status> {
    let agent = hello
        .agent
        .as_ref()
        .ok_or_else(|| refusal(Code::InvalidArgument, "BAD_HELLO", "a hello without an agent", []))?;
    let data = client_data(agent, peer)?;
    check_protocol(agent)?;
    if hello.worker != own {
        return Err(refusal(
            Code::FailedPrecondition,
            "OTHER_WORKER",
            format!(
                "this is worker {own}, not {}: ask a dispatcher again",
                hello.worker
            ),
            [("worker", own.to_string())],
        ));
    }
    Ok(data)
}

#[cfg(test)]
mod tests {
    use pki::Rights;

    use super::*;

    fn hello() -> AgentHello {
        AgentHello {
            protocol: api::PROTOCOL,
            agent: "web7".into(),
            instance: vec![7; 16].into(),
            incarnation: 3,
            ..AgentHello::default()
        }
    }

    fn peer(role: Role, name: &str) -> Peer {
        Peer {
            role,
            name: Name::new(name).unwrap(),
            rights: Rights::default(),
        }
    }

    #[test]
    fn an_agent_stays_with_its_mill() {
        let mill = Uuid::from_u128(1);
        let code = |bytes: Vec<u8>| {
            let hello = AgentHello {
                mill: bytes.into(),
                ..hello()
            };
            check_mill(&hello, &mill.to_string()).map_err(|status| status.code())
        };
        assert_eq!(
            (code(Vec::new()), code(mill.as_bytes().to_vec())),
            (Ok(()), Ok(()))
        );
        assert_eq!(code(vec![7; 16]), Err(Code::FailedPrecondition));
        assert_eq!(code(vec![7; 3]), Err(Code::InvalidArgument));
    }

    #[test]
    fn an_agent_is_who_its_certificate_says() {
        let code = |hello: AgentHello, peer: &Peer| client_data(&hello, peer).map_err(|status| status.code());
        let web7 = peer(Role::Agent, "web7");
        let data = code(hello(), &web7).unwrap();
        assert_eq!((data.agent.as_str(), data.incarnation), ("web7", 3));
        assert!(code(hello(), &Peer::local()).is_ok());
        let denied = Err(Code::PermissionDenied);
        assert_eq!(code(hello(), &peer(Role::Agent, "web8")), denied);
        assert_eq!(code(hello(), &peer(Role::User, "web7")), denied);
        assert_eq!(code(hello(), &peer(Role::Worker, "web7")), denied);
        let invalid = Err(Code::InvalidArgument);
        for bad in ["", "a/b", "../up"] {
            let agent = bad.to_string();
            assert_eq!(code(AgentHello { agent, ..hello() }, &Peer::local()), invalid);
        }
        let instance = vec![7; 15].into();
        assert_eq!(code(AgentHello { instance, ..hello() }, &web7), invalid);
        let host = "x".repeat(300);
        assert_eq!(code(AgentHello { host, ..hello() }, &web7), invalid);
        let other = AgentHello {
            protocol: api::PROTOCOL + 1,
            ..hello()
        };
        assert!(check_protocol(&hello()).is_ok());
        let status = check_protocol(&other).unwrap_err();
        assert_eq!(status.code(), Code::FailedPrecondition);
        assert_eq!(api::reason(&status).as_deref(), Some("OTHER_PROTOCOL"));
    }
}
