//! Counters as text.

use std::fmt::Write;

use crate::layout::Counters;

/// A table: one line for each counter, one column for each VP. Counters that are 0 everywhere are left out unless
/// `all` asks for them.
pub fn text(counters: &Counters, all: bool) -> String {
    let name_width = counters.names.iter().map(String::len).max().unwrap_or(0);
    let widths: Vec<usize> = counters
        .vps
        .iter()
        .enumerate()
        .map(|(vp, row)| {
            let largest = row.iter().max().copied().unwrap_or(0);
            largest.to_string().len().max(format!("vp{vp}").len())
        })
        .collect();
    let mut text = format!("{:name_width$}", "counter");
    for (vp, width) in widths.iter().enumerate() {
        let _ = write!(text, "  {:>width$}", format!("vp{vp}"));
    }
    text.push('\n');
    for (index, name) in counters.names.iter().enumerate() {
        let values: Vec<u64> = counters
            .vps
            .iter()
            .filter_map(|row| row.get(index).copied())
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

/// `{"vps":[{"vp":0,"counters":{"exit.hlt":5}}]}`, with every counter.
pub fn json(counters: &Counters) -> String {
    let mut text = String::from("{\"vps\":[");
    for (vp, row) in counters.vps.iter().enumerate() {
        let comma = if vp == 0 { "" } else { "," };
        let _ = write!(text, "{comma}{{\"vp\":{vp},\"counters\":{{");
        for (index, (name, value)) in counters.names.iter().zip(row).enumerate() {
            let comma = if index == 0 { "" } else { "," };
            let _ = write!(text, "{comma}\"{}\":{value}", printable(name));
        }
        text.push_str("}}");
    }
    text.push_str("]}\n");
    text
}

/// The name without what would end a JSON string or move a terminal's cursor; the hypervisor uses none of these.
fn printable(name: &str) -> String {
    let is_plain = |c: char| c.is_ascii_graphic() && !matches!(c, '"' | '\\');
    name.chars()
        .map(|c| if is_plain(c) { c } else { '?' })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Counters {
        Counters {
            names: vec!["exit.hlt".into(), "exit.nmi".into(), "entries".into()],
            vps: vec![vec![12, 0, 123_456], vec![0, 0, 7]],
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
    fn json_names_every_counter() {
        let expected = "{\"vps\":[{\"vp\":0,\"counters\":{\"exit.hlt\":12,\"exit.nmi\":0,\"entries\":123456}},\
                        {\"vp\":1,\"counters\":{\"exit.hlt\":0,\"exit.nmi\":0,\"entries\":7}}]}\n";
        assert_eq!(json(&sample()), expected);
    }

    #[test]
    fn a_damaged_name_stays_inside_its_string() {
        let counters = Counters {
            names: vec!["a\"b\\c\x1b\n".into()],
            vps: vec![vec![1]],
        };
        assert_eq!(
            json(&counters),
            "{\"vps\":[{\"vp\":0,\"counters\":{\"a?b?c??\":1}}]}\n"
        );
    }
}
