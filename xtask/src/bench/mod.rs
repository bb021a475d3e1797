//! `cargo xtask bench`: what the hypervisor costs, in figures that do not depend on the host.

mod figures;
mod image;
mod logs;
mod machines;
mod page;
mod prose;
mod record;
mod source;
mod table;

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, anyhow, bail};
use clap::Args;
use runner::machine::Model;

use self::figures::Group;
use self::logs::Readings;
use self::machines::Bench;
use self::page::Setting;
use crate::build;
use crate::setup::debian::{self, Flavour};
use crate::setup::emulators;
use crate::workspace::Workspace;

/// The machines of the columns, in their order: AMD, Intel.
const MACHINES: [Model; 2] = [Model::BochsSvm, Model::BochsVmx];
/// The same where Debian has children. QEMU is faster, and exits can be counted there.
const WITH_CHILDREN: [Model; 2] = [Model::QemuSvm, Model::BochsVmx];

/// What `cargo xtask bench` can be told.
#[derive(Args)]
pub struct Options {
    /// Only this machine: bochs-svm, bochs-vmx, or for the groups `child` and `storage` qemu-svm; may be repeated
    #[arg(long = "machine", value_name = "MACHINE")]
    machines: Vec<Model>,
    /// Only this figure, or this group: exits, children, boot, child, storage, memory, code; may be repeated
    #[arg(long, value_name = "NAME")]
    only: Vec<String>,
    /// After a partial run, renew its sections of `docs/benchmarks.md`
    #[arg(long)]
    page: bool,
    /// Write the figures to this file as well
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Take what is not measured now from such a file of an earlier run; may be repeated, the first that has it counts
    #[arg(long, value_name = "FILE")]
    with: Vec<PathBuf>,
    /// Name the figures in instructions that differ by more than 0.5 % from such a file
    #[arg(long, value_name = "FILE")]
    against: Option<PathBuf>,
    /// Fail if a figure is above its budget, or differs from `--against`
    #[arg(long)]
    check: bool,
}

/// Measures, prints, and, when everything was measured, writes `docs/benchmarks.md`.
pub fn run(options: &Options) -> Result<()> {
    let groups = groups(&options.only)?;
    let against = options.against.as_deref().map(read).transpose()?;
    let workspace = Workspace::find()?;
    let bench = Bench {
        workspace: &workspace,
        emulators: emulators::obtain()?,
        images: build::build(&workspace, &build::Options::default())?,
    };
    let mut setting = setting(&workspace, &bench)?;
    let mut measured = measure_all(&bench, &options.machines, &groups)?;
    setting.is_new = measured.iter().any(|readings| !readings.is_empty());
    let sections = image::sections(&bench.images.hypervisor)?;
    let common = measure_image(&bench, &groups, &sections, &mut setting)?;
    for readings in &mut measured {
        readings.extend(common.clone());
    }
    for file in &options.with {
        let sources = record::join(&mut measured, &read(file)?);
        let sources = sources.with_context(|| file.display().to_string())?;
        if !setting.earlier.contains(&sources) {
            setting.earlier.push(sources);
        }
    }

    let mut rows = table::rows(&measured, &sections, &groups);
    let named = |row: &table::Row| options.only.contains(&row.name);
    if rows.iter().any(named) {
        rows.retain(|row| named(row) || options.only.iter().any(|only| only == row.group.name()));
    }
    print!("\n{}", page::terminal(&rows));
    if let Some(file) = &options.json {
        fs::write(file, record::json(&setting, &rows, &measured))
            .with_context(|| format!("writing {}", file.display()))?;
    }
    let is_all = options.only.is_empty() && options.machines.is_empty();
    if is_all || options.page {
        let place = workspace.root().join("docs/benchmarks.md");
        let text = if is_all {
            page::markdown(&setting, &rows)
        } else {
            page::renewed(&read(&place)?, &setting, &rows, &groups)
        };
        fs::write(&place, text)?;
        println!("\nwritten: docs/benchmarks.md");
    }
    judge(&rows, against.as_deref(), options.check)
}

/// Says which figures are above their budgets, or are not what they were; an error with `check`.
fn judge(rows: &[table::Row], against: Option<&str>, check: bool) -> Result<()> {
    let mut faults = Vec::new();
    if let Some(text) = against {
        let compared = record::compare(rows, text)?;
        println!(
            "{} figures in instructions compared, {} differ by more than 0.5 %",
            compared.count,
            compared.differences.len()
        );
        compared
            .differences
            .iter()
            .for_each(|line| println!("{line}"));
        if !compared.differences.is_empty() {
            faults.push(format!(
                "two runs differ: {}",
                compared.differences.join("; ")
            ));
        }
    }
    let missed: Vec<&str> = rows
        .iter()
        .filter(|row| row.is_missed())
        .map(|row| &*row.name)
        .collect();
    if !missed.is_empty() {
        let line = format!("above their budgets: {}", missed.join(", "));
        println!("{line}");
        faults.push(line);
    }
    if check && !faults.is_empty() {
        bail!(faults.join("\n"));
    }
    Ok(())
}

/// The readings of both columns, from the machines that are wanted: all where `machines` is empty.
fn measure_all(bench: &Bench<'_>, machines: &[Model], groups: &[Group]) -> Result<[Readings; 2]> {
    let mut measured = [Readings::new(), Readings::new()];
    let wanted = &|model| machines.is_empty() || machines.contains(&model);
    // The machines do not disturb each other: they count instructions.
    std::thread::scope(|scope| {
        let runs: Vec<_> = MACHINES
            .into_iter()
            .zip(WITH_CHILDREN)
            .zip(&mut measured)
            .map(|((model, with_children), readings)| {
                scope.spawn(move || {
                    if wanted(model) {
                        measure(bench, model, groups, readings)?;
                    }
                    if wanted(with_children) {
                        measure_child(bench, with_children, groups, readings)?;
                    }
                    Ok(())
                })
            })
            .collect();
        runs.into_iter().try_for_each(|run| {
            run.join()
                .unwrap_or_else(|_| Err(anyhow!("a measuring thread panicked")))
        })
    })?;
    Ok(measured)
}

