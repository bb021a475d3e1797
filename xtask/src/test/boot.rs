//! The boot tests: each row on each of its machines, a few machines at a time.

use std::fs::File;
use std::path::Path;
use std::sync::mpsc;
use std::time::Duration;

use anyhow::{Context, Result};
use runner::cases::{BOCHS_FACTOR, Case, ExpectedEnd};
use runner::compare::{self, Allowed};
use runner::files::RunFiles;
use runner::machine::{Bus, Disk, Machine, Model};
use runner::session::{self, Limits, Outcome};
use runner::verdict;

use super::download;
use super::prepare::Parts;
use super::pull;
use super::report::{Totals, Verdict};
use super::schedule::Schedule;
use super::{Options, Row};
use crate::disk_image;
use crate::symbolize;
use crate::workspace::Workspace;

const DATA_DISK_BYTES: u64 = 64 * 1024 * 1024;
/// How much of each log is shown of a test that failed.
const TAIL_LINES: usize = 30;

/// The longest that this row may take on this machine.
pub fn time_limit(model: Model, case: &Case) -> Duration {
    let factor = if model.is_bochs() { BOCHS_FACTOR } else { 1 };
    Duration::from_secs(case.timeout_s * factor)
}

struct Job<'a> {
    parts: &'a Parts,
    allowed: &'a [Allowed],
    directory: std::path::PathBuf,
    model: Model,
    case: &'a Case,
    patience: u32,
}

/// Runs `rows` and adds their verdicts to `totals`.
pub fn run(
    workspace: &Workspace,
    rows: &[Row],
    options: &Options,
    totals: &mut Totals,
) -> Result<()> {
    println!("== boot tests");
    let parts = Parts::obtain(workspace, rows.iter().map(|(_, _, case)| *case))?;
    let allowed = compare::read_allowed(&workspace.root().join("tests/allowed-differences.toml"))?;
    let schedule = Schedule::new(rows, options.jobs.max(1));
    let (sender, results) = mpsc::channel();
    std::thread::scope(|scope| {
        for _ in 0..options.jobs.max(1) {
            let sender = sender.clone();
            scope.spawn(|| {
                let sender = sender;
                while let Some(row) = schedule.take() {
                    let (name, model, case) = row;
                    let trial = options.trial(name, model, case);
                    let job = Job {
                        parts: &parts,
                        allowed: &allowed,
                        directory: workspace.target().join(format!("tests/{model}-{name}")),
                        model,
                        case,
                        // A row on trial that hangs must not use up the time of those that count.
                        patience: match trial {
                            Some(_) => 1,
                            None => options.patience,
                        },
                    };
                    let mut result = job.run();
                    let mut first_try = None;
                    if options.retry
                        && let Ok(judged) = &result
                        && !judged.complaints.is_empty()
                        && case.known.is_none()
                        && trial.is_none()
                    {
                        first_try = Some(judged.complaints.clone());
                        job.keep_logs();
                        result = job.run();
                    }
                    schedule.give_back(&row);
                    if sender.send((name, model, case, result, first_try)).is_err() {
                        return;
                    }
                }
            });
        }
        drop(sender);
        for (name, model, case, result, first_try) in results {
            let label = format!("{model} {name}");
            let (complaints, elapsed, tail) = match result {
                Ok(judged) => (
                    judged.complaints,
                    judged.outcome.elapsed,
                    tail(&judged.outcome),
                ),
                Err(error) => (vec![format!("{error:#}")], Duration::ZERO, String::new()),
            };
            let trial = options.trial(name, model, case);
            let verdict = match (complaints.is_empty(), &case.known) {
                (is_good, None) if let Some(why) = trial => Verdict::Trial {
                    why: why.to_owned(),
                    complaints: if is_good { Vec::new() } else { complaints },
                },
                (true, None) => Verdict::Passed,
                (true, Some(why)) => Verdict::UnexpectedPass(why.clone()),
                (false, Some(why)) => Verdict::KnownFailure(why.clone()),
                (false, None) => Verdict::Failed(complaints),
            };
            if let Some(complaints) = &first_try {
                totals.add_first_try(&label, complaints);
            }
            let show = matches!(verdict, Verdict::Failed(_));
            totals.add(&label, &verdict, elapsed);
            if show {
                println!(
                    "{tail}        whole logs: {}",
                    workspace
                        .target()
                        .join(format!("tests/{model}-{name}"))
                        .display()
                );
            }
        }
    });
    Ok(())
}

struct Judged {
    complaints: Vec<String>,
    outcome: Outcome,
}

