//! What children cost, in TSC ticks: instructions on Bochs and with QEMU's `-icount`.
//!
//! One line per operation, `# bench NAME TICKS`: the average of a thousand. On one processor everything but what takes two.

mod bus;
mod faults;
mod life;
mod smp;
mod time;

use core::sync::atomic::Ordering;

use machine::insn;
use machine::mark::mark;
use machine::platform::Platform;
use machine::verdict::{check, note};
use tlfs::register::RegisterName as N;
use tlfs::{CallCode, Control};

use super::{destroy, need, stopped};
use crate::child::code::{self, Program};
use crate::child::guest::{Guest, Mode};
use crate::child::layout;
use crate::child::runtime::{self, Shared, eoi};
use crate::client::vp::{PATIENCE, set_registers};
use crate::client::{call, synic};
use crate::options::Options;

const RUNS: u64 = 1000;
/// Period of the parent's tick, in microseconds: it ends waits, and what is measured is not to contain it.
const TICK: u64 = 200_000;
const VECTOR: u64 = 0x55;

/// Runs the group.
pub fn run(_: &Options, platform: &Platform) {
    if platform.processors().len() > 1 {
        smp::run();
        return;
    }
    synic::tick_every(TICK);
    let Some(mut guest) = need("bench: a child", Guest::new(2)) else {
        return;
    };
    let loops: [(&str, Program); 2] = [
        ("child-cpuid", code::cpuid_loop),
        ("child-msr-read", code::time_loop),
    ];
    for (name, program) in loops {
        need(
            format_args!("bench: {name}"),
            guest.start(0, Mode::Long, program, &[]),
        );
        mark(name);
        let stop = guest.run(0);
        mark(name);
        if stopped(format_args!("bench: {name} ends"), stop).is_some() {
            note(format_args!("bench {name} {}", guest.reg(0, N::RAX) / RUNS));
        }
    }
    hypercall(&mut guest);
    round_trip(&mut guest);
    ping_pong(&mut guest);
    destroy("bench", guest);
    synic();
    bus::run();
    faults::run();
    time::run();
    life::run();
}

extern "sysv64" fn null_calls(shared: &'static Shared) -> ! {
    runtime::enable_calls();
    let time = |control: u64| {
        let start = insn::rdtsc();
        for _ in 0..RUNS {
            runtime::plain_call(control, layout::CALL_INPUT);
        }
        insn::rdtsc() - start
    };
    shared.set(0, time(0x8 | 1 << 16));
    // An invalid code, too, goes no further than the table.
    shared.set(1, time(0x7FFF));
    runtime::stop(0)
}

fn hypercall(guest: &mut Guest) {
    need("bench: hypercall", guest.start_entry(0, null_calls, &[]));
    mark("child-hypercall");
    let stop = guest.run(0);
    mark("child-hypercall");
    if stopped("bench: hypercall ends", stop).is_some() {
        let shared = guest.shared(0);
        note(format_args!(
            "bench child-hypercall {}",
            shared.result(0) / RUNS
        ));
        note(format_args!(
            "bench child-hypercall-unknown {}",
            shared.result(1) / RUNS
        ));
    }
}

/// From a port access of the child to the parent and back to the child.
fn round_trip(guest: &mut Guest) {
    need(
        "bench: OUT",
        guest.start(0, Mode::Long, code::out_loop, &[]),
    );
    let Some(first) = guest.run(0) else {
        check("bench: OUT stops", false);
        return;
    };
    // Two bytes of OUT, two of JMP: always the same RIP. One call sets it and lets the VP go on; its block stays in
    // the input page, so that what is measured is the hypervisor and little else.
    let rip = first.header().rip + first.length();
    let list = [
        (N::RIP, u128::from(rip)),
        (N::INTERCEPT_SUSPEND, 0),
        (N::EXPLICIT_SUSPEND, 0),
    ];
    let control = Control::simple(CallCode::SET_VP_REGISTERS).0 | (list.len() as u64) << 32;
    check(
        "bench: the call goes as a whole",
        set_registers(guest.id, 0, &list).done == 3,
    );
    let input = call::input_page().address();
    let slot = insn::rdmsr(tlfs::msr::SIMP) & !0xFFF;
    let arrived = || insn::read_mmio32(slot) != 0;
    let mut done = 0;
    let mut start = insn::rdtsc();
    for n in 0..=RUNS {
        if n == 1 {
            // The first answered what the warm-up left.
            mark("child-intercept-round-trip");
            start = insn::rdtsc();
        }
        let word = if n == 0 {
            0
        } else {
            call::plain(control, input)
        };
        if word & 0xFFFF != 0 || !synic::sleep_until(PATIENCE, arrived) {
            break;
        }
        insn::write_mmio32(slot, 0);
        done = n;
    }
    let ticks = insn::rdtsc() - start;
    mark("child-intercept-round-trip");
    check("bench: a thousand round trips", done == RUNS);
    note(format_args!(
        "bench child-intercept-round-trip {}",
        ticks / RUNS
    ));
    // The block of one register read.
    let _ = guest.reg(0, N::RIP);
    let control = Control::simple(CallCode::GET_VP_REGISTERS).0 | 1 << 32;
    mark("get-register");
    let start = insn::rdtsc();
    for _ in 0..RUNS {
        call::plain(control, input);
    }
    let ticks = insn::rdtsc() - start;
    mark("get-register");
    note(format_args!("bench get-register {}", ticks / RUNS));
}

