//! Every call: a success, and each way in which it can be wrong.

use alloc::vec::Vec;

use addr::{Gpn, VpIndex};
use hypercall::{CALLS, Call, CallSpec};
use machine::platform::Platform;
use machine::verdict::{check, equal, note};
use tlfs::call::*;
use tlfs::property::PropertyCode;
use tlfs::register::RegisterName;
use tlfs::{CallCode, Control, HvError};

use super::{need, stopped};
use crate::arena::{self, FRAME};
use crate::child::code;
use crate::child::guest::{Guest, Mode};
use crate::child::layout;
use crate::child::runtime::{self, Shared};
use crate::client::call::{self, FAULTED, Reply};
use crate::client::partition::{Child, RWX, USUAL, create_input};
use crate::options::Options;

/// A partition that there is not.
const NOBODY: u64 = 0x00DE_AD00;

/// Runs the group.
pub fn run(_: &Options, _: &Platform) {
    forms();
    let Some(mut guest) = need("calls: a child", Guest::new(1)) else {
        return;
    };
    need(
        "calls: start",
        guest.start(0, Mode::Long, code::out_64, &[]),
    );
    stopped("calls: a VP that stopped", guest.run(0));
    let frames = arena::frames(8);
    for case in cases(&guest, &frames) {
        case.try_all(&mut guest);
    }
    privileges(&mut guest);
    let id = guest.id;
    let list = cases(&guest, &frames);
    super::destroy("calls", guest);
    // The same blocks, with a partition that is gone.
    for case in list.iter().filter(|case| case.names_child) {
        let result = case.make(&case.header).status;
        super::refused(
            format_args!("{}: of partition {:#x}, which is gone", case.name, id.get()),
            result,
            HvError::INVALID_PARTITION_ID,
        );
    }
    created();
    finalized();
    frames.iter().for_each(|frame| arena::free(*frame));
}

fn raw(control: u64, input: u64, output: u64) -> u64 {
    call::raw(control, input, output) & 0xFFFF
}

/// What the control word and the places of the blocks must be, for each call of the table.
fn forms() {
    let (input, output) = (call::input_page(), call::output_page());
    let specs: &[CallSpec<Call>] = CALLS.specs();
    let mut bad = 0;
    let mut tried = 0;
    let mut expect = |what: &str, spec: &CallSpec<Call>, got: u64, wanted: HvError| {
        tried += 1;
        if got != u64::from(wanted.0) {
            bad += 1;
            note(format_args!(
                "{} {what}: {got:#x}, not {wanted:?}",
                spec.name
            ));
        }
    };
    for spec in specs {
        let (code, shape) = (u64::from(spec.code.0), &spec.shape);
        let (at, to) = (input.address(), output.address());
        let wrong = HvError::INVALID_HYPERCALL_INPUT;
        input.fill(0);
        let once = if shape.rep.is_some() { 1 << 32 } else { 0 };
        if shape.rep.is_some() {
            expect("without elements", spec, raw(code, at, to), wrong);
            expect(
                "with a start at its end",
                spec,
                raw(code | 2 << 32 | 2 << 48, at, to),
                wrong,
            );
        } else {
            expect("with elements", spec, raw(code | 1 << 32, at, to), wrong);
            expect("with a start", spec, raw(code | 1 << 48, at, to), wrong);
        }
        if !shape.variable_header {
            expect(
                "with a variable header",
                spec,
                raw(code | once | 1 << 17, at, to),
                wrong,
            );
        }
        if !shape.fast {
            expect(
                "in the fast form",
                spec,
                raw(code | once | 1 << 16, 0, 0),
                wrong,
            );
        }
        for bit in [27, 30, 44, 47, 60, 63] {
            let got = raw(code | once | 1 << bit, at, to);
            expect("with a reserved bit", spec, got, wrong);
        }
        // Those that the parent may not make say that first.
        if matches!(
            spec.code,
            CallCode::GET_PARTITION_ID
                | CallCode::START_VIRTUAL_PROCESSOR
                | CallCode::GET_VP_INDEX_FROM_APIC_ID
        ) {
            expect(
                "by the parent",
                spec,
                raw(code | once, at, to),
                HvError::ACCESS_DENIED,
            );
            continue;
        }
        let place = HvError::INVALID_ALIGNMENT;
        if shape.input > 0 {
            expect(
                "with input at an odd place",
                spec,
                raw(code | once, at + 4, to),
                place,
            );
            let across = at + FRAME - u64::from(shape.input) / 8 * 8
                + if shape.input.is_multiple_of(8) { 8 } else { 0 };
            if !across.is_multiple_of(FRAME) {
                expect(
                    "with input across pages",
                    spec,
                    raw(code | once, across, to),
                    place,
                );
            }
            let gone = raw(code | once, 1 << 45, to);
            expect_no_access(spec, gone, "input");
        }
        if shape.output > 0 && !shape.is_output_open {
            expect(
                "with output at an odd place",
                spec,
                raw(code | once, at, to + 4),
                place,
            );
        }
    }
    equal("calls: forms that got another status than theirs", bad, 0);
    note(format_args!("{tried} forms of {} calls", specs.len()));
}

