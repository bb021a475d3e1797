//! Bochs: the configuration file of a machine, and what its log tells.

use std::fmt::Write as _;
use std::fs::{self, File};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};

use crate::emulator::Emulators;
use crate::files::RunFiles;
use crate::machine::{Machine, Model};
use crate::session::Emulator;
use crate::tether;

/// How long a Bochs may take until it has a port for its display.
const STARTING: Duration = Duration::from_secs(10);

/// What COM1 of Bochs is connected to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Com1 {
    /// The file of the parent's console.
    File,
    /// A TCP port of this machine, where somebody listens already.
    Port(u16),
}

/// Writes the configuration of `machine` and returns the command that starts it.
pub fn command(
    emulators: &Emulators,
    machine: &Machine,
    files: &RunFiles,
    com1: Com1,
) -> Result<Command> {
    for disk in &machine.disks {
        // A Bochs that was killed leaves the lock behind, and the next one refuses to start.
        let lock = format!("{}.lock", disk.image.display());
        match fs::remove_file(&lock) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error.into()),
            _ => {}
        }
    }
    fs::write(
        files.bochs_configuration(),
        configuration(emulators, machine, files, com1)?,
    )?;
    // Versions with a debugger that is always active want to be told to go on.
    let commands = files.directory().join("bochs-commands");
    let words = match &machine.debugger[..] {
        [] => "c\n".to_owned(),
        lines => lines.join("\n") + "\n",
    };
    fs::write(&commands, words)?;
    let mut bochs = emulators.bochs.command(tether::AtDeath::Kill);
    bochs
        .arg("-q")
        .arg("-f")
        .arg(files.bochs_configuration())
        .arg("-rc")
        .arg(commands);
    if !machine.debugger.is_empty() {
        bochs.arg("-debugger");
    }
    Ok(bochs)
}

/// Starts it. Its display looks for a free TCP port; two that look at once can take the same one, and then one of them
/// ends. So they start one after the other, those of other programs included.
pub(crate) fn start(command: Command, files: &RunFiles) -> Result<Emulator> {
    let turn = File::create(std::env::temp_dir().join("verdigris-bochs.lock"));
    // Without the file, another user's for instance, it is as likely to go well as it was.
    let _turn = turn.and_then(|file| file.lock().map(|()| file));
    let mut emulator = Emulator::start(command)?;
    let start = Instant::now();
    while start.elapsed() < STARTING && emulator.child.try_wait()?.is_none() {
        let log = fs::read(files.emulator_log()).unwrap_or_default();
        if String::from_utf8_lossy(&log).contains("listening for connections") {
            break;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    Ok(emulator)
}

fn configuration(
    emulators: &Emulators,
    machine: &Machine,
    files: &RunFiles,
    com1: Com1,
) -> Result<String> {
    ensure!(
        machine.disks.len() <= 2,
        "the Bochs machine has room for two disks"
    );
    let firmware = &emulators.firmware;
    let mut text = String::new();
    writeln!(
        text,
        "romimage: file={}, address=0xffc00000",
        firmware.combined.display()
    )?;
    writeln!(text, "fw_cfg: enabled=1")?;
    writeln!(text, "vgaromimage: file={}", firmware.vga_bios.display())?;
    writeln!(text, "cpu: {}", processor(machine)?)?;
    let memory = machine.memory_mib;
    writeln!(text, "memory: guest={memory}, host={memory}")?;
    writeln!(text, "pci: enabled=1, chipset=i440fx")?;
    writeln!(
        text,
        "ata0: enabled=1, ioaddr1=0x1f0, ioaddr2=0x3f0, irq=14"
    )?;
    for (disk, place) in machine.disks.iter().zip(["master", "slave"]) {
        write!(
            text,
            "ata0-{place}: type=disk, path={}, ",
            disk.image.display()
        )?;
        if disk.is_volatile {
            let journal = files.directory().join(format!("{place}.redolog"));
            writeln!(text, "mode=volatile, journal={}", journal.display())?;
        } else {
            writeln!(text, "mode=flat")?;
        }
    }
    writeln!(text, "boot: disk")?;
    match com1 {
        Com1::File => writeln!(
            text,
            "com1: enabled=1, mode=file, dev={}",
            files.parent_console().display()
        )?,
        Com1::Port(port) => writeln!(
            text,
            "com1: enabled=1, mode=socket-client, dev=localhost:{port}"
        )?,
    }
    writeln!(
        text,
        "com2: enabled=1, mode=file, dev={}",
        files.hypervisor_log().display()
    )?;
    // Time stands for instructions, so that a slow host changes nothing.
    writeln!(text, "clock: sync=none")?;
    // There is no display library without a display; this one needs no client.
    writeln!(text, "display_library: rfb, options=\"timeout=0\"")?;
    writeln!(text, "log: {}", files.emulator_log().display())?;
    writeln!(text, "panic: action=fatal")?;
    writeln!(text, "error: action=report")?;
    writeln!(text, "info: action=report")?;
    writeln!(text, "debug: action=ignore")?;
    writeln!(text, "port_e9_hack: enabled=1")?;
    if !machine.debugger.is_empty() {
        writeln!(text, "magic_break: enabled=1")?;
    }
    Ok(text)
}

fn processor(machine: &Machine) -> Result<String> {
    let model = match machine.model {
        Model::BochsVmx => "corei7_haswell_4770",
        Model::BochsSvm => "ryzen",
        Model::QemuSvm => anyhow::bail!("qemu-svm is not a machine of Bochs"),
    };
    let mut text = format!(
        "model={model}, count={}, ips=100000000, reset_on_triple_fault=0",
        machine.processors
    );
    let named = |sign: char| {
        machine
            .features
            .iter()
            .filter_map(move |feature| feature.strip_prefix(sign))
    };
    let added: Vec<&str> = named('+').collect();
    let mut excluded: Vec<&str> = named('-').collect();
    if !machine.has_virtualization {
        excluded.push(match machine.model {
            Model::BochsSvm => "svm",
            _ => "vmx",
        });
    }
    if !added.is_empty() {
        write!(text, ", add_features=\"{}\"", added.join(" "))?;
    }
    if !excluded.is_empty() {
        write!(text, ", exclude_features=\"{}\"", excluded.join(" "))?;
    }
    Ok(text)
}

/// How often the log says that the guest reset the machine. Switching on counts as one and is left out. A guest that
/// uses the keyboard controller or port CF9 for it asks for a reset that Bochs calls one of software.
pub fn count_resets(log: &str) -> usize {
    log.lines()
        .filter(|line| is_reset(line))
        .count()
        .saturating_sub(1)
}

/// Whether `line` of the log tells of a reset or of switching on.
pub fn is_reset(line: &str) -> bool {
    line.contains("bx_pc_system_c::Reset(")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn switching_on_is_not_a_reset() {
        let on = "00000000000i[SYS   ] bx_pc_system_c::Reset(HARDWARE) called\n";
        assert_eq!(count_resets(""), 0);
        assert_eq!(count_resets(on), 0);
        assert_eq!(count_resets(&on.repeat(3)), 2);
        let again = "05691484110i[SYS   ] bx_pc_system_c::Reset(SOFTWARE) called\n";
        assert_eq!(count_resets(&(on.to_owned() + again)), 1);
    }
}
