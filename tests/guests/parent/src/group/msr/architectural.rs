//! Registers of the processor that the parent shares with the hypervisor or must not have.

use x86::cpuid::{leaf1_ecx, leaf1_edx};
use x86::efer;
use x86::msr::{
    AMD_PATCH_LOADER, AMD_VM_CR, AMD_VM_HSAVE_PA, CSTAR, EFER, IA32_APIC_BASE, IA32_BIOS_SIGN_ID,
    IA32_BIOS_UPDT_TRIG, IA32_FEATURE_CONTROL, IA32_MCG_CAP, IA32_MCG_STATUS, IA32_MTRR_DEF_TYPE,
    IA32_MTRR_FIX16K_80000, IA32_MTRR_FIX64K_00000, IA32_MTRR_PHYSBASE0, IA32_MTRRCAP, IA32_PAT,
    IA32_SYSENTER_CS, IA32_SYSENTER_EIP, IA32_SYSENTER_ESP, IA32_TSC, IA32_TSC_ADJUST,
    IA32_VMX_BASIC, IA32_VMX_VMFUNC, KERNEL_GS_BASE, LSTAR, SFMASK, STAR, TSC_AUX, apic_base,
};

use crate::group::hypercall::page::is_amd;
use machine::probe::{is_gp, rdmsr, wrmsr};
use machine::trap::Fault;
use machine::verdict::{check, equal, note, skip};
use machine::{clock, insn};

const SVMDIS: u64 = 1 << 4;
const VMX_OUTSIDE_SMX: u64 = 1 << 2;
const LOCKED: u64 = 1;

/// Runs these tests.
pub fn run() {
    virtualization();
    efer();
    apic_base_register();
    time_stamp();
    memory_types();
    plain();
    microcode();
}

fn virtualization() {
    let readable = (IA32_VMX_BASIC..=IA32_VMX_VMFUNC).find(|msr| !is_gp(&rdmsr(*msr)));
    equal(
        "msr: the VMX capability registers fault",
        readable.unwrap_or(0).into(),
        0,
    );
    let control = rdmsr(IA32_FEATURE_CONTROL);
    let off = |value: u64| value & LOCKED != 0 && value & VMX_OUTSIDE_SMX == 0;
    check(
        "msr FEATURE_CONTROL: faults, or says locked without VMX",
        is_gp(&control) || control.is_ok_and(off),
    );
    check(
        "msr FEATURE_CONTROL: a write gives #GP",
        is_gp(&wrmsr(IA32_FEATURE_CONTROL, 5)),
    );

    let vm_cr = rdmsr(AMD_VM_CR);
    check(
        "msr VM_CR: faults, or says disabled",
        is_gp(&vm_cr) || vm_cr.is_ok_and(|value| value & SVMDIS != 0),
    );
    // Clearing SVMDIS while LOCK is set is ignored or faults; either way it must stay.
    let _ = wrmsr(AMD_VM_CR, 0);
    let after = rdmsr(AMD_VM_CR);
    check(
        "msr VM_CR: a write does not enable SVM",
        is_gp(&after) || after.is_ok_and(|value| value & SVMDIS != 0),
    );
    check(
        "msr VM_HSAVE_PA: a read gives #GP",
        is_gp(&rdmsr(AMD_VM_HSAVE_PA)),
    );
    check(
        "msr VM_HSAVE_PA: a write gives #GP",
        is_gp(&wrmsr(AMD_VM_HSAVE_PA, 0x1000)),
    );
}

fn efer() {
    let value = insn::rdmsr(EFER);
    equal("msr EFER: SVME reads 0", value & efer::SVME, 0);
    equal(
        "msr EFER: long mode is active",
        value & (efer::LMA | efer::LME),
        efer::LMA | efer::LME,
    );
    check(
        "msr EFER: setting SVME gives #GP",
        is_gp(&wrmsr(EFER, value | efer::SVME)) || quirk("EFER"),
    );
    check(
        "msr EFER: a reserved bit gives #GP",
        is_gp(&wrmsr(EFER, value | (1 << 40))) || quirk("EFER"),
    );
    check(
        "msr EFER: clearing LME with paging on gives #GP",
        is_gp(&wrmsr(EFER, value & !efer::LME)) || quirk("EFER"),
    );
    check(
        "msr EFER: writing it back is accepted",
        wrmsr(EFER, value).is_ok(),
    );
    let flipped = wrmsr(EFER, value ^ efer::SCE).is_ok();
    check(
        "msr EFER: SCE can be changed",
        flipped && insn::rdmsr(EFER) == value ^ efer::SCE,
    );
    insn::wrmsr(EFER, value);
    equal(
        "msr EFER: unchanged by the refused writes",
        insn::rdmsr(EFER),
        value,
    );
}

