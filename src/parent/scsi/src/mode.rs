//! MODE SENSE: how the unit is set.

use crate::cdb::{Cdb, op};
use crate::completion::{Data, Stop};
use crate::sense::Sense;

/// One mode page without subpages: its number and what follows its length.
pub(crate) struct Page {
    pub number: u8,
    pub content: Vec<u8>,
}

/// Answers MODE SENSE (6) and (10). No page can be changed, none is saved.
///
/// `device_specific` is byte 2 or 3 of the header, `block_descriptor` empty or eight bytes.
pub(crate) fn mode_sense(
    cdb: &Cdb,
    data: &Data<'_>,
    device_specific: u8,
    block_descriptor: &[u8],
    pages: &[Page],
) -> Result<u32, Stop> {
    const ALL: u8 = 0x3F;
    let is_6 = cdb.opcode() == op::MODE_SENSE_6;
    let control = cdb.byte::<2>() >> 6;
    let wanted = cdb.byte::<2>() & 0x3F;
    let subpage = cdb.byte::<3>();
    if control == 3 {
        return Err(Sense::NO_SAVED_PAGES.into());
    }
    // FFh asks for all subpages; no page has one but 0.
    if subpage != 0 && subpage != 0xFF {
        return Err(Sense::INVALID_FIELD_IN_CDB.into());
    }
    let mut body = Vec::new();
    let is_wanted = |page: &&Page| wanted == ALL || page.number == wanted;
    for page in pages.iter().filter(is_wanted) {
        body.extend([page.number, page.content.len() as u8]);
        // Value 1 asks which bits can be changed.
        body.extend(
            page.content
                .iter()
                .map(|byte| if control == 1 { 0 } else { *byte }),
        );
    }
    if body.is_empty() {
        return Err(Sense::INVALID_FIELD_IN_CDB.into());
    }
    let has_descriptor = !cdb.bit::<1>(3);
    let descriptor = if has_descriptor {
        block_descriptor
    } else {
        &[]
    };
    let mut answer;
    let allocation_len;
    if is_6 {
        let len = 3 + descriptor.len() + body.len();
        answer = vec![len as u8, 0, device_specific, descriptor.len() as u8];
        allocation_len = usize::from(cdb.byte::<4>());
    } else {
        let len = 6 + descriptor.len() + body.len();
        answer = (len as u16).to_be_bytes().to_vec();
        answer.extend([0, device_specific, 0, 0, 0, descriptor.len() as u8]);
        allocation_len = usize::from(cdb.be16::<7>());
    }
    answer.extend(descriptor);
    answer.extend(body);
    data.answer(&answer, allocation_len)
}
