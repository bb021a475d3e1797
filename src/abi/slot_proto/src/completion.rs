//! Bodies of completions, and the one packet that the hypervisor sends unasked.
//!
//! The first 16 bits of every body are the status: 0, or the number of an [`HvError`]. A request that failed has a body
//! of [`Status`] alone.

use addr::PartitionId;
use tlfs::wire::{Zero, blocks, choices, open_fields};
use tlfs::{HvError, ResultWord};
use vmbus_proto::Relid;

use crate::{ChannelKind, Generation};

/// In [`ListEntry`]: the partition has no slot.
pub const NO_SLOT: u32 = u32::MAX;

/// What a partition is about ([`ListEntry`]).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(transparent)]
pub struct PartitionState(pub u32);

impl PartitionState {
    /// Created, not yet initialized.
    pub const CREATED: Self = Self(0);
    /// Initialized: it has memory and may run.
    pub const ACTIVE: Self = Self(1);
    /// Being taken apart, in pieces.
    pub const FINALIZING: Self = Self(2);
    /// Finalized: it only waits to be deleted.
    pub const FINALIZED: Self = Self(3);
}

open_fields! { PartitionState: u32; }

choices! {
    /// Why a session is over.
    SessionOver: u32 {
        /// It was detached, or its partition was deleted.
        Detached = 1,
        /// The slot will be taken back: unmap and close it.
        Goodbye = 2,
    }
}

blocks! {
    /// Every completion without anything else to say, and every failed one.
    Status[8] {
        status: u16, reserved: Zero<6>,
    }

    /// HELLO is answered.
    HelloDone[40] {
        status: u16,
        /// The lower one of both sides.
        minor: u16,
        /// The session; [`Generation::NONE`] on a slot that is not attached.
        generation: Generation, kind: ChannelKind, slot: u32,
        /// Requests without completion that are allowed at a time.
        max_outstanding: u32,
        /// [`MAX_PACKET_BYTES`](crate::MAX_PACKET_BYTES).
        max_packet: u32,
        /// Another one: the hypervisor was started anew.
        boot_id: u64, features: u64,
    }

    /// A CALL is done: the result word, then the output.
    CallDone[8] {
        result: u64,
    }

    /// ATTACH is done.
    Attached[8] {
        status: u16, reserved: Zero<2>, generation: Generation,
    }

    /// LIST is answered: this, then `count` of [`ListEntry`].
    ListDone[8] {
        status: u16, count: u16,
        /// Where to go on; 0 at the end.
        next: u32,
    }

    /// One partition.
    ListEntry[48] {
        partition: PartitionId, tag: u64, state: PartitionState,
        /// [`NO_SLOT`] for none.
        slot: u32,
        generation: Generation, reserved: Zero<4>, deposited_pages: u64, mapped_pages: u64,
    }

    /// OFFER is done.
    OfferDone[8] {
        status: u16, reserved: Zero<2>, relid: Relid,
    }

    /// GPADL_PAGES is answered: this, then `count` page numbers of the child, u64 each.
    GpadlPagesDone[16] {
        status: u16, count: u16,
        /// Pages of the whole GPADL.
        pages: u32,
        byte_count: u32, byte_offset: u32,
    }

    /// VMBUS_SAVE is answered: this, then up to [`MAX_STATE_BYTES`](crate::MAX_STATE_BYTES) of the state.
    SaveDone[8] {
        status: u16, reserved: Zero<2>,
        /// Size of the whole state.
        bytes: u32,
    }

    /// The session `generation` is over. In-band, without completion.
    SessionNotice[8] {
        reason: SessionOver, generation: Generation,
    }
}

impl Status {
    /// Of this outcome.
    pub const fn of(result: Result<(), HvError>) -> Self {
        Self {
            status: ResultWord::new(result, 0).status(),
            reserved: Zero,
        }
    }
}

/// Longest fixed part of a body: OFFER.
pub const FIXED_MAX: usize = 160;

/// The fixed part of a body as bytes.
#[derive(Clone, Copy, Debug)]
pub struct Fixed {
    bytes: [u8; FIXED_MAX],
    len: usize,
}

impl Fixed {
    pub(crate) fn new<const N: usize>(block: [u8; N]) -> Self {
        const { assert!(N <= FIXED_MAX) };
        let mut bytes = [0; FIXED_MAX];
        if let Some(head) = bytes.first_chunk_mut() {
            *head = block;
        }
        Self { bytes, len: N }
    }

    /// The bytes.
    pub fn as_bytes(&self) -> &[u8] {
        self.bytes.get(..self.len).unwrap_or_default()
    }
}
