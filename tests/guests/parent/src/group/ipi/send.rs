//! Interrupts between processors: fixed, lowest priority, NMI; physical, logical, broadcast.

use core::sync::atomic::{AtomicBool, Ordering};

use super::Others;
use machine::apic::{self, icr, reg};
use machine::verdict::{check, equal};
use machine::{clock, cpu, insn, smp};

const VECTOR: u8 = 0x54;
const NMI: u8 = 2;
const ROUNDS: u32 = 300;

/// Long enough for an interrupt on an emulated machine, in microseconds.
const PATIENCE: u64 = 5_000_000;
const QUIET: u64 = 5_000;

/// Set by a processor that holds interrupts back, on its way to where the test wants it.
static READY: AtomicBool = AtomicBool::new(false);

/// Waits for [`READY`] and takes it back.
fn ready() {
    clock::wait_for(PATIENCE, || READY.swap(false, Ordering::SeqCst));
}

/// Runs these tests; all processors are in `mode`.
pub fn run(mode: &str, others: &Others) {
    physical(mode, others);
    logical(mode, others);
    broadcasts(mode, others);
    lowest_priority(mode, others);
    nmi(mode, others);
    waking(mode, others);
    stress(mode, others);
    forget(others);
}

/// The boot processor in x2APIC mode, the others still in xAPIC mode.
pub fn mixed(others: &Others) {
    physical("boot processor in x2APIC, others in xAPIC mode", others);
    forget(others);
}

fn forget(others: &Others) {
    for number in 0..=others.count {
        cpu::by_index(number).forget();
    }
}

fn count(number: usize, vector: u8) -> u32 {
    cpu::by_index(number).count(vector)
}

fn arrives(number: usize, vector: u8, times: u32) -> bool {
    clock::wait_for(PATIENCE, || count(number, vector) >= times)
}

/// Lets interrupts in here and waits until nothing more can come anywhere.
fn settle() {
    insn::sti();
    clock::spin(QUIET);
    insn::cli();
}

/// Whether each processor gets [`VECTOR`] exactly as often as `wanted` says.
fn reaches(others: &Others, wanted: impl Fn(usize) -> u32) -> bool {
    insn::sti();
    let all = clock::wait_for(PATIENCE, || {
        (0..=others.count).all(|number| count(number, VECTOR) >= wanted(number))
    });
    insn::cli();
    settle();
    all && (0..=others.count).all(|number| count(number, VECTOR) == wanted(number))
}

/// ICR contents for [`smp::on`]: destination in the high half.
fn command(value: u64) -> u64 {
    apic::command((value >> 32) as u32, value as u32);
    0
}

fn to(destination: u32, low: u32) -> u64 {
    (u64::from(destination) << 32) | u64::from(low)
}

fn physical(mode: &str, others: &Others) {
    let own = apic::id();
    for number in others.all() {
        forget(others);
        apic::command(smp::apic_id(number), VECTOR.into());
        check(
            format_args!("{mode}: to processor {number}"),
            arrives(number, VECTOR, 1),
        );
        settle();
        let total: u32 = (0..=others.count).map(|other| count(other, VECTOR)).sum();
        equal(format_args!("{mode}: and to nobody else"), total.into(), 1);

        forget(others);
        let _ = smp::on(number, command, to(own, VECTOR.into()));
        insn::sti();
        let came = arrives(0, VECTOR, 1);
        insn::cli();
        check(
            format_args!("{mode}: from processor {number} to the boot processor"),
            came,
        );

        forget(others);
        let next = number % others.count + 1;
        let _ = smp::on(number, command, to(smp::apic_id(next), VECTOR.into()));
        check(
            format_args!("{mode}: from processor {number} to processor {next}"),
            arrives(next, VECTOR, 1),
        );
    }
    // A destination that nobody has.
    forget(others);
    apic::command(0xE7, VECTOR.into());
    settle();
    let total: u32 = (0..=others.count).map(|other| count(other, VECTOR)).sum();
    equal(
        format_args!("{mode}: to an id that nobody has"),
        total.into(),
        0,
    );
}

