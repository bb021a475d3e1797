//! The boot tests: rows of `tests/cases.toml`, one table per test.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use serde::Deserialize;

use crate::machine::{Bus, Model};

/// What runs in the machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum GuestKind {
    /// Debian's cloud kernel with the tests' initial file system.
    Cloud,
    /// Debian's generic kernel with the same.
    Generic,
    /// The EFI program of `tests/guests/parent`.
    TestParent,
    /// The EFI program of `tests/guests/children`.
    Children,
    /// Nothing is to come up: the loader refuses, and the test is about what it says.
    None,
}

/// One boot test, on any of its machines.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Case {
    /// What runs.
    pub guest: GuestKind,
    /// The script of `tests/initramfs` that Linux runs, with its arguments; or the test parent's load options.
    /// `{vps}` stands for the number of processors.
    #[serde(default)]
    pub args: String,
    /// More words for the kernel's command line.
    #[serde(default)]
    pub append: String,
    /// The machines it runs on.
    pub on: Vec<Model>,
    /// Number of processors.
    #[serde(default = "one")]
    pub vps: u32,
    /// Memory in MiB.
    #[serde(default = "usual_memory")]
    pub memory_mib: u32,
    /// The longest it may take on QEMU; Bochs has [`BOCHS_FACTOR`] times as long.
    pub timeout_s: u64,
    /// Whether GRUB is the parent's image and starts Linux, as on a machine that Debian was installed on.
    #[serde(default)]
    pub by_grub: bool,
    /// Whether GRUB's menu, the kernel and a root file system lie on a second partition of the booted disk, with
    /// the label `debian`. `by_grub` only.
    #[serde(default)]
    pub root_on_disk: bool,
    /// Whether the machine boots from a USB stick as `cargo xtask image` writes it, with what children boot on the second
    /// partition. QEMU only.
    #[serde(default)]
    pub stick: bool,
    /// Without the hypervisor.
    #[serde(default)]
    pub bare: bool,
    /// On a processor without virtualization.
    #[serde(default)]
    pub without_virtualization: bool,
    /// With AMD-V switched off and locked by a program that runs before the loader, as by a firmware's set-up.
    #[serde(default)]
    pub locked: bool,
    /// Processor features for the emulator: `-la57`, `+x2apic`.
    #[serde(default)]
    pub cpu: Vec<String>,
    /// More disks, empty and of 64 MiB, besides the one that is booted.
    #[serde(default)]
    pub disks: Vec<Bus>,
    /// The kernels that the parent's children boot. With any, the parent has the programs that make children, and a
    /// disk with these kernels and root file systems for them.
    #[serde(default)]
    pub children: Vec<String>,
    /// Whether the parent has the programs that make children, if `children` does not say so.
    #[serde(default)]
    pub programs: bool,
    /// Whether Linux gets `kexec` and `stress-ng` in a second initial file system.
    #[serde(default)]
    pub tools: bool,
    /// Whether QEMU has an e1000e card, behind which a file can be had by TFTP. The file's hash is put behind
    /// the arguments.
    #[serde(default)]
    pub download: bool,
    /// More arguments for QEMU.
    #[serde(default)]
    pub qemu: Vec<String>,
    /// Features of the hypervisor's crate.
    #[serde(default)]
    pub features: Vec<String>,
    /// The configuration's `[hypervisor]` section, where it differs from the usual one.
    pub hypervisor: Option<String>,
    /// The whole configuration file. Absent: made from the rest.
    pub configuration: Option<String>,
    /// Damage done to the disk before it boots.
    pub damage: Option<Damage>,
    /// How often the emulator is killed, at a moment of chance in the ten seconds after the parent's console first has
    /// `synced:`, before a last start. Each start has the disk of the children as the one before left it, and the
    /// number after the last `synced:` as one more argument; the last start the word `end` besides.
    #[serde(default)]
    pub pulls: u32,
    /// Whether QEMU is stopped and continued all the time, some hundred times a second: each time its processors leave what
    /// they execute at a moment of chance, as they do when a device's memory moves.
    #[serde(default)]
    pub jolted: bool,
    /// How the machine must end.
    #[serde(default)]
    pub end: ExpectedEnd,
    /// How often the guest is to reset the machine before that.
    #[serde(default)]
    pub resets: usize,
    /// Whether the guest crashes on purpose, so that its last words do not end the run.
    #[serde(default)]
    pub crashes: bool,
    /// Whether the parent's console carries test results, which must be complete and good.
    #[serde(default = "yes")]
    pub tap: bool,
    /// Lines, or parts of them, that must be in the parent's console or the hypervisor's log, in any order.
    #[serde(default)]
    pub expect: Vec<String>,
    /// Lines, or parts of them, that must be in neither.
    #[serde(default)]
    pub forbid: Vec<String>,
    /// A log of this name is compared with the one of the same kernel on the bare machine.
    #[serde(default)]
    pub compare_with_bare: bool,
    /// Whether the addresses of the hypervisor's panic record must lead to the line that the record names.
    #[serde(default)]
    pub symbolize: bool,
    /// Why it fails for now: it stays visible, and is reported when it starts to pass.
    pub known: Option<String>,
    /// Why its verdict does not count yet: it was not seen to pass often enough. It runs, and its result is shown.
    pub trial: Option<String>,
    /// It takes many minutes: it runs only when it is asked for by name.
    #[serde(default)]
    pub long: bool,
    /// The machines where it takes as long; [`Case::long`] means all of them.
    #[serde(default)]
    pub long_on: Vec<Model>,
    /// The machines that `trial` is about; all of them when this is empty.
    #[serde(default)]
    pub trial_on: Vec<Model>,
}

