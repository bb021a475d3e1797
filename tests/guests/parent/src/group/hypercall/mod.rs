//! The hypercall interface (TLFS, "Hypercall Interface").

pub mod call;
pub mod errors;
pub mod page;

use crate::options::Options;
use machine::platform::Platform;
use machine::verdict::{check, note};

/// Runs the group.
pub fn run(_: &Options, platform: &Platform) {
    if !check(
        "hypercall: the machine runs under Hyper-V's interface",
        page::offered(),
    ) {
        note(format_args!("the rest of the group is left out"));
        return;
    }
    page::rules();
    let Some(address) = page::enable() else {
        check("hypercall: the page can be enabled", false);
        return;
    };
    call::registers(address);
    call::placement();
    errors::control_word(address);
    errors::addresses(address, platform);
    errors::calls(address);
    page::disable();
}
