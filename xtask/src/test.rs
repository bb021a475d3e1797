//! `cargo xtask test`: the host suite, then the boot tests of `tests/cases.toml`.

mod boot;
mod download;
mod prepare;
mod pull;
mod report;
mod schedule;

use std::collections::BTreeMap;

use anyhow::{Result, bail, ensure};
use clap::{Args, ValueEnum};
use runner::cases::{self, Case};
use runner::machine::Model;

use crate::workspace::Workspace;
use report::Totals;

/// What `cargo xtask test` can be told.
#[derive(Args)]
pub struct Options {
    /// Only this tier
    #[arg(value_enum)]
    tier: Option<Tier>,
    /// Show the boot tests and where they run, and run nothing
    #[arg(long)]
    list: bool,
    /// Only this boot test; may be repeated
    #[arg(long = "case", value_name = "NAME")]
    cases: Vec<String>,
    /// Only on this machine; may be repeated
    #[arg(long = "machine", value_name = "MACHINE")]
    machines: Vec<Model>,
    /// Also the boot tests that take many minutes, which otherwise run only by name
    #[arg(long)]
    long: bool,
    /// How many processors the machines that run at a time may have in all; those of the host if left out
    #[arg(long, default_value_t = processors())]
    pub jobs: usize,
    /// Run a boot test that fails once more, and count the second try; the first one stays in the summary
    #[arg(long)]
    pub retry: bool,
    /// Give every machine this many times its time, where the host is slow or busy
    #[arg(long, default_value_t = 1)]
    pub patience: u32,
}

impl Options {
    /// Every test on every machine.
    pub fn all() -> Self {
        Self {
            tier: None,
            list: false,
            cases: Vec::new(),
            machines: Vec::new(),
            long: false,
            jobs: processors(),
            // Nobody waits at a desk for CI; a slow host must not look like a hang.
            retry: true,
            patience: 3,
        }
    }

    /// Why the verdict on a row does not count yet. Who asks for one by its name wants to know, whatever is thought of it.
    fn trial<'a>(&self, name: &str, model: Model, case: &'a Case) -> Option<&'a str> {
        let is_named = self.cases.iter().any(|asked| asked == name);
        case.trial_on(model).filter(|_| !is_named)
    }
}

fn processors() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

/// The kinds of tests.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Tier {
    /// `cargo test` of everything that runs on this machine
    Host,
    /// The rows of `tests/cases.toml`, each on its machines
    Boot,
}

/// Runs what is asked for. An error means that a test failed.
pub fn run(options: &Options) -> Result<()> {
    let workspace = Workspace::find()?;
    let all = cases::read(&workspace.root().join("tests/cases.toml"))?;
    let selected = select(&all, options)?;
    if options.list {
        for (name, model, case) in &selected {
            let mut remarks = String::new();
            if case.is_long_on(*model) {
                remarks.push_str("   long");
            }
            for (kind, why) in [
                ("known", case.known.as_deref()),
                ("on trial", case.trial_on(*model)),
            ] {
                if let Some(why) = why {
                    remarks.push_str(&format!("   {kind}: {why}"));
                }
            }
            println!("{name:34} {model}{remarks}");
        }
        return Ok(());
    }
    let only_boot = !options.cases.is_empty() || !options.machines.is_empty();
    let mut totals = Totals::default();
    if options.tier != Some(Tier::Boot) && !only_boot {
        host(&workspace, &mut totals)?;
    }
    if options.tier != Some(Tier::Host) {
        boot::run(&workspace, &selected, options, &mut totals)?;
    }
    totals.print();
    if totals.failed() > 0 {
        bail!("{} failed", totals.failed());
    }
    ensure!(totals.passed() > 0, "no test ran");
    Ok(())
}

type Row<'a> = (&'a str, Model, &'a Case);

fn select<'a>(all: &'a BTreeMap<String, Case>, options: &Options) -> Result<Vec<Row<'a>>> {
    for name in &options.cases {
        ensure!(
            all.contains_key(name),
            "no boot test is called `{name}`; see `cargo xtask test --list`"
        );
    }
    let mut rows: Vec<Row> = Vec::new();
    for (name, case) in all {
        let is_named = options.cases.contains(name);
        if !is_named && !options.cases.is_empty() {
            continue;
        }
        for &model in &case.on {
            let is_wanted = options.machines.is_empty() || options.machines.contains(&model);
            let is_left_out = case.is_long_on(model) && !is_named && !options.long && !options.list;
            if is_wanted && !is_left_out {
                rows.push((name, model, case));
            }
        }
    }
    // The longest first, so that the last of them does not run alone.
    rows.sort_by_key(|(_, model, case)| std::cmp::Reverse(boot::time_limit(*model, case)));
    Ok(rows)
}

/// The host suite. Cargo prints its results; its binaries' summaries are added up.
fn host(workspace: &Workspace, totals: &mut Totals) -> Result<()> {
    println!("== host tests");
    let output = workspace
        .cargo()
        .args(["test", "--no-fail-fast"])
        .stderr(std::process::Stdio::inherit())
        .output()?;
    let text = String::from_utf8_lossy(&output.stdout);
    let (mut passed, mut failed) = (0, 0);
    for line in text.lines() {
        if let Some((p, f)) = parse_summary(line) {
            passed += p;
            failed += f;
        }
    }
    if !output.status.success() {
        print!("{text}");
        // A test that does not compile is a failure as well.
        failed = failed.max(1);
    }
    println!("host tests: {passed} passed, {failed} failed");
    totals.add_host(passed, failed);
    Ok(())
}

fn parse_summary(line: &str) -> Option<(usize, usize)> {
    let mut words = line.strip_prefix("test result: ")?.split_whitespace();
    words.next()?;
    let passed = words.next()?.parse().ok()?;
    let failed = words.nth(1)?.parse().ok()?;
    Some((passed, failed))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cargo_summaries_are_understood() {
        let line =
            "test result: FAILED. 12 passed; 3 failed; 0 ignored; 0 measured; 0 filtered out";
        assert_eq!(parse_summary(line), Some((12, 3)));
        assert_eq!(parse_summary("running 3 tests"), None);
    }
}
