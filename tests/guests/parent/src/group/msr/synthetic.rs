//! The synthetic MSRs (TLFS, appendix "Hypervisor Synthetic MSRs"): reset values, what reads back, what faults.

use crate::group::hypercall::page::Page;
use machine::probe::{is_gp, rdmsr, wrmsr};
use machine::verdict::{check, equal, note, skip, within};
use machine::{clock, insn};

const VP_INDEX: u32 = 0x4000_0002;
const TIME_REF_COUNT: u32 = 0x4000_0020;
const REFERENCE_TSC: u32 = 0x4000_0021;
const TSC_FREQUENCY: u32 = 0x4000_0022;
const APIC_FREQUENCY: u32 = 0x4000_0023;
const VP_ASSIST_PAGE: u32 = 0x4000_0073;
const SCONTROL: u32 = 0x4000_0080;
const SVERSION: u32 = 0x4000_0081;
const SIEFP: u32 = 0x4000_0082;
const SIMP: u32 = 0x4000_0083;
const EOM: u32 = 0x4000_0084;
const SINT0: u32 = 0x4000_0090;
const STIMER0_CONFIG: u32 = 0x4000_00B0;
const CRASH_P0: u32 = 0x4000_0100;
const CRASH_CTL: u32 = 0x4000_0105;
const TSC_INVARIANT_CONTROL: u32 = 0x4000_0118;

const SINT_MASKED: u64 = 1 << 16;

/// Registers that exist; everything else from 0x40000000 to 0x4000FFFF faults.
const LISTED: [core::ops::RangeInclusive<u32>; 8] = [
    0x4000_0000..=0x4000_0002,
    0x4000_0020..=0x4000_0023,
    0x4000_0070..=0x4000_0073,
    0x4000_0080..=0x4000_0085,
    0x4000_0090..=0x4000_009F,
    0x4000_00B0..=0x4000_00B7,
    0x4000_0100..=0x4000_0105,
    TSC_INVARIANT_CONTROL..=TSC_INVARIANT_CONTROL,
];

static PAGE: Page = Page::new();

/// Runs these tests.
pub fn run() {
    if !check("msr: the reference counter answers", clock::has_reference()) {
        note(format_args!(
            "no Hyper-V interface: the synthetic registers are left out"
        ));
        return;
    }
    identity_and_time();
    pages();
    synic();
    stimers();
    crash();
    tsc_invariant();
    read_only();
    unlisted();
}

fn identity_and_time() {
    equal("msr GUEST_OS_ID: reset value", insn::rdmsr(0x4000_0000), 0);
    equal("msr HYPERCALL: reset value", insn::rdmsr(0x4000_0001), 0);
    equal(
        "msr VP_INDEX: 0 on the boot processor",
        insn::rdmsr(VP_INDEX),
        0,
    );
    let mut last = insn::rdmsr(TIME_REF_COUNT);
    let monotonic = (0..1000).all(|_| {
        let now = insn::rdmsr(TIME_REF_COUNT);
        let holds = now >= last;
        last = now;
        holds
    });
    check("msr TIME_REF_COUNT: never goes back", monotonic);
    let (told, measured) = (insn::rdmsr(TSC_FREQUENCY), clock::tsc_hz());
    within(
        "msr TSC_FREQUENCY: within 1 % of a measurement",
        told,
        measured / 100 * 99,
        measured / 100 * 101,
    );
    let apic = insn::rdmsr(APIC_FREQUENCY);
    within(
        "msr APIC_FREQUENCY: a plausible value",
        apic,
        1_000_000,
        10_000_000_000,
    );
}

