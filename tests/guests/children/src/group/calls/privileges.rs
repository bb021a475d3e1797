//! What a child may call.

use hypercall::CALLS;
use machine::verdict::{equal, note};
use tlfs::HvError;

use crate::child::guest::Guest;
use crate::child::layout;
use crate::child::runtime::{self, Shared};
use crate::group::{need, stopped};

/// Makes every call of the table from a child; result n is the status of the n-th.
extern "sysv64" fn call_everything(shared: &'static Shared) -> ! {
    runtime::enable_calls();
    let count = shared.arg(0);
    for n in 0..count {
        // The parent left control words in a page.
        let control = runtime::read(layout::DATA + n * 8);
        let status = runtime::call_page(control, layout::CALL_INPUT, layout::CALL_OUTPUT);
        runtime::write(layout::DATA + 0x1000 + n * 8, status);
    }
    runtime::stop(0)
}

/// A child makes every call of the table: those that it may not make are denied.
pub fn privileges(guest: &mut Guest) {
    let specs = CALLS.specs();
    for (n, spec) in specs.iter().enumerate() {
        let once = if spec.shape.rep.is_some() { 1 << 32 } else { 0 };
        guest.write(layout::DATA + n as u64 * 8, u64::from(spec.code.0) | once);
    }
    need(
        "privileges: start",
        guest.start_entry(0, call_everything, &[specs.len() as u64]),
    );
    if stopped("privileges: a child makes every call", guest.run(0)).is_none() {
        return;
    }
    let child = tlfs::SyntheticFeatures::ASSIGNABLE.meaning().0;
    let mut wrong = 0;
    for (n, spec) in specs.iter().enumerate() {
        let status = guest.read(layout::DATA + 0x1000 + n as u64 * 8) & 0xFFFF;
        let denied = status == u64::from(HvError::ACCESS_DENIED.0);
        if denied == child.contains(spec.privilege) {
            note(format_args!("{} from a child: {status:#x}", spec.name));
            wrong += 1;
        }
    }
    equal(
        "privileges: calls that a child may make and may not, or the other way",
        wrong,
        0,
    );
}
