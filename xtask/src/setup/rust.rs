//! The compiler's targets.

use std::process::Command;

use anyhow::{Context, Result, ensure};
use runner::tether::{self, AtDeath};

use super::{find_program, say};

/// The hypervisor's target, and the loader's.
pub const TARGETS: [&str; 2] = ["x86_64-unknown-none", "x86_64-unknown-uefi"];

/// Adds the bare targets to the toolchain where they are missing.
pub fn obtain_targets() -> Result<()> {
    let sysroot = Command::new("rustc")
        .args(["--print", "sysroot"])
        .output()
        .context("starting rustc")?;
    let sysroot = String::from_utf8(sysroot.stdout)?;
    let library = std::path::Path::new(sysroot.trim()).join("lib/rustlib");
    let missing: Vec<&str> = TARGETS
        .into_iter()
        .filter(|target| !library.join(target).is_dir())
        .collect();
    if missing.is_empty() {
        return Ok(());
    }
    ensure!(
        find_program("rustup").is_some(),
        "the Rust targets {missing:?} are not installed, and there is no rustup to add them: \
         install rustup (README.md), or a toolchain with these targets"
    );
    say(&format!("adding the Rust targets {}", missing.join(", ")));
    let status = tether::command("rustup", AtDeath::Kill)
        .args(["target", "add"])
        .args(&missing)
        .status()?;
    ensure!(status.success(), "rustup could not add {missing:?}");
    Ok(())
}
