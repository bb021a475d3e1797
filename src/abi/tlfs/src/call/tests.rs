//! Every block of parameters: where its fields are, what is reserved, what is ignored.

use std::ops::Range;
use std::vec::Vec;

use addr::{Gpa, Gpn, Gvn, LpIndex, PartitionId, VpIndex};
use proptest::prelude::*;
use x86::{Segment, TableRegister};

use super::*;
use crate::intercept::*;
use crate::property::{Bank, PropertyCode};
use crate::register::RegisterName;
use crate::state::{TimerState, TimersState};
use crate::wire::SintIndex;
use crate::{Message, MessageType};

const ID: PartitionId = PartitionId::new(0x1122_3344_5566_7788);
const VP: VpIndex = VpIndex::new(0xA1A2_A3A4);
const GPN: Gpn = Gpn::new(0xB1B2_B3B4_B5B6_B7B8);

/// Offset, length and value of a field, or mask of its bits.
type At = (usize, usize, u64);

/// One kind of block.
struct Case {
    name: &'static str,
    /// A valid block with something in every field.
    bytes: Vec<u8>,
    /// Decodes and encodes again.
    again: fn(&[u8]) -> Result<Vec<u8>, HvError>,
    /// What must be where.
    fields: Vec<At>,
    /// Bits that are refused.
    reserved: Vec<At>,
    /// Bytes that may be anything and are forgotten.
    ignored: Vec<Range<usize>>,
}

macro_rules! case {
    ($type:ident { $($field:ident: $value:expr),* $(,)? },
        at: [$($at:expr),*], reserved: [$($reserved:expr),*], ignored: [$($ignored:expr),*]) => {{
        #[allow(clippy::needless_update, reason = "some blocks are named whole")]
        let block = $type { $($field: $value,)* ..$type::default() };
        Case {
            name: stringify!($type),
            bytes: block.encode().to_vec(),
            again: |bytes| $type::decode(bytes).map(|block| block.encode().to_vec()),
            fields: std::vec![$($at),*],
            reserved: std::vec![$($reserved),*],
            ignored: std::vec![$($ignored),*],
        }
    }};
}

const fn id(at: usize) -> At {
    (at, 8, ID.get())
}

const fn vp(at: usize) -> At {
    (at, 4, VP.get() as u64)
}

const fn gpn(at: usize) -> At {
    (at, 8, GPN.get())
}

/// All bits of `length` bytes, at most 8.
const fn all(at: usize, length: usize) -> At {
    (at, length, u64::MAX >> (64 - 8 * length))
}

/// The VTL byte: only 0x10 and 0 will do.
const fn vtl(at: usize) -> At {
    (at, 1, 0xEF)
}

