//! Programs that do not outlive the one that started them, however that one ends.
//!
//! A child is started as this program itself, under a word by which [`enter`] knows it. There it asks the kernel for a
//! signal at its parent's death (prctl(2), `PR_SET_PDEATHSIG`) and becomes the program that is wanted. Nothing of this
//! needs the parent's help when it dies: SIGKILL ends both.
//!
//! The kernel takes the *thread* that started a child for its parent. So the thread that starts a child also waits for it.
//! The child's own children get no signal.

use std::ffi::OsStr;
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::process::{Pid, Signal, getpid, getppid, set_parent_process_death_signal};

/// The first argument of a child on its way.
const WORD: &str = "--die-with-parent";
/// This program, also when its file was replaced since.
const MYSELF: &str = "/proc/self/exe";

static IS_ENTERED: AtomicBool = AtomicBool::new(false);

/// How a child is told that its parent died.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AtDeath {
    /// At once (SIGKILL).
    Kill,
    /// So that it can put the terminal in order, and end what it started itself (SIGTERM).
    Terminate,
}

impl AtDeath {
    const fn word(self) -> &'static str {
        match self {
            Self::Kill => "kill",
            Self::Terminate => "terminate",
        }
    }
}

/// To be called first in `main`, when there is but one thread. Does not return in a child that [`command`] describes.
pub fn enter() {
    let mut arguments = std::env::args_os().skip(1);
    if arguments.next().is_none_or(|word| word != WORD) {
        IS_ENTERED.store(true, Ordering::Relaxed);
        return;
    }
    let [parent, end, program] = std::array::from_fn(|_| arguments.next().unwrap_or_default());
    let signal = if end == AtDeath::Kill.word() {
        Signal::KILL
    } else {
        Signal::TERM
    };
    let mut error = set_parent_process_death_signal(Some(signal))
        .err()
        .map(Into::into);
    // It may have died before the kernel was asked.
    if getppid().map(text) != parent.into_string().ok() {
        std::process::exit(1);
    }
    if error.is_none() {
        error = Some(Command::new(&program).args(arguments).exec());
    }
    if let Some(error) = error {
        eprintln!("error: starting {}: {error}", program.display());
    }
    std::process::exit(127);
}

/// The command that starts `program`, tied to this process and thread. Arguments, environment and the rest are the
/// caller's to add. A program that cannot be started prints why and ends with 127.
///
/// Where [`enter`] was not called, as in unit tests, it is the plain command.
pub fn command(program: impl AsRef<OsStr>, end: AtDeath) -> Command {
    if !IS_ENTERED.load(Ordering::Relaxed) {
        return Command::new(program);
    }
    let mut command = Command::new(MYSELF);
    command
        .args([WORD, &text(getpid()), end.word()])
        .arg(program);
    command
}

fn text(pid: Pid) -> String {
    pid.as_raw_nonzero().to_string()
}
