//! States of a VP as a whole that no processor can be in, and pages that they cannot come from.

use machine::insn;
use machine::verdict::{check, equal, note};
use tlfs::call::*;
use tlfs::msr::{STIMER_COUNT, StimerConfig};
use tlfs::register::RegisterName as N;
use tlfs::{CallCode, HvError};

use crate::arena::{self, FRAME};
use crate::child::code;
use crate::child::guest::{Guest, Mode};
use crate::child::runtime::Random;
use crate::client::call;
use crate::group::{fails, need, refused, stopped};

const PATTERN: u64 = 0x1234_5678_9ABC_DEF0;
/// Bytes of the timers' state.
const TIMERS: usize = 200;
/// Random images of each kind.
const IMAGES: u64 = 64;

/// Places in an image of XSAVE (Intel SDM vol. 1, "XSAVE Area").
mod xsave {
    pub const MXCSR: u64 = 24;
    pub const XMM0: u64 = 160;
    pub const XSTATE_BV: u64 = 512;
    pub const XCOMP_BV: u64 = 520;
    pub const RESERVED: u64 = 528;
    pub const RESERVED_LAST: u64 = 568;
    pub const SSE: u64 = 2;
}

/// One kind of state of VP 0, in one page.
struct State<'a> {
    guest: &'a Guest,
    kind: StateType,
    page: u64,
}

impl State<'_> {
    fn make(&self, code: CallCode, pages: &[u64]) -> Result<(), HvError> {
        let header = VpState {
            partition: self.guest.id,
            kind: self.kind,
            xsave_states: if self.kind == StateType::Xsave { 3 } else { 0 },
            ..VpState::default()
        };
        let pages = super::case::words(pages);
        call::ask_with::<0>(code, &header.encode(), &pages).map(|_| ())
    }

    fn get(&self) -> Result<(), HvError> {
        self.make(CallCode::GET_VP_STATE, &[self.page / FRAME])
    }

    fn set(&self) -> Result<(), HvError> {
        self.make(CallCode::SET_VP_STATE, &[self.page / FRAME])
    }
}

/// All of them, on VP 0 of `guest`, which stands.
pub fn images(guest: &mut Guest, seed: u64) {
    let page = arena::frame();
    let mut random = Random(seed | 1);
    bad_pages(guest, page);
    vectors(guest, page, &mut random);
    apic(guest, page, &mut random);
    timers(guest, &mut random);
    arena::free(page);
    need("images: start", guest.start(0, Mode::Long, code::fpu, &[]));
    check("images: the VP runs as before", guest.run(0).is_some());
}

/// Pages that are not the parent's, and none or two.
fn bad_pages(guest: &Guest, page: u64) {
    let deposited = guest.deposited.first().copied().unwrap_or(0);
    for kind in [StateType::Lapic, StateType::Xsave, StateType::MessagePage] {
        let state = State { guest, kind, page };
        let before = guest.get(0, N::XMM0);
        for code in [CallCode::GET_VP_STATE, CallCode::SET_VP_STATE] {
            for (what, pages) in [
                ("no page", &[][..]),
                ("two pages", &[page / FRAME; 2]),
                ("a page of the pool", &[deposited / FRAME]),
                ("the local APIC", &[0xFEE00]),
                ("the last page number", &[u64::MAX]),
                ("a page beyond memory", &[1 << 40]),
            ] {
                fails(
                    format_args!("images: {kind:?} by {:#x}: {what}", code.0),
                    state.make(code, pages),
                );
            }
        }
        check(
            format_args!("images: {kind:?}: nothing changed"),
            guest.get(0, N::XMM0) == before && arena::is_filled(page, 0),
        );
    }
}

