//! Lists of pages that make no sense, and openings of channels with them.

use alloc::vec::Vec;

use vmbus_client::Wire;
use vmbus_proto::{GpadlHandle, GpadlHeader, MessageType, OpenChannel, Relid};

use crate::controller::{HANDLE, RING_PAGES, ring_pages};
use crate::machine::RAM_END;
use crate::start::Child;
use crate::wire::{PATIENCE_100NS, SOON_100NS};

/// Pages that no list of this child may name: none there, an overlay's, an APIC's, and no number of a page at all.
const WRONG_PAGES: [u64; 5] = [RAM_END / 4096, 0xC_0000, 0xFEE00, 1 << 40, u64::MAX];

/// Every wrong list, every wrong opening, and each thing at the wrong time.
pub fn run(child: &mut Child) {
    let relid = child.channel.0;
    for wrong in WRONG_PAGES {
        let mut pages = ring_pages();
        pages[3] = wrong;
        let status = child.client.gpadl(relid, HANDLE, &pages);
        child.report.check(
            format_args!("a list with page {wrong:#x} is refused"),
            status.is_some_and(|status| status != 0),
        );
    }
    lists(child, relid);
    openings(child, relid);
    order(child, relid);
    child.client.release(relid);
    let is_back = comes_back(child);
    child
        .report
        .check("a controller that was let go of is offered anew", is_back);
}

/// Whether the disk is served after contact was made anew.
fn comes_back(child: &mut Child) -> bool {
    child.client.wire.patience_100ns = SOON_100NS;
    while child.client.wire.take().is_some() {}
    child.connect() && child.is_served()
}

fn lists(child: &mut Child, relid: Relid) {
    let header = GpadlHeader {
        relid,
        handle: GpadlHandle(0x31),
        range_bytes: 16,
        range_count: 1,
        byte_count: 4096,
        byte_offset: 0,
    };
    let page = ring_pages()[0].to_le_bytes();
    for (what, header, numbers) in [
        (
            "of no range",
            GpadlHeader {
                range_count: 0,
                ..header
            },
            1,
        ),
        (
            "of many ranges",
            GpadlHeader {
                range_count: u16::MAX,
                ..header
            },
            1,
        ),
        (
            "of no bytes",
            GpadlHeader {
                byte_count: 0,
                ..header
            },
            1,
        ),
        (
            "of more bytes than pages",
            GpadlHeader {
                byte_count: u32::MAX,
                ..header
            },
            1,
        ),
        (
            "of an offset beyond a page",
            GpadlHeader {
                byte_offset: 4096,
                ..header
            },
            1,
        ),
        (
            "of an offset that overflows",
            GpadlHeader {
                byte_offset: u32::MAX,
                ..header
            },
            1,
        ),
        (
            "of no length",
            GpadlHeader {
                range_bytes: 0,
                ..header
            },
            1,
        ),
        (
            "of an odd length",
            GpadlHeader {
                range_bytes: 17,
                ..header
            },
            2,
        ),
        (
            "longer than told",
            GpadlHeader {
                range_bytes: 16,
                ..header
            },
            20,
        ),
        (
            "of all lengths, without its rest",
            GpadlHeader {
                range_bytes: u16::MAX,
                byte_count: u32::MAX,
                ..header
            },
            26,
        ),
        (
            "of a channel that is none",
            GpadlHeader {
                relid: Relid(0xFFFF),
                ..header
            },
            1,
        ),
    ] {
        let mut body = header.encode().to_vec();
        for _ in 0..numbers {
            body.extend(page);
        }
        let _ = child.client.send(MessageType::GPADL_HEADER, &body);
        // A rest that nobody waits for, or that is not what it should be.
        let mut rest = 0x31_0000_0000_u64.to_le_bytes().to_vec();
        rest.extend([0xFF; 8 * 20]);
        let _ = child.client.send(MessageType::GPADL_BODY, &rest);
        let is_back = comes_back(child);
        child.report.check(
            format_args!("a list {what}: the channel comes back"),
            is_back,
        );
    }
    // As many as the server takes, and more.
    let mut refused = 0;
    child.client.wire.patience_100ns = PATIENCE_100NS;
    let pages: Vec<u64> = (0..400).map(|page| 0x1000 + page).collect();
    for number in 0..2000 {
        match child
            .client
            .gpadl(relid, GpadlHandle(0x1000 + number), &pages)
        {
            Some(0) => {}
            Some(_) => {
                refused = number;
                break;
            }
            None => break,
        }
    }
    child.report.check(
        format_args!("lists without end: one is refused, after {refused}"),
        refused > 0,
    );
    let is_back = comes_back(child);
    child
        .report
        .check("lists without end: the channel comes back", is_back);
}

