//! What was unmapped is gone on all processors when the call returns.

use machine::platform::Platform;
use machine::verdict::{check, equal, note, skip};
use machine::{clock, insn};
use tlfs::MessageType;
use tlfs::call::*;

use super::{BASE, RDI};
use crate::arena;
use crate::child::code;
use crate::child::guest::{Guest, Mode};
use crate::client::partition::RWX;
use crate::client::synic;
use crate::client::vp::PATIENCE;
use crate::group::{need, stopped_for};

/// A page goes while the child uses it.
pub fn revocation(guest: &mut Guest, platform: &Platform) {
    let (frame, other) = (arena::frame(), arena::frame());
    for (name, spins) in [("halting", false), ("spinning", true)] {
        if spins && platform.processors().len() < 2 {
            skip("revocation: the parent spins", "one processor");
            continue;
        }
        let wait = |us: u64, done: &dyn Fn() -> bool| {
            if spins {
                insn::sti();
                let came = clock::wait_for(us, done);
                insn::cli();
                came
            } else {
                synic::sleep_until(us, done)
            }
        };
        need("revocation: map", guest.map(BASE, &[frame], RWX));
        let registers = [(RDI, u128::from(BASE))];
        need(
            "revocation: spin",
            guest.start(0, Mode::Long, code::spin, &registers),
        );
        let before = insn::read_phys64(frame);
        need("revocation: go", guest.resume(0));
        let moves = || insn::read_phys64(frame) != before;
        check(
            format_args!("revocation: the child writes, the parent {name}"),
            wait(PATIENCE, &moves),
        );
        let start = clock::reference();
        // Without a deposit, the one call that must be synchronous.
        let result = guest.map_once(BASE, &[0], MapFlags::NO_ACCESS);
        let then = insn::read_phys64(frame);
        note(format_args!(
            "it took {} us",
            (clock::reference() - start) / 10
        ));
        equal("revocation: taken away", result.code(), 0);
        wait(2_000, &|| false);
        equal(
            "revocation: no write after the call returned",
            insn::read_phys64(frame),
            then,
        );
        let stop = guest.stop_within(0, PATIENCE);
        stopped_for(
            "revocation: the child stops",
            stop,
            MessageType::GPA_INTERCEPT,
        );
        // Replaced rather than taken away.
        need("revocation: map", guest.map(BASE, &[frame], RWX));
        let before = insn::read_phys64(frame);
        need("revocation: go", guest.resume(0));
        check(
            "revocation: it goes on",
            wait(PATIENCE, &|| insn::read_phys64(frame) != before),
        );
        need("revocation: another frame", guest.map(BASE, &[other], RWX));
        let then = insn::read_phys64(frame);
        let before = insn::read_phys64(other);
        check(
            "revocation: it writes to the new frame",
            wait(PATIENCE, &|| insn::read_phys64(other) != before),
        );
        equal(
            "revocation: and not to the old",
            insn::read_phys64(frame),
            then,
        );
        need("revocation: stop", guest.suspend(0));
        need("revocation: unmap", guest.unmap(BASE, 1));
    }
    arena::free(frame);
    arena::free(other);
}
