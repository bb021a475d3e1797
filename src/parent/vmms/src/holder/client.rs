//! The daemon's end.

use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, connect, socket_with};
use worker_link::{Link, LinkError};

use super::{Ask, NAME_MAX, Told};

/// How long the holder may take; it has nothing else to do.
const PATIENCE: Duration = Duration::from_secs(10);

/// Why files are not kept.
#[derive(Debug, thiserror::Error)]
pub enum HolderError {
    /// There is no holder.
    #[error("the holder does not answer at {path}: {error}; start `vmms holder` before vmms")]
    Absent {
        /// Its socket.
        path: PathBuf,
        /// What failed.
        error: io::Error,
    },
    /// The holder went away or says nothing.
    #[error("the holder: {0}")]
    Link(#[from] LinkError),
    /// An answer that cannot be.
    #[error("the holder's answer makes no sense")]
    Senseless,
}

/// The way to the holder.
#[derive(Clone, Debug)]
pub struct Holder(Arc<Mutex<Link<Ask, Told>>>);

impl Holder {
    /// Connects to the holder that listens at `path`.
    ///
    /// # Errors
    /// [`HolderError::Absent`].
    pub fn connect(path: &Path) -> Result<Self, HolderError> {
        let absent = |error: rustix::io::Errno| HolderError::Absent {
            path: path.into(),
            error: error.into(),
        };
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let socket = socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None);
        let socket = socket.map_err(absent)?;
        let address = SocketAddrUnix::new(path).map_err(absent)?;
        connect(&socket, &address).map_err(absent)?;
        Ok(Self(Arc::new(Mutex::new(Link::new(socket)))))
    }

    /// Has the holder keep `files` as `name`. They are with it when this returns.
    ///
    /// # Errors
    /// [`HolderError`].
    pub fn put(&self, name: &str, files: &[BorrowedFd<'_>]) -> Result<(), HolderError> {
        if name.len() > NAME_MAX {
            return Err(HolderError::Senseless);
        }
        match self.ask(&Ask::Put(name.to_owned()), files)? {
            (Told::Done, _) => Ok(()),
            _ => Err(HolderError::Senseless),
        }
    }

    /// The files of `name`; none when there is no such set.
    ///
    /// # Errors
    /// [`HolderError`].
    pub fn get(&self, name: &str) -> Result<Vec<OwnedFd>, HolderError> {
        match self.ask(&Ask::Get(name.to_owned()), &[])? {
            (Told::Done, files) => Ok(files),
            (Told::Nothing, _) => Ok(Vec::new()),
            _ => Err(HolderError::Senseless),
        }
    }

    /// Has the holder close the files of `name`, if it has any.
    ///
    /// # Errors
    /// [`HolderError`].
    pub fn drop_set(&self, name: &str) -> Result<(), HolderError> {
        match self.ask(&Ask::Drop(name.to_owned()), &[])? {
            (Told::Done | Told::Nothing, _) => Ok(()),
            _ => Err(HolderError::Senseless),
        }
    }

    /// All names.
    ///
    /// # Errors
    /// [`HolderError`].
    pub fn names(&self) -> Result<Vec<String>, HolderError> {
        match self.ask(&Ask::List, &[])? {
            (Told::Names(names), _) => Ok(names),
            _ => Err(HolderError::Senseless),
        }
    }

    fn ask(
        &self,
        ask: &Ask,
        files: &[BorrowedFd<'_>],
    ) -> Result<(Told, Vec<OwnedFd>), HolderError> {
        let link = self.0.lock().unwrap_or_else(|error| error.into_inner());
        link.send(ask, files)?;
        if !link.wait(Some(PATIENCE))? {
            return Err(LinkError::WouldBlock.into());
        }
        Ok(link.receive()?)
    }
}
