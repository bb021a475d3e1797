//! Machines whose emulator is killed, as if the plug were pulled, and which start again with the same disk.

use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, ensure};
use runner::cases::Case;
use runner::files::RunFiles;
use runner::machine::{self, Bus, Machine};
use runner::session::{End, Outcome};
use runner::tether::{self, AtDeath};

/// What the parent's console says for each file that a child has been told to be on its disk; a number follows.
pub const LINE: &str = "synced:";

/// A copy of the children's disk that outlives the machines. It is gone when this is dropped.
pub struct Disk(PathBuf);

impl Disk {
    /// Copies `image` to a file beside the directory of the machine's files.
    pub fn copy(image: &Path, files: &RunFiles) -> Result<Self> {
        let parent = files
            .directory()
            .parent()
            .context("a directory for tests")?;
        let disk = Self(parent.join(format!("pulled-{}.img", std::process::id())));
        // Most of it is holes, which no other copy keeps everywhere.
        let status = tether::command("cp", AtDeath::Kill)
            .args(["--sparse=always", "--reflink=auto"])
            .args([image, &disk.0])
            .status()?;
        ensure!(status.success(), "copying {}: {status}", image.display());
        Ok(disk)
    }

    /// In place of the disk that keeps nothing.
    pub fn put_into(&self, machine: &mut Machine) {
        machine.disks.retain(|disk| !disk.is_volatile);
        let disk = machine::Disk::new(self.0.clone(), Bus::Virtio);
        machine.disks.push(disk);
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

/// The row for one start.
pub fn case(case: &Case, synced: u32, is_last: bool) -> Case {
    let mut case = case.clone();
    case.args.push_str(&format!(" {synced}"));
    if is_last {
        case.args.push_str(" end");
    }
    case
}

/// Up to ten seconds, by the clock's last digits.
pub fn chance() -> Duration {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    let nanoseconds = now.map_or(0, |now| now.subsec_nanos());
    Duration::from_millis(u64::from(nanoseconds / 1000 % 10_000))
}

/// What speaks against a start that was to end by a pull, and how many files were synced by then.
pub fn judge(outcome: &Outcome, before: u32) -> (Option<String>, u32) {
    let lines = outcome.parent.split_inclusive('\n');
    // One that is cut short may have lost digits.
    let whole = lines.filter_map(|line| line.strip_suffix('\n'));
    let numbers = whole.filter_map(|line| {
        let (_, number) = line.rsplit_once(LINE)?;
        number.trim().parse().ok()
    });
    let last = numbers.max().unwrap_or(before);
    let bad = outcome
        .parent
        .lines()
        .find(|line| line.starts_with("not ok"));
    let complaint = match (bad, outcome.end) {
        (Some(bad), _) => Some(bad.trim().to_owned()),
        (None, End::StopLine) if last > before => None,
        (None, end) => Some(format!("{end:?} before a file was synced")),
    };
    (complaint, last)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outcome(end: End, parent: &str) -> Outcome {
        Outcome {
            end,
            resets: 0,
            parent: parent.to_owned(),
            hypervisor: String::new(),
            emulator: String::new(),
            elapsed: Duration::ZERO,
        }
    }

    #[test]
    fn what_was_synced_is_what_whole_lines_say() {
        let console = "ok 1 - a\r\nsynced:9\r\nsynced:10\r\nsynced:11";
        assert_eq!(judge(&outcome(End::StopLine, console), 8), (None, 10));
        for (end, console) in [
            (End::StopLine, "not ok 1 - a\nsynced:9\n"),
            (End::TimedOut, "ok 1 - a\nsynced:9\n"),
            (End::StopLine, "synced:8\n"),
        ] {
            assert!(judge(&outcome(end, console), 8).0.is_some(), "{console}");
        }
    }
}
