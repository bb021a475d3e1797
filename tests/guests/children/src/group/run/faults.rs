//! Memory intercepts: what is unmapped, what is mapped without the access that was tried, page tables that are not there.

use machine::insn;
use machine::verdict::{check, equal};
use tlfs::MessageType;
use tlfs::call::*;
use tlfs::intercept::{AccessType, MemoryAccess};
use tlfs::register::RegisterName as N;

use super::AWAY;
use crate::arena::{self, FRAME};
use crate::child::code;
use crate::child::guest::{Guest, Mode};
use crate::child::layout;
use crate::client::intercept::Intercept;
use crate::client::partition::RWX;
use crate::client::vp::set_registers;
use crate::group::{destroy, need, stopped, stopped_for};

const RSI: N = N(N::RAX.0 + 6);

/// Checks one memory intercept and returns it.
fn memory_stop(
    name: &str,
    stop: Option<Intercept>,
    kind: MessageType,
    access: AccessType,
    gpa: u64,
) -> bool {
    let Some(stop) = stopped_for(format_args!("{name}: it stops"), stop, kind) else {
        return false;
    };
    let memory = stop.memory().unwrap_or_default();
    let ok = equal(format_args!("{name}: GPA"), memory.gpa.get(), gpa);
    equal(
        format_args!("{name}: kind of access"),
        memory.header.access as u64,
        access as u64,
    );
    if memory.info.contains(MemoryAccess::GVA_VALID) {
        equal(format_args!("{name}: GVA"), memory.gva.get(), gpa);
    }
    if access != AccessType::Execute {
        check(
            format_args!("{name}: bytes of the instruction"),
            memory.instruction_count >= 3 && memory.instruction[0] == 0x48,
        );
    }
    ok
}

