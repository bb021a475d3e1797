//! The holder: a process that keeps files for the daemon, so that pinned memory and open channels outlive it.
//!
//! It does nothing else, so that it has no reason to die. Files are kept in sets under a name; `vmms` gives them before
//! the hypervisor learns of the memory behind them, and takes them out when it has let go of it. Its socket is for root
//! alone. Nothing of systemd is needed for it ([ADR 0016](../../../../../docs/adr/0016-holder.md)).

mod client;
mod server;

use serde::{Deserialize, Serialize};

pub use client::{Holder, HolderError};
pub use server::serve;

/// What the daemon asks. Files go with [`Ask::Put`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
enum Ask {
    /// Keep these files under this name, instead of those that were there.
    Put(String),
    /// Give duplicates of the files of this name.
    Get(String),
    /// Close the files of this name.
    Drop(String),
    /// Which names there are.
    List,
}

/// The answer. Files go with [`Told::Done`] of a [`Ask::Get`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
enum Told {
    /// It was done.
    Done,
    /// There is nothing of this name. To [`Ask::Put`]: and no room for it.
    Nothing,
    /// All names.
    Names(Vec<String>),
}

/// Packets of names are short; so many sets are the most that one answer can name.
const SETS_MAX: usize = if cfg!(test) { 8 } else { 512 };
/// Bytes of the longest name.
const NAME_MAX: usize = 80;

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::File;
    use std::io::{Read, Seek, Write};
    use std::os::fd::AsFd;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn files_outlive_those_who_gave_them() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("holder.sock");
        let listener = server::listen(&path).unwrap();
        let mode = std::fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        std::thread::spawn(move || server::run(&listener));
        {
            let holder = Holder::connect(&path).unwrap();
            assert!(holder.get("a").unwrap().is_empty());
            let mut file = tempfile::tempfile().unwrap();
            file.write_all(b"kept").unwrap();
            let other = tempfile::tempfile().unwrap();
            holder.put("a", &[file.as_fd(), other.as_fd()]).unwrap();
            holder.put("b", &[other.as_fd()]).unwrap();
        }
        let holder = Holder::connect(&path).unwrap();
        assert_eq!(holder.names().unwrap(), ["a", "b"]);
        let files = holder.get("a").unwrap();
        assert_eq!(files.len(), 2);
        let mut file = File::from(files.into_iter().next().unwrap());
        let mut text = String::new();
        file.rewind().unwrap();
        file.read_to_string(&mut text).unwrap();
        assert_eq!(text, "kept");
        holder.drop_set("a").unwrap();
        holder.drop_set("never").unwrap();
        assert_eq!(holder.names().unwrap(), ["b"]);
        assert!(holder.put(&"x".repeat(100), &[file.as_fd()]).is_err());
        // The refusal ended the connection, and nothing but that.
        assert_eq!(Holder::connect(&path).unwrap().names().unwrap(), ["b"]);
    }

    #[test]
    fn a_holder_that_is_full_says_so_and_keeps_what_it_has() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("holder.sock");
        let listener = server::listen(&path).unwrap();
        std::thread::spawn(move || server::run(&listener));
        let holder = Holder::connect(&path).unwrap();
        let file = tempfile::tempfile().unwrap();
        for number in 0..SETS_MAX {
            holder.put(&format!("{number}"), &[file.as_fd()]).unwrap();
        }
        let refused = holder.put("one more", &[file.as_fd()]).unwrap_err();
        assert!(matches!(refused, HolderError::Full), "{refused}");
        holder.put("0", &[file.as_fd()]).unwrap();
        assert_eq!(holder.names().unwrap().len(), SETS_MAX);
        holder.drop_set("0").unwrap();
        holder.put("one more", &[file.as_fd()]).unwrap();
    }

    #[test]
    fn a_holder_that_is_started_anew_gets_everything_again() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("holder.sock");
        let listener = server::listen(&path).unwrap();
        // It serves one request and dies.
        let first = std::thread::spawn(move || {
            let client = server::accept_one(&listener).unwrap();
            server::serve_next(client);
        });
        let holder = Holder::connect(&path).unwrap();
        let file = tempfile::tempfile().unwrap();
        holder.put("a", &[file.as_fd()]).unwrap();
        first.join().unwrap();
        let listener = server::listen(&path).unwrap();
        std::thread::spawn(move || server::run(&listener));
        let watched = holder.clone();
        std::thread::spawn(move || watched.watch());
        assert_eq!(holder.names().unwrap(), ["a"]);
        assert_eq!(holder.get("a").unwrap().len(), 1);
    }

    #[test]
    fn an_answer_that_comes_late_is_not_taken_for_another() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("holder.sock");
        let listener = server::listen(&path).unwrap();
        std::thread::spawn(move || {
            let slow = server::accept_one(&listener).unwrap();
            std::thread::sleep(std::time::Duration::from_secs(3));
            let _ = slow.send(&Told::Names(vec!["late".to_owned()]), &[]);
            server::run(&listener)
        });
        let holder = Holder::connect(&path).unwrap();
        assert!(holder.names().is_err());
        let file = tempfile::tempfile().unwrap();
        // A busy machine may keep it from any of these for longer than the patience.
        let put = (0..9).find_map(|_| holder.put("a", &[file.as_fd()]).ok());
        put.unwrap();
        let names = (0..9).find_map(|_| holder.names().ok());
        assert_eq!(names.unwrap(), ["a"]);
    }

    #[test]
    fn without_a_holder_the_cure_is_named() {
        let error = Holder::connect(std::path::Path::new("/nowhere/holder.sock")).unwrap_err();
        assert!(error.to_string().contains("vmms holder"), "{error}");
    }
}
