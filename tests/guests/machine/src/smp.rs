//! The other processors: where they arrive, and the work they do on request.
#![expect(
    unsafe_code,
    reason = "the boot processor hands functions to the others as plain numbers"
)]

use core::sync::atomic::{AtomicU64, Ordering};

use x86::msr::IA32_APIC_BASE;

use super::cpu::{self, MAX_CPUS};
use super::trampoline::STACK_SIZE;
use super::{apic, clock, insn, tables};

/// Work for another processor: gets an argument, returns a value.
pub type Work = fn(u64) -> u64;

/// What one processor reported and is asked to do.
struct Mailbox {
    /// How often it arrived in 64-bit mode.
    arrivals: AtomicU64,
    apic_id: AtomicU64,
    apic_base: AtomicU64,
    /// Spurious vector, timer entry and task priority at arrival.
    apic_reset: [AtomicU64; 3],
    work: AtomicU64,
    argument: AtomicU64,
    result: AtomicU64,
    /// Requests made and requests done.
    asked: AtomicU64,
    done: AtomicU64,
}

impl Mailbox {
    const fn new() -> Self {
        Self {
            arrivals: AtomicU64::new(0),
            apic_id: AtomicU64::new(0),
            apic_base: AtomicU64::new(0),
            apic_reset: [const { AtomicU64::new(0) }; 3],
            work: AtomicU64::new(0),
            argument: AtomicU64::new(0),
            result: AtomicU64::new(0),
            asked: AtomicU64::new(0),
            done: AtomicU64::new(0),
        }
    }
}

static MAILBOXES: [Mailbox; MAX_CPUS] = [const { Mailbox::new() }; MAX_CPUS];

#[repr(C, align(16))]
struct Stacks([[AtomicU64; (STACK_SIZE / 8) as usize]; MAX_CPUS]);

static STACKS: Stacks =
    Stacks([const { [const { AtomicU64::new(0) }; (STACK_SIZE / 8) as usize] }; MAX_CPUS]);

/// Address of the first stack; that of processor `n` ends `(n + 1) * STACK_SIZE` further on.
pub fn stacks() -> u64 {
    core::ptr::from_ref(&STACKS) as u64
}

/// Where the trampoline arrives, on the stack of processor `number`.
pub extern "sysv64" fn enter(number: u64) -> ! {
    let index = number as usize;
    if index == 0 || index >= MAX_CPUS {
        // More processors than this program has room for stay here.
        loop {
            insn::halt_forever();
        }
    }
    tables::load(index);
    cpu::this().forget();
    apic::notice_mode();
    let mailbox = &MAILBOXES[index];
    mailbox
        .apic_base
        .store(insn::rdmsr(IA32_APIC_BASE), Ordering::SeqCst);
    mailbox.apic_id.store(apic::id().into(), Ordering::SeqCst);
    for (slot, register) in
        mailbox
            .apic_reset
            .iter()
            .zip([apic::reg::SVR, apic::reg::LVT_TIMER, apic::reg::TPR])
    {
        slot.store(apic::read(register).into(), Ordering::SeqCst);
    }
    apic::quiet();
    // Requests that were never answered died with the processor's former life.
    mailbox
        .done
        .store(mailbox.asked.load(Ordering::SeqCst), Ordering::SeqCst);
    mailbox.arrivals.fetch_add(1, Ordering::SeqCst);
    insn::sti();
    loop {
        let asked = mailbox.asked.load(Ordering::SeqCst);
        if mailbox.done.load(Ordering::SeqCst) == asked {
            insn::pause();
            continue;
        }
        // SAFETY: `ask` stored a `Work` before it raised `asked`.
        let work =
            unsafe { core::mem::transmute::<u64, Work>(mailbox.work.load(Ordering::SeqCst)) };
        let result = work(mailbox.argument.load(Ordering::SeqCst));
        mailbox.result.store(result, Ordering::SeqCst);
        mailbox.done.store(asked, Ordering::SeqCst);
    }
}

/// How often processor `index` arrived.
pub fn arrivals(index: usize) -> u64 {
    MAILBOXES[index].arrivals.load(Ordering::SeqCst)
}

/// APIC id that processor `index` reported.
pub fn apic_id(index: usize) -> u32 {
    MAILBOXES[index].apic_id.load(Ordering::SeqCst) as u32
}

/// IA32_APIC_BASE that processor `index` found at its arrival.
pub fn apic_base(index: usize) -> u64 {
    MAILBOXES[index].apic_base.load(Ordering::SeqCst)
}

/// Spurious vector register, timer entry and task priority that processor `index` found at its arrival.
pub fn apic_reset(index: usize) -> [u64; 3] {
    let reset = &MAILBOXES[index].apic_reset;
    [0, 1, 2].map(|which: usize| reset[which].load(Ordering::SeqCst))
}

/// Asks processor `index` to do `work`, and does not wait.
pub fn ask(index: usize, work: Work, argument: u64) {
    let mailbox = &MAILBOXES[index];
    mailbox
        .work
        .store(work as *const () as u64, Ordering::SeqCst);
    mailbox.argument.store(argument, Ordering::SeqCst);
    mailbox.asked.fetch_add(1, Ordering::SeqCst);
}

/// Whether processor `index` has done what it was asked.
pub fn is_done(index: usize) -> bool {
    MAILBOXES[index].done.load(Ordering::SeqCst) == MAILBOXES[index].asked.load(Ordering::SeqCst)
}

/// The result of the last request to processor `index`, or `None` when twenty seconds were not enough: a busy host can hold a
/// processor back for long, and only a lost message lasts for ever.
pub fn answer(index: usize) -> Option<u64> {
    let mailbox = &MAILBOXES[index];
    clock::wait_for(20_000_000, || is_done(index)).then(|| mailbox.result.load(Ordering::SeqCst))
}

/// [`ask`] and [`answer`].
pub fn on(index: usize, work: Work, argument: u64) -> Option<u64> {
    ask(index, work, argument);
    answer(index)
}
