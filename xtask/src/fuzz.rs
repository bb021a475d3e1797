//! `cargo xtask fuzz`: libFuzzer on the targets of `tests/fuzz`, one after the other.
//!
//! Plain cargo builds them, with the nightly compiler and the flags that `tests/fuzz/libfuzzer` names. What is worth
//! keeping of a run lies in the cache, in a folder for each target: `corpus`, `found` and `log.txt`.

use std::ffi::OsString;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail, ensure};
use clap::Args;
use runner::tether::{self, AtDeath};

use crate::setup::{cache_directory, find_program, say};
use crate::workspace::Workspace;

/// One input may take so many seconds, on a busy host too. More is a loop without a bound.
const TIMEOUT_S: u32 = 25;
/// How many lines of a log are shown from the panic on.
const LINES_OF_PANIC: usize = 12;
/// Has a target print what it takes its bytes for.
const SHOW: &str = "FUZZ_SHOW";

/// What `cargo xtask fuzz` can be told.
#[derive(Args)]
pub struct Options {
    /// Only these targets
    targets: Vec<String>,
    /// How long each of them runs
    #[arg(long, default_value_t = 60)]
    seconds: u32,
    /// Show the targets, and run nothing
    #[arg(long)]
    list: bool,
    /// Run the one target once, on this input, and show what it takes it for
    #[arg(long, value_name = "FILE", conflicts_with = "seconds")]
    input: Option<PathBuf>,
}

/// Runs them. An error means that one found something, or did not run.
pub fn run(options: &Options) -> Result<()> {
    let workspace = Workspace::find()?;
    let programs = workspace.root().join("tests/fuzz/libfuzzer");
    let all = names(&programs.join("src/bin"))?;
    if options.list {
        all.iter().for_each(|name| println!("{name}"));
        return Ok(());
    }
    for name in &options.targets {
        ensure!(
            all.contains(name),
            "no fuzz target is called `{name}`; see `cargo xtask fuzz --list`"
        );
    }
    let chosen = if options.targets.is_empty() {
        &all
    } else {
        &options.targets
    };
    if options.input.is_some() {
        ensure!(
            options.targets.len() == 1,
            "--input is for one target, which is to be named"
        );
    }
    let built = build(&workspace, &programs, chosen)?;
    if let Some(input) = &options.input {
        let status = tether::command(built.join(&chosen[0]), AtDeath::Kill)
            .arg(input)
            .env(SHOW, "1")
            .status()?;
        ensure!(status.success(), "the input breaks a rule: {status}");
        return Ok(());
    }
    let mut found = Vec::new();
    for name in chosen {
        if !run_one(&workspace, &built, name, options.seconds)? {
            found.push(&**name);
        }
    }
    ensure!(found.is_empty(), "found something: {}", found.join(", "));
    Ok(())
}

/// Names of the sources in `directory`, sorted.
fn names(directory: &Path) -> Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in fs::read_dir(directory)? {
        let path = entry?.path();
        if let (Some(name), Some("rs")) = (
            path.file_stem().and_then(|name| name.to_str()),
            path.extension().and_then(|extension| extension.to_str()),
        ) {
            names.push(name.to_owned());
        }
    }
    names.sort();
    Ok(names)
}

/// Builds `targets` and returns the directory with their programs.
fn build(workspace: &Workspace, programs: &Path, targets: &[String]) -> Result<PathBuf> {
    let channel = obtain_compiler(programs)?;
    let cxx = std::env::var_os("CXX").unwrap_or("c++".into());
    ensure!(
        Path::new(&cxx).is_absolute() || find_program(&cxx.to_string_lossy()).is_some(),
        "libFuzzer is built from C++, and there is no `{}`: install a compiler (Debian: `apt install g++`), or name one in CXX",
        cxx.display()
    );
    let directory = workspace.target().join("fuzz");
    let mut cargo = tether::command("rustup", AtDeath::Terminate);
    cargo
        .args(["run", &channel, "cargo", "build", "--release", "--quiet"])
        .arg("--target-dir")
        .arg(&directory)
        .args(targets.iter().flat_map(|name| ["--bin", name]))
        .current_dir(programs);
    // What cargo and rustup set for xtask itself, and flags that would take the place of the instrumentation.
    for name in std::env::vars_os().map(|(name, _)| name) {
        if is_of_cargo(&name) {
            cargo.env_remove(name);
        }
    }
    eprintln!("building: {} ...", targets.join(" "));
    let status = cargo.status().context("starting rustup")?;
    ensure!(status.success(), "the fuzz targets could not be built");
    Ok(directory.join("x86_64-unknown-linux-gnu/release"))
}

fn is_of_cargo(name: &OsString) -> bool {
    let name = name.to_string_lossy();
    let is_kept = matches!(&*name, "CARGO_HOME" | "CARGO_NET_OFFLINE");
    let starts = ["CARGO", "RUSTC", "RUSTDOC", "RUSTFLAGS", "RUSTUP_TOOLCHAIN"];
    !is_kept && starts.iter().any(|start| name.starts_with(start))
}

