//! The third initial file system: the programs of the parent that make children.

use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result};

use super::cpio::Archive;

/// The archive of `programs`, which lie in `/usr/bin` under their own names.
pub fn build(programs: &[PathBuf]) -> Result<Vec<u8>> {
    let mut archive = Archive::new();
    for program in programs {
        let name = program
            .file_name()
            .context("a program has a name")?
            .to_string_lossy();
        let content =
            fs::read(program).with_context(|| format!("reading {}", program.display()))?;
        archive.file(&format!("usr/bin/{name}"), 0o755, &content);
    }
    Ok(archive.finish())
}
