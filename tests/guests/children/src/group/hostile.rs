//! Children that do what they can to harm others: the parent keeps answering, another child's results stay right.

use core::sync::atomic::Ordering;

use alloc::vec::Vec;

use machine::platform::Platform;
use machine::verdict::{check, equal, note, within};
use machine::{clock, insn};
use tlfs::register::RegisterName as N;
use tlfs::{CallCode, Control, MessageType};

use super::{destroy, need, stopped};
use crate::arena::{self, FRAME};
use crate::child::code::{self, PORT, STOP};
use crate::child::guest::{Guest, Mode};
use crate::child::layout;
use crate::child::runtime::{self, Random, Shared};
use crate::client::intercept::Intercept;
use crate::client::partition::RWX;
use crate::client::synic;
use crate::client::vp::{PATIENCE, get_registers, set_registers};
use crate::options::Options;

const CANARY: u64 = 0xCA4A_4C1E_55AA_1234;
/// Frames of the parent that nobody else may change.
const CANARIES: usize = 64;
/// The longest that one hostile program runs, in microseconds of the parent's time.
const LONG: u64 = 60_000_000;
/// Instructions that fault in the child are three bytes long: `mov rax, [rbx]`, VMCALL, VMMCALL.
const ACCESS_LENGTH: u64 = 3;

/// A child that computes, beside a hostile one.
struct Bystander {
    guest: Guest,
    canaries: Vec<u64>,
}

/// Adds up a long row of numbers again and again; each sum must be the same.
extern "sysv64" fn compute(shared: &'static Shared) -> ! {
    loop {
        let mut random = Random(99);
        let mut sum = 0_u64;
        for n in 0..512_u64 {
            let value = random.next();
            runtime::write(layout::DATA + n * 8, value);
            sum = sum.wrapping_add(runtime::read(layout::DATA + n * 8).rotate_left(n as u32 & 63));
        }
        if shared.result(1) == 0 {
            shared.set(1, sum);
        }
        if shared.result(1) != sum {
            shared.set(2, shared.result(2) + 1);
        }
        shared.set(0, shared.result(0) + 1);
    }
}

impl Bystander {
    fn new() -> Option<Self> {
        let mut guest = need("hostile: a bystander", Guest::new(1))?;
        need("hostile: it computes", guest.start_entry(0, compute, &[]))?;
        need("hostile: it runs", guest.resume(0))?;
        let canaries = arena::frames(CANARIES);
        for frame in &canaries {
            arena::fill(*frame, arena::FRAME, CANARY);
        }
        Some(Self { guest, canaries })
    }

    fn rounds(&self) -> u64 {
        self.guest.shared(0).result(0)
    }

    /// What must hold after each hostile program.
    fn check(&self, name: &str, before: u64) {
        let shared = self.guest.shared(0);
        let went_on = synic::sleep_until(PATIENCE, || self.rounds() > before);
        check(format_args!("{name}: the bystander goes on"), went_on);
        equal(
            format_args!("{name}: its results are right"),
            shared.result(2),
            0,
        );
        let changed = self
            .canaries
            .iter()
            .filter(|frame| !arena::is_filled(**frame, CANARY))
            .count();
        equal(
            format_args!("{name}: frames of the parent that changed"),
            changed as u64,
            0,
        );
    }

    fn end(self) {
        let _ = self.guest.suspend(0);
        destroy("bystander", self.guest);
        self.canaries.iter().for_each(|frame| arena::free(*frame));
    }
}

