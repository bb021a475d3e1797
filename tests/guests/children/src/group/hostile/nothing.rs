//! Pages of nothing as tables and overlays.

use machine::clock;
use machine::verdict::equal;

use super::bystander::Bystander;
use crate::arena;
use crate::child::code::PORT;
use crate::child::guest::Guest;
use crate::child::runtime::{self, Shared};
use crate::client::partition::RWX;
use crate::group::run::skip;
use crate::group::{destroy, need, stopped};

/// Pages that are not there when the hypervisor wants to write to them: Xen's advisory 472.
extern "sysv64" fn pages_of_nothing(shared: &'static Shared) -> ! {
    runtime::enable_calls();
    runtime::wrmsr(0x1B, runtime::rdmsr(0x1B) | 1 << 10);
    runtime::wrmsr(0x80F, 0x1FF);
    let ticks = shared.arg(0);
    // A timer's message with the message page disabled, and with one that lies where nothing is mapped.
    runtime::wrmsr(0x4000_0080, 1);
    runtime::wrmsr(0x4000_0092, 0x77);
    for page in [0, 0x30_0000 | 1, 1 << 44 | 1, 1] {
        shared.set(1, runtime::try_wrmsr(0x4000_0083, page).into());
        runtime::wrmsr(0x4000_00B0, 0b1001 | 2 << 16);
        runtime::wrmsr(0x4000_00B1, runtime::rdmsr(0x4000_0020) + 1000);
        runtime::spin_until(ticks, || false);
    }
    runtime::try_wrmsr(0x4000_0083, 0);
    // The reference TSC page on nothing, while the parent changes the time.
    for page in [0x30_0000 | 1, 1 << 44 | 1, 1] {
        runtime::try_wrmsr(0x4000_0021, page);
        runtime::pause(1);
        runtime::spin_until(ticks, || false);
    }
    // And left there at the end.
    runtime::try_wrmsr(0x4000_0021, 0x30_0000 | 1);
    shared.set(0, 1);
    runtime::stop(0)
}

/// Nothing, null pages and what is no memory, named where a page is wanted.
pub fn null_pages(bystander: &Bystander) {
    let name = "XSA-472: pages of nothing";
    let Some(mut guest) = need(format_args!("{name}: a child"), Guest::new(1)) else {
        return;
    };
    let before = bystander.rounds();
    let freeze = tlfs::PropertyCode::TIME_FREEZE;
    need(
        "XSA-472: start",
        guest.start_entry(0, pages_of_nothing, &[clock::ticks(2_000)]),
    );
    let mut stop = guest.run(0);
    let mut changes = 0;
    while let Some(at) = stop.filter(|at| at.is_out(PORT)) {
        // The time changes under the page: it is written anew, or would be.
        let _ = guest.set_property(freeze, 1);
        let _ = guest.set_property(freeze, 0);
        // And the place of the page is mapped and taken away.
        let frame = arena::frame();
        let _ = guest.map(0x30_0000, &[frame], RWX);
        let _ = guest.unmap(0x30_0000, 1);
        arena::free(frame);
        changes += 1;
        stop = skip(&guest, 0, &at, &[]);
    }
    stopped(format_args!("{name}: the child comes to its end"), stop);
    equal(
        format_args!("{name}: the time changed three times"),
        changes,
        3,
    );
    equal(
        format_args!("{name}: nothing was lost"),
        guest.shared(0).result(0),
        1,
    );
    bystander.check(name, before);
    destroy(name, guest);
}
