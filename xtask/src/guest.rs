//! Debian as a guest: kernel, initial file system, command line.

use anyhow::Result;

use crate::boot_disk::Guest;
use crate::initramfs;
use crate::setup::debian::{self, Flavour};
use crate::workspace::Workspace;

/// Debian's kernel of this flavour with the tests' initial file system. `arguments` follow the usual ones.
pub fn debian(workspace: &Workspace, flavour: Flavour, arguments: &str) -> Result<Guest> {
    let kernel = debian::kernel(flavour)?;
    let initrd = initramfs::obtain(workspace, &kernel, &debian::busybox()?)?;
    let command_line = format!("console=ttyS0,115200 panic=-1 {arguments}");
    Ok(Guest::Linux {
        kernel: kernel.image,
        initrd,
        command_line: command_line.trim_end().to_owned(),
    })
}
