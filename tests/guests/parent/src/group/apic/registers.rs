//! What the registers hold, keep and refuse.

use machine::apic::{self, LVT_MASKED, SVR_ENABLE, reg};
use machine::verdict::{check, check_strict, equal, note};
use machine::{cpu, insn};

/// Runs these tests.
pub fn run(mode: &str) {
    let x2apic = cpu::this()
        .x2apic
        .load(core::sync::atomic::Ordering::SeqCst);
    equal(
        format_args!("{mode}: ID agrees with CPUID"),
        (apic::id() & 0xFF).into(),
        (insn::cpuid(1, 0).ebx >> 24).into(),
    );
    let version = apic::read(reg::VERSION);
    let lvts = (version >> 16) & 0xFF;
    note(format_args!("{mode} version {version:#x}"));
    check(
        format_args!("{mode}: at least four local vectors"),
        (3..=7).contains(&lvts),
    );

    apic::write(reg::TPR, 0x5A);
    equal(
        format_args!("{mode}: TPR keeps eight bits"),
        apic::read(reg::TPR).into(),
        0x5A,
    );
    equal(
        format_args!("{mode}: PPR follows TPR"),
        (apic::read(reg::PPR) & 0xF0).into(),
        0x50,
    );
    equal(
        format_args!("{mode}: CR8 shows the class"),
        insn::read_cr8(),
        5,
    );
    insn::write_cr8(9);
    equal(
        format_args!("{mode}: TPR follows CR8"),
        apic::read(reg::TPR).into(),
        0x90,
    );
    insn::write_cr8(0);
    equal(
        format_args!("{mode}: TPR cleared through CR8"),
        apic::read(reg::TPR).into(),
        0,
    );

    if x2apic {
        let id = apic::id();
        let wanted = ((id >> 4) << 16) | (1 << (id & 0xF));
        equal(
            format_args!("{mode}: LDR is made of the ID"),
            apic::read(reg::LDR).into(),
            wanted.into(),
        );
    } else {
        logical_destination(mode);
    }
    for (name, lvt) in [
        ("timer", reg::LVT_TIMER),
        ("LINT0", reg::LVT_LINT0),
        ("LINT1", reg::LVT_LINT1),
        ("error", reg::LVT_ERROR),
    ] {
        apic::write(lvt, LVT_MASKED | 0x77);
        equal(
            format_args!("{mode}: LVT {name} keeps its vector"),
            (apic::read(lvt) & 0x100FF).into(),
            0x1_0077,
        );
    }
    // Delivery status is read-only.
    apic::write(reg::LVT_LINT0, LVT_MASKED | (1 << 12) | 0x77);
    check_strict(
        format_args!("{mode}: LVT delivery status cannot be written"),
        apic::read(reg::LVT_LINT0) & (1 << 12) == 0 || x2apic,
    );

    software_disable(mode);
    errors(mode, x2apic);
    // A bare machine that sent it is left with vector 15 pending.
    insn::sti();
    insn::cli();
    apic::quiet();
}

fn logical_destination(mode: &str) {
    apic::write(reg::DFR, 0xFFFF_FFFF);
    equal(
        format_args!("{mode}: DFR flat"),
        apic::read(reg::DFR).into(),
        0xFFFF_FFFF,
    );
    apic::write(reg::DFR, 0x0FFF_FFFF);
    equal(
        format_args!("{mode}: DFR cluster"),
        apic::read(reg::DFR).into(),
        0x0FFF_FFFF,
    );
    apic::write(reg::LDR, 0x2100_0000);
    equal(
        format_args!("{mode}: LDR keeps eight bits"),
        (apic::read(reg::LDR) & 0xFF00_0000).into(),
        0x2100_0000,
    );
    apic::write(reg::DFR, 0xFFFF_FFFF);
    apic::write(reg::LDR, 0x0100_0000);
    // The interrupt command register's upper half is the guest's own.
    apic::write(reg::ICR_HIGH, 0x5A00_0000);
    equal(
        format_args!("{mode}: ICR high reads back"),
        (apic::read(reg::ICR_HIGH) & 0xFF00_0000).into(),
        0x5A00_0000,
    );
}

fn software_disable(mode: &str) {
    apic::write(reg::LVT_ERROR, 0x77);
    apic::write(reg::SVR, u32::from(apic::SPURIOUS));
    equal(
        format_args!("{mode}: SVR reads disabled"),
        (apic::read(reg::SVR) & SVR_ENABLE).into(),
        0,
    );
    check_strict(
        format_args!("{mode}: disabling masks the LVT"),
        apic::read(reg::LVT_ERROR) & LVT_MASKED != 0,
    );
    apic::write(reg::LVT_ERROR, 0x77);
    check_strict(
        format_args!("{mode}: and keeps it masked"),
        apic::read(reg::LVT_ERROR) & LVT_MASKED != 0,
    );
    apic::write(reg::SVR, SVR_ENABLE | u32::from(apic::SPURIOUS));
    apic::write(reg::LVT_ERROR, 0x77);
    equal(
        format_args!("{mode}: enabled, it can be unmasked"),
        (apic::read(reg::LVT_ERROR) & LVT_MASKED).into(),
        0,
    );
    apic::write(reg::LVT_ERROR, LVT_MASKED | 0x77);
}

/// Errors are latched by a write of ESR, and cleared by the next one
/// (Intel SDM vol. 3A, "Error Handling").
fn errors(mode: &str, x2apic: bool) {
    const SEND_ILLEGAL_VECTOR: u32 = 1 << 5;
    const ILLEGAL_REGISTER: u32 = 1 << 7;
    apic::write(reg::ESR, 0);
    apic::write(reg::ESR, 0);
    check_strict(
        format_args!("{mode}: ESR clear after two writes"),
        apic::read(reg::ESR) == 0,
    );
    apic::command(apic::id(), 0x0F);
    check_strict(
        format_args!("{mode}: ESR shows nothing before it is written"),
        apic::read(reg::ESR) == 0,
    );
    apic::write(reg::ESR, 0);
    let shown = apic::read(reg::ESR);
    check_strict(
        format_args!("{mode}: ESR shows a vector below 16"),
        shown & SEND_ILLEGAL_VECTOR != 0,
    );
    apic::write(reg::ESR, 0);
    check_strict(
        format_args!("{mode}: ESR clear again"),
        apic::read(reg::ESR) == 0,
    );
    if !x2apic {
        insn::read_mmio32(apic::PAGE + 0x40);
        apic::write(reg::ESR, 0);
        let shown = apic::read(reg::ESR);
        check_strict(
            format_args!("{mode}: ESR shows a reserved register"),
            shown & ILLEGAL_REGISTER != 0,
        );
        apic::write(reg::ESR, 0);
    }
}
