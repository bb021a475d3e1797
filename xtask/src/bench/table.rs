//! The rows: what was measured beside what it may cost and what a peer takes.

use std::collections::BTreeSet;

use super::figures::{Figure, Group, Peer};
use super::image::Section;
use super::logs::Readings;

/// A row of the table.
#[derive(Clone, Debug)]
pub struct Row {
    /// Name of the figure.
    pub name: String,
    /// Where it belongs.
    pub group: Group,
    /// Its unit.
    pub unit: &'static str,
    /// On AMD, and on Intel; the same number twice where the machine does not matter.
    pub values: [Option<i64>; 2],
    /// The most that it may be.
    pub budget: Option<u64>,
    /// What others take.
    pub peer: Peer,
}

impl Row {
    /// A row with neither budget nor peer; `values` are AMD's and Intel's.
    pub fn plain(name: String, group: Group, unit: &'static str, values: [Option<i64>; 2]) -> Self {
        Self {
            name,
            group,
            unit,
            values,
            budget: None,
            peer: Peer::None,
        }
    }

    /// Whether a value is above the budget.
    pub fn is_missed(&self) -> bool {
        let budget = self.budget.and_then(|budget| i64::try_from(budget).ok());
        budget.is_some_and(|budget| self.values.iter().flatten().any(|&value| value > budget))
    }

    /// Budget as text.
    pub fn budget_text(&self) -> String {
        self.budget.map_or(String::new(), |budget| {
            with_commas(i64::try_from(budget).unwrap_or(i64::MAX))
        })
    }

    /// Peer as text.
    pub fn peer_text(&self) -> String {
        match self.peer {
            Peer::Kvm(amd, intel) => format!(
                "KVM {} / {}",
                with_commas(amd as i64),
                with_commas(intel as i64)
            ),
            Peer::Words(words) => words.to_owned(),
            Peer::None => String::new(),
        }
    }

    /// A value as text, marked if it misses the budget.
    pub fn value_text(&self, machine: usize) -> String {
        let Some(value) = self.values.get(machine).copied().flatten() else {
            return String::new();
        };
        let budget = self.budget.and_then(|budget| i64::try_from(budget).ok());
        let mark = if budget.is_some_and(|budget| value > budget) {
            " (!)"
        } else {
            ""
        };
        with_commas(value) + mark
    }
}

/// `1234567` as `1,234,567`.
pub fn with_commas(value: i64) -> String {
    let digits = value.unsigned_abs().to_string();
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index != 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    if value < 0 { format!("-{text}") } else { text }
}