/// The name of the compiler in `rust-toolchain.toml`, which is installed when this returns.
fn obtain_compiler(programs: &Path) -> Result<String> {
    let text = fs::read_to_string(programs.join("rust-toolchain.toml"))?;
    let file: toml::Table = toml::from_str(&text)?;
    let channel = file
        .get("toolchain")
        .and_then(|toolchain| toolchain.get("channel")?.as_str())
        .context("rust-toolchain.toml names no channel")?;
    ensure!(
        find_program("rustup").is_some(),
        "fuzzing takes the compiler {channel}, and there is no rustup to bring it: install rustup (README.md)"
    );
    let is_there = Command::new("rustup")
        .args(["run", channel, "rustc", "--version"])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()?
        .success();
    if !is_there {
        say(&format!("installing the compiler {channel}"));
        let status = tether::command("rustup", AtDeath::Kill)
            .args(["toolchain", "install", channel])
            .args(["--profile", "minimal", "--no-self-update"])
            .status()?;
        ensure!(
            status.success(),
            "fuzzing takes the compiler {channel}, which rustup could not install: \
             `rustup toolchain install {channel} --profile minimal` where there is a network"
        );
    }
    Ok(channel.to_owned())
}

/// Whether `name` found nothing in so many seconds.
fn run_one(workspace: &Workspace, built: &Path, name: &str, seconds: u32) -> Result<bool> {
    let cache = cache_directory()?.join("fuzz").join(name);
    let (corpus, found, log) = (
        cache.join("corpus"),
        cache.join("found"),
        cache.join("log.txt"),
    );
    fs::create_dir_all(&corpus)?;
    fs::create_dir_all(&found)?;
    let output = File::create(&log)?;
    let mut fuzzer = tether::command(built.join(name), AtDeath::Kill);
    fuzzer
        .arg(format!("-max_total_time={seconds}"))
        .arg(format!("-timeout={TIMEOUT_S}"))
        // Most targets take steps one after the other, and do little in a few bytes.
        .arg("-len_control=10")
        .arg(format!("-artifact_prefix={}/", found.display()))
        .arg(&corpus);
    // Beside what is there, what is known from before; libFuzzer writes to the first.
    let kept = workspace.root().join("tests/fuzz/corpus").join(name);
    if kept.is_dir() {
        fuzzer.arg(kept);
    }
    let status = fuzzer
        .stdin(Stdio::null())
        .stdout(output.try_clone()?)
        .stderr(output)
        .status()
        .with_context(|| format!("starting the fuzz target {name}"))?;
    let text = String::from_utf8_lossy(&fs::read(&log)?).into_owned();
    if status.success() {
        let runs = text
            .lines()
            .rev()
            .find_map(|line| line.strip_prefix("Done "));
        println!("{name}: nothing found; {}", runs.unwrap_or("no runs"));
        ensure!(runs.is_some(), "{name} did nothing; see {}", log.display());
        return Ok(true);
    }
    println!("{name}: FOUND SOMETHING ({status})");
    for line in panic(&text) {
        println!("    {line}");
    }
    let Some(input) = input(&text) else {
        bail!("{name} ended without an input; see {}", log.display());
    };
    println!("    input:  {input}");
    println!("    replay: cargo xtask fuzz {name} --input {input}");
    println!("    mended: give it a name in tests/fuzz/corpus/{name}");
    Ok(false)
}

/// What a log says from the panic on, or from the words of libFuzzer.
fn panic(log: &str) -> impl Iterator<Item = &str> {
    let is_start = |line: &&str| line.contains("panicked at") || line.contains("ERROR: libFuzzer");
    log.lines()
        .skip_while(move |line| !is_start(line))
        // libFuzzer's stack is one of signal handlers.
        .filter(|line| !line.trim().is_empty() && !line.trim_start().starts_with('#'))
        .take(LINES_OF_PANIC)
}

/// The file that libFuzzer wrote the input to.
fn input(log: &str) -> Option<&str> {
    log.lines()
        .find_map(|line| Some(line.split_once("Test unit written to ")?.1.trim()))
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOG: &str = "#2\tINITED\n\nthread '<unnamed>' panicked at src/a.rs:1:2:\nwrong\n==7== ERROR: libFuzzer: deadly signal\n\
        artifact_prefix='/c/found/'; Test unit written to /c/found/crash-0a\nBase64: AA==\n";

    #[test]
    fn a_log_tells_what_broke_and_on_what() {
        assert_eq!(input(LOG), Some("/c/found/crash-0a"));
        let lines: Vec<_> = panic(LOG).collect();
        assert!(lines[0].contains("panicked at src/a.rs") && lines[1] == "wrong");
        assert_eq!(input("#2\tINITED\n"), None);
    }

    #[test]
    fn variables_of_cargo_do_not_reach_the_nightly_one() {
        for name in ["CARGO", "CARGO_PKG_NAME", "RUSTUP_TOOLCHAIN", "RUSTFLAGS"] {
            assert!(is_of_cargo(&name.into()), "{name}");
        }
        for name in ["CARGO_HOME", "RUSTUP_HOME", "PATH"] {
            assert!(!is_of_cargo(&name.into()), "{name}");
        }
    }
}
