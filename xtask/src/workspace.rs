//! Where this workspace and its build products are, and how cargo is started in it.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use runner::tether::{self, AtDeath};

/// A build that takes longer is announced.
const MOMENT: Duration = Duration::from_secs(2);

/// The workspace that this xtask belongs to.
#[derive(Debug, Clone)]
pub struct Workspace {
    root: PathBuf,
    target: PathBuf,
}

impl Workspace {
    /// Finds the workspace from where xtask was compiled.
    pub fn find() -> Result<Self> {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"))
            .parent()
            .context("xtask lies in the workspace's root")?
            .to_owned();
        ensure!(
            root.join("Cargo.toml").exists(),
            "the workspace {} has moved; run it through `cargo xtask`",
            root.display()
        );
        let target = match std::env::var_os("CARGO_TARGET_DIR") {
            Some(directory) => std::path::absolute(directory)?,
            None => root.join("target"),
        };
        Ok(Self { root, target })
    }

    /// The directory of the workspace's `Cargo.toml`.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Cargo's target directory.
    pub fn target(&self) -> &Path {
        &self.target
    }

    /// Cargo, to be run in the workspace's root. It ends with this thread; a compiler that it started finishes its crate.
    pub fn cargo(&self) -> Command {
        let cargo = std::env::var_os("CARGO").unwrap_or("cargo".into());
        let mut command = tether::command(cargo, AtDeath::Terminate);
        command.current_dir(&self.root);
        // What cargo set for xtask itself must not reach the builds that xtask starts.
        for (name, _) in std::env::vars_os() {
            let name = name.to_string_lossy();
            if name.starts_with("CARGO_PKG_") || name.starts_with("CARGO_MANIFEST_") {
                command.env_remove(&*name);
            }
        }
        command
    }

    /// `cargo build --release` with `arguments`. Says so when it takes longer than a moment.
    pub fn cargo_build(&self, arguments: &[&str], environment: &[(&str, &str)]) -> Result<()> {
        let mut cargo = self
            .cargo()
            .args(["build", "--release", "--quiet"])
            .args(arguments)
            .envs(environment.iter().copied())
            .spawn()
            .context("starting cargo")?;
        let started = Instant::now();
        let mut is_told = false;
        let status = loop {
            if let Some(status) = cargo.try_wait().context("waiting for cargo")? {
                break status;
            }
            if !is_told && started.elapsed() > MOMENT {
                is_told = true;
                eprintln!("building: {} ...", arguments.join(" "));
            }
            std::thread::sleep(Duration::from_millis(20));
        };
        ensure!(
            status.success(),
            "`cargo build {}` failed",
            arguments.join(" ")
        );
        Ok(())
    }
}
