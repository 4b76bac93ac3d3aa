//! What a command gets and gives: input, output, environment, and each way to fail.

#![allow(clippy::unwrap_used)]

mod support;

use std::{
    fs::File,
    io::{self, Read, Seek, SeekFrom, Write},
    time::Duration,
};

use bytes::Bytes;
use engine::{Product, Source, Stop, product::MEMORY_BYTES};
use model::{Failure, FailureKind, Spot};
use support::{Bench, alive, bytes};
use tokio_util::sync::CancellationToken;

#[tokio::test]
async fn output_is_what_the_command_prints() {
    let bench = Bench::new();
    assert_eq!(bench.text("wc -l", b"one\ntwo\n").await.trim(), "2");
    assert_eq!(bench.text("cat", b"").await, "");
    assert_eq!(bench.text("tr a-z A-Z | sort -r", b"b\na\n").await, "B\nA\n");
    let binary: Vec<u8> = (0..=255).collect();
    assert_eq!(
        bench.run("cat", &binary).await.unwrap().into_bytes().unwrap(),
        binary
    );
}

#[tokio::test]
async fn large_input_and_output_go_both_ways_at_once() {
    let bench = Bench::new();
    let input: Vec<u8> = (0..3_000_000_u32).map(|i| (i % 251) as u8).collect();
    let product = bench.run("cat", &input).await.unwrap();
    assert!(matches!(
        product,
        Product::File {
            length: 3_000_000,
            ..
        }
    ));
    assert_eq!(
        std::fs::read_dir(bench.folder.path()).unwrap().count(),
        0,
        "the file has no name"
    );
    let Product::File { mut file, .. } = product else {
        panic!("a file")
    };
    let mut output = Vec::new();
    file.read_to_end(&mut output).unwrap();
    assert!(output == input);
}

#[tokio::test]
async fn memory_holds_exactly_its_limit() {
    let bench = Bench::new();
    let line = |bytes: usize| format!("head -c {bytes} /dev/zero");
    let at = bench.run(&line(MEMORY_BYTES - 1), b"").await.unwrap();
    assert!(matches!(&at, Product::Memory(bytes) if bytes.len() == MEMORY_BYTES - 1));
    let above = bench.run(&line(MEMORY_BYTES + 1), b"").await.unwrap();
    assert!(matches!(above, Product::File { length, .. } if length == MEMORY_BYTES as u64 + 1));
}

#[tokio::test]
async fn the_output_limit_ends_the_command() {
    let bench = Bench::new();
    let mut task = bench.task("echo much >&2; yes");
    task.output_limit_bytes = 100_000;
    let stop = bench
        .runner
        .run(&task, bytes(b""), &CancellationToken::new())
        .await
        .unwrap_err();
    let failure = stop.failure().unwrap();
    assert_eq!(failure.kind, FailureKind::OutputLimit);
    assert_eq!(
        failure.message,
        "map command printed more than its limit of 100000 bytes"
    );
    assert_eq!(failure.stderr_tail, "much");
    assert_eq!(alive(bench.job), [0; 0]);
    task.line = "head -c 100000 /dev/zero";
    let product = bench.run_task(&task, bytes(b"")).await.unwrap();
    assert_eq!(product.len(), 100_000);
}

#[tokio::test]
async fn a_missing_spool_is_a_store_failure() {
    let bench = Bench::new();
    let runner = engine::command::Runner::new(bench.guard.clone(), bench.file("nowhere"));
    let task = bench.task("head -c 2000000 /dev/zero");
    let failure = runner
        .run(&task, bytes(b""), &CancellationToken::new())
        .await
        .unwrap_err()
        .failure()
        .unwrap();
    assert_eq!(failure.kind, FailureKind::Store);
    assert!(failure.message.contains("nowhere"), "{}", failure.message);
}

#[tokio::test]
async fn exit_codes_and_signals_are_told() {
    let bench = Bench::new();
    let failure = bench.failure("echo wrong column >&2; exit 3").await;
    assert_eq!((failure.kind, failure.exit_code), (FailureKind::Exit, Some(3)));
    assert_eq!(failure.message, "map command exited with code 3 without output");
    assert_eq!(failure.stderr_tail, "wrong column");
    let failure = bench.failure("no-such-tool-at-all").await;
    assert_eq!(failure.exit_code, Some(127));
    assert!(failure.blames_node() && failure.stderr_tail.contains("no-such-tool-at-all"));
    let failure = bench.failure("kill -SEGV $$").await;
    assert_eq!((failure.kind, failure.exit_code), (FailureKind::Signal, None));
    assert_eq!(failure.message, "map command was ended by signal SIGSEGV");
}

