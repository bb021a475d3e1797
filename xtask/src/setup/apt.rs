//! Debian packages taken apart in the user's cache, without touching the system and without root.
//!
//! [`Apt`] is a private apt: its own sources, lists and archives below the cache directory, with an empty
//! package database, so that a request resolves to everything a package needs. The mirror is the one that
//! the system's own apt uses; signatures are checked by apt against Debian's keyring.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};
use runner::tether::{self, AtDeath};

const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";

/// Names the mirror when apt's own configuration has none that serves Debian.
const MIRROR_VARIABLE: &str = "VERDIGRIS_DEBIAN_MIRROR";

/// A private apt for a fixed set of suites and one architecture. Later suites have no preference over earlier ones unless asked.
pub struct Apt {
    directory: PathBuf,
    suites: &'static [&'static str],
    architecture: &'static str,
}

/// One package as apt would fetch it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Package {
    pub name: String,
    pub version: String,
}

impl Apt {
    /// Prepares the private apt in `directory` and brings its package lists up to date.
    pub fn open(
        directory: PathBuf,
        suites: &'static [&'static str],
        architecture: &'static str,
    ) -> Result<Self> {
        for (tool, package) in [("apt-get", "apt"), ("dpkg-deb", "dpkg")] {
            ensure!(
                super::find_program(tool).is_some(),
                "`{tool}` is needed to unpack Debian packages: install the package `{package}`"
            );
        }
        ensure!(
            Path::new(KEYRING).exists(),
            "{KEYRING} is missing: apt-get install debian-archive-keyring"
        );
        for part in [
            "state/lists/partial",
            "cache/archives/partial",
            "preferences.d",
        ] {
            fs::create_dir_all(directory.join(part))?;
        }
        let apt = Self {
            directory,
            suites,
            architecture,
        };
        fs::write(apt.directory.join("status"), "")?;
        fs::write(apt.directory.join("sources.list"), apt.sources()?)?;
        fs::write(apt.directory.join("apt.conf"), apt.configuration())?;
        super::say(&format!(
            "fetching the package lists of {}",
            apt.suites.join(", ")
        ));
        apt.run(&["update"], &[])?;
        Ok(apt)
    }

    fn sources(&self) -> Result<String> {
        let mirror = debian_mirror()?;
        let line = |suite| format!("deb [signed-by={KEYRING}] {mirror} {suite} main\n");
        Ok(self.suites.iter().map(line).collect())
    }

    /// Given with `-c`, which apt reads after the system's files, so that proxies set there still count.
    fn configuration(&self) -> String {
        let d = self.directory.display();
        let architecture = self.architecture;
        format!(
            r#"#clear APT::Update::Post-Invoke;
#clear APT::Update::Post-Invoke-Success;
#clear DPkg::Post-Invoke;
Dir::State "{d}/state/";
Dir::State::status "{d}/status";
Dir::Cache "{d}/cache/";
Dir::Cache::pkgcache "pkgcache.bin";
Dir::Cache::srcpkgcache "srcpkgcache.bin";
Dir::Etc::sourcelist "{d}/sources.list";
Dir::Etc::sourceparts "/dev/null";
Dir::Etc::preferences "/dev/null";
Dir::Etc::preferencesparts "{d}/preferences.d";
// A suite in development may stand still for longer than its lists are declared valid.
Acquire::Check-Valid-Until "false";
Acquire::Languages "none";
Acquire::Retries "3";
Acquire::IndexTargets::deb::DEP-11::DefaultEnabled "false";
Acquire::IndexTargets::deb::DEP-11-icons-small::DefaultEnabled "false";
Acquire::IndexTargets::deb::DEP-11-icons::DefaultEnabled "false";
Acquire::IndexTargets::deb::DEP-11-icons-hidpi::DefaultEnabled "false";
Acquire::IndexTargets::deb::Contents-deb::DefaultEnabled "false";
APT::Architecture "{architecture}";
APT::Architectures {{ "{architecture}"; }};
APT::Install-Recommends "false";
APT::Sandbox::User "root";
"#
        )
    }

    fn run(&self, arguments: &[&str], packages: &[String]) -> Result<String> {
        let output = tether::command("apt-get", AtDeath::Terminate)
            .arg("-c")
            .arg(self.directory.join("apt.conf"))
            .arg("-qq")
            .args(arguments)
            .args(packages)
            .current_dir(self.archives())
            .env("LC_ALL", "C")
            .env("DEBIAN_FRONTEND", "noninteractive")
            .output()
            .context("starting apt-get")?;
        if !output.status.success() {
            bail!(
                "`apt-get {}` failed for the suites {}:\n{}",
                arguments.join(" "),
                self.suites.join(", "),
                String::from_utf8_lossy(&output.stderr).trim()
            );
        }
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    fn archives(&self) -> PathBuf {
        self.directory.join("cache/archives")
    }

    /// What an installation of `wanted` on an empty system would fetch, dependencies included.
    /// `release` is preferred over the other suites.
    pub fn resolve(&self, wanted: &[&str], release: &str) -> Result<Vec<Package>> {
        let names: Vec<String> = wanted.iter().map(|name| (*name).to_owned()).collect();
        let text = self.run(&["install", "-y", "--print-uris", "-t", release], &names)?;
        let packages: Vec<Package> = text.lines().filter_map(parse_print_uris).collect();
        ensure!(!packages.is_empty(), "apt resolved {wanted:?} to nothing");
        Ok(packages)
    }

    /// Fetches `packages` (apt checks their hashes against the signed lists) and unpacks them into `tree`.
    pub fn unpack(&self, packages: &[Package], tree: &Path) -> Result<()> {
        // Debian's packages put everything below /usr, while some paths in them still leave that out.
        for directory in MERGED {
            fs::create_dir_all(tree.join("usr").join(directory))?;
            symlink(format!("usr/{directory}"), tree.join(directory))?;
        }
        let _cleanup = Cleanup(self.archives());
        super::say(&format!("fetching {} packages", packages.len()));
        let exact: Vec<String> = packages
            .iter()
            .map(|package| format!("{}={}", package.name, package.version))
            .collect();
        self.run(&["download"], &exact)?;
        super::say("unpacking");
        for entry in fs::read_dir(self.archives())? {
            let path = entry?.path();
            if path.extension().is_some_and(|extension| extension == "deb") {
                let status = tether::command("dpkg-deb", AtDeath::Kill)
                    .arg("-x")
                    .arg(&path)
                    .arg(tree)
                    .status()?;
                ensure!(
                    status.success(),
                    "dpkg-deb could not unpack {}",
                    path.display()
                );
            }
        }
        // Packages of Debian 12 have the directory itself, which then stands where the link was.
        for directory in MERGED {
            let place = tree.join(directory);
            if !place.is_symlink() {
                merge(&place, &tree.join("usr").join(directory))?;
                symlink(format!("usr/{directory}"), place)?;
            }
        }
        Ok(())
    }
}

