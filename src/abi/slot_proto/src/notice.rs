//! Notices of the VMBus server for a worker.

use tlfs::wire::{Field, Writer, Zero, blocks, choices};
use tlfs::{HvError, Reader};
use vmbus_proto::{GpadlHandle, Relid, UserData, Version};

/// Words of 64 bits that a notice takes in the queue.
pub const NOTICE_WORDS: usize = 32;
const BYTES: usize = NOTICE_WORDS * 8;

blocks! {
    /// How the child opens a channel.
    Opening[140] {
        /// The GPADL of both rings.
        ring: GpadlHandle,
        /// Page of it where the ring from worker to child begins.
        downstream_page: u32,
        /// VP that the child wants to be signalled on; `u32::MAX`: none.
        vp: u32,
        version: Version, user: UserData,
        /// It was open when the session began: no answer.
        is_open_already: bool, reserved: Zero<3>,
    }

    /// First 16 bytes of an entry.
    Head[16] {
        kind: u16, payload_bytes: u16, relid: Relid, serial: u64,
    }
}

choices! {
    /// Why the child's VMBus starts anew.
    ResetCause: u32 {
        /// It sent UNLOAD.
        Unload = 1,
        /// It made contact on a live connection.
        Contact = 2,
    }
}

/// A notice. Each but [`Released`](Self::Released), and [`Open`](Self::Open) of a channel that is open already, wants an
/// answer; until it comes, there is none other about the same object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Notice {
    /// The child opens a channel, or it is open. Answer: OPEN_RESULT.
    Open(Relid, Opening),
    /// The child closed it. Answer: CLOSE_DONE.
    Close(Relid),
    /// The child wants the pages back. Answer: GPADL_DONE.
    GpadlTeardown(Relid, GpadlHandle),
    /// Relid and instance are free.
    Released(Relid),
    /// All channels are void. Answer: RESET_DONE.
    Reset(ResetCause),
}

impl Notice {
    /// The entry of the queue for notice number `serial`.
    pub fn encode(&self, serial: u64) -> [u64; NOTICE_WORDS] {
        let mut bytes = [0; BYTES];
        let (head, payload) = bytes.split_at_mut(Head::BYTES);
        let mut w = Writer::new(payload);
        let (kind, relid, payload_bytes) = match *self {
            Self::Open(relid, opening) => {
                opening.write(&mut w);
                (1, relid, Opening::BYTES as u16)
            }
            Self::Close(relid) => (2, relid, 0),
            Self::GpadlTeardown(relid, handle) => {
                handle.write(&mut w);
                (3, relid, 4)
            }
            Self::Released(relid) => (4, relid, 0),
            Self::Reset(cause) => {
                cause.write(&mut w);
                (5, Relid(0), 4)
            }
        };
        let fields = Head {
            kind,
            payload_bytes,
            relid,
            serial,
        };
        fields.write(&mut Writer::new(head));
        let mut words = [0; NOTICE_WORDS];
        for (word, bytes) in words.iter_mut().zip(bytes.as_chunks().0) {
            *word = u64::from_le_bytes(*bytes);
        }
        words
    }

    /// Reads the copy of an entry: its number, and the notice.
    ///
    /// # Errors
    /// [`HvError::INVALID_PARAMETER`] when it is none that this side knows.
    pub fn decode(words: &[u64; NOTICE_WORDS]) -> Result<(u64, Self), HvError> {
        let mut bytes = [0; BYTES];
        for (bytes, word) in bytes.as_chunks_mut().0.iter_mut().zip(words) {
            *bytes = word.to_le_bytes();
        }
        let mut r = Reader::new(&bytes);
        let head = Head::read(&mut r)?;
        let mut payload = Reader::new(r.take(usize::from(head.payload_bytes))?);
        let (relid, r) = (head.relid, &mut payload);
        let notice = match head.kind {
            1 => Self::Open(relid, Field::read(r)?),
            2 => Self::Close(relid),
            3 => Self::GpadlTeardown(relid, Field::read(r)?),
            4 => Self::Released(relid),
            5 if relid == Relid(0) => Self::Reset(Field::read(r)?),
            _ => return Err(HvError::INVALID_PARAMETER),
        };
        if !r.rest().is_empty() {
            return Err(HvError::INVALID_PARAMETER);
        }
        Ok((head.serial, notice))
    }
}
