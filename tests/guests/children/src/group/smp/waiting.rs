//! Registers of a VP that waits for SIPI.

use machine::verdict::{check, equal};
use tlfs::MessageType;
use tlfs::register::RegisterName as N;

use crate::child::code;
use crate::child::guest::{Guest, Mode};
use crate::group::{destroy, need, stopped_for};

/// QEMU writes the registers of every AP before it is started; they must not start it.
pub fn waiting_set_registers() {
    let Some(mut guest) = need("waiting: a child of two VPs", Guest::new(2)) else {
        return;
    };
    equal(
        "waiting: VP 0 does not wait for SIPI",
        guest.reg(0, N::INTERNAL_ACTIVITY_STATE),
        0,
    );
    equal(
        "waiting: VP 1 does",
        guest.reg(1, N::INTERNAL_ACTIVITY_STATE),
        1,
    );
    need(
        "waiting: registers of VP 1",
        guest.start(1, Mode::Long, code::out_64, &[]),
    );
    need("waiting: let go", guest.resume(1));
    check(
        "waiting: it does not run",
        guest.stop_within(1, 20_000).is_none(),
    );
    need("waiting: suspended", guest.suspend(1));
    need(
        "waiting: activity state",
        guest.set_one(1, N::INTERNAL_ACTIVITY_STATE, 0),
    );
    let stop = guest.run(1);
    stopped_for(
        "waiting: then it runs",
        stop,
        MessageType::IO_PORT_INTERCEPT,
    );
    destroy("waiting", guest);
}
