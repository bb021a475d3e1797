//! What the test machines are made of, kept in the user's cache directory.
//!
//! Each thing is a directory `NAME-VERSION` below `$XDG_CACHE_HOME/verdigris` (or `~/.cache/verdigris`). It is filled
//! under a temporary name and renamed when complete, under a lock per thing, so that a stopped or a second
//! `xtask` does no harm. A thing that is there is used as it is: nothing is asked of the network.

pub mod apt;
pub mod cure;
pub mod debian;
pub mod emulators;
pub mod rust;

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use apt::{Apt, Package};

/// The architecture of the machines.
pub const AMD64: &str = "amd64";

/// Prints one line about what the set-up is doing. Standard output is for results.
pub fn say(what: &str) {
    eprintln!("  set-up: {what}");
}

/// The full path of a program in the PATH.
pub fn find_program(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path)
        .map(|directory| directory.join(name))
        .find(|candidate| candidate.is_file())
}

/// The directory that holds everything fetched or unpacked.
pub fn cache_directory() -> Result<PathBuf> {
    let base = match std::env::var_os("XDG_CACHE_HOME") {
        Some(directory) if Path::new(&directory).is_absolute() => PathBuf::from(directory),
        _ => PathBuf::from(std::env::var_os("HOME").context("HOME is not set")?).join(".cache"),
    };
    let directory = base.join("verdigris");
    fs::create_dir_all(&directory)
        .with_context(|| format!("creating the cache directory {}", directory.display()))?;
    Ok(directory)
}

/// One kind of thing in the cache, made of Debian packages.
pub struct Thing {
    /// Its name in the cache.
    pub name: &'static str,
    /// Debian's name of the architecture that its packages are for.
    pub architecture: &'static str,
    /// The suites that its packages come from.
    pub suites: &'static [&'static str],
    /// The suite preferred among those.
    pub release: &'static str,
    /// What to ask apt for.
    pub packages: &'static [&'static str],
    /// Which of the resolved packages to unpack.
    pub keep: fn(&Package) -> bool,
    /// The package that gives the thing its version.
    pub versioned_by: &'static str,
    /// Files and directories of the unpacked tree that nothing here reads, and that would fill disk images.
    pub leave_out: &'static [&'static str],
}

impl Thing {
    /// The unpacked tree: the newest in the cache, or made now.
    pub fn obtain(&self) -> Result<PathBuf> {
        let cache = cache_directory()?;
        if let Some(tree) = self.find(&cache)? {
            return Ok(tree);
        }
        let _lock = lock(&cache, self.name)?;
        if let Some(tree) = self.find(&cache)? {
            return Ok(tree); // another xtask made it while this one waited
        }
        self.make(&cache)
            .with_context(|| format!("setting up {}", self.name))
    }

    fn find(&self, cache: &Path) -> Result<Option<PathBuf>> {
        let mut newest = None;
        for entry in fs::read_dir(cache)? {
            let entry = entry?;
            let name = entry.file_name().to_string_lossy().into_owned();
            let version = name
                .strip_prefix(self.name)
                .and_then(|rest| rest.strip_prefix('-'));
            if version.is_some_and(|version| version.starts_with(|c: char| c.is_ascii_digit())) {
                let modified = entry.metadata()?.modified()?;
                newest = newest.max(Some((modified, entry.path())));
            }
        }
        Ok(newest.map(|(_, path)| path))
    }

    fn make(&self, cache: &Path) -> Result<PathBuf> {
        say(&format!("{} is not in the cache yet", self.name));
        let mut lists = format!("apt-{}", self.release);
        if self.architecture != AMD64 {
            lists = format!("{lists}-{}", self.architecture);
        }
        let _lists_lock = lock(cache, &lists)?;
        let apt = Apt::open(cache.join(lists), self.suites, self.architecture)?;
        let mut packages = apt.resolve(self.packages, self.release)?;
        let version = packages
            .iter()
            .find(|package| package.name == self.versioned_by)
            .with_context(|| format!("no package gives {} its version", self.name))?
            .version
            .clone();
        // The epoch orders versions for apt; no file name shows it.
        let version = version.split_once(':').map_or(&*version, |(_, rest)| rest);
        packages.retain(self.keep);

        let partial = tempfile::Builder::new()
            .prefix("partial-")
            .tempdir_in(cache)?;
        let tree = partial.path().join("tree");
        fs::create_dir(&tree)?;
        apt.unpack(&packages, &tree)?;
        for path in self.leave_out {
            match fs::remove_dir_all(tree.join(path)) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                    return Err(error).with_context(|| format!("removing {path}"));
                }
                _ => {}
            }
        }
        let place = cache.join(format!("{}-{version}", self.name));
        fs::rename(&tree, &place)?;
        say(&format!("{} {version} is ready", self.name));
        Ok(place)
    }
}

/// Waits for, and holds, the lock of one thing. Released when the file is closed.
fn lock(cache: &Path, name: &str) -> Result<File> {
    let path = cache.join(format!("{name}.lock"));
    let file = File::create(&path).with_context(|| format!("creating {}", path.display()))?;
    if file.try_lock().is_err() {
        say(&format!("waiting for another xtask to finish with {name}"));
        file.lock()?;
    }
    Ok(file)
}

/// Obtains everything, and checks that the emulators start.
pub fn everything() -> Result<()> {
    rust::obtain_targets()?;
    emulators::check(&emulators::obtain()?)?;
    for flavour in [debian::Flavour::Cloud, debian::Flavour::Generic] {
        let kernel = debian::kernel(flavour)?;
        say(&format!("Debian's kernel {}", kernel.release));
    }
    debian::busybox()?;
    debian::tools()?;
    debian::grub()?;
    debian::e2fsprogs()?;
    for kernel in debian::ChildKernel::ALL {
        let kernel = debian::child_kernel(kernel)?;
        say(&format!("Debian's kernel {} for children", kernel.release));
    }
    debian::child_root()?;
    debian::child_root_i386()?;
    debian::qemu_utils()?;
    Ok(())
}
