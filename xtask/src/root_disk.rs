//! A root file system on a partition of its own, as Debian's installer makes it: kernel, initial file system and
//! GRUB's menu lie in it, and the EFI system partition only holds what leads there.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::disk_image::Entry;
use crate::ext4::E2fsprogs;
use crate::setup::debian;
use crate::workspace::Workspace;

/// The file system's label; `root=LABEL=debian` on the kernel's command line names it.
const LABEL: &str = "debian";
const SIZE: &str = "128M";
/// Where [`crate::boot_disk`] puts GRUB's menu on the system partition.
const MENU: &str = "EFI/debian/grub.cfg";
/// What Debian's `grub-install` writes there instead, but by label: it leads to the menu on the root file system.
const LEADS_TO_MENU: &str = "search --no-floppy --label --set=root debian\n\
    set prefix=($root)/boot/grub\nconfigfile $prefix/grub.cfg\n";

/// What the file system is made of.
#[derive(Debug)]
pub struct Parts {
    busybox: PathBuf,
    e2fsprogs: E2fsprogs,
    init: PathBuf,
    tap: PathBuf,
}

impl Parts {
    /// Obtains them.
    pub fn obtain(workspace: &Workspace) -> Result<Self> {
        let tests = workspace.root().join("tests");
        Ok(Self {
            busybox: debian::busybox()?,
            e2fsprogs: E2fsprogs::new(debian::e2fsprogs()?),
            init: tests.join("root/init"),
            tap: tests.join("initramfs/tap"),
        })
    }

    /// Takes menu, kernel and initial file system out of `entries`, the files of a system partition with GRUB, and
    /// makes a root file system with them below `directory`.
    pub fn make(&self, directory: &Path, entries: &mut Vec<Entry>) -> Result<PathBuf> {
        let tree = tempfile::tempdir_in(directory)?;
        for place in [
            "bin",
            "boot/grub",
            "dev",
            "proc",
            "sbin",
            "sys",
            "tests",
            "tmp",
            "usr/bin",
            "usr/sbin",
            "var",
        ] {
            fs::create_dir_all(tree.path().join(place))?;
        }
        let program = |source: &Path, place: &str| -> Result<()> {
            let place = tree.path().join(place);
            fs::copy(source, &place).with_context(|| format!("reading {}", source.display()))?;
            fs::set_permissions(&place, fs::Permissions::from_mode(0o755))?;
            Ok(())
        };
        program(&self.busybox, "bin/busybox")?;
        program(&self.init, "sbin/init")?;
        program(&self.tap, "tests/tap")?;
        std::os::unix::fs::symlink("busybox", tree.path().join("bin/sh"))?;
        for (path, place) in [
            (MENU, "boot/grub/grub.cfg"),
            ("vmlinuz", "vmlinuz"),
            ("initrd.img", "initrd.img"),
        ] {
            let index = entries.iter().position(|entry| entry.path() == path);
            let mut entry =
                entries.remove(index.with_context(|| format!("GRUB's disk has no {path}"))?);
            fs::write(tree.path().join(place), entry.content_mut())?;
        }
        entries.push(Entry::new(MENU, LEADS_TO_MENU));
        let image = directory.join("root.img");
        let _ = fs::remove_file(&image);
        self.e2fsprogs.make(tree.path(), &image, LABEL, SIZE)?;
        Ok(image)
    }
}
