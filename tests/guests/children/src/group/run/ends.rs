//! How a VP ends, and intercepts without a page for them.

use machine::clock;
use machine::verdict::{check, equal, note};
use tlfs::MessageType;
use tlfs::call::*;
use tlfs::register::RegisterName as N;

use super::QUIET;
use crate::child::code;
use crate::child::guest::{Guest, Mode};
use crate::child::layout;
use crate::client::partition::USUAL;
use crate::client::synic;
use crate::client::vp::PATIENCE;
use crate::group::{destroy, need, stopped, stopped_for};

/// The ways in which a VP ends.
pub fn ends() {
    let Some(mut guest) = need("ends: a child", Guest::new(1)) else {
        return;
    };
    need(
        "ends: start",
        guest.start(0, Mode::Long, code::triple_fault, &[]),
    );
    need("ends: no IDT", guest.set(0, &[(N::IDTR, 0)]));
    let kind = MessageType::UNRECOVERABLE_EXCEPTION;
    if let Some(stop) = stopped_for("ends: a triple fault stops", guest.run(0), kind) {
        equal("ends: at its RIP", stop.header().rip, layout::CODE);
    }
    // Registers that do not go together: long mode and paging without PAE.
    need("ends: start", guest.start(0, Mode::Long, code::out_64, &[]));
    need("ends: no PAE", guest.set_one(0, N::CR4, 0x600));
    let kind = MessageType::INVALID_VP_REGISTER;
    stopped_for("ends: an invalid state stops", guest.run(0), kind);
    need(
        "ends: registers mended",
        guest.start(0, Mode::Long, code::out_64, &[]),
    );
    stopped("ends: and it runs", guest.run(0));
    // HLT without interrupts: only the parent can end that.
    need(
        "ends: HLT without interrupts",
        guest.start(0, Mode::Long, code::halt_without_interrupts, &[]),
    );
    check(
        "ends: nothing comes of it",
        guest.run_for(0, QUIET).is_none(),
    );
    need("ends: suspended", guest.suspend(0));
    equal("ends: no intercept", guest.reg(0, N::INTERCEPT_SUSPEND), 0);
    need(
        "ends: registers",
        guest.start(0, Mode::Long, code::out_64, &[]),
    );
    need(
        "ends: awake",
        guest.set_one(0, N::INTERNAL_ACTIVITY_STATE, 0),
    );
    stopped("ends: woken by the parent", guest.run(0));
    // A spinning child is destroyed while it runs.
    need("ends: spin", guest.start(0, Mode::Long, code::spin, &[]));
    need("ends: go", guest.resume(0));
    synic::sleep(5_000);
    let start = clock::reference();
    destroy("ends: destroyed while it runs", guest);
    note(format_args!(
        "destruction took {} us",
        (clock::reference() - start) / 10
    ));
}

/// A partition without an intercept page gets whole messages.
pub fn full_messages() {
    let flags = USUAL.difference(CreateFlags::INTERCEPT_PAGE);
    let Some(mut guest) = need("messages: a child", Guest::with(flags, 1, |_| Ok(()))) else {
        return;
    };
    need(
        "messages: start",
        guest.start(0, Mode::Long, code::out_64, &[]),
    );
    need("messages: go", guest.resume(0));
    let id = guest.id.get();
    let message = synic::wait(PATIENCE, |message| message.sender == id);
    let name = "messages: the message itself arrives";
    if let Some(message) = stopped_for(name, message, MessageType::IO_PORT_INTERCEPT) {
        equal("messages: its length", message.length(), 2);
        equal(
            "messages: RAX",
            message.port().map_or(0, |port| port.rax),
            0x64,
        );
    }
    destroy("messages", guest);
}
