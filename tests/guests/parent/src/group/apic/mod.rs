//! The local APIC, in xAPIC and in x2APIC mode.

mod forms;
mod modes;
mod priority;
mod registers;
mod timer;

use crate::machine::apic;
use crate::options::Options;
use crate::platform::Platform;
use crate::verdict::{note, skip};

/// Runs the group.
pub fn run(_: &Options, _: &Platform) {
    apic::notice_mode();
    apic::quiet();
    forms::run();
    both_modes("xAPIC");
    if modes::enter_x2apic() {
        both_modes("x2APIC");
        if !modes::leave_x2apic() {
            return;
        }
        apic::quiet();
        note(format_args!("xAPIC again"));
        priority::run("xAPIC again");
    } else {
        skip("apic: x2APIC mode", "the processor has none");
    }
    apic::quiet();
}

fn both_modes(mode: &str) {
    registers::run(mode);
    priority::run(mode);
    timer::run(mode);
    apic::quiet();
}