/// Runs the group.
pub fn run(options: &Options, platform: &Platform) {
    let Some(bystander) = Bystander::new() else {
        return;
    };
    // Bochs takes its time; a sample is enough there.
    let few = if is_fast() { 1 } else { 16 };
    let step = options.step * few;
    let seed = options.seed;
    let calls = options.calls / few;
    let parts: [&dyn Fn(); 15] = [
        &|| addresses(&bystander, platform, few),
        &|| {
            answered(
                &bystander,
                "ports",
                every_port,
                &[step],
                2 * 65536 / step + 10,
            )
        },
        &|| answered(&bystander, "msrs", every_msr, &[seed, step], 100),
        &|| answered(&bystander, "calls", random_calls, &[seed, calls], calls * 3),
        &|| {
            pairs(
                &bystander,
                "changing input",
                changing_calls,
                flip_input,
                &[seed, 10_000 / few],
            )
        },
        &|| pairs(&bystander, "SIPI storm", storm, storm, &[seed, 5_000 / few]),
        &|| {
            pairs(
                &bystander,
                "overlays",
                move_overlays,
                move_overlays,
                &[seed, 3_000 / few],
            )
        },
        &|| sparse_sets(&bystander),
        &|| null_pages(&bystander),
        &|| triple_faults(&bystander),
        &|| load(&bystander, "endless rep", Load::Rep),
        &|| load(&bystander, "endless flushes", Load::Flush),
        &|| load(&bystander, "endless interrupts", Load::Interrupts),
        &|| time_page_race(&bystander, 3000 / few),
        &|| load(&bystander, "HLT without interrupts", Load::Halt),
    ];
    for (n, part) in (1..).zip(parts) {
        if options.part == 0 || options.part == n {
            part();
        }
    }
    bystander.end();
}

/// QEMU without `-icount`: its TSC is host time.
fn is_fast() -> bool {
    clock::tsc_hz() > 500_000_000
}

/// Answers what a child stops for, in a way that lets it go on: what it wrote is dropped, what it reads is all ones.
/// True when it came to its end.
fn answer(guest: &Guest, most: u64, seen: &mut u64) -> bool {
    let start = clock::reference();
    let mut stop = guest.run_for(0, 10 * PATIENCE);
    while let Some(at) = stop {
        if at.is_out(STOP) {
            return true;
        }
        *seen += 1;
        // What does much may take longer; each intercept costs an emulator on a busy host some milliseconds.
        if *seen > most || clock::reference() - start > LONG * 10 * (1 + most / 10_000) {
            note(format_args!("given up after {seen} intercepts: {at}"));
            return false;
        }
        stop = pass(guest, 0, &at);
    }
    note(format_args!("no intercept in time, {seen} before"));
    false
}

fn pass(guest: &Guest, vp: u32, at: &Intercept) -> Option<Intercept> {
    let length = match at.kind {
        MessageType::IO_PORT_INTERCEPT | MessageType::MSR_INTERCEPT => at.length(),
        MessageType::UNMAPPED_GPA | MessageType::GPA_INTERCEPT => ACCESS_LENGTH,
        _ => {
            note(format_args!("nobody answers {at}"));
            return None;
        }
    };
    let rip = at.header().rip + length;
    let list = [(N::RIP, rip.into()), (N::RAX, u128::from(u64::MAX))];
    set_registers(guest.id, vp, &list).status.ok()?;
    guest.run_for(vp, 10 * PATIENCE)
}

/// Runs `entry` on a child of its own and answers its intercepts.
fn answered(bystander: &Bystander, name: &str, entry: runtime::Entry, args: &[u64], most: u64) {
    let Some(mut guest) = need(format_args!("{name}: a child"), Guest::new(1)) else {
        return;
    };
    let (before, mut seen) = (bystander.rounds(), 0);
    need(
        format_args!("{name}: start"),
        guest.start_entry(0, entry, args),
    );
    let ended = answer(&guest, most, &mut seen);
    check(format_args!("{name}: the child comes to its end"), ended);
    note(format_args!(
        "{name}: {seen} intercepts, result {:x?}",
        [0, 1, 2].map(|n| guest.shared(0).result(n))
    ));
    bystander.check(name, before);
    destroy(name, guest);
}

/// Reads and writes at addresses that are not the child's. Argument 0: how many; 1: seed; 2: memory of the parent
/// to look at, in bytes.
extern "sysv64" fn every_address(shared: &'static Shared) -> ! {
    let mut random = Random(shared.arg(1));
    let (count, top) = (shared.arg(0), shared.arg(2));
    let mut read = 0;
    for n in 0..count {
        // Half of them in the parent's memory, the rest anywhere below 4 GiB.
        let at = if n % 2 == 0 {
            random.below(top)
        } else {
            random.below(4 << 30)
        } & !7;
        // Its own room, its own programs, and its APIC.
        let own = at < 0x20_0000
            || at >= shared.arg(3) && at < shared.arg(4)
            || at & !0xFFF == 0xFEE0_0000;
        if own {
            continue;
        }
        if runtime::try_read(at) != Some(u64::MAX) {
            read += 1;
        }
        runtime::try_write(at, 0xBAD);
    }
    shared.set(0, read);
    runtime::stop(0)
}