fn expect_no_access(spec: &CallSpec<Call>, got: u64, what: &str) {
    // The root has no parent that could answer an intercept: #GP.
    if got != u64::from(FAULTED) | 13 {
        check(
            format_args!("{}: {what} that is not there # {got:#x}", spec.name),
            got != 0,
        );
    }
}

/// One call with a good block and what makes it bad.
struct Case {
    name: &'static str,
    code: CallCode,
    header: Vec<u8>,
    variable: usize,
    list: Vec<u8>,
    count: u16,
    out: usize,
    /// Offset, bytes and value of a field, and the status it gives; none for any error.
    bad: Vec<(usize, usize, u64, Option<HvError>)>,
    /// The first field is the child.
    names_child: bool,
    /// The second is its VP.
    names_vp: bool,
    /// Whether the good call is made.
    is_made: bool,
}

impl Case {
    fn new(name: &'static str, code: CallCode, header: &[u8]) -> Self {
        Self {
            name,
            code,
            header: header.to_vec(),
            variable: 0,
            list: Vec::new(),
            count: 0,
            out: 0,
            bad: Vec::new(),
            names_child: true,
            names_vp: false,
            is_made: true,
        }
    }

    fn vp(self) -> Self {
        Self {
            names_vp: true,
            ..self
        }
    }

    fn own(self) -> Self {
        Self {
            names_child: false,
            ..self
        }
    }

    fn out(self, out: usize) -> Self {
        Self { out, ..self }
    }

    fn list(self, list: &[u8], count: u16) -> Self {
        Self {
            list: list.to_vec(),
            count,
            ..self
        }
    }

    fn header_pages(mut self, pages: &[u64]) -> Self {
        for page in pages {
            self.header.extend_from_slice(&(page / FRAME).to_le_bytes());
            self.variable += 1;
        }
        self
    }

    fn bad(mut self, at: usize, bytes: usize, value: u64) -> Self {
        self.bad.push((at, bytes, value, None));
        self
    }

    fn wrong(mut self, at: usize, bytes: usize, value: u64, status: HvError) -> Self {
        self.bad.push((at, bytes, value, Some(status)));
        self
    }

    fn make(&self, header: &[u8]) -> Reply {
        let mut out = alloc::vec![0; self.out * usize::from(self.count)];
        if self.count != 0 {
            return call::rep(self.code, header, &self.list, self.count, &mut out);
        }
        call::put(&[header]);
        let control = Control::simple(self.code).0 | (self.variable as u64) << 17;
        let (input, output) = (call::input_page().address(), call::output_page().address());
        let word = call::raw(control, input, output);
        Reply {
            status: match word as u16 {
                0 => Ok(()),
                code => Err(HvError(code)),
            },
            done: 0,
        }
    }

