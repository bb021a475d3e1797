//! Debian's kernels, and the programs of the parent's initial file system.

use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result};
use clap::ValueEnum;

use super::{AMD64, Thing};

/// The flavours of Debian's kernel that the tests know.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
pub enum Flavour {
    /// `linux-image-cloud-amd64`: few drivers, quickly fetched.
    Cloud,
    /// `linux-image-amd64`: all drivers.
    Generic,
}

/// The kernels that children boot.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum ChildKernel {
    /// The parent's cloud kernel.
    Cloud,
    /// Debian 12's cloud kernel.
    Cloud6_1,
    /// Debian 12's 32-bit kernel with PAE, which has VMBus as a module.
    Pae6_1,
}

impl ChildKernel {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Cloud, Self::Cloud6_1, Self::Pae6_1];
}

const SUITES: &[&str] = &["trixie", "trixie-backports"];

/// What most things have in common.
const DEFAULTS: Thing = Thing {
    name: "",
    architecture: AMD64,
    suites: SUITES,
    release: "trixie",
    packages: &[],
    keep: |_| true,
    versioned_by: "",
    leave_out: &[],
};

const CLOUD: Thing = Thing {
    name: "linux-cloud",
    release: "trixie-backports",
    packages: &["linux-image-cloud-amd64"],
    keep: |package| is_kernel_part(&package.name),
    versioned_by: "linux-image-cloud-amd64",
    ..DEFAULTS
};

const GENERIC: Thing = Thing {
    name: "linux-generic",
    release: "trixie-backports",
    packages: &["linux-image-amd64"],
    keep: |package| is_kernel_part(&package.name),
    versioned_by: "linux-image-amd64",
    ..DEFAULTS
};

const CLOUD_6_1: Thing = Thing {
    name: "linux-cloud-bookworm",
    suites: &["bookworm"],
    release: "bookworm",
    packages: &["linux-image-cloud-amd64"],
    keep: |package| is_kernel_part(&package.name),
    versioned_by: "linux-image-cloud-amd64",
    ..DEFAULTS
};

const PAE_6_1: Thing = Thing {
    name: "linux-pae-bookworm",
    architecture: I386,
    suites: &["bookworm"],
    release: "bookworm",
    packages: &["linux-image-686-pae"],
    keep: |package| is_kernel_part(&package.name),
    versioned_by: "linux-image-686-pae",
    ..DEFAULTS
};

const BUSYBOX: Thing = Thing {
    name: "busybox",
    release: "trixie-backports",
    packages: &["busybox-static"],
    keep: |package| package.name == "busybox-static",
    versioned_by: "busybox-static",
    ..DEFAULTS
};

const GRUB: Thing = Thing {
    name: "grub",
    packages: &["grub-efi-amd64-signed"],
    keep: |package| package.name == "grub-efi-amd64-signed",
    versioned_by: "grub-efi-amd64-signed",
    ..DEFAULTS
};

/// What makes a root file system out of a directory.
const E2FSPROGS: Thing = Thing {
    name: "e2fsprogs",
    packages: &["e2fsprogs"],
    versioned_by: "e2fsprogs",
    ..DEFAULTS
};

/// What makes and checks disk images.
const QEMU_UTILS: Thing = Thing {
    name: "qemu-utils",
    packages: &["qemu-utils"],
    versioned_by: "qemu-utils",
    leave_out: DOCUMENTATION,
    ..DEFAULTS
};

/// Programs of the heavier tests, with the libraries they need.
const TOOLS: Thing = Thing {
    name: "tools",
    packages: &["kexec-tools", "stress-ng"],
    keep: |package| {
        // Graphics drivers that are loaded on demand, and the package manager: large, and never reached.
        ![
            "mesa-libgallium",
            "libllvm",
            "libz3",
            "dpkg",
            "tar",
            "debconf",
        ]
        .iter()
        .any(|prefix| package.name.starts_with(prefix))
    },
    versioned_by: "stress-ng",
    ..DEFAULTS
};

/// The root file system of a child: a small Debian with systemd, and the programs that the tests run in it.
const ROOT: Thing = Thing {
    name: "child-root",
    packages: &[
        "base-files",
        "base-passwd",
        "bash",
        "busybox-static",
        "coreutils",
        "dash",
        "debianutils",
        "diffutils",
        "e2fsprogs",
        "findutils",
        "fio",
        "grep",
        "gzip",
        "hostname",
        "iproute2",
        "kmod",
        "less",
        "libpam-modules",
        "libpam-runtime",
        "login",
        "mawk",
        "mount",
        "ncurses-base",
        "ncurses-bin",
        "passwd",
        "procps",
        "sed",
        "systemd-sysv",
        "udev",
        "util-linux",
    ],
    versioned_by: "base-files",
    leave_out: DOCUMENTATION,
    ..DEFAULTS
};

