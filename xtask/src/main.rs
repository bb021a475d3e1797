//! `cargo xtask VERB`: every verb that a person or CI runs.

mod bench;
mod boot_disk;
mod build;
mod child;
mod ci;
mod disk_image;
mod ext4;
mod fuzz;
mod guest;
mod image;
mod initramfs;
mod layers;
mod lint;
mod profile;
mod root_disk;
mod run;
mod setup;
mod size;
mod symbolize;
mod test;
mod workspace;

use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};

use workspace::Workspace;

#[derive(Parser)]
#[command(
    name = "cargo xtask",
    bin_name = "cargo xtask",
    about = "Builds, boots and tests Verdigris"
)]
struct Arguments {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// Fetch everything that the other verbs need, so that they work without a network
    Setup,
    /// Build the hypervisor and the loader, and print where they lie
    Build {
        /// Features of the hypervisor's crate to build with: test-panic is the one there is
        #[arg(long, value_delimiter = ',')]
        features: Vec<String>,
    },
    /// Boot a machine with Debian as the parent, on this terminal
    Run(run::Options),
    /// Write a disk image that boots the hypervisor, for a USB stick or an emulator of one's own
    Image(image::Options),
    /// Run the tests: of the host, on emulated machines, or both
    Test(test::Options),
    /// Feed the fuzz targets with what libFuzzer thinks up
    Fuzz(fuzz::Options),
    /// Check format, clippy and the direction of the layers
    Lint,
    /// Print the size of the hypervisor's image, and what memory it takes at launch
    Size,
    /// Measure what the hypervisor costs, and write docs/benchmarks.md
    Bench(bench::Options),
    /// Show which functions the instructions of a measurement go to
    Profile(profile::Options),
    /// Turn the addresses of a panic record into functions, files and lines
    Symbolize(symbolize::Options),
    /// Everything that CI runs: lint, size, and all tests but the long ones
    Ci,
}

fn main() -> ExitCode {
    runner::tether::enter();
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<()> {
    match Arguments::parse().verb {
        Verb::Setup => setup::everything(),
        Verb::Build { features } => {
            let images = build::build(&Workspace::find()?, &build::Options { features })?;
            println!(
                "{}\n{}",
                images.loader.display(),
                images.hypervisor.display()
            );
            Ok(())
        }
        Verb::Run(options) => run::run(&options),
        Verb::Image(options) => image::make(&options),
        Verb::Test(options) => test::run(&options),
        Verb::Fuzz(options) => fuzz::run(&options),
        Verb::Lint => lint::run(),
        Verb::Size => size::run(),
        Verb::Bench(options) => bench::run(&options),
        Verb::Profile(options) => profile::run(&options),
        Verb::Symbolize(options) => symbolize::run(&options),
        Verb::Ci => ci::run(),
    }
}
