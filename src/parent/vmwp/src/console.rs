//! The console: a stream socket to the daemon.

use std::collections::VecDeque;
use std::io::{self, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use platform::Devices;
use rustix::event::PollFlags;
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags, recv, send};

/// Bytes that are kept while the daemon takes none. What comes after is lost, as on a wire.
const KEPT_MAX: usize = 256 * 1024;

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
}

impl Console {
    /// On `socket`. What is written to `output` goes there.
    pub const fn new(socket: Option<OwnedFd>, output: Output) -> Self {
        Self { socket, output }
    }

    /// What to wait for now, and where.
    pub fn interest(&self, devices: &Devices) -> Option<(BorrowedFd<'_>, PollFlags)> {
        let mut flags = PollFlags::empty();
        flags.set(PollFlags::OUT, self.has_output());
        flags.set(PollFlags::IN, devices.console_room() > 0);
        (!flags.is_empty())
            .then(|| Some((self.socket.as_ref()?.as_fd(), flags)))
            .flatten()
    }

    /// Whether the child wrote something that is still here.
    pub fn has_output(&self) -> bool {
        !self.output.kept().is_empty()
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

    fn take_out(&self) -> Result<(), Errno> {
        let Some(socket) = &self.socket else {
            return Ok(());
        };
        let mut kept = self.output.kept();
        while !kept.is_empty() {
            let (front, _) = kept.as_slices();
            match send(socket, front, SendFlags::DONTWAIT | SendFlags::NOSIGNAL) {
                Ok(sent) => drop(kept.drain(..sent)),
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => return Ok(()),
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
