//! What a VP stops for, in each mode of the processor, and how it goes on.

use machine::platform::Platform;
use machine::verdict::{check, equal, note};
use machine::{clock, insn};
use tlfs::call::*;
use tlfs::intercept::{AccessType, ExecutionState, MemoryAccess, PortAccess};
use tlfs::property::PropertyCode;
use tlfs::register::RegisterName as N;
use tlfs::state::register_page;
use tlfs::{CallCode, HvError, MessageType};

use addr::VpIndex;

use super::{destroy, fails, need, stopped, stopped_for};
use crate::arena::{self, FRAME};
use crate::child::code::{self, PORT};
use crate::child::guest::{Guest, Mode};
use crate::child::layout;
use crate::child::runtime::{self, Shared, eoi};
use crate::client::call;
use crate::client::intercept::Intercept;
use crate::client::partition::{RWX, USUAL};
use crate::client::synic;
use crate::client::vp::{PATIENCE, get_registers, set_registers};
use crate::options::Options;

/// An address that nothing is mapped at.
const AWAY: u64 = 0x40_0000;
/// What a VP is given to halt for good, in microseconds.
const QUIET: u64 = 50_000;

/// Runs the group.
pub fn run(_: &Options, _: &Platform) {
    let Some(mut guest) = need("run: a child of one VP", Guest::new(1)) else {
        return;
    };
    let guest = {
        modes(&mut guest);
        ports(&mut guest);
        strings(&mut guest);
        faults(&mut guest);
        cpuid(&mut guest);
        msrs(&mut guest);
        registers(&mut guest);
        suspend(&mut guest);
        guest
    };
    destroy("run", guest);
    unmapped_tables();
    interrupts();
    ends();
    full_messages();
}

/// Puts the VP behind its instruction, with `more` set, and lets it go on until the next intercept.
pub fn skip(guest: &Guest, vp: u32, at: &Intercept, more: &[(N, u128)]) -> Option<Intercept> {
    let rip = at.header().rip + at.length();
    let mut list = alloc::vec![(N::RIP, u128::from(rip))];
    list.extend_from_slice(more);
    set_registers(guest.id, vp, &list).status.ok()?;
    guest.run(vp)
}

