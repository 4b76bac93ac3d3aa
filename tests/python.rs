//! The Python client against a running mill: its own tests, in the interpreter that `scripts/python-client` set up.
#![cfg(feature = "sql")]
#![allow(clippy::unwrap_used)]

use std::{fmt::Write as _, path::PathBuf, time::Duration};

use testkit::{Mill, process::Process};

/// The interpreter starts slowly on a busy machine, and so do pandas.
const DEADLINE: Duration = Duration::from_secs(180);

/// `SAWMILL_TEST_PYTHON`, as `scripts/test` sets it.
fn python() -> PathBuf {
    let told = std::env::var_os("SAWMILL_TEST_PYTHON").map(PathBuf::from);
    told.filter(|path| path.is_file()).expect(
        "no Python with the client: run the tests by scripts/test, or set SAWMILL_TEST_PYTHON to what scripts/python-client prints",
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn the_python_client_does_what_its_tests_say() {
    let mill = Mill::start().await;
    let mut log = String::new();
    for n in 0..1000 {
        writeln!(log, "{{\"n\":{n},\"even\":{}}}", n % 2 == 0).unwrap();
    }
    let log = mill.file("lines.log", log.as_bytes());
    let tests = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("clients/python/tests");
    let ended = Process::of(python())
        .args(["-W", "error", "-m", "unittest", "--verbose", "test_client"])
        .directory(tests)
        .env("SAWMILL_SERVER", &mill.server)
        .env("TEST_LOG", log)
        .output(DEADLINE)
        .await
        .code(0);
    assert!(ended.stderr.contains("Ran 8 tests"), "{}", ended.stderr);
    mill.stop().await;
}
