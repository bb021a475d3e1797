//! QEMU: the command line of a machine, and the events it reports.

use std::fs::OpenOptions;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::Command;
use std::sync::OnceLock;
use std::sync::mpsc::Sender;
use std::time::Duration;

use anyhow::Result;

use crate::emulator::Emulators;
use crate::files::RunFiles;
use crate::machine::{Bus, Console, Machine};
use crate::session::Event;
use crate::tether;

/// The command that starts `machine`.
pub fn command(
    emulators: &Emulators,
    machine: &Machine,
    files: &RunFiles,
    console: Console,
) -> Result<Command> {
    let firmware = &emulators.firmware;
    std::fs::copy(&firmware.variables, files.firmware_variables())?;
    let is_kvm = machine.may_use_kvm && emulators.nested_kvm;

    // On a terminal it has keys and echo to put back.
    let end = match console {
        Console::Terminal => tether::AtDeath::Terminate,
        Console::File => tether::AtDeath::Kill,
    };
    let mut qemu = emulators.qemu.command(end);
    qemu.args([
        "-nodefaults",
        "-no-user-config",
        "-display",
        "none",
        "-vga",
        "std",
    ])
    .args(["-machine", "q35", "-name", "verdigris"])
    .args(["-accel", if is_kvm { "kvm" } else { "tcg,thread=multi" }])
    .args(["-cpu", &processor(machine, is_kvm)])
    .args(["-smp", &machine.processors.to_string()])
    .args(["-m", &machine.memory_mib.to_string()])
    .args(["-rtc", "base=utc"])
    .args(["-device", "isa-debug-exit,iobase=0xf4,iosize=0x04"])
    .arg("-drive")
    .arg(flash(&firmware.code, "on"))
    .arg("-drive")
    .arg(flash(&files.firmware_variables(), "off"))
    .arg("-qmp")
    .arg(format!(
        "unix:{},server=on,wait=off",
        files.monitor().display()
    ));
    match console {
        Console::Terminal => qemu.args(["-serial", "mon:stdio"]),
        Console::File => qemu
            .arg("-serial")
            .arg(format!("file:{}", files.parent_console().display())),
    };
    qemu.arg("-serial")
        .arg(format!("file:{}", files.hypervisor_log().display()));
    if machine.ends_at_reset {
        qemu.arg("-no-reboot");
    }
    for (number, disk) in machine.disks.iter().enumerate() {
        qemu.arg("-drive").arg(format!(
            "if=none,id=disk{number},format=raw,snapshot={},file={}",
            if disk.is_volatile { "on" } else { "off" },
            disk.image.display()
        ));
        let device = match disk.bus {
            Bus::Ahci => format!("ide-hd,drive=disk{number},bus=ide.{number}"),
            Bus::Nvme => format!("nvme,drive=disk{number},serial=disk{number}"),
            Bus::Virtio => format!("virtio-blk-pci,drive=disk{number},serial=disk{number}"),
            Bus::Usb => {
                qemu.args(["-device", &format!("qemu-xhci,id=usb{number}")]);
                format!("usb-storage,drive=disk{number},bus=usb{number}.0")
            }
        };
        let order = if number == 0 { ",bootindex=0" } else { "" };
        qemu.arg("-device").arg(device + order);
    }
    qemu.args(&machine.qemu_arguments);
    Ok(qemu)
}

fn flash(image: &Path, read_only: &str) -> String {
    format!(
        "if=pflash,format=raw,readonly={read_only},file={}",
        image.display()
    )
}

fn processor(machine: &Machine, is_kvm: bool) -> String {
    let mut text = String::from(if is_kvm { "host" } else { "max" });
    if !machine.has_virtualization {
        text.push_str(if is_kvm { ",-svm,-vmx" } else { ",-svm" });
    } else if !is_kvm {
        text.push_str(",+svm");
    }
    for feature in &machine.features {
        text.push(',');
        text.push_str(feature);
    }
    text
}

/// The way to ask a running QEMU something, once [`listen`] has it.
pub type Speaker = OnceLock<UnixStream>;

