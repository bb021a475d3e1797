//! The consumer's end.

use ring_proto::{Control, DESCRIPTOR_BYTES, Descriptor, Features, TRAILER_BYTES};

use crate::{Area, Corrupt, RingMem, Signal, Unusable};

/// The consumer of a ring.
#[derive(Debug)]
pub struct Reader<M> {
    mem: M,
    area: Area,
    /// Where the next packet begins.
    next: u32,
    /// What the peer was told: all before it may be overwritten.
    published: u32,
    /// Bytes from `next` on that are known to be written.
    available: u32,
    /// `next` and `available` before the last packet, while it can be put back.
    before: Option<(u32, u32)>,
    broken: Option<Corrupt>,
}

/// A packet, copied out of the ring and checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Packet<'b> {
    /// Its descriptor.
    pub descriptor: Descriptor,
    /// Bytes between descriptor and payload.
    pub header: &'b [u8],
    /// The payload, with up to 7 bytes of padding: packets have lengths in units of 8 bytes only.
    pub payload: &'b [u8],
}

/// Outcome of [`Reader::arm`].
#[must_use]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Armed {
    /// Whether the writer must be signalled: it waits for the space.
    pub signal: Signal,
    /// There are packets: go on reading. Otherwise the next packet brings a signal.
    pub has_more: bool,
}

impl<M: RingMem> Reader<M> {
    /// The consumer of a ring that was just opened: it starts at offset 0.
    ///
    /// # Errors
    /// [`Unusable`] when the data area has no proper size.
    pub fn new(mem: M) -> Result<Self, Unusable> {
        Self::resume_at(mem, 0)
    }

    /// The consumer that goes on where the control page says that its predecessor stopped.
    ///
    /// # Errors
    /// [`Unusable`] when the data area has no proper size, or the control page no proper index.
    pub fn resume(mem: M) -> Result<Self, Unusable> {
        let index = mem.control(Control::ReadIndex);
        Self::resume_at(mem, index)
    }

    /// The consumer that goes on at [`index`](Self::index) of an earlier one.
    ///
    /// # Errors
    /// [`Unusable`] when the data area has no proper size, or `index` is none.
    pub fn resume_at(mem: M, index: u32) -> Result<Self, Unusable> {
        let area = Area::of(&mem)?;
        if !area.is_index(index) {
            return Err(Unusable);
        }
        Ok(Self {
            mem,
            area,
            next: index,
            published: index,
            available: 0,
            before: None,
            broken: None,
        })
    }

