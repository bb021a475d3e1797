//! What the kernel says above the hypervisor and does not say on the bare machine.
//!
//! The lines come from the test `log`, between two marks on the parent's console. What differs from one boot to
//! the next anyway, such as times, addresses and counts, is taken out before the comparison.

use std::collections::BTreeSet;
use std::path::Path;

use anyhow::{Context, Result};
use serde::Deserialize;

const START: &str = "vg: log starts";
const END: &str = "vg: log ends";

/// A difference that is expected.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Allowed {
    /// A part of the line, after [`normal`].
    pub line: String,
    /// Why it is right that the line appears.
    pub reason: String,
}

#[derive(Deserialize)]
struct AllowedFile {
    #[serde(default)]
    allowed: Vec<Allowed>,
}

/// Reads the list of expected differences.
pub fn read_allowed(file: &Path) -> Result<Vec<Allowed>> {
    let text =
        std::fs::read_to_string(file).with_context(|| format!("reading {}", file.display()))?;
    let file: AllowedFile = toml::from_str(&text)?;
    Ok(file.allowed)
}

/// The lines of the log that a console carries, or nothing if it carries none to the end.
pub fn log_lines(console: &str) -> Option<BTreeSet<String>> {
    let (_, rest) = console.split_once(START)?;
    let (log, _) = rest.split_once(END)?;
    Some(
        log.lines()
            .map(normal)
            .filter(|line| !line.is_empty())
            .collect(),
    )
}

/// A line without its time stamp, with each number replaced by `#`.
pub fn normal(line: &str) -> String {
    let line = line.trim();
    let line = match line.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((_, rest)) => rest.trim_start(),
        None => line,
    };
    let mut text = String::new();
    let mut word = String::new();
    for character in line.chars().chain([' ']) {
        if character.is_ascii_alphanumeric() {
            word.push(character);
            continue;
        }
        let digits = word.strip_prefix("0x").unwrap_or(&word);
        let is_number = digits.chars().all(|c| c.is_ascii_hexdigit())
            && digits.chars().any(|c| c.is_ascii_digit());
        text.push_str(if is_number && !word.is_empty() {
            "#"
        } else {
            &word
        });
        word.clear();
        text.push(character);
    }
    text.trim_end().to_owned()
}

/// The lines that are new above the hypervisor and that nothing allows.
pub fn unexpected(
    bare: &BTreeSet<String>,
    above: &BTreeSet<String>,
    allowed: &[Allowed],
) -> Vec<String> {
    above
        .difference(bare)
        .filter(|line| !allowed.iter().any(|entry| line.contains(&entry.line)))
        .cloned()
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_and_addresses_do_not_count() {
        assert_eq!(
            normal("[    1.234567] tsc: 3400.012 MHz at 0xfee00000, deadbeef\r"),
            "tsc: #.# MHz at #, deadbeef"
        );
        assert_eq!(
            normal("[ 2.0] cpu 12: fault at ffff888000a1"),
            "cpu #: fault at #"
        );
    }

    #[test]
    fn only_new_lines_that_nothing_allows_are_unexpected() {
        let set = |lines: &[&str]| lines.iter().map(|line| (*line).to_owned()).collect();
        let allowed = [Allowed {
            line: "microcode".into(),
            reason: "tested".into(),
        }];
        let above = set(&["same", "microcode: off", "BUG: x"]);
        assert_eq!(
            unexpected(&set(&["same", "gone"]), &above, &allowed),
            ["BUG: x"]
        );
    }

    #[test]
    fn a_log_that_is_cut_off_is_no_log() {
        assert!(log_lines("vg: log starts\na\n").is_none());
        assert_eq!(
            log_lines("x\nvg: log starts\n[1.0] a\nvg: log ends\n")
                .unwrap()
                .len(),
            1
        );
    }
}
