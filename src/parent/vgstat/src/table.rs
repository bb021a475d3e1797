//! Counters and uses of memory as text.

use std::fmt::Write;

use crate::layout::{Counters, MemoryUse, VpCounters};

/// A table: one line for each counter, one column for each VP. Counters that are 0 everywhere are left out unless
/// `all` asks for them.
pub fn text(counters: &Counters, all: bool) -> String {
    let name_width = counters.names.iter().map(String::len).max().unwrap_or(0);
    let widths: Vec<usize> = counters
        .vps
        .iter()
        .map(|row| {
            let largest = row.values.iter().max().copied().unwrap_or(0);
            largest.to_string().len().max(heading(row).len())
        })
        .collect();
    let mut text = format!("{:name_width$}", "counter");
    for (row, width) in counters.vps.iter().zip(&widths) {
        let _ = write!(text, "  {:>width$}", heading(row));
    }
    text.push('\n');
    for (index, name) in counters.names.iter().enumerate() {
        let values: Vec<u64> = counters
            .vps
            .iter()
            .filter_map(|row| row.values.get(index).copied())
            .collect();
        if !all && values.iter().all(|value| *value == 0) {
            continue;
        }
        let _ = write!(text, "{:name_width$}", printable(name));
        for (value, width) in values.iter().zip(&widths) {
            let _ = write!(text, "  {value:>width$}");
        }
        text.push('\n');
    }
    text
}

/// Of a column: `vp0`, or `0x2.vp0` for a child.
fn heading(row: &VpCounters) -> String {
    match row.partition {
        Some(partition) => format!("{partition:#x}.vp{}", row.vp),
        None => format!("vp{}", row.vp),
    }
}

/// `{"vps":[{"vp":0,"counters":{"exit.hlt":5}}]}`, with every counter, and each child's with its `partition`.
pub fn json(counters: &Counters) -> String {
    let mut text = String::from("{\"vps\":[");
    for (index, row) in counters.vps.iter().enumerate() {
        let comma = if index == 0 { "" } else { "," };
        let _ = write!(text, "{comma}{{");
        if let Some(partition) = row.partition {
            let _ = write!(text, "\"partition\":{partition},");
        }
        let _ = write!(text, "\"vp\":{},\"counters\":{{", row.vp);
        for (index, (name, value)) in counters.names.iter().zip(&row.values).enumerate() {
            let comma = if index == 0 { "" } else { "," };
            let _ = write!(text, "{comma}\"{}\":{value}", printable(name));
        }
        text.push_str("}}");
    }
    text.push_str("]}\n");
    text
}

/// A table: what memory is used for, and how much of it, in KiB, with the sum.
pub fn memory(uses: &[MemoryUse]) -> String {
    let sum = MemoryUse {
        name: "all".to_owned(),
        bytes: uses.iter().map(|one| one.bytes).sum(),
    };
    let rows = || uses.iter().chain([&sum]);
    let name_width = rows().map(|one| one.name.len()).max().unwrap_or(0);
    let width = (sum.bytes / 1024).to_string().len().max("KiB".len());
    let mut text = format!("{:name_width$}  {:>width$}\n", "use", "KiB");
    for one in rows() {
        let name = printable(&one.name);
        let _ = writeln!(text, "{name:name_width$}  {:>width$}", one.bytes / 1024);
    }
    text
}

/// `{"memory":{"slat":4096}}`, in bytes.
pub fn memory_json(uses: &[MemoryUse]) -> String {
    let fields: Vec<String> = uses
        .iter()
        .map(|one| format!("\"{}\":{}", printable(&one.name), one.bytes))
        .collect();
    format!("{{\"memory\":{{{}}}}}\n", fields.join(","))
}

/// The name without what would end a JSON string or move a terminal's cursor; the hypervisor uses none of these.
fn printable(name: &str) -> String {
    let is_plain = |c: char| (c.is_ascii_graphic() || c == ' ') && !matches!(c, '"' | '\\');
    name.chars()
        .map(|c| if is_plain(c) { c } else { '?' })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(partition: Option<u64>, vp: u64, values: &[u64]) -> VpCounters {
        VpCounters {
            partition,
            vp,
            values: values.to_vec(),
        }
    }

    fn sample() -> Counters {
        Counters {
            names: vec!["exit.hlt".into(), "exit.nmi".into(), "entries".into()],
            vps: vec![row(None, 0, &[12, 0, 123_456]), row(None, 1, &[0, 0, 7])],
        }
    }

    #[test]
    fn columns_are_aligned_and_zeroes_left_out() {
        let expected = "counter      vp0  vp1\n\
                        exit.hlt      12    0\n\
                        entries   123456    7\n";
        assert_eq!(text(&sample(), false), expected);
        assert!(text(&sample(), true).contains("exit.nmi       0    0\n"));
    }

    #[test]
    fn children_are_told_by_their_partitions() {
        let counters = Counters {
            names: vec!["entries".into()],
            vps: vec![row(Some(0x12), 1, &[5])],
        };
        assert_eq!(
            text(&counters, false),
            "counter  0x12.vp1\nentries         5\n"
        );
        assert_eq!(
            json(&counters),
            "{\"vps\":[{\"partition\":18,\"vp\":1,\"counters\":{\"entries\":5}}]}\n"
        );
    }

    #[test]
    fn json_names_every_counter() {
        let expected = "{\"vps\":[{\"vp\":0,\"counters\":{\"exit.hlt\":12,\"exit.nmi\":0,\"entries\":123456}},\
                        {\"vp\":1,\"counters\":{\"exit.hlt\":0,\"exit.nmi\":0,\"entries\":7}}]}\n";
        assert_eq!(json(&sample()), expected);
    }

    #[test]
    fn memory_is_added_up() {
        let uses = [("slat", 36_864), ("frame owners", 4_096_000)].map(|(name, bytes)| MemoryUse {
            name: name.to_owned(),
            bytes,
        });
        let expected = "use            KiB\n\
                        slat            36\n\
                        frame owners  4000\n\
                        all           4036\n";
        assert_eq!(memory(&uses), expected);
        assert_eq!(
            memory_json(&uses),
            "{\"memory\":{\"slat\":36864,\"frame owners\":4096000}}\n"
        );
        assert_eq!(memory_json(&[]), "{\"memory\":{}}\n");
    }

    #[test]
    fn a_damaged_name_stays_inside_its_string() {
        let counters = Counters {
            names: vec!["a\"b\\c\x1b\n".into()],
            vps: vec![row(None, 0, &[1])],
        };
        assert_eq!(
            json(&counters),
            "{\"vps\":[{\"vp\":0,\"counters\":{\"a?b?c??\":1}}]}\n"
        );
    }
}