    /// The next packet, in `buffer`, which is as long as the longest packet that this end takes (descriptor included,
    /// trailer not). `None`: the ring is empty.
    ///
    /// The writer learns of the freed space by [`publish`](Self::publish) or [`arm`](Self::arm).
    ///
    /// # Errors
    /// [`Corrupt`], from then on for ever. No packet was consumed.
    pub fn next<'b>(&mut self, buffer: &'b mut [u8]) -> Result<Option<Packet<'b>>, Corrupt> {
        if self.available()? == 0 {
            return Ok(None);
        }
        let smallest = (DESCRIPTOR_BYTES + TRAILER_BYTES) as u32;
        if self.available < smallest {
            return Err(self.broken(Corrupt::Fragment(self.available)));
        }
        // The copy is checked, and only the copy is used: the ring may say something else by now.
        let (first, second) = (
            self.mem.word(self.next),
            self.mem.word(self.area.advance(self.next, 8)),
        );
        let mut bytes = [0; DESCRIPTOR_BYTES];
        bytes[..8].copy_from_slice(&first.to_le_bytes());
        bytes[8..].copy_from_slice(&second.to_le_bytes());
        let descriptor = Descriptor::decode(&bytes);
        if descriptor.check().is_err() || descriptor.ring_bytes() > self.available as usize {
            return Err(self.broken(Corrupt::Packet(descriptor)));
        }
        let Some(packet) = buffer.get_mut(..descriptor.packet_bytes()) else {
            return Err(self.broken(Corrupt::TooLong(descriptor)));
        };
        self.before = Some((self.next, self.available));
        let mut at = self.next;
        let (words, _) = packet.as_chunks_mut::<8>();
        for (index, word) in words.iter_mut().enumerate() {
            *word = match index {
                0 => first,
                1 => second,
                _ => self.mem.word(at),
            }
            .to_le_bytes();
            at = self.area.advance(at, 8);
        }
        self.next = self.area.advance(at, TRAILER_BYTES as u32);
        self.available -= descriptor.ring_bytes() as u32;
        let (head, payload) = packet
            .split_at_checked(descriptor.payload_offset())
            .unwrap_or_default();
        Ok(Some(Packet {
            descriptor,
            header: head.get(DESCRIPTOR_BYTES..).unwrap_or_default(),
            payload,
        }))
    }

    /// Leaves the last packet in the ring: [`next`](Self::next) will read it once more, as if for the first time. Nothing
    /// happens when there is none, or its space was published.
    pub fn put_back(&mut self) {
        if let Some((next, available)) = self.before.take() {
            (self.next, self.available) = (next, available);
        }
    }

    /// Starts at offset 0 as a [new](Self::new) one, after [`reset`](crate::reset).
    pub fn restart(&mut self) {
        (self.next, self.published, self.available) = (0, 0, 0);
        (self.before, self.broken) = (None, None);
    }

    /// Gives the space of all packets read so far back to the writer.
    pub fn publish(&mut self) -> Signal {
        if self.next == self.published {
            return Signal::NotNeeded;
        }
        self.before = None;
        let freed = self.area.distance(self.published, self.next);
        self.mem.set_control(Control::ReadIndex, self.next);
        self.published = self.next;
        self.mem.fence();
        let pending = self.mem.control(Control::PendingSendSize);
        let features = Features::from_bits_truncate(self.mem.control(Control::Features));
        if pending == 0 || !features.contains(Features::PENDING_SEND_SIZE) {
            return Signal::NotNeeded;
        }
        let write = self.mem.control(Control::WriteIndex);
        if !self.area.is_index(write) {
            return Signal::NotNeeded; // `next` will find it.
        }
        // Linux' guest is content with as many bytes as it asked for, the rule of its own reader is one more: both
        // crossings are told. A signal too many does no harm.
        let free = self
            .area
            .0
            .wrapping_sub(self.area.distance(self.next, write));
        Signal::needed_if(free >= pending && free.saturating_sub(freed) <= pending)
    }

    /// Tells the writer not to signal: this end polls.
    pub fn mask(&mut self) {
        self.mem.set_control(Control::InterruptMask, 1);
    }

    /// To be called before sleep: publishes, asks for signals, and looks once more.
    ///
    /// # Errors
    /// [`Corrupt`], from then on for ever.
    pub fn arm(&mut self) -> Result<Armed, Corrupt> {
        let signal = self.publish();
        self.mem.set_control(Control::InterruptMask, 0);
        let has_more = self.has_more()?;
        Ok(Armed { signal, has_more })
    }

    /// Whether there are packets, after a full barrier: for an end whose mask somebody else cleared, as
    /// `uio_hv_generic` does. Call [`publish`](Self::publish) before.
    ///
    /// # Errors
    /// [`Corrupt`], from then on for ever.
    pub fn has_more(&mut self) -> Result<bool, Corrupt> {
        self.mem.fence();
        Ok(self.available()? != 0)
    }

    /// Where the next packet begins.
    pub const fn index(&self) -> u32 {
        self.next
    }

    /// The memory.
    pub const fn mem(&self) -> &M {
        &self.mem
    }

    fn available(&mut self) -> Result<u32, Corrupt> {
        if let Some(corrupt) = self.broken {
            return Err(corrupt);
        }
        if self.available == 0 {
            match self.area.index(self.mem.control(Control::WriteIndex)) {
                Ok(write) => self.available = self.area.distance(self.next, write),
                Err(corrupt) => return Err(self.broken(corrupt)),
            }
        }
        Ok(self.available)
    }

    fn broken(&mut self, corrupt: Corrupt) -> Corrupt {
        self.broken = Some(corrupt);
        corrupt
    }
}
