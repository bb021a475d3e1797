//! The second initial file system, with programs of Debian packages and the libraries they are linked to.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};

use super::cpio::Archive;

const PROGRAMS: [&str; 2] = ["usr/sbin/kexec", "usr/bin/stress-ng"];
const LIBRARIES: &str = "usr/lib/x86_64-linux-gnu";
const LOADER: &str = "lib64/ld-linux-x86-64.so.2";

/// The archive, made from the unpacked packages in `tree`, and of `own`, programs that need no library.
pub fn build(tree: &Path, own: &[PathBuf]) -> Result<Vec<u8>> {
    let mut archive = Archive::new();
    for directory in ["lib", "usr", "usr/bin", "usr/sbin", "usr/lib", LIBRARIES] {
        archive.directory(directory);
    }
    for own in own {
        let name = own.file_name().context("a program has a name")?;
        let place = format!("usr/bin/{}", name.to_string_lossy());
        archive.file(&place, 0o755, &fs::read(own)?);
    }
    let mut libraries = BTreeSet::new();
    for program in PROGRAMS {
        archive.file(program, 0o755, &fs::read(tree.join(program))?);
        libraries.extend(libraries_of(tree, program)?);
    }
    for library in libraries {
        let name = library
            .file_name()
            .context("a library has a name")?
            .to_string_lossy()
            .into_owned();
        archive.file(&format!("{LIBRARIES}/{name}"), 0o644, &fs::read(&library)?);
    }
    // The first initial file system has lib64 as a link to lib.
    archive.file(
        "lib/ld-linux-x86-64.so.2",
        0o755,
        &fs::read(tree.join(LOADER))?,
    );
    Ok(archive.finish())
}

/// The files of `programs` for a place of their own, by their paths there: `tools/bin` has the programs, and
/// `tools/lib` their libraries and the dynamic loader, by which they are started.
pub fn files(tree: &Path, programs: &[&str]) -> Result<Vec<(String, PathBuf)>> {
    let mut files = BTreeSet::new();
    for program in programs {
        files.insert((place("tools/bin", Path::new(program))?, tree.join(program)));
        for library in libraries_of(tree, program)? {
            files.insert((place("tools/lib", &library)?, library));
        }
        let loader = tree.join(LOADER);
        files.insert((place("tools/lib", &loader)?, loader));
    }
    Ok(files.into_iter().collect())
}

fn place(directory: &str, file: &Path) -> Result<String> {
    let name = file.file_name().context("a file has a name")?;
    Ok(format!("{directory}/{}", name.to_string_lossy()))
}

/// The libraries that the dynamic loader would load: lines of `name => path (address)`.
fn libraries_of(tree: &Path, program: &str) -> Result<Vec<PathBuf>> {
    let output = Command::new(tree.join(LOADER))
        .arg("--library-path")
        .arg(tree.join(LIBRARIES))
        .arg("--list")
        .arg(tree.join(program))
        .output()?;
    let text = String::from_utf8_lossy(&output.stdout);
    ensure!(
        output.status.success() && !text.contains("not found"),
        "the libraries of {program} are not complete: {text}{}",
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(text
        .lines()
        .filter_map(|line| line.split_once(" => ")?.1.split_whitespace().next())
        .map(PathBuf::from)
        .filter(|path| path.starts_with(tree.join(LIBRARIES)))
        .collect())
}
