//! Children that use all the time they can get.

use core::sync::atomic::Ordering;

use machine::verdict::{equal, note, within};
use machine::{clock, insn};
use tlfs::register::RegisterName as N;
use tlfs::{CallCode, Control, MessageType};

use super::bystander::Bystander;
use super::is_fast;
use crate::child::code;
use crate::child::guest::{Guest, Mode};
use crate::child::layout;
use crate::child::runtime::{self, Shared};
use crate::client::synic;
use crate::group::{destroy, need};

/// A VP that faults again and again.
pub fn triple_faults(bystander: &Bystander) {
    let Some(mut guest) = need("triple faults: a child", Guest::new(1)) else {
        return;
    };
    let before = bystander.rounds();
    let mut count = 0;
    for _ in 0..100 {
        let start = guest
            .start(0, Mode::Long, code::triple_fault, &[])
            .and_then(|()| guest.set(0, &[(N::IDTR, 0)]));
        let stop = guest.run(0);
        let kind = MessageType::UNRECOVERABLE_EXCEPTION;
        count += u64::from(start.is_ok() && stop.is_some_and(|stop| stop.kind == kind));
    }
    equal("triple faults: a hundred, each told", count, 100);
    bystander.check("triple faults", before);
    destroy("triple faults", guest);
}

/// What a child does without end.
#[derive(Clone, Copy)]
pub enum Load {
    Rep,
    Flush,
    Interrupts,
    /// Nothing, and no interrupt ends it.
    Halt,
}

extern "sysv64" fn flush_for_ever(shared: &'static Shared) -> ! {
    runtime::enable_calls();
    for n in 0..500 {
        runtime::write(layout::CALL_INPUT + 24 + n * 8, 0xFFF);
    }
    runtime::write(layout::CALL_INPUT, 0);
    runtime::write(layout::CALL_INPUT + 8, 3);
    let control = Control::simple(CallCode::FLUSH_VIRTUAL_ADDRESS_LIST).0 | 500 << 32;
    loop {
        runtime::call_page(control, layout::CALL_INPUT, 0);
        shared.set(0, shared.result(0) + 1);
    }
}

extern "sysv64" fn interrupt_for_ever(shared: &'static Shared) -> ! {
    shared.eoi.store(runtime::eoi::X2APIC, Ordering::SeqCst);
    runtime::wrmsr(0x1B, runtime::rdmsr(0x1B) | 1 << 10);
    runtime::wrmsr(0x80F, 0x1FF);
    insn::sti();
    loop {
        runtime::wrmsr(0x83F, 0x55);
        runtime::wrmsr(0x83F, 0x66);
        shared.set(0, shared.result(0) + 1);
    }
}

/// Two VPs load the processors for a while; the parent's tick keeps its time.
pub fn load(bystander: &Bystander, name: &str, kind: Load) {
    let Some(mut guest) = need(format_args!("{name}: a child of two VPs"), Guest::new(2)) else {
        return;
    };
    for vp in 0..2 {
        let start = match kind {
            Load::Rep => {
                // Bochs lets one processor finish the whole of a repeated instruction before the other executes its next few:
                // with long ones the parent would be the slower by hundreds of times.
                let count: u64 = if is_fast() { 0x1000 } else { 0x10 };
                let registers = [(N(N::RAX.0 + 6), count.into())];
                guest.start(vp, Mode::Long, code::endless_rep, &registers)
            }
            Load::Flush => guest.start_entry(vp, flush_for_ever, &[]),
            Load::Interrupts => guest.start_entry(vp, interrupt_for_ever, &[]),
            Load::Halt => guest.start(vp, Mode::Long, code::halt_without_interrupts, &[]),
        };
        need(format_args!("{name}: start"), start);
        need(
            format_args!("{name}: awake"),
            guest.set_one(vp, N::INTERNAL_ACTIVITY_STATE, 0),
        );
        need(format_args!("{name}: go"), guest.resume(vp));
    }
    let before = bystander.rounds();
    let (ticks, start) = (synic::ticks(), clock::reference());
    let (mut last, mut latest) = (insn::rdtsc(), 0);
    while clock::reference() - start < 5_000_000 {
        insn::halt_once();
        let now = insn::rdtsc();
        latest = latest.max(now - last);
        last = now;
    }
    let elapsed = clock::reference() - start;
    let ticks = u64::from(synic::ticks() - ticks);
    note(format_args!(
        "{name}: the longest gap of the parent's tick {} us",
        clock::micros(latest)
    ));
    within(
        format_args!("{name}: ticks of the parent per second"),
        ticks * 10_000_000 / elapsed,
        // The host of an emulator that runs by the clock may be busy itself.
        if is_fast() { 10 } else { 900 },
        1010,
    );
    bystander.check(name, before);
    let start = clock::reference();
    for vp in 0..2 {
        need(format_args!("{name}: suspend"), guest.suspend(vp));
    }
    note(format_args!(
        "{name}: suspended in {} us",
        (clock::reference() - start) / 10
    ));
    destroy(name, guest);
}
