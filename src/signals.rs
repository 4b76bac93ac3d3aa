//! Being asked to stop: SIGTERM, and SIGINT from a terminal's Ctrl-C.
//!
//! Promise: from [`Signals::install`] on neither signal ends the process by itself; whoever holds the value is told.
//! No promise about SIGHUP, which keeps its meaning (a process under `nohup` ignores it). Called by every command
//! that runs roles.

use tokio::signal::unix::{Signal, SignalKind, signal};

/// The signals that ask the process to stop.
#[derive(Debug)]
pub struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    /// Takes both signals over. Must be called inside a runtime.
    ///
    /// # Errors
    /// What the system says when it refuses a signal handler.
    pub fn install() -> std::io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
        })
    }

    /// Waits for the next request to stop and names the signal. Dropping the future loses nothing.
    pub async fn stop_asked(&mut self) -> &'static str {
        tokio::select! {
            _ = self.terminate.recv() => "SIGTERM",
            _ = self.interrupt.recv() => "SIGINT",
        }
    }
}

/// Whether the end of the terminal means nothing to this process, as under `nohup`.
pub fn ignores_hangup() -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let ignored = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let mask = ignored.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
    // The first bit is that of the first signal, which SIGHUP is.
    mask.is_some_and(|mask| mask & 1 == 1)
}

#[cfg(test)]
mod tests {
    use nix::sys::signal::{Signal, raise};

    use super::*;

    #[tokio::test]
    async fn both_signals_are_told_and_neither_kills() {
        let mut signals = Signals::install().unwrap();
        raise(Signal::SIGTERM).unwrap();
        assert_eq!(signals.stop_asked().await, "SIGTERM");
        raise(Signal::SIGINT).unwrap();
        assert_eq!(signals.stop_asked().await, "SIGINT");
    }
}