    fn try_all(&self, guest: &mut Guest) {
        let with = |at: usize, bytes: usize, value: u64| {
            let mut header = self.header.clone();
            header[at..at + bytes].copy_from_slice(&value.to_le_bytes()[..bytes]);
            self.make(&header)
        };
        let report = |what: core::fmt::Arguments<'_>, reply: Reply, wanted: Option<HvError>| {
            let got = reply.code();
            let holds = match wanted {
                Some(status) => got == u64::from(status.0),
                None => got != 0,
            };
            if holds && reply.done == 0 {
                check(format_args!("{}: {what}", self.name), true);
            } else {
                let done = reply.done;
                check(
                    format_args!(
                        "{}: {what} # got {got:#x}, wanted {wanted:?}, {done} done",
                        self.name
                    ),
                    false,
                );
            }
        };
        if self.names_child {
            let id = Some(HvError::INVALID_PARTITION_ID);
            report(
                format_args!("a partition that there is not"),
                with(0, 8, NOBODY),
                id,
            );
            report(format_args!("no partition"), with(0, 8, 0), id);
            report(
                format_args!("the parent itself"),
                with(0, 8, u64::MAX),
                None,
            );
        }
        if self.names_vp {
            let index = Some(HvError::INVALID_VP_INDEX);
            report(format_args!("a VP that there is not"), with(8, 4, 7), index);
            report(
                format_args!("a VP that cannot be"),
                with(8, 4, 0x1234_5678),
                index,
            );
        }
        for (at, bytes, value, status) in &self.bad {
            report(
                format_args!("{value:#x} at {at:#x}"),
                with(*at, *bytes, *value),
                *status,
            );
        }
        if self.is_made {
            let result = guest.feed(|_| self.make(&self.header).status);
            need(format_args!("{}: a success", self.name), result);
        }
    }
}

fn words(list: &[u64]) -> Vec<u8> {
    list.iter().flat_map(|word| word.to_le_bytes()).collect()
}

