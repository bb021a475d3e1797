//! The emulators as programs: where they are and how to start them.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::tether::{self, AtDeath};

/// The emulators and the firmware that the test machines are made of.
#[derive(Debug, Clone)]
pub struct Emulators {
    /// `qemu-system-x86_64`, version 9 or newer, with its clearing of IGNNE mended.
    pub qemu: Program,
    /// Bochs 3.1 or newer, with its division mended.
    pub bochs: Program,
    /// OVMF and what goes with it.
    pub firmware: Firmware,
    /// Whether KVM on this machine gives a guest virtualization extensions of its own.
    pub nested_kvm: bool,
}

/// Firmware images, none of which may be written to.
#[derive(Debug, Clone)]
pub struct Firmware {
    /// OVMF's code, for QEMU's first flash drive.
    pub code: PathBuf,
    /// OVMF's empty variable store, to be copied for each machine.
    pub variables: PathBuf,
    /// Both in one image of 4 MiB, for Bochs.
    pub combined: PathBuf,
    /// The VGA BIOS that Bochs wants.
    pub vga_bios: PathBuf,
    /// A boot menu (systemd-boot) that starts a kernel on the bare machine, for comparison.
    pub boot_menu: PathBuf,
}

/// A program of the system, or one that lives in an unpacked tree with its own C library.
#[derive(Debug, Clone)]
pub struct Program {
    path: PathBuf,
    tree: Option<PathBuf>,
    preload: Option<PathBuf>,
    arguments: Vec<OsString>,
    environment: Vec<(String, PathBuf)>,
}

impl Program {
    /// A program that runs as it is.
    pub fn of_the_system(path: PathBuf) -> Self {
        Self {
            path,
            tree: None,
            preload: None,
            arguments: Vec::new(),
            environment: Vec::new(),
        }
    }

    /// A program of a tree of unpacked packages, at `path` below it. It runs through the tree's own dynamic
    /// loader, so that the system's C library does not matter.
    pub fn of_tree(tree: &Path, path: &str) -> Self {
        Self {
            tree: Some(tree.to_owned()),
            ..Self::of_the_system(tree.join(path))
        }
    }

    /// Has a library loaded before all others of the program.
    pub fn preload(&mut self, library: &Path) {
        self.preload = Some(library.to_owned());
    }

    /// Adds an argument that every start gets.
    pub fn argument(&mut self, argument: impl Into<OsString>) {
        self.arguments.push(argument.into());
    }

    /// Sets an environment variable to a path for every start.
    pub fn environment(&mut self, name: &str, value: &Path) {
        self.environment.push((name.to_owned(), value.to_owned()));
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The command that starts the program, which then does not outlive this thread: it gets `end`.
    pub fn command(&self, end: AtDeath) -> Command {
        let mut command = match &self.tree {
            None => {
                let mut command = tether::command(&self.path, end);
                if let Some(library) = &self.preload {
                    command.env("LD_PRELOAD", library);
                }
                command
            }
            Some(tree) => {
                let mut command = tether::command(tree.join("lib64/ld-linux-x86-64.so.2"), end);
                command
                    .arg("--library-path")
                    .arg(tree.join("usr/lib/x86_64-linux-gnu"));
                if let Some(library) = &self.preload {
                    command.arg("--preload").arg(library);
                }
                command.arg(&self.path);
                command
            }
        };
        command.args(&self.arguments);
        for (name, value) in &self.environment {
            command.env(name, value);
        }
        command
    }
}
