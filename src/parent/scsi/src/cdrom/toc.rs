//! The table of contents: one data track over the whole medium.

use crate::cdb::Cdb;
use crate::completion::{Data, Stop};
use crate::sense::Sense;

/// Track number of the lead-out.
const LEAD_OUT: u8 = 0xAA;

/// Data track, recorded without interruption.
const DATA_TRACK: u8 = 0x14;

/// An address as four bytes: blocks, or minutes, seconds and frames with the two seconds before the first block.
fn address(lba: u32, is_msf: bool) -> [u8; 4] {
    if !is_msf {
        return lba.to_be_bytes();
    }
    let frames = lba.saturating_add(150);
    let (seconds, frame) = (frames / 75, frames % 75);
    let minutes = (seconds / 60).min(255);
    [0, minutes as u8, (seconds % 60) as u8, frame as u8]
}

/// Answers READ TOC/PMA/ATIP: formats 0 (tracks), 1 (sessions) and 2 (full).
pub(super) fn read_toc(cdb: &Cdb, data: &Data<'_>, blocks: u32) -> Result<u32, Stop> {
    let is_msf = cdb.bit::<1>(1);
    let track = cdb.byte::<6>();
    let allocation_len = usize::from(cdb.be16::<7>());
    // ATAPI drives took the format from the last byte; Linux still puts it there in one place.
    let format = match cdb.byte::<2>() & 0x0F {
        0 => cdb.byte::<9>() >> 6,
        format => format,
    };
    let mut body = vec![1, 1];
    let mut entry = |number: u8, lba: u32| {
        body.extend([0, DATA_TRACK, number, 0]);
        body.extend(address(lba, is_msf));
    };
    match format {
        0 => {
            if track > 1 && track != LEAD_OUT {
                return Err(Sense::INVALID_FIELD_IN_CDB.into());
            }
            if track <= 1 {
                entry(1, 0);
            }
            entry(LEAD_OUT, blocks);
        }
        1 => entry(1, 0),
        2 => {
            let mut point = |point: u8, place: [u8; 4]| {
                let [_, minute, second, frame] = place;
                body.extend([1, DATA_TRACK, 0, point, 0, 0, 0, 0, minute, second, frame]);
            };
            point(0xA0, [0, 1, 0, 0]);
            point(0xA1, [0, 1, 0, 0]);
            point(0xA2, address(blocks, true));
            point(1, address(0, true));
        }
        _ => return Err(Sense::INVALID_FIELD_IN_CDB.into()),
    }
    let mut answer = (body.len() as u16).to_be_bytes().to_vec();
    answer.extend(body);
    data.answer(&answer, allocation_len)
}

/// Answers READ DISC INFORMATION: one complete session with one track.
pub(super) fn read_disc_information(cdb: &Cdb, data: &Data<'_>) -> Result<u32, Stop> {
    if cdb.byte::<1>() & 7 != 0 {
        return Err(Sense::INVALID_FIELD_IN_CDB.into());
    }
    let mut answer = vec![0; 34];
    let content = [
        0, 32,   // bytes that follow
        0x0E, // last session complete, disc finalized
        1, 1, 1, 1,    // first track; sessions; first and last track of the last session
        0x20, // unrestricted use
    ];
    for (place, byte) in answer.iter_mut().zip(content) {
        *place = byte;
    }
    data.answer(&answer, usize::from(cdb.be16::<7>()))
}