#[expect(clippy::too_many_lines, reason = "a table")]
fn cases(guest: &Guest, frames: &[u64]) -> Vec<Case> {
    const PARAMETER: HvError = HvError::INVALID_PARAMETER;
    let id = guest.id;
    let vp = VpIndex::new(0);
    let pfn = |n: usize| frames[n] / FRAME;
    let base = Gpn::new(0x600);
    let block = |bytes: &[u8]| bytes.to_vec();
    let weight = PropertyCode::CPU_WEIGHT;
    let synic = tlfs::wire::SintIndex::new(2);
    let message = tlfs::Message::new(tlfs::MessageType(1), 0, &[1; 8]).unwrap_or_default();
    let port = CreatePort {
        owner: PARTITION_SELF,
        port: PortId(0x70),
        sender: id,
        info: PortInfo {
            kind: PortKind::Message,
            sint: tlfs::wire::SintIndex::new(6),
            vp,
        },
        ..CreatePort::default()
    };
    let connect = ConnectPort {
        sender: id,
        connection: ConnectionId(0x70),
        owner: PARTITION_SELF,
        port: PortId(0x70),
        kind: ConnectionKind::Message,
        ..ConnectPort::default()
    };
    let state = |kind| VpState {
        partition: id,
        kind,
        xsave_states: if kind == StateType::Xsave { 7 } else { 0 },
        ..VpState::default()
    };
    let stats = |area| StatsObject {
        of: StatsOf::Vp(id, vp),
        area,
    };
    let property = GetProperty {
        partition: id,
        code: weight,
        ..GetProperty::default()
    };
    let set = SetProperty {
        partition: id,
        code: weight,
        value: 100,
        ..SetProperty::default()
    };
    let ex = GetPropertyEx {
        partition: PARTITION_SELF,
        code: PropertyCode::VMM_CAPABILITIES,
        ..GetPropertyEx::default()
    };
    let next = GetNextChild {
        parent: PARTITION_SELF,
        previous: PARTITION_NONE,
    };
    let only = PartitionOnly { partition: id };
    let withdraw = Withdraw {
        partition: id,
        ..Withdraw::default()
    };
    let map = MapGpaPages {
        partition: id,
        base,
        flags: RWX,
        ..MapGpaPages::default()
    };
    let unmap = UnmapGpaPages {
        partition: id,
        base,
        ..UnmapGpaPages::default()
    };
    let new_vp = CreateVp {
        partition: id,
        vp: VpIndex::new(1),
        ..CreateVp::default()
    };
    let old_vp = DeleteVp {
        partition: id,
        vp: VpIndex::new(1),
        ..DeleteVp::default()
    };
    let registers = VpRegisters {
        partition: id,
        vp,
        ..VpRegisters::default()
    };
    let rax = RegisterValue {
        name: RegisterName::RAX,
        value: 5,
        ..RegisterValue::default()
    };
    let translate = Translate {
        partition: id,
        vp,
        flags: TranslateControl(TranslateFlags::READ),
        page: addr::Gvn::new(2),
        ..Translate::default()
    };
    let read = ReadGpa {
        partition: id,
        vp,
        bytes: AccessBytes::new(16),
        gpa: addr::Gpa::new(0x1000),
        ..ReadGpa::default()
    };
    let write = WriteGpa {
        to: ReadGpa {
            gpa: addr::Gpa::new(layout::DATA),
            ..read
        },
        data: [1; 16],
    };
    let assert = AssertInterrupt {
        partition: id,
        kind: InterruptType::Fixed,
        vector: 0x50,
        ..AssertInterrupt::default()
    };
    let intercept = InstallIntercept {
        partition: id,
        access: AccessMask::empty(),
        kind: InterceptType::Cpuid,
        parameter: 0x8888,
    };
    let cpuid = RegisterCpuidResult {
        partition: id,
        vp: VP_ANY,
        leaf: 0x8000_0003,
        ..RegisterCpuidResult::default()
    };
    let values = GetCpuidValues {
        partition: id,
        vp,
        ..GetCpuidValues::default()
    };
    let marks = GetAccessStates {
        partition: id,
        base: Gpn::new(0x10),
        ..GetAccessStates::default()
    };
    let unstate = UnmapStatePage {
        partition: id,
        vp,
        kind: StatePageType::Registers,
        ..UnmapStatePage::default()
    };
    let page = MapStatePage {
        partition: id,
        vp,
        kind: StatePageType::Registers,
        is_placed: true,
        page: Gpn::new(guest.vps[0].registers / FRAME),
        ..MapStatePage::default()
    };
    let direct = PostMessageDirect {
        partition: id,
        vp,
        sint: synic,
        message,
        ..PostMessageDirect::default()
    };
    let signal = SignalEventDirect {
        partition: id,
        vp,
        sint: synic,
        ..SignalEventDirect::default()
    };
    alloc::vec![
        Case::new(
            "CreatePartition",
            CallCode::CREATE_PARTITION,
            &create_input(USUAL).encode()
        )
        .own()
        .unmade()
        .wrong(0, 8, USUAL.difference(CreateFlags::EXO).bits(), PARAMETER)
        .wrong(0, 8, USUAL.difference(CreateFlags::LAPIC).bits(), PARAMETER)
        .wrong(0, 8, USUAL.union(CreateFlags::NESTED).bits(), PARAMETER)
        .wrong(0, 8, USUAL.bits() | 1 << 62, PARAMETER)
        .wrong(0x14, 4, 1, PARAMETER)
        .bad(0x30, 8, 1),
        Case::new(
            "InitializePartition",
            CallCode::INITIALIZE_PARTITION,
            &only.encode()
        )
        .unmade()
        .wrong(0, 8, id.get(), HvError::INVALID_PARTITION_STATE),
        Case::new(
            "DeletePartition",
            CallCode::DELETE_PARTITION,
            &only.encode()
        )
        .unmade()
        .wrong(0, 8, id.get(), HvError::INVALID_PARTITION_STATE),
        // The parent places its pages itself.
        Case::new(
            "MapStatsPage",
            CallCode::MAP_STATS_PAGE,
            &StatsPage {
                object: stats(StatsArea::Own)
            }
            .encode()
        )
        .own()
        .unmade()
        .wrong(23, 1, 0, PARAMETER)
        .wrong(23, 1, 1, PARAMETER),
        Case::new(
            "GetPartitionProperty",
            CallCode::GET_PARTITION_PROPERTY,
            &property.encode()
        )
        .wrong(8, 4, 0x7777, HvError::UNKNOWN_PROPERTY)
        .wrong(12, 4, 1, PARAMETER),
        Case::new(
            "SetPartitionProperty",
            CallCode::SET_PARTITION_PROPERTY,
            &set.encode()
        )
        .wrong(8, 4, 0x7777, HvError::UNKNOWN_PROPERTY)
        .wrong(12, 4, 1, PARAMETER)
        .wrong(16, 8, u64::MAX, HvError::PROPERTY_VALUE_OUT_OF_RANGE)
        .wrong(16, 8, 0, HvError::PROPERTY_VALUE_OUT_OF_RANGE),
        Case::new(
            "GetPartitionPropertyEx",
            CallCode::GET_PARTITION_PROPERTY_EX,
            &ex.encode()
        )
        .own()
        .bad(8, 4, 0x7777)
        .wrong(0, 8, NOBODY, HvError::INVALID_PARTITION_ID),
        Case::new(
            "GetNextChildPartition",
            CallCode::GET_NEXT_CHILD_PARTITION,
            &next.encode()
        )
        .own()
        .bad(0, 8, NOBODY),
        Case::new("DepositMemory", CallCode::DEPOSIT_MEMORY, &only.encode())
            .list(&words(&[u64::MAX >> 12]), 1)
            .unmade(),
        Case::new(
            "WithdrawMemory",
            CallCode::WITHDRAW_MEMORY,
            &withdraw.encode()
        )
        .list(&[], 1)
        .out(8)
        .unmade(),
        Case::new("MapGpaPages", CallCode::MAP_GPA_PAGES, &map.encode())
            .list(&words(&[pfn(0), pfn(1)]), 2)
            .bad(8, 8, u64::MAX)
            .bad(8, 8, 1 << 40)
            .bad(16, 4, 1 << 20)
            .bad(16, 4, 2)
            .bad(16, 4, 0x8000_000F),
        Case::new("UnmapGpaPages", CallCode::UNMAP_GPA_PAGES, &unmap.encode())
            .list(&[], 2)
            .bad(8, 8, u64::MAX)
            .bad(8, 8, 1 << 40)
            .bad(16, 4, 1),
        Case::new("CreateVp", CallCode::CREATE_VP, &new_vp.encode())
            .bad(8, 4, 0)
            .wrong(8, 4, 64, HvError::INVALID_VP_INDEX)
            .wrong(8, 4, u64::from(u32::MAX), HvError::INVALID_VP_INDEX),
        Case::new("DeleteVp", CallCode::DELETE_VP, &old_vp.encode())
            .vp()
            .wrong(12, 4, 1, PARAMETER),
        Case::new(
            "GetVpRegisters",
            CallCode::GET_VP_REGISTERS,
            &registers.encode()
        )
        .vp()
        .list(&block(&RegisterName::RAX.0.to_le_bytes()), 1)
        .out(16)
        .wrong(12, 1, 1, PARAMETER)
        .wrong(13, 1, 1, PARAMETER),
        Case::new(
            "SetVpRegisters",
            CallCode::SET_VP_REGISTERS,
            &registers.encode()
        )
        .vp()
        .list(&rax.encode(), 1)
        .wrong(12, 1, 1, PARAMETER)
        .wrong(15, 1, 1, PARAMETER),
        Case::new(
            "TranslateVirtualAddress",
            CallCode::TRANSLATE_VIRTUAL_ADDRESS,
            &translate.encode()
        )
        .vp()
        .wrong(12, 4, 1, PARAMETER)
        .wrong(16, 8, 1 << 20, PARAMETER),
        Case::new("ReadGpa", CallCode::READ_GPA, &read.encode())
            .vp()
            .wrong(12, 4, 17, PARAMETER)
            .wrong(25, 1, 1, PARAMETER),
        Case::new("WriteGpa", CallCode::WRITE_GPA, &write.encode())
            .vp()
            .wrong(12, 4, 17, PARAMETER),
        Case::new(
            "ClearVirtualInterrupt",
            CallCode::CLEAR_VIRTUAL_INTERRUPT,
            &only.encode()
        ),
        Case::new(
            "AssertVirtualInterrupt",
            CallCode::ASSERT_VIRTUAL_INTERRUPT,
            &assert.encode()
        )
        .wrong(8, 4, 3, PARAMETER)
        .wrong(12, 4, 4, PARAMETER)
        .bad(24, 4, 0x100)
        .wrong(28, 1, 1, PARAMETER)
        .wrong(29, 1, 1, PARAMETER),
        Case::new(
            "InstallIntercept",
            CallCode::INSTALL_INTERCEPT,
            &intercept.encode()
        )
        .wrong(8, 4, 8, PARAMETER)
        .wrong(12, 4, 0x55, PARAMETER),
        Case::new(
            "RegisterInterceptResult",
            CallCode::REGISTER_INTERCEPT_RESULT,
            &cpuid.encode()
        )
        .wrong(12, 4, 1, PARAMETER)
        .wrong(24, 1, 2, PARAMETER)
        .wrong(8, 4, 9, HvError::INVALID_VP_INDEX),
        Case::new(
            "GetVpCpuidValues",
            CallCode::GET_VP_CPUID_VALUES,
            &values.encode()
        )
        .vp()
        .list(
            &CpuidLeaf {
                leaf: 1,
                ..CpuidLeaf::default()
            }
            .encode(),
            1
        )
        .out(16)
        .wrong(12, 4, 4, PARAMETER),
        Case::new(
            "GetGpaPagesAccessStates",
            CallCode::GET_GPA_PAGES_ACCESS_STATES,
            &marks.encode()
        )
        .list(&[], 4)
        .out(1)
        .wrong(8, 8, 16, PARAMETER)
        .bad(16, 8, u64::MAX),
        Case::new(
            "UnmapVpStatePage",
            CallCode::UNMAP_VP_STATE_PAGE,
            &unstate.encode()
        )
        .vp()
        .wrong(12, 2, 7, PARAMETER)
        .wrong(15, 1, 1, PARAMETER),
        Case::new(
            "MapVpStatePage",
            CallCode::MAP_VP_STATE_PAGE,
            &page.encode()
        )
        .vp()
        .wrong(12, 2, 7, PARAMETER)
        .wrong(15, 1, 2, PARAMETER)
        .bad(16, 8, 1 << 40)
        .bad(16, 8, 0xFEE00),
        Case::new(
            "GetVpState, APIC",
            CallCode::GET_VP_STATE,
            &state(StateType::Lapic).encode()
        )
        .header_pages(&frames[2..3])
        .vp()
        .wrong(16, 4, 0x8000_0009, PARAMETER)
        .bad(40, 8, 1 << 40),
        Case::new(
            "SetVpState, APIC",
            CallCode::SET_VP_STATE,
            &state(StateType::Lapic).encode()
        )
        .header_pages(&frames[2..3])
        .vp()
        .bad(40, 8, 1 << 40),
        Case::new(
            "GetVpState, xsave",
            CallCode::GET_VP_STATE,
            &state(StateType::Xsave).encode()
        )
        .header_pages(&frames[3..4])
        .vp()
        .bad(40, 8, 1 << 40),
        Case::new(
            "SetVpState, xsave",
            CallCode::SET_VP_STATE,
            &state(StateType::Xsave).encode()
        )
        .header_pages(&frames[3..4])
        .vp(),
        Case::new(
            "GetVpState, timers",
            CallCode::GET_VP_STATE,
            &state(StateType::Timers).encode()
        )
        .vp()
        .wrong(20, 4, 1, PARAMETER),
        Case::new(
            "MapStatsPage2",
            CallCode::MAP_STATS_PAGE_2,
            &MapStatsPage2 {
                object: stats(StatsArea::Own),
                page: Gpn::new(pfn(4))
            }
            .encode()
        )
        .own()
        .bad(0, 4, 9)
        .wrong(4, 4, 1, PARAMETER)
        .wrong(8, 8, NOBODY, HvError::INVALID_PARTITION_ID)
        .wrong(16, 4, 9, HvError::INVALID_VP_INDEX)
        .bad(23, 1, 2)
        .bad(24, 8, 1 << 40),
        Case::new(
            "UnmapStatsPage",
            CallCode::UNMAP_STATS_PAGE,
            &StatsPage {
                object: stats(StatsArea::Own)
            }
            .encode()
        )
        .own()
        .bad(0, 4, 9),
        Case::new("CreatePort", CallCode::CREATE_PORT, &port.encode())
            .own()
            .wrong(0, 8, NOBODY, HvError::INVALID_PARTITION_ID)
            .wrong(16, 8, NOBODY, HvError::INVALID_PARTITION_ID)
            .wrong(24, 8, 9, PARAMETER)
            .wrong(32, 4, 16, PARAMETER)
            .bad(36, 4, 77),
        Case::new("ConnectPort", CallCode::CONNECT_PORT, &connect.encode())
            .wrong(16, 8, NOBODY, HvError::INVALID_PARTITION_ID)
            // The port is not the child's.
            .wrong(16, 8, id.get(), HvError::INVALID_PORT_ID)
            .wrong(24, 4, 0x7777, HvError::INVALID_PORT_ID)
            .wrong(32, 4, 9, PARAMETER),
        Case::new(
            "DisconnectPort",
            CallCode::DISCONNECT_PORT,
            &DisconnectPort {
                sender: id,
                connection: ConnectionId(0x70),
                ..DisconnectPort::default()
            }
            .encode()
        )
        // It is not the parent's.
        .wrong(0, 8, u64::MAX, HvError::INVALID_CONNECTION_ID)
        .wrong(8, 4, 0x7777, HvError::INVALID_CONNECTION_ID)
        .wrong(12, 4, 2, PARAMETER),
        Case::new(
            "DeletePort",
            CallCode::DELETE_PORT,
            &DeletePort {
                owner: PARTITION_SELF,
                port: PortId(0x70),
                ..DeletePort::default()
            }
            .encode()
        )
        .own()
        // It is not the child's.
        .wrong(0, 8, id.get(), HvError::INVALID_PORT_ID)
        .wrong(8, 4, 0x7777, HvError::INVALID_PORT_ID)
        .wrong(12, 4, 1, PARAMETER),
        Case::new(
            "NotifyPortRingEmpty",
            CallCode::NOTIFY_PORT_RING_EMPTY,
            &RingEmpty {
                sint: tlfs::wire::SintIndex::new(5),
                ..RingEmpty::default()
            }
            .encode()
        )
        .own()
        .wrong(0, 4, 16, PARAMETER)
        .unmade(),
        Case::new(
            "SignalEventDirect",
            CallCode::SIGNAL_EVENT_DIRECT,
            &signal.encode()
        )
        .vp()
        .wrong(13, 1, 16, PARAMETER)
        .wrong(14, 2, 2048, PARAMETER)
        .unmade(),
        Case::new(
            "PostMessageDirect",
            CallCode::POST_MESSAGE_DIRECT,
            &direct.encode()
        )
        .vp()
        .wrong(16, 1, 16, PARAMETER)
        .wrong(0x14, 4, 0, PARAMETER)
        .wrong(0x18, 1, 241, PARAMETER)
        .unmade(),
    ]
}

