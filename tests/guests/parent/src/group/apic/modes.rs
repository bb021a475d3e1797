//! The way between the modes (Intel SDM vol. 3A, "x2APIC State Transitions"), and what x2APIC mode refuses.

use x86::cpuid::{leaf1_ecx, leaf1_edx};
use x86::msr::{IA32_APIC_BASE, X2APIC_FIRST, apic_base};

use machine::apic::{self, LVT_MASKED, reg};
use machine::insn;
use machine::probe::{is_gp, rdmsr, wrmsr};
use machine::verdict::{check, check_strict, equal, skip};

const ENABLE: u64 = apic_base::ENABLE;
const EXTD: u64 = apic_base::EXTD;

fn base() -> u64 {
    insn::rdmsr(IA32_APIC_BASE)
}

/// Switches to x2APIC mode; `false` where there is none.
pub fn enter_x2apic() -> bool {
    if insn::cpuid(1, 0).ecx & leaf1_ecx::X2APIC == 0 {
        return false;
    }
    check_strict(
        "modes: xAPIC mode has no MSRs",
        is_gp(&rdmsr(X2APIC_FIRST + reg::ID)),
    );
    check_strict(
        "modes: x2APIC without enable gives #GP",
        is_gp(&wrmsr(IA32_APIC_BASE, (base() & !ENABLE) | EXTD)),
    );
    let id = apic::id();
    apic::write(reg::TPR, 0x30);
    apic::write(reg::LVT_ERROR, LVT_MASKED | 0x5C);
    check(
        "modes: xAPIC to x2APIC",
        wrmsr(IA32_APIC_BASE, base() | EXTD).is_ok(),
    );
    apic::notice_mode();
    equal(
        "modes: APIC_BASE says x2APIC",
        base() & (ENABLE | EXTD),
        ENABLE | EXTD,
    );
    equal("modes: the id stays", apic::id().into(), id.into());
    check_strict("modes: TPR stays", apic::read(reg::TPR) == 0x30);
    equal(
        "modes: the LVT stays",
        apic::read(reg::LVT_ERROR).into(),
        (LVT_MASKED | 0x5C).into(),
    );
    apic::write(reg::TPR, 0);
    true
}

/// What x2APIC mode refuses.
pub fn refusals() {
    let msr = |register: u32| X2APIC_FIRST + register;
    for (name, register) in [
        ("ID", reg::ID),
        ("VERSION", reg::VERSION),
        ("PPR", reg::PPR),
        ("LDR", reg::LDR),
        ("ISR", reg::ISR),
        ("TMR", reg::TMR),
        ("IRR", reg::IRR),
        ("CURRENT COUNT", reg::CURRENT_COUNT),
    ] {
        check_strict(
            format_args!("x2APIC: writing {name} gives #GP"),
            is_gp(&wrmsr(msr(register), 0)),
        );
        check(
            format_args!("x2APIC: reading {name} does not"),
            rdmsr(msr(register)).is_ok(),
        );
    }
    for (name, register) in [("EOI", reg::EOI), ("SELF IPI", reg::SELF_IPI)] {
        check_strict(
            format_args!("x2APIC: reading {name} gives #GP"),
            is_gp(&rdmsr(msr(register))),
        );
    }
    for number in [
        0x00,
        0x01,
        0x04,
        0x09,
        0x0C,
        reg::DFR,
        0x29,
        reg::ICR_HIGH,
        0x3A,
        0x3D,
        0x40,
        0xFF,
    ] {
        check_strict(
            format_args!("x2APIC: reading MSR {:#x} gives #GP", msr(number)),
            is_gp(&rdmsr(msr(number))),
        );
        check_strict(
            format_args!("x2APIC: writing MSR {:#x} gives #GP", msr(number)),
            is_gp(&wrmsr(msr(number), 0)),
        );
    }
    for (name, register, value) in [
        ("EOI of 1", reg::EOI, 1),
        ("TPR bit 8", reg::TPR, 1 << 8),
        ("TPR bit 32", reg::TPR, 1 << 32),
        ("SVR bit 13", reg::SVR, (1 << 13) | 0x1FF),
        ("ESR of 1", reg::ESR, 1),
        ("ICR bit 13", reg::ICR_LOW, (1 << 13) | (1 << 18) | 0x51),
        ("ICR bit 20", reg::ICR_LOW, (1 << 20) | (1 << 18) | 0x51),
        (
            "LVT timer bit 20",
            reg::LVT_TIMER,
            (1 << 20) | (1 << 16) | 0x51,
        ),
        (
            "LVT error bit 10",
            reg::LVT_ERROR,
            (1 << 10) | (1 << 16) | 0x51,
        ),
        ("DIVIDE bit 2", reg::DIVIDE, 4),
        ("SELF IPI bit 8", reg::SELF_IPI, 0x151),
        ("INITIAL COUNT bit 32", reg::INITIAL_COUNT, 1 << 32),
    ] {
        check_strict(
            format_args!("x2APIC: {name} gives #GP"),
            is_gp(&wrmsr(msr(register), value)),
        );
    }
    check("x2APIC: EOI of 0 does not", wrmsr(msr(reg::EOI), 0).is_ok());
}

