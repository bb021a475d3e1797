//! Root file systems of children, made of Debian packages that were unpacked and never installed: what their
//! maintainers' scripts would have set up is set up here, as far as a small system needs it.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use super::name;
use crate::ext4::{E2fsprogs, Edits};
use crate::initramfs::is_newer_than_all;
use crate::setup::debian::{self, ChildKernel};
use crate::workspace::Workspace;

/// With room for the tests' files.
const SIZE: &str = "512M";
const LABEL: &str = "root";

/// The file name of the root file system that goes with `kernel`; each has one of its own, to be written to.
pub fn file_name(kernel: ChildKernel) -> String {
    format!("{}.img", name(kernel))
}

/// The image of that file system, in `directory`.
pub fn obtain(workspace: &Workspace, directory: &Path, kernel: ChildKernel) -> Result<PathBuf> {
    let tree = match kernel {
        ChildKernel::Pae6_1 => debian::child_root_i386()?,
        ChildKernel::Cloud | ChildKernel::Cloud6_1 => debian::child_root()?,
    };
    let image = directory.join(file_name(kernel));
    // The program that runs now stands for this file.
    let sources = [&*tree, &std::env::current_exe()?];
    if is_newer_than_all(&image, &sources) {
        return Ok(image);
    }
    let e2fsprogs = E2fsprogs::new(debian::e2fsprogs()?);
    let partial = tempfile::tempdir_in(workspace.target())?;
    let made = partial.path().join("root.img");
    e2fsprogs.make(&tree, &made, LABEL, SIZE)?;
    let mut edits = Edits::new()?;
    if fs::metadata(&tree)?.uid() != 0 {
        edits.own_all(&tree)?;
    }
    configure(&tree, &mut edits)?;
    e2fsprogs.edit(&made, &edits)?;
    fs::rename(&made, &image)?;
    Ok(image)
}

/// Groups that udev's rules and systemd name, which packages make when they are installed.
const GROUPS: [&str; 7] = [
    "input",
    "kvm",
    "render",
    "sgx",
    "systemd-journal",
    "systemd-network",
    "messagebus",
];

/// Anybody may log in as root on the console; there is no other way in.
const PAM: [(&str, &str); 5] = [
    ("common-auth", "auth required pam_permit.so\n"),
    ("common-account", "account required pam_permit.so\n"),
    ("common-password", "password required pam_permit.so\n"),
    ("common-session", "session required pam_unix.so\n"),
    (
        "common-session-noninteractive",
        "session required pam_unix.so\n",
    ),
];

/// Units that would complain: there is no cache of libraries, and the module of automatic mounts is not in the root.
const MASKED: [&str; 2] = ["ldconfig.service", "proc-sys-fs-binfmt_misc.automount"];

const LOGIN: &str = "[Service]\nExecStart=\nExecStart=-/usr/sbin/agetty --autologin root --noclear \
    --keep-baud 115200,57600,38400,9600 - vt220\n";

fn configure(tree: &Path, edits: &mut Edits) -> Result<()> {
    let master = |name: &str| {
        let path = tree.join(format!("usr/share/base-passwd/{name}.master"));
        fs::read_to_string(&path).with_context(|| format!("reading {}", path.display()))
    };
    let mut group = master("group")?;
    for (number, name) in GROUPS.iter().enumerate() {
        group.push_str(&format!("{name}:x:{}:\n", 900 + number));
    }
    // The second field of a line in passwd.master is `*`, which would lock the account.
    let passwd = master("passwd")?.replacen("root:*:", "root::", 1);
    edits.file("/etc/passwd", 0o644, &passwd)?;
    edits.file("/etc/group", 0o644, &group)?;
    edits.file("/etc/hostname", 0o644, "child\n")?;
    edits.file("/etc/fstab", 0o644, "LABEL=root / ext4 defaults 0 0\n")?;
    // Empty: each boot has one of its own, and none is the first, which would ask questions.
    edits.file("/etc/machine-id", 0o444, "")?;
    // Links that packages make when they are installed.
    for (name, target) in [("sh", "busybox"), ("awk", "mawk")] {
        if fs::symlink_metadata(tree.join("usr/bin").join(name)).is_err() {
            edits.symlink(&format!("/usr/bin/{name}"), target)?;
        }
    }
    if !tree.join("usr/lib/systemd/systemd").exists() {
        return Ok(());
    }
    // Newer than /usr: there is nothing to be brought up to date at boot.
    edits.file("/etc/.updated", 0o644, "")?;
    edits.file("/var/.updated", 0o644, "")?;
    for (name, content) in PAM {
        edits.file(&format!("/etc/pam.d/{name}"), 0o644, content)?;
    }
    for unit in MASKED {
        edits.symlink(&format!("/etc/systemd/system/{unit}"), "/dev/null")?;
    }
    let getty = "/etc/systemd/system/serial-getty@.service.d";
    edits.directory(getty);
    edits.file(&format!("{getty}/console.conf"), 0o644, LOGIN)
}