fn addresses(bystander: &Bystander, platform: &Platform, step: u64) {
    let sections = crate::child::image::sections();
    let first = sections.iter().map(|(start, _)| *start).min().unwrap_or(0);
    let last = sections
        .iter()
        .map(|(start, pages)| start + pages * 4096)
        .max()
        .unwrap_or(0);
    let count = 4096 / step;
    let args = [count, 77, platform.top_of_memory.min(4 << 30), first, last];
    answered(bystander, "addresses", every_address, &args, 2 * count + 10);
}

extern "sysv64" fn every_port(shared: &'static Shared) -> ! {
    for port in (0..0x1_0000_u64).step_by(shared.arg(0) as usize) {
        // The end of the program has a port of its own.
        if port as u16 != STOP {
            runtime::try_ports(port as u16);
        }
    }
    runtime::stop(0)
}

extern "sysv64" fn every_msr(shared: &'static Shared) -> ! {
    let mut random = Random(shared.arg(0));
    let (mut reads, mut writes) = (0, 0);
    for range in [
        0_u32..0x2000,
        0x4000_0000..0x4000_0200,
        0xC000_0000..0xC000_2000,
        0xC001_0000..0xC001_2000,
    ] {
        for msr in range.step_by(shared.arg(1) as usize) {
            // What would end this program by itself: idling, the APIC's place, GS, EFER, and pages on top of it.
            if matches!(
                msr,
                0x1B | 0x4000_00F0 | 0x4000_0003 | 0xC000_0080 | 0xC000_0101
            ) {
                continue;
            }
            let held = runtime::try_rdmsr(msr);
            reads += u64::from(held.is_some());
            let value = match msr {
                0x4000_0001 | 0x4000_0021 | 0x4000_0073 | 0x4000_0080..=0x4000_0085 => {
                    layout::PAGES | random.below(16) << 12 | random.below(2)
                }
                _ => random.next() >> random.below(64),
            };
            writes += u64::from(runtime::try_wrmsr(msr, value));
            if let Some(held) = held {
                runtime::try_wrmsr(msr, held);
            }
        }
    }
    shared.set(0, reads);
    shared.set(1, writes);
    runtime::stop(0)
}

/// Argument 1 calls with random codes, control words, addresses and blocks.
extern "sysv64" fn random_calls(shared: &'static Shared) -> ! {
    runtime::enable_calls();
    let mut random = Random(shared.arg(0));
    let (mut good, mut faults) = (0, 0);
    for _ in 0..shared.arg(1) {
        for n in 0..24 {
            let word = match random.below(5) {
                0 => 0,
                1 => u64::MAX,
                2 => random.below(64),
                3 => layout::PAGES + random.below(16) * 4096,
                _ => random.next(),
            };
            runtime::write(layout::CALL_INPUT + n * 8, word);
        }
        let code = match random.below(4) {
            0 => random.below(0x140),
            1 => {
                [2, 3, 8, 0xB, 0x13, 0x14, 0x15, 0x5C, 0x5D, 0x99, 0x9A][random.below(11) as usize]
            }
            2 => 0x8000 | random.below(8),
            _ => random.below(0x1_0000),
        };
        let mut control = code;
        if random.below(3) == 0 {
            control |= random.below(2) << 16 | random.below(20) << 17;
        }
        if random.below(2) == 0 {
            control |= random.below(600) << 32 | random.below(4) << 48;
        }
        if random.below(16) == 0 {
            control |= random.next() & 0xFFFF_FFFF_FFFF_0000;
        }
        let place = |random: &mut Random, usual: u64| match random.below(12) {
            0 => random.next(),
            1 => usual + random.below(4096),
            2 => 0x30_0000 + random.below(16) * 8,
            3 => !0xFFF_u64,
            _ => usual,
        };
        let input = place(&mut random, layout::CALL_INPUT);
        let output = place(&mut random, layout::CALL_OUTPUT);
        let result = runtime::call(control, input, output);
        good += u64::from(result & 0xFFFF == 0);
        faults += u64::from(result == runtime::FAULTED);
    }
    shared.set(0, good);
    shared.set(1, faults);
    runtime::stop(0)
}

