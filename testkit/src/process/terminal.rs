//! A process on a terminal of its own: what is typed, and what shows.

use super::{Process, Recipe};
use crate::wait;
use nix::pty::{Winsize, openpty};
use std::fs::File;
use std::io::{Read, Write};
use std::process::{ExitStatus, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// Wide enough that nothing is wrapped or left out.
const SIZE: Winsize = Winsize {
    ws_row: 100,
    ws_col: 250,
    ws_xpixel: 0,
    ws_ypixel: 0,
};

/// A process whose standard input, output and error are a terminal.
///
/// It is not its controlling terminal: Ctrl-C is a key while a line is read, and [`Process::interrupt`] at other times.
#[derive(Debug)]
pub struct Terminal {
    /// The process.
    pub process: Process,
    keyboard: File,
    screen: Arc<Mutex<Vec<u8>>>,
    seen: usize,
}

impl Recipe {
    /// Starts it on a terminal of its own.
    ///
    /// # Panics
    /// When it cannot be started.
    pub fn on_terminal(self) -> Terminal {
        let pair = openpty(&SIZE, None).expect("a pseudo-terminal");
        let theirs = File::from(pair.slave);
        let end = || Stdio::from(theirs.try_clone().expect("a descriptor"));
        let process = self.spawn(end(), |_| end());
        let keyboard = File::from(pair.master);
        let mut reader = keyboard.try_clone().expect("a descriptor");
        let screen = Arc::new(Mutex::new(Vec::new()));
        let shown = Arc::clone(&screen);
        // Ends when the last process on the terminal has ended.
        std::thread::spawn(move || {
            let mut buffer = [0; 4096];
            while let Ok(read @ 1..) = reader.read(&mut buffer) {
                let mut shown = shown.lock().unwrap_or_else(PoisonError::into_inner);
                shown.extend_from_slice(&buffer[..read]);
            }
        });
        Terminal {
            process,
            keyboard,
            screen,
            seen: 0,
        }
    }
}

impl Terminal {
    /// Types keys: `\r` is Enter, `\t` Tab, `\x03` Ctrl-C, `\x04` Ctrl-D.
    ///
    /// # Panics
    /// When the terminal is gone.
    pub fn keys(&mut self, keys: &str) {
        self.keyboard.write_all(keys.as_bytes()).expect("typing");
    }

    /// Waits until `text` shows behind what was waited for before; gives all that showed up to its end.
    ///
    /// # Panics
    /// At the deadline, with what shows instead.
    #[track_caller]
    pub fn shows(&mut self, text: &str, deadline: Duration) -> impl Future<Output = String> {
        wait::until_ok(format!("{text:?} on the terminal"), deadline, async move || {
            let screen = self.screen.lock().unwrap_or_else(PoisonError::into_inner);
            let fresh = String::from_utf8_lossy(&screen[self.seen..]).into_owned();
            let end = fresh.find(text).map(|at| at + text.len());
            let end = end.ok_or_else(|| fresh.clone())?;
            self.seen += end;
            Ok::<_, String>(fresh[..end].to_string())
        })
    }

    /// Waits until it ends.
    ///
    /// # Panics
    /// At the deadline.
    #[track_caller]
    pub fn wait_exit(&mut self, deadline: Duration) -> impl Future<Output = ExitStatus> {
        self.process.wait_exit(deadline)
    }
}
