//! CPUID as the parent partition sees it (TLFS, "Feature and Interface Discovery").

use x86::cpuid::{leaf1_ecx, leaf1_edx};
use x86::{Gp, cr4};

use crate::options::Options;
use machine::insn::{self, CpuidResult};
use machine::platform::Platform;
use machine::snippet;
use machine::trap::{self, Regs};
use machine::verdict::{check, equal, note, skip, within};
use machine::{apic, cpu, probe};

/// Leaf 0x40000003 EAX of the parent, without bit 15, which needs an invariant TSC.
const PRIVILEGES_LOW: u64 = 0x0A7E;
const INVARIANT_TSC_CONTROL: u32 = 1 << 15;

/// Bits of leaf 0x40000003 EBX that the parent may have: posts, signals, and what goes with creating partitions,
/// and the extended calls.
const PRIVILEGES_HIGH_ALLOWED: u32 = 0x1F5 | (1 << 20);
const PRIVILEGES_HIGH_NEEDED: u32 = 0x30;

snippet!(code_cpuid: "cpuid");

/// Runs the group.
pub fn run(_: &Options, platform: &Platform) {
    hyperv_leaves(platform);
    empty_leaves();
    hidden_features();
    mirrors_of_control_registers();
    registers_of_the_instruction();
}

fn hyperv_leaves(platform: &Platform) {
    check(
        "cpuid: hypervisor bit",
        insn::cpuid(1, 0).ecx & leaf1_ecx::HYPERVISOR != 0,
    );
    let leaf = insn::cpuid(0x4000_0000, 0);
    equal(
        "cpuid 0x40000000: highest leaf",
        leaf.eax.into(),
        0x4000_0006,
    );
    equal(
        "cpuid 0x40000000: vendor Micr",
        leaf.ebx.into(),
        0x7263_694D,
    );
    equal(
        "cpuid 0x40000000: vendor osof",
        leaf.ecx.into(),
        0x666F_736F,
    );
    equal(
        "cpuid 0x40000000: vendor t Hv",
        leaf.edx.into(),
        0x7648_2074,
    );
    is(
        "cpuid 0x40000001: interface Hv#1",
        insn::cpuid(0x4000_0001, 0),
        [0x3123_7648, 0, 0, 0],
    );
    let leaf = insn::cpuid(0x4000_0002, 0);
    note(format_args!(
        "version {}.{} build {}",
        leaf.ebx >> 16,
        leaf.ebx & 0xFFFF,
        leaf.eax
    ));
    check("cpuid 0x40000002: names a build", leaf.eax != 0);
    equal(
        "cpuid 0x40000002: no service pack, no branch",
        (u64::from(leaf.ecx) << 32) | u64::from(leaf.edx >> 24),
        0,
    );

    let leaf = insn::cpuid(0x4000_0003, 0);
    equal(
        "cpuid 0x40000003: EAX",
        (leaf.eax & !INVARIANT_TSC_CONTROL).into(),
        PRIVILEGES_LOW,
    );
    if leaf.eax & INVARIANT_TSC_CONTROL == 0 {
        note(format_args!(
            "no TSC invariant control: this machine's TSC is not invariant, or it was forgotten"
        ));
    }
    check(
        "cpuid 0x40000003: EBX posts and signals",
        leaf.ebx & PRIVILEGES_HIGH_NEEDED == PRIVILEGES_HIGH_NEEDED,
    );
    equal(
        "cpuid 0x40000003: EBX nothing unasked",
        (leaf.ebx & !PRIVILEGES_HIGH_ALLOWED).into(),
        0,
    );
    equal("cpuid 0x40000003: ECX", leaf.ecx.into(), 0);
    equal("cpuid 0x40000003: EDX", leaf.edx.into(), 0x8_0500);

    let leaf = insn::cpuid(0x4000_0004, 0);
    equal("cpuid 0x40000004: hints", leaf.eax.into(), 0x228);
    equal(
        "cpuid 0x40000004: never notify of long spins",
        leaf.ebx.into(),
        0xFFFF_FFFF,
    );
    let bits = insn::cpuid(0x8000_0008, 0).eax & 0xFF;
    check(
        "cpuid 0x40000004: ECX physical address bits or 0",
        leaf.ecx == 0 || leaf.ecx == bits,
    );
    equal("cpuid 0x40000004: EDX", leaf.edx.into(), 0);

    let leaf = insn::cpuid(0x4000_0005, 0);
    let processors = platform.processors().len() as u64;
    within(
        "cpuid 0x40000005: EAX holds all VPs",
        leaf.eax.into(),
        processors,
        4096,
    );
    within(
        "cpuid 0x40000005: EBX holds all LPs",
        leaf.ebx.into(),
        processors,
        4096,
    );
    equal(
        "cpuid 0x40000005: ECX, EDX",
        (u64::from(leaf.ecx) << 32) | u64::from(leaf.edx),
        0,
    );
    is("cpuid 0x40000006", insn::cpuid(0x4000_0006, 0), [0; 4]);
}

