//! Who may use an image file.
//!
//! Open-file-description locks, on the bytes that QEMU's tools look at too: they see our locks and we see theirs. Such a
//! lock belongs to the open file, not to the process, and lives until the last duplicate of it is closed. A worker that
//! was killed while it wrote keeps its file open until the kernel has ended the write; so whoever gets the lock finds no
//! write of a predecessor on its way.

use std::fs::File;
use std::io;
use std::thread;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, fcntl};
use nix::libc;

/// How the file is to be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LockMode {
    /// For writing: nobody else may use it.
    Exclusive,
    /// For reading: others may read too.
    Shared,
}

/// Why there is no lock.
#[derive(Debug, thiserror::Error)]
pub enum LockError {
    /// Somebody else has the file.
    #[error("in use by another program")]
    Held,
    /// The file system has no locks, or the file is not open the right way.
    #[error("cannot be locked: {0}")]
    Failed(#[source] io::Error),
}

/// First byte where QEMU says what it does with a file: read consistently, write, write the same, resize.
const DOES: i64 = 100;
/// First byte where QEMU says what others must not do, in the same order.
const FORBIDS: i64 = 200;
/// From the first to the last of these bytes.
const ALL_LEN: i64 = FORBIDS + 8 - DOES;
const CONSISTENT_READ: i64 = 0;
const WRITE: i64 = 1;
const RESIZE: i64 = 3;

/// How often a lock is tried while waiting.
const RETRY: Duration = Duration::from_millis(20);

/// Takes the lock, waiting at most `wait` for whoever has it. It is given back when `file` and all its duplicates are
/// closed.
///
/// # Errors
/// See [`LockError`]. Some of the bytes may be locked then: close the file.
pub fn lock(file: &File, mode: LockMode, wait: Duration) -> Result<(), LockError> {
    let deadline = Instant::now() + wait;
    let ranges: &[(i64, i64)] = match mode {
        LockMode::Exclusive => &[(DOES, ALL_LEN)],
        LockMode::Shared => &[
            (DOES + CONSISTENT_READ, 1),
            (FORBIDS + WRITE, 1),
            (FORBIDS + RESIZE, 1),
        ],
    };
    let kind = match mode {
        LockMode::Exclusive => libc::F_WRLCK,
        LockMode::Shared => libc::F_RDLCK,
    };
    for (start, len) in ranges {
        let range = libc::flock {
            l_type: kind as libc::c_short,
            l_whence: libc::SEEK_SET as libc::c_short,
            l_start: *start,
            l_len: *len,
            l_pid: 0,
        };
        loop {
            match fcntl(file, FcntlArg::F_OFD_SETLK(&range)) {
                Ok(_) => break,
                Err(Errno::EINTR) => {}
                Err(Errno::EAGAIN | Errno::EACCES) if Instant::now() < deadline => {
                    thread::sleep(RETRY);
                }
                Err(Errno::EAGAIN | Errno::EACCES) => return Err(LockError::Held),
                Err(error) => return Err(LockError::Failed(error.into())),
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn open(path: &std::path::Path) -> File {
        File::options().read(true).write(true).open(path).unwrap()
    }

    #[test]
    fn writers_are_alone_and_readers_are_not() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let first = open(file.path());
        let second = open(file.path());
        lock(&first, LockMode::Shared, Duration::ZERO).unwrap();
        lock(&second, LockMode::Shared, Duration::ZERO).unwrap();
        let third = open(file.path());
        let refused = lock(&third, LockMode::Exclusive, Duration::ZERO);
        assert!(matches!(refused, Err(LockError::Held)));
        drop((first, second));
        lock(&third, LockMode::Exclusive, Duration::ZERO).unwrap();
        let refused = lock(&open(file.path()), LockMode::Shared, Duration::ZERO);
        assert!(matches!(refused, Err(LockError::Held)));
    }

    #[test]
    fn a_lock_lives_as_long_as_the_last_duplicate() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let first = open(file.path());
        lock(&first, LockMode::Exclusive, Duration::ZERO).unwrap();
        let duplicate = first.try_clone().unwrap();
        drop(first);
        let successor = open(file.path());
        let refused = lock(&successor, LockMode::Exclusive, Duration::ZERO);
        assert!(matches!(refused, Err(LockError::Held)));
        let closer = thread::spawn(move || {
            thread::sleep(Duration::from_millis(100));
            drop(duplicate);
        });
        lock(&successor, LockMode::Exclusive, Duration::from_secs(20)).unwrap();
        closer.join().unwrap();
    }
}
