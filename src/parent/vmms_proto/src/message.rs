//! The messages.

use std::fmt;

use serde::{Deserialize, Serialize};

/// What `vmms` is asked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "do", rename_all = "kebab-case")]
pub enum Request {
    /// All children that are described or exist: [`Reply::Children`].
    List,
    /// One child: [`Reply::Children`] with one element.
    Show {
        /// Its name.
        name: String,
    },
    /// Keep a new description.
    Create {
        /// The description, as TOML.
        text: String,
    },
    /// Forget the description of a child that is stopped.
    Delete {
        /// Its name.
        name: String,
    },
    /// Start; answered when its VPs run.
    Start {
        /// Its name.
        name: String,
    },
    /// Press the power button, wait, then switch off in good order; answered when it is gone.
    Stop {
        /// Its name.
        name: String,
        /// How long the child may take after the button was pressed; `None`: as its description says. 0: no button.
        seconds: Option<u32>,
    },
    /// Switch off at once; answered when it is gone.
    Kill {
        /// Its name.
        name: String,
    },
    /// Stop its VPs, in between.
    Pause {
        /// Its name.
        name: String,
    },
    /// Let its VPs go on.
    Resume {
        /// Its name.
        name: String,
    },
    /// The file of a disk has another size.
    ResizeDisk {
        /// Name of the child.
        name: String,
        /// Unit of the disk.
        lun: u8,
    },
    /// Attach to its console: [`Reply::Console`].
    Console {
        /// Its name.
        name: String,
    },
    /// What happened to it, and what its worker said: [`Reply::Text`].
    Logs {
        /// Its name.
        name: String,
        /// At most so many of the last lines.
        lines: u32,
    },
}

/// The answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Reply {
    /// It was done.
    Done,
    /// Children, by name.
    Children(Vec<ChildInfo>),
    /// Some text.
    Text(String),
    /// From now on the connection is the console.
    Console,
    /// It was not done: why, and what helps.
    Error(String),
}

/// What a child is doing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ChildState {
    /// There is nothing but its description.
    #[default]
    Stopped,
    /// It is being made.
    Starting,
    /// Its VPs run.
    Running,
    /// Its VPs are being stopped.
    Pausing,
    /// Its VPs are stopped, and it is kept.
    Paused,
    /// It was asked to end.
    Stopping,
    /// It is being taken apart.
    Ending,
    /// It ended and will be started again in a moment.
    Waiting,
    /// It could not be taken apart; its memory stays pinned. `kill` tries again.
    Stuck,
}

impl fmt::Display for ChildState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Stopped => "stopped",
            Self::Starting => "starting",
            Self::Running => "running",
            Self::Pausing => "pausing",
            Self::Paused => "paused",
            Self::Stopping => "stopping",
            Self::Ending => "ending",
            Self::Waiting => "waiting",
            Self::Stuck => "stuck",
        })
    }
}

/// A child as `vmctl` shows it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChildInfo {
    /// Its name.
    pub name: String,
    /// What it is doing.
    pub state: ChildState,
    /// VPs.
    pub vps: u32,
    /// RAM in bytes.
    pub memory_bytes: u64,
    /// Kernel, a path.
    pub kernel: String,
    /// Initial RAM disk, a path.
    pub initrd: Option<String>,
    /// Arguments of the kernel.
    pub command_line: String,
    /// Units of its SCSI controller.
    pub disks: Vec<DiskInfo>,
    /// `never`, `on-reset` or `always`.
    pub restart: String,
    /// `continue`, `stop` or `restart`.
    #[serde(default)]
    pub on_crash: String,
    /// Whether it starts with the system.
    pub autostart: bool,
    /// Its partition, while there is one.
    pub partition: Option<u64>,
    /// Its slot, while it has one.
    pub slot: Option<u32>,
    /// Process of its worker, while there is one.
    pub worker: Option<i32>,
    /// Times it was started since `vmms` first saw it.
    pub starts: u32,
    /// Why it ended the last time.
    pub last_end: Option<String>,
    /// Crashes that its kernel reported since `vmms` first saw it.
    #[serde(default)]
    pub crashes: u32,
    /// The last of them.
    pub last_crash: Option<CrashInfo>,
    /// What is wrong with its description, if something is.
    pub error: Option<String>,
}

/// A crash that a child's kernel reported.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CrashInfo {
    /// When, in seconds since 1970.
    pub time: u64,
    /// The five parameters, whose meaning is the kernel's own.
    pub parameters: [u64; 5],
    /// Its last words, where it left some.
    pub text: Option<String>,
}

/// A unit of the SCSI controller.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DiskInfo {
    /// Its number.
    pub lun: u8,
    /// Image or device.
    pub path: String,
    /// `raw`, `qcow2`, `vhdx` or `vhd`.
    pub format: String,
    /// The child may not write.
    pub read_only: bool,
    /// It is a CD drive.
    pub cdrom: bool,
}
