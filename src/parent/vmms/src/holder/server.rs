//! The holder's process.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, ErrorKind};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use rustix::event::{PollFd, PollFlags, poll};
use rustix::net::{
    AddressFamily, SocketAddrUnix, SocketFlags, SocketType, accept_with, bind, listen as listen_on,
    socket_with,
};
use worker_link::{Link, LinkError};

use super::{Ask, NAME_MAX, SETS_MAX, Told};

pub(super) type Client = Link<Told, Ask>;
type Sets = BTreeMap<String, Vec<OwnedFd>>;

/// Listens at `path` and keeps files for ever.
///
/// # Errors
/// When it cannot listen, or another holder does.
pub fn serve(path: &Path) -> io::Result<()> {
    if super::Holder::connect(path).is_ok() {
        return Err(io::Error::new(
            ErrorKind::AddrInUse,
            format!("another holder listens at {}", path.display()),
        ));
    }
    let listener = listen(path)?;
    crate::notify::ready();
    run(&listener)
}

/// The socket, for the owner of this process alone.
pub(super) fn listen(path: &Path) -> io::Result<OwnedFd> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None)?;
    bind(&socket, &SocketAddrUnix::new(path)?)?;
    // Nobody can connect before it listens.
    fs::set_permissions(path, fs::Permissions::from_mode(0o600))?;
    listen_on(&socket, 16)?;
    Ok(socket)
}

/// Serves all who connect; one thread, and no state but the sets.
pub(super) fn run(listener: &OwnedFd) -> io::Result<()> {
    let mut sets = Sets::new();
    let mut clients: Vec<Client> = Vec::new();
    loop {
        let ready: Vec<bool> = {
            let fds = std::iter::once(listener.as_fd()).chain(clients.iter().map(AsFd::as_fd));
            let mut fds: Vec<_> = fds
                .map(|fd| PollFd::from_borrowed_fd(fd, PollFlags::IN))
                .collect();
            match poll(&mut fds, None) {
                Err(rustix::io::Errno::INTR) => continue,
                Err(error) => return Err(error.into()),
                Ok(_) => {}
            }
            fds.iter().map(|fd| !fd.revents().is_empty()).collect()
        };
        let mut is_ready = ready.iter().skip(1);
        clients.retain(|client| match is_ready.next() {
            Some(true) => serve_one(client, &mut sets).is_ok(),
            _ => true,
        });
        if ready.first() == Some(&true) {
            let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
            match accept_with(listener, flags) {
                Ok(socket) => clients.push(Link::new(socket)),
                Err(error) => {
                    crate::say!("vmms holder: accepting a connection: {error}");
                    std::thread::sleep(std::time::Duration::from_millis(100));
                }
            }
        }
    }
}

/// Answers one packet. An error ends the connection.
fn serve_one(client: &Client, sets: &mut Sets) -> Result<(), LinkError> {
    let (ask, files) = match client.receive() {
        Err(LinkError::WouldBlock) => return Ok(()),
        other => other?,
    };
    match ask {
        Ask::Put(name) => {
            let is_new = !sets.contains_key(&name);
            if name.len() > NAME_MAX {
                return Err(LinkError::TooLong);
            }
            if is_new && sets.len() >= SETS_MAX {
                return client.send(&Told::Nothing, &[]);
            }
            sets.insert(name, files);
            client.send(&Told::Done, &[])
        }
        Ask::Get(name) => match sets.get(&name) {
            Some(files) => {
                let files: Vec<_> = files.iter().map(AsFd::as_fd).collect();
                client.send(&Told::Done, &files)
            }
            None => client.send(&Told::Nothing, &[]),
        },
        Ask::Drop(name) => {
            // In the order in which they were given: a pin goes before what it pins.
            let files = sets.remove(&name).unwrap_or_default();
            files.into_iter().for_each(drop);
            client.send(&Told::Done, &[])
        }
        Ask::List => client.send(&Told::Names(sets.keys().cloned().collect()), &[]),
    }
}

/// Takes one connection, which is served by [`serve_next`] alone: a holder that dies young.
#[cfg(test)]
pub(super) fn accept_one(listener: &OwnedFd) -> io::Result<Client> {
    let mut fds = [PollFd::new(listener, PollFlags::IN)];
    poll(&mut fds, None)?;
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    Ok(Link::new(accept_with(listener, flags)?))
}

/// Answers one request and closes the connection.
#[cfg(test)]
pub(super) fn serve_next(client: Client) {
    let _ = client.wait(None);
    let _ = serve_one(&client, &mut Sets::new());
}
