//! A child's guest physical address space: mapping, splitting, merging, taking away, tracking.

use alloc::vec::Vec;

use addr::Gpn;
use machine::platform::Platform;
use machine::verdict::{check, equal, note, skip};
use machine::{clock, insn};
use tlfs::call::*;
use tlfs::property::PropertyCode;
use tlfs::register::RegisterName as N;
use tlfs::{CallCode, HvError, MessageType};

use super::{destroy, fails, need, stopped, stopped_for};
use crate::arena::{self, CHUNK, FRAME};
use crate::child::code;
use crate::child::guest::{Guest, Mode};
use crate::client::call;
use crate::client::partition::{RWX, deposit_frames};
use crate::client::synic;
use crate::client::vp::PATIENCE;
use crate::options::Options;

/// Where the tests map, 2 MiB aligned.
const BASE: u64 = 0x80_0000;
const RSI: N = N(N::RAX.0 + 6);
const RDI: N = N(N::RAX.0 + 7);

/// Runs the group.
pub fn run(_: &Options, platform: &Platform) {
    let Some(mut guest) = need("memory: a child", Guest::new(1)) else {
        return;
    };
    sizes(&mut guest);
    unmapping(&mut guest);
    ranges(&mut guest);
    dirty(&mut guest);
    access(&mut guest);
    translate(&mut guest);
    uses(&mut guest);
    revocation(&mut guest, platform);
    destroy("memory", guest);
    half_way();
}

/// What the child reads at `gpa`, or `None` when it stops elsewhere.
fn peek(guest: &mut Guest, gpa: u64) -> Option<u64> {
    guest
        .start(0, Mode::Long, code::read_rsi, &[(RSI, gpa.into())])
        .ok()?;
    let stop = guest.run(0)?;
    if stop.is_out(code::STOP) {
        Some(guest.reg(0, N::RAX))
    } else {
        None
    }
}

/// What the access of the child to `gpa` stops for.
fn kind_of(guest: &mut Guest, gpa: u64) -> Option<MessageType> {
    guest
        .start(0, Mode::Long, code::read_rsi, &[(RSI, gpa.into())])
        .ok()?;
    guest.run(0).map(|stop| stop.kind)
}

fn sizes(guest: &mut Guest) {
    let (first, second) = (arena::chunk(), arena::chunk());
    for n in 0..512 {
        insn::write_phys64(first + n * FRAME, 0x1000 + n);
        insn::write_phys64(second + n * FRAME, 0x2000 + n);
    }
    let large = RWX | MapFlags::LARGE;
    need("sizes: 2 MiB", guest.map(BASE, &[first], large));
    equal("sizes: first page", peek(guest, BASE).unwrap_or(0), 0x1000);
    equal(
        "sizes: last page",
        peek(guest, BASE + 511 * FRAME).unwrap_or(0),
        0x11FF,
    );
    // Split: one page of another frame in the middle.
    need(
        "sizes: one page over a large leaf",
        guest.map(BASE + 5 * FRAME, &[second + 5 * FRAME], RWX),
    );
    equal(
        "sizes: the page before",
        peek(guest, BASE + 4 * FRAME).unwrap_or(0),
        0x1004,
    );
    equal(
        "sizes: the new page",
        peek(guest, BASE + 5 * FRAME).unwrap_or(0),
        0x2005,
    );
    equal(
        "sizes: the page after",
        peek(guest, BASE + 6 * FRAME).unwrap_or(0),
        0x1006,
    );
    // 2 MiB over 512 pages.
    need("sizes: 2 MiB over pages", guest.map(BASE, &[second], large));
    equal(
        "sizes: all new",
        peek(guest, BASE + 4 * FRAME).unwrap_or(0),
        0x2004,
    );
    need(
        "sizes: 512 pages over 2 MiB",
        guest.map_range(BASE, first, 512, RWX),
    );
    equal(
        "sizes: all new again",
        peek(guest, BASE + 9 * FRAME).unwrap_or(0),
        0x1009,
    );
    need("sizes: 2 MiB of the same", guest.map(BASE, &[first], large));
    equal(
        "sizes: still the same",
        peek(guest, BASE + 9 * FRAME).unwrap_or(0),
        0x1009,
    );
    // No use of the first chunk may be left once it is unmapped.
    need(
        "sizes: no access over 2 MiB",
        guest.map_no_access(BASE, 512),
    );
    let pages: Vec<u64> = (0..500).map(|n| first + n * FRAME).collect();
    let reply = deposit_frames(guest.id, &pages);
    equal("sizes: its frames are free again", reply.code(), 0);
    guest
        .deposited
        .extend(pages.iter().take(usize::from(reply.done)));
    for n in 500..512 {
        let reply = deposit_frames(guest.id, &[first + n * FRAME]);
        if reply.status.is_ok() {
            guest.deposited.insert(first + n * FRAME);
        }
    }
    check(
        "sizes: without access it stops as mapped",
        kind_of(guest, BASE + 3 * FRAME) == Some(MessageType::GPA_INTERCEPT),
    );
    need("sizes: unmap", guest.unmap(BASE, 512));
    check(
        "sizes: then as unmapped",
        kind_of(guest, BASE + 3 * FRAME) == Some(MessageType::UNMAPPED_GPA),
    );
    arena::free_chunk(second);
}

