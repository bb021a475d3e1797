//! Ports and MSRs at random, from a fixed seed: nothing that a parent can say to them may harm the hypervisor.
//!
//! Left out, because they would break this program or the machine and prove nothing:
//! - MSRs this program stands on: GS base, EFER, APIC base, the x2APIC range (group `apic` has it), MTRR and PAT with
//!   random data, the TSC and its adjustment, machine-check banks with random data, debug control;
//! - the synthetic registers that place pages in memory, and the crash trigger;
//! - ports that reset, power off or reprogram the platform: see [`is_safe_to_write`].

use crate::options::Options;
use machine::platform::Platform;
use machine::probe::{rdmsr, wrmsr};
use machine::verdict::{check, equal, note};
use machine::{apic, clock, cpu, insn};

const VECTOR: u8 = 0x52;

/// Ranges of MSR numbers from which the generator draws, and how many numbers each has.
const RANGES: [(u32, u32); 8] = [
    (0x0, 0x1000),
    (0x4000_0000, 0x200),
    (0x4000_1000, 0x1000),
    (0x4000_F000, 0x1000),
    (0xC000_0000, 0x400),
    (0xC001_0000, 0x1200),
    (0x8000_0000, 0x100),
    (0xFFFF_FF00, 0xFF),
];

/// xorshift64*, good enough to wander.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_F491_4F6C_DD1D)
    }

    fn below(&mut self, bound: u32) -> u32 {
        ((self.next() >> 32) as u32) % bound
    }

    /// Values that make trouble more often than random ones do.
    fn value(&mut self) -> u64 {
        match self.below(6) {
            0 => 0,
            1 => u64::MAX,
            2 => 1 << self.below(64),
            3 => !(1 << self.below(64)),
            4 => self.next() & 0xFFFF_FFFF,
            _ => self.next(),
        }
    }

    fn msr(&mut self) -> u32 {
        let (first, count) = RANGES[self.below(RANGES.len() as u32) as usize];
        first.wrapping_add(self.below(count))
    }
}

/// Runs the group.
pub fn run(options: &Options, platform: &Platform) {
    note(format_args!(
        "seed {} rounds {}",
        options.seed, options.rounds
    ));
    apic::notice_mode();
    let mut random = Random(options.seed);
    let mut log = Tally::default();
    for _ in 0..options.rounds {
        log.add(read_msr(&mut random));
    }
    note(format_args!(
        "RDMSR: {} answered, {} faulted",
        log.answered, log.faulted
    ));
    check(
        "fuzz: reading random MSRs ends",
        log.answered + log.faulted == options.rounds,
    );

    let mut log = Tally::default();
    for _ in 0..options.rounds {
        log.add(write_msr(&mut random));
    }
    note(format_args!(
        "WRMSR: {} taken, {} faulted, {} left out",
        log.answered, log.faulted, log.left_out
    ));
    check(
        "fuzz: writing random MSRs ends",
        log.answered + log.faulted + log.left_out == options.rounds,
    );
    settle();

    let mut log = Tally::default();
    // With an interrupt pending, a C-state port that the generator hits sends nobody to sleep for good.
    apic::quiet();
    apic::command(0, apic::icr::SELF | u32::from(VECTOR));
    for _ in 0..options.rounds {
        log.add(read_port(&mut random));
    }
    settle();
    check(
        "fuzz: reading random ports ends",
        log.answered + log.left_out == options.rounds,
    );
    let mut log = Tally::default();
    for _ in 0..options.rounds / 4 {
        log.add(write_port(&mut random, platform));
    }
    note(format_args!(
        "OUT: {} done, {} left out",
        log.answered, log.left_out
    ));
    check(
        "fuzz: writing harmless ports ends",
        log.answered + log.left_out == options.rounds / 4,
    );
    cpuid_sweep(&mut random, options.rounds);
    still_alive();
}

#[derive(Default)]
struct Tally {
    answered: u32,
    faulted: u32,
    left_out: u32,
}

enum Did {
    Answered,
    Faulted,
    LeftOut,
}

impl Tally {
    fn add(&mut self, did: Did) {
        match did {
            Did::Answered => self.answered += 1,
            Did::Faulted => self.faulted += 1,
            Did::LeftOut => self.left_out += 1,
        }
    }
}

fn read_msr(random: &mut Random) -> Did {
    match rdmsr(random.msr()) {
        Ok(_) => Did::Answered,
        Err(_) => Did::Faulted,
    }
}

fn write_msr(random: &mut Random) -> Did {
    let (msr, value) = (random.msr(), random.value());
    if !is_fair(msr) {
        return Did::LeftOut;
    }
    let old = rdmsr(msr);
    let did = if wrmsr(msr, value).is_ok() {
        Did::Answered
    } else {
        Did::Faulted
    };
    // What was there before goes back, so that one write cannot spoil a later test.
    if let Ok(old) = old {
        let _ = wrmsr(msr, old);
    }
    did
}