/// Lets QEMU tell, twice, what each of `vps` processors is doing, what lies on its stack, and which interrupts wait for it: of
/// a machine that hangs it is all there is to go by. [`listen`] writes the answers down. Takes a second.
pub fn ask_for_registers(speaker: &Speaker, vps: u32) {
    let Some(mut stream) = speaker.get() else {
        return;
    };
    let mut questions = vec![
        human_command("info registers -a", 0),
        human_command("info pic", 0),
    ];
    for id in 0..vps {
        questions.push(human_command(&format!("info lapic {id}"), id));
        questions.push(human_command("x /12i $rip", id));
        questions.push(human_command("x /128gx $rsp", id));
    }
    for _ in 0..2 {
        for question in &questions {
            // Where it does not listen any more there is nothing to be had.
            let _ = stream.write_all(question.as_bytes());
        }
        std::thread::sleep(Duration::from_millis(500));
    }
}

/// Stops the machine and lets it go on.
pub fn jolt(speaker: &Speaker) {
    if let Some(mut stream) = speaker.get() {
        // An error means that QEMU has ended, which its process tells.
        let _ = stream.write_all(b"{\"execute\":\"stop\"}\n{\"execute\":\"cont\"}\n");
    }
}

/// A command of the human monitor, as processor `id` sees the machine, in words of the machine protocol.
fn human_command(command: &str, id: u32) -> String {
    format!(
        "{{\"execute\":\"human-monitor-command\",\"arguments\":{{\"command-line\":\"{command}\",\"cpu-index\":{id}}}}}\n"
    )
}

/// Listens to QEMU's machine protocol until QEMU ends, and passes on what concerns a verdict. What [`ask_for_registers`]
/// is answered goes into the file `answers`.
pub fn listen(monitor: &Path, events: &Sender<Event>, speaker: &Speaker, answers: &Path) {
    // QEMU makes the socket soon after it starts.
    let mut attempts = 0;
    let stream = loop {
        match UnixStream::connect(monitor) {
            Ok(stream) => break stream,
            Err(_) if attempts < 200 => attempts += 1,
            Err(_) => return,
        }
        std::thread::sleep(Duration::from_millis(50));
    };
    let Ok(mut writer) = stream.try_clone() else {
        return;
    };
    if writer
        .write_all(b"{\"execute\":\"qmp_capabilities\"}\n")
        .is_err()
    {
        return;
    }
    let _ = speaker.set(writer);
    for line in BufReader::new(stream).lines().map_while(Result::ok) {
        if let Some(text) = answer(&line) {
            let file = OpenOptions::new().create(true).append(true).open(answers);
            let _ = file.and_then(|mut file| file.write_all(text.as_bytes()));
        }
        if let Some(event) = parse_event(&line)
            && events.send(event).is_err()
        {
            return;
        }
    }
}

/// The text of an answer to a command of the human monitor.
fn answer(line: &str) -> Option<String> {
    let text = line.strip_prefix("{\"return\": \"")?;
    let text = text.trim_end().strip_suffix("\"}")?;
    Some(text.replace("\\r\\n", "\n") + "\n")
}

fn parse_event(line: &str) -> Option<Event> {
    let is = |name: &str| line.contains(&format!("\"event\": \"{name}\""));
    if is("SHUTDOWN") {
        // With -no-reboot a reset is reported as a shutdown with this reason.
        let is_reset = line.contains("guest-reset") || line.contains("subsystem-reset");
        Some(if is_reset {
            Event::Reset
        } else {
            Event::PowerOff
        })
    } else if is("RESET") && line.contains("\"guest\": true") {
        Some(Event::Reset)
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_of_the_monitor_is_text() {
        let line = r#"{"return": "CPU#0\r\nRAX=0\r\n"}"#;
        assert_eq!(answer(line).as_deref(), Some("CPU#0\nRAX=0\n\n"));
        assert_eq!(answer(r#"{"return": {}}"#), None);
    }

    #[test]
    fn a_reset_that_ends_the_machine_is_not_a_power_off() {
        let line = r#"{"timestamp": {"seconds": 1}, "event": "SHUTDOWN", "data": {"guest": true, "reason": "guest-reset"}}"#;
        assert_eq!(parse_event(line), Some(Event::Reset));
        let line = r#"{"event": "SHUTDOWN", "data": {"guest": true, "reason": "guest-shutdown"}}"#;
        assert_eq!(parse_event(line), Some(Event::PowerOff));
        assert_eq!(parse_event(r#"{"return": {}}"#), None);
    }
}
