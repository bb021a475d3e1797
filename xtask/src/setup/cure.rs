//! Builds the libraries that mend faults of the emulators (`src/tools` says what is wrong with them).

use std::path::PathBuf;

use anyhow::{Result, ensure};

use crate::workspace::Workspace;

/// The library to preload into Bochs, built when it is not up to date.
pub fn of_bochs() -> Result<PathBuf> {
    build("bochs_idiv")
}

/// The library to preload into QEMU, built when it is not up to date.
pub fn of_qemu() -> Result<PathBuf> {
    build("qemu_ignne")
}

fn build(package: &str) -> Result<PathBuf> {
    let workspace = Workspace::find()?;
    workspace.cargo_build(&["--package", package, "--lib"], &[])?;
    let library = workspace.target().join(format!("release/lib{package}.so"));
    ensure!(library.exists(), "{} was not built", library.display());
    Ok(library)
}
