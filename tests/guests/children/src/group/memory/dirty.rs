//! Access states: which pages were written.

use alloc::vec::Vec;

use addr::Gpn;
use machine::verdict::{check, equal, note};
use tlfs::call::*;
use tlfs::property::PropertyCode;
use tlfs::register::RegisterName as N;
use tlfs::{CallCode, HvError};

use super::{BASE, RSI};
use crate::arena::{self, FRAME};
use crate::child::code;
use crate::child::guest::{Guest, Mode};
use crate::client::call;
use crate::client::partition::RWX;
use crate::group::{need, stopped};

fn states(guest: &Guest, gpa: u64, count: u16, flags: AccessStateFlags) -> (u64, Vec<u8>) {
    let header = GetAccessStates {
        partition: guest.id,
        flags,
        base: Gpn::new(gpa / FRAME),
    };
    let mut out = alloc::vec![0; usize::from(count)];
    let reply = call::rep(
        CallCode::GET_GPA_PAGES_ACCESS_STATES,
        &header.encode(),
        &[],
        count,
        &mut out,
    );
    (reply.code(), out)
}

/// Marks are kept, read, cleared and set.
pub fn dirty(guest: &mut Guest) {
    const DIRTY: u8 = AccessState::DIRTY.bits();
    let chunk = arena::chunk();
    // In small pages that cannot merge: marks belong to leaves.
    let pages: Vec<u64> = (0..512).rev().map(|n| chunk + n * FRAME).collect();
    need("dirty: 512 pages", guest.map(BASE, &pages, RWX));
    let on = guest.feed(|child| child.set_property(PropertyCode::GPA_ACCESS_TRACKING, 1));
    need("dirty: tracking on", on);
    let clear = AccessStateFlags::CLEAR_DIRTY | AccessStateFlags::CLEAR_ACCESSED;
    let (mut code, _) = states(guest, BASE, 512, clear);
    while code == HvError::INSUFFICIENT_MEMORY.0.into() && guest.deposit(1).is_ok() {
        code = states(guest, BASE, 512, clear).0;
    }
    equal("dirty: states are read and cleared", code, 0);
    let (_, first) = states(guest, BASE, 512, AccessStateFlags::empty());
    check(
        "dirty: clean after that",
        first.iter().all(|state| state & DIRTY == 0),
    );
    let registers = [(RSI, u128::from(BASE + 20 * FRAME)), (N::RCX, 7)];
    need(
        "dirty: write",
        guest.start(0, Mode::Long, code::store_next, &registers),
    );
    stopped("dirty: seven pages are written", guest.run(0));
    let (_, now) = states(guest, BASE, 512, clear);
    let written: Vec<usize> = (0..512).filter(|n| now[*n] & DIRTY != 0).collect();
    check(
        "dirty: exactly those are dirty",
        written.iter().copied().eq(20..27),
    );
    note(format_args!(
        "{} pages, the first {:?}",
        written.len(),
        written.first()
    ));
    let (_, last) = states(guest, BASE, 512, AccessStateFlags::empty());
    check(
        "dirty: and clean again",
        last.iter().all(|state| state & DIRTY == 0),
    );
    // What the hypervisor writes for somebody counts too.
    let mut input = WriteGpa::default();
    input.to.partition = guest.id;
    input.to.bytes = AccessBytes::new(8);
    input.to.gpa = addr::Gpa::new(BASE + 77 * FRAME + 8);
    check(
        "dirty: a write by the hypervisor",
        call::ask::<8>(CallCode::WRITE_GPA, &input.encode()).is_ok_and(|out| out[0] == 0),
    );
    let (_, now) = states(guest, BASE, 512, clear);
    check(
        "dirty: that page is dirty, and no other",
        (0..512).all(|n| (now[n] & DIRTY != 0) == (n == 77)),
    );
    let (_, _) = states(guest, BASE, 1, AccessStateFlags::SET_DIRTY);
    let (_, set) = states(guest, BASE, 2, AccessStateFlags::empty());
    check(
        "dirty: can be set",
        set[0] & DIRTY != 0 && set[1] & DIRTY == 0,
    );
    need(
        "dirty: one leaf of 2 MiB",
        guest.map(BASE, &[chunk], RWX | MapFlags::LARGE),
    );
    states(guest, BASE, 512, clear);
    need(
        "dirty: write",
        guest.start(0, Mode::Long, code::store_next, &registers),
    );
    stopped("dirty: pages of a large leaf are written", guest.run(0));
    let (_, now) = states(guest, BASE, 512, AccessStateFlags::empty());
    check(
        "dirty: those are dirty, if not more",
        (20..27).all(|page| now[page] & DIRTY != 0),
    );
    need(
        "dirty: tracking off",
        guest.set_property(PropertyCode::GPA_ACCESS_TRACKING, 0),
    );
    need("dirty: unmap", guest.unmap(BASE, 512));
    arena::free_chunk(chunk);
}
