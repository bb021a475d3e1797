//! The parent's interface is reset with children running: all of them go, and every frame is the parent's again.

use alloc::vec::Vec;

use machine::platform::Platform;
use machine::verdict::{check, equal, note};
use machine::{clock, insn};

use super::need;
use crate::arena;
use crate::child::code;
use crate::child::guest::{Guest, Mode};
use crate::client::partition::{RWX, children};
use crate::client::{call, synic};
use crate::options::Options;

const CHILDREN: usize = 8;
const PATTERN: u64 = 0x0123_4567_89AB_CDEF;

/// Runs the group.
pub fn run(_: &Options, _: &Platform) {
    let mut guests = Vec::new();
    for n in 0..CHILDREN {
        let Some(mut guest) = need(format_args!("reset: child {n}"), Guest::new(1)) else {
            return;
        };
        need("reset: start", guest.start(0, Mode::Long, code::spin, &[]));
        need("reset: go", guest.resume(0));
        guests.push(guest);
    }
    synic::sleep(50_000);
    let start = clock::reference();
    call::disable();
    let took = (clock::reference() - start) / 10;
    let pools: Vec<u64> = guests
        .iter()
        .flat_map(|guest| guest.deposited.iter().copied())
        .collect();
    let dirty = pools
        .iter()
        .filter(|frame| !arena::is_filled(**frame, 0))
        .count();
    equal(
        "reset: frames of the pools that are not clean",
        dirty as u64,
        0,
    );
    for frame in &pools {
        insn::write_phys64(*frame + 8, PATTERN);
    }
    let lost = pools
        .iter()
        .filter(|frame| insn::read_phys64(**frame + 8) != PATTERN)
        .count();
    equal(
        "reset: frames that are not the parent's again",
        lost as u64,
        0,
    );
    let counters = |guests: &[Guest]| -> Vec<u64> {
        guests
            .iter()
            .map(|guest| guest.read(crate::child::layout::SHARED))
            .collect()
    };
    let then = counters(&guests);
    synic::sleep(20_000);
    check("reset: nothing runs any more", counters(&guests) == then);
    check("reset: the interface comes back", call::enable());
    synic::set_up();
    synic::drain();
    equal("reset: no child is left", children().len() as u64, 0);
    note(format_args!("it took {took} us for {CHILDREN} children"));
    for guest in guests {
        guest.forget();
    }
    // And a child can be made as ever, of the same frames.
    let Some(mut guest) = need("reset: another child", Guest::new(1)) else {
        return;
    };
    need(
        "reset: start",
        guest.start(0, Mode::Long, code::out_64, &[]),
    );
    super::stopped("reset: it runs", guest.run(0));
    let frame = arena::frame();
    need(
        "reset: it gets more memory",
        guest.map(0x40_0000, &[frame], RWX),
    );
    super::destroy("reset", guest);
    arena::free(frame);
}
