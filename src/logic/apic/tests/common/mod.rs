//! What the test files share.
#![allow(dead_code, reason = "each test file uses a part of it")]

use addr::ApicId;
use apic::{Apic, Effect, Features, Mode, Timing};

pub const FEATURES: Features = Features {
    x2apic: true,
    tsc_deadline: true,
    cmci: true,
    physical_bits: 40,
};

pub const TPR: u16 = 0x80;
pub const EOI: u16 = 0xB0;
pub const LDR: u16 = 0xD0;
pub const DFR: u16 = 0xE0;
pub const SVR: u16 = 0xF0;
pub const ESR: u16 = 0x280;
pub const ICR: u16 = 0x300;
pub const ICR_HIGH: u16 = 0x310;
pub const LVT_TIMER: u16 = 0x320;
pub const LVT_LINT0: u16 = 0x350;
pub const LVT_LINT1: u16 = 0x360;
pub const LVT_ERROR: u16 = 0x370;
pub const INITIAL: u16 = 0x380;
pub const CURRENT: u16 = 0x390;
pub const DIVIDE: u16 = 0x3E0;

/// 3 GHz and 1 GHz: three ticks a count.
pub fn timing() -> Timing {
    Timing::new(3_000_000_000, 1_000_000_000).unwrap()
}

/// An xAPIC as after reset.
pub fn fresh(id: u32) -> Apic {
    Apic::new(ApicId::new(id), id == 0, FEATURES, timing())
}

/// An xAPIC enabled by software, spurious vector 0xFF.
pub fn enabled(id: u32) -> Apic {
    let mut apic = fresh(id);
    assert_eq!(apic.write(SVR, 0x1FF, 0), Effect::SoftwareEnabled);
    apic
}

/// The same in x2APIC mode.
pub fn x2apic(id: u32) -> Apic {
    let mut apic = enabled(id);
    apic.write_apic_base(apic.apic_base() | 1 << 10).unwrap();
    assert_eq!(apic.mode(), Mode::X2Apic);
    apic
}

/// ESR, as software reads it: written first.
pub fn errors(apic: &mut Apic) -> u32 {
    let _ = apic.write(ESR, 0, 0);
    apic.read(ESR, 0)
}
