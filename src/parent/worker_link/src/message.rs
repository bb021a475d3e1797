//! The messages.

use serde::{Deserialize, Serialize};

/// The place of a file among those that came with [`ToWorker::Start`], from 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct FdIndex(pub u32);

/// From `vmms`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ToWorker {
    /// The first message, and the only one with files. [`FromWorker::Ready`] or [`StopReason::Failed`] follows.
    Start(Box<Start>),
    /// Let the VPs run, after [`FromWorker::Ready`]. [`FromWorker::Running`] follows.
    Run,
    /// Stop the VPs and wait for requests on their way. [`FromWorker::Paused`] follows.
    Pause,
    /// Undo [`ToWorker::Pause`]. [`FromWorker::Running`] follows.
    Resume,
    /// Press the power button of the child. It may take no notice.
    PowerButton,
    /// End: stop the VPs, finish what is on its way to the disks, and exit. [`FromWorker::Stopped`] follows.
    Stop,
    /// The file of this disk has another size: look, and tell the child. [`FromWorker::Resized`] follows.
    ResizeDisk {
        /// Unit of the disk.
        lun: u8,
    },
    /// Say again what was said last of `Ready`, `Running`, `Paused` and `Stopped`; nothing before the first of them.
    Report,
}

/// Bytes of a child's last words (TLFS, "Partition Crash Enlightenment": a page).
pub const CRASH_TEXT_MAX: usize = 4096;

/// From the worker.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum FromWorker {
    /// The kernel lies in memory, registers are set, devices offered. The VPs are still suspended.
    Ready,
    /// The VPs run.
    Running,
    /// The VPs are suspended and no request is on its way.
    Paused,
    /// The child is over. The VPs are suspended, the disks are flushed as far as they go, and the worker exits.
    Stopped {
        /// Why.
        reason: StopReason,
    },
    /// [`ToWorker::ResizeDisk`] was carried out.
    Resized {
        /// Unit of the disk.
        lun: u8,
        /// Its new size.
        bytes: u64,
    },
    /// The child's kernel reported a crash (`HV_X64_MSR_CRASH_CTL`). Its VPs go on: it may have a dump kernel.
    Crashed {
        /// `HV_X64_MSR_CRASH_P0` to `P4`.
        parameters: [u64; 5],
        /// Its last words, where it left some: what [`CRASH_TEXT_MAX`] bytes of the child's say.
        text: Option<String>,
    },
    /// The partition's pool is nearly empty: deposit some.
    DepositLow,
    /// Something went wrong that the child survives; also the refusal of a request. For the log.
    Error {
        /// What, in one sentence.
        text: String,
    },
}

/// Why a child ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum StopReason {
    /// It switched itself off.
    PowerOff,
    /// It asked for a reset.
    Reset,
    /// A VP met a fault that it could not take.
    TripleFault {
        /// Number of the VP.
        vp: u32,
        /// Where it was.
        rip: u64,
    },
    /// `vmms` said [`ToWorker::Stop`].
    Stopped,
    /// The worker could not go on.
    Failed {
        /// What happened, and what helps.
        text: String,
    },
}

/// How the worker begins. All files are the worker's own from then on: `vmms` may close what it sent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Start {
    /// Name of the child. Identifiers of its devices come from it: the same name, the same identifiers.
    pub name: String,
    /// The partition, initialized, its RAM mapped, its VPs made and suspended.
    pub partition: u64,
    /// VPs, from 1. VP n has APIC id n.
    pub vps: u32,
    /// RAM, a multiple of 2 MiB.
    pub memory_bytes: u64,
    /// The slot that the partition is attached to.
    pub slot: u32,
    /// Generation of its session, as ATTACH answered it.
    pub generation: u32,
    /// The slot's open device file (`/dev/uioN`).
    pub slot_fd: FdIndex,
    /// The child's RAM, one memory file of `memory_bytes`, laid out as `child_layout` says.
    pub ram_fd: FdIndex,
    /// The memory file of the shared pages, see [`pages`](crate::pages).
    pub pages_fd: FdIndex,
    /// Kernel, open for reading.
    pub kernel_fd: FdIndex,
    /// Initial RAM disk, open for reading.
    pub initrd_fd: Option<FdIndex>,
    /// One end of a stream socket: what the child writes to COM1 goes out, what comes in is typed.
    pub console_fd: Option<FdIndex>,
    /// Where the worker's own messages go, a line each. Standard error without it.
    pub log_fd: Option<FdIndex>,
    /// Arguments of the kernel.
    pub command_line: String,
    /// Units of the SCSI controller.
    pub disks: Vec<Disk>,
    /// Who the worker becomes once it has all it needs. Without it, it stays who it is.
    pub identity: Option<Identity>,
}

/// User and group of a worker. One of its own for each child.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    /// User id.
    pub uid: u32,
    /// Group id.
    pub gid: u32,
}

/// One unit of the SCSI controller.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Disk {
    /// The image, opened by `vmms`, for reading and writing unless `read_only`. A block device also with `O_EXCL`.
    pub fd: FdIndex,
    /// Where it was found, for messages.
    pub path: String,
    /// Layout of the file.
    pub format: ImageFormat,
    /// What it is to the child.
    pub kind: DiskKind,
    /// The child may not write.
    pub read_only: bool,
    /// Serial number that the child sees, up to 20 printable ASCII characters. `None`: one made of child and unit.
    pub serial: Option<String>,
    /// Unit, 0 to 63; no two alike.
    pub lun: u8,
}

/// How an image file is laid out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ImageFormat {
    /// Nothing but the disk's bytes; also a block device or a CD image.
    #[default]
    Raw,
    /// QEMU's.
    Qcow2,
    /// Hyper-V's.
    Vhdx,
    /// Hyper-V's older one.
    Vhd,
}

/// What a unit is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DiskKind {
    /// A disk.
    #[default]
    Disk,
    /// A drive with this CD in it. Always read-only.
    Cdrom,
}
