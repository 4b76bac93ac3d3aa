//! A backup of MongoDB and of the block store, restored onto an empty ZooKeeper: all that was asked is there, and what had
//! not ended ends.
#![cfg(feature = "sql")]
#![allow(clippy::unwrap_used)]

use std::path::Path;

use testkit::{
    Mill,
    mill::{DEADLINE, settled},
    process::Process,
};

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &target);
        } else {
            std::fs::copy(entry.path(), target).unwrap();
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backup_comes_back_on_an_empty_zookeeper() {
    let mill = Mill::start().await;
    let lines: String = (0..500).map(|n| format!("{{\"n\":{n}}}\n")).collect();
    let _ = mill.add("app", &lines, &[]).await.code(0);
    let sql = "SELECT count(*) AS c, sum(n) AS s FROM app";
    let answer = mill.rows(sql).await;
    // Too large for a document: it lies in the block store.
    let all = mill
        .told(&["run", "--dataset", "app", "--map", "yes | head -c 200000"])
        .await;
    let job = mill.newest().await["id"].as_str().unwrap().to_string();
    let (space, files) = mill.stop().await;
    let waiting = settled(Process::sawmill(&space), files.path())
        .args(["run", "--dataset", "app", "--map", "wc -l", "--no-wait"])
        .output(DEADLINE)
        .await
        .code(0);
    let waiting = waiting.stdout.trim();

    let backup = space.take_documents().await;
    let (store, kept) = (files.path().join("store"), files.path().join("backup"));
    copy(&store, &kept);
    std::fs::remove_dir_all(&store).unwrap();
    for root in ["/unowned", "/owned", "/done"] {
        space.delete_tree(root).await;
    }
    space.put_documents(backup).await;
    copy(&kept, &store);

    let mill = Mill::start_again(space, files).await;
    mill.told(&["job", "wait", waiting]).await;
    let counted = mill.told(&["job", "output", waiting]).await;
    let counted: u32 = counted
        .lines()
        .map(|line| line.trim().parse::<u32>().unwrap())
        .sum();
    assert_eq!(counted, 500, "what had not ended ends");
    assert_eq!(
        mill.told(&["job", "output", &job]).await,
        all,
        "outputs are there"
    );
    let again = mill.command(&["query", sql, "--output", "json"]).await.code(0);
    assert!(
        again.stderr.contains("answered by job"),
        "answers are still recorded: {}",
        again.stderr
    );
    assert_eq!(mill.rows(sql).await, answer);
    mill.told(&["doctor", "--audit"]).await;
    mill.stop().await;
}
