//! The terminal as a child's console.

use std::io::{self, IsTerminal, Read, Write};
use std::os::fd::AsFd;

use anyhow::Result;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::termios::{OptionalActions, Termios, tcgetattr, tcsetattr};

use crate::connection::Connection;

/// Ctrl-].
const LEAVE: u8 = 0x1D;

/// The terminal's settings, which come back when this is dropped.
struct Raw(Option<Termios>);

impl Raw {
    fn new() -> io::Result<Self> {
        if !io::stdin().is_terminal() {
            return Ok(Self(None));
        }
        let before = tcgetattr(io::stdin())?;
        let mut raw = before.clone();
        raw.make_raw();
        tcsetattr(io::stdin(), OptionalActions::Now, &raw)?;
        Ok(Self(Some(before)))
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        if let Some(before) = &self.0 {
            let _ = tcsetattr(io::stdin(), OptionalActions::Now, before);
        }
    }
}

/// Relays until the child ends, Ctrl-] is typed, or nobody looks any more.
pub fn relay(connection: &Connection, name: &str) -> Result<()> {
    let is_terminal = io::stdin().is_terminal();
    if is_terminal {
        crate::put(
            io::stderr(),
            &format!("[console of {name}; Ctrl-] leaves it]\n"),
        )?;
    }
    let raw = Raw::new()?;
    let (mut stream, already) = connection.parts();
    let mut out = io::stdout();
    out.write_all(already)?;
    out.flush()?;
    let mut buffer = [0; 4096];
    let mut types = true;
    loop {
        let wanted = if types {
            PollFlags::IN
        } else {
            PollFlags::empty()
        };
        let stdin = io::stdin();
        let (has_shown, has_typed) = {
            let mut fds = [
                PollFd::from_borrowed_fd(stream.as_fd(), PollFlags::IN),
                PollFd::from_borrowed_fd(stdin.as_fd(), wanted),
            ];
            match poll(&mut fds, None) {
                Err(rustix::io::Errno::INTR) => continue,
                other => other?,
            };
            let ready = |fd: &PollFd<'_>| !fd.revents().is_empty();
            (ready(&fds[0]), types && ready(&fds[1]))
        };
        if has_shown {
            match stream.read(&mut buffer)? {
                0 => break,
                read => out.write_all(buffer.get(..read).unwrap_or_default())?,
            }
            out.flush()?;
        }
        if has_typed {
            // Not through `io::stdin()`, whose buffer `poll` does not see.
            let read = rustix::io::read(rustix::stdio::stdin(), &mut buffer)?;
            let typed = buffer.get(..read).unwrap_or_default();
            // The end of a script is not the end of the console.
            types = read > 0;
            let leaves = is_terminal.then(|| typed.iter().position(|byte| *byte == LEAVE));
            let leaves = leaves.flatten();
            stream.write_all(typed.get(..leaves.unwrap_or(read)).unwrap_or_default())?;
            if leaves.is_some() {
                break;
            }
        }
    }
    drop(raw);
    if is_terminal {
        crate::put(io::stderr(), &format!("\r\n[left the console of {name}]\n"))?;
    }
    Ok(())
}