/// What XRSTOR refuses, the hypervisor refuses first.
fn vectors(guest: &mut Guest, page: u64, random: &mut Random) {
    need("images: XMM0", guest.set_one(0, N::XMM0, PATTERN));
    let state = State {
        guest,
        kind: StateType::Xsave,
        page,
    };
    let held = |more: u64| {
        let held = insn::read_phys64(page + xsave::XSTATE_BV);
        insn::write_phys64(page + xsave::XSTATE_BV, held | more);
    };
    let cases: [(&str, &dyn Fn()); 8] = [
        ("a state that there is not", &|| held(1 << 62)),
        ("one that the format has not", &|| held(1 << 7)),
        ("a bit of the format", &|| held(1 << 63)),
        ("a format that there is not", &|| {
            insn::write_phys64(page + xsave::XCOMP_BV, 3);
        }),
        ("states that there are not", &|| {
            insn::write_phys64(page + xsave::XCOMP_BV, u64::MAX);
        }),
        ("a reserved word", &|| {
            insn::write_phys64(page + xsave::RESERVED, 1);
        }),
        ("the last reserved byte", &|| {
            insn::write_phys64(page + xsave::RESERVED_LAST, 1 << 56);
        }),
        ("a reserved bit of MXCSR", &|| {
            held(xsave::SSE);
            insn::write_mmio32(page + xsave::MXCSR, 0x8000_1F80);
        }),
    ];
    for (what, spoil) in cases {
        need("images: a good image", state.get());
        insn::write_phys64(page + xsave::XMM0, !PATTERN);
        spoil();
        refused(
            format_args!("images: vectors: {what}"),
            state.set(),
            HvError::INVALID_PARAMETER,
        );
        equal(
            format_args!("images: vectors: {what}: nothing changed"),
            state.guest.reg(0, N::XMM0),
            PATTERN,
        );
    }
    let mut taken = 0;
    for _ in 0..IMAGES {
        need("images: a good image", state.get());
        // The format stays, so that some are taken.
        for at in (0..xsave::XSTATE_BV).step_by(8) {
            insn::write_phys64(page + at, random.next());
        }
        let mask = random.next() & 0xFFFF;
        insn::write_mmio32(page + xsave::MXCSR, mask as u32);
        held(random.below(4));
        taken += u64::from(state.set().is_ok());
    }
    note(format_args!(
        "images: {taken} of {IMAGES} vector states taken"
    ));
    need("images: XMM0", guest.set_one(0, N::XMM0, PATTERN));
    need(
        "images: start",
        guest.start(0, Mode::Long, code::out_64, &[]),
    );
    stopped("images: it runs with the last of them", guest.run(0));
}

/// Whatever the bytes say, what comes out is a state of an APIC.
fn apic(guest: &mut Guest, page: u64, random: &mut Random) {
    let good = arena::frame();
    fn of(guest: &Guest, page: u64) -> State<'_> {
        let kind = StateType::Lapic;
        State { guest, kind, page }
    }
    need("images: the APIC as it is", of(guest, good).get());
    let mut refusals = 0;
    for n in 0..IMAGES {
        for at in (0..256).step_by(8) {
            let word = if n == 0 { u64::MAX } else { random.next() };
            insn::write_phys64(page + at, word);
        }
        refusals += u64::from(of(guest, page).set().is_err());
        if n % 8 == 0 {
            // With interrupts off, whatever waits.
            need(
                "images: start",
                guest.start(0, Mode::Long, code::out_64, &[]),
            );
            stopped("images: it runs with such an APIC", guest.run(0));
        }
    }
    equal("images: refused states of an APIC", refusals, 0);
    need("images: the APIC as it was", of(guest, good).set());
    arena::free(good);
}

/// Timers are taken or refused, and then are as before.
fn timers(guest: &mut Guest, random: &mut Random) {
    let header = VpState {
        partition: guest.id,
        kind: StateType::Timers,
        ..VpState::default()
    }
    .encode();
    let get = || call::ask_with::<TIMERS>(CallCode::GET_VP_STATE, &header, &[]);
    let set = |image: &[u8]| call::ask_with::<0>(CallCode::SET_VP_STATE, &header, image);
    let Some(good) = need("images: the timers as they are", get()) else {
        return;
    };
    for len in [0, 8, TIMERS - 8] {
        let image = alloc::vec![0; len];
        fails(
            format_args!("images: timers of {len} bytes"),
            set(&image).map(|_| ()),
        );
    }
    let mut changed = 0;
    let mut taken = 0;
    for n in 0..IMAGES {
        let mut image = good;
        for (at, piece) in image.chunks_exact_mut(8).enumerate() {
            let word = match (n, at % 5) {
                (0, _) => u64::MAX,
                // Half of them are such that they can be taken: no reserved bits, and zeros behind the timers.
                (n, _) if n % 2 == 0 && at >= 5 * STIMER_COUNT => 0,
                (n, 1) if n % 2 == 0 => random.next() & !StimerConfig::RESERVED,
                _ => random.next(),
            };
            piece.copy_from_slice(&word.to_le_bytes());
        }
        let before = get();
        if set(&image).is_err() {
            changed += u64::from(get() != before);
        } else {
            taken += 1;
            need(
                "images: start",
                guest.start(0, Mode::Long, code::out_64, &[]),
            );
            stopped("images: it runs with such timers", guest.run(0));
            need("images: timers back", set(&good).map(|_| ()));
        }
    }
    equal("images: refused timers that changed something", changed, 0);
    check("images: some timers are taken", taken != 0);
    note(format_args!(
        "images: {taken} of {IMAGES} states of timers taken"
    ));
    need("images: the timers as they were", set(&good).map(|_| ()));
}
