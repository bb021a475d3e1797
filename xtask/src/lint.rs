//! `cargo xtask lint`: format, clippy, direction of the layers.

use anyhow::{Result, ensure};

use crate::workspace::Workspace;
use crate::{layers, setup};

/// The packages for bare targets, which a clippy of the host suite leaves out.
const BARE: [(&str, &str); 6] = [
    ("hypervisor", "x86_64-unknown-none"),
    ("boot", "x86_64-unknown-uefi"),
    ("test-parent", "x86_64-unknown-uefi"),
    ("children", "x86_64-unknown-uefi"),
    ("locker", "x86_64-unknown-uefi"),
    ("garbage", "x86_64-unknown-none"),
];

/// Runs all of it. The first thing that is wrong ends it.
pub fn run() -> Result<()> {
    let workspace = Workspace::find()?;
    setup::rust::obtain_targets()?;
    cargo(&workspace, &["fmt", "--all", "--check"])?;
    layers::check(&workspace)?;
    cargo(
        &workspace,
        &["clippy", "--quiet", "--all-targets", "--", "-D", "warnings"],
    )?;
    for (package, target) in BARE {
        cargo(
            &workspace,
            &[
                "clippy",
                "--quiet",
                "--package",
                package,
                "--target",
                target,
                "--",
                "-D",
                "warnings",
            ],
        )?;
    }
    Ok(())
}

fn cargo(workspace: &Workspace, arguments: &[&str]) -> Result<()> {
    let text = arguments.join(" ");
    println!("== cargo {text}");
    let status = workspace.cargo().args(arguments).status()?;
    ensure!(status.success(), "`cargo {text}` failed");
    Ok(())
}
