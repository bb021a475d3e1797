//! Debian as a guest: kernel, initial file system, command line.

use anyhow::Result;

use crate::boot_disk::Guest;
use crate::initramfs;
use crate::setup::debian::{self, Flavour};
use crate::workspace::Workspace;

/// What the initial file system has besides the usual.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Extras {
    /// `kexec` and `stress-ng`.
    pub tools: bool,
    /// The programs that make children.
    pub programs: bool,
}

/// Debian's kernel of this flavour with the tests' initial file system. `arguments` follow the usual ones.
pub fn debian(
    workspace: &Workspace,
    flavour: Flavour,
    extras: Extras,
    arguments: &str,
) -> Result<Guest> {
    let kernel = debian::kernel(flavour)?;
    let mut initrd = initramfs::obtain(workspace, &kernel, &debian::busybox()?)?;
    if extras.programs {
        initrd = initramfs::obtain_with_programs(workspace, &initrd)?;
    }
    if extras.tools {
        initrd = initramfs::obtain_with_tools(workspace, &initrd, &debian::tools()?)?;
    }
    let command_line = format!("console=ttyS0,115200 panic=-1 {arguments}");
    Ok(Guest::Linux {
        kernel: kernel.image,
        initrd,
        command_line: command_line.trim_end().to_owned(),
    })
}