fn pages() {
    let page = PAGE.address();
    for (name, msr) in [
        ("REFERENCE_TSC", REFERENCE_TSC),
        ("VP_ASSIST_PAGE", VP_ASSIST_PAGE),
    ] {
        equal(format_args!("msr {name}: reset value"), insn::rdmsr(msr), 0);
        check(
            format_args!("msr {name}: takes a page"),
            wrmsr(msr, page | 1).is_ok(),
        );
        equal(
            format_args!("msr {name}: reads back"),
            insn::rdmsr(msr),
            page | 1,
        );
        let faults = (1..12)
            .filter(|bit| is_gp(&wrmsr(msr, page | (1 << bit))))
            .count();
        equal(
            format_args!("msr {name}: reserved bits 11:1 give #GP"),
            faults as u64,
            11,
        );
        equal(
            format_args!("msr {name}: and change nothing"),
            insn::rdmsr(msr),
            page | 1,
        );
        check(
            format_args!("msr {name}: can be disabled"),
            wrmsr(msr, 0).is_ok(),
        );
    }
    for (name, msr) in [("SIEFP", SIEFP), ("SIMP", SIMP)] {
        equal(format_args!("msr {name}: reset value"), insn::rdmsr(msr), 0);
        check(
            format_args!("msr {name}: reserved bits are taken"),
            wrmsr(msr, page | 0xABC).is_ok(),
        );
        equal(
            format_args!("msr {name}: and kept"),
            insn::rdmsr(msr),
            page | 0xABC,
        );
        insn::wrmsr(msr, page | 1);
        equal(
            format_args!("msr {name}: reads back"),
            insn::rdmsr(msr),
            page | 1,
        );
        insn::wrmsr(msr, 0);
    }
}

fn synic() {
    equal("msr SVERSION", insn::rdmsr(SVERSION), 1);
    equal("msr SCONTROL: reset value", insn::rdmsr(SCONTROL), 0);
    insn::wrmsr(SCONTROL, 1);
    equal("msr SCONTROL: reads back", insn::rdmsr(SCONTROL), 1);
    insn::wrmsr(SCONTROL, 0);
    check("msr EOM: can be written", wrmsr(EOM, 0).is_ok());
    let eom = rdmsr(EOM);
    check("msr EOM: reads 0 or faults", eom == Ok(0) || is_gp(&eom));

    let reset = (0..16)
        .filter(|n| insn::rdmsr(SINT0 + n) == SINT_MASKED)
        .count();
    equal("msr SINT0 to SINT15: masked after reset", reset as u64, 16);
    let kept = (0..16).filter(|n| {
        insn::wrmsr(SINT0 + n, SINT_MASKED | 0x40 | u64::from(*n));
        insn::rdmsr(SINT0 + n) == SINT_MASKED | 0x40 | u64::from(*n)
    });
    equal("msr SINTn: reads back", kept.count() as u64, 16);
    check(
        "msr SINT3: vector 16 unmasked",
        wrmsr(SINT0 + 3, 16).is_ok(),
    );
    check(
        "msr SINT3: vector 255 unmasked",
        wrmsr(SINT0 + 3, 255).is_ok(),
    );
    for vector in [0, 15] {
        let result = wrmsr(SINT0 + 3, vector);
        check(
            format_args!("msr SINT3: vector {vector} unmasked gives #GP"),
            is_gp(&result),
        );
    }
    for n in 0..16 {
        insn::wrmsr(SINT0 + n, SINT_MASKED);
    }
}

fn stimers() {
    let zero = (0..8).all(|n| insn::rdmsr(STIMER0_CONFIG + n) == 0);
    check("msr STIMER0 to STIMER3: reset value", zero);
    for timer in 0..4 {
        let (config, count) = (STIMER0_CONFIG + 2 * timer, STIMER0_CONFIG + 2 * timer + 1);
        // Direct mode, auto-enable, vector 0x61, not enabled.
        insn::wrmsr(config, 0x1618);
        equal(
            format_args!("msr STIMER{timer}_CONFIG: reads back"),
            insn::rdmsr(config),
            0x1618,
        );
        insn::wrmsr(config, 0x1610);
        insn::wrmsr(count, 0x1234_5678_9ABC);
        equal(
            format_args!("msr STIMER{timer}_COUNT: reads back"),
            insn::rdmsr(count),
            0x1234_5678_9ABC,
        );
        insn::wrmsr(count, 0);
        insn::wrmsr(config, 0);
        equal(
            format_args!("msr STIMER{timer}_CONFIG: cleared"),
            insn::rdmsr(config),
            0,
        );
    }
}

