//! A disk (SBC-3).

mod extent;
mod medium;
mod pages;
mod provisioning;

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use disk::Image;

use crate::attention::Attention;
use crate::cdb::{Cdb, op};
use crate::completion::{Completion, Data, Stop};
use crate::inquiry::{self, Identity};
use crate::mode::mode_sense;
use crate::sense::Sense;
use crate::target::LogicalUnit;

/// How a disk presents its image.
#[derive(Clone, Debug)]
pub struct DiskOptions {
    /// Who it is.
    pub identity: Identity,
    /// Say that there is a volatile write cache: the child's flushes then make data durable. Without it, every write
    /// is durable before it completes.
    pub has_write_cache: bool,
}

/// A disk over an image.
pub struct Disk {
    image: Arc<dyn Image>,
    options: DiskOptions,
    attention: Attention,
    is_stopped: AtomicBool,
}

impl Disk {
    /// A disk that is ready.
    pub fn new(image: Arc<dyn Image>, options: DiskOptions) -> Self {
        Self {
            image,
            options,
            attention: Attention::default(),
            is_stopped: AtomicBool::new(false),
        }
    }

    /// Gives the disk another size in bytes, and has the child told by the next command that is not an inquiry. The
    /// child then asks for the capacity again.
    ///
    /// # Errors
    /// Those of [`Image::resize`]; nothing changed.
    pub fn resize(&self, size: u64) -> io::Result<()> {
        self.image.resize(size)?;
        self.attention.raise(Sense::CAPACITY_CHANGED);
        Ok(())
    }

    /// Looks whether the storage below changed its size, and has the child told if so. Returns the size in bytes.
    ///
    /// # Errors
    /// Those of [`Image::refresh`]; nothing changed.
    pub fn refresh(&self) -> io::Result<u64> {
        let before = self.image.size();
        let size = self.image.refresh()?;
        if size != before {
            self.attention.raise(Sense::CAPACITY_CHANGED);
        }
        Ok(size)
    }

    /// The image.
    pub fn image(&self) -> &Arc<dyn Image> {
        &self.image
    }

    fn block(&self) -> u32 {
        self.image.traits().logical_block
    }

    fn blocks(&self) -> u64 {
        self.image.size() / u64::from(self.block())
    }

    fn is_read_only(&self) -> bool {
        self.image.traits().is_read_only
    }

    fn writable(&self) -> Result<(), Stop> {
        if self.is_read_only() {
            return Err(Sense::WRITE_PROTECTED.into());
        }
        Ok(())
    }

    fn dispatch(&self, cdb: &Cdb, data: &Data<'_>) -> Result<u32, Stop> {
        // These work, and tell the truth, in every state.
        match cdb.opcode() {
            op::INQUIRY => {
                return inquiry::inquiry(
                    cdb,
                    data,
                    inquiry::DISK,
                    b"Virtual Disk    ",
                    &self.options.identity,
                    &self.vital_pages(),
                );
            }
            op::REQUEST_SENSE => return self.request_sense(cdb, data),
            _ => {}
        }
        if let Some(condition) = self.attention.take() {
            return Err(condition.into());
        }
        match cdb.opcode() {
            op::START_STOP_UNIT => return self.start_stop(cdb),
            op::MODE_SENSE_6 | op::MODE_SENSE_10 => {
                return mode_sense(
                    cdb,
                    data,
                    self.device_specific(),
                    &self.block_descriptor(),
                    &self.mode_pages(),
                );
            }
            _ => {}
        }
        if self.is_stopped.load(Ordering::Relaxed) {
            return Err(Sense::STOPPED.into());
        }
        match cdb.opcode() {
            op::TEST_UNIT_READY => Ok(0),
            op::READ_CAPACITY_10 => self.read_capacity_10(cdb, data),
            op::SERVICE_ACTION_IN_16 if cdb.service_action() == 0x10 => {
                self.read_capacity_16(cdb, data)
            }
            op::READ_6 | op::READ_10 | op::READ_12 | op::READ_16 => self.read(cdb, data),
            op::WRITE_6
            | op::WRITE_10
            | op::WRITE_12
            | op::WRITE_16
            | op::WRITE_AND_VERIFY_10
            | op::WRITE_AND_VERIFY_16 => self.write(cdb, data),
            op::VERIFY_10 | op::VERIFY_16 => self.verify(cdb),
            op::SYNCHRONIZE_CACHE_10 | op::SYNCHRONIZE_CACHE_16 => self.synchronize_cache(cdb),
            op::UNMAP if self.can_discard() => self.unmap(cdb, data),
            op::WRITE_SAME_10 | op::WRITE_SAME_16 => self.write_same(cdb, data),
            // PERSISTENT RESERVE IN and OUT are among the rest: a disk has one child.
            _ => Err(Sense::INVALID_OPERATION_CODE.into()),
        }
    }

    fn request_sense(&self, cdb: &Cdb, data: &Data<'_>) -> Result<u32, Stop> {
        let sense = match self.attention.take() {
            Some(condition) => condition,
            None if self.is_stopped.load(Ordering::Relaxed) => Sense::STOPPED,
            None => Sense::NO_SENSE,
        };
        let allocation_len = usize::from(cdb.byte::<4>());
        if cdb.bit::<1>(0) {
            data.answer(&sense.descriptor(), allocation_len)
        } else {
            data.answer(&sense.fixed(), allocation_len)
        }
    }

    fn start_stop(&self, cdb: &Cdb) -> Result<u32, Stop> {
        let power_condition = cdb.byte::<4>() >> 4;
        let load_eject = cdb.bit::<4>(1);
        if power_condition != 0 || load_eject {
            return Err(Sense::INVALID_FIELD_IN_CDB.into());
        }
        let is_start = cdb.bit::<4>(0);
        if !is_start {
            self.image
                .flush()
                .map_err(|error| Sense::of_write(&error))?;
        }
        self.is_stopped.store(!is_start, Ordering::Relaxed);
        Ok(0)
    }
}

impl LogicalUnit for Disk {
    fn execute(&self, cdb: &Cdb, data: &Data<'_>) -> Completion {
        self.dispatch(cdb, data).into()
    }
}