/// Two VPs work together until VP 0 is through.
fn pairs(
    bystander: &Bystander,
    name: &str,
    first: runtime::Entry,
    second: runtime::Entry,
    args: &[u64],
) {
    let Some(mut guest) = need(format_args!("{name}: a child of two VPs"), Guest::new(2)) else {
        return;
    };
    let before = bystander.rounds();
    guest.load_at(0x1_2000, code::out_16);
    // An interrupt in real mode leads to the same place; without it the program would be what lies at address 0.
    for at in (0..0x400).step_by(8) {
        guest.write(at, 0x1200_0000_1200_0000);
    }
    for (vp, entry) in [(1, second), (0, first)] {
        need(
            format_args!("{name}: VP {vp}"),
            guest.start_entry(vp, entry, args),
        );
        need(
            format_args!("{name}: awake"),
            guest.set_one(vp, N::INTERNAL_ACTIVITY_STATE, 0),
        );
        need(format_args!("{name}: go"), guest.resume(vp));
    }
    let mut ended = false;
    let mut seen = 0;
    let start = clock::reference();
    while let Some(at) = guest.any_stop(if is_fast() { 15 } else { 2 } * PATIENCE) {
        let vp = at.header().vp.get();
        if vp == 0 && at.is_out(STOP) {
            ended = true;
            break;
        }
        seen += 1;
        let is_lost = vp == 0 && at.kind == MessageType::UNRECOVERABLE_EXCEPTION;
        if is_lost || seen > 200_000 || clock::reference() - start > LONG * 10 {
            note(format_args!("{name}: given up: {at}"));
            break;
        }
        // VP 1 stays where it stopped; VP 0 is passed over what it did.
        if vp == 0 {
            let rip = at.header().rip
                + if at.port().is_some() {
                    at.length()
                } else {
                    ACCESS_LENGTH
                };
            let list = [(N::RIP, rip.into()), (N::RAX, u128::from(u64::MAX))];
            let _ = set_registers(guest.id, 0, &list);
            let _ = guest.resume(0);
        }
    }
    if !ended {
        for vp in 0..2 {
            let _ = guest.suspend(vp);
            let names = [
                N::RIP,
                N::RFLAGS,
                N::CR0,
                N::INTERCEPT_SUSPEND,
                N::INTERNAL_ACTIVITY_STATE,
            ];
            let state = get_registers(guest.id, vp, &names);
            let rounds = guest.shared(vp).result(1);
            note(format_args!(
                "{name}: VP {vp} is at {state:x?}, {rounds} rounds"
            ));
        }
    }
    check(format_args!("{name}: VP 0 comes to its end"), ended);
    note(format_args!(
        "{name}: {seen} intercepts, result {:x?}",
        [0, 1].map(|n| guest.shared(0).result(n))
    ));
    bystander.check(name, before);
    for vp in 0..2 {
        let _ = guest.suspend(vp);
    }
    destroy(name, guest);
}

/// Calls whose input another VP changes all the time.
extern "sysv64" fn changing_calls(shared: &'static Shared) -> ! {
    runtime::enable_calls();
    let mut good = 0;
    let codes = [
        u64::from(CallCode::POST_MESSAGE.0),
        u64::from(CallCode::SEND_SYNTHETIC_CLUSTER_IPI.0),
        u64::from(CallCode::SEND_SYNTHETIC_CLUSTER_IPI_EX.0) | 4 << 17,
        u64::from(CallCode::FLUSH_VIRTUAL_ADDRESS_SPACE_EX.0) | 4 << 17,
        u64::from(CallCode::FLUSH_VIRTUAL_ADDRESS_LIST.0) | 16 << 32,
        u64::from(CallCode::START_VIRTUAL_PROCESSOR.0),
    ];
    for n in 0..shared.arg(1) {
        let control = codes[n as usize % codes.len()];
        good += u64::from(runtime::call(control, layout::CALL_INPUT, 0) & 0xFFFF == 0);
    }
    shared.set(0, good);
    runtime::stop(0)
}