impl Job<'_> {
    fn run(&self) -> Result<Judged> {
        let (outcome, mut complaints) = match self.case.pulls {
            0 => (self.boot(&self.directory, self.case.bare)?, Vec::new()),
            pulls => self.pull(pulls)?,
        };
        complaints.extend(verdict::complaints(self.case, &outcome));
        if self.case.symbolize {
            let image = self.parts.hypervisor(self.case)?;
            if let Err(error) = symbolize::names_the_panic(&outcome.hypervisor, image) {
                complaints.push(format!("{error:#}"));
            }
        }
        if self.case.compare_with_bare {
            complaints.extend(self.compare(&outcome)?);
        }
        Ok(Judged {
            complaints,
            outcome,
        })
    }

    /// Puts the logs of a try aside; the next one begins with an empty directory.
    fn keep_logs(&self) {
        let mut kept = self.directory.clone().into_os_string();
        kept.push(".first-try");
        let _ = std::fs::remove_dir_all(&kept);
        // A run without them tells less, and is no worse.
        let _ = std::fs::rename(&self.directory, &kept);
    }

    /// The machine of `case`, which is this row's, perhaps with other arguments.
    fn machine(&self, files: &RunFiles, case: &Case, bare: bool) -> Result<Machine> {
        let boot_disk = files.directory().join("disk.img");
        let mut entries = self.parts.disk(case, bare)?;
        let root = self
            .parts
            .root_on_disk(case, files.directory(), &mut entries)?;
        let store = self.parts.children(case)?;
        let second = root.as_deref().or(store.filter(|_| case.stick));
        disk_image::write_with_root(&boot_disk, &entries, second)?;
        let mut machine = Machine::new(self.model, boot_disk);
        if case.stick {
            machine.disks[0].bus = Bus::Usb;
        }
        machine.processors = case.vps;
        machine.memory_mib = case.memory_mib;
        machine.has_virtualization = !case.without_virtualization;
        machine.features = case.cpu.clone();
        machine.is_jolted = case.jolted;
        machine.qemu_arguments = case.qemu.clone();
        machine.ends_at_reset = case.resets == 0 || case.end == ExpectedEnd::Reset;
        machine.may_use_kvm = true;
        if case.download {
            machine
                .qemu_arguments
                .extend(download::serve(files.directory())?);
        }
        for (number, &bus) in case.disks.iter().enumerate() {
            let image = files.directory().join(format!("data{number}.img"));
            File::create(&image)?.set_len(DATA_DISK_BYTES)?;
            machine.disks.push(Disk::new(image, bus));
        }
        if let Some(image) = store.filter(|_| !case.stick) {
            machine
                .disks
                .push(Disk::volatile(image.to_owned(), Bus::Virtio));
        }
        Ok(machine)
    }

    fn limits(&self) -> Limits {
        let case = self.case;
        Limits {
            timeout: time_limit(self.model, case) * self.patience,
            stop_lines: verdict::stop_lines(case),
            grace: session::GRACE,
        }
    }

    fn boot(&self, directory: &Path, bare: bool) -> Result<Outcome> {
        let files = RunFiles::prepare(directory)?;
        let machine = self.machine(&files, self.case, bare)?;
        let outcome = session::run(&self.parts.emulators, &machine, &files, &self.limits())?;
        // The disks are as large as the parts on them; the logs are what one may want afterwards.
        for disk in machine.disks.iter().filter(|disk| !disk.is_volatile) {
            let _ = std::fs::remove_file(&disk.image);
        }
        Ok(outcome)
    }

    /// Kills the emulator so often, and lets the machine come up to its end after that: the last outcome, and what
    /// speaks against those before.
    fn pull(&self, pulls: u32) -> Result<(Outcome, Vec<String>)> {
        let files = RunFiles::prepare(&self.directory)?;
        let image = self.parts.children(self.case)?;
        let kept = pull::Disk::copy(image.context("a pulled machine has children")?, &files)?;
        let mut complaints = Vec::new();
        let mut synced = 0;
        for number in 0..=pulls {
            let files = RunFiles::prepare(&self.directory)?;
            let is_last = number == pulls;
            let case = pull::case(self.case, synced, is_last);
            let mut machine = self.machine(&files, &case, false)?;
            kept.put_into(&mut machine);
            let mut limits = self.limits();
            if !is_last {
                limits.stop_lines.push(pull::LINE.to_owned());
                limits.grace = pull::chance();
            }
            let outcome = session::run(&self.parts.emulators, &machine, &files, &limits)?;
            if is_last {
                return Ok((outcome, complaints));
            }
            let (complaint, last) = pull::judge(&outcome, synced);
            println!(
                "        pull {}: {last} files synced, after {:.1} s{}",
                number + 1,
                outcome.elapsed.as_secs_f32(),
                complaint.as_deref().unwrap_or_default()
            );
            synced = last;
            if let Some(complaint) = complaint {
                complaints.push(format!("pull {}: {complaint}", number + 1));
                return Ok((outcome, complaints));
            }
        }
        anyhow::bail!("no start was the last")
    }

    fn compare(&self, outcome: &Outcome) -> Result<Vec<String>> {
        let bare = self.boot(&self.directory.join("bare"), true)?;
        let bare = compare::log_lines(&bare.parent).context("the bare machine printed no log")?;
        let Some(above) = compare::log_lines(&outcome.parent) else {
            return Ok(vec!["the parent printed no log".to_owned()]);
        };
        Ok(compare::unexpected(&bare, &above, self.allowed)
            .into_iter()
            .map(|line| format!("new above the hypervisor: {line}"))
            .collect())
    }
}

fn tail(outcome: &Outcome) -> String {
    let mut text = String::new();
    for (name, log) in [
        ("parent's console", &outcome.parent),
        ("hypervisor's log", &outcome.hypervisor),
    ] {
        let lines: Vec<&str> = log.lines().collect();
        let first = lines.len().saturating_sub(TAIL_LINES);
        text.push_str(&format!("        --- the end of the {name}\n"));
        for line in &lines[first..] {
            text.push_str(&format!("        {}\n", line.trim_end()));
        }
    }
    text
}