fn partitions() -> Vec<Case> {
    let code = PropertyCode(0xC1C2_C3C4);
    let flags = CreateFlags::EXO | CreateFlags::INTERCEPT_PAGE;
    let of = StatsOf::Vp(ID, VP);
    let object = StatsObject {
        of,
        area: StatsArea::Parent,
    };
    let lp = StatsObject {
        of: StatsOf::Lp(LpIndex::new(7)),
        area: StatsArea::Parent,
    };
    let partition = StatsObject {
        of: StatsOf::Partition(ID),
        area: StatsArea::Parent,
    };
    let own = StatsObject::default();
    std::vec![
        case!(CreatePartition {
                flags: flags, compatibility: 0x609, disabled_features: [1, 2], disabled_xsave: 3 },
            at: [(0, 8, 0x8_0100), (0x10, 4, 0x609), (0x18, 8, 1), (0x20, 8, 2), (0x28, 8, 3)],
            reserved: [(0, 8, !0x48_2113), all(0x14, 4), all(0x30, 8)], ignored: [8..0x10]),
        case!(PartitionOnly { partition: ID }, at: [id(0)], reserved: [], ignored: []),
        case!(GetProperty { partition: ID, code: code },
            at: [id(0), (8, 4, 0xC1C2_C3C4)], reserved: [all(0xC, 4)], ignored: []),
        case!(SetProperty { partition: ID, code: code, value: 77 },
            at: [id(0), (8, 4, 0xC1C2_C3C4), (0x10, 8, 77)], reserved: [all(0xC, 4)], ignored: []),
        case!(GetPropertyEx { partition: ID, code: code, argument: 77 },
            at: [id(0), (8, 4, 0xC1C2_C3C4), (0x10, 8, 77)], reserved: [all(0xC, 4)], ignored: []),
        case!(GetNextChild { parent: ID, previous: PartitionId::new(9) },
            at: [id(0), (8, 8, 9)], reserved: [], ignored: []),
        case!(Withdraw { partition: ID }, at: [id(0)], reserved: [], ignored: [8..0x10]),
        case!(StatsPage { object: object }, at: [(0, 4, 0x1_0002), id(8), vp(0x10), (0x17, 1, 1)],
            reserved: [all(4, 4), all(0x14, 3), (0x17, 1, 0xFE)], ignored: []),
        case!(StatsPage { object: lp }, at: [(0, 4, 2), (8, 4, 7), (0x17, 1, 1)],
            reserved: [all(4, 4), all(0xC, 8), all(0x14, 3), (0x17, 1, 0xFE)], ignored: []),
        case!(StatsPage { object: partition }, at: [(0, 4, 0x1_0001), id(8), (0x17, 1, 1)],
            reserved: [all(4, 4), all(0x10, 7), (0x17, 1, 0xFE)], ignored: []),
        case!(MapStatsPage2 { object: own, page: GPN }, at: [(0, 4, 1), gpn(0x18)],
            reserved: [all(4, 4), all(8, 8), all(0x10, 7), (0x17, 1, 0xFE)], ignored: []),
        case!(Bank { count: 1, value: 77 }, at: [(0, 2, 1), (8, 8, 77)], reserved: [all(2, 6)], ignored: []),
    ]
}

fn memory() -> Vec<Case> {
    let control = TranslateControl(TranslateFlags::READ | TranslateFlags::PRIVILEGE_EXEMPT);
    let to = ReadGpa {
        partition: ID,
        vp: VP,
        bytes: AccessBytes::new(16),
        gpa: Gpa::new(0x123),
        cache_type: 6,
        ..ReadGpa::default()
    };
    let data = 0x0F0E_0D0C_0B0A_0908_0706_0504_0302_0100u128.to_le_bytes();
    let result = AccessGpaOutput {
        code: AccessGpaCode::WriteIntercept,
        ..AccessGpaOutput::default()
    };
    std::vec![
        case!(MapGpaPages { partition: ID, base: GPN, flags: MapFlags::LARGE | MapFlags::READ },
            at: [id(0), gpn(8), (0x10, 4, 0x8000_0001)],
            reserved: [(0x10, 4, !0x8021_800F)], ignored: [0x14..0x18]),
        case!(UnmapGpaPages { partition: ID, base: GPN, flags: UnmapFlags::LARGE },
            at: [id(0), gpn(8), (0x10, 4, 2)], reserved: [(0x10, 4, !2)], ignored: [0x14..0x18]),
        case!(GetAccessStates { partition: ID, flags: AccessStateFlags::SET_DIRTY, base: GPN },
            at: [id(0), (8, 8, 8), gpn(0x10)], reserved: [(8, 8, !0xF)], ignored: []),
        case!(Translate { partition: ID, vp: VP, flags: control, page: Gvn::new(0x99) },
            at: [id(0), vp(8), (0x10, 8, 9), (0x18, 8, 0x99)],
            reserved: [all(0xC, 4), (0x10, 8, 0xEFFF_FFFF_FFFF_F800)], ignored: []),
        case!(Translation { code: TranslateCode::Unmapped, cache_type: 6, is_overlay: true, page: GPN },
            at: [(0, 4, 4), (4, 1, 6), (5, 1, 1), gpn(8)], reserved: [(5, 1, 0xFE), all(6, 2)], ignored: []),
        case!(WriteGpa { to: to, data: data },
            at: [id(0), vp(8), (0xC, 4, 16), (0x10, 8, 0x123), (0x18, 1, 6), (0x20, 8, 0x0706_0504_0302_0100)],
            reserved: [(0xC, 4, 0xFFFF_FFEF), all(0x19, 7)], ignored: []),
        case!(ReadGpaOutput { result: result, data: data },
            at: [(0, 4, 3), (8, 8, 0x0706_0504_0302_0100)], reserved: [all(4, 4)], ignored: []),
    ]
}