#[tokio::test]
async fn standard_error_is_kept_at_its_end_only() {
    let bench = Bench::new();
    let failure = bench.failure("seq 1 100000 >&2; echo the end >&2; exit 1").await;
    assert!(failure.stderr_tail.starts_with('…') && failure.stderr_tail.ends_with("100000\nthe end"));
    assert!(failure.stderr_tail.len() <= model::limits::STDERR_TAIL_BYTES + 3);
    assert_eq!(bench.text("echo noise >&2; echo fine", b"").await, "fine\n");
}

#[tokio::test]
async fn a_command_may_stop_reading_early() {
    let bench = Bench::new();
    let mut input = b"first\n".to_vec();
    input.resize(2_000_000, b'x');
    assert_eq!(bench.text("head -n 1", &input).await, "first\n");
    assert_eq!(bench.text("exec <&-; echo deaf", &input).await, "deaf\n");
    let path = bench.file("input");
    std::fs::write(&path, &input).unwrap();
    let source = Source::File {
        file: File::open(&path).unwrap(),
        length: 2_000_000,
        name: "input".into(),
    };
    let product = bench.run_source("head -n 1", source).await.unwrap();
    assert_eq!(product.into_bytes().unwrap(), b"first\n");
    let source = Source::Reader {
        reader: Box::new(io::repeat(b'x')),
        name: "endless".into(),
    };
    assert_eq!(
        bench
            .run_source("head -c 3", source)
            .await
            .unwrap()
            .into_bytes()
            .unwrap(),
        b"xxx\n"
    );
}

#[tokio::test]
async fn a_range_of_a_file_is_fed() {
    let bench = Bench::new();
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(b"zero\none\ntwo\nthree\n").unwrap();
    file.seek(SeekFrom::Start(5)).unwrap();
    let product = bench
        .run_source(
            "cat",
            Source::File {
                file,
                length: 8,
                name: "f".into(),
            },
        )
        .await
        .unwrap();
    assert_eq!(product.into_bytes().unwrap(), b"one\ntwo\n");
}

#[tokio::test]
async fn a_file_that_became_shorter_has_changed_even_if_the_command_is_content() {
    let bench = Bench::new();
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(b"short\n").unwrap();
    file.rewind().unwrap();
    let source = Source::File {
        file,
        length: 600,
        name: "/logs/a.log".into(),
    };
    let failure = bench
        .run_source("cat >/dev/null; exit 0", source)
        .await
        .unwrap_err()
        .failure()
        .unwrap();
    assert_eq!(failure.kind, FailureKind::Changed);
    assert!(
        failure.message.contains("/logs/a.log") && failure.message.contains("600"),
        "{}",
        failure.message
    );
}

struct Broken(&'static [u8]);

impl Read for Broken {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.0.is_empty() {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                "corrupt deflate stream",
            ));
        }
        self.0.read(buffer)
    }
}

#[tokio::test]
async fn a_read_error_fails_a_command_that_took_no_notice() {
    let bench = Bench::new();
    let source = Source::Reader {
        reader: Box::new(Broken(b"some\n")),
        name: "a.gz".into(),
    };
    let failure = bench
        .run_source("cat; exit 0", source)
        .await
        .unwrap_err()
        .failure()
        .unwrap();
    assert_eq!(failure.kind, FailureKind::Read);
    assert_eq!(failure.message, "reading a.gz: corrupt deflate stream");
    let broken = Failure::new(FailureKind::Read, "partial result 3 is gone");
    let pieces = [Ok(Bytes::from_static(b"one\n")), Err(broken.clone())];
    let source = Source::stream(futures::stream::iter(pieces));
    let failure = bench
        .run_source("cat; sleep 60", source)
        .await
        .unwrap_err()
        .failure()
        .unwrap();
    assert_eq!(failure, broken);
    assert_eq!(alive(bench.job), [0; 0]);
}

#[tokio::test]
async fn pieces_arrive_in_order() {
    let bench = Bench::new();
    let pieces = (0..50_000).map(|i| Ok(Bytes::from(format!("{i}\n"))));
    let source = Source::stream(futures::stream::iter(pieces.collect::<Vec<_>>()));
    let product = bench.run_source("sort -nc && echo sorted", source).await.unwrap();
    assert_eq!(product.into_bytes().unwrap(), b"sorted\n");
}