fn unmapping(guest: &mut Guest) {
    let chunk = arena::chunk();
    need(
        "unmap: 2 MiB",
        guest.map(BASE, &[chunk], RWX | MapFlags::LARGE),
    );
    need(
        "unmap: 3 pages from the middle",
        guest.unmap(BASE + 7 * FRAME, 3),
    );
    for (page, there) in [(6, true), (7, false), (9, false), (10, true)] {
        let got = peek(guest, BASE + page * FRAME).is_some();
        equal(format_args!("unmap: page {page}"), got.into(), there.into());
    }
    need(
        "unmap: pages that are not there, too",
        guest.unmap(BASE, 512),
    );
    check("unmap: nothing is left", peek(guest, BASE).is_none());
    need(
        "unmap: 2 MiB again",
        guest.map(BASE, &[chunk], RWX | MapFlags::LARGE),
    );
    let reply = guest.unmap_once(BASE, 1, UnmapFlags::LARGE);
    equal("unmap: as one unit of 2 MiB", reply.code(), 0);
    check("unmap: nothing is left again", peek(guest, BASE).is_none());
    arena::free_chunk(chunk);
}

/// Bases, counts and flags that cannot be.
fn ranges(guest: &mut Guest) {
    let frame = arena::frame();
    let large = RWX | MapFlags::LARGE;
    for (name, reply) in [
        (
            "2 MiB at an odd base",
            guest.map_once(BASE + FRAME, &[frame & !(CHUNK - 1)], large),
        ),
        (
            "2 MiB of an odd frame",
            guest.map_once(BASE, &[(frame & !(CHUNK - 1)) + FRAME], large),
        ),
        ("beyond addresses", guest.map_once(1 << 52, &[frame], RWX)),
        (
            "the end of all numbers",
            guest.map_once(!0xFFF_u64, &[frame], RWX),
        ),
        (
            "an unknown flag",
            guest.map_once(BASE, &[frame], MapFlags::from_bits_retain(0xF | 1 << 20)),
        ),
        (
            "write without read",
            guest.map_once(BASE, &[frame], MapFlags::WRITE),
        ),
    ] {
        fails(format_args!("ranges: {name} is refused"), reply.status);
        check(
            format_args!("ranges: {name}: nothing done"),
            reply.done == 0,
        );
    }
    check(
        "ranges: and nothing is there",
        kind_of(guest, BASE) == Some(MessageType::UNMAPPED_GPA),
    );
    // The good elements before a bad one stay.
    let list = [frame, 1 << 45];
    let reply = loop {
        let reply = guest.map_once(BASE, &list, RWX);
        if reply.status != Err(HvError::INSUFFICIENT_MEMORY) || guest.deposit(1).is_err() {
            break reply;
        }
    };
    check(
        "ranges: good elements before a bad one are done",
        reply.status.is_err() && reply.done == 1,
    );
    check("ranges: and are there", peek(guest, BASE).is_some());
    need("ranges: unmap", guest.unmap(BASE, 1));
    // The whole space without access costs little.
    let before = guest.deposited.len();
    let mut result = Ok(());
    for part in 0..16 {
        result = result.and(guest.map_no_access((4 << 30) + part * 509 * FRAME, 509));
    }
    need("ranges: 8144 pages without access", result);
    let cost = guest.deposited.len() - before;
    check(format_args!("ranges: they cost {cost} frames"), cost <= 20);
    for part in 0..16 {
        result = result.and(guest.unmap((4 << 30) + part * 509 * FRAME, 509));
    }
    need("ranges: and are unmapped", result);
    arena::free(frame);
}

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

