//! `cargo xtask VERB`: every verb that a person or CI runs.

mod boot_disk;
mod build;
mod disk_image;
mod guest;
mod initramfs;
mod run;
mod setup;
mod test;
mod workspace;

use anyhow::Result;
use clap::{Parser, Subcommand};

use workspace::Workspace;

#[derive(Parser)]
#[command(name = "cargo xtask", about = "Builds, boots and tests Verdigris")]
struct Arguments {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// Fetch everything that the other verbs need, so that they work without a network
    Setup,
    /// Build the hypervisor and the loader
    Build {
        /// Features of the hypervisor's crate
        #[arg(long, value_delimiter = ',')]
        features: Vec<String>,
    },
    /// Boot a machine with Debian as the parent, on this terminal
    Run(run::Options),
    /// Run the tests
    Test(test::Options),
}

fn main() -> Result<()> {
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
        Verb::Test(options) => test::run(&options),
    }
}
