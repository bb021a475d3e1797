//! The emulators and the firmware of the test machines.
//!
//! Debian's packages of them need a newer C library than Debian 12 has, so they are unpacked into the cache
//! and started through their own dynamic loader rather than installed.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use runner::emulator::{Emulators, Firmware, Program};
use runner::tether::AtDeath;

use super::apt::Package;
use super::{AMD64, Thing, cure, find_program, say};

/// The oldest QEMU on the PATH that is taken in place of our own.
const QEMU_MAJOR_MIN: u32 = 9;

fn everything(_: &Package) -> bool {
    true
}

const QEMU: Thing = Thing {
    name: "qemu",
    architecture: AMD64,
    suites: &["forky"],
    release: "forky",
    packages: &["qemu-system-x86", "seabios", "ipxe-qemu"],
    keep: everything,
    versioned_by: "qemu-system-x86",
    leave_out: &[],
};

const BOCHS: Thing = Thing {
    name: "bochs",
    architecture: AMD64,
    suites: &["forky"],
    release: "forky",
    packages: &["bochs", "bochsbios", "bochs-term", "vgabios"],
    keep: everything,
    versioned_by: "bochs",
    leave_out: &[],
};

const FIRMWARE: Thing = Thing {
    name: "firmware",
    architecture: AMD64,
    suites: &["forky"],
    release: "forky",
    packages: &["ovmf", "systemd-boot-efi"],
    keep: |package| package.name.starts_with("ovmf") || package.name == "systemd-boot-efi",
    versioned_by: "ovmf",
    leave_out: &[],
};

/// Everything needed to start a machine, from the PATH or the cache.
pub fn obtain() -> Result<Emulators> {
    let mut qemu = match system_qemu() {
        Some(program) => program,
        None => qemu_of(&QEMU.obtain()?),
    };
    qemu.preload(&cure::of_qemu()?);
    let bochs_tree = BOCHS.obtain()?;
    let bochs = bochs_of(&bochs_tree, &cure::of_bochs()?);
    let firmware_tree = FIRMWARE.obtain()?;
    let firmware = Firmware {
        code: existing(&firmware_tree, "usr/share/OVMF/OVMF_CODE_4M.fd")?,
        variables: existing(&firmware_tree, "usr/share/OVMF/OVMF_VARS_4M.fd")?,
        combined: existing(&firmware_tree, "usr/share/ovmf/OVMF.fd")?,
        vga_bios: existing(&bochs_tree, "usr/share/bochs/VGABIOS-lgpl-latest")?,
        boot_menu: existing(
            &firmware_tree,
            "usr/lib/systemd/boot/efi/systemd-bootx64.efi",
        )?,
    };
    Ok(Emulators {
        qemu,
        bochs,
        firmware,
        nested_kvm: nested_kvm(),
    })
}

fn existing(tree: &Path, file: &str) -> Result<PathBuf> {
    let path = tree.join(file);
    ensure!(
        path.exists(),
        "{} is missing; remove {} to have it set up anew",
        path.display(),
        tree.display()
    );
    Ok(path)
}

fn system_qemu() -> Option<Program> {
    let path = find_program("qemu-system-x86_64")?;
    let output = Command::new(&path).arg("--version").output().ok()?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let is_new_enough = qemu_major(&text).is_some_and(|major| major >= QEMU_MAJOR_MIN);
    is_new_enough.then(|| Program::of_the_system(path))
}

fn qemu_major(version: &str) -> Option<u32> {
    version
        .strip_prefix("QEMU emulator version ")?
        .split('.')
        .next()?
        .parse()
        .ok()
}

fn qemu_of(tree: &Path) -> Program {
    let lib = tree.join("usr/lib/x86_64-linux-gnu");
    let mut program = Program::of_tree(tree, "usr/bin/qemu-system-x86_64");
    program.environment("QEMU_MODULE_DIR", &lib.join("qemu"));
    for data in ["usr/share/qemu", "usr/share/seabios", "usr/lib/ipxe/qemu"] {
        program.argument("-L");
        program.argument(tree.join(data));
    }
    program
}

fn bochs_of(tree: &Path, cure: &Path) -> Program {
    let lib = tree.join("usr/lib/x86_64-linux-gnu");
    let mut program = Program::of_tree(tree, "usr/bin/bochs-bin");
    program.preload(cure);
    program.environment("LTDL_LIBRARY_PATH", &lib.join("bochs/plugins"));
    program.environment("BXSHARE", &tree.join("usr/share/bochs"));
    program
}

/// Whether this machine lets a guest use virtualization extensions of its own. The device node alone does
/// not say so: it may exist where KVM has nothing to work with.
fn nested_kvm() -> bool {
    let flags = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let has_extension = flags
        .lines()
        .filter(|line| line.starts_with("flags"))
        .any(|line| {
            line.split_whitespace()
                .any(|flag| flag == "svm" || flag == "vmx")
        });
    let is_nested = ["kvm_amd", "kvm_intel"].iter().any(|module| {
        std::fs::read_to_string(format!("/sys/module/{module}/parameters/nested"))
            .is_ok_and(|value| matches!(value.trim(), "1" | "Y"))
    });
    let is_usable = std::fs::OpenOptions::new()
        .read(true)
        .write(true)
        .open("/dev/kvm")
        .is_ok();
    has_extension && is_nested && is_usable
}

/// Checks that both emulators start at all.
pub fn check(emulators: &Emulators) -> Result<()> {
    let output = emulators
        .qemu
        .command(AtDeath::Kill)
        .arg("--version")
        .output()?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    ensure!(
        output.status.success(),
        "QEMU does not start: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    say(text.lines().next().unwrap_or("QEMU"));
    let output = emulators
        .bochs
        .command(AtDeath::Kill)
        .arg("--help")
        .output()?;
    let text = String::from_utf8_lossy(&output.stderr).into_owned()
        + &String::from_utf8_lossy(&output.stdout);
    text.contains("bochsrc options")
        .then_some(())
        .with_context(|| format!("Bochs does not start: {text}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn qemu_states_its_version() {
        assert_eq!(
            qemu_major("QEMU emulator version 7.2.1 (Debian 1:7.2)"),
            Some(7)
        );
        assert_eq!(qemu_major("QEMU emulator version 11.1.2"), Some(11));
        assert_eq!(qemu_major(""), None);
    }
}
