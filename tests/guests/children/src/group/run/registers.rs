//! Registers that the parent sets and gets, and what the program sees of them.

use machine::insn;
use machine::verdict::{check, equal, note};
use tlfs::register::RegisterName as N;
use tlfs::state::register_page;
use tlfs::{HvError, MessageType};

use super::skip;
use crate::child::code;
use crate::child::guest::{Guest, Mode};
use crate::client::vp::{get_registers, set_registers};
use crate::group::refused;
use crate::group::{fails, need, stopped, stopped_for};

/// Values taken, values refused, and state that is kept across a stop.
pub fn registers(guest: &mut Guest) {
    let pattern = |n: u64| u128::from(0x0101_0101_0101_0101 * (n + 1));
    let general: alloc::vec::Vec<(N, u128)> = (0..16)
        .map(|n| (N(N::RAX.0 + n), pattern(n.into())))
        .collect();
    need("registers: general", guest.set(0, &general));
    let names: alloc::vec::Vec<N> = general.iter().map(|(name, _)| *name).collect();
    check(
        "registers: general read back",
        get_registers(guest.id, 0, &names)
            .is_ok_and(|values| values.iter().eq(general.iter().map(|(_, value)| value))),
    );
    for (name, value) in [
        (N::XMM0, 0x1111_2222_3333_4444_5555_6666_7777_8888),
        (N(N::XMM0.0 + 15), 0x8888_7777_6666_5555_4444_3333_2222_1111),
        (N::CR2, 0xFFFF_8000_0000_1234),
        (N::CR8, 5),
        (N::DR0, 0x1234),
        (N::DR7, 0x400),
        (N::KERNEL_GS_BASE, 0xFFFF_8000_0000_0000),
        (N::STAR, 0x0011_2233_4455_6677),
        (N::LSTAR, 0x7FFF_FFFF_F000),
        (N::SFMASK, 0x4_7700),
        (N::SYSENTER_EIP, 0x1234_5678),
        (N::PAT, 0x0007_0406_0007_0406),
        (N::TSC_AUX, 7),
        (N::MTRR_DEF_TYPE, 0xC06),
        (N::MTRR_PHYS_BASE0, 6),
        (N::XFEM, 3),
        (N::GUEST_OS_ID, 0x8100_0000_0000_0001),
        (N::SCONTROL, 1),
        (N::SINT0, 0x1_0000),
        (N::MISC_ENABLE, 1),
        (N::PENDING_EVENT_0, 0),
        (N::PENDING_INTERRUPTION, 0),
        (N::INTERRUPT_STATE, 0),
        (N::TSC_ADJUST, 0),
    ] {
        if need(
            format_args!("registers: {name:?}"),
            guest.set(0, &[(name, value)]),
        )
        .is_some()
        {
            let got = guest.get(0, name).unwrap_or(!value);
            if got != value {
                note(format_args!("{name:?}: {got:#x}"));
            }
            check(format_args!("registers: {name:?} reads back"), got == value);
        }
    }
    need("registers: CR8 back", guest.set_one(0, N::CR8, 0));
    need(
        "registers: identity back",
        guest.set_one(0, N::GUEST_OS_ID, 0),
    );
    for (name, value) in [
        (N::CR0, 1 << 31),
        (N::CR4, 1 << 13),
        (N::EFER, 1 << 12),
        (N::RFLAGS, 1 << 63),
        (N::LSTAR, 1 << 62),
        (N::PAT, 0x0202_0202_0202_0202),
        (N::APIC_BASE, u128::from(u64::MAX)),
        (N::XFEM, 0),
        (N::INTERCEPT_SUSPEND, 1),
    ] {
        let before = guest.get(0, name);
        let result = set_registers(guest.id, 0, &[(name, value)]).status;
        refused(
            format_args!("registers: {name:?} cannot be {value:#x}"),
            result,
            HvError::INVALID_REGISTER_VALUE,
        );
        check(
            format_args!("registers: {name:?} stays"),
            guest.get(0, name) == before,
        );
    }
    fails(
        "registers: one that there is not is not read",
        guest.get(0, N(0x00FF_FFFF)),
    );
    let list = [(N::RAX, 1), (N::RBX, 2), (N(0x00FF_FFFF), 3), (N::RCX, 4)];
    let reply = set_registers(guest.id, 0, &list);
    check(
        "registers: those before the bad one are done",
        reply.status.is_err() && reply.done == 2,
    );
    // Vector and x87 state, seen by the program and kept across its stop.
    let values = [(N::RAX, 0xAAAA_BBBB), (N::RBX, 0xCCCC_DDDD)];
    need(
        "registers: FPU",
        guest.start(0, Mode::Long, code::fpu, &values),
    );
    let stop = guest.run(0);
    if let Some(stop) = stopped_for("registers: FPU stops", stop, MessageType::IO_PORT_INTERCEPT) {
        equal(
            "registers: XMM0 of the program",
            guest.reg(0, N::XMM0),
            0xAAAA_BBBB,
        );
        let page = guest.vps[0].registers;
        equal(
            "registers: XMM5 in the register page",
            insn::read_phys64(page + register_page::XMM as u64 + 5 * 16),
            0xCCCC_DDDD,
        );
        let end = skip(guest, 0, &stop, &[(N::XMM0, 0x9999)]);
        if stopped("registers: FPU to the end", end).is_some() {
            equal(
                "registers: XMM0 as the parent set it",
                guest.reg(0, N::RCX),
                0x9999,
            );
            equal(
                "registers: XMM5 as it was",
                guest.reg(0, N::RDX),
                0xCCCC_DDDD,
            );
            equal(
                "registers: the x87 stack as it was",
                guest.reg(0, N::RAX) & 0xFF,
                1,
            );
        }
    }
    let values = [(N::RAX, 0x1000), (N::RBX, 0x2000)];
    need(
        "registers: debug",
        guest.start(0, Mode::Long, code::debug_registers, &values),
    );
    let stop = guest.run(0);
    if let Some(stop) = stopped_for(
        "registers: debug stops",
        stop,
        MessageType::IO_PORT_INTERCEPT,
    ) {
        equal(
            "registers: DR0 of the program",
            guest.reg(0, N::DR0),
            0x1000,
        );
        let end = skip(guest, 0, &stop, &[(N::DR0, 0x3000)]);
        if stopped("registers: debug to the end", end).is_some() {
            equal(
                "registers: DR0 as the parent set it",
                guest.reg(0, N::RCX),
                0x3000,
            );
            equal("registers: DR3 as it was", guest.reg(0, N::RDX), 0x2000);
        }
    }
    check(
        "registers: the parent's own DR0 is another",
        read_dr0() != 0x3000,
    );
}

#[expect(unsafe_code, reason = "one instruction")]
fn read_dr0() -> u64 {
    let value: u64;
    // SAFETY: reads a register.
    unsafe { core::arch::asm!("mov {}, dr0", out(reg) value, options(nostack, preserves_flags)) };
    value
}
