//! The files of one run of a machine.

use std::path::{Path, PathBuf};

/// The directory of one run, and the names in it.
#[derive(Clone, Debug)]
pub struct RunFiles {
    directory: PathBuf,
}

impl RunFiles {
    /// Makes the directory if need be, and removes what an earlier run left in it.
    pub fn prepare(directory: &Path) -> std::io::Result<Self> {
        std::fs::create_dir_all(directory)?;
        let files = Self {
            directory: std::path::absolute(directory)?,
        };
        for path in [
            files.parent_console(),
            files.hypervisor_log(),
            files.emulator_log(),
            files.monitor(),
            files.registers(),
        ] {
            match std::fs::remove_file(&path) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        Ok(files)
    }

    /// The directory itself.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// What the firmware and the parent wrote to COM1.
    pub fn parent_console(&self) -> PathBuf {
        self.directory.join("parent.txt")
    }

    /// What the loader and the hypervisor wrote to COM2.
    pub fn hypervisor_log(&self) -> PathBuf {
        self.directory.join("hypervisor.txt")
    }

    /// What the emulator itself had to say.
    pub fn emulator_log(&self) -> PathBuf {
        self.directory.join("emulator.txt")
    }

    /// QEMU's variable store of this run.
    pub fn firmware_variables(&self) -> PathBuf {
        self.directory.join("variables.fd")
    }

    /// Bochs' configuration.
    pub fn bochs_configuration(&self) -> PathBuf {
        self.directory.join("bochsrc")
    }

    /// What QEMU's processors were doing when the time was over.
    pub fn registers(&self) -> PathBuf {
        self.directory.join("registers.txt")
    }

    /// The socket of QEMU's machine protocol.
    pub fn monitor(&self) -> PathBuf {
        self.directory.join("monitor")
    }
}