fn crash() {
    let control = insn::rdmsr(CRASH_CTL);
    check("msr CRASH_CTL: reports are taken", control & (1 << 63) != 0);
    for n in 0..5 {
        insn::wrmsr(CRASH_P0 + n, 0xC0FF_EE00_0000_0000 | u64::from(n));
    }
    let kept = (0..5).all(|n| insn::rdmsr(CRASH_P0 + n) == 0xC0FF_EE00_0000_0000 | u64::from(n));
    check("msr CRASH_P0 to CRASH_P4: read back", kept);
    for n in 0..5 {
        insn::wrmsr(CRASH_P0 + n, 0);
    }
}

fn tsc_invariant() {
    if insn::cpuid(0x4000_0003, 0).eax & (1 << 15) == 0 {
        let result = rdmsr(TSC_INVARIANT_CONTROL);
        check(
            "msr TSC_INVARIANT_CONTROL: #GP when not offered",
            is_gp(&result),
        );
        return;
    }
    equal(
        "msr TSC_INVARIANT_CONTROL: reset value",
        insn::rdmsr(TSC_INVARIANT_CONTROL),
        0,
    );
    check(
        "msr TSC_INVARIANT_CONTROL: reserved bits give #GP",
        is_gp(&wrmsr(TSC_INVARIANT_CONTROL, 2)),
    );
    insn::wrmsr(TSC_INVARIANT_CONTROL, 1);
    equal(
        "msr TSC_INVARIANT_CONTROL: reads back",
        insn::rdmsr(TSC_INVARIANT_CONTROL),
        1,
    );
    if insn::cpuid(0x8000_0000, 0).eax < 0x8000_0007 {
        skip("cpuid 0x80000007: invariant TSC shown", "no such leaf");
    } else {
        check(
            "cpuid 0x80000007: invariant TSC shown",
            insn::cpuid(0x8000_0007, 0).edx & (1 << 8) != 0,
        );
    }
}

fn read_only() {
    for (name, msr) in [
        ("VP_INDEX", VP_INDEX),
        ("TIME_REF_COUNT", TIME_REF_COUNT),
        ("TSC_FREQUENCY", TSC_FREQUENCY),
        ("APIC_FREQUENCY", APIC_FREQUENCY),
        ("SVERSION", SVERSION),
    ] {
        check(
            format_args!("msr {name}: a write gives #GP"),
            is_gp(&wrmsr(msr, 0)),
        );
    }
}

fn unlisted() {
    let near = 0x4000_0000..=0x4000_0200;
    let far = (1..=0xFF_u32).map(|step| 0x4000_0000 + step * 0x100 + (step & 7));
    let (mut reads, mut writes) = (0, 0);
    for msr in near
        .chain(far)
        .chain([0x4000_1080, 0x4000_1090, 0x4000_FFFF])
    {
        if LISTED.iter().any(|range| range.contains(&msr)) {
            continue;
        }
        let (read, write) = (rdmsr(msr), wrmsr(msr, 0));
        if !is_gp(&read) {
            note(format_args!("RDMSR {msr:#x} gives {read:x?}"));
            reads += 1;
        }
        if !is_gp(&write) {
            note(format_args!("WRMSR {msr:#x} gives {write:x?}"));
            writes += 1;
        }
    }
    equal(
        "msr: unlisted synthetic registers that can be read",
        reads,
        0,
    );
    equal(
        "msr: unlisted synthetic registers that can be written",
        writes,
        0,
    );
}
