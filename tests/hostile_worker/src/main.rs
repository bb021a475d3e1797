//! For a test: what a worker could do that its child has taken over, and that the limits on its system calls do not hold.
//!
//! It stands between `vmms` and a good `vmwp`, keeps all files that the start brings, and passes everything on, so that a
//! child runs. When it does, and a word `hostile=` on its command line says how, it attacks:
//!
//! | word | what |
//! |---|---|
//! | `memory` | frees, moves, cuts and grows the child's RAM and the shared pages, whose files a good worker has closed |
//! | `foreign` | reaches for pages, processes and devices that are not its own |
//! | `calls` | requests on its slot about others, and such as only the daemon may make |
//! | `ring` | garbage in the rings' indices and in the pages that the hypervisor reads |
//! | `still` | stops, and the good worker with it |
//!
//! Each try is a line in the child's log: `attack: WHAT: refused ...`, `attack: WHAT: allowed`. What must never be
//! allowed is `BROKE IN` where it is.

mod calls;
mod foreign;
mod memory;

use std::io::stdin;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use nix::sys::signal::{Signal, kill};
use nix::unistd::{Gid, Pid, Uid, setgroups, setresgid, setresuid};
use rustix::event::{PollFd, PollFlags, poll};
use worker_link::{FromWorker, Link, LinkError, Start, ToWorker};

/// The good worker, as a file of the parent's.
const GOOD: &str = "/usr/bin/vmwp";
/// How long the child runs before it.
const PATIENCE: Duration = Duration::from_secs(6);

/// What the daemon gave.
pub struct Loot {
    start: Start,
    files: Vec<OwnedFd>,
    good: i32,
}

impl Loot {
    fn file(&self, index: worker_link::FdIndex) -> BorrowedFd<'_> {
        match self.files.get(index.0 as usize) {
            Some(file) => file.as_fd(),
            None => self.files[0].as_fd(),
        }
    }
}

/// Tells what became of a try.
fn tell(what: &str, result: Result<(), String>) {
    match result {
        Ok(()) => eprintln!("attack: {what}: allowed"),
        Err(why) => eprintln!("attack: {what}: refused, {why}"),
    }
}

/// The same of what must not be allowed.
fn forbidden(what: &str, result: Result<(), String>) {
    match result {
        Ok(()) => eprintln!("attack: {what}: BROKE IN"),
        Err(why) => eprintln!("attack: {what}: refused, {why}"),
    }
}

/// An error in a word.
fn text(error: impl std::fmt::Display) -> String {
    error.to_string()
}

fn main() -> Result<()> {
    let daemon: Link<FromWorker, ToWorker> = Link::new(stdin().as_fd().try_clone_to_owned()?);
    daemon.wait(None)?;
    let (ToWorker::Start(start), files) = daemon.receive()? else {
        bail!("the first message is not the start");
    };
    let (link, theirs) = Link::<ToWorker, FromWorker>::pair()?;
    let good = Command::new(GOOD)
        .stdin(Stdio::from(theirs.into_socket()))
        .stdout(Stdio::null())
        .spawn()
        .context(GOOD)?;
    let given: Vec<_> = files.iter().map(AsFd::as_fd).collect();
    link.send(&ToWorker::Start(start.clone()), &given)?;
    // From here on it is who a worker is.
    let identity = start.identity.context("no identity")?;
    setgroups(&[])?;
    setresgid_to(identity.gid)?;
    setresuid_to(identity.uid)?;
    let mut loot = Some(Loot {
        start: *start,
        files,
        good: good.id() as i32,
    });
    loop {
        let mut fds = [
            PollFd::new(&daemon, PollFlags::IN),
            PollFd::new(&link, PollFlags::IN),
        ];
        poll(&mut fds, None)?;
        while let Ok((message, _)) = daemon.receive() {
            link.send(&message, &[])?;
        }
        loop {
            match link.receive() {
                Ok((message, _)) => {
                    daemon.send(&message, &[])?;
                    if message == FromWorker::Running
                        && let Some(loot) = loot.take()
                    {
                        std::thread::spawn(move || attack(&loot));
                    }
                }
                Err(LinkError::WouldBlock) => break,
                // The good one is gone. This one stays, and keeps all that it has.
                Err(_) => loop {
                    std::thread::sleep(PATIENCE);
                },
            }
        }
    }
}

fn setresgid_to(gid: u32) -> nix::Result<()> {
    let gid = Gid::from_raw(gid);
    setresgid(gid, gid, gid)
}

fn setresuid_to(uid: u32) -> nix::Result<()> {
    let uid = Uid::from_raw(uid);
    setresuid(uid, uid, uid)
}

fn attack(loot: &Loot) {
    std::thread::sleep(PATIENCE);
    let words = loot.start.command_line.split_whitespace();
    for kind in words.filter_map(|word| word.strip_prefix("hostile=")) {
        match kind {
            "memory" => memory::attack(loot),
            "foreign" => foreign::attack(loot),
            "calls" => calls::attack(loot),
            "ring" => calls::garbage(loot),
            "still" => {
                eprintln!("attack: both stop");
                let _ = kill(Pid::from_raw(loot.good), Signal::SIGSTOP);
                let _ = kill(Pid::this(), Signal::SIGSTOP);
            }
            other => eprintln!("attack: {other}: nobody knows how"),
        }
    }
    eprintln!("attack: over");
}
