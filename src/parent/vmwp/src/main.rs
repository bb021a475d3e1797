//! `vmwp`: the worker of one child. `vmms` starts it with one end of a link as standard input and hands it everything it
//! will ever have: the child's RAM, the pages shared with the hypervisor, the slot, kernel, disks and console.
//!
//! | module | |
//! |---|---|
//! | `start` | from the first message to a child that is ready |
//! | `worker` | the loop that serves it |
//! | `intercept` | what a VP stopped for, and what it goes on with |
//! | `slot`, `server`, `calls` | requests to the hypervisor |
//! | `disks`, `console` | files and sockets behind devices |
//! | `confine` | what the process may still do |
//!
//! The process is in the child's hands, or must be taken to be: it parses what the child writes. It knows no page number
//! of the parent, opens no file, and the hypervisor takes from it no call that is about another partition.

mod calls;
mod confine;
mod console;
mod disks;
mod files;
mod intercept;
mod memory;
mod server;
mod slot;
mod start;
mod wake;
mod worker;

use std::io::{Write, stdin};
use std::os::fd::{AsFd, OwnedFd};
use std::process::ExitCode;

use anyhow::{Context, Result, bail};
use worker_link::{FromWorker, Link, Start, StopReason, ToWorker, stop_point};

use worker::{Parts, ToDaemon, Worker, tell};

/// Writes a line for the daemon's log.
fn log(text: &str) {
    // Nobody reads it: nothing helps.
    let _ = writeln!(std::io::stderr(), "{text}");
}

fn main() -> ExitCode {
    let link = match link() {
        Ok(link) => link,
        Err(error) => {
            log(&format!("vmwp is started by vmms: {error:#}"));
            return ExitCode::FAILURE;
        }
    };
    match begin(&link) {
        Ok(worker) => {
            worker.run();
            ExitCode::SUCCESS
        }
        Err(error) => {
            let text = format!("{error:#}");
            log(&text);
            let reason = StopReason::Failed { text };
            // The daemon sees the end of the process all the same.
            let _ = tell(&link, &FromWorker::Stopped { reason });
            ExitCode::FAILURE
        }
    }
}

/// The end of the link that is standard input.
fn link() -> Result<ToDaemon> {
    let socket = stdin().as_fd().try_clone_to_owned()?;
    Ok(Link::new(socket))
}

fn begin(link: &ToDaemon) -> Result<Worker> {
    let (start, files) = receive(link)?;
    if let Some(index) = start.log_fd {
        let log = files
            .get(index.0 as usize)
            .context("the file for the log did not come with the start")?;
        rustix::stdio::dup2_stderr(log).context("the log")?;
    }
    confine::become_nobody(start.identity)?;
    let own = Link::new(link.as_fd().try_clone_to_owned()?);
    let parts: Parts = start::prepare(own, &start, files)?;
    confine::forbid()?;
    stop_point("vmwp:loaded");
    Ok(Worker::new(parts))
}

fn receive(link: &ToDaemon) -> Result<(Start, Vec<OwnedFd>)> {
    link.wait(None)?;
    match link.receive()? {
        (ToWorker::Start(start), files) => Ok((*start, files)),
        (other, _) => bail!("the first message is not Start, but {other:?}"),
    }
}