extern "sysv64" fn flip_input(shared: &'static Shared) -> ! {
    let mut random = Random(shared.arg(0));
    loop {
        let at = layout::CALL_INPUT + random.below(40) * 8;
        let value = match random.below(4) {
            0 => 0,
            1 => random.below(64),
            2 => 1 << random.below(64),
            _ => random.next(),
        };
        runtime::write(at, value);
    }
}

/// INIT and SIPI to each other and to everybody, and IPIs of all kinds.
extern "sysv64" fn storm(shared: &'static Shared) -> ! {
    let me = shared.index.load(Ordering::SeqCst);
    runtime::wrmsr(0x1B, runtime::rdmsr(0x1B) | 1 << 10);
    runtime::wrmsr(0x80F, 0x1FF);
    let mut random = Random(shared.arg(0) + me);
    let mut sent = 0;
    while me != 0 || sent < shared.arg(1) {
        let kind = random.below(8) << 8;
        // Not to itself, nor to VP 0 by INIT: it is to come to its end.
        let low = match kind {
            0x500 => 0xC500,
            0x600 => 0x612,
            0x400 => 0x400,
            _ => kind | 0x40 | random.below(64),
        };
        runtime::try_wrmsr(0x830, 1 << 32 | low);
        runtime::try_wrmsr(0x830, (2 + random.below(100)) << 32 | low);
        sent += 1;
        shared.set(1, sent);
    }
    shared.set(0, sent);
    runtime::stop(0)
}

/// Both VPs put overlay pages on top of each other, on memory, on nothing, and take them away.
extern "sysv64" fn move_overlays(shared: &'static Shared) -> ! {
    let me = shared.index.load(Ordering::SeqCst);
    runtime::wrmsr(0x4000_0000, 0x8100_0007_0304_0000);
    let mut random = Random(shared.arg(0) + me * 17);
    let mut taken = 0;
    let mut done = 0;
    while me != 0 || done < shared.arg(1) {
        done += 1;
        let msr = [
            0x4000_0001,
            0x4000_0021,
            0x4000_0073,
            0x4000_0082,
            0x4000_0083,
        ][random.below(5) as usize];
        let page = match random.below(4) {
            0 => 0x30_0000 + random.below(4) * 4096,
            1 => random.below(1 << 36) << 12,
            _ => layout::PAGES + random.below(8) * 4096,
        };
        taken += u64::from(runtime::try_wrmsr(msr, page | random.below(2)));
        if random.below(8) == 0 {
            runtime::try_wrmsr(0x4000_0000, random.below(2) * 0x8100_0007_0304_0000);
        }
        runtime::read(layout::PAGES + random.below(8) * 4096);
    }
    shared.set(0, taken);
    // Nothing may cover what the end needs.
    for msr in [
        0x4000_0001,
        0x4000_0021,
        0x4000_0073,
        0x4000_0082,
        0x4000_0083,
    ] {
        runtime::try_wrmsr(msr, 0);
    }
    runtime::stop(0)
}

/// Sets of VPs with every malformation: Xen's advisory 475 (VPs that do not exist, banks that are not there).
extern "sysv64" fn malformed_sets(shared: &'static Shared) -> ! {
    runtime::enable_calls();
    let head = |first: &[u64]| {
        for n in 0..80_u64 {
            let value = first.get(n as usize).copied().unwrap_or(u64::MAX);
            runtime::write(layout::CALL_INPUT + n * 8, value);
        }
    };
    let ipi = u64::from(CallCode::SEND_SYNTHETIC_CLUSTER_IPI_EX.0);
    let flush = u64::from(CallCode::FLUSH_VIRTUAL_ADDRESS_SPACE_EX.0);
    let list = u64::from(CallCode::FLUSH_VIRTUAL_ADDRESS_LIST_EX.0) | 1 << 32;
    let call = |control: u64| runtime::call_page(control, layout::CALL_INPUT, 0) & 0xFFFF;
    // All 64 banks with all VPs: those that there are not are passed over.
    head(&[0xF1, 0, u64::MAX]);
    shared.set(0, call(ipi | 64 << 17));
    // The last bank alone.
    head(&[0xF1, 0, 1 << 63]);
    shared.set(1, call(ipi | 1 << 17));
    // Banks named and not there; there and not named.
    head(&[0xF1, 0, u64::MAX]);
    shared.set(2, call(ipi | 1 << 17));
    shared.set(3, call(ipi));
    head(&[0xF1, 0, 1]);
    shared.set(4, call(ipi | 9 << 17));
    // No bank, no VP.
    head(&[0xF1, 0, 0]);
    shared.set(5, call(ipi));
    // A format that there is not.
    head(&[0xF1, 2, 1]);
    shared.set(6, call(ipi | 1 << 17));
    head(&[0xF1, u64::MAX, 1]);
    shared.set(7, call(ipi | 1 << 17));
    // The same for flushes.
    head(&[0, 0, 0, u64::MAX]);
    shared.set(8, call(flush | 64 << 17));
    shared.set(9, call(flush | 3 << 17));
    head(&[0, 0, 0, 1 << 63]);
    shared.set(10, call(list | 1 << 17));
    shared.set(11, call(list | 2 << 17));
    // The plain form with all 64 VPs.
    head(&[0xF1, u64::MAX]);
    shared.set(12, call(u64::from(CallCode::SEND_SYNTHETIC_CLUSTER_IPI.0)));
    runtime::stop(0)
}

