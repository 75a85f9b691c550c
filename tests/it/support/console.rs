//! A terminal with a program at it that asks: what it says is waited for, answered, and the program is killed where a test wants it.

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::os::fd::OwnedFd;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use rustix::fs::{Mode, OFlags};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{LocalModes, tcgetattr};

/// Longer than any step takes on a busy machine.
const PATIENCE: Duration = Duration::from_secs(120);

/// A program at a terminal.
pub struct Console {
    child: Child,
    keyboard: File,
    screen: Receiver<Vec<u8>>,
    said: String,
    /// Up to where what was said has been waited for.
    heard: usize,
}

impl Console {
    /// Starts the command with a terminal for everything that it reads and writes.
    pub fn start(command: &mut Command) -> Self {
        let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
        grantpt(&master).unwrap();
        unlockpt(&master).unwrap();
        let name = ptsname(&master, Vec::new()).unwrap();
        let slave = rustix::fs::open(&*name, OFlags::RDWR | OFlags::NOCTTY, Mode::empty()).unwrap();
        let end = |fd: &OwnedFd| Stdio::from(fd.try_clone().unwrap());
        let child = command.stdin(end(&slave)).stdout(end(&slave)).stderr(end(&slave)).spawn().unwrap();
        drop(slave);
        let mut screen = File::from(master.try_clone().unwrap());
        let (send, receive) = channel();
        std::thread::spawn(move || {
            let mut octets = [0; 4096];
            // Once nobody holds the other end any more, reading fails.
            while let Ok(len @ 1..) = screen.read(&mut octets) {
                if send.send(octets[..len].to_vec()).is_err() {
                    return;
                }
            }
        });
        Self { child, keyboard: File::from(master), screen: receive, said: String::new(), heard: 0 }
    }

    /// Waits until it has said this, after what was waited for before. What it said in between.
    #[track_caller]
    pub fn expect(&mut self, text: &str) -> String {
        loop {
            if let Some(at) = self.said[self.heard..].find(text) {
                let between = self.said[self.heard..self.heard + at].to_owned();
                self.heard += at + text.len();
                return between;
            }
            match self.screen.recv_timeout(PATIENCE) {
                Ok(octets) => self.said.push_str(&String::from_utf8_lossy(&octets)),
                Err(why @ (RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected)) => {
                    panic!("{why}: expected {text:?} after\n{}", &self.said[self.heard..])
                }
            }
        }
    }

    /// Types a line.
    pub fn say(&mut self, line: &str) {
        self.keyboard.write_all(format!("{line}\n").as_bytes()).unwrap();
    }

    /// `expect`, then `say`.
    #[track_caller]
    pub fn answer(&mut self, question: &str, line: &str) {
        self.expect(question);
        self.say(line);
    }

    /// The same for what is not shown: typed once the terminal shows nothing any more.
    #[track_caller]
    pub fn secret(&mut self, question: &str, line: &str) {
        self.expect(question);
        let begun = Instant::now();
        while tcgetattr(&self.keyboard).unwrap().local_modes.contains(LocalModes::ECHO) {
            assert!(begun.elapsed() < PATIENCE, "what is typed after {question:?} would be shown");
            std::thread::sleep(Duration::from_millis(1));
        }
        self.say(line);
    }

    /// Kills it, at once, and waits for its end.
    pub fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Waits for its end; its exit status, and all that it said.
    pub fn end(mut self) -> (Option<i32>, String) {
        while let Ok(octets) = self.screen.recv_timeout(PATIENCE) {
            self.said.push_str(&String::from_utf8_lossy(&octets));
        }
        (self.child.wait().unwrap().code(), self.said)
    }
}
