//! Real, protected, PAE and long mode: one OUT in each, and what the message and the register page say of it.

use machine::insn;
use machine::verdict::{check, equal};
use tlfs::intercept::ExecutionState;
use tlfs::register::RegisterName as N;
use tlfs::state::register_page;
use x86::TableRegister;

use crate::child::code;
use crate::child::guest::{Guest, Mode};
use crate::client::vp::table_value;
use crate::group::{need, stopped};

/// Runs one OUT in each mode, and a program that goes from one mode to another.
pub fn modes(guest: &mut Guest) {
    for (mode, program, size, value) in [
        (Mode::Real, code::out_16 as code::Program, 1, 0x16),
        (Mode::Protected, code::out_32, 4, 0x32_0032),
        (Mode::Paged, code::out_32, 4, 0x32_0032),
        (Mode::Pae, code::out_32, 4, 0x32_0032),
        (Mode::Long, code::out_64, 1, 0x64),
    ] {
        need(
            format_args!("{mode:?}: registers are taken"),
            guest.start(0, mode, program, &[]),
        );
        let Some(stop) = stopped(format_args!("{mode:?}: it runs to its OUT"), guest.run(0)) else {
            continue;
        };
        let Some(port) = stop.port() else { continue };
        let (header, state) = (port.header, port.header.state);
        equal(
            format_args!("{mode:?}: width"),
            (port.info.bits() & 7).into(),
            size,
        );
        let mask = u64::MAX >> (64 - 8 * size);
        equal(format_args!("{mode:?}: value"), port.rax & mask, value);
        equal(format_args!("{mode:?}: length"), stop.length(), 2);
        equal(format_args!("{mode:?}: VP"), header.vp.get().into(), 0);
        let is_long = mode == Mode::Long;
        check(
            format_args!("{mode:?}: execution state"),
            state.contains(ExecutionState::PE) == (mode != Mode::Real)
                && state.contains(ExecutionState::LMA) == is_long
                && (state & ExecutionState::CPL).is_empty(),
        );
        let is_64 = header.cs.attributes & x86::Segment::LONG != 0;
        check(format_args!("{mode:?}: code segment"), is_64 == is_long);
        check(
            format_args!("{mode:?}: bytes of the instruction"),
            port.instruction_count == 0 || port.instruction[1] == 0xF0,
        );
        let page = guest.vps[0].registers;
        equal(
            format_args!("{mode:?}: register page is valid"),
            insn::read_phys64(page) & 0xFF_FFFF,
            0x1_0001,
        );
        equal(
            format_args!("{mode:?}: RIP in the register page"),
            insn::read_phys64(page + register_page::RIP as u64),
            header.rip,
        );
        equal(
            format_args!("{mode:?}: RAX in the register page"),
            insn::read_phys64(page + register_page::GENERAL as u64),
            port.rax,
        );
        equal(
            format_args!("{mode:?}: RIP by the call"),
            guest.reg(0, N::RIP),
            header.rip,
        );
    }
    exception_in_real_mode(guest);
    need(
        "switch: from real mode",
        guest.start(0, Mode::Real, code::real_to_protected, &[]),
    );
    if let Some(stop) = stopped("switch: it reaches protected mode by itself", guest.run(0)) {
        equal(
            "switch: value",
            stop.port().map_or(0, |port| port.rax & 0xFFFF_FFFF),
            0x1632,
        );
    }
}

/// #GP without an error code, whose handler lies in the table of real mode at address 0.
fn exception_in_real_mode(guest: &mut Guest) {
    let table = TableRegister {
        base: 0,
        limit: 0x3FF,
    };
    let registers = [(N::IDTR, table_value(&table)), (N::RSP, 0xF000)];
    need(
        "real #GP: starts",
        guest.start(0, Mode::Real, code::real_gp, &registers),
    );
    if let Some(stop) = stopped("real #GP: its handler runs", guest.run(0)) {
        let port = stop.port();
        equal(
            "real #GP: port",
            port.map_or(0, |port| port.port.into()),
            code::STOP.into(),
        );
        equal(
            "real #GP: bytes on the stack",
            port.map_or(0, |port| port.rax & 0xFFFF),
            6,
        );
    }
}