fn apic_base_register() {
    let value = insn::rdmsr(IA32_APIC_BASE);
    check("msr APIC_BASE: boot processor", value & apic_base::BSP != 0);
    check("msr APIC_BASE: enabled", value & apic_base::ENABLE != 0);
    equal(
        "msr APIC_BASE: the usual address",
        value & 0xF_FFFF_F000,
        apic_base::DEFAULT_ADDRESS,
    );
    check(
        "msr APIC_BASE: reserved bit 9 gives #GP",
        is_gp(&wrmsr(IA32_APIC_BASE, value | (1 << 9))),
    );
    check(
        "msr APIC_BASE: reserved bit 0 gives #GP",
        is_gp(&wrmsr(IA32_APIC_BASE, value | 1)),
    );
    check(
        "msr APIC_BASE: reserved bit 63 gives #GP",
        is_gp(&wrmsr(IA32_APIC_BASE, value | (1 << 63))),
    );
    equal(
        "msr APIC_BASE: unchanged by the refused writes",
        insn::rdmsr(IA32_APIC_BASE),
        value,
    );
}

fn time_stamp() {
    const HOUR: u64 = 3600;
    if insn::cpuid(7, 0).ebx & 2 == 0 {
        skip("msr TSC_ADJUST", "the processor has none");
        return;
    }
    let old = insn::rdmsr(IA32_TSC_ADJUST);
    let step = clock::tsc_hz() * HOUR;
    let (reference, tsc) = (clock::reference(), insn::rdtsc());
    insn::wrmsr(IA32_TSC_ADJUST, old.wrapping_add(step));
    let jumped = insn::rdtsc().wrapping_sub(tsc);
    equal(
        "msr TSC_ADJUST: reads back",
        insn::rdmsr(IA32_TSC_ADJUST),
        old.wrapping_add(step),
    );
    check(
        "msr TSC_ADJUST: moves the TSC",
        jumped >= step && jumped < step + clock::tsc_hz(),
    );
    let by_msr = insn::rdmsr(IA32_TSC).wrapping_sub(tsc);
    check(
        "msr TSC: reads what RDTSC reads",
        by_msr >= step && by_msr < step + clock::tsc_hz(),
    );
    if clock::has_reference() {
        let passed = clock::reference() - reference;
        check(
            "msr TSC_ADJUST: does not move the reference counter",
            passed < 10_000_000,
        );
    }
    insn::wrmsr(IA32_TSC_ADJUST, old);
    let back = insn::rdtsc().wrapping_sub(tsc);
    check("msr TSC_ADJUST: moves it back", back < clock::tsc_hz());

    let now = insn::rdtsc();
    insn::wrmsr(IA32_TSC, now + step);
    let moved = insn::rdmsr(IA32_TSC_ADJUST).wrapping_sub(old);
    check(
        "msr TSC: a write shows in TSC_ADJUST",
        moved > step - clock::tsc_hz() && moved <= step,
    );
    insn::wrmsr(IA32_TSC_ADJUST, old);
}