fn openings(child: &mut Child, relid: Relid) {
    let good = OpenChannel {
        relid,
        open_id: 7,
        ring: HANDLE,
        vp: 0,
        downstream_page: RING_PAGES as u32,
        ..OpenChannel::default()
    };
    for (what, opening) in [
        (
            "with a list that is none",
            OpenChannel {
                ring: GpadlHandle(0x77),
                ..good
            },
        ),
        (
            "without a ring to the provider",
            OpenChannel {
                downstream_page: 0,
                ..good
            },
        ),
        (
            "with one page of it",
            OpenChannel {
                downstream_page: 1,
                ..good
            },
        ),
        (
            "with one page of the other",
            OpenChannel {
                downstream_page: 9,
                ..good
            },
        ),
        (
            "without a ring from it",
            OpenChannel {
                downstream_page: 10,
                ..good
            },
        ),
        (
            "beyond its list",
            OpenChannel {
                downstream_page: u32::MAX,
                ..good
            },
        ),
        ("for a VP that is none", OpenChannel { vp: 77, ..good }),
        (
            "of a channel that is none",
            OpenChannel {
                relid: Relid(0x7FF),
                ..good
            },
        ),
    ] {
        child.client.wire.patience_100ns = PATIENCE_100NS;
        let created = child.client.gpadl(relid, HANDLE, &ring_pages());
        let status = child
            .client
            .send(MessageType::OPEN_CHANNEL, &opening.encode());
        let said = child.client.expect(MessageType::OPEN_CHANNEL_RESULT);
        child.report.check(
            format_args!("an opening {what} is refused"),
            created == Some(0) && status == 0 && said.is_some_and(|said| said.word(2) != 0),
        );
        let is_back = comes_back(child);
        child.report.check(
            format_args!("an opening {what}: the channel comes back"),
            is_back,
        );
    }
}

/// Each message at a time at which nobody expects it, while the channel is open.
fn order(child: &mut Child, relid: Relid) {
    let pages = ring_pages();
    for what in [
        "opened twice",
        "whose list is taken back while it is open",
        "whose list is told twice",
        "closed twice",
        "whose number is released while it is open",
        "moved to a VP that is none",
        "left open for a new contact",
        "left open for an unload",
    ] {
        child.client.wire.patience_100ns = PATIENCE_100NS;
        let created = child.client.gpadl(relid, HANDLE, &pages);
        let opened = child.client.open(relid, HANDLE, RING_PAGES as u32, 0);
        child.client.wire.patience_100ns = SOON_100NS;
        let client = &mut child.client;
        match what {
            "opened twice" => drop(client.ask_to_open(relid, HANDLE, RING_PAGES as u32, 0)),
            "whose list is taken back while it is open" => drop(client.tear_down(relid, HANDLE)),
            "whose list is told twice" => drop(client.gpadl(relid, HANDLE, &pages)),
            "closed twice" => {
                client.close(relid);
                client.close(relid);
                client.tear_down(relid, HANDLE);
                client.tear_down(relid, HANDLE);
            }
            "whose number is released while it is open" => drop(client.release(relid)),
            "moved to a VP that is none" => drop(client.modify(relid, 99)),
            "left open for an unload" => drop(client.unload()),
            _ => {}
        }
        let is_back = comes_back(child);
        child.report.check(
            format_args!("a channel {what} comes back"),
            created == Some(0) && opened == Some(0) && is_back,
        );
    }
}