impl Case {
    /// The good call is tested elsewhere, or depends on the child.
    fn unmade(self) -> Self {
        Self {
            is_made: false,
            ..self
        }
    }
}

/// Makes every call of the table from a child; result n is the status of the n-th.
extern "sysv64" fn call_everything(shared: &'static Shared) -> ! {
    runtime::enable_calls();
    let count = shared.arg(0);
    for n in 0..count {
        // The parent left control words in a page.
        let control = runtime::read(layout::DATA + n * 8);
        let status = runtime::call_page(control, layout::CALL_INPUT, layout::CALL_OUTPUT);
        runtime::write(layout::DATA + 0x1000 + n * 8, status);
    }
    runtime::stop(0)
}

fn privileges(guest: &mut Guest) {
    let specs = CALLS.specs();
    for (n, spec) in specs.iter().enumerate() {
        let once = if spec.shape.rep.is_some() { 1 << 32 } else { 0 };
        guest.write(layout::DATA + n as u64 * 8, u64::from(spec.code.0) | once);
    }
    need(
        "privileges: start",
        guest.start_entry(0, call_everything, &[specs.len() as u64]),
    );
    if stopped("privileges: a child makes every call", guest.run(0)).is_none() {
        return;
    }
    let child = tlfs::SyntheticFeatures::ASSIGNABLE.meaning().0;
    let mut wrong = 0;
    for (n, spec) in specs.iter().enumerate() {
        let status = guest.read(layout::DATA + 0x1000 + n as u64 * 8) & 0xFFFF;
        let denied = status == u64::from(HvError::ACCESS_DENIED.0);
        if denied == child.contains(spec.privilege) {
            note(format_args!("{} from a child: {status:#x}", spec.name));
            wrong += 1;
        }
    }
    equal(
        "privileges: calls that a child may make and may not, or the other way",
        wrong,
        0,
    );
}