fn memory_types() {
    if insn::cpuid(1, 0).edx & leaf1_edx::MTRR == 0 {
        skip("msr MTRR", "the processor has none");
    } else {
        let cap = insn::rdmsr(IA32_MTRRCAP);
        let variable = (cap & 0xFF) as u32;
        let readable = (0..variable * 2).all(|n| rdmsr(IA32_MTRR_PHYSBASE0 + n).is_ok());
        check("msr MTRR: the variable ranges can be read", readable);
        let fixed = [IA32_MTRR_FIX64K_00000, IA32_MTRR_FIX16K_80000, 0x259]
            .into_iter()
            .chain(0x268..=0x26F)
            .all(|msr| rdmsr(msr).is_ok());
        check(
            "msr MTRR: the fixed ranges can be read",
            fixed || cap & (1 << 8) == 0,
        );
        let default = insn::rdmsr(IA32_MTRR_DEF_TYPE);
        check(
            "msr MTRR: a write that changes nothing is taken",
            wrmsr(IA32_MTRR_DEF_TYPE, default).is_ok(),
        );
        equal(
            "msr MTRR: and changes nothing",
            insn::rdmsr(IA32_MTRR_DEF_TYPE),
            default,
        );
        if variable != 0 {
            let base = insn::rdmsr(IA32_MTRR_PHYSBASE0);
            check(
                "msr MTRR: so for a variable range",
                wrmsr(IA32_MTRR_PHYSBASE0, base).is_ok(),
            );
            equal(
                "msr MTRR: which reads back",
                insn::rdmsr(IA32_MTRR_PHYSBASE0),
                base,
            );
        }
        check(
            "msr MTRRCAP: a write gives #GP",
            is_gp(&wrmsr(IA32_MTRRCAP, cap)) || quirk("MTRRCAP"),
        );
    }
    let pat = insn::rdmsr(IA32_PAT);
    // Entries 4 and 5 are not used by this program's page tables.
    let swapped = (pat & !0xFFFF_0000_0000) | 0x0001_0000_0000 | 0x0500_0000_0000;
    check(
        "msr PAT: takes valid types",
        wrmsr(IA32_PAT, swapped).is_ok(),
    );
    equal("msr PAT: reads back", insn::rdmsr(IA32_PAT), swapped);
    for kind in [2_u64, 3, 8, 0xFF] {
        let result = wrmsr(IA32_PAT, (pat & !(0xFF << 32)) | (kind << 32));
        check(
            format_args!("msr PAT: type {kind} gives #GP"),
            is_gp(&result) || quirk("PAT"),
        );
    }
    insn::wrmsr(IA32_PAT, pat);
    equal("msr PAT: restored", insn::rdmsr(IA32_PAT), pat);
}

/// QEMU's TCG accepts any value here; a bare machine that does so says nothing about this test.
fn quirk(name: &str) -> bool {
    let bare = !clock::has_reference();
    if bare {
        note(format_args!(
            "{name}: the emulator does not check the value"
        ));
    }
    bare
}

fn plain() {
    for (name, msr, value) in [
        ("SYSENTER_CS", IA32_SYSENTER_CS, 0x18),
        ("SYSENTER_ESP", IA32_SYSENTER_ESP, 0x7F_1234_5678),
        ("SYSENTER_EIP", IA32_SYSENTER_EIP, 0x7F_8765_4321),
        ("STAR", STAR, 0x0013_0008_0000_0000),
        ("LSTAR", LSTAR, 0xFFFF_8000_1234_5678),
        ("CSTAR", CSTAR, 0xFFFF_8000_8765_4321),
        ("SFMASK", SFMASK, 0x4_7700),
        ("KERNEL_GS_BASE", KERNEL_GS_BASE, 0xFFFF_8888_0000_1000),
    ] {
        let old = insn::rdmsr(msr);
        let taken = wrmsr(msr, value).is_ok();
        check(
            format_args!("msr {name}: reads back"),
            taken && insn::rdmsr(msr) == value,
        );
        insn::wrmsr(msr, old);
    }
    if insn::cpuid(0x8000_0001, 0).edx & (1 << 27) != 0 {
        let old = insn::rdmsr(TSC_AUX);
        let taken = wrmsr(TSC_AUX, 0x1234).is_ok();
        check(
            "msr TSC_AUX: reads back",
            taken && insn::rdmsr(TSC_AUX) == 0x1234,
        );
        insn::wrmsr(TSC_AUX, old);
    }
    check(
        "msr MCG_CAP and MCG_STATUS: can be read",
        rdmsr(IA32_MCG_CAP).is_ok() && rdmsr(IA32_MCG_STATUS).is_ok(),
    );
    if insn::cpuid(1, 0).ecx & leaf1_ecx::X2APIC != 0 {
        let id = rdmsr(0x802);
        check(
            "msr 0x802: #GP in xAPIC mode",
            is_gp(&id) || quirk("x2APIC id"),
        );
    }
}

fn microcode() {
    let trigger = if is_amd() {
        AMD_PATCH_LOADER
    } else {
        IA32_BIOS_UPDT_TRIG
    };
    let result: Result<(), Fault> = wrmsr(trigger, 0);
    check(
        "msr: the microcode trigger is ignored or faults",
        result.is_ok() || is_gp(&result),
    );
    let before = rdmsr(IA32_BIOS_SIGN_ID);
    check(
        "msr BIOS_SIGN_ID: can be read, or faults",
        before.is_ok() || is_gp(&before),
    );
}
