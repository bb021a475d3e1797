//! COM1 of a child: what it wrote last, and those who look and type.

use std::collections::VecDeque;
use std::io::{ErrorKind, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;

use rustix::event::{PollFd, PollFlags, Timespec, poll};

/// What a new viewer sees of the past.
const PAST: usize = 64 * 1024;
/// What waits for a viewer that does not read; older bytes are left out.
const WAITING: usize = 256 * 1024;
/// What was typed and not yet taken; more is not read.
const TYPED: usize = 4096;

/// Past, viewers and what was typed.
#[derive(Debug, Default)]
pub struct Console {
    past: VecDeque<u8>,
    typed: VecDeque<u8>,
    viewers: Vec<Viewer>,
}

/// Somebody who is attached.
#[derive(Debug)]
struct Viewer {
    stream: UnixStream,
    waiting: VecDeque<u8>,
}

impl Console {
    /// Attaches a viewer, who sees the past first.
    pub fn attach(&mut self, stream: UnixStream) {
        if stream.set_nonblocking(true).is_ok() {
            let waiting = self.past.clone();
            self.viewers.push(Viewer { stream, waiting });
        }
    }

    /// Lets all viewers go, after a last word.
    pub fn close(&mut self, word: &str) {
        for mut viewer in self.viewers.drain(..) {
            viewer.waiting.extend(word.bytes());
            viewer.flush();
        }
        self.typed.clear();
    }

    /// Viewers, and whether something waits for each.
    pub fn viewers(&self) -> impl Iterator<Item = (BorrowedFd<'_>, bool)> {
        let viewers = self.viewers.iter();
        viewers.map(|viewer| (viewer.stream.as_fd(), !viewer.waiting.is_empty()))
    }

    /// Whether something was typed that the child has not taken.
    pub fn has_typed(&self) -> bool {
        !self.typed.is_empty()
    }

    /// Whether there is room for typing.
    pub fn takes_typing(&self) -> bool {
        self.typed.len() < TYPED
    }

    /// Moves what the child wrote to past and viewers, and what was typed to the child. Whether `com1` is still open.
    pub fn relay(&mut self, mut com1: &UnixStream) -> bool {
        let mut buffer = [0; 4096];
        // A child that writes without end must not keep the daemon from the rest.
        for _ in 0..16 {
            match com1.read(&mut buffer) {
                Ok(0) => return false,
                Ok(read) => self.show(buffer.get(..read).unwrap_or_default()),
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(_) => return false,
            }
        }
        drain(&mut self.typed, com1)
    }

    /// Shows something.
    fn show(&mut self, bytes: &[u8]) {
        keep_last(&mut self.past, bytes, PAST);
        for viewer in &mut self.viewers {
            keep_last(&mut viewer.waiting, bytes, WAITING);
        }
        self.viewers.retain_mut(Viewer::flush);
    }

    /// Serves the viewers: writes what waits, reads what was typed. Those who are gone are forgotten.
    pub fn serve(&mut self) {
        let (typed, viewers) = (&mut self.typed, &mut self.viewers);
        viewers.retain_mut(|viewer| viewer.flush() && viewer.read(typed));
    }
}

impl Viewer {
    fn is_gone(&self) -> bool {
        let mut fds = [PollFd::new(&self.stream, PollFlags::empty())];
        poll(&mut fds, Some(&Timespec::default())).is_ok_and(|ready| ready > 0)
    }

    fn flush(&mut self) -> bool {
        drain(&mut self.waiting, &self.stream)
    }

    /// Reads as much as there is room for. Whether the viewer is still there.
    fn read(&mut self, typed: &mut VecDeque<u8>) -> bool {
        let mut buffer = [0; TYPED];
        let room = TYPED.saturating_sub(typed.len());
        let Some(buffer) = buffer.get_mut(..room).filter(|room| !room.is_empty()) else {
            // What somebody left behind who is gone would be shown as something to be read for ever.
            return !self.is_gone();
        };
        match (&self.stream).read(buffer) {
            Ok(0) => false,
            Ok(read) => {
                typed.extend(buffer.iter().take(read));
                true
            }
            Err(error) => matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted),
        }
    }
}

/// Writes what fits now. Whether the other side is still there.
fn drain(from: &mut VecDeque<u8>, mut to: &UnixStream) -> bool {
    while !from.is_empty() {
        match to.write(from.as_slices().0) {
            Ok(0) => return false,
            Ok(written) => drop(from.drain(..written)),
            Err(error) if error.kind() == ErrorKind::WouldBlock => return true,
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(_) => return false,
        }
    }
    true
}

/// Appends, and forgets the oldest beyond `max`.
fn keep_last(buffer: &mut VecDeque<u8>, bytes: &[u8], max: usize) {
    buffer.extend(bytes);
    let excess = buffer.len().saturating_sub(max);
    buffer.drain(..excess);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pair() -> (UnixStream, UnixStream) {
        let (ours, theirs) = UnixStream::pair().unwrap();
        ours.set_nonblocking(true).unwrap();
        (ours, theirs)
    }

    fn read(stream: &UnixStream, len: usize) -> String {
        let mut bytes = vec![0; len];
        let mut stream = stream;
        stream.read_exact(&mut bytes).unwrap();
        String::from_utf8(bytes).unwrap()
    }

    #[test]
    fn viewers_see_the_past_and_what_comes_and_all_may_type() {
        let mut console = Console::default();
        let (com1, child) = pair();
        (&child).write_all(b"login: ").unwrap();
        assert!(console.relay(&com1));
        let (first, seen_first) = pair();
        let (second, seen_second) = pair();
        console.attach(first);
        console.attach(second);
        console.serve();
        (&seen_first).write_all(b"ro").unwrap();
        (&seen_second).write_all(b"ot").unwrap();
        console.serve();
        assert!(console.relay(&com1));
        assert_eq!(read(&child, 4), "root");
        (&child).write_all(b"ok").unwrap();
        assert!(console.relay(&com1));
        assert_eq!(read(&seen_first, 9), "login: ok");
        drop(seen_first);
        console.serve();
        assert_eq!(console.viewers().count(), 1);
        console.close("[bye]");
        assert_eq!(read(&seen_second, 14), "login: ok[bye]");
        drop(child);
        assert!(!console.relay(&com1));
    }

    #[test]
    fn nothing_grows_without_bound() {
        let mut console = Console::default();
        let (com1, child) = pair();
        child.set_nonblocking(true).unwrap();
        let (viewer, idle) = pair();
        console.attach(viewer);
        for _ in 0..2000 {
            let _ = (&child).write(&[b'x'; 1024]);
            assert!(console.relay(&com1));
        }
        assert_eq!(console.past.len(), PAST);
        assert!(console.viewers[0].waiting.len() <= WAITING);
        idle.set_nonblocking(true).unwrap();
        while (&idle).write(&[b'y'; 1024]).is_ok() {
            console.serve();
        }
        assert_eq!(console.typed.len(), TYPED);
        assert!(!console.takes_typing());
        assert_eq!(console.viewers().count(), 1);
        // Somebody who typed too much and left is not waited for.
        drop(idle);
        console.serve();
        assert_eq!(console.viewers().count(), 0);
    }
}