impl Case {
    /// Why the verdict on `model` does not count yet.
    pub fn trial_on(&self, model: Model) -> Option<&str> {
        let concerned = self.trial_on.is_empty() || self.trial_on.contains(&model);
        self.trial.as_deref().filter(|_| concerned)
    }

    /// Whether it runs on `model` only when it is asked for.
    pub fn is_long_on(&self, model: Model) -> bool {
        self.long || self.long_on.contains(&model)
    }
}

/// What is wrong with the disk of a test about bad input.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Damage {
    /// There is no configuration file.
    NoConfiguration,
    /// There is no hypervisor image.
    NoHypervisor,
    /// The hypervisor image is cut short.
    ShortHypervisor,
    /// The hypervisor image does not start as an ELF file does.
    WrongHypervisor,
    /// One bit of the hypervisor image is not as it was built.
    AlteredHypervisor,
    /// There is no image for the parent.
    NoParent,
    /// There is no initial file system.
    NoInitrd,
}

/// The good end of a test's machine.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ExpectedEnd {
    /// The guest switches it off.
    #[default]
    PowerOff,
    /// All expected lines were printed; the machine is then stopped from outside.
    Lines,
    /// A reset.
    Reset,
}

/// Bochs interprets, on one host thread.
pub const BOCHS_FACTOR: u64 = 6;

fn one() -> u32 {
    1
}

fn usual_memory() -> u32 {
    1024
}

fn yes() -> bool {
    true
}

impl Case {
    /// The arguments with the number of processors put in.
    pub fn arguments(&self) -> String {
        self.args.replace("{vps}", &self.vps.to_string())
    }
}

/// Reads the rows, by name.
pub fn read(file: &Path) -> Result<BTreeMap<String, Case>> {
    let text =
        std::fs::read_to_string(file).with_context(|| format!("reading {}", file.display()))?;
    parse(&text).with_context(|| format!("in {}", file.display()))
}

/// The rows of a text, checked.
pub fn parse(text: &str) -> Result<BTreeMap<String, Case>> {
    let cases: BTreeMap<String, Case> = toml::from_str(text)?;
    for (name, case) in &cases {
        ensure!(!case.on.is_empty(), "{name} runs on no machine");
        ensure!(
            case.tap || !case.expect.is_empty() || case.compare_with_bare,
            "{name} cannot fail: it has no test results and expects no line"
        );
        ensure!(
            case.by_grub || !case.root_on_disk,
            "{name} has a root file system on the disk, and no GRUB that reads it"
        );
        ensure!(
            case.end != ExpectedEnd::Lines || !case.expect.is_empty(),
            "{name} waits for lines and names none"
        );
    }
    Ok(cases)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_needs_little() {
        let cases = parse("[boot]\nguest = 'cloud'\nargs = 'boot {vps}'\nvps = 4\non = ['qemu-svm']\ntimeout_s = 20\n").unwrap();
        assert_eq!(cases["boot"].arguments(), "boot 4");
        assert_eq!(cases["boot"].end, ExpectedEnd::PowerOff);
    }

    #[test]
    fn a_test_that_cannot_fail_is_refused() {
        let error = parse("[x]\nguest = 'cloud'\non = ['qemu-svm']\ntimeout_s = 20\ntap = false\n")
            .unwrap_err();
        assert!(error.to_string().contains("cannot fail"), "{error}");
    }

    #[test]
    fn a_misspelt_key_is_refused() {
        assert!(parse("[x]\nguest = 'cloud'\non = ['qemu-svm']\ntimeout = 20\n").is_err());
    }

    #[test]
    fn the_rows_of_this_repository_are_well_formed() {
        let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../cases.toml");
        assert!(!read(&file).unwrap().is_empty());
    }
}
