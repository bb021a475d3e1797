//! Explicit suspension and frozen time.

use machine::verdict::{check, equal};
use tlfs::property::PropertyCode;
use tlfs::register::RegisterName as N;

use super::QUIET;
use crate::child::code;
use crate::child::guest::{Guest, Mode};
use crate::child::layout;
use crate::client::synic;
use crate::client::vp::PATIENCE;
use crate::group::need;

/// Stops and resumes a program that spins.
pub fn suspend(guest: &mut Guest) {
    need(
        "suspend: a spinning program",
        guest.start(0, Mode::Long, code::spin, &[]),
    );
    let rdi = N(N::RAX.0 + 7);
    need(
        "suspend: counter",
        guest.set_one(0, rdi, layout::DATA + 0x800),
    );
    need("suspend: go", guest.resume(0));
    let moves = |guest: &Guest| {
        let before = guest.read(layout::DATA + 0x800);
        synic::sleep_until(PATIENCE, || guest.read(layout::DATA + 0x800) != before)
    };
    check("suspend: it runs", moves(guest));
    need("suspend: stop", guest.suspend(0));
    let then = guest.read(layout::DATA + 0x800);
    synic::sleep(QUIET);
    equal("suspend: it stands", guest.read(layout::DATA + 0x800), then);
    equal(
        "suspend: the register says so",
        guest.reg(0, N::EXPLICIT_SUSPEND),
        1,
    );
    equal(
        "suspend: and no intercept",
        guest.reg(0, N::INTERCEPT_SUSPEND),
        0,
    );
    need("suspend: go", guest.resume(0));
    check("suspend: it runs again", moves(guest));
    for _ in 0..50 {
        if guest.suspend(0).is_err() || guest.resume(0).is_err() {
            check("suspend: fifty times", false);
            break;
        }
    }
    check("suspend: after fifty times it runs", moves(guest));
    need("suspend: stop", guest.suspend(0));
    equal("suspend: no message came of it", synic::drain() as u64, 0);
    // Frozen time stops VPs too.
    let freeze = PropertyCode::TIME_FREEZE;
    need("suspend: go", guest.resume(0));
    need("suspend: freeze", guest.set_property(freeze, 1));
    let then = guest.read(layout::DATA + 0x800);
    synic::sleep(QUIET);
    equal(
        "suspend: frozen, it stands",
        guest.read(layout::DATA + 0x800),
        then,
    );
    need("suspend: thaw", guest.set_property(freeze, 0));
    check("suspend: thawed, it runs", moves(guest));
    need("suspend: stop", guest.suspend(0));
}
