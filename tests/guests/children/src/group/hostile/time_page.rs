//! The page of the reference TSC is moved and its frame taken away at once.

use core::sync::atomic::Ordering;

use machine::verdict::equal;
use tlfs::register::RegisterName as N;

use super::bystander::Bystander;
use crate::arena::FRAME;
use crate::child::guest::Guest;
use crate::child::layout;
use crate::child::runtime::{self, Shared};
use crate::client::partition::RWX;
use crate::client::vp::PATIENCE;
use crate::group::{destroy, need, stopped};

/// Two VPs move the reference TSC page at once: it must not be freed while it shows (Xen's advisory 472, CVE-2025-58143).
extern "sysv64" fn race_of_time_page(shared: &'static Shared) -> ! {
    let me = shared.index.load(Ordering::SeqCst);
    runtime::wrmsr(0x4000_0000, 0x8100_0007_0304_0000);
    let mut done = 0;
    let mut wrong = 0;
    while me != 0 || done < shared.arg(0) {
        done += 1;
        let page = layout::PAGES + (done + me) % 3 * 4096;
        runtime::wrmsr(0x4000_0021, page | 1);
        // Whatever shows at the three places: the page of the time, or what the parent wrote there.
        for n in 0..3 {
            let word = runtime::read(layout::PAGES + n * 4096 + 8);
            let is_time = word >> 48 != 0;
            wrong += u64::from(word != RACE_PATTERN && !is_time);
        }
        if done % 5 == 0 {
            runtime::wrmsr(0x4000_0021, 0);
        }
    }
    shared.set(0, wrong);
    runtime::wrmsr(0x4000_0021, 0);
    runtime::stop(0)
}

/// What the parent writes into the pages that the time page goes over.
const RACE_PATTERN: u64 = 0x0000_5AFE_5AFE_5AFE;

/// Frames go and come back while the child moves the page over them.
pub fn time_page_race(bystander: &Bystander, rounds: u64) {
    let name = "XSA-472: the time page of two VPs";
    let Some(mut guest) = need(format_args!("{name}: a child"), Guest::new(2)) else {
        return;
    };
    let before = bystander.rounds();
    for n in 0..3 {
        guest.write(layout::PAGES + n * FRAME + 8, RACE_PATTERN);
    }
    for vp in [1, 0] {
        need(
            format_args!("{name}: VP {vp}"),
            guest.start_entry(vp, race_of_time_page, &[rounds]),
        );
        need(
            format_args!("{name}: awake"),
            guest.set_one(vp, N::INTERNAL_ACTIVITY_STATE, 0),
        );
        need(format_args!("{name}: go"), guest.resume(vp));
    }
    // Meanwhile the parent takes the page below away and gives it back, and the time stands and goes on.
    let page = [guest.room + layout::PAGES + FRAME];
    let mut stop = None;
    for _ in 0..400 {
        stop = guest.stop_within(0, 5_000);
        if stop.is_some() {
            break;
        }
        let freeze = tlfs::PropertyCode::TIME_FREEZE;
        let _ = guest.set_property(freeze, 1);
        let _ = guest.unmap(layout::PAGES + FRAME, 1);
        let _ = guest.map(layout::PAGES + FRAME, &page, RWX);
        let _ = guest.set_property(freeze, 0);
    }
    let stop = stop.or_else(|| guest.stop_within(0, PATIENCE));
    stopped(format_args!("{name}: VP 0 comes to its end"), stop);
    equal(
        format_args!("{name}: it saw nothing else"),
        guest.shared(0).result(0),
        0,
    );
    let _ = guest.suspend(1);
    bystander.check(name, before);
    destroy(name, guest);
}
