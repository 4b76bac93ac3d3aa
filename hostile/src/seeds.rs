//! What is valid, for whoever changes it a little.

use api::v1;
use model::{
    FORMAT,
    origin::{Origin, Origins},
    znode::{self, RootData},
};
use prost::Message as _;

/// Valid bytes for the decoder of this name; none for one that has no short ones.
pub fn seeds(decoder: &str) -> Vec<Vec<u8>> {
    match decoder {
        "name" => [
            "entry-100-nginx:42-0000000017",
            "entry-000-a:merge-99999999999",
            "worker-0000000004",
            "client-web7",
            "candidate-0000000012",
        ]
        .map(|text| text.as_bytes().to_vec())
        .into(),
        "uri" => [
            "sawmill://agent/web7?dataset=access&dataset=app-*",
            "sawmill://user/anna?queue=default&may-exec",
            "sawmill://user/ben?queue=default&may-manage=datasets&may-manage=views",
            "sawmill://admin/root",
        ]
        .map(|text| text.as_bytes().to_vec())
        .into(),
        "token" => vec![format!("sawmill_{}", "0a".repeat(32)).into_bytes()],
        "znode" => znodes(),
        "origins" => vec![origins().to_frame()],
        "frames" => ingest::hostile::seeds(),
        "guard" => engine::hostile::seeds(),
        "state" => agent::hostile::seeds(),
        "message" => messages(),
        "document" => storage::hostile::seeds(),
        "pem" => vec![PEM.as_bytes().to_vec()],
        "certificate" => vec![pki::hostile::certificate_of(PEM)],
        _ => Vec::new(),
    }
}

/// A certificate that `sawmill pki issue agent web7 --dataset access` made.
const PEM: &str = include_str!("web7.pem");

fn origins() -> Origins {
    Origins::new(vec![Origin {
        host: "web7".into(),
        path: "/var/log/access.log".into(),
        offset: 4096,
        lines: 2,
        bytes: 80,
    }])
}

fn znodes() -> Vec<Vec<u8>> {
    let root = RootData { v: FORMAT, next: 17 };
    let json = [
        r#"{"v":1,"job":"00000000-0000-0000-0000-000000000007","run":{"first":0,"count":2,"attempt":1},"processor":"noop","max_attempts":3,"blocks":[]}"#,
        r#"{"v":1,"job":"00000000-0000-0000-0000-000000000007","run":{"first":0,"count":1,"attempt":1},"past":{}}"#,
        r#"{"v":1,"node":"node1","host":"h","pid":7,"version":"0","slots":2,"capabilities":["exec"],"wake":3}"#,
        r#"{"v":1,"host":"h","pid":7,"version":"0","gateway":"h:7766"}"#,
        r#"{"v":1,"agent":"web7","instance":"00000000-0000-0000-0000-000000000007","incarnation":1,"host":"h","version":"0","avoid":[4]}"#,
        r#"{"v":1,"admin":"a:xQJmxLMiHGwaqBvst5y6rkB6HQs=","dispatcher":"d:x","worker":"w:x","watcher":"o:x"}"#,
    ];
    let json = json.iter().map(|text| text.as_bytes().to_vec());
    json.chain([znode::encode(&root)]).collect()
}

fn messages() -> Vec<Vec<u8>> {
    let spec = v1::JobSpec {
        dataset: "access".into(),
        processor: Some(v1::job_spec::Processor::Command(v1::Command {
            map: "wc -l".into(),
            ..v1::Command::default()
        })),
        ..v1::JobSpec::default()
    };
    let job = v1::Job {
        id: "00000000-0000-0000-0000-000000000007".into(),
        spec: Some(spec.clone()),
        state: v1::JobState::Running.into(),
        counts: Some(v1::Counts::default()),
        subtasks: 2,
        parts: vec![v1::JobPart {
            count: 2,
            ..v1::JobPart::default()
        }],
        sources: vec![v1::JobSource {
            id: "00000000-0000-0000-0000-000000000008".into(),
            blocks: 2,
            ..v1::JobSource::default()
        }],
        ..v1::Job::default()
    };
    let hello = v1::AgentHello {
        agent: "web7".into(),
        instance: vec![7; 16].into(),
        incarnation: 1,
        avoid: vec![1, 2, 3],
        ..v1::AgentHello::default()
    };
    let adding = v1::AddFilesRequest {
        dataset: "access".into(),
        places: vec!["/var/log/access.log".into()],
        ..v1::AddFilesRequest::default()
    };
    vec![
        spec.encode_to_vec(),
        job.encode_to_vec(),
        hello.encode_to_vec(),
        adding.encode_to_vec(),
    ]
}
