//! Descriptor and trailer.

use bitflags::bitflags;

use crate::Malformed;

/// Size of a [`Descriptor`].
pub const DESCRIPTOR_BYTES: usize = 16;
/// Size of what follows each packet.
pub const TRAILER_BYTES: usize = 8;
/// The longest packet that a descriptor can express, without its trailer.
pub const MAX_PACKET_BYTES: usize = u16::MAX as usize * 8;

/// Type of a packet. Numbers without a name are never sent by Linux.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[repr(transparent)]
pub struct PacketType(pub u16);

impl PacketType {
    /// The payload is all there is.
    pub const IN_BAND: Self = Self(6);
    /// Data lies in a buffer that both ends know: [`TransferPages`](crate::TransferPages).
    pub const TRANSFER_PAGES: Self = Self(7);
    /// Data lies in a GPADL. Unused by Linux.
    pub const GPADL: Self = Self(8);
    /// Data lies in pages of the sender: [`GpaDirect`](crate::GpaDirect).
    pub const GPA_DIRECT: Self = Self(9);
    /// The answer to the packet with the same transaction id.
    pub const COMPLETION: Self = Self(0xB);
}

bitflags! {
    /// Flags of a packet. Receivers ignore bits without a name.
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
    pub struct PacketFlags: u16 {
        /// The sender waits for a completion.
        const COMPLETION_REQUESTED = 1 << 0;
    }
}

/// The first 16 bytes of a packet, as they are on the wire: nothing is checked yet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Descriptor {
    /// What follows.
    pub kind: PacketType,
    /// Offset of the payload, in units of 8 bytes from the start of the packet.
    pub offset8: u16,
    /// Length of the packet without its trailer, in units of 8 bytes.
    pub len8: u16,
    /// Flags.
    pub flags: PacketFlags,
    /// The sender's name for this packet.
    pub transaction: u64,
}

impl Descriptor {
    /// Descriptor of a packet with `header` bytes between descriptor and payload, and `payload` bytes.
    ///
    /// # Errors
    /// [`Malformed`] when `header` is not a multiple of 8, or the packet would be longer than [`MAX_PACKET_BYTES`].
    pub fn new(
        kind: PacketType,
        flags: PacketFlags,
        transaction: u64,
        header: usize,
        payload: usize,
    ) -> Result<Self, Malformed> {
        let offset = DESCRIPTOR_BYTES.checked_add(header).ok_or(Malformed)?;
        let len = offset
            .checked_add(payload)
            .and_then(padded)
            .ok_or(Malformed)?;
        if !offset.is_multiple_of(8) {
            return Err(Malformed);
        }
        Ok(Self {
            kind,
            offset8: u16::try_from(offset / 8).map_err(|_| Malformed)?,
            len8: u16::try_from(len / 8).map_err(|_| Malformed)?,
            flags,
            transaction,
        })
    }

    /// Takes the descriptor apart. Flags without a name are dropped.
    pub fn decode(bytes: &[u8; DESCRIPTOR_BYTES]) -> Self {
        let [k0, k1, o0, o1, l0, l1, f0, f1, transaction @ ..] = *bytes;
        Self {
            kind: PacketType(u16::from_le_bytes([k0, k1])),
            offset8: u16::from_le_bytes([o0, o1]),
            len8: u16::from_le_bytes([l0, l1]),
            flags: PacketFlags::from_bits_truncate(u16::from_le_bytes([f0, f1])),
            transaction: u64::from_le_bytes(transaction),
        }
    }

    /// The bytes.
    pub fn encode(&self) -> [u8; DESCRIPTOR_BYTES] {
        let ([k0, k1], [o0, o1]) = (self.kind.0.to_le_bytes(), self.offset8.to_le_bytes());
        let ([l0, l1], [f0, f1]) = (self.len8.to_le_bytes(), self.flags.bits().to_le_bytes());
        let [t0, t1, t2, t3, t4, t5, t6, t7] = self.transaction.to_le_bytes();
        [
            k0, k1, o0, o1, l0, l1, f0, f1, t0, t1, t2, t3, t4, t5, t6, t7,
        ]
    }

