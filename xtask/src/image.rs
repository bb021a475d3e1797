//! `cargo xtask image`: a disk image for a real machine or an emulator of one's own.

use std::path::PathBuf;

use anyhow::Result;
use clap::Args;

use crate::setup::debian::{ChildKernel, Flavour};
use crate::workspace::Workspace;
use crate::{boot_disk, build, child, disk_image, guest};

/// What `cargo xtask image` can be told.
#[derive(Args)]
pub struct Options {
    /// Where to write it [default: target/verdigris.img]
    #[arg(long)]
    output: Option<PathBuf>,
    /// Which of Debian's kernels is the parent
    #[arg(long, value_enum, default_value = "generic")]
    kernel: Flavour,
    /// A kernel that children can boot: cloud, cloud-6.1 or pae-6.1; may be repeated. The first one's child is started
    #[arg(long, value_name = "KERNEL", default_value = "cloud")]
    child: Vec<String>,
    /// No child, and no second partition with what children boot
    #[arg(long)]
    parent_only: bool,
    /// More words for the parent's command line
    #[arg(long, default_value = "", allow_hyphen_values = true)]
    append: String,
    /// A whole configuration file for the loader, in place of the usual one
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Features of the hypervisor's crate to build with: test-panic is the one there is
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
    let kernels: Vec<ChildKernel> = if options.parent_only {
        Vec::new()
    } else {
        let named = options.child.iter().map(|name| child::named(name));
        named.collect::<Result<_>>()?
    };
    let extras = guest::Extras {
        programs: !kernels.is_empty(),
        ..guest::Extras::default()
    };
    // On a real machine one looks at the screen; the serial console comes first, so that the last one wins.
    let mut words = format!("console=tty0 {}", options.append);
    let mut store = None;
    if let Some(&first) = kernels.first() {
        words = format!("vg.child={} {words}", child::name(first));
        store = Some(child::disk(&workspace, &kernels.into_iter().collect())?);
    }
    let guest = guest::debian(&workspace, options.kernel, extras, &words)?;
    let configuration = match &options.config {
        Some(file) => std::fs::read_to_string(file)?,
        None => boot_disk::configuration(&guest, boot_disk::HYPERVISOR_SECTION),
    };
    let output = match &options.output {
        Some(path) => path.clone(),
        None => workspace.target().join("verdigris.img"),
    };
    let entries = boot_disk::with_hypervisor(&images, &guest, &configuration)?;
    disk_image::write_with_root(&output, &entries, store.as_deref())?;
    println!("{}", output.display());
    Ok(())
}
