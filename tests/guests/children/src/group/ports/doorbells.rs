//! Doorbells: which writes ring, and the ring of events that tells of them.
#![expect(unsafe_code, reason = "a child's stores are assembly")]

use addr::Gpa;
use machine::insn;
use machine::verdict::{check, equal};
use tlfs::call::*;
use tlfs::register::RegisterName as N;
use tlfs::state::event_ring as ring;
use tlfs::{CallCode, HvError, MessageType, msr};

use super::{AWAY, BELLS, PARENT};
use crate::child::code::{self, Program};
use crate::child::guest::{Guest, Mode};
use crate::child::layout;
use crate::client::call;
use crate::client::port::{connect, create, delete, disconnect, info, own};
use crate::client::synic;
use crate::group::{need, refused};
use crate::program;

program!(store_8, ".code64": "mov [rsi], al", "out 0xF0, al", "2:", "hlt", "jmp 2b");
program!(store_16, ".code64": "mov [rsi], ax", "out 0xF0, al", "2:", "hlt", "jmp 2b");
program!(store_32, ".code64": "mov [rsi], eax", "out 0xF0, al", "2:", "hlt", "jmp 2b");
program!(store_constant, ".code64": "mov qword ptr [rsi], -2", "out 0xF0, al", "2:", "hlt", "jmp 2b");
program!(store_string, ".code64": "mov rdi, rsi", "stosd", "out 0xF0, al", "2:", "hlt", "jmp 2b");
program!(store_strings, ".code64": "mov rdi, rsi", "mov ecx, 2", "rep stosd", "out 0xF0, al", "2:", "hlt", "jmp 2b");
program!(add, ".code64": "add [rsi], eax", "out 0xF0, al", "2:", "hlt", "jmp 2b");

/// Whether the store of `value` at `gpa` rings; `None` when something else happens.
pub fn rings(guest: &mut Guest, program: Program, gpa: u64, value: u64) -> Option<bool> {
    let registers = [(N(N::RAX.0 + 6), gpa.into()), (N::RAX, value.into())];
    guest.start(0, Mode::Long, program, &registers).ok()?;
    let stop = guest.run(0)?;
    match stop.kind {
        MessageType::UNMAPPED_GPA => Some(false),
        _ => stop.is_out(code::STOP).then_some(true),
    }
}

/// Empties the ring of events at `page`.
pub fn clear(page: u64) {
    for word in 0..ring::BYTES as u64 / 4 {
        insn::write_mmio32(page + word * 4, 0);
    }
}

fn told() -> bool {
    let told = synic::wait(200_000, |message| {
        message.kind == MessageType::SINT_INTERCEPT
    });
    told.is_some_and(|message| message.payload[0] == BELLS)
}

