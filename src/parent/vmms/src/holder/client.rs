//! The daemon's end.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, poll};
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, connect, socket_with};
use worker_link::{Link, LinkError};

use super::{Ask, NAME_MAX, SETS_MAX, Told};

/// How long the holder may take; it has nothing else to do.
const PATIENCE: Duration = Duration::from_secs(if cfg!(test) { 2 } else { 10 });

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
    /// It keeps as much as it can.
    #[error("the holder keeps {SETS_MAX} sets of files, which is all it can: stop another child")]
    Full,
    /// An answer that cannot be.
    #[error("the holder's answer makes no sense")]
    Senseless,
}

/// How often a holder that died is looked for again.
const RETRY: Duration = Duration::from_millis(100);
/// How long.
const COMEBACK: Duration = Duration::from_secs(10);

/// The way to the holder. What it keeps, the daemon has open too: a holder that is started anew gets all of it again.
#[derive(Clone, Debug)]
pub struct Holder(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    path: PathBuf,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    link: Link<Ask, Told>,
    /// Duplicates of what the holder keeps, as far as this daemon gave or got it.
    kept: BTreeMap<String, Vec<OwnedFd>>,
    /// The holder died and none came after it: what is taken apart goes by what the daemon has.
    is_lost: bool,
}

impl Holder {
    /// Connects to the holder that listens at `path`.
    ///
    /// # Errors
    /// [`HolderError::Absent`].
    pub fn connect(path: &Path) -> Result<Self, HolderError> {
        Ok(Self(Arc::new(Inner {
            path: path.into(),
            state: Mutex::new(State {
                link: link(path)?,
                kept: BTreeMap::new(),
                is_lost: false,
            }),
        })))
    }

