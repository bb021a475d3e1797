//! A child's initial file system: busybox, `tests/child/`, and the modules that lead to a root file system.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Result;

use crate::initramfs::cpio::Archive;
use crate::initramfs::{add_scripts, keep, modules};
use crate::setup::debian::{self, ChildKernel, Kernel};
use crate::workspace::Workspace;

/// VMBus is built into some kernels and a module of others. The disks of QEMU's own are there so that an image can be
/// tried without a hypervisor.
const MODULES: &[&str] = &[
    "hv_vmbus",
    "hv_storvsc",
    "hv_utils",
    "sd_mod",
    "sr_mod",
    "ext4",
    "isofs",
    "crc32c_generic",
    "virtio_blk",
    "virtio_pci",
    "ata_piix",
];

/// The initial file system for a child with `kernel`, compressed.
pub fn obtain(workspace: &Workspace, kind: ChildKernel, kernel: &Kernel) -> Result<PathBuf> {
    let busybox = match kind {
        ChildKernel::Pae6_1 => debian::child_root_i386()?.join("usr/bin/busybox"),
        ChildKernel::Cloud | ChildKernel::Cloud6_1 => debian::busybox()?,
    };
    let scripts = workspace.root().join("tests/child");
    let tap = workspace.root().join("tests/initramfs/tap");
    let sources = [&*scripts, &tap, &busybox, &std::env::current_exe()?];
    keep(
        workspace,
        &format!("child-{}", kernel.release),
        &sources,
        || archive(kernel, &busybox, &scripts, &tap),
    )
}

fn archive(kernel: &Kernel, busybox: &Path, scripts: &Path, tap: &Path) -> Result<Vec<u8>> {
    let mut archive = Archive::new();
    for directory in [
        "bin", "dev", "lib", "mnt", "proc", "root", "run", "sbin", "sys", "tests", "tmp", "usr",
        "usr/bin", "usr/sbin",
    ] {
        archive.directory(directory);
    }
    archive.device("dev/console", 5, 1);
    archive.file("bin/busybox", 0o755, &fs::read(busybox)?);
    archive.symlink("bin/sh", "busybox");
    archive.file("tests/tap", 0o755, &fs::read(tap)?);
    add_scripts(&mut archive, scripts)?;
    modules::add(&mut archive, kernel, MODULES)?;
    Ok(archive.finish())
}
