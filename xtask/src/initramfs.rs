//! The parent's initial file system: busybox, `vgstat`, `tests/initramfs/`, and kernel modules.

use std::collections::BTreeSet;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::build;
use crate::setup::debian::Kernel;
use crate::workspace::Workspace;

pub mod cpio;
pub mod modules;
mod programs;
pub mod tools;

use cpio::Archive;

/// What the tests need of the kernel's modules; those a flavour lacks are left out. Dependencies follow by themselves.
const MODULES: &[&str] = &[
    "ahci",
    "ata_generic",
    "ata_piix",
    "e1000",
    "e1000e",
    "ext4",
    "nls_ascii",
    "nls_cp437",
    "nls_iso8859_1",
    "nls_utf8",
    "nvme",
    "sd_mod",
    "sr_mod",
    "vfat",
    "virtio_blk",
    "virtio_net",
    "virtio_pci",
    "hv_utils",
    "hv_balloon",
    "hv_netvsc",
    "hv_storvsc",
    "msr",
    "cpuid",
    "af_packet",
    "rtc_cmos",
    "crc32c_generic",
    "xhci_pci",
    "usb_storage",
    "usbhid",
    "i6300esb",
    "loop",
    "overlay",
    "uio",
    "uio_hv_generic",
];

/// The initial file system for `kernel`, compressed. Kept in the target directory until one of its parts changes.
pub fn obtain(workspace: &Workspace, kernel: &Kernel, busybox: &Path) -> Result<PathBuf> {
    let scripts = workspace.root().join("tests/initramfs");
    let vgstat = build::vgstat(workspace)?;
    let sources = [&*scripts, busybox, &vgstat, &std::env::current_exe()?];
    keep(workspace, &kernel.release, &sources, || {
        archive(kernel, busybox, &vgstat, &scripts)
    })
}

/// `plain`, followed by the programs of `tree`, a hostile worker and a hostile child: Linux unpacks one archive after the
/// other.
pub fn obtain_with_tools(workspace: &Workspace, plain: &Path, tree: &Path) -> Result<PathBuf> {
    let own = [
        build::hostile_worker(workspace)?,
        build::garbage_child(workspace)?,
    ];
    let sources = [tree, &own[0], &own[1], &std::env::current_exe()?];
    let tools = keep(workspace, "tools", &sources, || tools::build(tree, &own))?;
    join(workspace, plain, &tools, &joined_name(plain, "tools"))
}

/// `plain`, followed by the programs that make children, which are built here.
pub fn obtain_with_programs(workspace: &Workspace, plain: &Path) -> Result<PathBuf> {
    let built = build::parent_programs(workspace)?;
    let units = workspace.root().join("dist/systemd");
    let executable = std::env::current_exe()?;
    let mut sources: Vec<&Path> = built.iter().map(|program| &**program).collect();
    sources.extend([&*units, &executable]);
    let programs = keep(workspace, "programs", &sources, || {
        programs::build(&built, &units)
    })?;
    join(workspace, plain, &programs, &joined_name(plain, "programs"))
}

fn joined_name(first: &Path, second: &str) -> String {
    let name = first.file_name().unwrap_or_default().to_string_lossy();
    format!("{}-{second}", name.trim_end_matches(".cpio.gz"))
}

/// One file with both archives, named `name` and kept beside them.
fn join(workspace: &Workspace, first: &Path, second: &Path, name: &str) -> Result<PathBuf> {
    let mut both = fs::read(first)?;
    both.resize(both.len().next_multiple_of(4), 0);
    both.extend(fs::read(second)?);
    let directory = directory(workspace)?;
    let place = directory.join(format!("{name}.cpio.gz"));
    let mut partial = tempfile::NamedTempFile::new_in(&directory)?;
    partial.write_all(&both)?;
    partial.persist(&place)?;
    Ok(place)
}

fn directory(workspace: &Workspace) -> Result<PathBuf> {
    let directory = workspace.target().join("initramfs");
    fs::create_dir_all(&directory)?;
    Ok(directory)
}

/// Makes and compresses an archive, unless there is one that is newer than its sources.
pub fn keep(
    workspace: &Workspace,
    name: &str,
    sources: &[&Path],
    make: impl FnOnce() -> Result<Vec<u8>>,
) -> Result<PathBuf> {
    let directory = directory(workspace)?;
    let place = directory.join(format!("{name}.cpio.gz"));
    if is_newer_than_all(&place, sources) {
        return Ok(place);
    }
    let partial = tempfile::NamedTempFile::new_in(&directory)?;
    // Level 1: the emulated processor inflates it, and it is small anyway.
    let mut encoder = flate2::write::GzEncoder::new(&partial, flate2::Compression::fast());
    encoder.write_all(&make()?)?;
    encoder.finish()?;
    partial.persist(&place)?;
    Ok(place)
}

/// Whether `place` was made after the last change of all `sources`, and of what lies directly in those that are
/// directories.
pub fn is_newer_than_all(place: &Path, sources: &[&Path]) -> bool {
    let time = |path: &Path| fs::metadata(path).and_then(|data| data.modified()).ok();
    let Some(made) = time(place) else {
        return false;
    };
    sources.iter().all(|source| {
        let below = fs::read_dir(source).into_iter().flatten().flatten();
        let newest = below.filter_map(|entry| time(&entry.path())).max();
        time(source)
            .max(newest)
            .is_some_and(|changed| changed <= made)
    })
}

fn archive(kernel: &Kernel, busybox: &Path, vgstat: &Path, scripts: &Path) -> Result<Vec<u8>> {
    let mut archive = Archive::new();
    for directory in [
        "bin", "dev", "etc", "lib", "mnt", "proc", "root", "run", "sbin", "sys", "tests", "tmp",
        "usr", "usr/bin", "usr/sbin",
    ] {
        archive.directory(directory);
    }
    archive.device("dev/console", 5, 1);
    archive.file("bin/busybox", 0o755, &fs::read(busybox)?);
    archive.symlink("bin/sh", "busybox");
    archive.file("usr/bin/vgstat", 0o755, &fs::read(vgstat)?);
    archive.symlink("lib64", "lib");
    add_scripts(&mut archive, scripts)?;

    modules::add(&mut archive, kernel, MODULES)?;
    Ok(archive.finish())
}

/// `init` goes to the root, everything else to `/tests`.
pub fn add_scripts(archive: &mut Archive, scripts: &Path) -> Result<()> {
    let mut names = BTreeSet::new();
    for entry in fs::read_dir(scripts).with_context(|| format!("reading {}", scripts.display()))? {
        names.insert(entry?.path());
    }
    for path in names {
        let name = path
            .file_name()
            .context("a file has a name")?
            .to_string_lossy()
            .into_owned();
        let place = match &*name {
            "init" => name,
            _ => format!("tests/{name}"),
        };
        archive.file(&place, 0o755, &fs::read(&path)?);
    }
    Ok(())
}
