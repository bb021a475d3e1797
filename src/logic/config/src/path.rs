//! Paths on a FAT volume, as the firmware's file protocol wants them.

use alloc::format;
use alloc::string::String;

/// Longest accepted path, in UTF-16 units.
const MAX_PATH: usize = 255;

/// Checks `path` and gives it its backslashes: slashes are accepted and turned.
///
/// # Errors
/// One sentence that says what is wrong, without the key's name.
pub(crate) fn normalize(path: &str) -> Result<String, String> {
    let path: String = path
        .chars()
        .map(|c| if c == '/' { '\\' } else { c })
        .collect();
    if !path.starts_with('\\') {
        return Err(format!(
            "path `{path}` must start at the root of the volume, as in '\\EFI\\...'"
        ));
    }
    if path.ends_with('\\') {
        return Err(format!("path `{path}` names a directory, not a file"));
    }
    if path.chars().any(|c| c.is_control() || c.len_utf16() != 1) {
        return Err(String::from(
            "a path must not hold control characters or characters beyond UCS-2",
        ));
    }
    if path.chars().count() > MAX_PATH {
        return Err(format!(
            "a path must not be longer than {MAX_PATH} characters"
        ));
    }
    Ok(path)
}
