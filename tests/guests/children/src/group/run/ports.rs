//! Port I/O: IN, OUT and their string forms.

use machine::insn;
use machine::verdict::{check, equal, note};
use tlfs::MessageType;
use tlfs::intercept::{AccessType, PortAccess};
use tlfs::register::RegisterName as N;
use tlfs::state::register_page;

use super::skip;
use crate::child::code::{self, PORT};
use crate::child::guest::{Guest, Mode};
use crate::child::layout;
use crate::client::vp::get_registers;
use crate::group::{need, stopped, stopped_for};

/// IN and OUT of each width, with the answer in a register and in the register page.
pub fn ports(guest: &mut Guest) {
    let all = u128::from(u64::MAX);
    need(
        "ports: start",
        guest.start(
            0,
            Mode::Long,
            code::in_then_out,
            &[(N::RAX, 0x1122_3344_5566_7788)],
        ),
    );
    let Some(first) = stopped_for(
        "ports: IN stops",
        guest.run(0),
        MessageType::IO_PORT_INTERCEPT,
    ) else {
        return;
    };
    check(
        "ports: it is a read of one byte",
        first.header().access == AccessType::Read
            && first
                .port()
                .is_some_and(|port| port.port == PORT && port.info.bits() == 1),
    );
    // The byte goes in by a register.
    let second = skip(guest, 0, &first, &[(N::RAX, 0x1122_3344_5566_77A5)]);
    let Some(second) = stopped_for(
        "ports: IN of two bytes",
        second,
        MessageType::IO_PORT_INTERCEPT,
    ) else {
        return;
    };
    equal(
        "ports: width",
        second.port().map_or(0, |port| port.info.bits()).into(),
        2,
    );
    // The word goes in by the register page.
    let page = guest.vps[0].registers;
    insn::write_phys64(page + register_page::GENERAL as u64, 0x1122_3344_5566_BEEF);
    insn::write_phys64(
        page + register_page::RIP as u64,
        second.header().rip + second.length(),
    );
    insn::write_mmio32(
        page + register_page::DIRTY as u64,
        register_page::DIRTY_GENERAL | register_page::DIRTY_RIP,
    );
    let third = guest.run(0);
    let Some(third) = stopped_for(
        "ports: IN of four bytes",
        third,
        MessageType::IO_PORT_INTERCEPT,
    ) else {
        return;
    };
    equal(
        "ports: what was dirty is consumed",
        insn::read_mmio32(page + register_page::DIRTY as u64).into(),
        0,
    );
    let end = skip(guest, 0, &third, &[(N::RAX, 0xCAFE_F00D)]);
    if stopped("ports: to the end", end).is_some() {
        let names = [N::RBX, N::RCX, N::RDX];
        let got = get_registers(guest.id, 0, &names).unwrap_or_default();
        check(
            "ports: the program got the values",
            got == [0x1122_3344_5566_77A5, 0x1122_3344_5566_BEEF, 0xCAFE_F00D],
        );
        note(format_args!("{got:x?}"));
    }
    let rax = [(N::RAX, all)];
    need(
        "ports: OUT",
        guest.start(0, Mode::Long, code::out_widths, &rax),
    );
    let mut stop = guest.run(0);
    for (size, port) in [(1, PORT), (2, PORT), (4, PORT), (4, 0xCFC)] {
        let Some(at) = stop else { break };
        check(
            format_args!("ports: OUT of {size} bytes to {port:#x}"),
            at.port()
                .is_some_and(|access| access.port == port && u16::from(access.info.bits()) == size),
        );
        stop = skip(guest, 0, &at, &[]);
    }
    stopped("ports: OUT to the end", stop);
}

/// OUTS and INS, with and without REP.
pub fn strings(guest: &mut Guest) {
    let at = layout::DATA;
    guest.write(at, u64::from_le_bytes(*b"children"));
    let registers = [
        (N(N::RAX.0 + 6), at.into()),
        (N::RCX, 5),
        (N::RDX, PORT.into()),
    ];
    need(
        "strings: REP OUTSB",
        guest.start(0, Mode::Long, code::rep_outsb, &registers),
    );
    let Some(stop) = stopped_for(
        "strings: it stops",
        guest.run(0),
        MessageType::IO_PORT_INTERCEPT,
    ) else {
        return;
    };
    let port = stop.port().unwrap_or_default();
    check(
        "strings: marked as string and REP, of one byte",
        port.info == PortAccess::STRING | PortAccess::REP | PortAccess::from_bits_retain(1),
    );
    equal("strings: port", port.port.into(), PORT.into());
    equal("strings: RSI", port.rsi, at);
    equal("strings: RCX", port.rcx, 5);
    equal("strings: length", stop.length(), 2);
    // All five at once, as VMMs do it.
    let end = skip(
        guest,
        0,
        &stop,
        &[(N::RCX, 0), (N(N::RAX.0 + 6), u128::from(at + 5))],
    );
    stopped("strings: after the parent did it", end);
    let registers = [
        (N(N::RAX.0 + 6), at.into()),
        (N(N::RAX.0 + 7), u128::from(at + 64)),
        (N::RDX, PORT.into()),
    ];
    need(
        "strings: OUTSD",
        guest.start(0, Mode::Long, code::outsd, &registers),
    );
    let stop = guest.run(0);
    let Some(stop) = stopped_for("strings: OUTSD stops", stop, MessageType::IO_PORT_INTERCEPT)
    else {
        return;
    };
    check(
        "strings: four bytes, no REP",
        stop.port().is_some_and(|port| port.info.bits() == 4 | 8),
    );
    let stop = skip(guest, 0, &stop, &[(N(N::RAX.0 + 6), u128::from(at + 4))]);
    let Some(stop) = stopped_for("strings: INSB stops", stop, MessageType::IO_PORT_INTERCEPT)
    else {
        return;
    };
    check(
        "strings: a read of one byte to RDI",
        stop.header().access == AccessType::Read
            && stop
                .port()
                .is_some_and(|port| port.info.bits() == 1 | 8 && port.rdi == at + 64),
    );
    let end = skip(guest, 0, &stop, &[(N(N::RAX.0 + 7), u128::from(at + 65))]);
    stopped("strings: to the end", end);
}
