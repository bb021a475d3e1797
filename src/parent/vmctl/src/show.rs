//! Children as text.

use std::fmt::Write;
use std::time::{Duration, UNIX_EPOCH};

use vmms_proto::ChildInfo;

/// One line for each.
pub fn table(children: &[ChildInfo]) -> String {
    let width = children.iter().map(|child| child.name.len()).max();
    let width = width.unwrap_or(0).max("NAME".len());
    let mut text = format!("{:width$}  STATE     VPS  MEMORY  SLOT  ABOUT\n", "NAME");
    for child in children {
        let slot = child.slot.map_or_else(|| "-".to_owned(), |n| n.to_string());
        let about = match (&child.error, &child.last_end) {
            (Some(error), _) => error.lines().next().unwrap_or_default(),
            (None, Some(end)) if child.partition.is_none() => end,
            _ if child.crashes > 0 => "its kernel reported a crash",
            _ => "",
        };
        let line = format!(
            "{:width$}  {:8}  {:>3}  {:>6}  {slot:>4}  {about}",
            child.name,
            child.state,
            child.vps,
            size(child.memory_bytes),
        );
        let _ = writeln!(text, "{}", line.trim_end());
    }
    text
}

/// Everything about one.
pub fn one(child: &ChildInfo) -> String {
    let mut text = String::new();
    let mut line = |name: &str, value: &str| {
        let _ = writeln!(text, "{name:13} {value}");
    };
    line("name", &child.name);
    line("state", &child.state.to_string());
    if let Some(error) = &child.error {
        line("error", error);
        return text;
    }
    line("vps", &child.vps.to_string());
    line("memory", &size(child.memory_bytes));
    line("kernel", &child.kernel);
    if let Some(initrd) = &child.initrd {
        line("initrd", initrd);
    }
    line("command line", &child.command_line);
    for disk in &child.disks {
        let kind = if disk.cdrom { "cdrom" } else { "disk" };
        let access = if disk.read_only { ", read-only" } else { "" };
        line(
            &format!("{kind} {}", disk.lun),
            &format!("{} ({}{access})", disk.path, disk.format),
        );
    }
    line("restart", &child.restart);
    line("on crash", &child.on_crash);
    line("autostart", if child.autostart { "yes" } else { "no" });
    if let Some(partition) = child.partition {
        line("partition", &format!("{partition:#x}"));
    }
    if let Some(slot) = child.slot {
        line("slot", &slot.to_string());
    }
    if let Some(worker) = child.worker {
        line("worker", &format!("process {worker}"));
    }
    line("starts", &child.starts.to_string());
    if let Some(end) = &child.last_end {
        line("last end", end);
    }
    if let Some(crash) = &child.last_crash {
        let at = UNIX_EPOCH + Duration::from_secs(crash.time);
        let ago = at.elapsed().map_or(0, |ago| ago.as_secs());
        let count = child.crashes;
        line("crashes", &format!("{count}, the last {ago} seconds ago"));
        let [first, second, third, fourth, fifth] = crash.parameters;
        let all = format!("{first:#x} {second:#x} {third:#x} {fourth:#x} {fifth:#x}");
        line("crash", &all);
        let words = crash.text.iter().flat_map(|text| text.lines());
        words.for_each(|words| line("last words", words));
    }
    text
}

fn size(bytes: u64) -> String {
    match bytes {
        0 => "-".to_owned(),
        bytes if bytes.is_multiple_of(1 << 30) => format!("{}G", bytes >> 30),
        bytes => format!("{}M", bytes >> 20),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use vmms_proto::{ChildState, CrashInfo, DiskInfo};

    #[test]
    fn a_table_has_a_line_for_each() {
        let children = [
            ChildInfo {
                name: "web".into(),
                state: ChildState::Running,
                vps: 2,
                memory_bytes: 512 << 20,
                slot: Some(0),
                partition: Some(2),
                last_end: Some("it reset itself".into()),
                ..ChildInfo::default()
            },
            ChildInfo {
                name: "broken-one".into(),
                error: Some("x.toml: vps = 0\nmore".into()),
                ..ChildInfo::default()
            },
        ];
        assert_eq!(
            table(&children),
            "NAME        STATE     VPS  MEMORY  SLOT  ABOUT\n\
             web         running     2    512M     0\n\
             broken-one  stopped     0       -     -  x.toml: vps = 0\n"
        );
    }

    #[test]
    fn one_child_is_shown_whole() {
        let child = ChildInfo {
            name: "web".into(),
            memory_bytes: 3 << 30,
            partition: Some(0x12),
            last_end: Some("it reset itself".into()),
            crashes: 2,
            last_crash: Some(CrashInfo {
                parameters: [0, 0, 0, 0x7000, 17],
                text: Some("Kernel panic\nlast".into()),
                ..CrashInfo::default()
            }),
            disks: vec![DiskInfo {
                path: "/a".into(),
                format: "raw".into(),
                read_only: true,
                ..DiskInfo::default()
            }],
            ..ChildInfo::default()
        };
        let text = one(&child);
        for line in [
            "memory        3G",
            "disk 0        /a (raw, read-only)",
            "partition     0x12",
            "crash         0x0 0x0 0x0 0x7000 0x11",
            "last words    last",
        ] {
            assert!(text.contains(line), "{text}");
        }
    }
}