/// The table. `measured` holds the readings of AMD and of Intel.
pub fn rows(measured: &[Readings; 2], sections: &[Section], groups: &[Group]) -> Vec<Row> {
    let value = |name: &str| {
        measured
            .each_ref()
            .map(|readings| readings.get(name).map(|&value| value as i64))
    };
    let mut rows = Vec::new();
    for &group in groups {
        for figure in group.figures() {
            let Figure {
                name,
                unit,
                budget,
                peer,
                ..
            } = *figure;
            let row = Row {
                name: name.to_owned(),
                group,
                unit,
                values: value(name),
                budget,
                peer,
            };
            if row.values != [None; 2] {
                rows.push(row);
            }
        }
        let names: BTreeSet<&String> = measured.iter().flat_map(Readings::keys).collect();
        let listed = |prefix: &str| -> Vec<&String> {
            names
                .iter()
                .filter(|name| name.starts_with(prefix))
                .copied()
                .collect()
        };
        match group {
            Group::Boot => {
                let mut exits: Vec<Row> = [
                    "exit.",
                    "apic.",
                    "interrupt.",
                    "port.",
                    "pci.",
                    "msr.",
                    "memory.",
                ]
                .iter()
                .flat_map(|prefix| listed(prefix))
                .map(|name| Row::plain(format!("boot {name}"), group, "times", value(name)))
                .collect();
                exits.sort_by_key(|row| {
                    (
                        !row.name.starts_with("boot exit."),
                        -row.values[0].or(row.values[1]).unwrap_or(0),
                    )
                });
                rows.extend(exits);
            }
            Group::Child | Group::Storage => {
                let prefix = format!("{}-", group.name());
                let mut parts: Vec<Row> = listed(&prefix)
                    .into_iter()
                    .filter_map(|name| {
                        let (what, reason) = name.split_once('.')?;
                        let (label, unit) = match reason.split_once('.') {
                            Some((whose @ ("child" | "parent"), reason)) => {
                                (format!("{what}.{whose} {reason}"), "per 1,000 requests")
                            }
                            _ => (format!("{what} {reason}"), "times"),
                        };
                        Some(Row::plain(label, group, unit, value(name)))
                    })
                    .collect();
                let whose = |row: &Row| row.name.split(' ').next().unwrap_or("").to_owned();
                parts.sort_by_key(|row| {
                    (
                        whose(row),
                        !row.name.contains(" exit."),
                        -row.values[0].or(row.values[1]).unwrap_or(0),
                    )
                });
                rows.extend(parts);
            }
            Group::Memory => {
                for section in sections {
                    let bytes = Some(section.bytes as i64);
                    rows.push(Row::plain(
                        format!("section {}", section.name),
                        group,
                        if section.is_in_file {
                            "bytes"
                        } else {
                            "bytes, zeroed"
                        },
                        [bytes, bytes],
                    ));
                }
                for name in listed("memory-") {
                    rows.push(Row::plain(name.clone(), group, "bytes", value(name)));
                }
            }
            Group::Code => {
                let lines = listed("code-lines.");
                let mut crates: Vec<Row> = lines
                    .iter()
                    .filter_map(|name| {
                        let (_, path) = name.split_once('.')?;
                        let label = format!("code {path}");
                        Some(Row::plain(label, group, "lines", value(name)))
                    })
                    .collect();
                crates.sort_by_key(|row| -row.values[0].unwrap_or(0));
                rows.extend(crates);
            }
            Group::Exits | Group::Children => {}
        }
    }
    rows
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_grouped_by_threes() {
        assert_eq!(with_commas(0), "0");
        assert_eq!(with_commas(1_234_567), "1,234,567");
        assert_eq!(with_commas(-123), "-123");
    }

    #[test]
    fn a_value_above_its_budget_is_marked() {
        let over: Readings = [("cpuid".to_owned(), 251)].into();
        let rows = rows(&[over, Readings::new()], &[], &[Group::Exits]);
        assert_eq!(rows.len(), 1);
        assert!(rows[0].is_missed());
        assert_eq!(rows[0].value_text(0), "251 (!)");
        assert_eq!(rows[0].value_text(1), "");
    }

    #[test]
    fn reasons_of_a_childs_exits_follow_its_figures() {
        let measured: Readings = [
            ("child-boot-init", 7),
            ("child-boot.exit.io", 3),
            ("child-boot.exit.hlt", 4),
            ("child-boot.entries", 9),
            ("child-cpuid", 1),
            ("storage-read-1.parent.exit.io", 8),
        ]
        .into_iter()
        .map(|(name, value)| (name.to_owned(), value))
        .collect();
        let rows = rows(
            &[measured, Readings::new()],
            &[],
            &[Group::Child, Group::Storage],
        );
        let names: Vec<&str> = rows.iter().map(|row| &*row.name).collect();
        assert_eq!(
            names,
            [
                "child-boot-init",
                "child-boot exit.hlt",
                "child-boot exit.io",
                "child-boot entries",
                "storage-read-1.parent exit.io"
            ]
        );
    }

    #[test]
    fn negative_values_miss_no_budget() {
        let less: Readings = [("boot-init-more".to_owned(), -5_i64 as u64)].into();
        let rows = rows(&[less.clone(), less], &[], &[Group::Boot]);
        assert!(!rows[0].is_missed());
        assert_eq!(rows[0].value_text(0), "-5");
    }
}