/// Gives the calling processor a logical id (xAPIC), or returns the one it has (x2APIC).
fn logical_id(bit: u64) -> u64 {
    if cpu::this().x2apic.load(Ordering::SeqCst) {
        return apic::read(reg::LDR).into();
    }
    apic::write(reg::DFR, 0xFFFF_FFFF);
    apic::write(reg::LDR, 1 << (24 + bit));
    1 << bit
}

/// Logical ids of processors 0 to `count`; beyond eight they repeat in xAPIC mode, so only eight take part.
fn logical_ids(others: &Others) -> ([u32; cpu::MAX_CPUS], usize) {
    let mut ids = [0; cpu::MAX_CPUS];
    let taking_part = others.count.min(7);
    ids[0] = logical_id(0) as u32;
    for (number, id) in ids.iter_mut().enumerate().take(taking_part + 1).skip(1) {
        *id = smp::on(number, logical_id, number as u64).unwrap_or(0) as u32;
    }
    (ids, taking_part)
}

fn logical(mode: &str, others: &Others) {
    let (ids, last) = logical_ids(others);
    for (number, id) in ids.iter().enumerate().take(last + 1).skip(1) {
        forget(others);
        apic::command(*id, icr::LOGICAL | u32::from(VECTOR));
        check(
            format_args!("{mode}: logical destination of processor {number}"),
            arrives(number, VECTOR, 1),
        );
        settle();
        let total: u32 = (0..=others.count).map(|other| count(other, VECTOR)).sum();
        equal(format_args!("{mode}: and nobody else's"), total.into(), 1);
    }
    // Several at once: those of one cluster in x2APIC mode.
    let together: [bool; cpu::MAX_CPUS] =
        core::array::from_fn(|n| n <= last && ids[n] >> 16 == ids[0] >> 16);
    let x2apic = cpu::this().x2apic.load(Ordering::SeqCst);
    let member = |number: usize| number <= last && (!x2apic || together[number]);
    let group = (0..=last)
        .filter(|number| member(*number))
        .fold(0, |mask, number| mask | ids[number]);
    forget(others);
    apic::command(group, icr::LOGICAL | u32::from(VECTOR));
    let right = reaches(others, |number| u32::from(member(number)));
    check(
        format_args!("{mode}: a logical destination of several, the sender among them"),
        right,
    );
}

fn broadcasts(mode: &str, others: &Others) {
    let everybody = if cpu::this().x2apic.load(Ordering::SeqCst) {
        u32::MAX
    } else {
        0xFF
    };
    for (name, destination, low, here, there) in [
        ("all but self", 0, icr::OTHERS, 0, 1),
        ("all and self", 0, icr::ALL, 1, 1),
        ("physical broadcast", everybody, 0, 1, 1),
        ("self", 0, icr::SELF, 1, 0),
    ] {
        forget(others);
        apic::command(destination, low | u32::from(VECTOR));
        let right = reaches(others, |number| if number == 0 { here } else { there });
        check(format_args!("{mode}: {name}"), right);
    }
    // From another processor: its own shorthands.
    forget(others);
    let _ = smp::on(1, command, to(0, icr::OTHERS | u32::from(VECTOR)));
    let right = reaches(others, |number| u32::from(number != 1));
    check(
        format_args!("{mode}: all but self, sent by processor 1"),
        right,
    );
}

fn lowest_priority(mode: &str, others: &Others) {
    if cpu::this().x2apic.load(Ordering::SeqCst) {
        // Delivery of IPIs with lowest priority is model-specific there, and Intel's have dropped it.
        return;
    }
    let (ids, last) = logical_ids(others);
    let group = (1..=last).fold(0, |mask, number| mask | ids[number]);
    forget(others);
    let total = || -> u32 { others.all().map(|number| count(number, VECTOR)).sum() };
    for sent in 1..=10 {
        apic::command(group, icr::LOGICAL | icr::LOWEST | u32::from(VECTOR));
        clock::wait_for(PATIENCE, || total() >= sent);
    }
    settle();
    equal(
        format_args!("{mode}: lowest priority reaches one processor each time"),
        total().into(),
        10,
    );
    equal(
        format_args!("{mode}: and one of the group"),
        count(0, VECTOR).into(),
        0,
    );
}

