//! Pages that are taken back from an open channel, and resets.

use machine::verdict::{check, equal};
use slot_proto::{Notice, ResetCause};
use tlfs::HvError;
use vmbus_client::Wire;
use vmbus_proto::{GpadlHandle, MessageType, Relid, Version};

use super::{Child, hears, open, plain};
use crate::group::vmbus::conversation::connect;
use crate::group::{need, refused};

/// Rescinds the open channel and its sub-channel, as the guest runs.
pub fn taken_back(child: &mut Child, relid: Relid, connection: u32) {
    let sub = need(
        "channels: the sub-channel",
        child.wire.hand.offer_of(plain(1, 1)),
    )
    .unwrap_or_default();
    let state = HvError::INVALID_PARTITION_STATE;
    refused(
        "channels: sub-channels go first",
        child.wire.hand.rescind(relid),
        state,
    );
    for relid in [sub, relid] {
        need("channels: taken back", child.wire.hand.rescind(relid));
        let said = child.expect(MessageType::RESCIND_CHANNEL_OFFER);
        equal(
            "channels: the guest is told which",
            said.map_or(u64::MAX, |said| said.word(0)),
            relid.0.into(),
        );
        refused(
            "channels: not free yet",
            child.wire.hand.offer_of(plain(1, u16::from(relid == sub))),
            state,
        );
        equal(
            "channels: a signal goes nowhere",
            child.wire.signal(connection, 0),
            0,
        );
        if relid != sub {
            check(
                "channels: closing it has no answer, tearing down has",
                child.close(relid) == 0
                    && child.tear_down(relid, GpadlHandle(1)) == 0
                    && child.is_torn_down(GpadlHandle(1)),
            );
        }
        equal("channels: let go", child.release(relid), 0);
        hears(child, "the worker is told", Notice::Released(relid));
    }
    let again = need(
        "channels: offered anew",
        child.wire.hand.offer_of(plain(1, 0)),
    );
    let come = child.wire.take().and_then(|said| said.offer());
    check(
        "channels: the guest gets it",
        come.is_some_and(|offer| Some(offer.relid) == again),
    );
}

/// A guest that comes anew, or goes, with a channel open: it waits for the worker.
pub fn resets(child: &mut Child) {
    for cause in [ResetCause::Contact, ResetCause::Unload] {
        connect(child, "channels", Version::V5_3);
        let list = child.offers().unwrap_or_default();
        equal("channels: both are offered", list.len() as u64, 2);
        let Some(relid) = list.last().map(|offer| offer.relid) else {
            return;
        };
        open(child, relid, 3);
        match cause {
            ResetCause::Contact => child.ask_for_contact(Version::V5_3),
            ResetCause::Unload => child.send(MessageType::UNLOAD, &[]),
        };
        hears(child, "the worker is asked", Notice::Reset(cause));
        check("channels: the guest waits", child.is_silent());
        refused(
            "channels: meanwhile nothing else is answered",
            child.wire.hand.close_done(relid),
            HvError::INVALID_PARTITION_STATE,
        );
        need("channels: RESET_DONE", child.wire.hand.reset_done());
        let is_answered = match cause {
            ResetCause::Contact => child.version().is_some_and(|said| said.payload[8] == 1),
            ResetCause::Unload => child.expect(MessageType::UNLOAD_RESPONSE).is_some(),
        };
        check("channels: it is answered", is_answered);
        refused(
            "channels: once",
            child.wire.hand.reset_done(),
            HvError::INVALID_PARTITION_STATE,
        );
    }
    connect(child, "channels", Version::V5_3);
    check(
        "channels: with nothing open nobody is asked",
        child.wire.hand.hears_nothing(),
    );
}
