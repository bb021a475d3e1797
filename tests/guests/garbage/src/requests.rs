//! Packets that are in order, with requests in them that are not. Each has one answer.

use alloc::vec::Vec;

use ring_proto::{GpaDirect, GpaRange};
use storvsp_proto::{DataDirection, Operation, Packet};

use crate::controller::{Controller, SECTOR, range, srb};
use crate::machine::{DATA, RAM_END};
use crate::start::{Child, Noise};
use crate::wire::SOON_100NS;

/// Rounds of noise.
const ROUNDS: u64 = 200;
/// Offset of the request in its packet, and of fields in it.
const BODY: usize = 12;

type Case = (&'static str, Vec<u8>, Vec<u8>);

/// All requests on one channel, which is open to the end.
pub fn run(child: &mut Child) {
    let Some(mut controller) = Controller::open(&mut child.client, child.channel) else {
        child.report.check("requests: the channel opens", false);
        return;
    };
    let mut silent = None;
    let mut answers = 0;
    for (what, header, payload) in cases() {
        match controller.ask(&header, &payload) {
            Some(_) => answers += 1,
            None => silent = silent.or(Some(what)),
        }
    }
    let is_quiet = controller.receive(SOON_100NS).is_none();
    let is_whole = controller.first_sector(DataDirection::Read);
    let is_closed = controller.close();
    child.report.check(
        format_args!(
            "requests: each of {answers} is answered (first that is not: {})",
            silent.unwrap_or("none")
        ),
        silent.is_none(),
    );
    child.report.check("requests: once", is_quiet);
    child
        .report
        .check("requests: the same channel still serves", is_whole);
    let is_served = is_closed && child.is_served();
    child.report.check(
        "requests: and opens anew, with the sector as it was",
        is_served,
    );
}

fn cases() -> Vec<Case> {
    let mut cases: Vec<Case> = Vec::new();
    let page = DATA / 4096 + 1;
    let good = range(SECTOR, 0, &[page]);
    let read = srb(DataDirection::Read, &[0x28, 0, 0, 0, 0, 1, 0, 0, 1, 0]).to_vec();
    for (what, header) in [
        (
            "a page that nobody has",
            range(SECTOR, 0, &[RAM_END / 4096 + 7]),
        ),
        ("a page above all", range(SECTOR, 0, &[u64::MAX])),
        ("a page number that overflows", range(SECTOR, 0, &[1 << 52])),
        ("the APIC", range(SECTOR, 0, &[0xFEE00])),
        ("an offset beyond the page", range(SECTOR, 4096, &[page])),
        ("an offset that overflows", range(SECTOR, u32::MAX, &[page])),
        ("an end beyond the page", range(SECTOR, 4095, &[page])),
        ("an odd offset", range(SECTOR, 3, &[page])),
        ("more bytes than pages", range(u32::MAX, 0, &[page])),
        ("no bytes", range(0, 0, &[page])),
        ("more bytes than asked for", range(4096, 0, &[page])),
        ("pages too many", range(SECTOR, 0, &[page, page, page])),
        ("no page", range(SECTOR, 0, &[])),
        ("no range", GpaDirect::encode(0).to_vec()),
        ("ranges without end", GpaDirect::encode(u32::MAX).to_vec()),
        ("two ranges", {
            let mut header = GpaDirect::encode(2).to_vec();
            for _ in 0..2 {
                header.extend(GpaRange::encode(SECTOR, 0));
                header.extend(page.to_le_bytes());
            }
            header
        }),
        ("no header", Vec::new()),
    ] {
        cases.push((what, header, read.clone()));
    }
    for length in [0, 1, 11, 12, 13, 63] {
        cases.push(("a request cut short", good.clone(), read[..length].to_vec()));
    }
    for operation in [0, 1, 2, 11, 12, 14, 99, u32::MAX] {
        let packet = Packet::notice(Operation(operation)).encode();
        cases.push(("an operation that is none", Vec::new(), packet.to_vec()));
    }
    for at in BODY..read.len() {
        // Not the command: a write that was meant would be carried out.
        if (BODY + 20..BODY + 36).contains(&at) {
            continue;
        }
        for byte in [0xFF, 0x80] {
            let mut payload = read.clone();
            payload[at] = byte;
            cases.push(("a byte of the request", good.clone(), payload));
        }
    }
    for (what, cdb) in [
        (
            "a read beyond the end",
            &[0x28, 0, 0xFF, 0xFF, 0xFF, 0xFF, 0, 0xFF, 0xFF, 0][..],
        ),
        (
            "a read of all blocks",
            &[
                0x88, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xFF, 0xFF, 0xFF, 0xFF, 0, 0,
            ],
        ),
        (
            "a read that overflows",
            &[
                0x88, 0, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0, 0, 0, 2, 0, 0,
            ],
        ),
        ("an unmap of noise", &[0x42, 0, 0, 0, 0, 0, 0, 2, 0, 0]),
        (
            "a write of the same beyond the end",
            &[0x93, 8, 0xFF, 0, 0, 0, 0, 0, 0, 0, 0xFF, 0, 0, 0, 0, 0],
        ),
        ("an empty command", &[]),
    ] {
        cases.push((what, good.clone(), srb(DataDirection::Write, cdb).to_vec()));
        cases.push((what, good.clone(), srb(DataDirection::Read, cdb).to_vec()));
    }
    let mut noise = Noise(0x5EED);
    for _ in 0..ROUNDS {
        let mut payload = read.clone();
        for byte in &mut payload {
            *byte = noise.next() as u8;
        }
        // An operation in half of them, and a logical unit that nobody has.
        if noise.next() & 1 == 0 {
            payload[..4].copy_from_slice(&3_u32.to_le_bytes());
        }
        payload[BODY + 7] |= 0x20;
        cases.push(("noise", range(SECTOR, 0, &[page]), payload));
    }
    cases
}
