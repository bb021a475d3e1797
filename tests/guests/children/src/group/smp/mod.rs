//! Several VPs in one child: how they start, interrupt each other, and flush each other's translations.

mod flushes;
mod interrupts;
mod start;
mod waiting;

use machine::platform::Platform;

use crate::child::runtime;
use crate::options::Options;
use flushes::flushes;
use interrupts::interrupts;
use start::{start_by_call, start_up};
use waiting::waiting_set_registers;

const VECTOR: u8 = 0x55;

/// Runs the group.
pub fn run(_: &Options, _: &Platform) {
    for (name, x2apic) in [("xAPIC", 0), ("x2APIC", 1)] {
        start_up(name, x2apic);
    }
    start_by_call();
    interrupts();
    flushes();
    waiting_set_registers();
}

fn to_x2apic() {
    runtime::wrmsr(0x1B, runtime::rdmsr(0x1B) | 1 << 10);
    runtime::wrmsr(0x80F, 0x1FF);
}

fn send(x2apic: bool, destination: u64, low: u64) {
    if x2apic {
        runtime::wrmsr(0x830, destination << 32 | low);
    } else {
        runtime::write32(0xFEE0_0310, (destination << 24) as u32);
        runtime::write32(0xFEE0_0300, low as u32);
    }
}
