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

/// What an agent is started with.
fn agent(mill: &Mill, log: &str, state: &Path) -> testkit::process::Recipe {
    Process::binary("sawmill")
        .env("SAWMILL_SERVER", &mill.server)
        .args(["agent", "--dataset", "app", "--name", "web7", "--age", "100ms"])
        .args(["--state", state.to_str().unwrap(), log])
}

fn numbers(range: std::ops::Range<u32>) -> String {
    range.map(|n| format!("{{\"n\":{n}}}\n")).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_gives_a_restored_mill_what_it_has_lost_and_refuses_another() {
    let mill = Mill::start().await;
    let state = tempfile::tempdir().unwrap();
    let log = mill.file("app.log", numbers(0..100).as_bytes());
    let append = |text: &str| {
        let mut file = std::fs::OpenOptions::new().append(true).open(&log).unwrap();
        std::io::Write::write_all(&mut file, text.as_bytes()).unwrap();
    };
    let counted = async |mill: &Mill| {
        let sql = "SELECT count(*) AS c, count(DISTINCT n) AS d FROM app";
        let told = mill.command(&["query", sql, "--output", "csv"]).await;
        told.stdout.lines().nth(1).unwrap_or_default().to_string()
    };
    let until = async |mill: &Mill, count: u32| {
        let wanted = format!("{count},{count}");
        testkit::wait::until_equal("lines, each once", DEADLINE, wanted, async || counted(mill).await).await;
    };
    let mut running = agent(&mill, &log, state.path()).start();
    until(&mill, 100).await;
    running.terminate();
    assert!(running.wait_exit(DEADLINE).await.success());
    let (space, files) = mill.stop().await;
    let backup = space.take_documents().await;
    space.put_documents(backup.clone()).await;

    // After the backup more is shipped; then the mill is as it was at the backup.
    let mill = Mill::start_again(space, files).await;
    append(&numbers(100..200));
    let mut running = agent(&mill, &log, state.path()).start();
    until(&mill, 200).await;
    running.terminate();
    assert!(running.wait_exit(DEADLINE).await.success());
    let (space, files) = mill.stop().await;
    drop(space.take_documents().await);
    space.put_documents(backup).await;
    let mill = Mill::start_again(space, files).await;
    assert_eq!(counted(&mill).await, "100,100");
    append(&numbers(200..300));
    let mut running = agent(&mill, &log, state.path()).start();
    until(&mill, 300).await;

    // A dataset that is removed under it, and what it ships next.
    let removed = mill.command(&["dataset", "remove", "app"]).await.code(0);
    assert!(removed.stderr.contains("web7"), "{}", removed.stderr);
    append(&numbers(300..310));
    until(&mill, 10).await;
    running.terminate();
    assert!(running.wait_exit(DEADLINE).await.success());
    let told = running.stderr();
    for part in ["the mill has lost blocks", "the dataset was removed"] {
        assert!(told.contains(part), "{part}: {told}");
    }

    // Shipping once: what the dataset of before took does not count.
    let ship = async |mill: &Mill, code: i32| {
        let recipe = Process::binary("sawmill").env("SAWMILL_SERVER", &mill.server);
        let recipe = recipe.args(["ship", "--dataset", "once", "--name", "web8", &log]);
        let recipe = recipe.arg("--state").arg(state.path().join("once"));
        recipe.output(DEADLINE).await.code(code)
    };
    let whole = ship(&mill, 0).await.stdout;
    assert!(whole.starts_with("shipped 1 of 1 files"), "{whole}");
    let again = ship(&mill, 0).await;
    assert!(again.stderr.contains("shipped before"), "{}", again.stderr);
    mill.told(&["dataset", "remove", "once"]).await;
    assert_eq!(ship(&mill, 0).await.stdout, whole);

    // A mill that is set up anew is another one.
    let other = Mill::start().await;
    let refused = agent(&other, &log, state.path()).output(DEADLINE).await.code(1);
    assert!(refused.stderr.contains("belongs to mill"), "{}", refused.stderr);
    let refused = ship(&other, 1).await;
    assert!(refused.stderr.contains("--state"), "{}", refused.stderr);
    assert_eq!(other.told(&["dataset", "list"]).await, "");
    other.stop().await;
    mill.stop().await;
}
