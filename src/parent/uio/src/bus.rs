//! Where the parent's kernel shows the channels of its VMBus.

use std::fs::{self, File};
use std::io::{self, ErrorKind};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use vmbus_proto::Guid;

use crate::{Channel, ChannelError};

const DRIVER: &str = "uio_hv_generic";
/// How often a device is looked for.
const RETRY: Duration = Duration::from_millis(20);

/// Why a channel cannot be reached, and what helps.
#[derive(Debug, thiserror::Error)]
pub enum BusError {
    /// There is no VMBus.
    #[error(
        "{0} does not exist: this system is not the parent of Verdigris, or its kernel has no VMBus (hv_vmbus)"
    )]
    NoBus(PathBuf),
    /// The driver cannot be had.
    #[error("the driver uio_hv_generic cannot be loaded: {0}; install the kernel's modules")]
    NoDriver(String),
    /// The channel is not offered.
    #[error("the hypervisor offers no channel {0}")]
    NotOffered(Guid),
    /// The driver did not take the channel.
    #[error(
        "no /dev/uio device appeared for channel {0}: free some contiguous memory (256 KiB) and try again"
    )]
    NotBound(Guid),
    /// Something failed on the way.
    #[error("{path}: {error}")]
    Io {
        /// The file.
        path: PathBuf,
        /// What failed.
        #[source]
        error: io::Error,
    },
    /// The channel was opened and is of no use.
    #[error(transparent)]
    Channel(#[from] ChannelError),
}

/// The parent's VMBus, as sysfs shows it.
#[derive(Clone, Debug)]
pub struct Bus {
    sys: PathBuf,
    dev: PathBuf,
}

impl Default for Bus {
    fn default() -> Self {
        Self::at(Path::new("/sys/bus/vmbus"), Path::new("/dev"))
    }
}

impl Bus {
    /// The bus whose directory is `sys` and whose devices have their nodes in `dev`.
    pub fn at(sys: &Path, dev: &Path) -> Self {
        Self {
            sys: sys.into(),
            dev: dev.into(),
        }
    }

    /// Loads the driver and has it take all channels of `class`, now and later. It may be called again.
    ///
    /// # Errors
    /// [`BusError::NoBus`], [`BusError::NoDriver`], [`BusError::Io`].
    pub fn claim(&self, class: Guid) -> Result<(), BusError> {
        if !self.sys.is_dir() {
            return Err(BusError::NoBus(self.sys.clone()));
        }
        let driver = self.driver();
        if !driver.is_dir() {
            load_driver()?;
        }
        let path = driver.join("new_id");
        match fs::write(&path, class.to_string()) {
            Err(error) if error.kind() != ErrorKind::AlreadyExists => {
                Err(BusError::Io { path, error })
            }
            _ => Ok(()),
        }
    }

    /// Whether `instance` is offered.
    pub fn is_offered(&self, instance: Guid) -> bool {
        self.device(instance).is_dir()
    }

    /// The node of `instance`: waits at most `patience` for the offer and for the driver to take it. When the driver
    /// does not, memory is compacted and it is asked once more: it needs 64 contiguous pages.
    ///
    /// # Errors
    /// [`BusError::NotOffered`], [`BusError::NotBound`], [`BusError::Io`].
    pub fn node(&self, instance: Guid, patience: Duration) -> Result<PathBuf, BusError> {
        let deadline = Instant::now() + patience;
        let mut is_retried = false;
        loop {
            if let Some(node) = self.node_now(instance)? {
                return Ok(node);
            }
            if Instant::now() >= deadline {
                return Err(match self.is_offered(instance) {
                    true => BusError::NotBound(instance),
                    false => BusError::NotOffered(instance),
                });
            }
            let is_late = deadline.saturating_duration_since(Instant::now()) < patience / 2;
            if is_late && !is_retried && self.is_offered(instance) {
                is_retried = true;
                // Both may be refused; the last look tells.
                let _ = fs::write("/proc/sys/vm/compact_memory", "1");
                let _ = fs::write(self.driver().join("bind"), instance.to_string());
            }
            thread::sleep(RETRY);
        }
    }

