//! What children boot: Debian's kernels, an initial file system for each, and root file systems on disk images.
//!
//! All of it lies on one more disk of the parent, a file system with the label `children`:
//!
//! | path | what |
//! |---|---|
//! | `kernels/NAME/vmlinuz`, `kernels/NAME/initrd.img` | for each of the kernels that the disk was made with |
//! | `images/NAME.img` | a root file system for each, ext4 without a partition table |
//! | `tools/` | `qemu-img` and `e2fsck` for the parent, with their libraries |

mod disk;
mod initramfs;
mod root;

use std::collections::BTreeSet;
use std::path::PathBuf;

use anyhow::{Context, Result};

use crate::setup::debian::ChildKernel;
use crate::workspace::Workspace;

/// The kernel that is called so on that disk and in `tests/cases.toml`.
pub fn named(text: &str) -> Result<ChildKernel> {
    ChildKernel::ALL
        .into_iter()
        .find(|&kernel| name(kernel) == text)
        .with_context(|| {
            let names = ChildKernel::ALL.map(name).join(", ");
            format!("no kernel for children is called `{text}`; there are {names}")
        })
}

/// Its name there.
pub fn name(kernel: ChildKernel) -> &'static str {
    match kernel {
        ChildKernel::Cloud => "cloud",
        ChildKernel::Cloud6_1 => "cloud-6.1",
        ChildKernel::Pae6_1 => "pae-6.1",
    }
}

/// The image of the disk with these kernels, and the root file systems that go with them. Nobody may write to it.
/// Kept in the target directory until one of its parts changes.
pub fn disk(workspace: &Workspace, kernels: &BTreeSet<ChildKernel>) -> Result<PathBuf> {
    disk::obtain(workspace, kernels)
}
