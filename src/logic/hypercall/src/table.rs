//! The table of calls: one declaration each, and the way from a code to its declaration.

use tlfs::call::*;
use tlfs::{CallCode, Privileges};

/// What the dispatcher must know of a call, whose handler goes by the name `kind`.
#[derive(Clone, Copy, Debug)]
pub struct CallSpec<K> {
    /// Its code.
    pub code: CallCode,
    /// Its name in the TLFS.
    pub name: &'static str,
    /// What the handler knows it by.
    pub kind: K,
    /// What goes in and comes out.
    pub shape: Shape,
    /// What the caller must be privileged to do, all of it.
    pub privilege: Privileges,
}

/// What goes into a call and comes out of it.
#[derive(Clone, Copy, Debug)]
pub struct Shape {
    /// Bytes of the fixed part of the input.
    pub input: u16,
    /// Bytes of the output of a simple call; 0 for a rep call.
    pub output: u16,
    /// `output` is the most that there can be. The block is bounded by its page, and only what the handler wrote is
    /// accessed, which may be found impossible after the handler did its work: such a call only reads.
    pub is_output_open: bool,
    /// The elements of a rep call; `None` makes it a simple call.
    pub rep: Option<RepSpec>,
    /// Whether a variable header may follow the fixed part of the input.
    pub variable_header: bool,
    /// Whether the input may come in registers.
    pub fast: bool,
}

/// Sizes of one element of a rep call.
#[derive(Clone, Copy, Debug)]
pub struct RepSpec {
    /// Bytes in the input list, 0 when there is none.
    pub input: u16,
    /// Bytes in the output list, 0 when there is none.
    pub output: u16,
}

impl Shape {
    /// A simple call with so many bytes in and out. It has a fast form when the registers suffice.
    pub const fn simple(input: usize, output: u16) -> Self {
        Self {
            input: input as u16,
            output,
            is_output_open: false,
            rep: None,
            variable_header: false,
            fast: input <= FAST_BYTES && output == 0,
        }
    }

    /// A rep call with a header of so many bytes, and elements of so many bytes in and out.
    pub const fn rep(header: usize, input: u16, output: u16) -> Self {
        Self {
            rep: Some(RepSpec { input, output }),
            fast: false,
            ..Self::simple(header, 0)
        }
    }

    /// The same with a variable header.
    pub const fn variable(self) -> Self {
        Self {
            variable_header: true,
            fast: false,
            ..self
        }
    }

    /// The same, with output of any length up to `most`.
    pub const fn up_to(self, most: u16) -> Self {
        Self {
            output: most,
            is_output_open: true,
            fast: false,
            ..self
        }
    }
}

macro_rules! calls {
    ($($name:ident = $code:ident, $shape:expr, $privilege:expr;)*) => {
        /// The calls of a partition by their names in the TLFS, in the order of the declarations.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[allow(missing_docs, reason = "named as in the TLFS")]
        pub enum Call { $($name,)* }

        /// Every call that a partition can make. `docs/tlfs-coverage.md` is made from it.
        pub static CALLS: Table<Call> = Table::new(&[$(CallSpec {
            code: CallCode::$code,
            name: concat!("HvCall", stringify!($name)),
            kind: Call::$name,
            shape: $shape,
            privilege: $privilege,
        },)*]);
    };
}

const ANY: Privileges = Privileges::empty();
const HOST: Privileges = Privileges::CREATE_PARTITIONS;
const POOL: Privileges = HOST.union(Privileges::ACCESS_MEMORY_POOL);
const PORT: Privileges = HOST.union(Privileges::CREATE_PORT);
const CONNECT: Privileges = HOST.union(Privileges::CONNECT_PORT);
const STATISTICS: Privileges = HOST.union(Privileges::ACCESS_STATISTICS);

use Shape as S;

