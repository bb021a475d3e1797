//! Channels that the worker offers and takes back.

use machine::verdict::{check, equal};
use slot_proto::Notice;
use tlfs::HvError;
use vmbus_client::{SINT, Wire};
use vmbus_proto::{MessageType, Offer, OfferFlags, Relid, Version, class};

use super::{Child, instance, plain};
use crate::group::vmbus::conversation::connect;
use crate::group::{need, refused};

/// Offers before and after the guest asks: the first, and its connection.
pub fn offers(child: &mut Child) -> Option<(Relid, u32)> {
    let worker = &mut child.wire.hand;
    let first = need("channels: an offer", worker.offer_of(plain(1, 0)))?;
    let wrong = HvError::INVALID_PARAMETER;
    let bad = [
        ("a sub-channel of nobody", plain(9, 1)),
        ("one of a channel that is not known", plain(1, 1)),
        (
            "an instance of another class",
            Offer {
                class: class::NETWORK,
                ..plain(1, 0)
            },
        ),
        (
            "flags",
            Offer {
                flags: OfferFlags::CONFIDENTIAL_RING,
                ..plain(3, 0)
            },
        ),
    ];
    for (name, offer) in bad {
        refused(
            format_args!("channels: {name}"),
            worker.offer_of(offer),
            wrong,
        );
    }
    connect(child, "channels", Version::V5_3);
    let list = child.offers().unwrap_or_default();
    let connection = first.0 | u32::from(SINT) << 12;
    check(
        "channels: the guest is offered it",
        list.len() == 1
            && list.iter().all(|offer| {
                offer.relid == first
                    && offer.instance == instance(1)
                    && offer.connection == connection
                    && offer.is_dedicated == 1
            }),
    );
    let second = need(
        "channels: an offer while it runs",
        child.wire.hand.offer_of(plain(2, 0)),
    );
    let come = child.wire.take().and_then(|said| said.offer());
    check(
        "channels: it comes unasked",
        come.is_some_and(|offer| Some(offer.relid) == second && offer.instance == instance(2)),
    );
    let sub = need(
        "channels: a sub-channel",
        child.wire.hand.offer_of(plain(1, 1)),
    );
    let come = child.wire.take().and_then(|said| said.offer());
    check(
        "channels: it comes, too",
        come.is_some_and(|offer| {
            Some(offer.relid) == sub && offer.sub_channel == 1 && offer.instance == instance(1)
        }),
    );
    Some((first, connection))
}

/// The guest hears of offers, and that they are no more, and lets go of each.
pub fn take_offers_back(child: &mut Child, offered: &[Relid]) {
    let come = offered
        .iter()
        .filter(|relid| {
            let said = child.wire.take().and_then(|said| said.offer());
            said.is_some_and(|offer| offer.relid == **relid)
        })
        .count();
    equal(
        "channels: all offers come",
        come as u64,
        offered.len() as u64,
    );
    let gone = offered.iter().all(|relid| {
        child.wire.hand.rescind(*relid).is_ok()
            && child.expect(MessageType::RESCIND_CHANNEL_OFFER).is_some()
            && child.release(*relid) == 0
            && child.wire.hand.notice() == Some(Notice::Released(*relid))
    });
    check("channels: and go", gone);
}
