//! Counts of uses: up to the last one, and taken back where a call fails half-way.

use alloc::vec::Vec;

use machine::verdict::{check, equal};
use tlfs::HvError;
use tlfs::call::*;

use super::BASE;
use crate::arena::{self, CHUNK, FRAME};
use crate::child::guest::Guest;
use crate::client::partition::{RWX, deposit_frames};
use crate::group::{need, refused};

/// Uses that a frame can have.
const MOST: u64 = 0x7FFE;
/// Where the frame is mapped so often.
const FAR: u64 = 0x4_0000_0000;

/// A frame that is used as often as can be, and one more use.
pub fn most_uses(guest: &mut Guest) {
    let frame = arena::frame();
    let list: Vec<u64> = (0..MOST).map(|_| frame).collect();
    need("counts: the most uses", guest.map(FAR, &list, RWX));
    let end = FAR + MOST * FRAME;
    // The table for it is there.
    let reply = guest.map_once(end, &[frame], RWX);
    refused("counts: one more", reply.status, HvError::NO_RESOURCES);
    let state = guest.state_page(0, StatePageType::Registers, frame);
    refused(
        "counts: as a page about a VP",
        crate::client::call::ask::<8>(tlfs::CallCode::MAP_VP_STATE_PAGE, &state.encode()),
        HvError::NO_RESOURCES,
    );
    need("counts: one goes", guest.unmap(FAR, 1));
    need("counts: and another comes", guest.map(end, &[frame], RWX));
    for n in 0..MOST.div_ceil(512) + 1 {
        need("counts: all go", guest.unmap(FAR + n * 512 * FRAME, 512));
    }
    let reply = deposit_frames(guest.id, &[frame]);
    need("counts: none is left", reply.status);
    guest.deposited.insert(frame);
}

/// A large page of which the last frame cannot be used: the others are as before.
pub fn taken_back(guest: &mut Guest) {
    let chunk = arena::chunk();
    let last = chunk + CHUNK - FRAME;
    let reply = deposit_frames(guest.id, &[last]);
    need("counts: the last frame is deposited", reply.status);
    let reply = guest.map_once(BASE, &[chunk], RWX | MapFlags::LARGE);
    refused(
        "counts: the large page",
        reply.status,
        HvError::OPERATION_DENIED,
    );
    equal("counts: it is not mapped", reply.done.into(), 0);
    // What is in use is no deposit.
    let rest: Vec<u64> = (0..511).map(|n| chunk + n * FRAME).collect();
    let reply = deposit_frames(guest.id, &rest);
    need("counts: no frame of it is in use", reply.status);
    check("counts: all are deposits now", reply.done == 511);
    guest.deposited.insert(last);
    guest
        .deposited
        .extend(rest.iter().take(usize::from(reply.done)));
}
