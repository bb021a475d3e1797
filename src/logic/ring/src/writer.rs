//! The producer's end.

use ring_proto::{
    Control, DESCRIPTOR_BYTES, Descriptor, Features, PacketFlags, PacketType, TRAILER_BYTES,
    trailer,
};

use crate::{Area, Corrupt, RingMem, Signal, Unusable};

/// The producer of a ring.
#[derive(Debug)]
pub struct Writer<M> {
    mem: M,
    area: Area,
    /// Where the next packet goes.
    next: u32,
    /// What the peer was told: packets before it are its to read.
    published: u32,
    /// The reader's index when it was last looked at.
    read: u32,
    is_waiting: bool,
    broken: Option<Corrupt>,
}

/// A packet to be written.
#[derive(Clone, Copy, Debug, Default)]
pub struct Outgoing<'a> {
    /// Type.
    pub kind: PacketType,
    /// Flags.
    pub flags: PacketFlags,
    /// The name of this packet, or of the packet that it completes.
    pub transaction: u64,
    /// Bytes between descriptor and payload, a multiple of 8.
    pub header: &'a [u8],
    /// The payload, in pieces that are joined.
    pub payload: &'a [&'a [u8]],
}

impl Outgoing<'_> {
    /// The descriptor that the packet will have.
    ///
    /// # Errors
    /// [`WriteError::TooLong`] when the header is not a multiple of 8, or the packet is longer than a descriptor can
    /// tell.
    pub fn descriptor(&self) -> Result<Descriptor, WriteError> {
        let payload = self
            .payload
            .iter()
            .try_fold(0usize, |sum, piece| sum.checked_add(piece.len()));
        payload
            .and_then(|payload| {
                Descriptor::new(
                    self.kind,
                    self.flags,
                    self.transaction,
                    self.header.len(),
                    payload,
                )
                .ok()
            })
            .ok_or(WriteError::TooLong)
    }
}

/// Why a packet was not written. The ring is as it was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WriteError {
    /// There is no room now.
    Full,
    /// The packet fits no ring of this size, or its header is not a multiple of 8.
    TooLong,
    /// The reader broke the ring.
    Corrupt(Corrupt),
}

/// Outcome of [`Writer::wait_for_space`].
#[must_use]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Space {
    /// Whether the reader must be signalled: packets were published.
    pub signal: Signal,
    /// The space is there: write. Otherwise the reader will signal.
    pub is_there: bool,
}

impl<M: RingMem> Writer<M> {
    /// The producer of a ring that was just opened: it starts at offset 0. Nothing is written yet.
    ///
    /// # Errors
    /// [`Unusable`] when the data area has no proper size.
    pub fn new(mem: M) -> Result<Self, Unusable> {
        Self::resume_at(mem, 0, 0)
    }

    /// The producer that goes on where the control page says that its predecessor stopped.
    ///
    /// # Errors
    /// [`Unusable`] when the data area has no proper size, or the control page no proper indices.
    pub fn resume(mem: M) -> Result<Self, Unusable> {
        let (write, read) = (
            mem.control(Control::WriteIndex),
            mem.control(Control::ReadIndex),
        );
        let mut writer = Self::resume_at(mem, write, read)?;
        // A wish that the predecessor left goes with the first packet.
        writer.is_waiting = true;
        Ok(writer)
    }

    /// The producer that goes on at [`index`](Self::index) of an earlier one. `read` is the reader's index.
    ///
    /// # Errors
    /// [`Unusable`] when the data area has no proper size, or one of the indices is none.
    pub fn resume_at(mem: M, index: u32, read: u32) -> Result<Self, Unusable> {
        let area = Area::of(&mem)?;
        if !area.is_index(index) || !area.is_index(read) {
            return Err(Unusable);
        }
        Ok(Self {
            mem,
            area,
            next: index,
            published: index,
            read,
            is_waiting: false,
            broken: None,
        })
    }

    /// Writes a packet that the reader does not see yet: [`commit`](Self::commit) shows it, and all others written
    /// since the last one.
    ///
    /// # Errors
    /// Every [`WriteError`]. Nothing was written.
    pub fn put(&mut self, packet: &Outgoing<'_>) -> Result<(), WriteError> {
        let descriptor = packet.descriptor()?;
        let bytes = u32::try_from(descriptor.ring_bytes()).map_err(|_| WriteError::TooLong)?;
        if bytes >= self.area.0 {
            return Err(WriteError::TooLong);
        }
        if !self.fits(bytes).map_err(WriteError::Corrupt)? {
            return Err(WriteError::Full);
        }
        let mut cursor = Cursor {
            mem: &self.mem,
            area: self.area,
            at: self.next,
            word: [0; 8],
            filled: 0,
        };
        cursor.put(&descriptor.encode());
        cursor.put(packet.header);
        packet.payload.iter().for_each(|piece| cursor.put(piece));
        cursor.pad();
        cursor.put(&trailer(self.next));
        self.next = cursor.at;
        Ok(())
    }

