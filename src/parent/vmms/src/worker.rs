//! Starting and ending a child's worker.

use std::fs;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{
    Pid, PidfdFlags, Signal, WaitId, WaitIdOptions, pidfd_open, pidfd_send_signal, waitid,
};
use worker_link::{FromWorker, Link, LinkError, STOP_VARIABLE, ToWorker, stop_wanted};

/// The daemon's end of the link.
pub type WorkerLink = Link<ToWorker, FromWorker>;

/// How long a killed process may take to be gone: it may be in the middle of a write to a slow disk.
const DEATH: Duration = Duration::from_secs(30);
/// How much rather than others a worker is ended when memory runs out (Linux, proc(5): `oom_score_adj`). Its child's RAM
/// is not what it is weighed by: huge pages do not count.
const OOM_SCORE: &str = "500";
/// Where control groups are.
const CGROUPS: &str = "/sys/fs/cgroup";

/// A worker.
#[derive(Debug)]
pub struct Worker {
    /// Its process, which stays this one's name even if the number is used again.
    pub process: OwnedFd,
    /// Number of its process.
    pub pid: i32,
    /// What is said to it.
    pub link: WorkerLink,
}

/// Starts `program` for child `name`; what it writes to its standard error goes to `errors`.
///
/// # Errors
/// What the system says, with the program's name.
pub fn spawn(program: &Path, name: &str, errors: OwnedFd) -> io::Result<Worker> {
    let pair = WorkerLink::pair().map_err(io::Error::other)?;
    let (link, theirs) = pair;
    let child = Command::new(program)
        .env_clear()
        .envs(stop_wanted().map(|point| (STOP_VARIABLE, point)))
        .current_dir("/")
        .stdin(Stdio::from(theirs.into_socket()))
        .stdout(Stdio::null())
        .stderr(Stdio::from(errors))
        .spawn()
        .map_err(|error| {
            let text = format!("starting the worker {}: {error}", program.display());
            io::Error::new(error.kind(), text)
        })?;
    let pid = Pid::from_child(&child);
    let process = pidfd_open(pid, PidfdFlags::empty())?;
    // When memory runs out, a worker goes before the daemon, whose mark it would have, and before the system.
    let mark = format!("/proc/{}/oom_score_adj", pid.as_raw_nonzero());
    let _ = fs::write(mark, OOM_SCORE);
    // Where there are no control groups, the worker's own confinement keeps it from making others.
    if let Some(group) = group(name) {
        let _ = fs::create_dir(&group);
        let _ = fs::write(group.join("cgroup.procs"), pid.as_raw_nonzero().to_string());
    }
    Ok(Worker {
        process,
        pid: pid.as_raw_nonzero().get(),
        link,
    })
}

/// What a worker has said, at most `most` messages, and whether it has hung up or says what it should not.
pub fn said(link: &WorkerLink, most: usize) -> (Vec<FromWorker>, Option<LinkError>) {
    let mut messages = Vec::new();
    while messages.len() < most {
        match link.receive() {
            // Files that it sent are closed.
            Ok((message, _)) => messages.push(message),
            Err(LinkError::WouldBlock) => break,
            Err(error) => return (messages, Some(error)),
        }
    }
    (messages, None)
}

/// Kills all processes of child `name` and waits until they are gone.
///
/// # Errors
/// `TimedOut` when they are not.
pub fn end(process: &OwnedFd, name: &str) -> io::Result<()> {
    let group = group(name).filter(|group| group.is_dir());
    if let Some(group) = &group {
        let _ = fs::write(group.join("cgroup.kill"), "1");
    }
    match pidfd_send_signal(process, Signal::KILL) {
        Ok(()) | Err(rustix::io::Errno::SRCH) => {}
        Err(error) => return Err(error.into()),
    }
    let mut fds = [PollFd::new(process, PollFlags::IN)];
    let patience = Timespec::try_from(DEATH).map_err(io::Error::other)?;
    if poll(&mut fds, Some(&patience))? == 0 {
        return Err(io::Error::new(
            io::ErrorKind::TimedOut,
            "its worker was killed and is still there: a disk does not answer",
        ));
    }
    // It is nobody's child when it comes from a daemon before this one.
    let _ = waitid(WaitId::PidFd(process.as_fd()), WaitIdOptions::EXITED);
    if let Some(group) = &group {
        // The kernel takes a moment to see that it is empty; a group that stays is used again.
        for _ in 0..50 {
            if fs::remove_dir(group).is_ok() {
                break;
            }
            std::thread::sleep(Duration::from_millis(2));
        }
    }
    Ok(())
}

/// The control group of child `name`, beside the daemon's own or in it.
fn group(name: &str) -> Option<PathBuf> {
    let own = fs::read_to_string("/proc/self/cgroup").ok()?;
    let own = own.lines().find_map(|line| line.strip_prefix("0::/"))?;
    let own = Path::new(CGROUPS).join(own.trim_end());
    let is_there = own.join("cgroup.procs").exists();
    is_there.then(|| own.join(format!("worker-{name}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_worker_that_never_stops_talking_is_heard_in_turns() {
        let (daemon, worker) = WorkerLink::pair().unwrap();
        let text = "a".to_owned();
        for _ in 0..5 {
            let text = text.clone();
            worker.send(&FromWorker::Error { text }, &[]).unwrap();
        }
        let (first, end) = said(&daemon, 3);
        assert_eq!((first.len(), end.is_none()), (3, true));
        assert_eq!(said(&daemon, 3).0.len(), 2);
        worker.send(&FromWorker::Ready, &[]).unwrap();
        drop(worker);
        let (last, end) = said(&daemon, 3);
        assert_eq!(last, [FromWorker::Ready]);
        assert!(matches!(end, Some(LinkError::Closed)));
    }

    #[test]
    fn a_worker_is_ended_and_its_link_closes() {
        let errors = || OwnedFd::from(tempfile::tempfile().unwrap());
        let worker = spawn(Path::new("/bin/cat"), "test-worker-end", errors()).unwrap();
        assert!(worker.pid > 1);
        let mark = fs::read_to_string(format!("/proc/{}/oom_score_adj", worker.pid));
        assert_eq!(mark.unwrap().trim(), OOM_SCORE);
        end(&worker.process, "test-worker-end").unwrap();
        end(&worker.process, "test-worker-end").unwrap();
        let gone = worker.link.receive().map(|_| ());
        assert!(gone.is_err(), "{gone:?}");
        let absent = spawn(Path::new("/nowhere/vmwp"), "x", errors()).unwrap_err();
        assert!(absent.to_string().contains("/nowhere/vmwp"), "{absent}");
    }
}