fn modes(guest: &mut Guest) {
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

fn ports(guest: &mut Guest) {
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

fn strings(guest: &mut Guest) {
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

fn faults(guest: &mut Guest) {
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
fn unmapped_tables() {
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

fn run_cpuid(guest: &mut Guest, leaf: u32, subleaf: u32) -> Option<[u64; 4]> {
    let registers = [(N::RAX, leaf.into()), (N::RCX, subleaf.into())];
    guest.start(0, Mode::Long, code::cpuid, &registers).ok()?;
    let stop = guest.run(0)?;
    if !stop.is_out(code::STOP) {
        note(format_args!("CPUID {leaf:#x}: {stop}"));
        return None;
    }
    let names = [N::RAX, N::RBX, N::RCX, N::RDX];
    let values = get_registers(guest.id, 0, &names).ok()?;
    Some([0, 1, 2, 3].map(|n: usize| values[n] as u64))
}

fn cpuid(guest: &mut Guest) {
    check(
        "cpuid: the vendor of the interface",
        run_cpuid(guest, 0x4000_0000, 0)
            .is_some_and(|r| r[1] == 0x7263_694D && r[2] == 0x666F_736F && r[3] == 0x7648_2074),
    );
    check(
        "cpuid: the interface",
        run_cpuid(guest, 0x4000_0001, 0).is_some_and(|r| r[0] == 0x3123_7648),
    );
    let privileges = run_cpuid(guest, 0x4000_0003, 0).unwrap_or_default();
    check(
        "cpuid: a child may not create partitions",
        privileges[0] != 0 && privileges[1] & 1 == 0,
    );
    check(
        "cpuid: nothing at the leaf that Linux reads past the end",
        run_cpuid(guest, 0x4000_0082, 0) == Some([0; 4]),
    );
    let one = run_cpuid(guest, 1, 0).unwrap_or_default();
    check("cpuid: there is a hypervisor", one[2] >> 31 == 1);
    check("cpuid: no VMX", one[2] >> 5 & 1 == 0);
    check(
        "cpuid: an APIC with x2APIC mode",
        one[2] >> 21 & 1 == 1 && one[3] >> 9 & 1 == 1,
    );
    let extended = run_cpuid(guest, 0x8000_0001, 0).unwrap_or_default();
    check(
        "cpuid: no SVM, long mode",
        extended[2] >> 2 & 1 == 0 && extended[3] >> 29 & 1 == 1,
    );
    // An override: EBX of a leaf, the upper half of its bits.
    let default = run_cpuid(guest, 0x8000_0002, 0).unwrap_or_default();
    let input = RegisterCpuidResult {
        partition: guest.id,
        vp: VP_ANY,
        leaf: 0x8000_0002,
        registers: [[0, 0], [0xABCD_0000, 0xFFFF_0000], [0, 0], [0, 0]],
        ..RegisterCpuidResult::default()
    };
    need(
        "cpuid: an override is taken",
        guest.feed(|_| call::simple(CallCode::REGISTER_INTERCEPT_RESULT, &input.encode())),
    );
    let now = run_cpuid(guest, 0x8000_0002, 0).unwrap_or_default();
    equal(
        "cpuid: and seen in the masked bits alone",
        now[1],
        default[1] & 0xFFFF | 0xABCD_0000,
    );
    equal("cpuid: not elsewhere", now[0], default[0]);
    let leaf = CpuidLeaf {
        leaf: 0x8000_0002,
        ..CpuidLeaf::default()
    };
    let header = GetCpuidValues {
        partition: guest.id,
        vp: VpIndex::new(0),
        flags: CpuidValuesFlags::APPLY_REGISTERED,
        ..GetCpuidValues::default()
    };
    let mut out = [0; 16];
    let reply = call::rep(
        CallCode::GET_VP_CPUID_VALUES,
        &header.encode(),
        &leaf.encode(),
        1,
        &mut out,
    );
    equal("cpuid: the parent can ask for it", reply.code(), 0);
    check(
        "cpuid: and gets the same",
        out[4..8] == (now[1] as u32).to_le_bytes(),
    );
}

extern "sysv64" fn read_an_msr(shared: &'static Shared) -> ! {
    let value = runtime::try_rdmsr(shared.arg(0) as u32);
    shared.set(0, value.is_some().into());
    shared.set(1, value.unwrap_or(0));
    shared.set(2, runtime::try_wrmsr(shared.arg(0) as u32, 0x77).into());
    runtime::stop(1)
}

fn msrs(guest: &mut Guest) {
    // TIME_REF_COUNT, answered by the hypervisor.
    let registers = [(N::RCX, 0x4000_0020)];
    need(
        "msrs: start",
        guest.start(0, Mode::Long, code::rdmsr, &registers),
    );
    if stopped("msrs: the reference counter answers", guest.run(0)).is_some() {
        check(
            "msrs: with something",
            guest.reg(0, N::RAX) & 0xFFFF_FFFF != 0,
        );
    }
    const NOBODYS: u64 = 0x4242;
    need("msrs: start", guest.start_entry(0, read_an_msr, &[NOBODYS]));
    if stopped("msrs: one that there is not", guest.run(0)).is_some() {
        let shared = guest.shared(0);
        equal("msrs: RDMSR gives #GP", shared.result(0), 0);
        equal("msrs: WRMSR gives #GP", shared.result(2), 0);
    }
    let action = PropertyCode::UNIMPLEMENTED_MSR_ACTION;
    need("msrs: drop them", guest.set_property(action, 1));
    need("msrs: start", guest.start_entry(0, read_an_msr, &[NOBODYS]));
    if stopped("msrs: dropped", guest.run(0)).is_some() {
        let shared = guest.shared(0);
        equal("msrs: RDMSR is taken", shared.result(0), 1);
        equal("msrs: and gives 0", shared.result(1), 0);
        equal("msrs: WRMSR is taken", shared.result(2), 1);
    }
    let input = InstallIntercept {
        partition: guest.id,
        access: AccessMask::READ | AccessMask::WRITE,
        kind: InterceptType::Msr,
        parameter: 0,
    };
    need(
        "msrs: an intercept is installed",
        guest.feed(|_| call::simple(CallCode::INSTALL_INTERCEPT, &input.encode())),
    );
    let registers = [(N::RCX, NOBODYS.into()), (N::RAX, 0x11), (N::RDX, 0x22)];
    need(
        "msrs: start",
        guest.start(0, Mode::Long, code::wrmsr, &registers),
    );
    let stop = guest.run(0);
    if let Some(stop) = stopped_for("msrs: WRMSR stops", stop, MessageType::MSR_INTERCEPT) {
        let msr = stop.msr().unwrap_or_default();
        check(
            "msrs: number, value, kind",
            (u64::from(msr.msr), msr.rax, msr.rdx) == (NOBODYS, 0x11, 0x22)
                && msr.header.access == AccessType::Write,
        );
        equal("msrs: length", stop.length(), 2);
        stopped("msrs: passed over", skip(guest, 0, &stop, &[]));
    }
    let input = InstallIntercept {
        access: AccessMask::empty(),
        ..input
    };
    need(
        "msrs: and taken away",
        call::simple(CallCode::INSTALL_INTERCEPT, &input.encode()),
    );
    need("msrs: back to #GP", guest.set_property(action, 0));
}

fn registers(guest: &mut Guest) {
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
        super::refused(
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

fn suspend(guest: &mut Guest) {
    need(
        "suspend: a spinning program",
        guest.start(0, Mode::Long, code::spin, &[]),
    );
    let rdi = N(N::RAX.0 + 7);
    need(
        "suspend: counter",
        guest.set_one(0, rdi, layout::DATA + 0x800),
    );
    need("suspend: go", guest.resume(0));
    let moves = |guest: &Guest| {
        let before = guest.read(layout::DATA + 0x800);
        synic::sleep_until(PATIENCE, || guest.read(layout::DATA + 0x800) != before)
    };
    check("suspend: it runs", moves(guest));
    need("suspend: stop", guest.suspend(0));
    let then = guest.read(layout::DATA + 0x800);
    synic::sleep(QUIET);
    equal("suspend: it stands", guest.read(layout::DATA + 0x800), then);
    equal(
        "suspend: the register says so",
        guest.reg(0, N::EXPLICIT_SUSPEND),
        1,
    );
    equal(
        "suspend: and no intercept",
        guest.reg(0, N::INTERCEPT_SUSPEND),
        0,
    );
    need("suspend: go", guest.resume(0));
    check("suspend: it runs again", moves(guest));
    for _ in 0..50 {
        if guest.suspend(0).is_err() || guest.resume(0).is_err() {
            check("suspend: fifty times", false);
            break;
        }
    }
    check("suspend: after fifty times it runs", moves(guest));
    need("suspend: stop", guest.suspend(0));
    equal("suspend: no message came of it", synic::drain() as u64, 0);
    // Frozen time stops VPs too.
    let freeze = PropertyCode::TIME_FREEZE;
    need("suspend: go", guest.resume(0));
    need("suspend: freeze", guest.set_property(freeze, 1));
    let then = guest.read(layout::DATA + 0x800);
    synic::sleep(QUIET);
    equal(
        "suspend: frozen, it stands",
        guest.read(layout::DATA + 0x800),
        then,
    );
    need("suspend: thaw", guest.set_property(freeze, 0));
    check("suspend: thawed, it runs", moves(guest));
    need("suspend: stop", guest.suspend(0));
}

/// Enables the APIC in the mode of argument 0, and halts with interrupts on; argument 1 is the handler's EOI.
extern "sysv64" fn wait_for_interrupts(shared: &'static Shared) -> ! {
    shared
        .eoi
        .store(shared.arg(1), core::sync::atomic::Ordering::SeqCst);
    if shared.arg(0) == 1 {
        runtime::wrmsr(0x1B, runtime::rdmsr(0x1B) | 1 << 10);
        runtime::wrmsr(0x80F, 0x1FF);
    } else {
        runtime::write32(0xFEE0_00F0, 0x1FF);
    }
    runtime::pause(1);
    loop {
        insn::halt_once();
        shared.set(0, shared.result(0) + 1);
    }
}

fn assert(
    guest: &Guest,
    kind: InterruptType,
    vector: u32,
    flags: InterruptFlags,
) -> Result<(), HvError> {
    let input = AssertInterrupt {
        partition: guest.id,
        kind,
        flags,
        vector,
        ..AssertInterrupt::default()
    };
    call::simple(CallCode::ASSERT_VIRTUAL_INTERRUPT, &input.encode())
}

fn interrupts() {
    for (mode, how) in [(0, eoi::XAPIC), (1, eoi::X2APIC), (1, eoi::SYNTHETIC)] {
        let Some(mut guest) = need("interrupts: a child", Guest::new(1)) else {
            return;
        };
        interrupts_of(&mut guest, mode, how);
        destroy(format_args!("interrupts {mode} {how}"), guest);
    }
}

fn interrupts_of(guest: &mut Guest, mode: u64, how: u64) {
    let edge = InterruptFlags::empty();
    need(
        "interrupts: start",
        guest.start_entry(0, wait_for_interrupts, &[mode, how]),
    );
    let stop = guest.run(0);
    let Some(stop) = stopped_for("interrupts: ready", stop, MessageType::IO_PORT_INTERCEPT) else {
        return;
    };
    let rip = stop.header().rip + stop.length();
    need("interrupts: skip", guest.set_one(0, N::RIP, rip));
    need("interrupts: go", guest.resume(0));
    let shared = guest.shared(0);
    let came =
        |vector: u8, count: u32| synic::sleep_until(PATIENCE, || shared.count(vector) >= count);
    synic::sleep(QUIET);
    for count in 1..=3 {
        need(
            "interrupts: fixed",
            assert(guest, InterruptType::Fixed, 0x51, edge),
        );
        check(
            format_args!("interrupts: fixed wakes from HLT, {count}"),
            came(0x51, count),
        );
    }
    need(
        "interrupts: NMI",
        assert(guest, InterruptType::Nmi, 0, edge),
    );
    check("interrupts: NMI arrives", came(2, 1));
    need(
        "interrupts: lowest",
        assert(guest, InterruptType::LowestPriority, 0x61, edge),
    );
    check("interrupts: lowest priority arrives", came(0x61, 1));
    synic::sleep(QUIET);
    need(
        "interrupts: ExtINT",
        assert(guest, InterruptType::ExtInt, 0x41, edge),
    );
    note(format_args!("ExtINT taken: {}", came_shortly(shared, 0x41)));
    need(
        "interrupts: level",
        assert(guest, InterruptType::Fixed, 0x71, InterruptFlags::LEVEL),
    );
    let stop = guest.stop_within(0, PATIENCE);
    if let Some(stop) = stopped_for(
        "interrupts: EOI of a level interrupt",
        stop,
        MessageType::APIC_EOI,
    ) {
        let told = stop.eoi().unwrap_or_default();
        equal("interrupts: its vector", told.vector.into(), 0x71);
        equal("interrupts: its VP", told.vp.get().into(), 0);
    }
    equal(
        "interrupts: the level interrupt was taken",
        shared.count(0x71).into(),
        1,
    );
    need("interrupts: go", guest.resume(0));
    need(
        "interrupts: fixed",
        assert(guest, InterruptType::Fixed, 0x51, edge),
    );
    check("interrupts: it lives on", came(0x51, 4));
    for vector in [0, 15] {
        fails(
            format_args!("interrupts: vector {vector} is refused"),
            assert(guest, InterruptType::Fixed, vector, edge),
        );
    }
    fails(
        "interrupts: vector 256 is refused",
        assert(guest, InterruptType::Fixed, 256, edge),
    );
    // Halted costs nothing and goes nowhere.
    synic::sleep(QUIET);
    let then = shared.result(0);
    synic::sleep(QUIET);
    equal("interrupts: halted, it stands", shared.result(0), then);
    need("interrupts: stop", guest.suspend(0));
    equal(
        "interrupts: the activity state says halted",
        guest.reg(0, N::INTERNAL_ACTIVITY_STATE) & 2,
        2,
    );
}

fn came_shortly(shared: &Shared, vector: u8) -> bool {
    synic::sleep_until(QUIET, || shared.count(vector) != 0)
}

/// The ways in which a VP ends.
fn ends() {
    let Some(mut guest) = need("ends: a child", Guest::new(1)) else {
        return;
    };
    need(
        "ends: start",
        guest.start(0, Mode::Long, code::triple_fault, &[]),
    );
    need("ends: no IDT", guest.set(0, &[(N::IDTR, 0)]));
    let kind = MessageType::UNRECOVERABLE_EXCEPTION;
    if let Some(stop) = stopped_for("ends: a triple fault stops", guest.run(0), kind) {
        equal("ends: at its RIP", stop.header().rip, layout::CODE);
    }
    // Registers that do not go together: long mode and paging without PAE.
    need("ends: start", guest.start(0, Mode::Long, code::out_64, &[]));
    need("ends: no PAE", guest.set_one(0, N::CR4, 0x600));
    let kind = MessageType::INVALID_VP_REGISTER;
    stopped_for("ends: an invalid state stops", guest.run(0), kind);
    need(
        "ends: registers mended",
        guest.start(0, Mode::Long, code::out_64, &[]),
    );
    stopped("ends: and it runs", guest.run(0));
    // HLT without interrupts: only the parent can end that.
    need(
        "ends: HLT without interrupts",
        guest.start(0, Mode::Long, code::halt_without_interrupts, &[]),
    );
    check(
        "ends: nothing comes of it",
        guest.run_for(0, QUIET).is_none(),
    );
    need("ends: suspended", guest.suspend(0));
    equal("ends: no intercept", guest.reg(0, N::INTERCEPT_SUSPEND), 0);
    need(
        "ends: registers",
        guest.start(0, Mode::Long, code::out_64, &[]),
    );
    need(
        "ends: awake",
        guest.set_one(0, N::INTERNAL_ACTIVITY_STATE, 0),
    );
    stopped("ends: woken by the parent", guest.run(0));
    // A spinning child is destroyed while it runs.
    need("ends: spin", guest.start(0, Mode::Long, code::spin, &[]));
    need("ends: go", guest.resume(0));
    synic::sleep(5_000);
    let start = clock::reference();
    destroy("ends: destroyed while it runs", guest);
    note(format_args!(
        "destruction took {} us",
        (clock::reference() - start) / 10
    ));
}

/// A partition without an intercept page gets whole messages.
fn full_messages() {
    let flags = USUAL.difference(CreateFlags::INTERCEPT_PAGE);
    let Some(mut guest) = need("messages: a child", Guest::with(flags, 1, |_| Ok(()))) else {
        return;
    };
    need(
        "messages: start",
        guest.start(0, Mode::Long, code::out_64, &[]),
    );
    need("messages: go", guest.resume(0));
    let id = guest.id.get();
    let message = synic::wait(PATIENCE, |message| message.sender == id);
    let name = "messages: the message itself arrives";
    if let Some(message) = stopped_for(name, message, MessageType::IO_PORT_INTERCEPT) {
        equal("messages: its length", message.length(), 2);
        equal(
            "messages: RAX",
            message.port().map_or(0, |port| port.rax),
            0x64,
        );
    }
    destroy("messages", guest);
}
