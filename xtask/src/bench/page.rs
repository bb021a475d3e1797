//! `docs/benchmarks.md`, the table on the terminal, and JSON.

use std::fmt::Write as _;

use anyhow::Result;
use serde_json::{Value, json};

use super::figures::Group;
use super::logs::Readings;
use super::table::{Row, with_commas};

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
    fn sources(&self) -> String {
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

const INTRODUCTION: &str = "\
Verdigris is a hypervisor: a program that owns the processor and lets operating systems run in *partitions* of it. \
The first partition, the *parent*, is Debian with the machine's own devices. It makes the others, *children*, which have \
virtual processors (VPs), memory that the parent gave, and devices that a program in the parent, the *worker*, plays for them. \
When a partition does something that the hypervisor has to see, the processor leaves it (an *exit*), the hypervisor does its \
work, and the partition goes on. What an exit costs and how many there are decide how much slower a machine is under a \
hypervisor.

We measure on emulated machines, because there a figure means the same on every computer. Bochs runs one instruction \
at a time and, set up as here, its time-stamp counter advances by one for each. So the difference of two readings is \
the number of instructions between them, in the partition and in the hypervisor together. What the figures do not show is what \
real processors add: the switch out of a partition and back takes hundreds of cycles of its own there, and memory has caches.

*AMD* is Bochs with a Ryzen processor and AMD-V, *Intel* is Bochs with a Haswell and VT-x, each with one processor and \
2 GiB, if nothing else is said. **(!)** marks a value above its budget. A *peer* is what others take for the same; where it has \
two numbers, the first is AMD's.
";

const PEER: &str = "\
KVM's figures come from the same two machines: Debian's cloud kernel 7.3.4 with its KVM and QEMU 10.0 was the \
hypervisor, and the `vmexit` test of kvm-unit-tests its guest, which times each operation with the time-stamp counter as we do. \
Its hypercall is one with an unknown number, and its port read one that the kernel answers by itself. A port read that QEMU had \
to answer took 5,573 on AMD and 10,081 on Intel. Code lines of other hypervisors were counted beforehand, and maybe by other rules; the devices that \
Linux runs beside KVM are not among them. Microsoft's size is a statement of theirs.

\
The boot of a child under KVM is the same kernel until its first process, with QEMU's q35 machine and a serial console, on an \
emulated AMD processor. Its 4.7 exits for each request are of direct reads of 4 KiB from virtio-blk with an I/O thread, one at \
a time.
";

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
    format!("\n## How the peers were measured\n\n{PEER}")
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

fn title(group: Group) -> &'static str {
    match group {
        Group::Exits => "Exits that the hypervisor answers",
        Group::Children => "Children",
        Group::Boot => "Debian's boot in the parent",
        Group::Child => "A Debian child",
        Group::Storage => "A child's disk",
        Group::Memory => "Memory",
        Group::Code => "Code",
    }
}

