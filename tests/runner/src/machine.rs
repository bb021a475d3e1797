//! What a test machine is: model, processors, memory, disks.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use serde::Deserialize;

/// The emulated machines that the tests run on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Model {
    /// QEMU's q35 with AMD-V; every disk bus and SMP with real threads.
    QemuSvm,
    /// Bochs' i440FX with an Intel Haswell and VT-x; IDE only, one host thread.
    BochsVmx,
    /// Bochs' i440FX with an AMD Ryzen and AMD-V, which has next-RIP save.
    BochsSvm,
}

impl Model {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::QemuSvm, Self::BochsVmx, Self::BochsSvm];

    /// The name in `cases.toml` and on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::QemuSvm => "qemu-svm",
            Self::BochsVmx => "bochs-vmx",
            Self::BochsSvm => "bochs-svm",
        }
    }

    /// Whether Bochs emulates it.
    pub fn is_bochs(self) -> bool {
        self != Self::QemuSvm
    }
}

impl fmt::Display for Model {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Model {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        Self::ALL
            .into_iter()
            .find(|model| model.name() == name)
            .ok_or_else(|| {
                format!(
                    "no machine is called `{name}`; there are qemu-svm, bochs-vmx and bochs-svm"
                )
            })
    }
}

/// Where a disk is attached. Bochs has IDE only and ignores it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Bus {
    /// The chipset's SATA controller.
    #[default]
    Ahci,
    /// An NVMe controller of its own.
    Nvme,
    /// A virtio-blk device.
    Virtio,
    /// A stick on a USB controller of its own.
    Usb,
}

/// A raw disk image and its place in the machine.
#[derive(Clone, Debug)]
pub struct Disk {
    /// The image; the machine writes to it, unless the disk is volatile.
    pub image: PathBuf,
    /// Where it is attached.
    pub bus: Bus,
    /// Whether what the machine writes is gone when it ends, so that many machines may have the same image.
    pub is_volatile: bool,
}

impl Disk {
    /// A disk that keeps what is written to it.
    pub fn new(image: PathBuf, bus: Bus) -> Self {
        Self {
            image,
            bus,
            is_volatile: false,
        }
    }

    /// A disk whose image is not written to.
    pub fn volatile(image: PathBuf, bus: Bus) -> Self {
        Self {
            is_volatile: true,
            ..Self::new(image, bus)
        }
    }
}

/// One machine, to be started once.
#[derive(Clone, Debug)]
pub struct Machine {
    /// Which emulator and processor.
    pub model: Model,
    /// Number of processors.
    pub processors: u32,
    /// Memory in MiB.
    pub memory_mib: u32,
    /// Whether the processor has AMD-V or VT-x.
    pub has_virtualization: bool,
    /// Processor features to add (`+name`) or take away (`-name`); names are the emulator's.
    pub features: Vec<String>,
    /// The disk that the firmware boots from comes first.
    pub disks: Vec<Disk>,
    /// Whether a reset ends the machine rather than starting it anew.
    pub ends_at_reset: bool,
    /// Whether QEMU is stopped and continued all the time while the machine runs.
    pub is_jolted: bool,
    /// More arguments for QEMU, as they are.
    pub qemu_arguments: Vec<String>,
    /// Whether KVM may be used, if it is able to nest.
    pub may_use_kvm: bool,
    /// What Bochs' debugger is told, a line each. A guest stops at XCHG BX, BX where there are any but the usual one.
    pub debugger: Vec<String>,
}

impl Machine {
    /// The usual machine of this model: one processor, 2 GiB, one disk, ends at a reset.
    pub fn new(model: Model, boot_disk: PathBuf) -> Self {
        Self {
            model,
            processors: 1,
            memory_mib: 2048,
            has_virtualization: true,
            features: Vec::new(),
            disks: vec![Disk::new(boot_disk, Bus::Ahci)],
            ends_at_reset: true,
            is_jolted: false,
            qemu_arguments: Vec::new(),
            may_use_kvm: false,
            debugger: Vec::new(),
        }
    }
}

/// What the machine's first serial port, the parent's console, is connected to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Console {
    /// A file of the run's directory.
    File,
    /// The terminal that xtask runs in.
    Terminal,
}