/// Reads, writes and fetches that memory does not allow.
pub fn faults(guest: &mut Guest) {
    const GPA: MessageType = MessageType::GPA_INTERCEPT;
    const UNMAPPED: MessageType = MessageType::UNMAPPED_GPA;
    let start = |guest: &mut Guest, program, value: u128| {
        let registers = [(RSI, u128::from(AWAY)), (N::RAX, value)];
        need(
            "faults: start",
            guest.start(0, Mode::Long, program, &registers),
        );
        guest.run(0)
    };
    let frame = arena::frame();
    insn::write_phys64(frame, 0x5EED);

    let stop = start(guest, code::read_rsi, 0);
    memory_stop("read, unmapped", stop, UNMAPPED, AccessType::Read, AWAY);
    need("faults: map", guest.map(AWAY, &[frame], RWX));
    stopped("read, unmapped: retried after it was mapped", guest.run(0));
    equal("read, unmapped: the value", guest.reg(0, N::RAX), 0x5EED);

    need("faults: unmap", guest.unmap(AWAY, 1));
    let stop = start(guest, code::write_rsi, 0xBEEF);
    memory_stop("write, unmapped", stop, UNMAPPED, AccessType::Write, AWAY);
    need("faults: map", guest.map(AWAY, &[frame], RWX));
    stopped("write, unmapped: retried", guest.run(0));
    equal(
        "write, unmapped: in memory",
        insn::read_phys64(frame),
        0xBEEF,
    );

    need("faults: no access", guest.map_no_access(AWAY, 1));
    let stop = start(guest, code::read_rsi, 0);
    memory_stop("read, no access", stop, GPA, AccessType::Read, AWAY);
    need("faults: map", guest.map(AWAY, &[frame], MapFlags::READ));
    stopped("read, no access: retried", guest.run(0));
    equal("read, no access: the value", guest.reg(0, N::RAX), 0xBEEF);

    let stop = start(guest, code::write_rsi, 0xF00D);
    memory_stop("write, read-only", stop, GPA, AccessType::Write, AWAY);
    equal(
        "write, read-only: nothing is written",
        insn::read_phys64(frame),
        0xBEEF,
    );
    let rw = MapFlags::READ | MapFlags::WRITE;
    need("faults: map", guest.map(AWAY, &[frame], rw));
    stopped("write, read-only: retried", guest.run(0));
    equal(
        "write, read-only: in memory",
        insn::read_phys64(frame),
        0xF00D,
    );

    let bytes = code::bytes(code::out_64);
    for (n, piece) in bytes.chunks(8).enumerate() {
        let mut word = [0; 8];
        word[..piece.len()].copy_from_slice(piece);
        insn::write_phys64(frame + n as u64 * 8, u64::from_le_bytes(word));
    }
    let stop = start(guest, code::jump_rsi, 0);
    memory_stop(
        "fetch, not executable",
        stop,
        GPA,
        AccessType::Execute,
        AWAY,
    );
    need("faults: map", guest.map(AWAY, &[frame], RWX));
    stopped("fetch, not executable: retried", guest.run(0));

    need("faults: unmap", guest.unmap(AWAY, 1));
    let stop = start(guest, code::jump_rsi, 0);
    memory_stop("fetch, unmapped", stop, UNMAPPED, AccessType::Execute, AWAY);
    need("faults: map", guest.map(AWAY, &[frame], RWX));
    stopped("fetch, unmapped: retried", guest.run(0));

    // Across the end of the mapping: the second page is the one that is missing.
    let registers = [(RSI, u128::from(AWAY + FRAME - 4))];
    need(
        "faults: start",
        guest.start(0, Mode::Long, code::read_rsi, &registers),
    );
    if let Some(stop) = stopped_for("read across pages: it stops", guest.run(0), UNMAPPED) {
        let gpa = stop.memory().unwrap_or_default().gpa.get();
        equal(
            "read across pages: the second page",
            gpa & !0xFFF,
            AWAY + FRAME,
        );
    }
    need("faults: unmap", guest.unmap(AWAY, 1));
    arena::free(frame);

    // A device in the parent's hands: the value comes by register, the instruction is passed over.
    let stop = start(guest, code::read_rsi, 0);
    if memory_stop("device", stop, UNMAPPED, AccessType::Read, AWAY)
        && let Some(stop) = stop
    {
        let rip = stop.header().rip + 3;
        let end = {
            let list = [(N::RIP, rip.into()), (N::RAX, 0xD0_0D)];
            let _ = set_registers(guest.id, 0, &list);
            guest.run(0)
        };
        stopped("device: passed over", end);
        equal("device: the value", guest.reg(0, N::RAX), 0xD0_0D);
    }
}

/// The walk itself meets pages that are not there.
pub fn unmapped_tables() {
    let Some(mut guest) = need("walk: a child", Guest::new(1)) else {
        return;
    };
    let table = AWAY;
    need("walk: start", guest.start(0, Mode::Long, code::out_64, &[]));
    need("walk: CR3", guest.set_one(0, N::CR3, table));
    let stop = guest.run(0);
    if let Some(stop) = stopped_for(
        "walk: an unmapped root stops",
        stop,
        MessageType::UNMAPPED_GPA,
    ) {
        let memory = stop.memory().unwrap_or_default();
        equal("walk: the table's page", memory.gpa.get() & !0xFFF, table);
        check(
            "walk: reported as read or write",
            memory.header.access != AccessType::Execute,
        );
        check(
            "walk: the GVA does not lead there",
            !memory.info.contains(MemoryAccess::GVA_GPA_VALID),
        );
    }
    let frame = arena::frame();
    for at in (0..FRAME).step_by(8) {
        insn::write_phys64(frame + at, guest.read(layout::PML4 + at));
    }
    need("walk: no access", guest.map_no_access(table, 1));
    let stop = guest.run(0);
    if let Some(stop) = stopped_for(
        "walk: a root without access",
        stop,
        MessageType::GPA_INTERCEPT,
    ) {
        check(
            "walk: reported as read or write",
            stop.header().access != AccessType::Execute,
        );
    }
    need("walk: map", guest.map(table, &[frame], RWX));
    stopped("walk: retried after it was mapped", guest.run(0));
    destroy("walk", guest);
    arena::free(frame);
}
