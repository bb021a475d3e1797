//! Channels that are opened and closed, their signals, and the pages that are held for them.

use machine::verdict::{check, equal};
use slot_proto::Notice;
use tlfs::HvError;
use vmbus_client::Wire;
use vmbus_proto::{GpadlHandle, Relid, status};

use super::{Child, DOWNSTREAM, REFUSED, hears, is, open, ring};
use crate::child::layout;
use crate::client::synic;
use crate::group::{need, refused};

/// A channel is opened, and closed by each side.
pub fn openings(child: &mut Child, relid: Relid) {
    is("a GPADL", child.gpadl(relid, GpadlHandle(1), &ring(1)), 0);
    // The program's code is read-only, and the rest of the address space is nothing.
    is(
        "a GPADL beyond RAM",
        child.gpadl(relid, GpadlHandle(2), &[layout::DATA / 4096, 0x9_0000]),
        status::FAILURE,
    );
    let status = child.ask_to_open(relid, GpadlHandle(1), DOWNSTREAM, 0);
    equal("channels: to open is posted", status, 0);
    let notice = child.wire.hand.notice();
    check(
        format_args!("channels: the worker is asked # {notice:?}"),
        matches!(notice, Some(Notice::Open(of, opening)) if of == relid && opening.downstream_page == DOWNSTREAM),
    );
    check(
        "channels: until it says so nothing happens",
        child.is_silent(),
    );
    need(
        "channels: it refuses",
        child.wire.hand.opened(relid, REFUSED),
    );
    is("the guest is told", child.is_open(relid), REFUSED);
    check(
        "channels: its ring goes back",
        child.tear_down(relid, GpadlHandle(1)) == 0 && child.is_torn_down(GpadlHandle(1)),
    );
    // Closed before the worker answers.
    is(
        "a GPADL again",
        child.gpadl(relid, GpadlHandle(1), &ring(1)),
        0,
    );
    child.ask_to_open(relid, GpadlHandle(1), DOWNSTREAM, 0);
    let asked = child.wire.hand.notice();
    check(
        "channels: given up, as the worker is asked",
        matches!(asked, Some(Notice::Open(of, _)) if of == relid) && child.close(relid) == 0,
    );
    need("channels: which opens it", child.wire.hand.opened(relid, 0));
    hears(child, "and is to close it", Notice::Close(relid));
    check(
        "channels: the ring waits for that",
        child.tear_down(relid, GpadlHandle(1)) == 0 && child.is_silent(),
    );
    need("channels: done", child.wire.hand.close_done(relid));
    check(
        "channels: it comes back",
        child.is_torn_down(GpadlHandle(1)),
    );
}

/// Signals both ways.
pub fn signals(child: &mut Child, relid: Relid, connection: u32) {
    open(child, relid, 1);
    equal(
        "channels: the guest signals",
        child.wire.signal(connection, 0),
        0,
    );
    check(
        "channels: the worker sees it",
        child.wire.hand.is_signalled(relid),
    );
    equal(
        "channels: a flag that channels do not have",
        child.wire.signal(connection, 1),
        HvError::INVALID_PARAMETER.0.into(),
    );
    for (vp, status, name) in [
        (5, status::FAILURE, "moved to no VP"),
        (0, status::SUCCESS, "moved to a VP"),
    ] {
        is(name, child.modify(relid, vp), status);
    }
    let worker = &mut child.wire.hand;
    worker.signals.signal(relid);
    // Of channels that are not open, or not there.
    worker.signals.signal(Relid(relid.0 + 1));
    worker.signals.signal(Relid(2000));
    need("channels: the worker signals", worker.line.signal());
    synic::sleep(5_000);
    check(
        "channels: the guest sees it",
        child.wire.take_flag(relid.0 as u16),
    );
    check(
        "channels: and nothing else",
        !child.wire.take_flag(relid.0 as u16 + 1) && !child.wire.take_flag(2000),
    );
}

/// Pages of a GPADL cannot be unmapped, those beside it can.
pub fn held_pages(child: &mut Child, relid: Relid) {
    let (held, free) = (GpadlHandle(7), GpadlHandle(8));
    is("one to hold", child.gpadl(relid, held, &ring(7)), 0);
    is("one to leave", child.gpadl(relid, free, &ring(8)), 0);
    need("channels: held", child.wire.hand.hold(relid, held));
    check(
        "channels: what nobody holds goes back at once",
        child.tear_down(relid, free) == 0 && child.is_torn_down(free),
    );
    check(
        "channels: what is held does not",
        child.tear_down(relid, held) == 0 && child.is_silent(),
    );
    hears(
        child,
        "the worker is asked for it",
        Notice::GpadlTeardown(relid, held),
    );
    refused(
        "channels: not for another",
        child.wire.hand.gpadl_done(relid, free),
        HvError::INVALID_PARAMETER,
    );
    need("channels: gives", child.wire.hand.gpadl_done(relid, held));
    check("channels: it goes back", child.is_torn_down(held));
}
