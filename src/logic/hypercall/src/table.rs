//! The table of calls: one declaration each, and the way from a code to its declaration.

use tlfs::call::{PostMessage, SignalEvent};
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
    /// Bytes of the fixed part of the input.
    pub input: u16,
    /// Bytes of the output of a simple call; 0 for a rep call.
    pub output: u16,
    /// The elements of a rep call; `None` makes it a simple call.
    pub rep: Option<RepSpec>,
    /// Whether a variable header may follow the fixed part of the input.
    pub variable_header: bool,
    /// Whether the input may come in registers.
    pub fast: bool,
    /// What the caller must be privileged to do, all of it.
    pub privilege: Privileges,
}

/// Sizes of one element of a rep call.
#[derive(Clone, Copy, Debug)]
pub struct RepSpec {
    /// Bytes in the input list, 0 when there is none.
    pub input: u16,
    /// Bytes in the output list, 0 when there is none.
    pub output: u16,
}

/// The calls of a partition in the order of the declarations.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Call {
    /// Advice only; always succeeds.
    NotifyLongSpinWait,
    /// Answers the caller's own partition id.
    GetPartitionId,
    /// See [`PostMessage`].
    PostMessage,
    /// See [`SignalEvent`].
    SignalEvent,
    /// Answers the mask of extended calls that exist.
    ExtQueryCapabilities,
}

const fn simple(
    code: CallCode,
    name: &'static str,
    kind: Call,
    input: usize,
    output: u16,
) -> CallSpec<Call> {
    CallSpec {
        code,
        name,
        kind,
        input: input as u16,
        output,
        rep: None,
        variable_header: false,
        fast: input <= FAST_BYTES && output == 0,
        privilege: Privileges::empty(),
    }
}

const fn needs(privilege: Privileges, call: CallSpec<Call>) -> CallSpec<Call> {
    CallSpec { privilege, ..call }
}

/// Every call that a partition can make. `docs/tlfs-coverage.md` is made from it.
pub static CALLS: Table<Call> = Table::new(&[
    simple(
        CallCode::NOTIFY_LONG_SPIN_WAIT,
        "HvCallNotifyLongSpinWait",
        Call::NotifyLongSpinWait,
        8,
        0,
    ),
    needs(
        Privileges::ACCESS_PARTITION_ID,
        simple(
            CallCode::GET_PARTITION_ID,
            "HvCallGetPartitionId",
            Call::GetPartitionId,
            0,
            8,
        ),
    ),
    needs(
        Privileges::POST_MESSAGES,
        simple(
            CallCode::POST_MESSAGE,
            "HvCallPostMessage",
            Call::PostMessage,
            PostMessage::INPUT_BYTES,
            0,
        ),
    ),
    needs(
        Privileges::SIGNAL_EVENTS,
        simple(
            CallCode::SIGNAL_EVENT,
            "HvCallSignalEvent",
            Call::SignalEvent,
            SignalEvent::INPUT_BYTES,
            0,
        ),
    ),
    needs(
        Privileges::EXTENDED_HYPERCALLS,
        simple(
            CallCode::EXT_QUERY_CAPABILITIES,
            "HvExtCallQueryCapabilities",
            Call::ExtQueryCapabilities,
            0,
            8,
        ),
    ),
]);

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
            let spec = &specs[i];
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
            let slot = if spec.code.0 < EXTENDED_BASE {
                &mut table.basic[spec.code.0 as usize]
            } else {
                &mut table.extended[(spec.code.0 - EXTENDED_BASE) as usize]
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