fn sparse_sets(bystander: &Bystander) {
    let name = "XSA-475: sets of VPs";
    let Some(mut guest) = need(format_args!("{name}: a child"), Guest::new(1)) else {
        return;
    };
    let before = bystander.rounds();
    need("XSA-475: start", guest.start_entry(0, malformed_sets, &[]));
    if stopped(
        format_args!("{name}: the child comes to its end"),
        guest.run(0),
    )
    .is_some()
    {
        let shared = guest.shared(0);
        for (n, what, wanted) in [
            (0, "64 banks of VPs that there are not", 0),
            (1, "the last bank alone", 0),
            (2, "64 banks named, one there", 3),
            (3, "64 banks named, none there", 3),
            (4, "one bank named, nine there", 3),
            (5, "nobody", 0),
            (6, "format 2", 5),
            (7, "format of all ones", 5),
            (8, "a flush on 64 banks", 0),
            (9, "a flush on too few banks", 3),
            (10, "a list with the last bank", 0),
            (11, "a list with a bank too many", 3),
            (12, "64 VPs in the plain form", 0),
        ] {
            equal(format_args!("{name}: {what}"), shared.result(n), wanted);
        }
    }
    bystander.check(name, before);
    destroy(name, guest);
}

/// Pages that are not there when the hypervisor wants to write to them: Xen's advisory 472.
extern "sysv64" fn pages_of_nothing(shared: &'static Shared) -> ! {
    runtime::enable_calls();
    runtime::wrmsr(0x1B, runtime::rdmsr(0x1B) | 1 << 10);
    runtime::wrmsr(0x80F, 0x1FF);
    let ticks = shared.arg(0);
    // A timer's message with the message page disabled, and with one that lies where nothing is mapped.
    runtime::wrmsr(0x4000_0080, 1);
    runtime::wrmsr(0x4000_0092, 0x77);
    for page in [0, 0x30_0000 | 1, 1 << 44 | 1, 1] {
        shared.set(1, runtime::try_wrmsr(0x4000_0083, page).into());
        runtime::wrmsr(0x4000_00B0, 0b1001 | 2 << 16);
        runtime::wrmsr(0x4000_00B1, runtime::rdmsr(0x4000_0020) + 1000);
        runtime::spin_until(ticks, || false);
    }
    runtime::try_wrmsr(0x4000_0083, 0);
    // The reference TSC page on nothing, while the parent changes the time.
    for page in [0x30_0000 | 1, 1 << 44 | 1, 1] {
        runtime::try_wrmsr(0x4000_0021, page);
        runtime::pause(1);
        runtime::spin_until(ticks, || false);
    }
    // And left there at the end.
    runtime::try_wrmsr(0x4000_0021, 0x30_0000 | 1);
    shared.set(0, 1);
    runtime::stop(0)
}

