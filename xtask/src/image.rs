//! `cargo xtask image`: a disk image for a real machine or an emulator of one's own.

use std::path::PathBuf;

use anyhow::Result;
use clap::Args;

use crate::setup::debian::Flavour;
use crate::workspace::Workspace;
use crate::{boot_disk, build, disk_image, guest};

/// What `cargo xtask image` can be told.
#[derive(Args)]
pub struct Options {
    /// Where to write it [default: target/verdigris.img]
    #[arg(long)]
    output: Option<PathBuf>,
    /// Which of Debian's kernels is the parent
    #[arg(long, value_enum, default_value = "generic")]
    kernel: Flavour,
    /// More words for the parent's command line
    #[arg(long, default_value = "", allow_hyphen_values = true)]
    append: String,
    /// A whole configuration file for the loader, in place of the usual one
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Features of the hypervisor's crate to build with
    #[arg(long, value_delimiter = ',')]
    features: Vec<String>,
}

/// Makes the image.
pub fn make(options: &Options) -> Result<()> {
    let workspace = Workspace::find()?;
    let build_options = build::Options {
        features: options.features.clone(),
    };
    let images = build::build(&workspace, &build_options)?;
    // On a real machine one looks at the screen; the serial console comes first, so that the last one wins.
    let guest = guest::debian(
        &workspace,
        options.kernel,
        guest::Extras::default(),
        &format!("console=tty0 {}", options.append),
    )?;
    let configuration = match &options.config {
        Some(file) => std::fs::read_to_string(file)?,
        None => boot_disk::configuration(&guest, boot_disk::HYPERVISOR_SECTION),
    };
    let output = match &options.output {
        Some(path) => path.clone(),
        None => workspace.target().join("verdigris.img"),
    };
    disk_image::write(
        &output,
        &boot_disk::with_hypervisor(&images, &guest, &configuration)?,
    )?;
    println!("{}", output.display());
    Ok(())
}
