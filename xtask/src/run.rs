//! `cargo xtask run`: one machine, on the terminal or watched for a while.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Result, bail};
use clap::Args;
use runner::files::RunFiles;
use runner::machine::{Bus, Disk, Machine, Model};
use runner::session::{self, Limits};

use crate::boot_disk::{self, Guest};
use crate::setup::debian::{ChildKernel, Flavour};
use crate::setup::emulators;
use crate::workspace::Workspace;
use crate::{build, child, disk_image, guest};

/// What `cargo xtask run` can be told.
#[derive(Args)]
pub struct Options {
    /// The machine: qemu-svm, bochs-vmx or bochs-svm
    #[arg(long, default_value = "qemu-svm")]
    machine: Model,
    /// Number of processors
    #[arg(long, default_value_t = 2)]
    vps: u32,
    /// Memory in MiB
    #[arg(long, default_value_t = 2048)]
    memory: u32,
    /// Which of Debian's kernels is the parent
    #[arg(long, value_enum, default_value = "cloud")]
    kernel: Flavour,
    /// An EFI program to be the parent in place of Debian's kernel
    #[arg(long, value_name = "EFI")]
    guest: Option<PathBuf>,
    /// A kernel that children can boot: cloud, cloud-6.1 or pae-6.1; may be repeated. The first one's child is started
    #[arg(long, value_name = "KERNEL")]
    child: Vec<String>,
    /// No child: leave the user at the parent's shell. So it is with --batch, --bare and --guest, unless --child is given
    #[arg(long, conflicts_with = "child")]
    parent_only: bool,
    /// More words for the parent's command line, or the load options of --guest
    #[arg(long, default_value = "", allow_hyphen_values = true)]
    append: String,
    /// A whole configuration file for the loader, in place of the usual one
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Start the parent without the hypervisor
    #[arg(long)]
    bare: bool,
    /// Do not use the terminal: run until the machine ends, then print both serial ports
    #[arg(long)]
    batch: bool,
    /// With --batch, stop after this many seconds
    #[arg(long, default_value_t = 120)]
    timeout: u64,
    /// Features of the hypervisor's crate to build with: test-panic is the one there is
    #[arg(long, value_delimiter = ',')]
    features: Vec<String>,
    /// Processor features for the emulator, such as `-la57`
    #[arg(long, value_delimiter = ',', allow_hyphen_values = true)]
    cpu: Vec<String>,
    /// One more argument for QEMU; may be repeated
    #[arg(long, allow_hyphen_values = true)]
    qemu: Vec<String>,
    /// With --batch, let a reset start the machine anew, rather than end it
    #[arg(long)]
    reboot: bool,
}

impl Options {
    fn child_kernels(&self) -> Result<Vec<ChildKernel>> {
        let is_plain = self.parent_only || self.batch || self.bare || self.guest.is_some();
        if self.child.is_empty() && !is_plain {
            return Ok(vec![ChildKernel::Cloud]);
        }
        self.child.iter().map(|name| child::named(name)).collect()
    }
}

/// Runs it.
pub fn run(options: &Options) -> Result<()> {
    let workspace = Workspace::find()?;
    let emulators = emulators::obtain()?;
    let kernels = options.child_kernels()?;
    let guest = match &options.guest {
        Some(image) => Guest::Program {
            image: image.clone(),
            command_line: options.append.clone(),
        },
        None => {
            let extras = guest::Extras {
                programs: !kernels.is_empty(),
                ..guest::Extras::default()
            };
            let mut words = options.append.clone();
            if let Some(&first) = kernels.first() {
                words = format!("vg.child={} {words}", child::name(first));
            }
            guest::debian(&workspace, options.kernel, extras, &words)?
        }
    };
    let entries = if options.bare {
        boot_disk::bare(&guest, &emulators.firmware.boot_menu)?
    } else {
        let build_options = build::Options {
            features: options.features.clone(),
        };
        let images = build::build(&workspace, &build_options)?;
        let configuration = match &options.config {
            Some(file) => std::fs::read_to_string(file)?,
            None => boot_disk::configuration(&guest, boot_disk::HYPERVISOR_SECTION),
        };
        boot_disk::with_hypervisor(&images, &guest, &configuration)?
    };
    let files = RunFiles::prepare(&workspace.target().join(format!("run/{}", options.machine)))?;
    let disk = files.directory().join("disk.img");
    disk_image::write(&disk, &entries)?;

    let mut machine = Machine::new(options.machine, disk);
    machine.processors = options.vps;
    machine.memory_mib = options.memory;
    machine.features = options.cpu.clone();
    machine.qemu_arguments = options.qemu.clone();
    machine.may_use_kvm = true;
    if !kernels.is_empty() {
        let disk = child::disk(&workspace, &kernels.into_iter().collect())?;
        machine.disks.push(Disk::volatile(disk, Bus::Virtio));
    }
    machine.ends_at_reset = options.batch && !options.reboot;
    if !options.batch {
        return runner::terminal::run(&emulators, &machine, &files);
    }
    let limits = Limits {
        timeout: Duration::from_secs(options.timeout),
        stop_lines: Vec::new(),
        grace: session::GRACE,
    };
    let outcome = session::run(&emulators, &machine, &files, &limits)?;
    println!("===== parent's console (COM1)\n{}", outcome.parent);
    println!("===== hypervisor's log (COM2)\n{}", outcome.hypervisor);
    println!(
        "===== {:?} after {:.1} s; logs in {}",
        outcome.end,
        outcome.elapsed.as_secs_f32(),
        files.directory().display()
    );
    match outcome.end {
        session::End::PowerOff => Ok(()),
        other => bail!("the machine did not switch itself off: {other:?}"),
    }
}
