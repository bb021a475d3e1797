//! Input that changes while it is read: a child on another processor writes to the blocks of the parent's calls. What
//! was checked is what is used.

use machine::platform::Platform;
use machine::verdict::{check, equal, note, skip};
use machine::{clock, insn};
use tlfs::call::*;
use tlfs::register::RegisterName as N;
use tlfs::{CallCode, Control, HvError};

use crate::arena::{self, FRAME};
use crate::child::code;
use crate::child::guest::{Guest, Mode};
use crate::child::runtime::{self, Shared};
use crate::client::call;
use crate::client::partition::RWX;
use crate::client::vp::PATIENCE;
use crate::group::{destroy, need, stopped};

/// Where the child has the block.
const BLOCK: u64 = 0x90_0000;
/// Where frames are mapped.
const TARGET: u64 = 0x91_0000;
const PATTERN: u64 = 0x600D_600D_600D_600D;
/// Calls of each kind.
const CALLS: u32 = 2000;
/// Pairs of frames of which one is deposited.
const PAIRS: usize = 16;
/// Place and values of MXCSR in an image of XSAVE, with the word behind it.
const MXCSR: u64 = 24;
const GOOD_MXCSR: u64 = 0x1F80;
const BAD_MXCSR: u64 = 0x8000_1F80;
const XSTATE_BV: u64 = 512;

/// Writes arguments 1 and 2 in turn to the word at argument 0; result 0 counts.
extern "sysv64" fn flip(shared: &'static Shared) -> ! {
    let at = shared.arg(0);
    loop {
        for _ in 0..64 {
            runtime::write(at, shared.arg(1));
            insn::pause();
            runtime::write(at, shared.arg(2));
            insn::pause();
        }
        shared.set(0, shared.result(0) + 1);
    }
}

/// Lets VP 0 write `values` to the word at `offset` of the block while `work` goes on.
fn flipping(guest: &mut Guest, offset: u64, values: [u64; 2], work: impl FnOnce(&mut Guest)) {
    let args = [BLOCK + offset, values[0], values[1]];
    need("moving: start", guest.start_entry(0, flip, &args));
    guest.shared(0).set(0, 0);
    need("moving: go", guest.resume(0));
    let flips = |guest: &Guest| guest.shared(0).result(0);
    insn::sti();
    let came = clock::wait_for(PATIENCE, || flips(guest) != 0);
    insn::cli();
    check("moving: the child writes", came);
    let before = flips(guest);
    work(guest);
    note(format_args!("{} flips meanwhile", flips(guest) - before));
    need("moving: stop", guest.suspend(0));
}

/// All of them.
pub fn moving(platform: &Platform) {
    if platform.processors().len() < 2 {
        skip("moving", "the machine has one processor");
        return;
    }
    let Some(mut guest) = need("moving: a child", Guest::new(2)) else {
        return;
    };
    let block = arena::frame();
    need("moving: the block", guest.map(BLOCK, &[block], RWX));
    maps(&mut guest, block);
    deposits(&mut guest, block);
    images(&mut guest, block);
    destroy("moving", guest);
    arena::free(block);
}

/// Writes `header` to the block, and gives its length.
fn put(block: u64, header: &[u8]) -> u64 {
    for (n, piece) in (0..).zip(header.chunks_exact(8)) {
        let word = u64::from_le_bytes(piece.try_into().unwrap_or_default());
        insn::write_phys64(block + n * 8, word);
    }
    header.len() as u64
}

/// A call of one element with its input in the block: its status, again while it only asks to be made again.
fn one(code: CallCode, block: u64) -> Result<(), HvError> {
    let control = Control::simple(code).0 | 1 << 32;
    for _ in 0..1000 {
        let word = call::raw(control, block, 0);
        match (word as u16, word >> 32 & 0xFFF) {
            (0, 0) => {}
            (0, _) => return Ok(()),
            (status, _) => return Err(HvError(status)),
        }
    }
    Err(HvError::TIMEOUT)
}

