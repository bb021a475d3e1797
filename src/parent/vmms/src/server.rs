//! The socket that `vmctl` speaks to.

use std::fs;
use std::io::{self, BufReader, ErrorKind};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::sync::Arc;
use std::thread;

use vmms_proto::{LineError, Reply, Request, receive, send};

use crate::inventory::Inventory;

/// Listens at `path`, for root alone.
///
/// # Errors
/// What the system says, or `AddrInUse` when another daemon listens there.
pub fn listen(path: &Path) -> io::Result<UnixListener> {
    if UnixStream::connect(path).is_ok() {
        let text = format!("another vmms listens at {}", path.display());
        return Err(io::Error::new(ErrorKind::AddrInUse, text));
    }
    match fs::remove_file(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let listener = UnixListener::bind(path)?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o600))?;
    Ok(listener)
}

/// Serves all who connect, for ever.
pub fn run(listener: &UnixListener, inventory: &Arc<Inventory>) -> ! {
    loop {
        match listener.accept() {
            Ok((stream, _)) => {
                let inventory = Arc::clone(inventory);
                let spawned = thread::Builder::new().spawn(move || serve(stream, &inventory));
                if let Err(error) = spawned {
                    crate::say!("vmms: a connection has no thread: {error}");
                }
            }
            Err(error) => {
                crate::say!("vmms: accepting a connection: {error}");
                thread::sleep(std::time::Duration::from_millis(100));
            }
        }
    }
}

fn serve(stream: UnixStream, inventory: &Inventory) {
    let Ok(copy) = stream.try_clone() else {
        return;
    };
    let mut from = BufReader::new(copy);
    loop {
        let reply = match receive::<Request>(&mut from) {
            Ok(Request::Console { name }) => {
                let Ok(copy) = stream.try_clone() else {
                    return;
                };
                match inventory.console(&name, copy) {
                    Ok(()) => return,
                    Err(error) => Reply::Error(error),
                }
            }
            Ok(request) => inventory.answer(&request),
            Err(LineError::Malformed(error)) => {
                let _ = send(&stream, &Reply::Error(error));
                return;
            }
            Err(_) => return,
        };
        if send(&stream, &reply).is_err() {
            return;
        }
    }
}