    /// Whether the lengths can be those of a packet: the descriptor fits before the payload's offset, and that is
    /// not behind the end.
    ///
    /// # Errors
    /// [`Malformed`] when not.
    pub const fn check(&self) -> Result<(), Malformed> {
        if (self.offset8 as usize) * 8 < DESCRIPTOR_BYTES || self.len8 < self.offset8 {
            return Err(Malformed);
        }
        Ok(())
    }

    /// Length of descriptor, header and payload in bytes: a multiple of 8, up to [`MAX_PACKET_BYTES`].
    pub const fn packet_bytes(&self) -> usize {
        self.len8 as usize * 8
    }

    /// What the packet takes in a ring: with its trailer.
    pub const fn ring_bytes(&self) -> usize {
        self.packet_bytes() + TRAILER_BYTES
    }

    /// Offset of the payload in bytes.
    pub const fn payload_offset(&self) -> usize {
        self.offset8 as usize * 8
    }
}

/// `bytes`, rounded up to a multiple of 8, or `None` past the largest number.
pub const fn padded(bytes: usize) -> Option<usize> {
    bytes.checked_next_multiple_of(8)
}

/// What follows a packet that began at write index `start`.
pub const fn trailer(start: u32) -> [u8; TRAILER_BYTES] {
    ((start as u64) << 32).to_le_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_descriptor_has_its_fields_where_linux_has_them() {
        let bytes = [
            9, 0, 5, 0, 13, 0, 1, 0, 0x11, 0x22, 0x33, 0x44, 0x55, 0x66, 0x77, 0x88,
        ];
        let descriptor = Descriptor::decode(&bytes);
        assert_eq!(descriptor.kind, PacketType::GPA_DIRECT);
        assert_eq!(descriptor.payload_offset(), 40);
        assert_eq!(descriptor.packet_bytes(), 104);
        assert_eq!(descriptor.ring_bytes(), 112);
        assert_eq!(descriptor.flags, PacketFlags::COMPLETION_REQUESTED);
        assert_eq!(descriptor.transaction, 0x8877_6655_4433_2211);
        assert_eq!(descriptor.encode(), bytes);
    }

    #[test]
    fn lengths_are_padded_and_bounded() {
        let new = |header, payload| {
            Descriptor::new(
                PacketType::IN_BAND,
                PacketFlags::empty(),
                1,
                header,
                payload,
            )
        };
        assert_eq!(new(0, 1).map(|d| (d.offset8, d.len8)), Ok((2, 3)));
        assert_eq!(new(24, 0).map(|d| (d.offset8, d.len8)), Ok((5, 5)));
        assert_eq!(new(4, 0), Err(Malformed));
        assert_eq!(new(0, MAX_PACKET_BYTES - 16).map(|d| d.len8), Ok(u16::MAX));
        assert_eq!(new(0, MAX_PACKET_BYTES - 15), Err(Malformed));
        assert_eq!(new(0, usize::MAX), Err(Malformed));
        assert_eq!(new(usize::MAX, 0), Err(Malformed));
    }

    #[test]
    fn impossible_lengths_are_found() {
        let lengths = |offset8, len8| {
            Descriptor {
                offset8,
                len8,
                ..Descriptor::default()
            }
            .check()
        };
        assert_eq!(lengths(2, 2), Ok(()));
        assert_eq!(lengths(1, 2), Err(Malformed));
        assert_eq!(lengths(3, 2), Err(Malformed));
        assert_eq!(lengths(0, 0), Err(Malformed));
    }

    #[test]
    fn the_trailer_names_the_start() {
        assert_eq!(trailer(0x1238), [0, 0, 0, 0, 0x38, 0x12, 0, 0]);
    }
}
