//! Debian's kernels, and the programs of the parent's initial file system.

use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result};
use clap::ValueEnum;

use super::Thing;

/// The flavours of Debian's kernel that the tests know.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
pub enum Flavour {
    /// `linux-image-cloud-amd64`: few drivers, quickly fetched.
    Cloud,
    /// `linux-image-amd64`: all drivers.
    Generic,
}

const SUITES: &[&str] = &["trixie", "trixie-backports"];

const CLOUD: Thing = Thing {
    name: "linux-cloud",
    suites: SUITES,
    release: "trixie-backports",
    packages: &["linux-image-cloud-amd64"],
    keep: |package| is_kernel_part(&package.name),
    versioned_by: |package| package.name == "linux-image-cloud-amd64",
};

const GENERIC: Thing = Thing {
    name: "linux-generic",
    suites: SUITES,
    release: "trixie-backports",
    packages: &["linux-image-amd64"],
    keep: |package| is_kernel_part(&package.name),
    versioned_by: |package| package.name == "linux-image-amd64",
};

const BUSYBOX: Thing = Thing {
    name: "busybox",
    suites: SUITES,
    release: "trixie-backports",
    packages: &["busybox-static"],
    keep: |package| package.name == "busybox-static",
    versioned_by: |package| package.name == "busybox-static",
};

const GRUB: Thing = Thing {
    name: "grub",
    suites: SUITES,
    release: "trixie",
    packages: &["grub-efi-amd64-signed"],
    keep: |package| package.name == "grub-efi-amd64-signed",
    versioned_by: |package| package.name == "grub-efi-amd64-signed",
};

/// What makes a root file system out of a directory.
const E2FSPROGS: Thing = Thing {
    name: "e2fsprogs",
    suites: SUITES,
    release: "trixie",
    packages: &["e2fsprogs"],
    keep: |_| true,
    versioned_by: |package| package.name == "e2fsprogs",
};

/// Programs of the heavier tests, with the libraries they need.
const TOOLS: Thing = Thing {
    name: "tools",
    suites: SUITES,
    release: "trixie",
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
    versioned_by: |package| package.name == "stress-ng",
};

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
    let tree = match flavour {
        Flavour::Cloud => CLOUD.obtain()?,
        Flavour::Generic => GENERIC.obtain()?,
    };
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