/// Whether random data in `msr` tests the hypervisor and not this program. See the head of the file.
fn is_fair(msr: u32) -> bool {
    !matches!(
        msr,
        // TSC, APIC base, speculation controls that a processor may refuse to give back, TSC adjust.
        0x10 | 0x1B | 0x3B
            // MTRRs, PAT, machine-check banks, debug control.
            | 0x200..=0x2FF
            | 0x400..=0x47F
            | 0x1D9
            // TSC deadline, x2APIC, XSS.
            | 0x6E0
            | 0x800..=0x8FF
            | 0xDA0
            // CET: shadow stack pointers.
            | 0x6A0..=0x6A8
            // Pages that the hypervisor would put over this program.
            | 0x4000_0001
            | 0x4000_0021
            | 0x4000_0073
            | 0x4000_0082
            | 0x4000_0083
            | 0x4000_0003
            | 0x4000_0105
            // EFER, FS, GS.
            | 0xC000_0080
            | 0xC000_0100
            | 0xC000_0101
            // AMD's memory maps and SMM base.
            | 0xC001_0010..=0xC001_001F
            | 0xC001_0110..=0xC001_0113
    )
}

/// Takes back what the fuzzing of synthetic registers may have left running.
fn settle() {
    if clock::has_reference() {
        for timer in 0..4 {
            let _ = wrmsr(0x4000_00B1 + 2 * timer, 0);
            let _ = wrmsr(0x4000_00B0 + 2 * timer, 0);
        }
        for sint in 0..16 {
            let _ = wrmsr(0x4000_0090 + sint, 1 << 16);
        }
        let _ = wrmsr(0x4000_0080, 0);
        let _ = wrmsr(0x4000_0000, 0);
    }
    insn::sti();
    clock::spin(100);
    insn::cli();
}

fn read_port(random: &mut Random) -> Did {
    let port = random.below(0x1_0000) as u16;
    // Reading the console's receive buffer, the debug exit device or the ATA status is harmless; a C-state port
    // would put the processor to sleep with interrupts off, and is the hypervisor's business, so it stays in.
    if matches!(port, 0x3F8..=0x3FF | 0x60 | 0x64) {
        return Did::LeftOut;
    }
    match random.below(3) {
        0 => {
            insn::in8(port);
        }
        1 => {
            insn::in16(port & !1);
        }
        _ => {
            insn::in32(port & !3);
        }
    }
    Did::Answered
}

/// Ports without effect on the platform: POST code, the delay port, the parallel port's data, ports nobody has, and
/// the PCI configuration address, which is written back.
fn is_safe_to_write(port: u16) -> bool {
    matches!(port, 0x80 | 0xED | 0x378 | 0x278 | 0xE000..=0xE0FF)
}

fn write_port(random: &mut Random, platform: &Platform) -> Did {
    const CANDIDATES: [u16; 6] = [0x80, 0xED, 0x378, 0x278, 0xE000, 0xE0F0];
    // Four bytes reach no further than the port before them is safe.
    let port = CANDIDATES[random.below(CANDIDATES.len() as u32) as usize];
    let value = random.value();
    if !is_safe_to_write(port) || port.abs_diff(platform.pm1_control_port) < 8 {
        return Did::LeftOut;
    }
    match random.below(3) {
        0 => insn::out8(port, value as u8),
        // Two bytes, where the second port is as harmless as the first.
        1 if port >= 0xE000 => insn::out16(port, value as u16),
        _ => pci_address(value as u32),
    }
    Did::Answered
}

/// Any configuration address, one read behind it, and the old address again.
fn pci_address(value: u32) {
    let old = insn::in32(0xCF8);
    insn::out32(0xCF8, value);
    insn::in32(0xCFC);
    insn::in8(0xCFC + (value & 3) as u16);
    insn::out32(0xCF8, old);
}

fn cpuid_sweep(random: &mut Random, rounds: u32) {
    for _ in 0..rounds {
        let leaf = random.next() as u32;
        insn::cpuid(leaf, random.below(64));
    }
    check("fuzz: random CPUID leaves end", true);
}

fn still_alive() {
    apic::notice_mode();
    apic::quiet();
    let cpu = cpu::this();
    cpu.forget();
    apic::command(0, apic::icr::SELF | u32::from(VECTOR));
    insn::sti();
    clock::spin(100);
    insn::cli();
    equal("fuzz: interrupts still come", cpu.count(VECTOR).into(), 1);
    if clock::has_reference() {
        let start = clock::reference();
        clock::spin(2_000);
        check("fuzz: time still passes", clock::reference() > start);
        equal(
            "fuzz: CPUID still answers",
            insn::cpuid(0x4000_0001, 0).eax.into(),
            0x3123_7648,
        );
        check(
            "fuzz: the hypercall page still comes",
            crate::group::hypercall::page::enable().is_some(),
        );
        crate::group::hypercall::page::disable();
    }
}
