//! The local APIC, in xAPIC and in x2APIC mode.

mod forms;
mod modes;
mod priority;
mod registers;
mod timer;

pub use modes::enter_x2apic;

use core::sync::atomic::Ordering;

use crate::options::Options;
use machine::platform::Platform;
use machine::verdict::skip;
use machine::{apic, cpu};

/// Runs the tests of xAPIC mode.
pub fn run(_: &Options, _: &Platform) {
    apic::notice_mode();
    apic::quiet();
    forms::run();
    both_modes("xAPIC");
}

/// Runs the tests of x2APIC mode and of the ways in and out, as the last ones: Bochs' own APIC does not come back from
/// the way out, and the hypervisor's timers stop with it.
pub fn run_x2apic(_: &Options, _: &Platform) {
    apic::notice_mode();
    if !cpu::this().x2apic.load(Ordering::SeqCst) {
        apic::quiet();
        if !modes::enter_x2apic() {
            skip("apic: x2APIC mode", "the processor has none");
            return;
        }
    }
    modes::refusals();
    both_modes("x2APIC");
    if modes::leave_x2apic() {
        apic::quiet();
        priority::run("xAPIC again");
    }
    apic::quiet();
}

fn both_modes(mode: &str) {
    registers::run(mode);
    priority::run(mode);
    timer::run(mode);
    apic::quiet();
}
