//! Frames that the server may take.

use alloc::vec::Vec;

use machine::verdict::{check, note};
use tlfs::HvError;
use vmbus_proto::GpadlHandle;

use super::offers::take_offers_back;
use super::{Child, QUOTA, plain};
use crate::child::layout;

/// What GPADLs can use up, and get back.
pub fn quota(child: &mut Child) {
    const PAGES: u64 = 60;
    let Some(relid) = child
        .offers()
        .and_then(|list| list.first().map(|offer| offer.relid))
    else {
        check("channels: something is offered", false);
        return;
    };
    let pages: Vec<u64> = (0..PAGES).map(|n| layout::DATA / 4096 + n).collect();
    let mut before = None;
    for round in 0..3 {
        let mut made = 0;
        while made < 1000 && child.gpadl(relid, GpadlHandle(100 + made), &pages) == Some(0) {
            made += 1;
        }
        check(
            format_args!("channels: the quota has an end # {made}"),
            (8..1000).contains(&made),
        );
        check(
            "channels: it is the same again",
            before.is_none_or(|before| before == made),
        );
        before = Some(made);
        let mut offered = Vec::new();
        let refusal = (10..200).find_map(|n| match child.wire.hand.offer_of(plain(n, 0)) {
            Ok(relid) => {
                offered.push(relid);
                None
            }
            Err(error) => Some(error),
        });
        check(
            format_args!(
                "channels: nor is there room for all offers # {} {refusal:?}",
                offered.len()
            ),
            refusal == Some(HvError::INSUFFICIENT_MEMORY),
        );
        if round == 2 {
            break;
        }
        // Those offers go, so that each round has the same.
        take_offers_back(child, &offered);
        let gone = (0..made).all(|n| {
            child.tear_down(relid, GpadlHandle(100 + n)) == 0
                && child.is_torn_down(GpadlHandle(100 + n))
        });
        check("channels: all go back", gone);
    }
    note(format_args!(
        "channels: {before:?} GPADLs of {PAGES} pages in {QUOTA} frames"
    ));
}
