//! The third initial file system: the programs of the parent that make children, and their units.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use super::cpio::Archive;

const UNITS: &str = "usr/lib/systemd/system";

/// The archive of `programs`, which lie in `/usr/bin` under their own names, and of systemd's units in the directory `units`.
pub fn build(programs: &[PathBuf], units: &Path) -> Result<Vec<u8>> {
    let mut archive = Archive::new();
    for program in programs {
        add(&mut archive, "usr/bin", program, 0o755)?;
    }
    for directory in ["usr/lib", "usr/lib/systemd", UNITS] {
        archive.directory(directory);
    }
    let mut files: Vec<PathBuf> = fs::read_dir(units)
        .and_then(|entries| entries.map(|entry| Ok(entry?.path())).collect())
        .with_context(|| format!("reading {}", units.display()))?;
    files.sort();
    for unit in files {
        add(&mut archive, UNITS, &unit, 0o644)?;
    }
    Ok(archive.finish())
}

fn add(archive: &mut Archive, directory: &str, source: &Path, mode: u32) -> Result<()> {
    let name = source.file_name().context("a file has a name")?;
    let content = fs::read(source).with_context(|| format!("reading {}", source.display()))?;
    archive.file(
        &format!("{directory}/{}", name.to_string_lossy()),
        mode,
        &content,
    );
    Ok(())
}
