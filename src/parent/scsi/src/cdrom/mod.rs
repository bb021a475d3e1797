//! A CD-ROM drive (MMC-6) whose medium can be changed.

mod features;
mod toc;

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use disk::Image;

use crate::attention::Attention;
use crate::cdb::{Cdb, op};
use crate::completion::{Completion, Data, Stop};
use crate::inquiry::{self, Identity};
use crate::mode::mode_sense;
use crate::sense::Sense;
use crate::target::LogicalUnit;

/// Bytes of a block on a CD.
const BLOCK: u32 = 2048;

/// A drive, with or without a medium.
pub struct Cdrom {
    identity: Identity,
    medium: Mutex<Option<Arc<dyn Image>>>,
    /// What GET EVENT STATUS NOTIFICATION tells next.
    event: Mutex<MediaEvent>,
    attention: Attention,
    is_locked: AtomicBool,
}

/// Media events (MMC-6, "Media Event Descriptor").
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum MediaEvent {
    #[default]
    NoChange = 0,
    EjectRequest = 1,
    NewMedia = 2,
    MediaRemoval = 3,
}

impl Cdrom {
    /// A drive with this medium in it, or none.
    pub fn new(medium: Option<Arc<dyn Image>>, identity: Identity) -> Self {
        Self {
            identity,
            medium: Mutex::new(medium),
            event: Mutex::default(),
            attention: Attention::default(),
            is_locked: AtomicBool::new(false),
        }
    }

    /// Puts another medium in, or takes it out, whether the child locked the drive or not; the child is told. Returns
    /// the old medium. Commands that use it go on.
    pub fn change(&self, medium: Option<Arc<dyn Image>>) -> Option<Arc<dyn Image>> {
        let event = if medium.is_some() {
            self.attention.raise(Sense::MEDIUM_CHANGED);
            MediaEvent::NewMedia
        } else {
            MediaEvent::MediaRemoval
        };
        let old = std::mem::replace(&mut *self.slot(), medium);
        self.set_event(event);
        old
    }

    /// Asks the child to eject, as the button of a drive does. `true` if the child did not lock the drive: then
    /// [`Cdrom::change`] takes nothing from it.
    pub fn request_eject(&self) -> bool {
        self.set_event(MediaEvent::EjectRequest);
        !self.is_locked.load(Ordering::Relaxed)
    }

    fn slot(&self) -> MutexGuard<'_, Option<Arc<dyn Image>>> {
        self.medium.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn set_event(&self, event: MediaEvent) {
        *self.event.lock().unwrap_or_else(PoisonError::into_inner) = event;
    }

    fn medium(&self) -> Result<Arc<dyn Image>, Stop> {
        self.slot().clone().ok_or(Sense::NO_MEDIUM.into())
    }

    /// Blocks of the medium; what is more than 32 bits count is not there.
    fn blocks(medium: &dyn Image) -> u32 {
        u32::try_from(medium.size() / u64::from(BLOCK)).unwrap_or(u32::MAX)
    }

    fn dispatch(&self, cdb: &Cdb, data: &Data<'_>) -> Result<u32, Stop> {
        match cdb.opcode() {
            op::INQUIRY => {
                return inquiry::inquiry(
                    cdb,
                    data,
                    inquiry::CD_ROM,
                    b"Virtual DVD-ROM ",
                    &self.identity,
                    &[],
                );
            }
            op::REQUEST_SENSE => return self.request_sense(cdb, data),
            // MMC-6: neither reports a unit attention.
            op::GET_CONFIGURATION => return self.get_configuration(cdb, data),
            op::GET_EVENT_STATUS => return self.get_event_status(cdb, data),
            _ => {}
        }
        if let Some(condition) = self.attention.take() {
            return Err(condition.into());
        }
        match cdb.opcode() {
            op::TEST_UNIT_READY => self.medium().map(|_| 0),
            op::MODE_SENSE_6 | op::MODE_SENSE_10 => {
                let is_locked = self.is_locked.load(Ordering::Relaxed);
                mode_sense(cdb, data, 0, &[], &features::mode_pages(is_locked))
            }
            op::START_STOP_UNIT => self.start_stop(cdb),
            op::PREVENT_ALLOW_MEDIUM_REMOVAL => {
                self.is_locked.store(cdb.bit::<4>(0), Ordering::Relaxed);
                Ok(0)
            }
            op::MECHANISM_STATUS => data.answer(&[0; 8], usize::from(cdb.be16::<8>())),
            op::READ_CAPACITY_10 => {
                let blocks = Self::blocks(&*self.medium()?);
                let mut answer = blocks.saturating_sub(1).to_be_bytes().to_vec();
                answer.extend(BLOCK.to_be_bytes());
                data.answer(&answer, 8)
            }
            op::READ_10 => self.read(cdb.be32::<2>(), u32::from(cdb.be16::<7>()), data),
            op::READ_12 => self.read(cdb.be32::<2>(), cdb.be32::<6>(), data),
            op::SEEK_10 => {
                let blocks = Self::blocks(&*self.medium()?);
                if cdb.be32::<2>() >= blocks {
                    return Err(Sense::LBA_OUT_OF_RANGE.into());
                }
                Ok(0)
            }
            op::READ_TOC => toc::read_toc(cdb, data, Self::blocks(&*self.medium()?)),
            op::READ_DISC_INFORMATION => {
                self.medium()?;
                toc::read_disc_information(cdb, data)
            }
            _ => Err(Sense::INVALID_OPERATION_CODE.into()),
        }
    }

    fn request_sense(&self, cdb: &Cdb, data: &Data<'_>) -> Result<u32, Stop> {
        let sense = match self.attention.take() {
            Some(condition) => condition,
            None if self.slot().is_none() => Sense::NO_MEDIUM,
            None => Sense::NO_SENSE,
        };
        data.answer(&sense.fixed(), usize::from(cdb.byte::<4>()))
    }

    fn start_stop(&self, cdb: &Cdb) -> Result<u32, Stop> {
        if cdb.byte::<4>() >> 4 != 0 {
            return Err(Sense::INVALID_FIELD_IN_CDB.into());
        }
        let (load_eject, start) = (cdb.bit::<4>(1), cdb.bit::<4>(0));
        match (load_eject, start) {
            (true, false) => {
                if self.is_locked.load(Ordering::Relaxed) {
                    return Err(Sense::REMOVAL_PREVENTED.into());
                }
                self.change(None);
                Ok(0)
            }
            // The owner puts media in, not the drive.
            (true, true) => self.medium().map(|_| 0),
            // Nothing turns.
            (false, _) => Ok(0),
        }
    }

    fn read(&self, lba: u32, count: u32, data: &Data<'_>) -> Result<u32, Stop> {
        let medium = self.medium()?;
        let end = lba.checked_add(count).ok_or(Sense::LBA_OUT_OF_RANGE)?;
        if end > Self::blocks(&*medium) {
            return Err(Sense::LBA_OUT_OF_RANGE.into());
        }
        let moved = count.checked_mul(BLOCK).ok_or(Stop::Overrun)?;
        let buffer = data.to_fill(moved as usize)?;
        if moved > 0 {
            buffer
                .read_from(&*medium, u64::from(lba) * u64::from(BLOCK))
                .map_err(|error| Sense::of_read(&error))?;
        }
        Ok(moved)
    }
}

impl LogicalUnit for Cdrom {
    fn execute(&self, cdb: &Cdb, data: &Data<'_>) -> Completion {
        self.dispatch(cdb, data).into()
    }
}
