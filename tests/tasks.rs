//! `sawmill task`: commands on workers by name, through the gateway.
#![allow(clippy::unwrap_used)]

use testkit::{Mill, mill::DEADLINE, wait};

#[tokio::test(flavor = "multi_thread")]
async fn tasks_are_started_followed_listed_and_stopped() {
    let mill = Mill::start().await;
    let status = mill.json(&["status"]).await;
    let node = status["workers"][0]["node"].as_str().unwrap().to_string();

    let followed = mill
        .command(&[
            "task",
            "start",
            &node,
            "echo out; echo err >&2; exit 3",
            "--follow",
        ])
        .await
        .code(1);
    assert_eq!(followed.stdout, "out\n");
    assert!(followed.stderr.starts_with("err\n"), "{}", followed.stderr);
    assert!(followed.stderr.contains("EXITED 3"), "{}", followed.stderr);

    let script = mill.file("script.sh", b"echo one\necho two >&2\necho three\n");
    let everywhere = [
        "task",
        "start",
        "--everywhere",
        "sh -s",
        "--input",
        &script,
        "--follow",
    ];
    let everywhere = mill.command(&everywhere).await.code(0);
    assert_eq!(everywhere.stdout, "one\nthree\n", "a single node needs no prefix");

    let name = mill
        .told(&["task", "start", &node, "echo begun; exec sleep 1000"])
        .await;
    let name = name.trim();
    assert!(name.starts_with(&format!("{node}/")), "{name}");
    wait::until_equal("its output so far", DEADLINE, "begun\n".to_string(), async || {
        mill.told(&["task", "output", name]).await
    })
    .await;
    let listed = mill.json(&["task", "list"]).await;
    let listed: Vec<_> = listed
        .as_array()
        .unwrap()
        .iter()
        .map(|task| task["state"].as_str().unwrap())
        .collect();
    assert_eq!(listed, ["RUNNING", "EXITED", "EXITED"]);
    let beginning = &name[..name.len() - 4];
    mill.told(&["task", "stop", beginning]).await;
    let shown = mill.json(&["task", "show", name]).await;
    assert_eq!(
        (&shown["state"], &shown["stdout_bytes"]),
        (&"STOPPED".into(), &6.into())
    );

    let nowhere = mill.command(&["task", "start", "nowhere", "true"]).await.code(1);
    assert!(
        nowhere.stderr.contains("no live worker nowhere") && nowhere.stderr.contains(&node),
        "{}",
        nowhere.stderr
    );
    let none = mill
        .command(&["task", "show", &format!("{node}/zz")])
        .await
        .code(1);
    assert!(none.stderr.contains("no such task"), "{}", none.stderr);
    let both = mill
        .command(&["task", "start", &node, "true", "--everywhere"])
        .await
        .code(2);
    assert!(both.stderr.contains("takes no NODE"), "{}", both.stderr);
    mill.stop().await;
}
