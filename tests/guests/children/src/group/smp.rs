//! Several VPs in one child: how they start, interrupt each other, and flush each other's translations.

use core::sync::atomic::Ordering;

use machine::insn;
use machine::platform::Platform;
use machine::verdict::{check, equal, note};
use tlfs::call::*;
use tlfs::register::RegisterName as N;
use tlfs::{CallCode, Control, MessageType};
use x86::Segment;

use super::{destroy, need, stopped, stopped_for};
use crate::child::code;
use crate::child::guest::{Guest, Mode};
use crate::child::layout;
use crate::child::runtime::{self, Shared, eoi};
use crate::client::synic;
use crate::client::vp::PATIENCE;
use crate::options::Options;

const VECTOR: u8 = 0x55;
/// Where the start-up IPI of the test leads.
const START_PAGE: u64 = 0x1_2000;
/// Results of VP 0 that the parent reads.
const DONE: u64 = 0x600D;

/// Runs the group.
pub fn run(_: &Options, _: &Platform) {
    for (name, x2apic) in [("xAPIC", 0), ("x2APIC", 1)] {
        start_up(name, x2apic);
    }
    start_by_call();
    interrupts();
    flushes();
    waiting_set_registers();
}

fn to_x2apic() {
    runtime::wrmsr(0x1B, runtime::rdmsr(0x1B) | 1 << 10);
    runtime::wrmsr(0x80F, 0x1FF);
}

fn send(x2apic: bool, destination: u64, low: u64) {
    if x2apic {
        runtime::wrmsr(0x830, destination << 32 | low);
    } else {
        runtime::write32(0xFEE0_0310, (destination << 24) as u32);
        runtime::write32(0xFEE0_0300, low as u32);
    }
}

extern "sysv64" fn start_others(shared: &'static Shared) -> ! {
    let x2apic = shared.arg(0) == 1;
    if x2apic {
        to_x2apic();
    } else {
        runtime::write32(0xFEE0_00F0, 0x1FF);
    }
    send(x2apic, 1, 0xC500);
    send(x2apic, 1, 0x8500);
    send(x2apic, 1, 0x600 | START_PAGE >> 12);
    send(x2apic, 1, 0x600 | START_PAGE >> 12);
    shared.set(0, DONE);
    runtime::stop(0)
}

fn start_up(name: &str, x2apic: u64) {
    let Some(mut guest) = need(
        format_args!("start, {name}: a child of two VPs"),
        Guest::new(2),
    ) else {
        return;
    };
    guest.load_at(START_PAGE, code::out_16);
    // VP 1 is let go first, and must not run before it is started.
    need("start: VP 1 is let go", guest.resume(1));
    check(
        format_args!("start, {name}: VP 1 waits"),
        guest.stop_within(1, 20_000).is_none(),
    );
    need("start: VP 0", guest.start_entry(0, start_others, &[x2apic]));
    need("start: VP 0 is let go", guest.resume(0));
    let stop = guest.stop_within(1, PATIENCE);
    if let Some(stop) = stopped(format_args!("start, {name}: VP 1 runs"), stop) {
        let cs = stop.header().cs;
        check(
            format_args!("start, {name}: at the page of the SIPI"),
            cs.base == START_PAGE
                && u64::from(cs.selector) == START_PAGE >> 4
                && stop.header().rip == 2,
        );
    }
    stopped(
        format_args!("start, {name}: VP 0 ends"),
        guest.stop_within(0, PATIENCE),
    );
    destroy(format_args!("start, {name}"), guest);
}

fn segment(selector: u16, attributes: u16) -> Segment {
    Segment {
        base: 0,
        limit: u32::MAX,
        selector,
        attributes,
    }
}

extern "sysv64" fn start_by_call_entry(shared: &'static Shared) -> ! {
    runtime::enable_calls();
    // The parent left the block in the input page.
    let control = Control::simple(CallCode::START_VIRTUAL_PROCESSOR).0;
    shared.set(0, runtime::call_page(control, layout::CALL_INPUT, 0));
    shared.set(1, runtime::call_page(control, layout::CALL_INPUT, 0));
    let header = VpIndexFromApicId {
        partition: PARTITION_SELF,
        ..VpIndexFromApicId::default()
    };
    for (n, piece) in header.encode().chunks_exact(8).enumerate() {
        let word = u64::from_le_bytes(piece.try_into().unwrap_or_default());
        runtime::write(layout::CALL_INPUT + n as u64 * 8, word);
    }
    runtime::write(layout::CALL_INPUT + 16, 1 << 32);
    let control = Control::simple(CallCode::GET_VP_INDEX_FROM_APIC_ID).0 | 2 << 32;
    shared.set(
        2,
        runtime::call_page(control, layout::CALL_INPUT, layout::CALL_OUTPUT),
    );
    shared.set(3, runtime::read(layout::CALL_OUTPUT));
    runtime::stop(0)
}

