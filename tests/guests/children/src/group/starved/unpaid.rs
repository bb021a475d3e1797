//! Calls that need no memory: they go with an empty pool, and use nothing of it.

use addr::{Gpn, VpIndex};
use machine::insn;
use machine::verdict::{check, equal};
use tlfs::call::*;
use tlfs::register::RegisterName as N;
use tlfs::{CallCode, HvError};

use crate::arena::{self, FRAME};
use crate::child::guest::Guest;
use crate::client::call;
use crate::group::{need, refused};

const PATTERN: u64 = 0x7E57_7E57_7E57_7E57;
/// Where the overlay pages of the VP lie.
const MESSAGES: u64 = 0x7_0000;
const EVENTS: u64 = 0x7_1000;
/// Word 4 of the state of a local APIC, and one of its values: enabled, spurious vector 255.
const SVR: u64 = 4 * 4;
const ENABLED: u32 = 0x1FF;
/// Places in an image of XSAVE.
const XMM0: u64 = 160;
const HELD: u64 = 512;

/// Runs this part of the group with VP 0 of `guest`; `which` pool is empty.
pub fn run(guest: &mut Guest, which: &str) {
    let page = arena::frame();
    state_page(guest, which, page);
    statistics(guest, which, page);
    states(guest, which, page);
    arena::free(page);
}

/// A page about a VP goes and comes back.
fn state_page(guest: &Guest, which: &str, other: u64) {
    let kind = StatePageType::Registers;
    let map = |page: u64| {
        let input = guest.state_page(0, kind, page);
        call::ask::<8>(CallCode::MAP_VP_STATE_PAGE, &input.encode())
    };
    let unmap = || {
        let input = UnmapStatePage {
            partition: guest.id,
            kind,
            ..UnmapStatePage::default()
        };
        call::simple(CallCode::UNMAP_VP_STATE_PAGE, &input.encode())
    };
    arena::fill(other, FRAME, PATTERN);
    refused(
        format_args!("starved: {which}: a second register page"),
        map(other),
        HvError::OBJECT_IN_USE,
    );
    check(
        format_args!("starved: {which}: which stays as it is"),
        arena::is_filled(other, PATTERN),
    );
    need(
        format_args!("starved: {which}: the register page goes"),
        unmap(),
    );
    refused(
        format_args!("starved: {which}: once"),
        unmap(),
        HvError::NOT_FOUND,
    );
    check(
        format_args!("starved: {which}: a register page"),
        map(guest.vps[0].registers).is_ok(),
    );
}

/// Pages of statistics of each kind of object.
fn statistics(guest: &Guest, which: &str, page: u64) {
    let vp = VpIndex::new(0);
    for of in [
        StatsOf::Hypervisor,
        StatsOf::Lp(addr::LpIndex::new(0)),
        StatsOf::Partition(PARTITION_SELF),
        StatsOf::Partition(guest.id),
        StatsOf::Vp(guest.id, vp),
    ] {
        let object = StatsObject {
            of,
            area: StatsArea::Own,
        };
        let input = MapStatsPage2 {
            object,
            page: Gpn::new(page / FRAME),
        };
        let map = call::simple(CallCode::MAP_STATS_PAGE_2, &input.encode());
        let unmap = || call::simple(CallCode::UNMAP_STATS_PAGE, &StatsPage { object }.encode());
        let both = map.and_then(|()| unmap());
        check(
            format_args!("starved: {which}: statistics of {of:?} # {both:?}"),
            both.is_ok(),
        );
    }
}

/// The states of a VP that are moved as a whole.
fn states(guest: &mut Guest, which: &str, page: u64) {
    let id = guest.id;
    let pfn = (page / FRAME).to_le_bytes();
    let move_state = |code: CallCode, kind: StateType| {
        let header = VpState {
            partition: id,
            kind,
            xsave_states: if kind == StateType::Xsave { 3 } else { 0 },
            ..VpState::default()
        };
        call::ask_with::<0>(code, &header.encode(), &pfn).map(|_| ())
    };
    let get = |kind| move_state(CallCode::GET_VP_STATE, kind);
    let set = |kind| move_state(CallCode::SET_VP_STATE, kind);

    let both = get(StateType::Lapic).and_then(|()| {
        insn::write_mmio32(page + SVR, ENABLED);
        set(StateType::Lapic)
    });
    need(format_args!("starved: {which}: an APIC's state"), both);
    arena::fill(page, FRAME, 0);
    need("starved: it is read", get(StateType::Lapic));
    equal(
        format_args!("starved: {which}: the APIC's state is set"),
        insn::read_mmio32(page + SVR).into(),
        ENABLED.into(),
    );

    let both = get(StateType::Xsave).and_then(|()| {
        insn::write_phys64(page + XMM0, PATTERN);
        let held = insn::read_phys64(page + HELD);
        insn::write_phys64(page + HELD, held | 2);
        set(StateType::Xsave)
    });
    need(format_args!("starved: {which}: an XSAVE state"), both);
    equal(
        format_args!("starved: {which}: the XSAVE state is set"),
        guest.reg(0, N::XMM0),
        PATTERN,
    );

    for (kind, register, gpa) in [
        (StateType::MessagePage, N::SIMP, MESSAGES),
        (StateType::EventFlagsPage, N::SIEFP, EVENTS),
    ] {
        arena::fill(page, FRAME, PATTERN);
        // Its frame is the VP's since it was made.
        let placed = guest.set_one(0, register, gpa | 1);
        need(format_args!("starved: {which}: {kind:?} is placed"), placed);
        need(format_args!("starved: {which}: {kind:?} is set"), set(kind));
        arena::fill(page, FRAME, 0);
        need(
            format_args!("starved: {which}: {kind:?} is read"),
            get(kind),
        );
        check(
            format_args!("starved: {which}: {kind:?} is what was set"),
            arena::is_filled(page, PATTERN),
        );
        need("starved: it goes", guest.set_one(0, register, 0));
    }
}
