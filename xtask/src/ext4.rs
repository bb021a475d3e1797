//! File systems of ext4 in files, made by Debian's e2fsprogs from a directory.

use std::fmt::Write as _;
use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use runner::emulator::Program;
use runner::tether::AtDeath;

/// The programs.
#[derive(Debug, Clone)]
pub struct E2fsprogs {
    tree: PathBuf,
}

impl E2fsprogs {
    /// Those of a tree of unpacked packages.
    pub fn new(tree: PathBuf) -> Self {
        Self { tree }
    }

    /// Makes a file system with everything in `directory`, of `size` as mke2fs reads it (`128M`), in the new file
    /// `image`. Files keep the owners that they have on this machine.
    pub fn make(&self, directory: &Path, image: &Path, label: &str, size: &str) -> Result<()> {
        let mut mke2fs = Program::of_tree(&self.tree, "usr/sbin/mke2fs");
        mke2fs.environment("MKE2FS_CONFIG", &self.tree.join("etc/mke2fs.conf"));
        let output = mke2fs
            .command(AtDeath::Kill)
            .args(["-q", "-t", "ext4", "-L", label])
            .args(["-E", "root_owner=0:0", "-d"])
            .arg(directory)
            .arg(image)
            .arg(size)
            .output()
            .context("starting mke2fs")?;
        let errors = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "mke2fs failed: {}", errors.trim());
        Ok(())
    }

    /// Changes the file system in `image`.
    pub fn edit(&self, image: &Path, edits: &Edits) -> Result<()> {
        let mut script = tempfile::NamedTempFile::new()?;
        script.write_all(edits.script.as_bytes())?;
        let output = Program::of_tree(&self.tree, "usr/sbin/debugfs")
            .command(AtDeath::Kill)
            .arg("-w")
            .arg("-f")
            .arg(script.path())
            .arg(image)
            .output()
            .context("starting debugfs")?;
        // It ends with 0 whatever happens, prints each command with a prompt, and complaints without.
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        let mut complaints = text
            .lines()
            .filter(|line| !line.starts_with("debugfs ") && !line.trim().is_empty());
        if let Some(complaint) = complaints.next() {
            bail!("debugfs on {}: {complaint}", image.display());
        }
        ensure!(
            output.status.success(),
            "debugfs failed on {}",
            image.display()
        );
        Ok(())
    }
}

/// What is to be added to a file system, as a script of debugfs. Everything added belongs to root.
#[derive(Debug)]
pub struct Edits {
    script: String,
    sources: tempfile::TempDir,
    count: usize,
}

impl Edits {
    /// None yet.
    pub fn new() -> Result<Self> {
        Ok(Self {
            script: String::new(),
            sources: tempfile::tempdir()?,
            count: 0,
        })
    }

    /// Adds a directory; its parent is there.
    pub fn directory(&mut self, path: &str) {
        let _ = writeln!(self.script, "mkdir \"{path}\"");
        self.own(path, 0o040_755);
    }

    /// Adds a file; its directory is there, and the file is not.
    pub fn file(&mut self, path: &str, permissions: u32, content: &str) -> Result<()> {
        let source = self.sources.path().join(self.count.to_string());
        self.count += 1;
        fs::write(&source, content)?;
        let name = self.enter(path)?;
        let _ = writeln!(self.script, "write {} \"{name}\"", source.display());
        self.own(path, 0o100_000 | permissions);
        Ok(())
    }

    /// Adds a symbolic link to `target`; its directory is there.
    pub fn symlink(&mut self, path: &str, target: &str) -> Result<()> {
        let name = self.enter(path)?;
        let _ = writeln!(self.script, "symlink \"{name}\" {target}");
        Ok(())
    }

    /// Gives everything that was copied from `directory` to root.
    pub fn own_all(&mut self, directory: &Path) -> Result<()> {
        self.own_below(directory, "")
    }

    fn own_below(&mut self, directory: &Path, place: &str) -> Result<()> {
        for entry in fs::read_dir(directory)? {
            let entry = entry?;
            let name = entry.file_name().to_string_lossy().into_owned();
            let path = format!("{place}/{name}");
            for field in ["uid", "gid"] {
                let _ = writeln!(self.script, "set_inode_field \"{path}\" {field} 0");
            }
            if entry.file_type()?.is_dir() {
                self.own_below(&entry.path(), &path)?;
            }
        }
        Ok(())
    }

    fn own(&mut self, path: &str, mode: u32) {
        let _ = writeln!(self.script, "set_inode_field \"{path}\" mode 0{mode:o}");
        for field in ["uid", "gid"] {
            let _ = writeln!(self.script, "set_inode_field \"{path}\" {field} 0");
        }
    }

    /// debugfs makes files and links in its current directory only.
    fn enter<'a>(&mut self, path: &'a str) -> Result<&'a str> {
        let (directory, name) = path.rsplit_once('/').context("a path begins with /")?;
        let _ = writeln!(self.script, "cd \"{directory}/\"");
        Ok(name)
    }
}