fn vps() -> Vec<Case> {
    let segment = Segment {
        base: 1,
        limit: 2,
        selector: 3,
        attributes: 4,
    };
    let table = TableRegister { base: 5, limit: 6 };
    let context = InitialContext {
        rip: 7,
        ldtr: segment,
        gdtr: table,
        pat: 8,
        ..InitialContext::default()
    };
    let timers = [TimerState {
        undelivered: 1,
        config: 2,
        ..TimerState::default()
    }; 4];
    std::vec![
        case!(CreateVp { partition: ID, vp: VP, flags: 77 },
            at: [id(0), vp(8), (0x20, 8, 77)], reserved: [], ignored: [0xC..0x20]),
        case!(DeleteVp { partition: ID, vp: VP }, at: [id(0), vp(8)], reserved: [all(0xC, 4)], ignored: []),
        case!(VpRegisters { partition: ID, vp: VP },
            at: [id(0), vp(8)], reserved: [vtl(0xC), all(0xD, 3)], ignored: []),
        case!(RegisterValue { name: RegisterName::TR, value: 77 << 64 | 88 },
            at: [(0, 4, 0x6_0007), (0x10, 8, 88), (0x18, 8, 77)], reserved: [], ignored: [4..0x10]),
        case!(MapStatePage { partition: ID, vp: VP, kind: StatePageType::Intercept, is_placed: true, page: GPN },
            at: [id(0), vp(8), (0xC, 2, 1), (0xF, 1, 1), gpn(0x10)],
            reserved: [(0xC, 2, 0xFFFE), vtl(0xE), (0xF, 1, 0xFE)], ignored: []),
        case!(UnmapStatePage { partition: ID, vp: VP, kind: StatePageType::Intercept },
            at: [id(0), vp(8), (0xC, 2, 1)], reserved: [(0xC, 2, 0xFFFE), vtl(0xE), all(0xF, 1)], ignored: []),
        case!(VpState { partition: ID, vp: VP, kind: StateType::Xsave, xsave_flags: 77, xsave_states: 88 },
            at: [id(0), vp(8), (0x10, 4, 0x8000_0001), (0x18, 8, 77), (0x20, 8, 88)],
            reserved: [vtl(0xC), all(0xD, 3), (0x10, 4, 0xFFFF_FFFC), all(0x14, 4)], ignored: []),
        case!(GetCpuidValues { partition: ID, vp: VP, flags: CpuidValuesFlags::APPLY_REGISTERED },
            at: [id(0), vp(8), (0xC, 4, 2)], reserved: [(0xC, 4, !3), all(0x10, 8)], ignored: []),
        case!(CpuidLeaf { leaf: 1, subleaf: 2, xfem: 3, xss: 4 },
            at: [(0, 4, 1), (4, 4, 2), (8, 8, 3), (0x10, 8, 4)], reserved: [], ignored: []),
        case!(StartVp { partition: ID, vp: VP, context: context },
            at: [id(0), vp(8), (0x10, 8, 7), (0x98, 8, 1), (0xA0, 4, 2), (0xA4, 2, 3), (0xA6, 2, 4),
                (0xBE, 2, 6), (0xC0, 8, 5), (0xE8, 8, 8)],
            reserved: [vtl(0xC), all(0xD, 3)], ignored: [0xA8..0xAE, 0xB8..0xBE]),
        case!(VpIndexFromApicId { partition: ID }, at: [id(0)], reserved: [vtl(8), all(9, 7)], ignored: []),
        case!(TimersState { timers: timers },
            at: [(0, 8, 1), (8, 8, 2), (0x78, 8, 1), (0x80, 8, 2)],
            reserved: [all(0xA0, 8), all(0xC0, 8)], ignored: []),
    ]
}

