//! Figures in a file, as JSON: written, filled in from, and compared with.

use anyhow::Result;
use serde_json::{Value, json};

use super::logs::Readings;
use super::page::Setting;
use super::table::{Row, with_commas};

/// The rows for programs: an object with `version`, `date`, a list `figures`, and all readings of each column.
pub fn json(setting: &Setting, rows: &[Row], measured: &[Readings; 2]) -> String {
    let figures: Vec<Value> = rows
        .iter()
        .map(|row| {
            json!({
                "name": row.name,
                "group": row.group.name(),
                "unit": row.unit,
                "amd": row.values[0],
                "intel": row.values[1],
                "budget": row.budget,
            })
        })
        .collect();
    let [amd, intel] = measured;
    let all = json!({
        "version": setting.version,
        "date": setting.date,
        "sources": setting.sources(),
        "figures": figures,
        "readings": [amd, intel],
    });
    format!("{all:#}\n")
}

/// Adds readings of [`json`]'s `text` where `measured` has none; says which versions they are of.
pub fn join(measured: &mut [Readings; 2], text: &str) -> Result<String> {
    let mut all: Value = serde_json::from_str(text)?;
    let earlier: [Readings; 2] = serde_json::from_value(all["readings"].take())?;
    for (readings, earlier) in measured.iter_mut().zip(earlier) {
        for (name, value) in earlier {
            readings.entry(name).or_insert(value);
        }
    }
    Ok(serde_json::from_value(all["sources"].take())?)
}

/// What [`compare`] found.
#[derive(Debug, PartialEq, Eq)]
pub struct Compared {
    /// Values that were compared.
    pub count: usize,
    /// A line for each that differs.
    pub differences: Vec<String>,
}

/// Compares the figures in instructions with those of [`json`]'s `text`; what differs by more than 0.5 % is named.
pub fn compare(rows: &[Row], text: &str) -> Result<Compared> {
    let mut all: Value = serde_json::from_str(text)?;
    let earlier: Vec<Value> = serde_json::from_value(all["figures"].take())?;
    let mut compared = Compared {
        count: 0,
        differences: Vec::new(),
    };
    for row in rows
        .iter()
        .filter(|row| row.unit.starts_with("instructions"))
    {
        let Some(before) = earlier.iter().find(|figure| figure["name"] == row.name) else {
            continue;
        };
        for (now, column) in row.values.into_iter().zip(["amd", "intel"]) {
            let (Some(now), Some(before)) = (now, before[column].as_i64()) else {
                continue;
            };
            compared.count += 1;
            let difference = (now as f64 / before as f64 - 1.0) * 100.0;
            // Not a number where both are 0, which is no difference.
            if difference.abs() > 0.5 {
                compared.differences.push(format!(
                    "{} ({column}): {}, before {} ({difference:+.1} %)",
                    row.name,
                    with_commas(now),
                    with_commas(before)
                ));
            }
        }
    }
    Ok(compared)
}

#[cfg(test)]
mod tests {
    use super::super::figures::Group;
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
    fn an_earlier_run_fills_what_is_missing() {
        let readings = |value| Readings::from([("cpuid".to_owned(), value)]);
        let measured = [readings(1), readings(u64::MAX)];
        let text = json(&Setting::default(), &[row(Group::Exits, 1)], &measured);
        let mut measured = [readings(3), Readings::new()];
        join(&mut measured, &text).unwrap();
        assert_eq!(measured, [readings(3), readings(u64::MAX)]);
    }

    #[test]
    fn two_runs_are_compared_where_both_measured() {
        let before = json(
            &Setting::default(),
            &[row(Group::Exits, 1000)],
            &Default::default(),
        );
        let compared = |value| compare(&[row(Group::Exits, value)], &before).unwrap();
        for (value, differs) in [(1000, false), (1005, false), (1006, true), (994, true)] {
            let compared = compared(value);
            assert_eq!(
                (compared.count, compared.differences.len() == 1),
                (1, differs)
            );
        }
        assert_eq!(
            compared(2000).differences,
            ["cpuid (amd): 2,000, before 1,000 (+100.0 %)"]
        );
        let mut exits = row(Group::Exits, 2000);
        exits.unit = "exits";
        assert_eq!(compare(&[exits], &before).unwrap().count, 0);
    }
}