/// Bochs' host bridge is an i440FX without subsystem id; QEMU's has its own.
fn is_bochs() -> bool {
    let read = |register: u32| {
        insn::out32(0xCF8, 0x8000_0000 | register);
        insn::in32(0xCFC)
    };
    read(0) == 0x1237_8086 && read(0x2C) == 0
}

/// Leaves x2APIC mode by the only way there is, and checks the others. `false` where there is no way.
pub fn leave_x2apic() -> bool {
    if is_bochs() {
        skip(
            "modes: out of x2APIC mode",
            "Bochs' own APIC stays disabled for good, under a hypervisor too",
        );
        return false;
    }
    let value = base();
    check_strict(
        "modes: x2APIC to xAPIC gives #GP",
        is_gp(&wrmsr(IA32_APIC_BASE, value & !EXTD)),
    );
    check_strict(
        "modes: x2APIC without enable gives #GP",
        is_gp(&wrmsr(IA32_APIC_BASE, value & !ENABLE)),
    );
    equal("modes: still x2APIC", base(), value);
    apic::write(reg::TPR, 0x40);
    apic::write(reg::LVT_ERROR, 0x5C);
    let disabled = value & !(ENABLE | EXTD);
    check(
        "modes: x2APIC to disabled",
        wrmsr(IA32_APIC_BASE, disabled).is_ok(),
    );
    equal("modes: APIC_BASE says disabled", base(), disabled);
    check_strict(
        "modes: disabled, CPUID shows no APIC",
        insn::cpuid(1, 0).edx & leaf1_edx::APIC == 0,
    );
    check_strict(
        "modes: disabled, no MSRs",
        is_gp(&rdmsr(X2APIC_FIRST + reg::ID)),
    );
    check_strict(
        "modes: disabled to x2APIC gives #GP",
        is_gp(&wrmsr(IA32_APIC_BASE, value)),
    );
    insn::wrmsr(IA32_APIC_BASE, disabled);
    check(
        "modes: disabled to xAPIC",
        wrmsr(IA32_APIC_BASE, disabled | ENABLE).is_ok(),
    );
    apic::notice_mode();
    check(
        "modes: CPUID shows the APIC again",
        insn::cpuid(1, 0).edx & leaf1_edx::APIC != 0,
    );
    check_strict("modes: reset TPR", apic::read(reg::TPR) == 0);
    check_strict("modes: reset SVR", apic::read(reg::SVR) & 0x1FF == 0xFF);
    check_strict("modes: reset LVT", apic::read(reg::LVT_ERROR) == LVT_MASKED);
    true
}
