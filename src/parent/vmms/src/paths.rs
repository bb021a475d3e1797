//! Where things are.

use std::path::PathBuf;

/// Directories and programs.
#[derive(Clone, Debug)]
pub struct Paths {
    /// Descriptions of children.
    pub children: PathBuf,
    /// Sockets, and records of what exists: gone with the next start of the system, as the children are.
    pub run: PathBuf,
    /// Logs of children.
    pub log: PathBuf,
    /// The worker's program.
    pub worker: PathBuf,
}

impl Paths {
    /// Socket of the daemon.
    pub fn socket(&self) -> PathBuf {
        self.run.join("vmms.sock")
    }

    /// Socket of the holder.
    pub fn holder(&self) -> PathBuf {
        self.run.join("holder.sock")
    }

    /// Records of children that exist.
    pub fn records(&self) -> PathBuf {
        self.run.join("children")
    }

    /// Children that wait for their restart.
    pub fn waiting(&self) -> PathBuf {
        self.run.join("waiting")
    }
}