extern "sysv64" fn started(shared: &'static Shared) -> ! {
    shared.set(0, DONE);
    shared.set(1, runtime::rdmsr(0x4000_0002));
    runtime::stop(1)
}

fn start_by_call() {
    let Some(mut guest) = need("start by call: a child of two VPs", Guest::new(2)) else {
        return;
    };
    let table = |base, limit| x86::TableRegister { base, limit };
    let data = segment(layout::DATA_32, 0xC093);
    let mut gs = data;
    gs.base = layout::SHARED + 0x1000;
    // RDI is 0 at the start, so the entry finds its page through the first instruction of a small program.
    let context = InitialContext {
        rip: layout::CODE + 0x1000,
        rsp: layout::STACKS + 2 * layout::STACK - 8,
        rflags: 2,
        cs: segment(layout::CODE_64, 0xA09B),
        ds: data,
        es: data,
        fs: data,
        gs,
        ss: data,
        tr: Segment {
            base: 0,
            limit: 0xFFFF,
            selector: 0,
            attributes: 0x8B,
        },
        ldtr: Segment {
            base: 0,
            limit: 0xFFFF,
            selector: 0,
            attributes: 0x82,
        },
        idtr: table(layout::IDT, 4095),
        gdtr: table(layout::GDT, 31),
        efer: 0x500,
        cr0: 0x8000_0031,
        cr3: layout::PML4,
        cr4: 0x620,
        pat: 0x0007_0406_0007_0406,
    };
    let block = StartVp {
        partition: PARTITION_SELF,
        vp: addr::VpIndex::new(1),
        context,
        ..StartVp::default()
    };
    need(
        "start by call: VP 0",
        guest.start_entry(0, start_by_call_entry, &[]),
    );
    for (n, piece) in block.encode().chunks_exact(8).enumerate() {
        let word = u64::from_le_bytes(piece.try_into().unwrap_or_default());
        guest.write(layout::CALL_INPUT + n as u64 * 8, word);
    }
    // mov rdi, gs:[40]; mov rax, entry; jmp rax
    let entry = (started as *const () as u64).to_le_bytes();
    let mut bytes = [0x90_u8; 24];
    bytes[..9].copy_from_slice(&[0x65, 0x48, 0x8B, 0x3C, 0x25, 0x28, 0, 0, 0]);
    bytes[9..11].copy_from_slice(&[0x48, 0xB8]);
    bytes[11..19].copy_from_slice(&entry);
    bytes[19..21].copy_from_slice(&[0xFF, 0xE0]);
    for (n, piece) in bytes.chunks_exact(8).enumerate() {
        let word = u64::from_le_bytes(piece.try_into().unwrap_or_default());
        guest.write(layout::CODE + 0x1000 + n as u64 * 8, word);
    }
    need("start by call: VP 1 is let go", guest.resume(1));
    let stop = guest.run(0);
    stopped("start by call: VP 0 ends", stop);
    let stop = guest.stop_within(1, PATIENCE);
    stopped("start by call: VP 1 runs", stop);
    let (first, second) = (guest.shared(0), guest.shared(1));
    equal("start by call: status", first.result(0) & 0xFFFF, 0);
    check("start by call: not twice", first.result(1) & 0xFFFF != 0);
    note(format_args!("the second time {:#x}", first.result(1)));
    equal("start by call: VP 1 is there", second.result(0), DONE);
    equal("start by call: and knows its index", second.result(1), 1);
    equal(
        "start by call: indexes from APIC ids",
        first.result(2),
        2 << 32,
    );
    equal("start by call: are 0 and 1", first.result(3), 1 << 32);
    destroy("start by call", guest);
}

extern "sysv64" fn take_interrupts(shared: &'static Shared) -> ! {
    shared.eoi.store(eoi::X2APIC, Ordering::SeqCst);
    to_x2apic();
    shared.set(0, DONE);
    loop {
        insn::halt_once();
    }
}

/// The VPs of the interrupt test.
const VPS: u32 = 3;

