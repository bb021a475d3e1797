//! Sets of VPs that are malformed or name VPs that do not exist.

use machine::verdict::equal;
use tlfs::CallCode;

use super::bystander::Bystander;
use crate::child::guest::Guest;
use crate::child::layout;
use crate::child::runtime::{self, Shared};
use crate::group::{destroy, need, stopped};

/// Sets of VPs with every malformation: Xen's advisory 475 (VPs that do not exist, banks that are not there).
extern "sysv64" fn malformed_sets(shared: &'static Shared) -> ! {
    runtime::enable_calls();
    let head = |first: &[u64]| {
        for n in 0..80_u64 {
            let value = first.get(n as usize).copied().unwrap_or(u64::MAX);
            runtime::write(layout::CALL_INPUT + n * 8, value);
        }
    };
    let ipi = u64::from(CallCode::SEND_SYNTHETIC_CLUSTER_IPI_EX.0);
    let flush = u64::from(CallCode::FLUSH_VIRTUAL_ADDRESS_SPACE_EX.0);
    let list = u64::from(CallCode::FLUSH_VIRTUAL_ADDRESS_LIST_EX.0) | 1 << 32;
    let call = |control: u64| runtime::call_page(control, layout::CALL_INPUT, 0) & 0xFFFF;
    // All 64 banks with all VPs: those that there are not are passed over.
    head(&[0xF1, 0, u64::MAX]);
    shared.set(0, call(ipi | 64 << 17));
    // The last bank alone.
    head(&[0xF1, 0, 1 << 63]);
    shared.set(1, call(ipi | 1 << 17));
    // Banks named and not there; there and not named.
    head(&[0xF1, 0, u64::MAX]);
    shared.set(2, call(ipi | 1 << 17));
    shared.set(3, call(ipi));
    head(&[0xF1, 0, 1]);
    shared.set(4, call(ipi | 9 << 17));
    // No bank, no VP.
    head(&[0xF1, 0, 0]);
    shared.set(5, call(ipi));
    // A format that there is not.
    head(&[0xF1, 2, 1]);
    shared.set(6, call(ipi | 1 << 17));
    head(&[0xF1, u64::MAX, 1]);
    shared.set(7, call(ipi | 1 << 17));
    // The same for flushes.
    head(&[0, 0, 0, u64::MAX]);
    shared.set(8, call(flush | 64 << 17));
    shared.set(9, call(flush | 3 << 17));
    head(&[0, 0, 0, 1 << 63]);
    shared.set(10, call(list | 1 << 17));
    shared.set(11, call(list | 2 << 17));
    // The plain form with all 64 VPs.
    head(&[0xF1, u64::MAX]);
    shared.set(12, call(u64::from(CallCode::SEND_SYNTHETIC_CLUSTER_IPI.0)));
    runtime::stop(0)
}

/// Flushes and interrupts with each of them.
pub fn sparse_sets(bystander: &Bystander) {
    let name = "XSA-475: sets of VPs";
    let Some(mut guest) = need(format_args!("{name}: a child"), Guest::new(1)) else {
        return;
    };
    let before = bystander.rounds();
    need("XSA-475: start", guest.start_entry(0, malformed_sets, &[]));
    if stopped(
        format_args!("{name}: the child comes to its end"),
        guest.run(0),
    )
    .is_some()
    {
        let shared = guest.shared(0);
        for (n, what, wanted) in [
            (0, "64 banks of VPs that there are not", 0),
            (1, "the last bank alone", 0),
            (2, "64 banks named, one there", 3),
            (3, "64 banks named, none there", 3),
            (4, "one bank named, nine there", 3),
            (5, "nobody", 0),
            (6, "format 2", 5),
            (7, "format of all ones", 5),
            (8, "a flush on 64 banks", 0),
            (9, "a flush on too few banks", 3),
            (10, "a list with the last bank", 0),
            (11, "a list with a bank too many", 3),
            (12, "64 VPs in the plain form", 0),
        ] {
            equal(format_args!("{name}: {what}"), shared.result(n), wanted);
        }
    }
    bystander.check(name, before);
    destroy(name, guest);
}