    /// Has the holder keep `files` as `name`. They are with it when this returns.
    ///
    /// # Errors
    /// [`HolderError`].
    pub fn put(&self, name: &str, files: &[BorrowedFd<'_>]) -> Result<(), HolderError> {
        if name.len() > NAME_MAX {
            return Err(HolderError::Senseless);
        }
        let copies = files.iter().map(BorrowedFd::try_clone_to_owned);
        let copies: Vec<OwnedFd> = copies.collect::<Result<_, _>>().map_err(LinkError::Io)?;
        let mut state = self.state();
        match self.ask(&mut state, &Ask::Put(name.to_owned()), files)? {
            (Told::Done, _) => {
                state.kept.insert(name.to_owned(), copies);
                Ok(())
            }
            (Told::Nothing, _) => Err(HolderError::Full),
            _ => Err(HolderError::Senseless),
        }
    }

    /// The files of `name`; none when there is no such set.
    ///
    /// # Errors
    /// [`HolderError`].
    pub fn get(&self, name: &str) -> Result<Vec<OwnedFd>, HolderError> {
        let mut state = self.state();
        if state.is_lost {
            let kept = state.kept.get(name).map(Vec::as_slice);
            let copies = kept.unwrap_or_default().iter().map(OwnedFd::try_clone);
            return Ok(copies.collect::<Result<_, _>>().map_err(LinkError::Io)?);
        }
        match self.ask(&mut state, &Ask::Get(name.to_owned()), &[])? {
            (Told::Done, files) => {
                let copies = files.iter().map(OwnedFd::try_clone);
                let copies = copies.collect::<Result<_, _>>().map_err(LinkError::Io)?;
                state.kept.insert(name.to_owned(), copies);
                Ok(files)
            }
            (Told::Nothing, _) => Ok(Vec::new()),
            _ => Err(HolderError::Senseless),
        }
    }

    /// Has the holder close the files of `name`, if it has any.
    ///
    /// # Errors
    /// [`HolderError`].
    pub fn drop_set(&self, name: &str) -> Result<(), HolderError> {
        let mut state = self.state();
        // In the order in which they were given: a pin goes before what it pins.
        let copies = state.kept.remove(name).unwrap_or_default();
        copies.into_iter().for_each(drop);
        if state.is_lost {
            return Ok(());
        }
        match self.ask(&mut state, &Ask::Drop(name.to_owned()), &[])? {
            (Told::Done | Told::Nothing, _) => Ok(()),
            _ => Err(HolderError::Senseless),
        }
    }

    /// All names.
    ///
    /// # Errors
    /// [`HolderError`].
    pub fn names(&self) -> Result<Vec<String>, HolderError> {
        let mut state = self.state();
        if state.is_lost {
            return Ok(state.kept.keys().cloned().collect());
        }
        match self.ask(&mut state, &Ask::List, &[])? {
            (Told::Names(names), _) => Ok(names),
            _ => Err(HolderError::Senseless),
        }
    }

    /// Waits for the holder's death and makes a new one what it was. Returns when none came.
    ///
    /// # Errors
    /// [`HolderError`]: from now on the daemon alone pins the memory of its children.
    pub fn watch(&self) -> Result<(), HolderError> {
        loop {
            let socket = self.state().link.as_fd().try_clone_to_owned();
            let socket = socket.map_err(LinkError::Io)?;
            // It says nothing unasked, and answers are taken under the lock.
            let mut fds = [PollFd::new(&socket, PollFlags::RDHUP)];
            match poll(&mut fds, None) {
                Err(rustix::io::Errno::INTR) => continue,
                other => other.map_err(|error| LinkError::Io(error.into()))?,
            };
            crate::say!("vmms: the holder died");
            self.come_back(&mut self.state())?;
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0
            .state
            .lock()
            .unwrap_or_else(|error| error.into_inner())
    }

    fn ask(
        &self,
        state: &mut State,
        ask: &Ask,
        files: &[BorrowedFd<'_>],
    ) -> Result<(Told, Vec<OwnedFd>), HolderError> {
        match ask_once(&state.link, ask, files) {
            Err(HolderError::Link(LinkError::Closed)) => {
                self.come_back(state)?;
                ask_once(&state.link, ask, files)
            }
            Err(error) => {
                // Its answer may still come, and would be taken for that to the next question: files of another name.
                state.link = closed().map_err(LinkError::Io)?;
                Err(error)
            }
            other => other,
        }
    }

    /// Finds a new holder and gives it everything.
    fn come_back(&self, state: &mut State) -> Result<(), HolderError> {
        let deadline = Instant::now() + COMEBACK;
        // Somebody else may have found it in the meantime.
        if ask_once(&state.link, &Ask::List, &[]).is_ok() {
            return Ok(());
        }
        state.link = loop {
            match link(&self.0.path) {
                Ok(link) => break link,
                Err(error) if state.is_lost || Instant::now() > deadline => {
                    state.is_lost = true;
                    return Err(error);
                }
                Err(_) => std::thread::sleep(RETRY),
            }
        };
        state.is_lost = false;
        for (name, files) in &state.kept {
            let files: Vec<_> = files.iter().map(AsFd::as_fd).collect();
            ask_once(&state.link, &Ask::Put(name.clone()), &files)?;
        }
        crate::say!("vmms: another holder keeps {} sets", state.kept.len());
        Ok(())
    }
}

/// A link that nobody is at the other end of: the next question begins with a new one.
fn closed() -> io::Result<Link<Ask, Told>> {
    let (link, _) = UnixStream::pair()?;
    Ok(Link::new(link.into()))
}

fn link(path: &Path) -> Result<Link<Ask, Told>, HolderError> {
    let absent = |error: rustix::io::Errno| HolderError::Absent {
        path: path.into(),
        error: error.into(),
    };
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None);
    let socket = socket.map_err(absent)?;
    let address = SocketAddrUnix::new(path).map_err(absent)?;
    connect(&socket, &address).map_err(absent)?;
    Ok(Link::new(socket))
}

fn ask_once(
    link: &Link<Ask, Told>,
    ask: &Ask,
    files: &[BorrowedFd<'_>],
) -> Result<(Told, Vec<OwnedFd>), HolderError> {
    link.send(ask, files)?;
    if !link.wait(Some(PATIENCE))? {
        return Err(LinkError::WouldBlock.into());
    }
    Ok(link.receive()?)
}
