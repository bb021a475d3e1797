//! The parent's disk that carries what children boot.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use super::{initramfs, name, root};
use crate::ext4::E2fsprogs;
use crate::initramfs::is_newer_than_all;
use crate::initramfs::tools;
use crate::setup::debian::{self, ChildKernel};
use crate::workspace::Workspace;

/// The parent finds the disk by this.
const LABEL: &str = "children";
/// With room for more images; most of it is a hole. A whole number of cylinders of 16 heads and 63 sectors: what lies
/// beyond the last one is lost on an IDE disk of Bochs.
const SIZE: &str = "2520000K";
/// Programs for the parent, and where they are in their packages.
const TOOLS: [&str; 1] = ["usr/bin/qemu-img"];

/// The disk with `kernels`, their root file systems and the tools; made anew when a part of it is newer.
pub fn obtain(workspace: &Workspace, kernels: &BTreeSet<ChildKernel>) -> Result<PathBuf> {
    let directory = workspace.target().join("children");
    fs::create_dir_all(&directory)?;
    // A path that two packages have is the same library of the same suite.
    let mut files = BTreeMap::new();
    for &kind in kernels {
        let kernel = debian::child_kernel(kind)?;
        let initrd = initramfs::obtain(workspace, kind, &kernel)?;
        let image = root::obtain(workspace, &directory, kind)?;
        let place = format!("kernels/{}", name(kind));
        files.insert(format!("{place}/vmlinuz"), kernel.image);
        files.insert(format!("{place}/initrd.img"), initrd);
        files.insert(format!("images/{}", root::file_name(kind)), image);
    }
    let e2fsprogs = debian::e2fsprogs()?;
    for (tree, programs) in [
        (debian::qemu_utils()?, &TOOLS[..]),
        (e2fsprogs.clone(), &["usr/sbin/e2fsck"][..]),
    ] {
        files.extend(tools::files(&tree, programs)?);
    }

    let names: Vec<&str> = kernels.iter().map(|&kernel| name(kernel)).collect();
    let place = directory.join(format!("disk-{}.img", names.join("-")));
    let executable = std::env::current_exe()?;
    let mut sources: Vec<&Path> = files.values().map(|source| &**source).collect();
    sources.push(&executable);
    if is_newer_than_all(&place, &sources) {
        return Ok(place);
    }
    let partial = tempfile::tempdir_in(&directory)?;
    let tree = partial.path().join("tree");
    for (path, source) in &files {
        let place = tree.join(path);
        fs::create_dir_all(place.parent().context("a file lies in a directory")?)?;
        let copied = fs::canonicalize(source).and_then(|source| {
            // A link where both are on one file system: images are large.
            fs::hard_link(&source, &place).or_else(|_| fs::copy(&source, &place).map(|_| ()))
        });
        copied.with_context(|| format!("copying {}", source.display()))?;
    }
    let made = partial.path().join("disk.img");
    E2fsprogs::new(e2fsprogs).make(&tree, &made, LABEL, SIZE)?;
    fs::rename(&made, &place)?;
    Ok(place)
}
