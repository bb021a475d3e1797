//! What a channel is offered as.

use bitflags::bitflags;
use tlfs::wire::{Field, Writer, Zero, blocks};
use tlfs::{HvError, Reader};

use crate::Guid;

/// 120 bytes that mean something to the two ends of a channel only.
#[derive(Clone, Copy, PartialEq, Eq)]
#[repr(transparent)]
pub struct UserData(pub [u8; 120]);

impl Default for UserData {
    fn default() -> Self {
        Self([0; 120])
    }
}

impl core::fmt::Debug for UserData {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        let used = self
            .0
            .iter()
            .rposition(|byte| *byte != 0)
            .map_or(0, |last| last + 1);
        write!(f, "{:02x?}", self.0.get(..used).unwrap_or(&self.0))
    }
}

impl Field for UserData {
    const BYTES: usize = 120;
    fn read(r: &mut Reader<'_>) -> Result<Self, HvError> {
        r.array().map(Self)
    }
    fn write(self, w: &mut Writer<'_>) {
        w.put(&self.0);
    }
}

bitflags! {
    /// Properties of an offer; bits without a name have none for us.
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
    pub struct OfferFlags: u16 {
        /// For a device with a driver.
        const ENUMERATE = 0x0001;
        /// Of an isolated guest: never offered, Linux rejects or miscounts such offers.
        const CONFIDENTIAL_RING = 0x0002;
        /// The same.
        const CONFIDENTIAL_MEMORY = 0x0004;
        /// Packets carry a pipe header.
        const PIPE = 0x0010;
        const _ = !0;
    }
}

impl OfferFlags {
    /// What a back end may ask for.
    pub const OFFERABLE: Self = Self::ENUMERATE.union(Self::PIPE);
}

impl Field for OfferFlags {
    const BYTES: usize = 2;
    fn read(r: &mut Reader<'_>) -> Result<Self, HvError> {
        r.u16().map(Self::from_bits_retain)
    }
    fn write(self, w: &mut Writer<'_>) {
        self.bits().write(w);
    }
}

blocks! {
    /// What the back end decides about an offer, as it stands in its request.
    Offer[160] {
        class: Guid, /// Unique in a guest, whatever the class.
        instance: Guid, flags: OfferFlags, mmio_megabytes: u16, /// 0 is the primary; others have its two GUIDs.
        sub_channel: u16, reserved: Zero<2>, user: UserData,
    }
}
