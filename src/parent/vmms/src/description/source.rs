//! Where descriptions come from.

use std::fs;
use std::path::Path;

use super::{Description, DescriptionError, check_name, wrong};

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
    let text = fs::read_to_string(path).map_err(|error| match error.kind() {
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