calls! {
    FlushVirtualAddressSpace = FLUSH_VIRTUAL_ADDRESS_SPACE, S::simple(Flush::BYTES, 0), ANY;
    FlushVirtualAddressList = FLUSH_VIRTUAL_ADDRESS_LIST, S::rep(Flush::BYTES, 8, 0), ANY;
    // Its input, a count of spins, is advice on advice: it is not read.
    NotifyLongSpinWait = NOTIFY_LONG_SPIN_WAIT, S::simple(0, 0), ANY;
    SendSyntheticClusterIpi = SEND_SYNTHETIC_CLUSTER_IPI, S::simple(ClusterIpi::BYTES, 0), ANY;
    FlushVirtualAddressSpaceEx = FLUSH_VIRTUAL_ADDRESS_SPACE_EX, S::simple(FlushEx::BYTES, 0).variable(), ANY;
    FlushVirtualAddressListEx = FLUSH_VIRTUAL_ADDRESS_LIST_EX, S::rep(FlushEx::BYTES, 8, 0).variable(), ANY;
    SendSyntheticClusterIpiEx = SEND_SYNTHETIC_CLUSTER_IPI_EX, S::simple(ClusterIpiEx::BYTES, 0).variable(), ANY;
    CreatePartition = CREATE_PARTITION, S::simple(CreatePartition::BYTES, 8), HOST;
    InitializePartition = INITIALIZE_PARTITION, S::simple(PartitionOnly::BYTES, 0), HOST;
    FinalizePartition = FINALIZE_PARTITION, S::simple(PartitionOnly::BYTES, 0), HOST;
    DeletePartition = DELETE_PARTITION, S::simple(PartitionOnly::BYTES, 0), HOST;
    GetPartitionProperty = GET_PARTITION_PROPERTY, S::simple(GetProperty::BYTES, 8), HOST;
    SetPartitionProperty = SET_PARTITION_PROPERTY, S::simple(SetProperty::BYTES, 0), HOST;
    GetPartitionId = GET_PARTITION_ID, S::simple(0, 8), Privileges::ACCESS_PARTITION_ID;
    GetNextChildPartition = GET_NEXT_CHILD_PARTITION, S::simple(GetNextChild::BYTES, 8), HOST;
    DepositMemory = DEPOSIT_MEMORY, S::rep(PartitionOnly::BYTES, 8, 0), POOL;
    WithdrawMemory = WITHDRAW_MEMORY, S::rep(Withdraw::BYTES, 0, 8), POOL;
    MapGpaPages = MAP_GPA_PAGES, S::rep(MapGpaPages::BYTES, 8, 0), HOST;
    UnmapGpaPages = UNMAP_GPA_PAGES, S::rep(UnmapGpaPages::BYTES, 0, 0), HOST;
    InstallIntercept = INSTALL_INTERCEPT, S::simple(InstallIntercept::BYTES, 0), HOST;
    CreateVp = CREATE_VP, S::simple(CreateVp::BYTES, 0), HOST;
    DeleteVp = DELETE_VP, S::simple(DeleteVp::BYTES, 0), HOST;
    GetVpRegisters = GET_VP_REGISTERS, S::rep(VpRegisters::BYTES, 4, 16), HOST;
    SetVpRegisters = SET_VP_REGISTERS, S::rep(VpRegisters::BYTES, RegisterValue::BYTES as u16, 0), HOST;
    TranslateVirtualAddress = TRANSLATE_VIRTUAL_ADDRESS, S::simple(Translate::BYTES, Translation::BYTES as u16), HOST;
    ReadGpa = READ_GPA, S::simple(ReadGpa::BYTES, ReadGpaOutput::BYTES as u16), HOST;
    WriteGpa = WRITE_GPA, S::simple(WriteGpa::BYTES, AccessGpaOutput::BYTES as u16), HOST;
    ClearVirtualInterrupt = CLEAR_VIRTUAL_INTERRUPT, S::simple(PartitionOnly::BYTES, 0), HOST;
    DeletePort = DELETE_PORT, S::simple(DeletePort::BYTES, 0), PORT;
    DisconnectPort = DISCONNECT_PORT, S::simple(DisconnectPort::BYTES, 0), CONNECT;
    PostMessage = POST_MESSAGE, S::simple(PostMessage::INPUT_BYTES, 0), Privileges::POST_MESSAGES;
    SignalEvent = SIGNAL_EVENT, S::simple(SignalEvent::INPUT_BYTES, 0), Privileges::SIGNAL_EVENTS;
    MapStatsPage = MAP_STATS_PAGE, S::simple(StatsPage::BYTES, 8), STATISTICS;
    UnmapStatsPage = UNMAP_STATS_PAGE, S::simple(StatsPage::BYTES, 0), STATISTICS;
    NotifyPortRingEmpty = NOTIFY_PORT_RING_EMPTY, S::simple(RingEmpty::BYTES, 0), HOST;
    RegisterInterceptResult = REGISTER_INTERCEPT_RESULT, S::simple(RegisterCpuidResult::BYTES, 0), HOST;
    AssertVirtualInterrupt = ASSERT_VIRTUAL_INTERRUPT, S::simple(AssertInterrupt::BYTES, 0), HOST;
    CreatePort = CREATE_PORT, S::simple(CreatePort::BYTES, 0), PORT;
    ConnectPort = CONNECT_PORT, S::simple(ConnectPort::BYTES, 0), CONNECT;
    StartVirtualProcessor = START_VIRTUAL_PROCESSOR, S::simple(StartVp::BYTES, 0), Privileges::START_VP;
    GetVpIndexFromApicId = GET_VP_INDEX_FROM_APIC_ID, S::rep(VpIndexFromApicId::BYTES, 4, 4), Privileges::START_VP;
    SignalEventDirect = SIGNAL_EVENT_DIRECT, S::simple(SignalEventDirect::BYTES, 8), HOST;
    PostMessageDirect = POST_MESSAGE_DIRECT, S::simple(PostMessageDirect::BYTES, 0), HOST;
    GetGpaPagesAccessStates = GET_GPA_PAGES_ACCESS_STATES, S::rep(GetAccessStates::BYTES, 0, 1), HOST;
    MapVpStatePage = MAP_VP_STATE_PAGE, S::simple(MapStatePage::BYTES, 8), HOST;
    UnmapVpStatePage = UNMAP_VP_STATE_PAGE, S::simple(UnmapStatePage::BYTES, 0), HOST;
    GetVpState = GET_VP_STATE, S::simple(VpState::BYTES, 0).variable().up_to(TIMERS), HOST;
    SetVpState = SET_VP_STATE, S::simple(VpState::BYTES, 0).variable(), HOST;
    GetVpCpuidValues = GET_VP_CPUID_VALUES, S::rep(GetCpuidValues::BYTES, CpuidLeaf::BYTES as u16, 16), HOST;
    GetPartitionPropertyEx = GET_PARTITION_PROPERTY_EX, S::simple(GetPropertyEx::BYTES, 0).up_to(4096), HOST;
    MapStatsPage2 = MAP_STATS_PAGE_2, S::simple(MapStatsPage2::BYTES, 0), STATISTICS;
    ExtQueryCapabilities = EXT_QUERY_CAPABILITIES, S::simple(0, 8), Privileges::EXTENDED_HYPERCALLS;
}

