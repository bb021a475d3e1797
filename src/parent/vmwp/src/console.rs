//! The console: a stream socket to the daemon.

use std::collections::VecDeque;
use std::io::{self, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use platform::Devices;
use rustix::event::PollFlags;
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags, recv, send};

/// Bytes that are kept while the daemon takes none. What comes after is lost, as on a wire.
const KEPT_MAX: usize = 256 * 1024;

/// How long an unfinished line is held back: a child writes by the byte, and each would wake the daemon and whoever looks.
const HELD: Duration = Duration::from_millis(5);
/// Bytes that are not held back.
const HELD_MAX: usize = 256;

/// What the child wrote and nobody has taken.
#[derive(Clone, Debug, Default)]
pub struct Output(Arc<Mutex<VecDeque<u8>>>);

impl Output {
    fn kept(&self) -> MutexGuard<'_, VecDeque<u8>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Write for Output {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut kept = self.kept();
        let room = KEPT_MAX.saturating_sub(kept.len());
        kept.extend(bytes.iter().take(room));
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The worker's end.
#[derive(Debug)]
pub struct Console {
    /// `None`: there is none, or the daemon closed it.
    socket: Option<OwnedFd>,
    output: Output,
    /// The daemon takes no more for now.
    is_blocked: bool,
    /// Since when output is held back.
    since: Option<Instant>,
}

impl Console {
    /// On `socket`. What is written to `output` goes there.
    pub const fn new(socket: Option<OwnedFd>, output: Output) -> Self {
        Self {
            socket,
            output,
            is_blocked: false,
            since: None,
        }
    }

    /// What to wait for now, and where.
    pub fn interest(&self, devices: &Devices) -> Option<(BorrowedFd<'_>, PollFlags)> {
        let mut flags = PollFlags::empty();
        flags.set(PollFlags::OUT, self.is_blocked);
        flags.set(PollFlags::IN, devices.console_room() > 0);
        (!flags.is_empty())
            .then(|| Some((self.socket.as_ref()?.as_fd(), flags)))
            .flatten()
    }

    /// How long output may still be held back: not at all where a line is complete. `None`: there is none, or nobody takes it
    /// now.
    pub fn held(&mut self) -> Option<Duration> {
        let kept = self.output.kept();
        if kept.is_empty() || self.is_blocked {
            return None;
        }
        if kept.back() == Some(&b'\n') || kept.len() >= HELD_MAX {
            return Some(Duration::ZERO);
        }
        let since = *self.since.get_or_insert_with(Instant::now);
        Some(HELD.saturating_sub(since.elapsed()))
    }

    /// Moves what can be moved both ways, without waiting.
    pub fn run(&mut self, devices: &mut Devices) {
        let is_open = self.take_out().and_then(|()| self.put_in(devices));
        if is_open.is_err() {
            self.socket = None;
        }
        if self.socket.is_none() {
            self.output.kept().clear();
        }
    }

    fn take_out(&mut self) -> Result<(), Errno> {
        (self.is_blocked, self.since) = (false, None);
        let Some(socket) = &self.socket else {
            return Ok(());
        };
        let mut kept = self.output.kept();
        while !kept.is_empty() {
            let (front, _) = kept.as_slices();
            match send(socket, front, SendFlags::DONTWAIT | SendFlags::NOSIGNAL) {
                Ok(sent) => drop(kept.drain(..sent)),
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => {
                    self.is_blocked = true;
                    return Ok(());
                }
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    fn put_in(&self, devices: &mut Devices) -> Result<(), Errno> {
        let Some(socket) = &self.socket else {
            return Ok(());
        };
        loop {
            // Only what the port takes: the socket keeps the rest.
            let mut bytes = [0; 64];
            let room = devices.console_room().min(bytes.len());
            let Some(bytes) = bytes.get_mut(..room).filter(|bytes| !bytes.is_empty()) else {
                return Ok(());
            };
            match recv(socket, &mut *bytes, RecvFlags::DONTWAIT) {
                Ok((0, _)) => return Err(Errno::PIPE),
                Ok((count, _)) => {
                    devices.console_input(bytes.get(..count).unwrap_or_default());
                }
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => return Ok(()),
                Err(error) => return Err(error),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_goes_when_it_is_complete_or_has_waited() {
        let mut output = Output::default();
        let mut console = Console::new(None, output.clone());
        assert_eq!(console.held(), None);
        output.write_all(b"a").unwrap();
        assert!(console.held().is_some_and(|time| time <= HELD));
        output.write_all(b"\n").unwrap();
        assert_eq!(console.held(), Some(Duration::ZERO));
        output.write_all(b"b").unwrap();
        std::thread::sleep(HELD);
        assert_eq!(console.held(), Some(Duration::ZERO));
    }
}
