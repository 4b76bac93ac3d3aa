//! Starts a ZooKeeper and a MongoDB for tests, runs a command that is told of them, and stops them after it.
//!
//! `testkit-servers -- cargo nextest run --workspace`: the command finds them in `SAWMILL_TEST_ZOOKEEPER` and
//! `SAWMILL_TEST_MONGODB`, and its exit code is ours. Without a command the two are printed as lines for a shell, and
//! both servers run until standard input ends or Ctrl-C. Killed itself, by whatever signal, it leaves no server behind.

use std::process::ExitCode;
use testkit::servers::{MONGODB, Servers, ZOOKEEPER};
use tokio::process::{Child, Command};
use tokio::signal::unix::{SignalKind, signal};

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let command: Vec<_> = std::env::args_os()
        .skip(1)
        .skip_while(|argument| argument == "--")
        .collect();
    let servers = Servers::start().await;
    let addresses = servers.addresses();
    println!(
        "export {ZOOKEEPER}='{}'\nexport {MONGODB}='{}'",
        addresses.zookeeper, addresses.mongodb
    );
    let code = match command.split_first() {
        None => {
            until_told().await;
            ExitCode::SUCCESS
        }
        Some((program, arguments)) => {
            let mut started = Command::new(program);
            started
                .args(arguments)
                .env(ZOOKEEPER, &addresses.zookeeper)
                .env(MONGODB, &addresses.mongodb);
            match started.spawn() {
                Ok(child) => run(child).await,
                Err(error) => {
                    eprintln!("testkit-servers: {}: {error}", program.display());
                    ExitCode::from(127)
                }
            }
        }
    };
    servers.stop().await;
    code
}

/// Waits for the command. Ctrl-C reaches it directly, being of the same group; TERM is passed on.
async fn run(mut child: Child) -> ExitCode {
    let mut interrupt = signal(SignalKind::interrupt()).expect("a handler");
    let mut terminate = signal(SignalKind::terminate()).expect("a handler");
    loop {
        tokio::select! {
            status = child.wait() => {
                let code = status.ok().and_then(|status| status.code());
                return ExitCode::from(code.and_then(|code| u8::try_from(code).ok()).unwrap_or(1));
            }
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {
                if let Some(pid) = child.id() {
                    let pid = nix::unistd::Pid::from_raw(pid.cast_signed());
                    let _ = nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM);
                }
            }
        }
    }
}

async fn until_told() {
    let mut terminate = signal(SignalKind::terminate()).expect("a handler");
    // A thread of its own, which nobody waits for: a read of standard input cannot be called off.
    let (tell, told) = tokio::sync::oneshot::channel::<()>();
    std::thread::spawn(move || {
        let _ = std::io::copy(&mut std::io::stdin(), &mut std::io::sink());
        drop(tell);
    });
    tokio::select! {
        _ = told => {}
        _ = tokio::signal::ctrl_c() => {}
        _ = terminate.recv() => {}
    }
}
