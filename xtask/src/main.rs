//! `cargo xtask VERB`: every verb that a person or CI runs.

mod setup;
mod workspace;

use anyhow::Result;
use clap::{Parser, Subcommand};

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
}

fn main() -> Result<()> {
    match Arguments::parse().verb {
        Verb::Setup => {
            setup::rust::obtain_targets()?;
            let emulators = setup::emulators::obtain()?;
            setup::emulators::check(&emulators)?;
            for flavour in [
                setup::debian::Flavour::Cloud,
                setup::debian::Flavour::Generic,
            ] {
                let kernel = setup::debian::kernel(flavour)?;
                println!("kernel {} {}", kernel.release, kernel.image.display());
            }
            println!("busybox {}", setup::debian::busybox()?.display());
            Ok(())
        }
    }
}