/// What a partition answers that is not initialized.
fn created() {
    let Some(mut guest) = need("created: a model", Guest::new(1)) else {
        return;
    };
    let id = guest.id;
    let Some(child) = need("created: a child", Child::create(USUAL)) else {
        return;
    };
    let frames = arena::frames(8);
    // The same blocks, about a partition in another state.
    guest.id = child.id;
    for case in cases(&guest, &frames) {
        let is_open = matches!(
            case.code,
            CallCode::GET_PARTITION_PROPERTY
                | CallCode::SET_PARTITION_PROPERTY
                | CallCode::INSTALL_INTERCEPT
                | CallCode::INITIALIZE_PARTITION
                | CallCode::DELETE_PARTITION
        );
        if !case.names_child || is_open {
            continue;
        }
        let reply = case.make(&case.header);
        super::fails(format_args!("created: {}", case.name), reply.status);
    }
    guest.id = id;
    frames.iter().for_each(|frame| arena::free(*frame));
    super::clean("created", child.destroy());
    super::destroy("created: the model", guest);
}

/// What a finalized partition still answers.
fn finalized() {
    let Some(mut guest) = need("finalized: a child", Guest::new(1)) else {
        return;
    };
    need(
        "finalized: finalize",
        call::fast(CallCode::FINALIZE_PARTITION, guest.id.get(), 0),
    );
    let frames = arena::frames(8);
    for case in cases(&guest, &frames) {
        let is_open = matches!(
            case.code,
            CallCode::GET_PARTITION_PROPERTY
                | CallCode::SET_PARTITION_PROPERTY
                | CallCode::UNMAP_GPA_PAGES
                | CallCode::WITHDRAW_MEMORY
                | CallCode::CLEAR_VIRTUAL_INTERRUPT
                | CallCode::DISCONNECT_PORT
        );
        if !case.names_child || is_open {
            continue;
        }
        let reply = case.make(&case.header);
        super::fails(format_args!("finalized: {}", case.name), reply.status);
    }
    frames.iter().for_each(|frame| arena::free(*frame));
    guest.is_initialized = false;
    super::destroy("finalized", guest);
}
