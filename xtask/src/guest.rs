//! Debian as a guest: kernel, initial file system, command line.

use anyhow::Result;

use crate::boot_disk::Guest;
use crate::initramfs;
use crate::setup::debian::{self, Flavour};
use crate::workspace::Workspace;

/// Debian's kernel of this flavour with the tests' initial file system. `arguments` follow the usual ones.
pub fn debian(workspace: &Workspace, flavour: Flavour, arguments: &str) -> Result<Guest> {
    make(workspace, flavour, false, arguments)
}

/// The same with `kexec` and `stress-ng` at hand.
pub fn debian_with_tools(workspace: &Workspace, flavour: Flavour) -> Result<Guest> {
    make(workspace, flavour, true, "")
}

fn make(
    workspace: &Workspace,
    flavour: Flavour,
    with_tools: bool,
    arguments: &str,
) -> Result<Guest> {
    let kernel = debian::kernel(flavour)?;
    let mut initrd = initramfs::obtain(workspace, &kernel, &debian::busybox()?)?;
    if with_tools {
        initrd = initramfs::obtain_with_tools(workspace, &initrd, &kernel, &debian::tools()?)?;
    }
    let command_line = format!("console=ttyS0,115200 panic=-1 {arguments}");
    Ok(Guest::Linux {
        kernel: kernel.image,
        initrd,
        command_line: command_line.trim_end().to_owned(),
    })
}