/// Directories that are links to those of the same name below `/usr`.
const MERGED: [&str; 4] = ["bin", "lib", "lib64", "sbin"];

/// Moves everything below `from` to the same place below `to`, and removes `from`.
fn merge(from: &Path, to: &Path) -> Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let place = to.join(entry.file_name());
        if entry.file_type()?.is_dir() && place.is_dir() {
            merge(&entry.path(), &place)?;
        } else {
            fs::rename(entry.path(), &place)
                .with_context(|| format!("moving {}", entry.path().display()))?;
        }
    }
    fs::remove_dir(from)?;
    Ok(())
}

/// Removes the archives that were unpacked, or left over by a failure.
struct Cleanup(PathBuf);

impl Drop for Cleanup {
    fn drop(&mut self) {
        for entry in fs::read_dir(&self.0).into_iter().flatten().flatten() {
            if entry
                .path()
                .extension()
                .is_some_and(|extension| extension == "deb")
            {
                let _ = fs::remove_file(entry.path());
            }
        }
    }
}

/// A line of `--print-uris`: `'URI' name_version_arch.deb size hash`, with `%3a` for the epoch's colon.
fn parse_print_uris(line: &str) -> Option<Package> {
    let file = line.strip_prefix('\'')?.split_whitespace().nth(1)?;
    let mut parts = file.split('_');
    let name = parts.next()?.to_owned();
    let version = parts.next()?.replace("%3a", ":");
    Some(Package { name, version })
}

/// The Debian mirror of the system's own apt.
fn debian_mirror() -> Result<String> {
    if let Ok(mirror) = std::env::var(MIRROR_VARIABLE) {
        return Ok(mirror);
    }
    let output = Command::new("apt-get")
        .args(["indextargets", "--no-release-info", "--format"])
        .arg("$(REPO_URI) $(RELEASE) $(COMPONENT)")
        .env("LC_ALL", "C")
        .output()
        .context("starting apt-get")?;
    choose_mirror(&String::from_utf8_lossy(&output.stdout)).with_context(|| {
        format!(
            "apt's sources name no Debian archive; \
             set {MIRROR_VARIABLE} to the URI of a Debian mirror (the one that ends in /debian/)"
        )
    })
}

/// The first archive that serves `main` of a Debian release itself, not of its security updates alone.
fn choose_mirror(targets: &str) -> Option<String> {
    const RELEASES: [&str; 8] = [
        "bookworm", "trixie", "forky", "duke", "sid", "stable", "testing", "unstable",
    ];
    targets.lines().find_map(|line| {
        let mut words = line.split_whitespace();
        let (uri, release, component) = (words.next()?, words.next()?, words.next()?);
        (component == "main" && RELEASES.contains(&release)).then(|| uri.to_owned())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn print_uris_lines_give_name_and_version_with_epoch() {
        let line =
            "'http://mirror.invalid/q.deb' qemu-system-x86_1%3a11.1.2+ds-3_amd64.deb 1 MD5Sum:0";
        assert_eq!(
            parse_print_uris(line),
            Some(Package {
                name: "qemu-system-x86".into(),
                version: "1:11.1.2+ds-3".into()
            })
        );
        assert_eq!(parse_print_uris("Reading package lists..."), None);
    }

    #[test]
    fn the_security_archive_is_not_a_mirror() {
        let targets = "http://a.invalid/debian-security/ bookworm-security main\n\
                       http://b.invalid/debian/ bookworm-updates main\n\
                       http://c.invalid/debian/ bookworm contrib\n\
                       http://d.invalid/debian/ bookworm main\n";
        assert_eq!(
            choose_mirror(targets).as_deref(),
            Some("http://d.invalid/debian/")
        );
        assert_eq!(choose_mirror("http://e.invalid/ubuntu/ noble main\n"), None);
    }
}