fn empty_leaves() {
    let low = (0x4000_0007..=0x4000_00FF).find(|leaf| !is_zero(*leaf));
    equal(
        "cpuid 0x40000007 to 0x400000FF: zero",
        low.unwrap_or(0).into(),
        0,
    );
    check("cpuid 0x40000082: zero", is_zero(0x4000_0082));
    let high = (1..=0xFF_u32)
        .map(|step| 0x4000_0000 + step * 0x100)
        .find(|leaf| !is_zero(*leaf));
    equal(
        "cpuid 0x40000100, 0x40000200 and so on: zero",
        high.unwrap_or(0).into(),
        0,
    );
    let odd = [
        0x4000_0101,
        0x4000_1000,
        0x4000_1001,
        0x4000_8001,
        0x4000_FFFE,
        0x4000_FFFF,
    ];
    let odd = odd.into_iter().find(|leaf| !is_zero(*leaf));
    equal(
        "cpuid 0x4000FFFF and others between: zero",
        odd.unwrap_or(0).into(),
        0,
    );
    let sub = insn::cpuid(0x4000_0001, 7);
    is(
        "cpuid 0x40000001: the subleaf does not matter",
        sub,
        [0x3123_7648, 0, 0, 0],
    );
}

fn hidden_features() {
    let one = insn::cpuid(1, 0);
    for (name, bit) in [
        ("VMX", leaf1_ecx::VMX),
        ("SMX", leaf1_ecx::SMX),
        ("MONITOR", leaf1_ecx::MONITOR),
        ("PDCM", leaf1_ecx::PDCM),
        ("DTES64", leaf1_ecx::DTES64),
        ("DS-CPL", leaf1_ecx::DS_CPL),
    ] {
        check(format_args!("cpuid 1: {name} hidden"), one.ecx & bit == 0);
    }
    check("cpuid 1: DS hidden", one.edx & leaf1_edx::DS == 0);
    check("cpuid 5: MWAIT leaf zero", is_zero(5));
    let seven = insn::cpuid(7, 0);
    check(
        "cpuid 7: processor trace hidden",
        seven.ebx & (1 << 25) == 0,
    );
    check("cpuid 7: SGX hidden", seven.ebx & (1 << 2) == 0);
    check("cpuid 0x14: zero", highest() < 0x14 || is_zero(0x14));
    check("cpuid 0x12: zero", highest() < 0x12 || is_zero(0x12));
    let extended = insn::cpuid(0x8000_0001, 0).ecx;
    for (name, bit) in [
        ("SVM", 2),
        ("extended APIC space", 3),
        ("IBS", 10),
        ("SKINIT", 12),
        ("MONITORX", 29),
    ] {
        check(
            format_args!("cpuid 0x80000001: {name} hidden"),
            extended & (1 << bit) == 0,
        );
    }
    for leaf in [0x8000_000A, 0x8000_001B, 0x8000_001F] {
        let absent = insn::cpuid(0x8000_0000, 0).eax < leaf;
        check(
            format_args!("cpuid {leaf:#x}: zero"),
            absent || is_zero(leaf),
        );
    }
}