    /// Opens the channel `instance`. Blocks until the hypervisor has answered.
    ///
    /// # Errors
    /// Every [`BusError`]; nothing stays open.
    pub fn open(&self, instance: Guid, patience: Duration) -> Result<Channel, BusError> {
        let path = self.node(instance, patience)?;
        let file = File::options().read(true).write(true).open(&path);
        let file = file.map_err(|error| BusError::Io { path, error })?;
        Ok(Channel::new(OwnedFd::from(file))?)
    }

    /// Has the interrupt of the open channel `instance` go to processor `cpu`.
    ///
    /// # Errors
    /// [`BusError::NotOffered`], [`BusError::Io`].
    pub fn set_cpu(&self, instance: Guid, cpu: u32) -> Result<(), BusError> {
        let path = self.device(instance).join("channels");
        let channel = fs::read_dir(&path)
            .ok()
            .and_then(|mut entries| entries.next()?.ok())
            .ok_or(BusError::NotOffered(instance))?;
        let path = channel.path().join("cpu");
        fs::write(&path, cpu.to_string()).map_err(|error| BusError::Io { path, error })
    }

    fn driver(&self) -> PathBuf {
        self.sys.join("drivers").join(DRIVER)
    }

    fn device(&self, instance: Guid) -> PathBuf {
        self.sys.join("devices").join(instance.to_string())
    }

    fn node_now(&self, instance: Guid) -> Result<Option<PathBuf>, BusError> {
        let path = self.device(instance).join("uio");
        let entries = match fs::read_dir(&path) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            other => other.map_err(|error| BusError::Io { path, error })?,
        };
        let names = entries
            .flatten()
            .map(|entry| self.dev.join(entry.file_name()));
        // udev or devtmpfs may be a moment behind sysfs.
        Ok(names.into_iter().find(|node| node.exists()))
    }
}

fn load_driver() -> Result<(), BusError> {
    match Command::new("modprobe").arg(DRIVER).output() {
        Ok(output) if output.status.success() => Ok(()),
        Ok(output) => Err(BusError::NoDriver(
            String::from_utf8_lossy(&output.stderr).trim().to_owned(),
        )),
        Err(error) => Err(BusError::NoDriver(format!("modprobe: {error}"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use vmbus_proto::class;

    struct Tree(tempfile::TempDir);

    impl Tree {
        fn new() -> Self {
            let tree = Self(tempfile::tempdir().unwrap());
            for path in ["sys/drivers/uio_hv_generic", "sys/devices", "dev"] {
                fs::create_dir_all(tree.0.path().join(path)).unwrap();
            }
            tree
        }

        fn bus(&self) -> Bus {
            Bus::at(&self.0.path().join("sys"), &self.0.path().join("dev"))
        }

        fn device(&self, instance: Guid) -> PathBuf {
            self.0.path().join("sys/devices").join(instance.to_string())
        }
    }

    #[test]
    fn a_class_is_given_to_the_driver_by_name() {
        let tree = Tree::new();
        tree.bus().claim(class::SLOT).unwrap();
        let written = fs::read_to_string(tree.bus().driver().join("new_id")).unwrap();
        assert_eq!(written, class::SLOT.to_string());
        let nowhere = Bus::at(Path::new("/nowhere"), Path::new("/dev"));
        assert!(matches!(
            nowhere.claim(class::SLOT),
            Err(BusError::NoBus(_))
        ));
    }

    #[test]
    fn a_node_is_found_when_offer_driver_and_node_are_there() {
        let tree = Tree::new();
        let instance = class::slot_instance(3);
        let bus = tree.bus();
        let soon = Duration::from_millis(50);
        assert!(matches!(
            bus.node(instance, soon),
            Err(BusError::NotOffered(_))
        ));
        fs::create_dir_all(tree.device(instance).join("uio/uio7")).unwrap();
        assert!(matches!(
            bus.node(instance, soon),
            Err(BusError::NotBound(_))
        ));
        fs::write(tree.0.path().join("dev/uio7"), "").unwrap();
        assert_eq!(
            bus.node(instance, soon).unwrap(),
            tree.0.path().join("dev/uio7")
        );
        fs::create_dir_all(tree.device(instance).join("channels/12")).unwrap();
        bus.set_cpu(instance, 1).unwrap();
        let cpu = fs::read_to_string(tree.device(instance).join("channels/12/cpu"));
        assert_eq!(cpu.unwrap(), "1");
    }
}