fn dirty(guest: &mut Guest) {
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

/// The parent reads and writes guest memory through the calls 53 and 54.
fn access(guest: &mut Guest) {
    let read = |guest: &Guest, gpa| {
        let input = ReadGpa {
            partition: guest.id,
            bytes: AccessBytes::new(16),
            gpa: addr::Gpa::new(gpa),
            ..ReadGpa::default()
        };
        call::ask::<24>(CallCode::READ_GPA, &input.encode())
    };
    guest.write(crate::child::layout::DATA, 0x1234_5678);
    check(
        "access: read",
        read(guest, crate::child::layout::DATA)
            .is_ok_and(|out| out[0] == 0 && out[8..12] == 0x1234_5678_u32.to_le_bytes()),
    );
    check(
        "access: unmapped",
        read(guest, BASE).is_ok_and(|out| out[0] == AccessGpaCode::Unmapped as u8),
    );
    need("access: no access", guest.map_no_access(BASE, 1));
    check(
        "access: without access",
        read(guest, BASE).is_ok_and(|out| out[0] == AccessGpaCode::ReadIntercept as u8),
    );
    need("access: unmap", guest.unmap(BASE, 1));
    let mut data = [0; 16];
    data[..8].copy_from_slice(&0xFEED_F00D_u64.to_le_bytes());
    let input = WriteGpa {
        to: ReadGpa {
            partition: guest.id,
            bytes: AccessBytes::new(8),
            gpa: addr::Gpa::new(crate::child::layout::DATA + 8),
            ..ReadGpa::default()
        },
        data,
    };
    check(
        "access: write",
        call::ask::<8>(CallCode::WRITE_GPA, &input.encode()).is_ok_and(|out| out[0] == 0),
    );
    equal(
        "access: in memory",
        guest.read(crate::child::layout::DATA + 8),
        0xFEED_F00D,
    );
}

fn translate(guest: &mut Guest) {
    need(
        "translate: start",
        guest.start(0, Mode::Long, code::out_64, &[]),
    );
    stopped("translate: stopped", guest.run(0));
    let ask = |guest: &Guest, gva: u64, flags| {
        let input = Translate {
            partition: guest.id,
            flags: TranslateControl(flags),
            page: addr::Gva::new(gva).page(),
            ..Translate::default()
        };
        call::ask::<16>(CallCode::TRANSLATE_VIRTUAL_ADDRESS, &input.encode())
    };
    let out = ask(
        guest,
        0x1_2345,
        TranslateFlags::READ | TranslateFlags::WRITE,
    );
    check(
        "translate: an address",
        out.is_ok_and(|out| out[0] == 0 && out[8..] == 0x12_u64.to_le_bytes()),
    );
    let out = ask(guest, 0x7FFF_0000_0000, TranslateFlags::READ);
    check(
        "translate: not present",
        out.is_ok_and(|out| out[0] == TranslateCode::NotPresent as u8),
    );
}

/// Every pair of uses of one frame.
fn uses(guest: &mut Guest) {
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

/// A page goes while the child uses it.
fn revocation(guest: &mut Guest, platform: &Platform) {
    let (frame, other) = (arena::frame(), arena::frame());
    for (name, spins) in [("halting", false), ("spinning", true)] {
        if spins && platform.processors().len() < 2 {
            skip("revocation: the parent spins", "one processor");
            continue;
        }
        let wait = |us: u64, done: &dyn Fn() -> bool| {
            if spins {
                insn::sti();
                let came = clock::wait_for(us, done);
                insn::cli();
                came
            } else {
                synic::sleep_until(us, done)
            }
        };
        need("revocation: map", guest.map(BASE, &[frame], RWX));
        let registers = [(RDI, u128::from(BASE))];
        need(
            "revocation: spin",
            guest.start(0, Mode::Long, code::spin, &registers),
        );
        let before = insn::read_phys64(frame);
        need("revocation: go", guest.resume(0));
        let moves = || insn::read_phys64(frame) != before;
        check(
            format_args!("revocation: the child writes, the parent {name}"),
            wait(PATIENCE, &moves),
        );
        let start = clock::reference();
        // Without a deposit, the one call that must be synchronous.
        let result = guest.map_once(BASE, &[0], MapFlags::NO_ACCESS);
        let then = insn::read_phys64(frame);
        note(format_args!(
            "it took {} us",
            (clock::reference() - start) / 10
        ));
        equal("revocation: taken away", result.code(), 0);
        wait(2_000, &|| false);
        equal(
            "revocation: no write after the call returned",
            insn::read_phys64(frame),
            then,
        );
        let stop = guest.stop_within(0, PATIENCE);
        stopped_for(
            "revocation: the child stops",
            stop,
            MessageType::GPA_INTERCEPT,
        );
        // Replaced rather than taken away.
        need("revocation: map", guest.map(BASE, &[frame], RWX));
        let before = insn::read_phys64(frame);
        need("revocation: go", guest.resume(0));
        check(
            "revocation: it goes on",
            wait(PATIENCE, &|| insn::read_phys64(frame) != before),
        );
        need("revocation: another frame", guest.map(BASE, &[other], RWX));
        let then = insn::read_phys64(frame);
        let before = insn::read_phys64(other);
        check(
            "revocation: it writes to the new frame",
            wait(PATIENCE, &|| insn::read_phys64(other) != before),
        );
        equal(
            "revocation: and not to the old",
            insn::read_phys64(frame),
            then,
        );
        need("revocation: stop", guest.suspend(0));
        need("revocation: unmap", guest.unmap(BASE, 1));
    }
    arena::free(frame);
    arena::free(other);
}

/// Memory runs out at each point of building a child; each time nothing changed, and the retry goes on.
fn half_way() {
    use crate::client::partition::{Child, USUAL};
    let Some(mut child) = need("half-way: create", Child::create(USUAL)) else {
        return;
    };
    let id = child.id.get();
    let mut tries = 0;
    let mut dirty = 0;
    // `feed` deposits one frame at a time: each refusal is a point where memory ran out.
    let result = child.feed(|child| {
        tries += 1;
        let before = crate::client::partition::property_of(child.id, PropertyCode::CPU_WEIGHT);
        let result = call::fast(CallCode::INITIALIZE_PARTITION, id, 0);
        let after = crate::client::partition::property_of(child.id, PropertyCode::CPU_WEIGHT);
        dirty += u64::from(before != after);
        result
    });
    if need("half-way: initialized in the end", result).is_none() {
        return;
    }
    child.is_initialized = true;
    equal("half-way: refusals changed nothing", dirty, 0);
    note(format_args!("{tries} attempts to initialize"));
    need("half-way: VP", child.create_vp(0));
    let chunk = arena::chunk();
    // Far apart, so that every page needs tables of its own.
    for n in 0..4_u64 {
        let gpa = n * (512 << 30) / 8 + 0x1000;
        let mut refusals = 0;
        let result = child.feed(|child| {
            let reply = child.map_once(gpa, &[chunk + n * FRAME], RWX);
            refusals += u64::from(reply.status.is_err() && reply.done != 0);
            reply.status
        });
        need(format_args!("half-way: page at {gpa:#x}"), result);
        equal("half-way: a refusal did nothing", refusals, 0);
    }
    super::clean("half-way", child.destroy());
    arena::free_chunk(chunk);
}
