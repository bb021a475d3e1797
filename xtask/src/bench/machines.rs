//! The runs: the measuring payloads on Bochs, whose time-stamp counter counts instructions.

use std::time::Duration;

use std::path::PathBuf;

use anyhow::{Context, Result, ensure};
use runner::emulator::Emulators;
use runner::files::RunFiles;
use runner::machine::{Bus, Disk, Machine, Model};
use runner::session::{self, End, Limits, Outcome};

use super::figures;
use super::logs::{self, Boot, Readings};
use crate::boot_disk::{self, Guest};
use crate::build::{self, Images};
use crate::disk_image::{self, Entry};
use crate::setup::debian::{ChildKernel, Flavour};
use crate::workspace::Workspace;
use crate::{child, guest};

/// Generous: the host may be slow, and a run that hangs is rare.
const TIMEOUT: Duration = Duration::from_secs(600);
/// A Debian that boots in another.
const CHILD_TIMEOUT: Duration = Duration::from_secs(3000);

/// What the runs share.
pub struct Bench<'a> {
    /// The workspace.
    pub workspace: &'a Workspace,
    /// The emulators.
    pub emulators: Emulators,
    /// What is measured.
    pub images: Images,
}

impl Bench<'_> {
    /// The test parent's group `bench`, and what the hypervisor said of its memory.
    pub fn exits(&self, model: Model) -> Result<(Readings, Readings)> {
        let image = build::test_parent(self.workspace)?;
        let outcome = self.payload(model, "exits", image, "bench", 1)?;
        Ok((
            logs::payload(&outcome.parent),
            logs::memory(&outcome.hypervisor),
        ))
    }

    /// What children cost: on one processor, and on two what takes two.
    pub fn children(&self, model: Model) -> Result<Readings> {
        let image = build::children(self.workspace)?;
        let outcome = self.payload(model, "children", image.clone(), "bench life", 1)?;
        let mut readings = logs::payload(&outcome.parent);
        let outcome = self.payload(model, "children-2", image, "bench", 2)?;
        readings.extend(logs::payload(&outcome.parent));
        let reading = |name: &str| readings.get(name).copied();
        if let (Some(both), Some(ipi)) =
            (reading("child-ipi-round-trip"), reading("child-self-ipi"))
        {
            readings.insert("child-switch".to_owned(), (both / 2).saturating_sub(ipi));
        }
        Ok(readings)
    }

    /// When a program has its first instruction, on the bare machine and as the parent's image.
    fn launch(&self, model: Model) -> Result<Readings> {
        let guest = Guest::Program {
            image: build::test_parent(self.workspace)?,
            command_line: "bench".to_owned(),
        };
        let bare = boot_disk::bare(&guest, &self.emulators.firmware.boot_menu)?;
        let configuration = boot_disk::configuration(&guest, boot_disk::HYPERVISOR_SECTION);
        let above = boot_disk::with_hypervisor(&self.images, &guest, &configuration)?;
        let start = |name: &str, entries: &[Entry]| {
            let (machine, files) = self.machine(model, name, entries)?;
            let outcome = self.start(&machine, &files, TIMEOUT, &["# bench start "])?;
            let readings = logs::payload(&outcome.parent);
            let start = readings.get("start").copied();
            start.with_context(|| format!("{model}: {name}: the program did not start"))
        };
        let (bare, above) = (start("start-bare", &bare)?, start("start", &above)?);
        Ok([
            ("launch-start-bare".to_owned(), bare),
            ("launch-start".to_owned(), above),
            ("launch-adds".to_owned(), above.saturating_sub(bare)),
        ]
        .into())
    }

    /// A measuring program.
    fn payload(
        &self,
        model: Model,
        name: &str,
        image: PathBuf,
        words: &str,
        processors: u32,
    ) -> Result<Outcome> {
        let guest = Guest::Program {
            image,
            command_line: words.to_owned(),
        };
        let configuration = boot_disk::configuration(&guest, boot_disk::HYPERVISOR_SECTION);
        let entries = boot_disk::with_hypervisor(&self.images, &guest, &configuration)?;
        let (mut machine, files) = self.machine(model, name, &entries)?;
        machine.processors = processors;
        let outcome = self.start(&machine, &files, TIMEOUT, &[])?;
        ensure!(
            outcome.parent.contains("# verdict: pass"),
            "{model}: the measuring payload `{name}` failed: {:?}",
            outcome.end
        );
        ensure!(
            !logs::payload(&outcome.parent).is_empty(),
            "{model}: the payload `{name}` measured nothing"
        );
        Ok(outcome)
    }

    /// Debian's boot on the bare machine and above the hypervisor: times, and counters of the second. With more processors
    /// only the counters: their time is not that of instructions.
    pub fn boot(&self, model: Model) -> Result<Readings> {
        let bare = self.debian(model, 1, false)?.times;
        let DebianBoot {
            times: debian,
            counters: mut readings,
        } = self.debian(model, 1, true)?;
        readings.extend(self.launch(model)?);
        let mut note = |name: &str, value: f64| {
            // Negative differences are kept as they are, in two's complement.
            readings.insert(name.to_owned(), value.round() as i64 as u64);
        };
        note("boot-init-bare", bare.init);
        note("boot-init", debian.init);
        note("boot-test-bare", bare.test);
        note("boot-test", debian.test);
        note("boot-init-more", per_mille_more(debian.init, bare.init));
        note("boot-test-more", per_mille_more(debian.test, bare.test));
        note(
            "boot-busy-more",
            per_mille_more(debian.test - debian.idle, bare.test - bare.idle),
        );
        readings.insert("boot-exits".to_owned(), exits(&readings));
        for processors in [2, 4] {
            let counters = self.debian(model, processors, true)?.counters;
            readings.insert(format!("boot-exits-{processors}"), exits(&counters));
        }
        Ok(readings)
    }

    /// Boots Debian's kernel with `processors`, above the hypervisor or on the bare machine.
    fn debian(&self, model: Model, processors: u32, is_above: bool) -> Result<DebianBoot> {
        let guest = guest::debian(
            self.workspace,
            Flavour::Cloud,
            guest::Extras::default(),
            "vg.test=bench quiet",
        )?;
        let (name, entries) = if is_above {
            let configuration = boot_disk::configuration(&guest, boot_disk::HYPERVISOR_SECTION);
            let entries = boot_disk::with_hypervisor(&self.images, &guest, &configuration)?;
            (format!("boot-{processors}"), entries)
        } else {
            let entries = boot_disk::bare(&guest, &self.emulators.firmware.boot_menu)?;
            (format!("boot-bare-{processors}"), entries)
        };
        let (mut machine, files) = self.machine(model, &name, &entries)?;
        machine.processors = processors;
        let outcome = self.start(&machine, &files, TIMEOUT, &[])?;
        ensure!(
            outcome.end == End::PowerOff,
            "{model}: Debian ({name}) did not end: {:?}",
            outcome.end
        );
        let times = logs::boot(&outcome.parent)
            .with_context(|| format!("{model}: Debian ({name}) printed no times"))?;
        Ok(DebianBoot {
            times,
            counters: logs::counters(&outcome.hypervisor),
        })
    }

    /// What a Debian child costs in the Debian parent: of `words` those groups that the test knows.
    pub fn debian_child(&self, model: Model, words: &[&str]) -> Result<Readings> {
        let extras = guest::Extras {
            programs: true,
            ..Default::default()
        };
        let arguments = format!("quiet vg.test=bench-child vg.args={}", words.join(","));
        let guest = guest::debian(self.workspace, Flavour::Cloud, extras, &arguments)?;
        let children = child::disk(self.workspace, &[ChildKernel::Cloud].into())?;
        let configuration = boot_disk::configuration(&guest, boot_disk::HYPERVISOR_SECTION);
        let entries = boot_disk::with_hypervisor(&self.images, &guest, &configuration)?;
        let (mut machine, files) = self.machine(model, &words.join("-"), &entries)?;
        machine.disks.push(Disk::volatile(children, Bus::Virtio));
        if !model.is_bochs() {
            // Its clock is the host's: on one processor the parent's ticks would leave the child little of it.
            machine.processors = 2;
        }
        let outcome = self.start(&machine, &files, CHILD_TIMEOUT, &[])?;
        let failed: Vec<&str> = outcome
            .parent
            .lines()
            .filter(|line| line.starts_with("not ok"))
            .collect();
        ensure!(
            failed.is_empty() && outcome.end == End::PowerOff,
            "{model}: the child was not measured: {:?} {}",
            outcome.end,
            failed.join("; ")
        );
        let mut readings = logs::payload(&outcome.parent);
        if !model.is_bochs() {
            // QEMU's time-stamp counter is the host's clock. (With -icount the parent's kernel does not come up.)
            readings.retain(|name, _| name.contains('.') || !is_of_instructions(name));
        }
        Ok(readings)
    }

    fn machine(&self, model: Model, name: &str, entries: &[Entry]) -> Result<(Machine, RunFiles)> {
        let directory = self
            .workspace
            .target()
            .join(format!("bench/{model}-{name}"));
        let files = RunFiles::prepare(&directory)?;
        let disk = files.directory().join("disk.img");
        disk_image::write(&disk, entries)?;
        Ok((Machine::new(model, disk), files))
    }

    /// Runs it to its end, or to one of the lines `until`.
    fn start(
        &self,
        machine: &Machine,
        files: &RunFiles,
        timeout: Duration,
        until: &[&str],
    ) -> Result<Outcome> {
        let directory = files.directory();
        let name = directory
            .file_name()
            .map_or_else(Default::default, |name| name.to_string_lossy());
        println!("{name} ...");
        let limits = Limits {
            timeout,
            stop_lines: ["panicked at", "Kernel panic"]
                .iter()
                .chain(until)
                .map(|line| (*line).to_owned())
                .collect(),
            grace: session::GRACE,
        };
        let outcome = session::run(&self.emulators, machine, files, &limits)?;
        println!(
            "{name}: {:?} after {:.0} s; logs in {}",
            outcome.end,
            outcome.elapsed.as_secs_f32(),
            directory.display()
        );
        Ok(outcome)
    }
}

/// One boot of Debian.
struct DebianBoot {
    times: Boot,
    /// The hypervisor's; none on the bare machine.
    counters: Readings,
}

/// All exits of all VPs.
fn exits(counters: &Readings) -> u64 {
    let exits = counters
        .iter()
        .filter(|(name, _)| name.starts_with("exit."));
    exits.map(|(_, count)| count).sum()
}

fn per_mille_more(above: f64, bare: f64) -> f64 {
    (above / bare - 1.0) * 1000.0
}

/// Whether the figure of this name is a number of instructions.
fn is_of_instructions(name: &str) -> bool {
    figures::all().any(|figure| figure.name == name && figure.unit == "instructions")
}
