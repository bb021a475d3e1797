//! What the drive can do, and what happened to its medium.

use std::sync::PoisonError;

use super::{Cdrom, MediaEvent};
use crate::cdb::Cdb;
use crate::completion::{Data, Stop};
use crate::mode::Page;
use crate::sense::Sense;

const PROFILE_CD_ROM: u16 = 0x0008;
const PROFILE_DVD_ROM: u16 = 0x0010;

/// Blocks of the longest CD, 80 minutes; what is longer is a DVD.
const CD_BLOCKS: u32 = 360_000;

/// Read error recovery, and capabilities (MMC-3, "CD/DVD Capabilities and Mechanical Status Page").
pub(super) fn mode_pages(is_locked: bool) -> Vec<Page> {
    let recovery = vec![0; 10];
    let mut capabilities = vec![0; 20];
    for (place, byte) in capabilities.iter_mut().zip([
        // Reads DVD-ROM, CD-RW, CD-R; writes nothing; no audio.
        0x0B,
        0x00,
        0x00,
        0x00,
        // Tray, eject, lock, and its state.
        0x29 | u8::from(is_locked) << 1,
    ]) {
        *place = byte;
    }
    vec![
        Page {
            number: 0x01,
            content: recovery,
        },
        Page {
            number: 0x2A,
            content: capabilities,
        },
    ]
}

impl Cdrom {
    fn profile(&self) -> u16 {
        match &*self.slot() {
            None => 0,
            Some(medium) if Self::blocks(&**medium) <= CD_BLOCKS => PROFILE_CD_ROM,
            Some(_) => PROFILE_DVD_ROM,
        }
    }

    /// Answers GET CONFIGURATION (MMC-6).
    pub(super) fn get_configuration(&self, cdb: &Cdb, data: &Data<'_>) -> Result<u32, Stop> {
        const CURRENT_ONLY: u8 = 1;
        const ONE: u8 = 2;
        let request = cdb.byte::<1>() & 3;
        let start = cdb.be16::<2>();
        if request == 3 {
            return Err(Sense::INVALID_FIELD_IN_CDB.into());
        }
        let profile = self.profile();
        let mut profiles = Vec::new();
        for known in [PROFILE_DVD_ROM, PROFILE_CD_ROM] {
            profiles.extend(known.to_be_bytes());
            profiles.extend([u8::from(known == profile), 0]);
        }
        let has_medium = profile != 0;
        let mut random_readable = super::BLOCK.to_be_bytes().to_vec();
        random_readable.extend([0, 1, 0, 0]);
        // Number, version and persistence, whether it is current, content.
        let features: [(u16, u8, bool, Vec<u8>); 6] = [
            (0x0000, 0x03, true, profiles),
            // Core: SCSI family.
            (0x0001, 0x0B, true, vec![0, 0, 0, 1, 0, 0, 0, 0]),
            // Removable medium: tray, eject, lock.
            (0x0003, 0x03, true, vec![0x29, 0, 0, 0]),
            (0x0010, 0x00, has_medium, random_readable),
            (0x001E, 0x08, profile == PROFILE_CD_ROM, vec![0, 0, 0, 0]),
            (0x001F, 0x04, profile == PROFILE_DVD_ROM, vec![0, 0, 0, 0]),
        ];
        let mut body = Vec::new();
        for (number, version, is_current, content) in features {
            let is_wanted = match request {
                ONE => number == start,
                CURRENT_ONLY => number >= start && is_current,
                _ => number >= start,
            };
            if is_wanted {
                body.extend(number.to_be_bytes());
                // The low bit of the version byte says "current", the next one "persistent".
                body.push(version & !1 | u8::from(is_current));
                body.push(content.len() as u8);
                body.extend(content);
            }
        }
        let mut answer = (body.len() as u32 + 4).to_be_bytes().to_vec();
        answer.extend([0, 0]);
        answer.extend(profile.to_be_bytes());
        answer.extend(body);
        data.answer(&answer, usize::from(cdb.be16::<7>()))
    }

    /// Answers GET EVENT STATUS NOTIFICATION (MMC-6), of which only polling and only media events exist.
    pub(super) fn get_event_status(&self, cdb: &Cdb, data: &Data<'_>) -> Result<u32, Stop> {
        const MEDIA: u8 = 4;
        const SUPPORTED: u8 = 1 << MEDIA;
        if !cdb.bit::<1>(0) {
            return Err(Sense::INVALID_FIELD_IN_CDB.into());
        }
        let allocation_len = usize::from(cdb.be16::<7>());
        if cdb.byte::<4>() & SUPPORTED == 0 {
            // No event of these classes.
            return data.answer(&[0, 2, 0x80, SUPPORTED], allocation_len);
        }
        let is_present = u8::from(self.slot().is_some()) << 1;
        let mut event = self.event.lock().unwrap_or_else(PoisonError::into_inner);
        let answer = [0, 6, MEDIA, SUPPORTED, *event as u8, is_present, 0, 0];
        // Told once, if there was room to tell it.
        if allocation_len > 4 {
            *event = MediaEvent::NoChange;
        }
        drop(event);
        data.answer(&answer, allocation_len)
    }
}
