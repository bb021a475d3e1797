//! The units of the SCSI controller.

use std::collections::BTreeMap;
use std::fs::File;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, anyhow};
use disk::{Backing, Format, Image, Options, open_file};
use scsi::{Cdb, Cdrom, Completion, Data, DiskOptions, Identity, LogicalUnit, Target};
use sha2::{Digest, Sha256};
use vmbus_proto::Guid;
use worker_link::{Disk, DiskKind, ImageFormat, stop_point};

/// How long the last writes of a worker before may take.
const LOCK_PATIENCE: Duration = Duration::from_secs(60);

/// 128 bits that come from `text` alone.
fn digest(text: &str) -> [u8; 16] {
    let hash = Sha256::digest(text);
    let mut id = [0; 16];
    for (to, from) in id.iter_mut().zip(hash) {
        *to = from;
    }
    id
}

/// The instance of the SCSI controller of the child `name`.
pub fn controller_instance(name: &str) -> Guid {
    Guid(digest(&format!("verdigris scsi controller of {name}")))
}

/// A unit whose worker can be made to stand still with commands on their way: data was moved, and the child was not told.
struct Stopping(Arc<dyn LogicalUnit>);

impl LogicalUnit for Stopping {
    fn execute(&self, cdb: &Cdb, data: &Data<'_>) -> Completion {
        let completion = self.0.execute(cdb, data);
        if matches!(completion, Completion::Good(bytes) if bytes > 0) {
            stop_point("vmwp:transferred");
        }
        completion
    }
}

/// The images of a child.
pub struct Disks {
    /// What the controller serves.
    pub target: Arc<Target>,
    disks: BTreeMap<u8, Arc<scsi::Disk>>,
    images: Vec<Arc<dyn Image>>,
}

impl Disks {
    /// Opens the images of the child `name`; `take` gives each one's file. Waits for locks.
    ///
    /// # Errors
    /// Names the image, and what helps.
    pub fn open(
        name: &str,
        list: &[Disk],
        mut take: impl FnMut(&Disk) -> Result<OwnedFd>,
    ) -> Result<Self> {
        let mut all = Self {
            target: Arc::new(Target::new()),
            disks: BTreeMap::new(),
            images: Vec::new(),
        };
        for disk in list {
            let file = take(disk)?;
            all.add(name, disk, file.into())
                .with_context(|| format!("disk {} ({})", disk.lun, disk.path))?;
        }
        Ok(all)
    }

    fn add(&mut self, name: &str, disk: &Disk, file: File) -> Result<()> {
        let is_cd = disk.kind == DiskKind::Cdrom;
        let options = Options {
            format: match disk.format {
                ImageFormat::Raw => Format::Raw,
                ImageFormat::Qcow2 => Format::Qcow2,
                ImageFormat::Vhdx => Format::Vhdx,
                ImageFormat::Vhd => Format::Vhd,
            },
            is_read_only: disk.read_only || is_cd,
            is_direct: false,
            backing: Backing::Refuse,
            lock_wait: LOCK_PATIENCE,
        };
        let image = open_file(file, Path::new(&disk.path), &options)?;
        let identity = Identity {
            unique_id: digest(&format!("verdigris disk {} of {name}", disk.lun)),
            serial: disk.serial.clone().unwrap_or_default(),
        };
        let unit: Arc<dyn LogicalUnit> = if is_cd {
            Arc::new(Cdrom::new(Some(Arc::clone(&image)), identity))
        } else {
            let options = DiskOptions {
                identity,
                has_write_cache: true,
            };
            let unit = Arc::new(scsi::Disk::new(Arc::clone(&image), options));
            self.disks.insert(disk.lun, Arc::clone(&unit));
            unit
        };
        self.target
            .insert(disk.lun, Arc::new(Stopping(unit)))
            .map_err(|_| {
                anyhow!(
                    "lun {} is used twice or above 63: give each its own",
                    disk.lun
                )
            })?;
        self.images.push(image);
        Ok(())
    }

    /// Looks for another size of disk `lun`: its size in bytes.
    ///
    /// # Errors
    /// There is no such disk, or its file cannot be looked at.
    pub fn refresh(&self, lun: u8) -> Result<u64> {
        let disk = self
            .disks
            .get(&lun)
            .with_context(|| format!("there is no disk {lun} to be resized"))?;
        disk.refresh().with_context(|| format!("disk {lun}"))
    }

    /// Lets go of all images. With the last user of each, it is marked as closed.
    pub fn close(&mut self) {
        *self = Self {
            target: Arc::default(),
            disks: BTreeMap::new(),
            images: Vec::new(),
        };
    }

    /// Makes all that was written durable.
    ///
    /// # Errors
    /// The first one; the other images are flushed all the same.
    pub fn flush(&self) -> Result<()> {
        let mut outcome = Ok(());
        for image in &self.images {
            if image.traits().is_read_only {
                continue;
            }
            let flushed = image.flush().context("flushing a disk");
            if outcome.is_ok() {
                outcome = flushed;
            }
        }
        outcome
    }
}