/// Writes that ring and that do not, a mask, a full ring, and ports that go.
pub fn doorbells(guest: &mut Guest, page: u64) {
    let id = guest.id;
    let bell = |gpa, value, bytes| {
        ConnectionKind::Doorbell(Doorbell {
            gpa: Gpa::new(gpa),
            value,
            bytes,
        })
    };
    let kinds = [
        (0x51, bell(AWAY, Some(0x1122_3344), Some(4))),
        (0x52, bell(AWAY, None, Some(2))),
        (0x53, bell(AWAY + 8, Some(0xAB), None)),
        (0x54, bell(AWAY + 16, None, None)),
        (0x55, bell(layout::DATA, None, None)),
    ];
    for (port, kind) in kinds {
        let made = own(|| create(PARENT, port, id, info(PortKind::Doorbell, BELLS)));
        need("doorbells: a port", made);
        need(
            "doorbells: a connection",
            guest.feed(|_| connect(id, port, PARENT, port, kind)),
        );
    }
    refused(
        "doorbells: one for the same writes",
        guest.feed(|_| {
            connect(
                id,
                0x99,
                PARENT,
                0x51,
                bell(AWAY, Some(0x1122_3344), Some(4)),
            )
        }),
        HvError::INVALID_PARAMETER,
    );
    let entry = |n: u64| page + ring::ENTRIES as u64 + n % ring::ENTRY_COUNT as u64 * 4;
    // The hypervisor's cursor is its own: the first entry shows it.
    clear(page);
    check(
        "doorbells: the first",
        rings(guest, store_16, AWAY, 1) == Some(true),
    );
    check("doorbells: the first is told", told());
    let first = (0..ring::ENTRY_COUNT as u64).find(|n| insn::read_mmio32(entry(*n)) != 0);
    let Some(first) = first else {
        check("doorbells: the first is in the ring", false);
        return;
    };
    insn::write_mmio32(entry(first), 0);
    let mut cursor = first + 1;
    let cases: [(&str, Program, u64, u64, u32); 12] = [
        ("four bytes of the value", store_32, AWAY, 0x1122_3344, 0x51),
        ("four bytes of another", store_32, AWAY, 0x1122_3345, 0),
        ("two bytes of any", store_16, AWAY, 0x3344, 0x52),
        ("one byte", store_8, AWAY, 0x44, 0),
        ("any width, one byte", store_8, AWAY + 8, 0xFFAB, 0x53),
        (
            "any width, eight bytes",
            code::write_rsi,
            AWAY + 8,
            0xAB,
            0x53,
        ),
        (
            "eight bytes of another",
            code::write_rsi,
            AWAY + 8,
            0xFFAB,
            0,
        ),
        ("a constant", store_constant, AWAY + 16, 0, 0x54),
        ("STOS", store_string, AWAY + 16, 1, 0x54),
        ("REP STOS", store_strings, AWAY + 16, 1, 0),
        ("ADD", add, AWAY + 16, 1, 0),
        ("beside it", store_8, AWAY + 17, 1, 0),
    ];
    for (name, program, gpa, value, port) in cases {
        let found = rings(guest, program, gpa, value);
        check(
            format_args!("doorbells: {name} # {found:?}"),
            found == Some(port != 0),
        );
        if port != 0 {
            let got = insn::read_mmio32(entry(cursor));
            equal(
                format_args!("doorbells: {name}: in the ring"),
                got.into(),
                port.into(),
            );
            check(format_args!("doorbells: {name}: told"), told());
            insn::write_mmio32(entry(cursor), 0);
            cursor += 1;
        }
    }
    let read = rings(guest, code::read_rsi, AWAY + 16, 0);
    check("doorbells: a read does not ring", read == Some(false));
    guest.write(layout::DATA, 0);
    check(
        "doorbells: memory goes first",
        rings(guest, store_8, layout::DATA, 7) == Some(true),
    );
    equal("doorbells: memory is written", guest.read(layout::DATA), 7);
    equal(
        "doorbells: and does not ring",
        insn::read_mmio32(entry(cursor)).into(),
        0,
    );

    // Masked: no message. Then full: the rest is kept, once for each port.
    let signal_masked = page + ring::SIGNAL_MASKED as u64;
    insn::write_mmio32(signal_masked, 1);
    for _ in 0..ring::ENTRY_COUNT {
        rings(guest, store_16, AWAY, 1);
    }
    check("doorbells: a mask is kept to", !told());
    let full = || insn::read_mmio32(page) >> 8 & 0xFF != 0;
    check("doorbells: the ring is full but for the flag", !full());
    for (program, gpa) in [
        (store_8 as Program, AWAY + 16),
        (store_16, AWAY),
        (store_8, AWAY + 16),
    ] {
        check(
            "doorbells: a full ring rings",
            rings(guest, program, gpa, 1) == Some(true),
        );
    }
    check("doorbells: the flag", full());
    let all = (0..ring::ENTRY_COUNT as u64).all(|n| insn::read_mmio32(entry(n)) == 0x52);
    check("doorbells: nothing is overwritten", all);
    insn::write_mmio32(page, 0);
    for n in 0..ring::ENTRY_COUNT as u64 {
        insn::write_mmio32(entry(n), 0);
    }
    let empty = |sint: u8| call::fast(CallCode::NOTIFY_PORT_RING_EMPTY, sint.into(), 0);
    refused(
        "doorbells: no such ring",
        empty(16),
        HvError::INVALID_PARAMETER,
    );
    need("doorbells: it is empty", empty(BELLS));
    check("doorbells: what was kept is told", told());
    for wanted in [0x54, 0x52, 0] {
        equal(
            "doorbells: what was kept",
            insn::read_mmio32(entry(cursor)).into(),
            wanted,
        );
        insn::write_mmio32(entry(cursor), 0);
        cursor += 1;
    }

    // Nobody hears: the parent answers.
    need("doorbells: a port goes", delete(PARENT, 0x52));
    check(
        "doorbells: without it the parent answers",
        rings(guest, store_16, AWAY, 1) == Some(false),
    );
    insn::wrmsr(msr::SIRBP, insn::rdmsr(msr::SIRBP) & !1);
    check(
        "doorbells: so without a page",
        rings(guest, store_8, AWAY + 16, 1) == Some(false),
    );
    insn::wrmsr(msr::SIRBP, insn::rdmsr(msr::SIRBP) | 1);
    check(
        "doorbells: with it again",
        rings(guest, store_8, AWAY + 16, 1) == Some(true),
    );
    need("doorbells: disconnect", disconnect(id, 0x54, true));
    refused(
        "doorbells: once",
        disconnect(id, 0x54, true),
        HvError::INVALID_CONNECTION_ID,
    );
    let stop = rings(guest, store_8, AWAY + 16, 1);
    check(
        "doorbells: disconnected, the parent answers",
        stop == Some(false),
    );
    for port in [0x51, 0x53, 0x54, 0x55] {
        need("doorbells: a port goes", delete(PARENT, port));
    }
    synic::drain();
}