fn interrupts() -> Vec<Case> {
    std::vec![
        case!(AssertInterrupt { partition: ID, kind: InterruptType::ExtInt, flags: InterruptFlags::LOGICAL,
                destination: 77, vector: 0x31 },
            at: [id(0), (8, 4, 7), (0xC, 4, 2), (0x10, 8, 77), (0x18, 4, 0x31)],
            reserved: [(8, 4, 0xFFFF_FFF8), (0xC, 4, !3), vtl(0x1C), all(0x1D, 3)], ignored: []),
        case!(InstallIntercept { partition: ID, access: AccessMask::EXECUTE, kind: InterceptType::Cpuid,
                parameter: 77 },
            at: [id(0), (8, 4, 4), (0xC, 4, 2), (0x10, 8, 77)],
            reserved: [(8, 4, !7), (0xC, 4, 0xFFFF_FFF0)], ignored: []),
        case!(RegisterCpuidResult { partition: ID, vp: VP, leaf: 1, subleaf: 2, is_subleaf_specific: true,
                is_always_override: true, registers: [[3, 4], [5, 6], [7, 8], [9, 10]] },
            at: [id(0), vp(8), (0xC, 4, 2), (0x10, 4, 1), (0x14, 4, 2), (0x18, 1, 1), (0x19, 1, 1), (0x1C, 4, 3),
                (0x20, 4, 4), (0x34, 4, 9), (0x38, 4, 10)],
            reserved: [all(0xC, 4), (0x18, 1, 0xFE), (0x19, 1, 0xFE)], ignored: [0x1A..0x1C]),
    ]
}

fn ports() -> Vec<Case> {
    let (sint, vp_) = (SintIndex::new(5), VP);
    let doorbell = PortInfo {
        kind: PortKind::Doorbell,
        sint,
        vp: vp_,
    };
    let event = PortInfo {
        kind: PortKind::Event {
            base: 2000,
            count: 48,
        },
        ..doorbell
    };
    let bell = Doorbell {
        gpa: Gpa::new(0x1234),
        value: Some(77),
        bytes: Some(4),
    };
    let bell = ConnectionKind::Doorbell(bell);
    let message = Message::new(MessageType(1), 0x55, &[7; 9]).unwrap();
    std::vec![
        case!(CreatePort { owner: ID, port: PortId(3), sender: PartitionId::new(9), info: doorbell },
            at: [id(0), (8, 4, 3), (0x10, 8, 9), (0x18, 4, 4), (0x20, 4, 5), vp(0x24)],
            reserved: [vtl(0xC), vtl(0xD), all(0xE, 2), all(0x1C, 4), (0x20, 4, !0xF), all(0x28, 8)],
            ignored: [0x30..0x38]),
        case!(CreatePort { owner: ID, port: PortId(3), sender: PartitionId::new(9), info: event },
            at: [(0x18, 4, 2), (0x20, 4, 5), (0x28, 2, 2000), (0x2A, 2, 48)],
            reserved: [all(0x1C, 4), (0x2A, 2, 0xFF0F), all(0x2C, 4)], ignored: [0x30..0x38]),
        case!(ConnectPort { sender: ID, connection: ConnectionId(3), owner: PartitionId::new(9), port: PortId(4),
                kind: bell },
            at: [id(0), (8, 4, 3), (0x10, 8, 9), (0x18, 4, 4), (0x20, 4, 4), (0x28, 8, 0x1234), (0x30, 8, 77),
                (0x38, 8, 3)],
            reserved: [vtl(0xC), all(0xD, 3), all(0x1C, 4), all(0x24, 4), (0x38, 8, 0xFFFF_FFFF_7FFF_FFF8)],
            ignored: [0x40..0x48]),
        case!(ConnectPort { sender: ID, connection: ConnectionId(3), kind: ConnectionKind::Event },
            at: [(0x20, 4, 2)], reserved: [all(0x28, 8), all(0x30, 8), all(0x38, 8)], ignored: [0x40..0x48]),
        case!(DeletePort { owner: ID, port: PortId(3) },
            at: [id(0), (8, 4, 3)], reserved: [all(0xC, 4)], ignored: []),
        case!(DisconnectPort { sender: ID, connection: ConnectionId(3), is_doorbell: true },
            at: [id(0), (8, 4, 3), (0xC, 4, 1)], reserved: [(0xC, 4, !1)], ignored: []),
        case!(RingEmpty { sint: sint }, at: [(0, 4, 5)], reserved: [(0, 4, !0xF), all(4, 4)], ignored: []),
        case!(SignalEventDirect { partition: ID, vp: VP, sint: SintIndex::new(2), flag: FlagNumber::new(2047) },
            at: [id(0), vp(8), (0xD, 1, 2), (0xE, 2, 2047)],
            reserved: [vtl(0xC), (0xD, 1, 0xF0), (0xE, 2, 0xF800)], ignored: []),
        case!(PostMessageDirect { partition: ID, vp: VP, sint: SintIndex::new(2), message: message },
            at: [id(0), vp(8), (0x10, 1, 2), (0x14, 4, 1), (0x18, 1, 9), (0x1C, 8, 0x55), (0x24, 8, 0x0707_0707_0707_0707)],
            reserved: [vtl(0xC), all(0xD, 3), (0x10, 1, 0xF0), all(0x11, 3)], ignored: [0x19..0x1C, 0x2D..0x114]),
    ]
}