fn null_pages(bystander: &Bystander) {
    let name = "XSA-472: pages of nothing";
    let Some(mut guest) = need(format_args!("{name}: a child"), Guest::new(1)) else {
        return;
    };
    let before = bystander.rounds();
    let freeze = tlfs::PropertyCode::TIME_FREEZE;
    need(
        "XSA-472: start",
        guest.start_entry(0, pages_of_nothing, &[clock::ticks(2_000)]),
    );
    let mut stop = guest.run(0);
    let mut changes = 0;
    while let Some(at) = stop.filter(|at| at.is_out(PORT)) {
        // The time changes under the page: it is written anew, or would be.
        let _ = guest.set_property(freeze, 1);
        let _ = guest.set_property(freeze, 0);
        // And the place of the page is mapped and taken away.
        let frame = arena::frame();
        let _ = guest.map(0x30_0000, &[frame], RWX);
        let _ = guest.unmap(0x30_0000, 1);
        arena::free(frame);
        changes += 1;
        stop = super::run::skip(&guest, 0, &at, &[]);
    }
    stopped(format_args!("{name}: the child comes to its end"), stop);
    equal(
        format_args!("{name}: the time changed three times"),
        changes,
        3,
    );
    equal(
        format_args!("{name}: nothing was lost"),
        guest.shared(0).result(0),
        1,
    );
    bystander.check(name, before);
    destroy(name, guest);
}

/// Two VPs move the reference TSC page at once: it must not be freed while it shows (Xen's advisory 472, CVE-2025-58143).
extern "sysv64" fn race_of_time_page(shared: &'static Shared) -> ! {
    let me = shared.index.load(Ordering::SeqCst);
    runtime::wrmsr(0x4000_0000, 0x8100_0007_0304_0000);
    let mut done = 0;
    let mut wrong = 0;
    while me != 0 || done < shared.arg(0) {
        done += 1;
        let page = layout::PAGES + (done + me) % 3 * 4096;
        runtime::wrmsr(0x4000_0021, page | 1);
        // Whatever shows at the three places: the page of the time, or what the parent wrote there.
        for n in 0..3 {
            let word = runtime::read(layout::PAGES + n * 4096 + 8);
            let is_time = word >> 48 != 0;
            wrong += u64::from(word != RACE_PATTERN && !is_time);
        }
        if done % 5 == 0 {
            runtime::wrmsr(0x4000_0021, 0);
        }
    }
    shared.set(0, wrong);
    runtime::wrmsr(0x4000_0021, 0);
    runtime::stop(0)
}

/// What the parent writes into the pages that the time page goes over.
const RACE_PATTERN: u64 = 0x0000_5AFE_5AFE_5AFE;

fn time_page_race(bystander: &Bystander, rounds: u64) {
    let name = "XSA-472: the time page of two VPs";
    let Some(mut guest) = need(format_args!("{name}: a child"), Guest::new(2)) else {
        return;
    };
    let before = bystander.rounds();
    for n in 0..3 {
        guest.write(layout::PAGES + n * FRAME + 8, RACE_PATTERN);
    }
    for vp in [1, 0] {
        need(
            format_args!("{name}: VP {vp}"),
            guest.start_entry(vp, race_of_time_page, &[rounds]),
        );
        need(
            format_args!("{name}: awake"),
            guest.set_one(vp, N::INTERNAL_ACTIVITY_STATE, 0),
        );
        need(format_args!("{name}: go"), guest.resume(vp));
    }
    // Meanwhile the parent takes the page below away and gives it back, and the time stands and goes on.
    let page = [guest.room + layout::PAGES + FRAME];
    let mut stop = None;
    for _ in 0..400 {
        stop = guest.stop_within(0, 5_000);
        if stop.is_some() {
            break;
        }
        let freeze = tlfs::PropertyCode::TIME_FREEZE;
        let _ = guest.set_property(freeze, 1);
        let _ = guest.unmap(layout::PAGES + FRAME, 1);
        let _ = guest.map(layout::PAGES + FRAME, &page, RWX);
        let _ = guest.set_property(freeze, 0);
    }
    let stop = stop.or_else(|| guest.stop_within(0, PATIENCE));
    stopped(format_args!("{name}: VP 0 comes to its end"), stop);
    equal(
        format_args!("{name}: it saw nothing else"),
        guest.shared(0).result(0),
        0,
    );
    let _ = guest.suspend(1);
    bystander.check(name, before);
    destroy(name, guest);
}

fn triple_faults(bystander: &Bystander) {
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
enum Load {
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
fn load(bystander: &Bystander, name: &str, kind: Load) {
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