    /// Shows the reader all packets written so far.
    pub fn commit(&mut self) -> Signal {
        let old = self.published;
        if self.next == old {
            return Signal::NotNeeded;
        }
        if self.is_waiting {
            self.is_waiting = false;
            self.mem.set_control(Control::PendingSendSize, 0);
        }
        self.mem.set_control(Control::WriteIndex, self.next);
        self.published = self.next;
        self.mem.fence();
        // A reader that has not yet read up to the old index is awake, or will look once more before it sleeps.
        Signal::needed_if(!self.is_masked() && self.mem.control(Control::ReadIndex) == old)
    }

    /// Whether a packet that takes `ring_bytes` (descriptor to trailer) fits now. A ring is never filled completely.
    ///
    /// # Errors
    /// [`Corrupt`], from then on for ever.
    pub fn fits(&mut self, ring_bytes: u32) -> Result<bool, Corrupt> {
        if let Some(corrupt) = self.broken {
            return Err(corrupt);
        }
        if self.free() > ring_bytes {
            return Ok(true);
        }
        match self.area.index(self.mem.control(Control::ReadIndex)) {
            Ok(read) => self.read = read,
            Err(corrupt) => {
                self.broken = Some(corrupt);
                return Err(corrupt);
            }
        }
        Ok(self.free() > ring_bytes)
    }

    /// To be called before sleep when a packet of `ring_bytes` (descriptor to trailer) found no room: publishes what
    /// was written, asks the reader for a signal, and looks once more.
    ///
    /// The wish stands until a packet is committed, or [`cancel_wait`](Self::cancel_wait). A signal may come too
    /// early: then call this again.
    ///
    /// # Errors
    /// [`Corrupt`], from then on for ever.
    pub fn wait_for_space(&mut self, ring_bytes: u32) -> Result<Space, Corrupt> {
        let signal = self.commit();
        let features = self.mem.control(Control::Features);
        if !Features::from_bits_truncate(features).contains(Features::PENDING_SEND_SIZE) {
            self.mem.set_control(
                Control::Features,
                features | Features::PENDING_SEND_SIZE.bits(),
            );
        }
        self.mem.set_control(Control::PendingSendSize, ring_bytes);
        self.is_waiting = true;
        self.mem.fence();
        let is_there = self.fits(ring_bytes)?;
        if is_there {
            self.cancel_wait();
        }
        Ok(Space { signal, is_there })
    }

    /// Takes the wish for space back.
    pub fn cancel_wait(&mut self) {
        if self.is_waiting {
            self.is_waiting = false;
            self.mem.set_control(Control::PendingSendSize, 0);
        }
    }

    /// Starts at offset 0 as a [new](Self::new) one, after [`reset`](crate::reset).
    pub fn restart(&mut self) {
        (self.next, self.published, self.read) = (0, 0, 0);
        (self.is_waiting, self.broken) = (false, None);
    }

    /// Whether the reader wants no signals now.
    pub fn is_masked(&self) -> bool {
        self.mem.control(Control::InterruptMask) != 0
    }

    /// Where the next packet goes.
    pub const fn index(&self) -> u32 {
        self.next
    }

    /// The memory.
    pub const fn mem(&self) -> &M {
        &self.mem
    }

    const fn free(&self) -> u32 {
        self.area
            .0
            .wrapping_sub(self.area.distance(self.read, self.next))
    }
}

/// What the ring takes for a packet with these lengths, descriptor and trailer included; `None` past 32 bits.
pub const fn ring_bytes(header: usize, payload: usize) -> Option<u32> {
    let Some(len) = (DESCRIPTOR_BYTES + TRAILER_BYTES).checked_add(header) else {
        return None;
    };
    match len.checked_add(payload) {
        Some(len) if len <= u32::MAX as usize - 7 => Some(len.next_multiple_of(8) as u32),
        _ => None,
    }
}

/// Joins pieces to words of the data area.
struct Cursor<'a, M> {
    mem: &'a M,
    area: Area,
    at: u32,
    word: [u8; 8],
    filled: usize,
}

impl<M: RingMem> Cursor<'_, M> {
    fn put(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            if self.filled == 0
                && let Some((word, rest)) = bytes.split_first_chunk()
            {
                self.store(*word);
                bytes = rest;
                continue;
            }
            let room = self.word.get_mut(self.filled..).unwrap_or_default();
            let (piece, rest) = bytes.split_at(bytes.len().min(room.len()));
            if let Some(room) = room.get_mut(..piece.len()) {
                room.copy_from_slice(piece);
            }
            self.filled += piece.len();
            bytes = rest;
            if self.filled == 8 {
                self.flush();
            }
        }
    }

    fn pad(&mut self) {
        if self.filled != 0 {
            self.flush();
        }
    }

    fn flush(&mut self) {
        let word = core::mem::take(&mut self.word);
        self.filled = 0;
        self.store(word);
    }

    fn store(&mut self, word: [u8; 8]) {
        self.mem.set_word(self.at, u64::from_le_bytes(word));
        self.at = self.area.advance(self.at, 8);
    }
}