fn guests() -> Vec<Case> {
    let set = VpSetHeader {
        format: 1,
        valid_banks: 77,
    };
    let vector = IpiVector::new(0x31).unwrap();
    std::vec![
        case!(Flush { address_space: 0x1000, flags: FlushFlags::NON_GLOBAL_ONLY, vps: 77 },
            at: [(0, 8, 0x1000), (8, 8, 4), (0x10, 8, 77)], reserved: [(8, 8, !7)], ignored: []),
        case!(FlushEx { address_space: 0x1000, flags: FlushFlags::ALL_SPACES, vps: set },
            at: [(0, 8, 0x1000), (8, 8, 2), (0x10, 8, 1), (0x18, 8, 77)], reserved: [(8, 8, !7)], ignored: []),
        case!(ClusterIpi { vector: vector, vps: 77 },
            at: [(0, 4, 0x31), (8, 8, 77)], reserved: [(0, 4, !0xFF), vtl(4), all(5, 3)], ignored: []),
        case!(ClusterIpiEx { vector: vector, vps: set },
            at: [(0, 4, 0x31), (8, 8, 1), (0x10, 8, 77)], reserved: [(0, 4, !0xFF), vtl(4), all(5, 3)], ignored: []),
    ]
}

fn messages() -> Vec<Case> {
    let header = InterceptHeader {
        vp: VP,
        length_and_cr8: 0x52,
        access: AccessType::Write,
        state: ExecutionState::PE | ExecutionState::LMA,
        rip: 0x77,
        rflags: 2,
        ..InterceptHeader::default()
    };
    let common = [
        vp(0),
        (4, 1, 0x52),
        (5, 1, 1),
        (6, 2, 0x14),
        (0x18, 8, 0x77),
        (0x20, 8, 2),
    ];
    let [a, b, c, d, e, f] = common;
    std::vec![
        case!(IoPortIntercept { header: header, port: 0x3F8, info: PortAccess::STRING, rax: 1, rcx: 2, rsi: 3, rdi: 4 },
            at: [a, b, c, d, e, f, (0x28, 2, 0x3F8), (0x2A, 1, 8), (0x30, 8, 1), (0x68, 8, 2), (0x70, 8, 3),
                (0x78, 8, 4)],
            reserved: [], ignored: []),
        case!(MemoryIntercept { header: header, cache_type: 6, instruction_count: 3, info: MemoryAccess::GVA_VALID,
                tpr: 9, gva: addr::Gva::new(1), gpa: Gpa::new(2), instruction: [0x90; 16] },
            at: [a, b, c, d, e, f, (0x28, 4, 6), (0x2C, 1, 3), (0x2D, 1, 1), (0x2E, 1, 9), (0x30, 8, 1), (0x38, 8, 2),
                (0x40, 1, 0x90)],
            reserved: [], ignored: []),
        case!(MsrIntercept { header: header, msr: 0x10, rdx: 1, rax: 2 },
            at: [a, b, c, d, e, f, (0x28, 4, 0x10), (0x30, 8, 1), (0x38, 8, 2)], reserved: [], ignored: []),
        case!(ApicEoi { vp: VP, vector: 0x31 }, at: [vp(0), (4, 4, 0x31)], reserved: [], ignored: []),
    ]
}