#[tokio::test]
async fn the_environment_tells_the_subtask_and_no_secrets() {
    let bench = Bench::new();
    let line = "echo $SAWMILL_JOB $SAWMILL_DATASET $SAWMILL_BLOCK $SAWMILL_ATTEMPT; env | grep -c ^SAWMILL_";
    assert_eq!(
        bench.text(line, b"").await,
        format!("{} nginx 7 2\n4\n", bench.job)
    );
    let mut task = bench.task("echo $SAWMILL_BLOCK; test \"$HOME\" = \"$WANTED\" || echo \"$HOME\"");
    task.spot = Spot::Merge;
    let product = bench.run_task(&task, bytes(b"")).await.unwrap();
    let expected = format!("merge\n{}\n", std::env::var("HOME").unwrap());
    assert_eq!(
        String::from_utf8(product.into_bytes().unwrap()).unwrap(),
        expected
    );
}

/// Runs itself again with secrets in its environment, which the command must not see.
#[test]
fn variables_of_the_node_stay_with_the_node() {
    const SECRETS: [&str; 3] = ["SAWMILL_MONGODB", "AWS_SECRET_ACCESS_KEY", "BASH_ENV"];
    if std::env::var_os(SECRETS[0]).is_some() {
        let runtime = tokio::runtime::Runtime::new().unwrap();
        let bench = Bench::new();
        let seen = runtime.block_on(bench.text("env; tr '\\0' '\\n' </proc/$PPID/environ", b""));
        assert!(
            seen.contains("SAWMILL_JOB") && !seen.contains("password"),
            "{seen}"
        );
        for passed in ["LC_TIME=de_DE", "TZ=Asia/Tokyo", "USER=me"] {
            assert_eq!(
                seen.lines().filter(|line| *line == passed).count(),
                2,
                "{passed} in {seen}"
            );
        }
        let guard = bench.guard.clone().passing(["AWS_SECRET_ACCESS_KEY".to_string()]);
        let runner = engine::command::Runner::new(guard, bench.folder.path());
        let task = bench.task("echo $AWS_SECRET_ACCESS_KEY");
        let printed = runtime.block_on(runner.run(&task, bytes(b""), &CancellationToken::new()));
        assert_eq!(printed.unwrap().product.into_bytes().unwrap(), b"a password\n");
        return;
    }
    let status = std::process::Command::new(std::env::current_exe().unwrap())
        .args(["variables_of_the_node_stay_with_the_node", "--exact"])
        .envs(SECRETS.map(|name| (name, "a password")))
        .envs([("LC_TIME", "de_DE"), ("TZ", "Asia/Tokyo"), ("USER", "me")])
        .status()
        .unwrap();
    assert!(status.success());
}

#[tokio::test]
async fn a_pipeline_fails_with_any_of_its_parts() {
    let bench = Bench::new();
    let failure = bench.failure("sh -c 'exit 3' | wc -l").await;
    assert_eq!(
        (failure.exit_code, failure.message.as_str()),
        (Some(3), "map command exited with code 3")
    );
    let mut task = bench.task("sh -c 'exit 3' | wc -l");
    task.pipefail = false;
    let product = bench.run_task(&task, bytes(b"")).await.unwrap();
    assert_eq!(product.into_bytes().unwrap(), b"0\n");
    // The first part is ended by SIGPIPE.
    assert_eq!(bench.text("yes | head -n 1", b"").await, "y\n");
}

#[tokio::test]
async fn codes_that_count_as_success_are_said_and_proposed() {
    let bench = Bench::new();
    let mut task = bench.task("grep x");
    let stop = bench.run_task(&task, bytes(b"a\n")).await.unwrap_err();
    assert_eq!(
        stop.failure().unwrap().message,
        "map command exited with code 1 without output: if that is no failure (grep finds nothing), use --ok-exit 0,1"
    );
    let failure = bench.failure("echo broken >&2; exit 1").await;
    assert_eq!(failure.message, "map command exited with code 1 without output");
    task.ok_exit = &[1];
    assert!(bench.run_task(&task, bytes(b"a\n")).await.unwrap().is_empty());
    task.line = "grep x | wc -l";
    let product = bench.run_task(&task, bytes(b"a\n")).await.unwrap();
    assert_eq!(product.into_bytes().unwrap(), b"0\n");
    task.line = "exit 2";
    assert!(bench.run_task(&task, bytes(b"")).await.is_err());
}