fn nmi(mode: &str, others: &Others) {
    for number in others.all() {
        forget(others);
        apic::command(smp::apic_id(number), icr::NMI);
        check(
            format_args!("{mode}: NMI to processor {number}"),
            arrives(number, NMI, 1),
        );
        let rest: u32 = (0..=others.count)
            .filter(|other| *other != number)
            .map(|other| count(other, NMI))
            .sum();
        equal(format_args!("{mode}: and to nobody else"), rest.into(), 0);
        // One that holds interrupts back, too.
        smp::ask(
            number,
            |_| {
                insn::cli();
                READY.store(true, Ordering::SeqCst);
                let came = clock::wait_for(PATIENCE, || cpu::this().count(NMI) >= 2);
                insn::sti();
                u64::from(came)
            },
            0,
        );
        ready();
        apic::command(smp::apic_id(number), icr::NMI);
        check(
            format_args!("{mode}: NMI with IF clear"),
            smp::answer(number) == Some(1),
        );
        // And one that is halted with interrupts held back.
        smp::ask(
            number,
            |_| {
                insn::halt_forever();
                insn::sti();
                u64::from(cpu::this().count(NMI))
            },
            0,
        );
        // One that comes before HLT wakes nobody, so they go on until there is an answer.
        let woke = (0..20).any(|_| {
            clock::spin(QUIET);
            apic::command(smp::apic_id(number), icr::NMI);
            clock::wait_for(PATIENCE / 100, || smp::is_done(number))
        });
        check(
            format_args!("{mode}: NMI wakes HLT with IF clear"),
            woke && smp::answer(number) >= Some(3),
        );
    }
    forget(others);
    apic::command(0, icr::OTHERS | icr::NMI);
    let all = clock::wait_for(PATIENCE, || {
        others.all().all(|number| count(number, NMI) == 1)
    });
    check(
        format_args!("{mode}: NMI to all but self"),
        all && count(0, NMI) == 0,
    );
}

fn waking(mode: &str, others: &Others) {
    for number in others.all() {
        forget(others);
        smp::ask(
            number,
            |_| {
                insn::cli();
                READY.store(true, Ordering::SeqCst);
                insn::halt_once();
                insn::sti();
                u64::from(cpu::this().count(VECTOR))
            },
            0,
        );
        ready();
        apic::command(smp::apic_id(number), VECTOR.into());
        check(
            format_args!("{mode}: an IPI wakes processor {number} from HLT"),
            smp::answer(number) == Some(1),
        );
        // Held back by the task priority of the target, not of the sender.
        forget(others);
        let _ = smp::on(number, set_priority, 0x60);
        apic::command(smp::apic_id(number), VECTOR.into());
        clock::spin(QUIET);
        equal(
            format_args!("{mode}: the target's TPR holds it back"),
            count(number, VECTOR).into(),
            0,
        );
        let _ = smp::on(number, set_priority, 0);
        check(
            format_args!("{mode}: and lets it in"),
            arrives(number, VECTOR, 1),
        );
    }
}

fn set_priority(value: u64) -> u64 {
    apic::write(reg::TPR, value as u32);
    0
}

/// Every interrupt that is waited for comes, while each processor sends to the others.
fn stress(mode: &str, others: &Others) {
    forget(others);
    for number in others.all() {
        smp::ask(number, send_many, to(apic::id(), 0x60 + number as u32));
    }
    insn::sti();
    let mut lost = 0;
    for _ in 0..ROUNDS {
        for number in others.all() {
            let before = count(number, VECTOR);
            apic::command(smp::apic_id(number), VECTOR.into());
            lost += u32::from(!arrives(number, VECTOR, before + 1));
        }
        if lost != 0 {
            break;
        }
    }
    let theirs = others
        .all()
        .map(|number| smp::answer(number).unwrap_or(u64::MAX))
        .fold(0, u64::saturating_add);
    insn::cli();
    equal(
        format_args!("{mode}: IPIs lost by the boot processor under load"),
        lost.into(),
        0,
    );
    equal(format_args!("{mode}: IPIs lost by the others"), theirs, 0);
}

/// Sends the command given [`ROUNDS`] times to the boot processor, each when the one before has arrived.
fn send_many(value: u64) -> u64 {
    let vector = value as u8;
    let mut lost = 0;
    for _ in 0..ROUNDS {
        let before = count(0, vector);
        command(value);
        if !arrives(0, vector, before + 1) {
            lost += 1;
            break;
        }
    }
    lost
}