fn cases() -> Vec<Case> {
    [
        partitions(),
        memory(),
        vps(),
        interrupts(),
        ports(),
        guests(),
        messages(),
    ]
    .into_iter()
    .flatten()
    .collect()
}

fn value((at, length, _): At, bytes: &[u8]) -> u64 {
    let field = &bytes[at..at + length];
    field
        .iter()
        .rev()
        .fold(0, |sum, byte| sum << 8 | u64::from(*byte))
}

#[test]
fn fields_are_where_the_specification_has_them() {
    for case in cases() {
        for field in case.fields {
            assert_eq!(
                value(field, &case.bytes),
                field.2,
                "{} at {:#x}",
                case.name,
                field.0
            );
        }
        assert_eq!(
            (case.again)(&case.bytes).as_ref(),
            Ok(&case.bytes),
            "{}",
            case.name
        );
    }
}

#[test]
fn each_reserved_bit_is_refused() {
    for case in cases() {
        for (at, length, mask) in case.reserved {
            for bit in (0..8 * length).filter(|bit| mask >> bit & 1 != 0) {
                let mut bytes = case.bytes.clone();
                bytes[at + bit / 8] ^= 1 << (bit % 8);
                let got = (case.again)(&bytes);
                assert_eq!(
                    got,
                    Err(HvError::INVALID_PARAMETER),
                    "{} at {at:#x}, bit {bit}",
                    case.name
                );
            }
        }
    }
}

#[test]
fn what_linux_leaves_as_it_was_is_ignored() {
    for case in cases() {
        let mut bytes = case.bytes.clone();
        for range in case.ignored {
            bytes[range].fill(0xA5);
        }
        assert_eq!(
            (case.again)(&bytes).as_ref(),
            Ok(&case.bytes),
            "{}",
            case.name
        );
    }
}

#[test]
fn a_block_that_is_cut_short_is_refused() {
    for case in cases() {
        for length in 0..case.bytes.len() {
            let got = (case.again)(&case.bytes[..length]);
            assert_eq!(
                got,
                Err(HvError::INVALID_PARAMETER),
                "{} of {length}",
                case.name
            );
        }
    }
}

#[test]
fn trust_level_0_may_be_named() {
    let mut bytes = VpRegisters {
        partition: ID,
        vp: VP,
        ..VpRegisters::default()
    }
    .encode();
    bytes[0xC] = 0x10;
    assert!(VpRegisters::decode(&bytes).is_ok());
    bytes[0xC] = 0x11;
    assert!(VpRegisters::decode(&bytes).is_err());
}

#[test]
fn values_out_of_range_are_refused() {
    for vector in [0, 0xF, 0x100, u32::MAX] {
        let mut bytes = ClusterIpi::default().encode();
        bytes[..4].copy_from_slice(&vector.to_le_bytes());
        assert_eq!(
            ClusterIpi::decode(&bytes),
            Err(HvError::INVALID_PARAMETER),
            "{vector:#x}"
        );
    }
    for (base, count, good) in [
        (0, 1, true),
        (0, 0, false),
        (0, 2048, true),
        (1, 2048, false),
        (2047, 1, true),
    ] {
        let info = PortInfo {
            kind: PortKind::Event { base, count },
            ..PortInfo::default()
        };
        let bytes = CreatePort {
            info,
            ..CreatePort::default()
        }
        .encode();
        assert_eq!(CreatePort::decode(&bytes).is_ok(), good, "{base} {count}");
    }
    for kind in [0, 3, 5] {
        let mut bytes = CreatePort::default().encode();
        bytes[0x18] = kind;
        assert!(CreatePort::decode(&bytes).is_err(), "port type {kind}");
        let mut bytes = ConnectPort::default().encode();
        bytes[0x20] = kind;
        assert!(
            ConnectPort::decode(&bytes).is_err(),
            "connection type {kind}"
        );
    }
    for kind in [3, 10] {
        let mut bytes = AssertInterrupt::default().encode();
        bytes[8] = kind;
        assert!(
            AssertInterrupt::decode(&bytes).is_err(),
            "interrupt type {kind}"
        );
    }
    let mut bytes = PostMessageDirect {
        message: Message::new(MessageType(1), 0, &[]).unwrap(),
        ..PostMessageDirect::default()
    }
    .encode();
    bytes[0x18] = 241;
    assert!(PostMessageDirect::decode(&bytes).is_err());
    assert!(
        PostMessageDirect::decode(&[0; 276]).is_err(),
        "a message of the type that means none"
    );
    let mut bytes = ReadGpa::default().encode();
    bytes[0xC] = 17;
    assert!(ReadGpa::decode(&bytes).is_err());
}

