//! Uses of a frame that exclude each other.

use machine::verdict::{check, equal};
use tlfs::CallCode;
use tlfs::call::*;

use super::BASE;
use crate::arena::{self, FRAME};
use crate::child::guest::Guest;
use crate::client::call;
use crate::client::partition::{RWX, deposit_frames};
use crate::group::{fails, need};

/// Every pair of uses of one frame.
pub fn uses(guest: &mut Guest) {
    let frame = arena::frame();
    need("uses: mapped", guest.map(BASE, &[frame], RWX));
    fails(
        "uses: a mapped frame is not deposited",
        deposit_frames(guest.id, &[frame]).status,
    );
    need("uses: mapped twice", guest.map(BASE + FRAME, &[frame], RWX));
    need("uses: unmapped once", guest.unmap(BASE, 1));
    fails(
        "uses: still mapped elsewhere",
        deposit_frames(guest.id, &[frame]).status,
    );
    need("uses: unmapped", guest.unmap(BASE + FRAME, 1));
    let reply = deposit_frames(guest.id, &[frame]);
    equal("uses: then it is deposited", reply.code(), 0);
    guest.deposited.insert(frame);
    fails(
        "uses: a deposited frame is not mapped",
        guest.map_once(BASE, &[frame], RWX).status,
    );
    let state = guest.state_page(0, StatePageType::Intercept, frame);
    fails(
        "uses: nor does it become a state page",
        call::ask::<8>(CallCode::MAP_VP_STATE_PAGE, &state.encode()),
    );
    fails(
        "uses: nor is it deposited again",
        deposit_frames(guest.id, &[frame]).status,
    );
    fails(
        "uses: nor to the parent itself",
        deposit_frames(PARTITION_SELF, &[frame]).status,
    );
    let page = guest.vps[0].intercept;
    fails(
        "uses: a state page is not deposited",
        deposit_frames(guest.id, &[page]).status,
    );
    // An input block in a deposited page reads as zero or gives #GP; nothing of the pool is seen or changed.
    let word = call::raw(0x48 | 1 << 32, frame, 0);
    check(
        format_args!("uses: a call with its input there ({word:#x})"),
        word as u16 != 0,
    );
    let word = call::raw(0x44, call::input_page().address(), frame);
    check(
        format_args!("uses: or its output ({word:#x})"),
        word as u16 != 0,
    );
}
