//! Measures what a command costs; run by hand: `cargo test --release -p sawmill-engine --test speed -- --ignored --nocapture`.

#![allow(clippy::unwrap_used)]

mod support;

use std::time::Instant;

use futures::StreamExt;

use support::Bench;

/// Prints milliseconds per command, plain and guarded, warm and with a new guard each.
#[tokio::test]
#[ignore = "a measurement"]
async fn a_command_costs_little_more_than_its_shell() {
    const COUNT: u32 = 100;
    for _ in 0..3 {
        let begin = Instant::now();
        for _ in 0..COUNT {
            tokio::process::Command::new("/bin/sh")
                .args(["-c", "true"])
                .output()
                .await
                .unwrap();
        }
        let plain = begin.elapsed() / COUNT;
        let bench = Bench::new();
        let begin = Instant::now();
        for _ in 0..COUNT {
            bench.text("true", b"").await;
        }
        let guarded = begin.elapsed() / COUNT;
        let begin = Instant::now();
        for _ in 0..COUNT {
            Bench::new().text("true", b"").await;
        }
        let cold = begin.elapsed() / COUNT;
        println!("plain {plain:?}, guarded {guarded:?}, with a new guard {cold:?}");
    }
}

/// Prints how fast blocks of a file pass through commands, two at a time; the file is named by `SCAN`.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a measurement"]
async fn blocks_pass_as_fast_as_the_kernel_moves_them() {
    use std::{fs::File, io::Seek};
    const BLOCK: u64 = 8 << 20;
    let path = std::env::var("SCAN").unwrap();
    let size = std::fs::metadata(&path).unwrap().len();
    for line in ["wc -l", "awk '{print $9}' | sort | uniq -c"] {
        let bench = Bench::new();
        let begin = Instant::now();
        let blocks = futures::stream::iter((0..size).step_by(BLOCK as usize)).map(|start| {
            let (bench, path) = (&bench, &path);
            async move {
                let mut file = File::open(path).unwrap();
                file.seek(std::io::SeekFrom::Start(start)).unwrap();
                let source = engine::Source::File {
                    file,
                    length: BLOCK.min(size - start),
                    name: path.clone(),
                };
                bench.run_source(line, source).await.unwrap()
            }
        });
        let count = blocks.buffer_unordered(2).count().await;
        println!("{line}: {count} blocks in {:?}", begin.elapsed());
    }
}