fn x2apic(shared: &Shared) {
    shared.eoi.store(eoi::X2APIC, Ordering::SeqCst);
    runtime::wrmsr(0x1B, runtime::rdmsr(0x1B) | 1 << 10);
    runtime::wrmsr(0x80F, 0x1FF);
}

/// Halts until an interrupt comes, then interrupts the other.
extern "sysv64" fn echo(shared: &'static Shared) -> ! {
    x2apic(shared);
    shared.set(0, 1);
    loop {
        insn::halt_once();
        runtime::wrmsr(0x830, VECTOR);
    }
}

extern "sysv64" fn self_ipi(shared: &'static Shared) -> ! {
    x2apic(shared);
    let start = insn::rdtsc();
    for _ in 0..RUNS {
        runtime::wrmsr(0x83F, VECTOR);
        insn::sti();
        insn::cli();
    }
    shared.set(0, insn::rdtsc() - start);
    runtime::stop(0)
}

extern "sysv64" fn ping(shared: &'static Shared) -> ! {
    x2apic(shared);
    let start = insn::rdtsc();
    for n in 1..=RUNS {
        runtime::wrmsr(0x830, 1 << 32 | VECTOR);
        while u64::from(shared.count(VECTOR as u8)) < n {
            insn::halt_once();
        }
    }
    shared.set(0, insn::rdtsc() - start);
    runtime::stop(0)
}

/// An IPI to a halted VP and one back: two IPIs, two halts, and as many switches where both share a processor.
fn ping_pong(guest: &mut Guest) {
    need("bench: self-IPI", guest.start_entry(0, self_ipi, &[]));
    mark("child-self-ipi");
    let stop = guest.run(0);
    mark("child-self-ipi");
    if stopped("bench: self-IPIs end", stop).is_some() {
        let shared = guest.shared(0);
        check(
            "bench: each came",
            u64::from(shared.count(VECTOR as u8)) == RUNS,
        );
        note(format_args!(
            "bench child-self-ipi {}",
            shared.result(0) / RUNS
        ));
    }
    guest.shared(0).counts[VECTOR as usize].store(0, Ordering::SeqCst);
    run_vp_1(guest, echo);
    need("bench: VP 0", guest.start_entry(0, ping, &[]));
    mark("child-ipi-round-trip");
    let stop = guest.run_for(0, 4 * PATIENCE);
    mark("child-ipi-round-trip");
    if stopped("bench: IPIs end", stop).is_some() {
        let ticks = guest.shared(0).result(0);
        note(format_args!("bench child-ipi-round-trip {}", ticks / RUNS));
    }
    let _ = guest.suspend(1);
}

/// Connections of the measurement: messages to VP 0, events to VP 0 and to VP 1.
const CONNECTIONS: [u64; 3] = [0x61, 0x62, 0x63];