/// The readings that no machine has a part in: the hypervisor's file, and its sources where they are asked for.
fn measure_image(
    bench: &Bench<'_>,
    groups: &[Group],
    sections: &[image::Section],
    setting: &mut Setting,
) -> Result<Readings> {
    let in_file = sections.iter().filter(|section| section.is_in_file);
    let bytes = in_file.map(|section| section.bytes).sum();
    let mut readings = Readings::from([("image".to_owned(), bytes)]);
    if groups.contains(&Group::Code) {
        setting.dependencies = count_code(bench.workspace, &mut readings)?;
        let sizes = image::crates(&bench.images.hypervisor)?;
        for dependency in &mut setting.dependencies {
            // "spin v0.10.0"
            let name = dependency.split(' ').next().unwrap_or_default();
            let bytes = sizes.get(&name.replace('-', "_")).copied().unwrap_or(0);
            *readings.entry("dependency-bytes".to_owned()).or_default() += bytes;
            let _ = write!(dependency, " ({} bytes)", table::with_commas(bytes as i64));
        }
    }
    Ok(readings)
}

fn read(file: &Path) -> Result<String> {
    fs::read_to_string(file).with_context(|| format!("reading {}", file.display()))
}

/// Runs on `model` what `groups` need.
fn measure(
    bench: &Bench<'_>,
    model: Model,
    groups: &[Group],
    readings: &mut Readings,
) -> Result<()> {
    if groups.contains(&Group::Exits) || groups.contains(&Group::Memory) {
        let (exits, memory) = bench.exits(model)?;
        readings.extend(exits);
        readings.extend(memory);
    }
    if groups.contains(&Group::Children) {
        readings.extend(bench.children(model)?);
    }
    if groups.contains(&Group::Boot) {
        readings.extend(bench.boot(model)?);
    }
    Ok(())
}

/// Runs on `model` what `groups` need of a Debian child, all in one run.
fn measure_child(
    bench: &Bench<'_>,
    model: Model,
    groups: &[Group],
    readings: &mut Readings,
) -> Result<()> {
    let words: Vec<&str> = [Group::Child, Group::Storage]
        .into_iter()
        .filter(|group| groups.contains(group))
        .map(Group::name)
        .collect();
    if !words.is_empty() {
        readings.extend(bench.debian_child(model, &words)?);
    }
    Ok(())
}

/// The groups that hold what was asked for. Rows whose names come from a measurement are told by their first word.
fn groups(only: &[String]) -> Result<Vec<Group>> {
    if only.is_empty() {
        return Ok(Group::ALL.to_vec());
    }
    let mut groups = Vec::new();
    for name in only {
        let group = Group::ALL
            .into_iter()
            .find(|group| group.name() == name)
            .or_else(|| {
                let has = |group: &Group| group.figures().iter().any(|figure| figure.name == name);
                Group::ALL.into_iter().find(has)
            })
            .or(match name.split(['-', ' ']).next() {
                Some("memory" | "section") => Some(Group::Memory),
                Some("boot") => Some(Group::Boot),
                Some("child") => Some(Group::Child),
                Some("storage") => Some(Group::Storage),
                _ => None,
            })
            .with_context(|| format!("no figure or group is called `{name}`"))?;
        if !groups.contains(&group) {
            groups.push(group);
        }
    }
    Ok(groups)
}

/// Counts the sources into `readings`, and names the crates of others.
fn count_code(workspace: &Workspace, readings: &mut Readings) -> Result<Vec<String>> {
    let crates = source::crates(workspace)?;
    for directory in &crates.own {
        let counts = source::count(directory)?;
        for (name, count) in [
            ("code-lines", counts.lines),
            ("unsafe-blocks", counts.unsafe_blocks),
            ("unsafe-functions", counts.unsafe_functions),
        ] {
            *readings.entry(name.to_owned()).or_default() += count;
        }
        let path = directory.strip_prefix(workspace.root());
        let path = path.unwrap_or(directory).display();
        readings.insert(format!("code-lines.{path}"), counts.lines);
    }
    readings.insert("dependencies".to_owned(), crates.foreign.len() as u64);
    Ok(crates.foreign)
}

fn setting(workspace: &Workspace, bench: &Bench<'_>) -> Result<Setting> {
    let output = |program: &str, arguments: &[&str]| -> Result<String> {
        let output = Command::new(program)
            .args(arguments)
            .current_dir(workspace.root())
            .output()
            .with_context(|| format!("starting {program}"))?;
        Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
    };
    let kernel = debian::kernel(Flavour::Cloud)?;
    Ok(Setting {
        date: output("date", &["-u", "+%Y-%m-%d"])?,
        version: output("git", &["describe", "--always", "--tags", "--dirty"])?,
        versions: vec![
            format!("Bochs: {}", version(bench.emulators.bochs.path(), "bochs-")),
            format!(
                "OVMF: {}",
                version(&bench.emulators.firmware.code, "firmware-")
            ),
            format!("Debian's kernel: {}", kernel.release),
            output("rustc", &["--version"])?,
        ],
        ..Setting::default()
    })
}

/// The version in the name of the cache's directory that holds `path`.
fn version(path: &Path, prefix: &str) -> String {
    path.iter()
        .find_map(|part| part.to_str()?.strip_prefix(prefix))
        .unwrap_or("of the system")
        .to_owned()
}