/// A frame of the parent's, or one of the child's pool: it is never the second that is mapped.
fn maps(guest: &mut Guest, block: u64) {
    let good = arena::frame();
    arena::fill(good, FRAME, PATTERN);
    let bad = guest.deposited.first().copied().unwrap_or(0);
    need("moving: a table", guest.map(TARGET, &[good], RWX));
    need("moving: unmapped", guest.unmap(TARGET, 1));
    let header = MapGpaPages {
        partition: guest.id,
        base: addr::Gpn::new(TARGET / FRAME),
        flags: RWX,
        ..MapGpaPages::default()
    };
    let offset = put(block, &header.encode());
    let values = [good / FRAME, bad / FRAME];
    flipping(guest, offset, values, |guest| {
        let (mut mapped, mut refused, mut strange, mut wrong) = (0, 0, 0, 0);
        for _ in 0..CALLS {
            match one(CallCode::MAP_GPA_PAGES, block) {
                Ok(()) => {
                    mapped += 1;
                    wrong += u64::from(read(guest, TARGET) != Some(PATTERN));
                    strange += guest.unmap_once(TARGET, 1, UnmapFlags::empty()).code();
                }
                Err(HvError::OPERATION_DENIED) => refused += 1,
                Err(_) => strange += 1,
            }
        }
        equal("moving: maps of another frame", wrong, 0);
        equal("moving: maps with another status", strange, 0);
        note(format_args!("moving: {mapped} mapped, {refused} refused"));
    });
    arena::free(good);
}

/// What the parent reads at `gpa` of the child.
fn read(guest: &Guest, gpa: u64) -> Option<u64> {
    let input = ReadGpa {
        partition: guest.id,
        bytes: AccessBytes::new(8),
        gpa: addr::Gpa::new(gpa),
        ..ReadGpa::default()
    };
    let out = call::ask::<24>(CallCode::READ_GPA, &input.encode()).ok()?;
    let data = out[8..16].try_into().ok()?;
    (out[0] == 0).then_some(u64::from_le_bytes(data))
}

/// Of two frames one goes into the pool, and the other stays.
fn deposits(guest: &mut Guest, block: u64) {
    let header = PartitionOnly {
        partition: guest.id,
    };
    let offset = put(block, &header.encode());
    let (mut both, mut neither, mut firsts) = (0, 0, 0);
    for _ in 0..PAIRS {
        let pair = [arena::frame(), arena::frame()];
        let values = pair.map(|frame| frame / FRAME);
        flipping(guest, offset, values, |guest| {
            let first = one(CallCode::DEPOSIT_MEMORY, block);
            need("moving: one of two is deposited", first);
            let is_taken = |frame: &u64| {
                let state = guest.state_page(1, StatePageType::Registers, *frame);
                let mapped = call::ask::<8>(CallCode::MAP_VP_STATE_PAGE, &state.encode());
                // The VP has such a page; what is deposited is refused before that.
                mapped == Err(HvError::OPERATION_DENIED)
            };
            let taken = pair.map(|frame| is_taken(&frame));
            both += u64::from(taken == [true; 2]);
            neither += u64::from(taken == [false; 2]);
            firsts += u64::from(taken[0]);
            for (frame, is_taken) in pair.into_iter().zip(taken) {
                if is_taken {
                    guest.deposited.insert(frame);
                } else {
                    arena::free(frame);
                }
            }
        });
    }
    equal("moving: pairs of which both are gone", both, 0);
    equal("moving: pairs of which none is gone", neither, 0);
    note(format_args!("moving: {firsts} of {PAIRS} times the first"));
}

/// A state that the processor takes, or one that it does not.
fn images(guest: &mut Guest, block: u64) {
    let header = VpState {
        partition: guest.id,
        vp: addr::VpIndex::new(1),
        kind: StateType::Xsave,
        xsave_states: 3,
        ..VpState::default()
    }
    .encode();
    let page = (block / FRAME).to_le_bytes();
    let make = |code| call::ask_with::<0>(code, &header, &page).map(|_| ());
    need("moving: an image", make(CallCode::GET_VP_STATE));
    let held = insn::read_phys64(block + XSTATE_BV);
    insn::write_phys64(block + XSTATE_BV, held | 3);
    let start = |guest: &mut Guest| {
        need(
            "moving: start",
            guest.start(1, Mode::Long, code::out_64, &[]),
        );
        need(
            "moving: no SIPI",
            guest.set_one(1, N::INTERNAL_ACTIVITY_STATE, 0),
        );
        guest.run(1)
    };
    flipping(guest, MXCSR, [GOOD_MXCSR, BAD_MXCSR], |guest| {
        let (mut taken, mut refused, mut strange) = (0, 0, 0);
        for n in 0..CALLS {
            match make(CallCode::SET_VP_STATE) {
                Ok(()) => taken += 1,
                Err(HvError::INVALID_PARAMETER) => refused += 1,
                Err(_) => strange += 1,
            }
            if n % 100 == 0 {
                stopped("moving: it runs with what was taken", start(guest));
            }
        }
        equal("moving: states with another status", strange, 0);
        note(format_args!("moving: {taken} taken, {refused} refused"));
    });
}