#[test]
fn a_doorbell_rings_for_the_writes_it_names() {
    let gpa = Gpa::new(0x1000);
    let exact = Doorbell {
        gpa,
        value: Some(5),
        bytes: Some(4),
    };
    assert!(exact.matches(gpa, 4, 5));
    assert!(!exact.matches(Gpa::new(0x1001), 4, 5));
    assert!(!exact.matches(gpa, 2, 5) && !exact.matches(gpa, 4, 6));
    let any = Doorbell {
        gpa,
        value: None,
        bytes: None,
    };
    assert!(any.matches(gpa, 1, 9) && any.matches(gpa, 8, 0));
    for (width, bytes) in [
        (0, None),
        (1, Some(1)),
        (2, Some(2)),
        (3, Some(4)),
        (4, Some(8)),
    ] {
        let kind = ConnectionKind::Doorbell(Doorbell {
            gpa,
            value: None,
            bytes,
        });
        let block = ConnectPort {
            kind,
            ..ConnectPort::default()
        };
        assert_eq!(value((0x38, 8, 0), &block.encode()), 1 << 31 | width);
        assert_eq!(ConnectPort::decode(&block.encode()), Ok(block));
    }
}

#[test]
fn a_flush_range_counts_the_pages_behind_the_first() {
    let range = GvaRange(0xFFFF_8000_0000_1003);
    assert_eq!(
        (range.start(), range.pages()),
        (addr::Gva::new(0xFFFF_8000_0000_1000), 4)
    );
    assert_eq!(GvaRange(u64::MAX).pages(), 4096);
}

proptest! {
    #[test]
    fn decoding_any_block_never_panics_and_keeps_what_it_took(
        bytes in proptest::collection::vec(prop_oneof![3 => Just(0u8), 1 => Just(1), 1 => any::<u8>()], 0..300),
    ) {
        for case in cases() {
            if let Ok(first) = (case.again)(&bytes) {
                prop_assert_eq!((case.again)(&first), Ok(first.clone()), "{}", case.name);
            }
        }
    }

    #[test]
    fn a_changed_bit_is_refused_kept_or_ignored(which in any::<prop::sample::Index>(), bit in any::<prop::sample::Index>()) {
        let cases = cases();
        let case = which.get(&cases);
        let bit = bit.index(case.bytes.len() * 8);
        let mut bytes = case.bytes.clone();
        bytes[bit / 8] ^= 1 << (bit % 8);
        if let Ok(got) = (case.again)(&bytes) {
            let ignored = case.ignored.iter().any(|range| range.contains(&(bit / 8)));
            // Bit 4 of a VTL says that the VTL counts, and is not kept: there is one VTL, and other bits are refused.
            let is_vtl = bit % 8 == 4 && (0..8).filter(|other| *other != 4).all(|other| {
                let mut bytes = case.bytes.clone();
                bytes[bit / 8] ^= 1 << other;
                (case.again)(&bytes).is_err()
            });
            // A shorter payload loses its end; a doorbell for any value loses its value.
            let is_shortened = matches!((case.name, bit / 8), ("PostMessageDirect", 0x18) | ("ConnectPort", 0x3B));
            prop_assert!(got == bytes || ignored || is_vtl || is_shortened, "{} bit {bit}", case.name);
        }
    }
}