extern "sysv64" fn send_interrupts(shared: &'static Shared) -> ! {
    shared.eoi.store(eoi::X2APIC, Ordering::SeqCst);
    to_x2apic();
    runtime::enable_calls();
    let other = |vp: u64| {
        // SAFETY-free way to another VP's page: its counters are atomics of the child's memory.
        layout::SHARED + vp * 0x1000 + core::mem::offset_of!(Shared, counts) as u64
    };
    let count = |vp: u64, vector: u64| u64::from(insn::read_mmio32(other(vp) + vector * 4));
    let wait = |vp: u64, vector: u64, wanted: u64| {
        runtime::spin_until(shared.arg(0), || count(vp, vector) >= wanted)
    };
    let vector = u64::from(VECTOR);
    // One target, ten times.
    for n in 1..=10 {
        send(true, 1, vector);
        if !wait(1, vector, n) {
            break;
        }
    }
    shared.set(0, count(1, vector));
    // All but self.
    send(true, 0, 3 << 18 | (vector + 1));
    shared.set(
        1,
        u64::from(wait(1, vector + 1, 1)) + u64::from(wait(2, vector + 1, 1)),
    );
    // The hypercall, to VPs 1 and 2, and to one that there is not.
    let control = Control::simple(CallCode::SEND_SYNTHETIC_CLUSTER_IPI).0 | Control::FAST;
    shared.set(2, runtime::call_page(control, vector + 2, 0b1000_0110));
    shared.set(
        3,
        u64::from(wait(1, vector + 2, 1)) + u64::from(wait(2, vector + 2, 1)),
    );
    // The same with a set.
    for (n, word) in [vector + 3, 0, 1, 0b110].into_iter().enumerate() {
        runtime::write(layout::CALL_INPUT + n as u64 * 8, word);
    }
    let control = Control::simple(CallCode::SEND_SYNTHETIC_CLUSTER_IPI_EX).0 | 1 << 17;
    shared.set(4, runtime::call_page(control, layout::CALL_INPUT, 0));
    shared.set(
        5,
        u64::from(wait(1, vector + 3, 1)) + u64::from(wait(2, vector + 3, 1)),
    );
    // To itself.
    runtime::wrmsr(0x83F, vector + 4);
    insn::sti();
    shared.set(6, u64::from(wait(0, vector + 4, 1)));
    insn::cli();
    // An NMI.
    send(true, 2, 0x400);
    shared.set(7, u64::from(wait(2, 2, 1)));
    // A vector below 16 is refused.
    let control = Control::simple(CallCode::SEND_SYNTHETIC_CLUSTER_IPI).0 | Control::FAST;
    shared.set(8, runtime::call_page(control, 15, 6));
    runtime::stop(0)
}

/// TSC ticks that children wait for each other: 2 seconds.
fn patience() -> u64 {
    machine::clock::ticks(2_000_000)
}

/// Runs VPs 1 and up in `others` until each reports, then VP 0 in `first` to its end.
fn together(
    name: &str,
    guest: &mut Guest,
    first: runtime::Entry,
    others: runtime::Entry,
    args: &[u64],
) -> bool {
    for vp in 1..guest.vps.len() as u32 {
        need(
            format_args!("{name}: VP {vp}"),
            guest.start_entry(vp, others, args),
        );
        need(
            format_args!("{name}: VP {vp} is awake"),
            guest.set_one(vp, N::INTERNAL_ACTIVITY_STATE, 0),
        );
        need(format_args!("{name}: VP {vp} goes"), guest.resume(vp));
        let shared = guest.shared(vp);
        let ready = synic::sleep_until(PATIENCE, || shared.result(0) == DONE);
        if !check(format_args!("{name}: VP {vp} is ready"), ready) {
            return false;
        }
    }
    need(
        format_args!("{name}: VP 0"),
        guest.start_entry(0, first, args),
    );
    let stop = guest.run_for(0, 4 * PATIENCE);
    let ended = stopped(format_args!("{name}: VP 0 ends"), stop).is_some();
    for vp in 1..guest.vps.len() as u32 {
        let _ = guest.suspend(vp);
    }
    ended
}

fn interrupts() {
    let Some(mut guest) = need("IPIs: a child of three VPs", Guest::new(VPS)) else {
        return;
    };
    if together(
        "IPIs",
        &mut guest,
        send_interrupts,
        take_interrupts,
        &[patience()],
    ) {
        let shared = guest.shared(0);
        for (n, name, wanted) in [
            (0, "to one VP, ten times", 10),
            (1, "to all others", 2),
            (2, "by the call: status", 0),
            (3, "by the call: both", 2),
            (4, "by the call with a set: status", 0),
            (5, "by the call with a set: both", 2),
            (6, "to itself", 1),
            (7, "NMI", 1),
            (8, "vector 15 by the call", 5),
        ] {
            equal(format_args!("IPIs: {name}"), shared.result(n), wanted);
        }
    }
    destroy("IPIs", guest);
}

/// A page whose translation VP 0 changes, 2 MiB aligned so that one directory entry is it.
const WINDOW: u64 = 0x4000_0000;

