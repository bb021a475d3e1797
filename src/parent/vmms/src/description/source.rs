//! Where descriptions come from.

use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use rustix::fs::OFlags;

use super::{Description, DescriptionError, check_name, wrong};

/// Bytes of the longest file.
const FILE_MAX: u64 = 1 << 20;

/// The description of child `name` in `directory`.
///
/// # Errors
/// The file, and what is wrong with it.
pub fn load(directory: &Path, name: &str) -> Result<Description, DescriptionError> {
    check_name(name)?;
    read(&directory.join(format!("{name}.toml")), name)
}

/// The description in file `path`, which must be that of child `name`.
///
/// # Errors
/// As [`load`].
fn read(path: &Path, name: &str) -> Result<Description, DescriptionError> {
    let at = |why: &dyn std::fmt::Display| DescriptionError(format!("{}: {why}", path.display()));
    let text = read_text(path).map_err(|error| match error.kind() {
        std::io::ErrorKind::NotFound => DescriptionError(format!(
            "there is no child {name}: {} does not exist; `vmctl list` shows those that there are",
            path.display()
        )),
        _ => at(&error),
    })?;
    let child = Description::parse(&text).map_err(|error| at(&error))?;
    if child.name != name {
        return wrong(format!(
            "{}: name = {:?}: name file and child alike",
            path.display(),
            child.name
        ));
    }
    Ok(child)
}

/// What a file says, if it is one: nobody waits for the other end of a pipe, and no device is read without end.
fn read_text(path: &Path) -> io::Result<String> {
    let flags = OFlags::NONBLOCK.bits() as i32;
    let file = File::options().read(true).custom_flags(flags).open(path)?;
    let what = match file.metadata()? {
        data if !data.is_file() => "it is not a file".to_owned(),
        data if data.len() > FILE_MAX => format!("it has more than {FILE_MAX} bytes"),
        _ => {
            let mut text = String::new();
            // It may grow meanwhile.
            file.take(FILE_MAX).read_to_string(&mut text)?;
            return Ok(text);
        }
    };
    Err(io::Error::other(format!("{what}: put a description there")))
}

/// All descriptions in `directory`, by the names of their files.
pub fn all(directory: &Path) -> Vec<(String, Result<Description, DescriptionError>)> {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    let mut children: Vec<_> = entries
        .filter_map(|entry| {
            let path = entry.path();
            let name = path.file_stem()?.to_str()?.to_owned();
            (path.extension()? == "toml").then(|| {
                let child = check_name(&name).and_then(|()| read(&path, &name));
                (name, child)
            })
        })
        .collect();
    children.sort_by(|a, b| a.0.cmp(&b.0));
    children
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_file_keeps_nobody_waiting() {
        let directory = tempfile::tempdir().unwrap();
        let place = |name: &str| directory.path().join(name);
        let mode = rustix::fs::Mode::from_raw_mode(0o600);
        let kind = rustix::fs::FileType::Fifo;
        rustix::fs::mknodat(rustix::fs::CWD, place("pipe.toml"), kind, mode, 0).unwrap();
        fs::create_dir(place("folder.toml")).unwrap();
        fs::write(place("large.toml"), vec![b'#'; FILE_MAX as usize + 1]).unwrap();
        let found = all(directory.path());
        assert_eq!(found.len(), 3);
        for (name, child) in found {
            let error = child.unwrap_err().to_string();
            assert!(error.contains("put a description there"), "{name}: {error}");
        }
    }
}