/// The same for a 32-bit kernel, with busybox and little else.
const ROOT_I386: Thing = Thing {
    name: "child-root-i386",
    architecture: I386,
    suites: &["bookworm"],
    release: "bookworm",
    packages: &["base-files", "base-passwd", "busybox-static", "fio"],
    keep: |package| {
        // Storage that fio can reach over networks, and what configures packages: large, and never reached.
        ![
            "perl", "libperl", "dpkg", "debconf", "tar", "systemd", "udev",
        ]
        .iter()
        .any(|prefix| package.name.starts_with(prefix))
    },
    versioned_by: "base-files",
    leave_out: DOCUMENTATION,
};

const I386: &str = "i386";

const DOCUMENTATION: &[&str] = &[
    "usr/share/doc",
    "usr/share/info",
    "usr/share/locale",
    "usr/share/man",
];

/// The image is in `linux-binary-*` and the modules in `linux-modules-*` since 6.19; older kernels have
/// both in `linux-image-VERSION`.
fn is_kernel_part(name: &str) -> bool {
    ["linux-binary-", "linux-modules-", "linux-image-"]
        .iter()
        .any(|prefix| name.starts_with(prefix))
}

/// One of Debian's kernels, unpacked.
#[derive(Debug, Clone)]
pub struct Kernel {
    /// The release as `uname -r` gives it.
    pub release: String,
    /// The bootable image, which is an EFI program too.
    pub image: PathBuf,
    /// The directory of its modules.
    pub modules: PathBuf,
}

/// Debian's kernel of this flavour.
pub fn kernel(flavour: Flavour) -> Result<Kernel> {
    kernel_of(match flavour {
        Flavour::Cloud => &CLOUD,
        Flavour::Generic => &GENERIC,
    })
}

/// The same for a child.
pub fn child_kernel(kernel: ChildKernel) -> Result<Kernel> {
    kernel_of(match kernel {
        ChildKernel::Cloud => &CLOUD,
        ChildKernel::Cloud6_1 => &CLOUD_6_1,
        ChildKernel::Pae6_1 => &PAE_6_1,
    })
}

fn kernel_of(thing: &Thing) -> Result<Kernel> {
    let tree = thing.obtain()?;
    let all_modules = tree.join("usr/lib/modules");
    let modules = fs::read_dir(&all_modules)
        .with_context(|| format!("reading {}", all_modules.display()))?
        .next()
        .context("the kernel packages hold no modules")??
        .path();
    let release = modules
        .file_name()
        .context("a directory has a name")?
        .to_string_lossy()
        .into_owned();
    let image = [
        modules.join("vmlinuz"),
        tree.join(format!("boot/vmlinuz-{release}")),
    ]
    .into_iter()
    .find(|image| image.exists())
    .context("the kernel packages hold no image")?;
    Ok(Kernel {
        release,
        image,
        modules,
    })
}

/// The statically linked busybox of the parent's initial file system.
pub fn busybox() -> Result<PathBuf> {
    let tree = BUSYBOX.obtain()?;
    Ok(tree.join("usr/bin/busybox"))
}

/// The unpacked tree of `kexec` and `stress-ng` with their libraries.
pub fn tools() -> Result<PathBuf> {
    TOOLS.obtain()
}

/// GRUB as Debian installs it: it reads `EFI/debian/grub.cfg` of the volume that it comes from.
pub fn grub() -> Result<PathBuf> {
    let tree = GRUB.obtain()?;
    Ok(tree.join("usr/lib/grub/x86_64-efi-signed/grubx64.efi.signed"))
}

/// The unpacked tree of `mke2fs` with its libraries.
pub fn e2fsprogs() -> Result<PathBuf> {
    E2FSPROGS.obtain()
}

/// The unpacked tree of `qemu-img` with its libraries.
pub fn qemu_utils() -> Result<PathBuf> {
    QEMU_UTILS.obtain()
}

/// The unpacked root file system for children with a kernel of 64 bits.
pub fn child_root() -> Result<PathBuf> {
    ROOT.obtain()
}

/// The unpacked root file system for children with a kernel of 32 bits.
pub fn child_root_i386() -> Result<PathBuf> {
    ROOT_I386.obtain()
}