const TIMERS: u16 = tlfs::state::TimersState::BYTES as u16;

/// Bytes of input that the two parameter registers hold.
pub const FAST_BYTES: usize = 16;

const BASIC_CODES: usize = 0x140;
const EXTENDED_BASE: u16 = 0x8000;
const EXTENDED_CODES: usize = 8;
const NONE: u8 = u8::MAX;

/// Declarations with an index by code, built by the compiler.
#[derive(Debug)]
pub struct Table<K: 'static> {
    specs: &'static [CallSpec<K>],
    basic: [u8; BASIC_CODES],
    extended: [u8; EXTENDED_CODES],
}

impl<K> Table<K> {
    /// The table of `specs`.
    ///
    /// # Panics
    /// When two declarations have one code, a code lies outside the index, or a declaration contradicts
    /// itself. In a constant that is a compile error.
    pub const fn new(specs: &'static [CallSpec<K>]) -> Self {
        assert!(specs.len() < NONE as usize, "too many calls for the index");
        let mut table = Self {
            specs,
            basic: [NONE; BASIC_CODES],
            extended: [NONE; EXTENDED_CODES],
        };
        let mut i = 0;
        while i < specs.len() {
            let spec = &specs[i].shape;
            let code = specs[i].code.0;
            assert!(
                !spec.fast || spec.input as usize <= FAST_BYTES,
                "fast input does not fit in two registers"
            );
            assert!(
                !spec.fast || (spec.output == 0 && spec.rep.is_none()),
                "fast form has neither output nor list"
            );
            assert!(
                spec.rep.is_none() || spec.output == 0,
                "a rep call's output is its list"
            );
            assert!(
                spec.input <= 4096 && spec.output <= 4096,
                "a block fits in a page"
            );
            let slot = if code < EXTENDED_BASE {
                &mut table.basic[code as usize]
            } else {
                &mut table.extended[(code - EXTENDED_BASE) as usize]
            };
            assert!(*slot == NONE, "one code, two calls");
            *slot = i as u8;
            i += 1;
        }
        table
    }

    /// The declarations in order.
    pub const fn specs(&self) -> &'static [CallSpec<K>] {
        self.specs
    }

    /// The declaration of call `code`, if there is one.
    #[inline(always)]
    pub fn lookup(&self, code: CallCode) -> Option<&'static CallSpec<K>> {
        let index = match self.basic.get(usize::from(code.0)) {
            Some(index) => index,
            None => self
                .extended
                .get(usize::from(code.0.checked_sub(EXTENDED_BASE)?))?,
        };
        self.specs.get(usize::from(*index))
    }
}