extern "sysv64" fn post_and_signal(shared: &'static Shared) -> ! {
    runtime::enable_calls();
    listen(shared);
    let slot = layout::MESSAGES + 2 * 256;
    for (n, word) in [CONNECTIONS[0], 1 | 8 << 32, 7].into_iter().enumerate() {
        runtime::write(layout::CALL_INPUT + n as u64 * 8, word);
    }
    let mut arrived = 0;
    let start = insn::rdtsc();
    for _ in 0..RUNS {
        runtime::plain_call(u64::from(CallCode::POST_MESSAGE.0), layout::CALL_INPUT);
        arrived += u64::from(runtime::read(slot) as u32 == 1);
        runtime::write32(slot, 0);
    }
    shared.set(0, insn::rdtsc() - start);
    shared.set(1, arrived);
    let start = insn::rdtsc();
    for n in 1..=RUNS {
        runtime::plain_call(
            u64::from(CallCode::SIGNAL_EVENT.0) | 1 << 16,
            CONNECTIONS[2],
        );
        while u64::from(shared.count(VECTOR as u8)) < n {
            insn::halt_once();
        }
        runtime::write(layout::EVENTS + 3 * 256, 0);
    }
    shared.set(2, insn::rdtsc() - start);
    runtime::stop(0)
}

/// SynIC on: messages of SINT 2 without interrupt, events of SINT 3 with one.
fn listen(shared: &Shared) {
    x2apic(shared);
    let me = shared.index.load(Ordering::SeqCst) * 4096;
    runtime::wrmsr(0x4000_0083, (layout::MESSAGES + me) | 1);
    runtime::wrmsr(0x4000_0082, (layout::EVENTS + me) | 1);
    runtime::wrmsr(0x4000_0092, 1 << 18 | 0x41);
    runtime::wrmsr(0x4000_0093, VECTOR);
    runtime::wrmsr(0x4000_0080, 1);
}

extern "sysv64" fn signal_back(shared: &'static Shared) -> ! {
    listen(shared);
    shared.set(0, 1);
    loop {
        insn::halt_once();
        runtime::write(layout::EVENTS + 4096 + 3 * 256, 0);
        runtime::call(
            u64::from(CallCode::SIGNAL_EVENT.0) | 1 << 16,
            CONNECTIONS[1],
            0,
        );
    }
}

/// Lets VP 1 go at `entry`, without SIPI, until its result 0 says that it is there.
fn run_vp_1(guest: &mut Guest, entry: runtime::Entry) {
    need("bench: VP 1", guest.start_entry(1, entry, &[]));
    need(
        "bench: VP 1 awake",
        guest.set_one(1, N::INTERNAL_ACTIVITY_STATE, 0),
    );
    need("bench: VP 1 goes", guest.resume(1));
    let shared = guest.shared(1);
    let is_there = crate::client::synic::sleep_until(PATIENCE, || shared.result(0) == 1);
    check("bench: VP 1 runs", is_there);
}

/// One message of a child to itself, and an event to a halted VP and one back.
fn synic() {
    use addr::VpIndex;
    use tlfs::call::{ConnectionKind, PortInfo, PortKind};

    use crate::client::port;
    let Some(mut guest) = need("bench: a child", Guest::new(2)) else {
        return;
    };
    let id = guest.id;
    let event = PortKind::Event { base: 0, count: 1 };
    let kinds = [
        (PortKind::Message, ConnectionKind::Message, 2, 0),
        (event, ConnectionKind::Event, 3, 0),
        (event, ConnectionKind::Event, 3, 1),
    ];
    for (number, (kind, connection, sint, vp)) in CONNECTIONS.into_iter().zip(kinds) {
        let number = number as u32;
        let port = PortInfo {
            vp: VpIndex::new(vp),
            ..port::info(kind, sint)
        };
        let made = port::own(|| port::create(id, number, id, port));
        need("bench: port", made);
        let made = guest.feed(|_| port::connect(id, number, id, number, connection));
        need("bench: connection", made);
    }
    run_vp_1(&mut guest, signal_back);
    need("bench: VP 0", guest.start_entry(0, post_and_signal, &[]));
    mark("child-event-round-trip");
    let stop = guest.run_for(0, 4 * PATIENCE);
    mark("child-event-round-trip");
    if stopped("bench: messages and events end", stop).is_some() {
        let shared = guest.shared(0);
        check(
            "bench: each message was there at once",
            shared.result(1) == RUNS,
        );
        note(format_args!(
            "bench child-message {}",
            shared.result(0) / RUNS
        ));
        note(format_args!(
            "bench child-event-round-trip {}",
            shared.result(2) / RUNS
        ));
    }
    let _ = guest.suspend(1);
    destroy("bench: SynIC", guest);
}
