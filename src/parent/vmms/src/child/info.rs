//! What is told of a child.

use vmms_proto::{ChildInfo, ChildState, DiskInfo};

use super::{Goal, Outcome};
use crate::description::Description;

/// Whether the goal is reached in this state: `None` when it still may be. `end` is how the child ended.
pub fn reached(goal: Goal, state: ChildState, end: &str) -> Option<Outcome> {
    use ChildState as S;
    match (goal, state) {
        (Goal::Running, S::Running) | (Goal::Paused, S::Paused) | (Goal::Stopped, S::Stopped) => {
            Some(Ok(()))
        }
        (Goal::Paused, S::Running) => Some(Err(
            "its worker could not end what was on its way to the disks; it goes on".to_owned(),
        )),
        (Goal::Running | Goal::Paused, S::Stopped | S::Waiting) | (_, S::Stuck) => {
            Some(Err(end.to_owned()))
        }
        _ => None,
    }
}

/// Puts into `info` what `description` says.
pub fn fill(info: &mut ChildInfo, description: &Description) {
    info.vps = description.vps;
    info.memory_bytes = description.memory_bytes;
    info.kernel = description.kernel.display().to_string();
    info.initrd = description
        .initrd
        .as_ref()
        .map(|path| path.display().to_string());
    info.command_line.clone_from(&description.command_line);
    info.restart = description.restart.to_string();
    info.on_crash = description.on_crash.to_string();
    info.autostart = description.autostart;
    let disks = description.disks.iter().zip(0..);
    info.disks = disks
        .map(|(disk, lun)| DiskInfo {
            lun,
            path: disk.path.display().to_string(),
            format: format!("{:?}", disk.format).to_lowercase(),
            read_only: disk.read_only,
            cdrom: disk.cdrom,
        })
        .collect();
}