fn note(group: Group) -> &'static str {
    match group {
        Group::Exits => {
            "\nEach is the mean of 1,000 in a row, without the cost of measuring, and includes the guest's own \
             instructions: one for CPUID; a call, the hypercall and a return for hypercalls.\n"
        }
        Group::Children => {
            "\nMeans of 1,000 in a row (100 for the timer, 256 and 16 for pages), by tiny guests, on one processor that child and \
             parent share, but for `child-ipi-running`. The parent is a small program too, so that hardly anything is counted but \
             the hypervisor; with Debian in its place see `child-port`. `child-cpuid` has three instructions of its loop in it, \
             `child-hypercall` some ten.\n\nMapping a large page costs what it does because each of its 512 frames has an owner \
             and a count of uses, which are checked and changed one by one; unmaking does so again. It is done once in a child's \
             life. The tables of a child grow by a frame for each GiB that is mapped in large pages, and by one for each 2 MiB that \
             is mapped in small ones. A timer is late by the way out of the processor's sleep: the physical interrupt, the choice \
             of who runs, the synthetic timer's message or interrupt, the entry.\n"
        }
        Group::Boot => {
            "\nTimes are ticks of the time-stamp counter since the kernel's first line. The counter also runs while the \
             processor sleeps, which `boot-busy-more` takes off. The rows `boot exit.NAME` are exits by reason, from the \
             hypervisor's own counters; the rows after them tell what some of these were about. `docs/diagnostics.md` \
             explains the names.\n\nThe clock is most of the difference. `cargo xtask profile boot` shows where the instructions of such \
             an exit go: while the kernel works, its timer interrupts it 1,600 times in each second, 1,000 of them ticks and the \
             others ends of the scheduler's slices of 0.7 ms. Each is two exits, the interrupt and the write of the next deadline, \
             of 2,270 instructions together, spread over some thirty functions; its end mostly costs no exit, which the assist \
             page is for. The emulated processor runs 100 million instructions per second, so that this is 3.6 % of what it \
             does. On a processor that runs thirty times as many it is a thirtieth of that. The remainder is the kernel's own: \
             its longer way through an interrupt of a synthetic timer, and the connection to VMBus with its nine devices, which \
             the bare machine does not have. Debian boots with `quiet` on both, or the waits for the serial port would count the \
             characters of the kernel's messages.\n"
        }
        Group::Child => {
            "\nDebian makes the child in the parent, with `vmctl`; both share the machine's one processor, or two on QEMU. The rows \
             `child-boot exit.NAME` are exits by reason until the first program, from `vgstat children`. Here *AMD* is QEMU, \
             whose clock is the host's: it counts no instructions, and the more time its host leaves it, the fewer timer \
             interrupts there are in a figure. Accesses to ports are most of a boot that prints; the kernel makes two for each \
             character on its serial console. `child-port` is the mean of all accesses while a program of the child reads its \
             real-time clock, and has the child's own instructions in it.\n"
        }
        Group::Storage => {
            "\nfio in the child, random requests with `O_DIRECT`, one processor for child and parent together, or two on QEMU. The \
             image lies in the parent's memory, so that no device has a part in the figures. Each figure is the difference of a \
             run of 2,200 requests and one of 200. At depth 1 the worker sleeps between requests; at depth 32, with a processor of \
             its own (QEMU), it mostly finds the next one by looking (it *polls*), and signals are rare. On one processor (Bochs) it \
             is done with a request before the child goes on to the next, and depth changes nothing. Its system calls for a request at depth 1: `poll`, `read` of \
             the doorbell and `futex`, and of a thread of its pool `futex`, `pread` or `pwrite` of the image and `write`, the \
             signal to the child. The \
             rows `NAME.child REASON` and `NAME.parent REASON` say what the exits were and which interrupts came; `exit.wrmsr` of \
             the parent are ends of interrupts and its timer, set anew with each sleep. Here *AMD* is QEMU, whose clock is the \
             host's: timer interrupts are as many as the host is slow.\n"
        }
        Group::Memory => {
            "- **section NAME**: the parts of the hypervisor's file that are in memory; *zeroed* ones take no room in the \
             file.\n- **memory-block**: what the hypervisor keeps from the parent for good. **memory-image** is its file in \
             memory; **memory-free** is the part of the block that nothing uses yet; the other rows say what uses the \
             rest.\n"
        }
        Group::Code => {
            "- **code PATH**: the lines of one crate.\n\nThe budget was the size of NOVA, which leaves to programs outside what \
             this interface has inside: the VMBus server, the channels to the parent's programs with their rings, ports, \
             messages and synthetic timers, the registers of VPs by name, and state that can be saved. Those crates and \
             their part of `src/hv` are nearly half of the lines. Both vendors are in every build. Text is laid out by `rustfmt`, \
             which gives a call with many arguments a line for each.\n"
        }
    }
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
    use super::super::figures::Peer;
    use super::*;

    fn row(group: Group, value: i64) -> Row {
        Row {
            name: "cpuid".to_owned(),
            group,
            unit: "instructions",
            values: [Some(value), None],
            budget: None,
            peer: Peer::None,
        }
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
