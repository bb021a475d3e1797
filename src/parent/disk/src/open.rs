//! From a path to an image.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use nix::libc;

use crate::lock::{LockError, LockMode, lock};
use crate::qcow2::Qcow2;
use crate::raw::Raw;
use crate::{Format, Image, vhd, vhdx};

/// What to do with the files that an image says it is based on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Backing {
    /// The image must stand alone.
    #[default]
    Refuse,
    /// Open them for reading. Only for images whose header the owner trusts: it can name any file.
    Follow,
}

/// How to open an image.
#[derive(Clone, Debug)]
pub struct Options {
    /// Layout of the file.
    pub format: Format,
    /// Refuse every change.
    pub is_read_only: bool,
    /// Go round the page cache (`O_DIRECT`). Requests that are not aligned go through a buffer.
    pub is_direct: bool,
    /// Files below this one.
    pub backing: Backing,
    /// How long to wait for another user of the file to go away.
    pub lock_wait: Duration,
}

impl Options {
    /// For reading and writing, through the page cache, waiting ten seconds for a lock.
    pub fn new(format: Format) -> Self {
        Self {
            format,
            is_read_only: false,
            is_direct: false,
            backing: Backing::Refuse,
            lock_wait: Duration::from_secs(10),
        }
    }
}

/// Why an image cannot be used, and what helps.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// There is no such file.
    #[error("image {0} does not exist: check the path, or create it")]
    Missing(PathBuf),
    /// It may not be opened this way.
    #[error(
        "image {0} may not be opened for {1}: change its owner or mode, or make the disk read-only"
    )]
    Forbidden(PathBuf, &'static str),
    /// Somebody else uses it.
    #[error("image {0} is in use by another program: stop the child or the tool that has it open")]
    Locked(PathBuf),
    /// The file is not what the format asks for.
    #[error(
        "image {path} is no good {format} image: {reason}; check `format`, or repair the image"
    )]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What it should be.
        format: Format,
        /// What is wrong.
        reason: String,
    },
    /// The file is there already.
    #[error("image {0} exists already: choose another name, or remove it")]
    Exists(PathBuf),
    /// Something else failed.
    #[error("image {path}: {error}")]
    Io {
        /// The file.
        path: PathBuf,
        /// What failed.
        #[source]
        error: io::Error,
    },
}

/// Opens, locks and checks an image.
///
/// # Errors
/// See [`OpenError`]; nothing stays open or locked.
pub fn open(path: &Path, options: &Options) -> Result<Arc<dyn Image>, OpenError> {
    let wants = if options.is_read_only {
        "reading"
    } else {
        "writing"
    };
    let failed = |error: io::Error| match error.kind() {
        io::ErrorKind::NotFound => OpenError::Missing(path.to_owned()),
        io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => {
            OpenError::Forbidden(path.to_owned(), wants)
        }
        // `O_EXCL`: a file system or another layer of the parent has the device.
        io::ErrorKind::ResourceBusy => OpenError::Locked(path.to_owned()),
        _ => OpenError::Io {
            path: path.to_owned(),
            error,
        },
    };
    let mut flags = if options.is_direct { libc::O_DIRECT } else { 0 };
    let is_device = fs::metadata(path)
        .map_err(failed)?
        .file_type()
        .is_block_device();
    if is_device && !options.is_read_only {
        flags |= libc::O_EXCL;
    }
    let file = File::options()
        .read(true)
        .write(!options.is_read_only)
        .custom_flags(flags)
        .open(path)
        .map_err(failed)?;
    open_file(file, path, options)
}

/// Takes a file that somebody else opened, with the flags that `options` ask for, locks and checks it. `path` is for
/// messages, and where the names of backing files start from.
///
/// # Errors
/// See [`OpenError`].
pub fn open_file(file: File, path: &Path, options: &Options) -> Result<Arc<dyn Image>, OpenError> {
    let mode = if options.is_read_only {
        LockMode::Shared
    } else {
        LockMode::Exclusive
    };
    lock(&file, mode, options.lock_wait).map_err(|error| match error {
        LockError::Held => OpenError::Locked(path.to_owned()),
        LockError::Failed(error) => OpenError::Io {
            path: path.to_owned(),
            error,
        },
    })?;
    serve(file, path, options).map_err(|error| match error.raw_os_error() {
        Some(_) => OpenError::Io {
            path: path.to_owned(),
            error,
        },
        None => OpenError::Damaged {
            path: path.to_owned(),
            format: options.format,
            reason: error.to_string(),
        },
    })
}

fn serve(file: File, path: &Path, options: &Options) -> io::Result<Arc<dyn Image>> {
    let Options {
        is_read_only,
        is_direct,
        backing,
        ..
    } = *options;
    Ok(match options.format {
        Format::Raw => Arc::new(Raw::new(file, is_read_only, is_direct)?),
        Format::Qcow2 => Arc::new(Qcow2::new(
            file,
            Some(path),
            is_read_only,
            is_direct,
            backing,
        )?),
        Format::Vhdx => Arc::new(vhdx::open(file, is_read_only, is_direct)?),
        Format::Vhd => Arc::new(vhd::open(file, is_read_only, is_direct)?),
    })
}

/// Makes a new image of `size` bytes that takes no more room than its tables until something is written.
///
/// # Errors
/// See [`OpenError`]; a file that was made is removed again.
pub fn create(path: &Path, format: Format, size: u64) -> Result<(), OpenError> {
    let file = File::options()
        .read(true)
        .write(true)
        .create_new(true)
        .open(path)
        .map_err(|error| match error.kind() {
            io::ErrorKind::AlreadyExists => OpenError::Exists(path.to_owned()),
            io::ErrorKind::NotFound => OpenError::Missing(path.to_owned()),
            io::ErrorKind::PermissionDenied => OpenError::Forbidden(path.to_owned(), "writing"),
            _ => OpenError::Io {
                path: path.to_owned(),
                error,
            },
        })?;
    let made = if size == 0 || !size.is_multiple_of(512) {
        Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            "the size is zero or no multiple of 512",
        ))
    } else {
        match format {
            Format::Raw => file.set_len(size),
            Format::Qcow2 => file.try_clone().and_then(|file| Qcow2::create(file, size)),
            Format::Vhdx => vhdx::create(&file, size),
            Format::Vhd => vhd::create(&file, size),
        }
    };
    made.and_then(|()| file.sync_all()).map_err(|error| {
        // The message is about what failed first.
        let _ = fs::remove_file(path);
        OpenError::Io {
            path: path.to_owned(),
            error,
        }
    })
}
