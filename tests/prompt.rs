//! The prompt of `sawmill query`, on a terminal.
#![cfg(feature = "sql")]
#![allow(clippy::unwrap_used)]

use testkit::{
    Mill, Space,
    mill::{self, DEADLINE},
    process::Process,
};

const READY: &str = "sawmill> ";

#[tokio::test(flavor = "multi_thread")]
async fn questions_are_typed_one_after_another() {
    let mill = Mill::start().await;
    let _ = mill
        .add(
            "access",
            "{\"status\":200,\"n\":1}\n{\"status\":500,\"n\":2}\n",
            &[],
        )
        .await
        .code(0);
    let state = mill.files.path().join("state");
    let recipe = || {
        mill.recipe(&["query"])
            .env("XDG_STATE_HOME", &state)
            .env("TERM", "xterm")
    };
    let mut terminal = recipe().on_terminal();
    terminal.shows(READY, DEADLINE).await;
    terminal.keys("SELECT sum(n) AS total -- not yet;\r");
    terminal.keys("FROM access;\r");
    terminal.shows("| 3     |", DEADLINE).await;
    terminal.shows(READY, DEADLINE).await;

    for (keys, shown) in [
        (
            "SELECT nothing FROM access;\r",
            "there is no column named nothing",
        ),
        ("\\d\r", "access"),
        ("\\d ac\t\r", "status  integer"),
        ("\\x\r", "there is no command \\x"),
        ("help\r", "leave, as Ctrl-D does"),
        ("show tables\r", "access"),
        ("SHOW TABLES; DESCRIBE access;\r", "status  integer"),
        ("\\o csv\r", "\n"),
        // A control character that would begin a sequence, from a log as it were.
        (
            "SELECT DISTINCT concat(chr(155), '2J') AS t FROM access;\r",
            "\\x9b2J",
        ),
        ("\\timing\r", "timing is on"),
        ("\\o json\r", "\n"),
        ("SELECT max(n) AS most FROM acc\t;\r", "{\"most\":2}"),
        ("", " ms"),
        ("SELECT dropped\x03", "\n"),
        ("\x1b[A\r", "{\"most\":2}"),
    ] {
        terminal.keys(keys);
        terminal.shows(shown, DEADLINE).await;
        // The time follows the answer; nothing is typed before the line is read again.
        if shown != "{\"most\":2}" {
            terminal.shows(READY, DEADLINE).await;
        }
    }
    terminal.shows(READY, DEADLINE).await;
    terminal.keys("\x04");
    assert_eq!(terminal.wait_exit(DEADLINE).await.code(), Some(0));

    let history = std::fs::read_to_string(state.join("sawmill/history")).unwrap();
    assert!(history.contains("max(n) AS most FROM access;"), "{history}");
    let mut again = recipe().on_terminal();
    again.shows(READY, DEADLINE).await;
    again.keys("\x1b[A\r");
    again.shows("| 2    |", DEADLINE).await;
    again.keys("exit\r");
    assert_eq!(again.wait_exit(DEADLINE).await.code(), Some(0));

    let script = mill.file(
        "script.sql",
        b"\\o csv\n-- two\nSELECT count(*) AS n FROM access;\nSELECT min(n) AS m FROM access",
    );
    let piped = mill.recipe(&["query"]).input(script).output(DEADLINE).await;
    assert_eq!(piped.code(0).stdout, "n\n2\nm\n1\n");
    let wrong = mill.file(
        "wrong.sql",
        b"SELECT x FROM access; SELECT 1 AS never FROM access;",
    );
    let piped = mill
        .recipe(&["query"])
        .input(wrong)
        .output(DEADLINE)
        .await
        .code(2);
    assert!(
        piped.stderr.contains("there is no column named x") && piped.stdout.is_empty(),
        "{piped:?}"
    );
    mill.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn ctrl_c_cancels_the_query_and_the_prompt_goes_on() {
    let space = Space::new().await;
    let files = tempfile::tempdir().unwrap();
    let log = files.path().join("a.log");
    std::fs::write(&log, "{\"n\":1}\n").unwrap();
    let on = |args: &[&str]| mill::settled(Process::sawmill(&space), files.path()).args(args);
    let _ = on(&["dataset", "add", "a", log.to_str().unwrap()])
        .output(DEADLINE)
        .await
        .code(0);
    // Nobody computes, so that it lasts.
    let mut dispatcher = on(&["dispatcher"]).start();
    dispatcher.wait_for_line("dispatcher started", DEADLINE).await;
    let mut terminal = on(&["-v", "query"])
        .env("XDG_STATE_HOME", files.path())
        .env("TERM", "xterm")
        .on_terminal();
    terminal.shows(READY, DEADLINE).await;
    terminal.keys("SELECT count(*) FROM a;\r");
    terminal.shows("submitted", DEADLINE).await;
    terminal.process.interrupt();
    terminal.shows("is CANCELLED", DEADLINE).await;
    terminal.shows(READY, DEADLINE).await;
    terminal.keys("\\q\r");
    assert_eq!(terminal.wait_exit(DEADLINE).await.code(), Some(0));
    dispatcher.terminate();
    assert!(dispatcher.wait_exit(DEADLINE).await.success());
}
