//! Builds the library that mends Bochs' 64-bit division (`src/tools/bochs_idiv` says what is wrong with it).

use std::path::PathBuf;

use anyhow::{Result, ensure};

use crate::workspace::Workspace;

/// The shared library, built when it is not up to date.
pub fn obtain() -> Result<PathBuf> {
    let workspace = Workspace::find()?;
    workspace.cargo_build(&["--package", "bochs_idiv", "--lib"], &[])?;
    let library = workspace.target().join("release/libbochs_idiv.so");
    ensure!(library.exists(), "{} was not built", library.display());
    Ok(library)
}