extern "sysv64" fn watch_window(shared: &'static Shared) -> ! {
    let mut rounds = 0;
    loop {
        let value = runtime::read(WINDOW + layout::DATA);
        shared.set(1, value);
        rounds += 1;
        shared.set(2, rounds);
        shared.set(0, DONE);
    }
}

extern "sysv64" fn move_window(shared: &'static Shared) -> ! {
    runtime::enable_calls();
    let entry = layout::DIRECTORIES + (WINDOW >> 21) * 8;
    let watcher = layout::SHARED + 0x1000 + core::mem::offset_of!(Shared, out) as u64;
    let calls: [(CallCode, &[u64], u64); 4] = [
        (CallCode::FLUSH_VIRTUAL_ADDRESS_SPACE, &[0, 3, 0], 0),
        (
            CallCode::FLUSH_VIRTUAL_ADDRESS_LIST,
            &[layout::PML4, 0, 2, WINDOW + layout::DATA],
            1 << 32,
        ),
        (
            CallCode::FLUSH_VIRTUAL_ADDRESS_SPACE_EX,
            &[layout::PML4, 0, 0, 1, 2],
            1 << 17,
        ),
        (
            CallCode::FLUSH_VIRTUAL_ADDRESS_LIST_EX,
            &[0, 2, 1, 0, WINDOW + layout::DATA],
            1 << 32,
        ),
    ];
    let mut good = 0;
    for round in 0..40_u64 {
        let (code, words, extra) = calls[(round % 4) as usize];
        // To the second half or back.
        let to = if round % 2 == 0 { 0x20_0000 } else { 0 };
        runtime::write(entry, to | 0x83);
        for (n, word) in words.iter().enumerate() {
            runtime::write(layout::CALL_INPUT + n as u64 * 8, *word);
        }
        let reply = runtime::call_page(Control::simple(code).0 | extra, layout::CALL_INPUT, 0);
        if reply & 0xFFFF != 0 {
            shared.set(1, reply | round << 48);
            break;
        }
        let rounds = runtime::read(watcher + 16);
        runtime::spin_until(shared.arg(0), || runtime::read(watcher + 16) > rounds + 1);
        let seen = runtime::read(watcher + 8);
        if seen != 0xA0 + u64::from(to != 0) {
            shared.set(2, seen | round << 48 | 1 << 63);
            break;
        }
        good += 1;
    }
    shared.set(0, good);
    runtime::stop(0)
}

fn flushes() {
    let Some(mut guest) = need("flushes: a child of two VPs", Guest::new(2)) else {
        return;
    };
    // The second 2 MiB differ from the first in one word.
    let second = crate::arena::chunk();
    insn::write_phys64(second + layout::DATA, 0xA1);
    guest.write(layout::DATA, 0xA0);
    need(
        "flushes: more memory",
        guest.map(
            0x20_0000,
            &[second],
            crate::client::partition::RWX | MapFlags::LARGE,
        ),
    );
    guest.write(layout::DIRECTORIES + (WINDOW >> 21) * 8, 0x83);
    if together(
        "flushes",
        &mut guest,
        move_window,
        watch_window,
        &[patience()],
    ) {
        let shared = guest.shared(0);
        equal("flushes: no call failed", shared.result(1), 0);
        equal(
            "flushes: the other VP saw no old translation",
            shared.result(2),
            0,
        );
        equal("flushes: forty changes", shared.result(0), 40);
    }
    destroy("flushes", guest);
    crate::arena::free_chunk(second);
}

/// QEMU writes the registers of every AP before it is started; they must not start it.
fn waiting_set_registers() {
    let Some(mut guest) = need("waiting: a child of two VPs", Guest::new(2)) else {
        return;
    };
    equal(
        "waiting: VP 0 does not wait for SIPI",
        guest.reg(0, N::INTERNAL_ACTIVITY_STATE),
        0,
    );
    equal(
        "waiting: VP 1 does",
        guest.reg(1, N::INTERNAL_ACTIVITY_STATE),
        1,
    );
    need(
        "waiting: registers of VP 1",
        guest.start(1, Mode::Long, code::out_64, &[]),
    );
    need("waiting: let go", guest.resume(1));
    check(
        "waiting: it does not run",
        guest.stop_within(1, 20_000).is_none(),
    );
    need("waiting: suspended", guest.suspend(1));
    need(
        "waiting: activity state",
        guest.set_one(1, N::INTERNAL_ACTIVITY_STATE, 0),
    );
    let stop = guest.run(1);
    stopped_for(
        "waiting: then it runs",
        stop,
        MessageType::IO_PORT_INTERCEPT,
    );
    destroy("waiting", guest);
}
