//! `docs/benchmarks.md`, and the table on the terminal.

use std::fmt::Write as _;

use super::figures::Group;
use super::prose::{INTRODUCTION, PEER, REPEATED, note, title};
use super::table::Row;

/// With what and when it was measured.
#[derive(Clone, Debug, Default)]
pub struct Setting {
    /// The day, as ISO 8601 has it.
    pub date: String,
    /// What `git describe` says.
    pub version: String,
    /// Emulator, firmware and kernel, a line each.
    pub versions: Vec<String>,
    /// Crates of others in the hypervisor.
    pub dependencies: Vec<String>,
    /// Whether anything was measured now.
    pub is_new: bool,
    /// Version and day of earlier runs that the rest is taken from.
    pub earlier: Vec<String>,
}

impl Setting {
    /// All versions that figures are of.
    pub fn sources(&self) -> String {
        let now = format!("`{}` on {}", self.version, self.date);
        let all: Vec<String> = self
            .is_new
            .then_some(now)
            .into_iter()
            .chain(self.earlier.iter().cloned())
            .collect();
        all.join(", partly for ")
    }
}

/// The page.
pub fn markdown(setting: &Setting, rows: &[Row]) -> String {
    let mut text = head(setting);
    for group in Group::ALL {
        text += &section(group, setting, rows).unwrap_or_default();
    }
    text + &tail()
}

fn head(setting: &Setting) -> String {
    let mut text =
        format!("# What it costs\n\n{INTRODUCTION}\nWritten by `cargo xtask bench`, with:\n\n");
    for line in &setting.versions {
        let _ = writeln!(text, "- {line}");
    }
    text.push_str(
        "\n`cargo xtask bench --check` measures again and fails if a budget is missed; `--only exits`, `children`, `boot`, `child`, `storage`, \
         `memory`, `code` or the name of a figure measures less and leaves this page alone, but for `--page`, which renews the \
         sections of what was measured. `--json FILE` keeps the figures, and `--against FILE` compares those in instructions with \
         an earlier run's.\n",
    );
    text
}

fn tail() -> String {
    format!("\n## How well figures repeat\n\n{REPEATED}\n## How the peers were measured\n\n{PEER}")
}

/// The text of a group, with its heading, if anything of it was measured.
fn section(group: Group, setting: &Setting, rows: &[Row]) -> Option<String> {
    let of_group: Vec<&Row> = rows.iter().filter(|row| row.group == group).collect();
    if of_group.is_empty() {
        return None;
    }
    let mut text = format!("\n## {}\n\n", title(group));
    text.push_str("| figure | unit | AMD | Intel | budget | peer |\n|---|---|--:|--:|--:|---|\n");
    for row in of_group {
        let _ = writeln!(
            text,
            "| {} | {} | {} | {} | {} | {} |",
            row.name,
            row.unit,
            row.value_text(0),
            row.value_text(1),
            row.budget_text(),
            row.peer_text()
        );
    }
    text.push('\n');
    for figure in group.figures() {
        let _ = writeln!(text, "- **{}**: {}", figure.name, figure.meaning);
    }
    if group == Group::Code && !setting.dependencies.is_empty() {
        let list = setting.dependencies.join(", ");
        let _ = writeln!(text, "- Linked crates of others: {list}.");
    }
    text.push_str(note(group));
    let _ = writeln!(text, "\nMeasured for version {}.", setting.sources());
    Some(text)
}

/// The page `old` with the sections of `groups` as they were measured now.
pub fn renewed(old: &str, setting: &Setting, rows: &[Row], groups: &[Group]) -> String {
    let mut parts: Vec<String> = old
        .split("\n## ")
        .map(|part| format!("\n## {part}"))
        .collect();
    let is_of = |part: &str, group| part.starts_with(&format!("\n## {}\n", title(group)));
    let mut text = head(setting);
    for group in Group::ALL {
        let old = parts.iter_mut().find(|part| is_of(part, group));
        let new = if groups.contains(&group) {
            section(group, setting, rows)
        } else {
            None
        };
        text += &new.or_else(|| old.map(std::mem::take)).unwrap_or_default();
    }
    text + &tail()
}

/// The table in columns.
pub fn terminal(rows: &[Row]) -> String {
    let mut text = format!(
        "{:34} {:22} {:>16} {:>16} {:>9}  {}\n",
        "figure", "unit", "AMD", "Intel", "budget", "peer (AMD / Intel)"
    );
    for row in rows {
        let line = format!(
            "{:34} {:22} {:>16} {:>16} {:>9}  {}",
            row.name,
            row.unit,
            row.value_text(0),
            row.value_text(1),
            row.budget_text(),
            row.peer_text()
        );
        let _ = writeln!(text, "{}", line.trim_end());
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(group: Group, value: i64) -> Row {
        Row::plain(
            "cpuid".to_owned(),
            group,
            "instructions",
            [Some(value), None],
        )
    }

    #[test]
    fn a_partial_run_renews_its_sections_and_leaves_the_others() {
        let setting = Setting {
            date: "2026-01-02".to_owned(),
            version: "v1".to_owned(),
            is_new: true,
            ..Setting::default()
        };
        let rows = [row(Group::Exits, 1), row(Group::Memory, 2)];
        let old = markdown(&setting, &rows);
        let rows = [row(Group::Exits, 3), row(Group::Storage, 4)];
        let groups = [Group::Exits, Group::Storage, Group::Child];
        let new = renewed(&old, &setting, &rows, &groups);
        let at = |text: &str| new.find(text).unwrap();
        assert!(new.contains("| cpuid | instructions | 3 |"));
        assert!(!new.contains("| cpuid | instructions | 1 |"));
        assert!(at("| 4 |") < at("## Memory") && at("| 2 |") > at("## Memory"));
        assert!(at("## Memory") < at("## How the peers"));
        assert_eq!(renewed(&new, &setting, &rows, &groups), new);
    }
}