#[tokio::test]
async fn text_of_a_partial_result_ends_with_a_line_feed() {
    let bench = Bench::new();
    assert_eq!(bench.text("printf end", b"").await, "end\n");
    assert_eq!(bench.text("printf 'end\\n'", b"").await, "end\n");
    assert_eq!(bench.text("true", b"").await, "");
    let large = bench
        .run("head -c 3000000 /dev/zero | tr '\\0' x", b"")
        .await
        .unwrap();
    assert_eq!(large.len(), 3_000_001);
    assert!(large.into_bytes().unwrap().ends_with(b"x\n"));
    let zipped = b"\x1f\x8b\x08zipped";
    assert_eq!(
        bench.run("cat", zipped).await.unwrap().into_bytes().unwrap(),
        zipped
    );
    let binary = bench.run("head -c 3000000 /dev/zero", b"").await.unwrap();
    assert_eq!(binary.len(), 3_000_000);
    // The result of a merge is as it was printed.
    let mut task = bench.task("printf end");
    task.spot = Spot::Merge;
    let product = bench.run_task(&task, bytes(b"")).await.unwrap();
    assert_eq!(product.into_bytes().unwrap(), b"end");
}

#[tokio::test]
async fn variables_of_the_user_are_given_and_the_end_of_standard_error_is_kept() {
    let bench = Bench::new();
    let env = [("GREETING".to_string(), "a = 'b'".to_string())].into();
    let mut task = bench.task("echo \"$GREETING\" >&2; seq 1 1000 >&2; echo the end >&2");
    task.env = &env;
    let printed = bench
        .runner
        .run(&task, bytes(b""), &CancellationToken::new())
        .await
        .unwrap();
    let tail = &printed.stderr_tail;
    assert!(tail.starts_with('…') && tail.ends_with("1000\nthe end"), "{tail}");
    assert!(tail.len() <= model::limits::STDERR_OK_BYTES + 3);
    task.line = "echo \"$GREETING\" >&2";
    let printed = bench
        .runner
        .run(&task, bytes(b""), &CancellationToken::new())
        .await
        .unwrap();
    assert_eq!(
        (printed.stderr_tail.as_str(), printed.product.len()),
        ("a = 'b'", 0)
    );
}

#[tokio::test]
async fn a_guard_that_cannot_start_is_told() {
    let bench = Bench::new();
    for program in ["/no/such/program", "/bin/true"] {
        let runner = engine::command::Runner::new(engine::Guard::new(program), bench.folder.path());
        let stop = runner
            .run(&bench.task("true"), bytes(b""), &CancellationToken::new())
            .await
            .unwrap_err();
        let failure = stop.failure().unwrap();
        assert_eq!(failure.kind, FailureKind::Start);
        assert!(failure.message.contains(program), "{}", failure.message);
    }
    let failure = bench.failure("a\0b").await;
    assert!(
        failure.kind == FailureKind::Start && failure.message.contains("NUL"),
        "{}",
        failure.message
    );
}

#[tokio::test]
async fn cancelled_before_is_cancelled() {
    let bench = Bench::new();
    let cancel = CancellationToken::new();
    cancel.cancel();
    let stop = bench
        .runner
        .run(&bench.task("true"), bytes(b""), &cancel)
        .await
        .unwrap_err();
    assert_eq!(stop, Stop::Cancelled);
}

#[tokio::test]
async fn a_long_command_line_fits() {
    let bench = Bench::new();
    let line = format!("echo {}", "x".repeat(model::limits::COMMAND_BYTES - 5));
    assert_eq!(
        bench.text(&line, b"").await.len(),
        model::limits::COMMAND_BYTES - 5 + 1
    );
}

#[tokio::test]
async fn a_timeout_says_its_limit() {
    let bench = Bench::new();
    let mut task = bench.task("echo so far >&2; sleep 60");
    task.timeout = Some(Duration::from_millis(200));
    let stop = bench
        .runner
        .run(&task, bytes(b""), &CancellationToken::new())
        .await
        .unwrap_err();
    let failure = stop.failure().unwrap();
    assert_eq!(failure.kind, FailureKind::Timeout);
    assert_eq!(failure.message, "map command ran longer than its limit of 0.2 s");
    assert_eq!(failure.stderr_tail, "so far");
}
