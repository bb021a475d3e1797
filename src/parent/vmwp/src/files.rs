//! The files that came with the start.

use std::fs::File;
use std::os::fd::OwnedFd;

use anyhow::{Context, Result};
use worker_link::FdIndex;

/// Files by their place, each taken once.
pub struct Files(Vec<Option<OwnedFd>>);

impl Files {
    /// All of them.
    pub fn new(files: Vec<OwnedFd>) -> Self {
        Self(files.into_iter().map(Some).collect())
    }

    /// Takes the file for `what`.
    ///
    /// # Errors
    /// There is none, or it was taken for something else.
    pub fn take(&mut self, index: FdIndex, what: &str) -> Result<OwnedFd> {
        self.0
            .get_mut(index.0 as usize)
            .and_then(Option::take)
            .with_context(|| format!("no file {} for {what} came with the start", index.0))
    }

    /// The same, as a file.
    ///
    /// # Errors
    /// As [`Files::take`].
    pub fn file(&mut self, index: FdIndex, what: &str) -> Result<File> {
        self.take(index, what).map(File::from)
    }
}