fn mirrors_of_control_registers() {
    let old = insn::read_cr4();
    if insn::cpuid(1, 0).ecx & leaf1_ecx::XSAVE == 0 {
        skip("cpuid 1: OSXSAVE follows CR4", "no XSAVE");
    } else {
        insn::write_cr4(old & !cr4::OSXSAVE);
        let off = insn::cpuid(1, 0).ecx & leaf1_ecx::OSXSAVE;
        insn::write_cr4(old | cr4::OSXSAVE);
        let on = insn::cpuid(1, 0).ecx & leaf1_ecx::OSXSAVE;
        check("cpuid 1: OSXSAVE clear with CR4.OSXSAVE clear", off == 0);
        check("cpuid 1: OSXSAVE set with CR4.OSXSAVE set", on != 0);
        size_of_state();
        insn::write_cr4(old);
    }
    if insn::cpuid(7, 0).ecx & (1 << 3) == 0 {
        skip("cpuid 7: OSPKE follows CR4", "no protection keys");
    } else {
        insn::write_cr4(old & !cr4::PKE);
        let off = insn::cpuid(7, 0).ecx & (1 << 4);
        let set = probe::write_cr4(old | cr4::PKE);
        let on = insn::cpuid(7, 0).ecx & (1 << 4);
        insn::write_cr4(old);
        check(
            "cpuid 7: OSPKE follows CR4.PKE",
            set.is_ok() && off == 0 && on != 0,
        );
    }
    cpu_identity();
}

fn size_of_state() {
    let old = insn::read_xcr0();
    insn::write_xcr0(1);
    equal(
        "cpuid 0xD: EBX with x87 state only",
        insn::cpuid(0xD, 0).ebx.into(),
        576,
    );
    let avx = insn::cpuid(0xD, 0).eax & 4 != 0;
    if avx {
        insn::write_xcr0(7);
        let wanted = insn::cpuid(0xD, 2).eax + insn::cpuid(0xD, 2).ebx;
        equal(
            "cpuid 0xD: EBX with AVX state",
            insn::cpuid(0xD, 0).ebx.into(),
            wanted.into(),
        );
    } else {
        skip("cpuid 0xD: EBX with AVX state", "no AVX");
    }
    insn::write_xcr0(old);
}

fn cpu_identity() {
    apic::notice_mode();
    let id = apic::id();
    equal(
        "cpuid 1: APIC id",
        (insn::cpuid(1, 0).ebx >> 24).into(),
        (id & 0xFF).into(),
    );
    if highest() >= 0xB && insn::cpuid(0xB, 0).ebx != 0 {
        equal(
            "cpuid 0xB: APIC id",
            insn::cpuid(0xB, 0).edx.into(),
            id.into(),
        );
    }
    check(
        "cpuid 1: APIC present",
        insn::cpuid(1, 0).edx & leaf1_edx::APIC != 0,
    );
    equal(
        "the boot processor is processor 0",
        cpu::this().index.load(core::sync::atomic::Ordering::SeqCst),
        0,
    );
}

fn registers_of_the_instruction() {
    let mut regs = Regs::default();
    for register in 0..16 {
        regs.gp.0[register] = 0xDEAD_0000_BEEF_0000 + register as u64;
    }
    regs.gp.set(Gp::Rax, 0xFFFF_FFFF_4000_0000);
    regs.gp.set(Gp::Rcx, 0xFFFF_FFFF_0000_0000);
    let before = regs;
    let result = trap::call(code_cpuid, &mut regs);
    check(
        "cpuid: the upper half of RAX is not part of the leaf",
        result.is_ok(),
    );
    equal(
        "cpuid: RAX zero-extended",
        regs.gp.get(Gp::Rax),
        0x4000_0006,
    );
    equal(
        "cpuid: RBX zero-extended",
        regs.gp.get(Gp::Rbx),
        0x7263_694D,
    );
    let kept = [5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15]
        .iter()
        .all(|r| regs.gp.0[*r] == before.gp.0[*r]);
    check("cpuid: other registers kept", kept);
}

fn highest() -> u32 {
    insn::cpuid(0, 0).eax
}

fn is_zero(leaf: u32) -> bool {
    insn::cpuid(leaf, 0) == CpuidResult::default()
}

fn is(name: &str, got: CpuidResult, [eax, ebx, ecx, edx]: [u32; 4]) {
    let wanted = CpuidResult { eax, ebx, ecx, edx };
    if !check(name, got == wanted) {
        note(format_args!("got {got:x?}, wanted {wanted:x?}"));
    }
}
