//! What a later daemon must know of a child, beside what hypervisor and holder know: `/run/verdigris/children/NAME.json`.

use std::fs;
use std::io::{self, Write};
use std::path::Path;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use vmms_proto::CrashInfo;

use crate::description::Description;

/// A child that exists, or is being made or taken apart.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// The number that its partition has.
    pub tag: u64,
    /// Its slot.
    pub slot: u32,
    /// As it was started.
    pub description: Description,
    /// Times it was started.
    pub starts: u32,
    /// Crashes that its kernel reported.
    #[serde(default)]
    pub crashes: Crashes,
    /// Process of its worker, once it has been told to start.
    pub worker: Option<i32>,
}

/// Crashes that a child's kernel reported, in all its starts.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Crashes {
    /// How many.
    pub count: u32,
    /// The last of them.
    pub last: Option<CrashInfo>,
}

impl Record {
    /// Writes it, whole or not at all.
    ///
    /// # Errors
    /// What the file system says.
    pub fn save(&self, directory: &Path) -> io::Result<()> {
        save(directory, &self.description.name, self)
    }

    /// All records. What cannot be read is none: its partition has a tag that nobody knows.
    pub fn all(directory: &Path) -> Vec<Self> {
        all(directory)
    }

    /// Forgets child `name`.
    pub fn remove(directory: &Path, name: &str) {
        let _ = fs::remove_file(path(directory, name));
    }
}

/// A child that does not exist and is to be started again in a moment: `/run/verdigris/waiting/NAME.json`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Waiting {
    /// As it was started.
    pub description: Description,
    /// Times it was started.
    pub starts: u32,
    /// Crashes that its kernel reported.
    pub crashes: Crashes,
    /// Why it ended.
    pub last_end: Option<String>,
    /// Ends that came soon, in a row.
    pub early_ends: u32,
}

impl Waiting {
    /// Writes it, whole or not at all.
    ///
    /// # Errors
    /// What the file system says.
    pub fn save(&self, directory: &Path) -> io::Result<()> {
        save(directory, &self.description.name, self)
    }

    /// All that wait. What cannot be read does not.
    pub fn all(directory: &Path) -> Vec<Self> {
        all(directory)
    }

    /// Child `name` does not wait.
    pub fn remove(directory: &Path, name: &str) {
        let _ = fs::remove_file(path(directory, name));
    }
}

fn save(directory: &Path, name: &str, what: &impl Serialize) -> io::Result<()> {
    let partial = directory.join(format!(".{name}.new"));
    let mut file = fs::File::create(&partial)?;
    file.write_all(&serde_json::to_vec(what)?)?;
    fs::rename(partial, path(directory, name))
}

fn all<T: DeserializeOwned>(directory: &Path) -> Vec<T> {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    entries
        .filter(|entry| entry.path().extension().is_some_and(|e| e == "json"))
        .filter_map(|entry| serde_json::from_slice(&fs::read(entry.path()).ok()?).ok())
        .collect()
}

fn path(directory: &Path, name: &str) -> std::path::PathBuf {
    directory.join(format!("{name}.json"))
}

/// A number that no partition has had.
pub fn new_tag() -> u64 {
    let since = std::time::UNIX_EPOCH.elapsed().unwrap_or_default();
    // Two children are not made in the same nanosecond: starting one takes a lock.
    (since.as_nanos() as u64).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_come_back_as_they_were() {
        let directory = tempfile::tempdir().unwrap();
        let text = "name = \"web\"\nmemory = \"2M\"\nkernel = \"/k\"\n";
        let record = Record {
            tag: new_tag(),
            slot: 3,
            description: Description::parse(text).unwrap(),
            starts: 2,
            crashes: Crashes {
                count: 1,
                last: Some(CrashInfo::default()),
            },
            worker: Some(17),
        };
        record.save(directory.path()).unwrap();
        record.save(directory.path()).unwrap();
        fs::write(directory.path().join("bad.json"), "{").unwrap();
        assert_eq!(Record::all(directory.path()), [record]);
        Record::remove(directory.path(), "web");
        assert!(Record::all(directory.path()).is_empty());

        let waiting = Waiting {
            description: Description::parse(text).unwrap(),
            starts: 3,
            crashes: Crashes::default(),
            last_end: Some("its worker died".into()),
            early_ends: 2,
        };
        waiting.save(directory.path()).unwrap();
        assert_eq!(Waiting::all(directory.path()), [waiting]);
        Waiting::remove(directory.path(), "web");
        assert!(Waiting::all(directory.path()).is_empty());
    }
}
