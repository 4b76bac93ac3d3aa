//! `sawmill pki` by its real binary: an authority from nothing, and what it issues.
#![allow(clippy::unwrap_used)]

use std::{path::Path, time::Duration};

use serde_json::Value;
use testkit::process::{Output, Process};

const SOON: Duration = Duration::from_secs(30);

async fn pki(dir: &Path, args: &[&str]) -> Output {
    Process::binary("sawmill")
        .arg("pki")
        .args(args)
        .directory(dir)
        .output(SOON)
        .await
}

async fn json(dir: &Path, args: &[&str]) -> Value {
    let args = [&["--output", "json"], args].concat();
    serde_json::from_str(&pki(dir, &args).await.code(0).stdout).unwrap()
}

#[tokio::test]
async fn an_authority_issues_renews_revokes_and_tells() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let _ = pki(dir, &["init"]).await.code(0);
    let hosts = ["--host", "node1.example.com", "--host", "10.0.0.2"];
    let _ = pki(
        dir,
        &[&["issue", "worker", "node1", "--out", "node1"], &hosts[..]].concat(),
    )
    .await
    .code(0);
    let anna = [
        "issue",
        "user",
        "anna",
        "--out",
        "anna",
        "--queue",
        "default",
        "--may-exec",
    ];
    let _ = pki(dir, &anna).await.code(0);

    let shown = pki(dir, &["show", "anna"]).await.code(0).stdout;
    assert!(shown.contains("submit to default, and commands"), "{shown}");
    let node = json(dir, &["show", "node1"]).await;
    assert_eq!(
        node["hosts"],
        serde_json::json!(["node1.example.com", "10.0.0.2"])
    );
    assert_eq!(
        (&node["role"], &node["state"]),
        (&"worker".into(), &"valid".into())
    );
    assert_eq!(
        node["not_after"].as_i64().unwrap() - node["not_before"].as_i64().unwrap(),
        90 * 86_400 + 300
    );

    let _ = pki(dir, &["renew", "node1", "--valid", "10d"]).await.code(0);
    assert_ne!(json(dir, &["show", "node1"]).await["serial"], node["serial"]);
    let told = pki(dir, &["revoke", "node1"]).await.code(0).stdout;
    assert_eq!(told.matches("revoked worker node1").count(), 2, "{told}");
    std::fs::copy(dir.join("ca/crl.pem"), dir.join("node1/crl.pem")).unwrap();
    let node = json(dir, &["show", "node1"]).await;
    assert_eq!(node["state"], "revoked");
    assert!(node["trouble"].as_str().unwrap().contains("revoked"), "{node}");

    let all = json(dir, &["show"]).await;
    let revoked = all["issued"].as_array().unwrap().iter();
    assert_eq!(revoked.filter(|issued| issued["revoked"].is_i64()).count(), 2);
    let table = pki(dir, &["show", "ca"]).await.code(0).stdout;
    assert!(table.contains("anna") && table.contains("10.0.0.2"), "{table}");

    for (args, part) in [
        (&["init"][..], "is there already"),
        (&["issue", "user", "x", "--out", "anna"], "is there already"),
        (&["issue", "root", "x", "--out", "x"], "is no role"),
        (&["issue", "worker", "x", "--out", "x"], "add --host"),
        (
            &["issue", "user", "x", "--dataset", "d", "--out", "x"],
            "datasets are for agents",
        ),
        (
            &["issue", "user", "x", "--out", "x", "--ca", "nowhere"],
            "sawmill pki init",
        ),
        (
            &["issue", "user", "x", "--out", "x", "--valid", "1s"],
            "at least a minute",
        ),
    ] {
        let output = pki(dir, args).await.code(2);
        assert!(output.stderr.contains(part), "{args:?}: {}", output.stderr);
    }
    let _ = pki(dir, &["revoke", "nobody"]).await.code(1);
    let _ = pki(dir, &["show", "nowhere"]).await.code(1);
}

#[tokio::test]
async fn tokens_are_shown_once_listed_and_revoked() {
    let space = testkit::Space::new().await;
    let token = async |args: &[&str]| {
        let recipe = Process::sawmill(&space).arg("token").args(args);
        recipe.output(SOON).await
    };
    let made = token(&["create", "nightly", "--queue", "night-*", "--valid", "30d"])
        .await
        .code(0);
    let text = made.stdout.trim();
    assert!(text.starts_with("sawmill_") && text.len() == 72, "{text}");
    let list = token(&["list"]).await.code(0).stdout;
    assert!(list.contains("night-*") && !list.contains(&text[8..]), "{list}");
    let listed = token(&["list", "--output", "json"]).await.code(0);
    let listed: Value = serde_json::from_str(&listed.stdout).unwrap();
    let id = listed[0]["id"].as_str().unwrap();
    assert!(made.stderr.contains(id), "{}", made.stderr);
    let _ = token(&["create", "x", "--valid", "10y"]).await.code(2);
    let _ = token(&["create", "x", "--queue", "a/b"]).await.code(2);
    let _ = token(&["revoke", id]).await.code(0);
    let _ = token(&["revoke", id]).await.code(1);
    let file = concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml");
    let added = Process::sawmill(&space).args(["dataset", "add", "d", file]);
    let _ = added.output(SOON).await.code(0);
    let log = Process::sawmill(&space).args(["audit", "list", "--output", "json"]);
    let log: Value = serde_json::from_str(&log.output(SOON).await.code(0).stdout).unwrap();
    let changes = log.as_array().unwrap().iter();
    let what: Vec<_> = changes.map(|change| (&change["what"], &change["who"])).collect();
    assert_eq!(what.len(), 3, "{log}");
    assert!(
        what[0].0 == "dataset.add" && what[1].0 == "token.revoke" && what[2].0 == "token.create",
        "{log}"
    );
    assert!(
        what.iter()
            .all(|(_, who)| who.as_str().unwrap().starts_with("local "))
    );
    assert!(!log.to_string().contains(&text[20..]), "{log}");
}
