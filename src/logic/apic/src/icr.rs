//! The interrupt command register, decoded into a message.

use addr::ApicId;

use crate::destination::Destination;
use crate::registers::icr;

/// What an IPI does to its targets.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum IpiKind {
    /// Interrupt with this vector, 16 to 255, at every target.
    Fixed(u8),
    /// Interrupt with this vector, 16 to 255, at one of the targets.
    LowestPriority(u8),
    /// Non-maskable interrupt.
    Nmi,
    /// INIT.
    Init,
    /// INIT level de-assert. It has no effect on any processor of today.
    InitDeassert,
    /// Start-up at page `vector` below 1 MiB.
    Sipi(u8),
    /// System management interrupt. Not delivered in a virtual machine without SMM.
    Smi,
    /// The 8259 answers the target's acknowledge cycle (AMD; reserved on Intel).
    ExtInt,
}

/// A message that an ICR or SELF IPI write sends.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Ipi {
    /// What it does.
    pub kind: IpiKind,
    /// To whom.
    pub destination: Destination,
    /// The sender, for the shorthands.
    pub sender: ApicId,
    /// Whether the sender was in x2APIC mode: the width of [`Ipi::destination`].
    pub x2apic: bool,
}

/// Why an ICR value sends nothing.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Unsendable {
    /// Vector below 16 in a mode that uses one.
    IllegalVector,
    /// A delivery mode that means nothing.
    ReservedMode,
}

impl Ipi {
    /// Decodes a 64-bit ICR value of the mode that `x2apic` names.
    ///
    /// The trigger mode counts for INIT alone; everything else is an edge (SDM vol. 3A, "Interrupt
    /// Command Register (ICR)").
    pub(crate) fn decode(value: u64, sender: ApicId, x2apic: bool) -> Result<Self, Unsendable> {
        let vector = value as u8;
        let usable = || {
            if vector < 16 {
                Err(Unsendable::IllegalVector)
            } else {
                Ok(vector)
            }
        };
        let kind = match (value >> 8) & 7 {
            0 => IpiKind::Fixed(usable()?),
            1 => IpiKind::LowestPriority(usable()?),
            2 => IpiKind::Smi,
            4 => IpiKind::Nmi,
            5 if value & icr::ASSERT == 0 && value & icr::LEVEL != 0 => IpiKind::InitDeassert,
            5 => IpiKind::Init,
            6 => IpiKind::Sipi(vector),
            7 => IpiKind::ExtInt,
            _ => return Err(Unsendable::ReservedMode),
        };
        let address = if x2apic {
            (value >> 32) as u32
        } else {
            (value >> 56) as u32
        };
        let destination = match (value >> 18) & 3 {
            1 => Destination::SelfOnly,
            2 => Destination::All,
            3 => Destination::AllButSelf,
            _ if value & icr::LOGICAL != 0 => Destination::Logical(address),
            _ => Destination::Physical(address),
        };
        Ok(Self {
            kind,
            destination,
            sender,
            x2apic,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn xapic(high: u32, low: u32) -> Result<Ipi, Unsendable> {
        Ipi::decode(
            (u64::from(high) << 32) | u64::from(low),
            ApicId::new(0),
            false,
        )
    }

    fn kind(low: u32) -> Result<IpiKind, Unsendable> {
        xapic(0, low).map(|ipi| ipi.kind)
    }

    #[test]
    fn the_wake_up_words_of_firmware_and_linux_are_read() {
        let init = xapic(0x0100_0000, 0xC500).unwrap();
        assert_eq!(
            (init.kind, init.destination),
            (IpiKind::Init, Destination::Physical(1))
        );
        assert_eq!(kind(0x8500), Ok(IpiKind::InitDeassert));
        assert_eq!(kind(0x4500), Ok(IpiKind::Init));
        assert_eq!(kind(0x0500), Ok(IpiKind::Init));
        assert_eq!(kind(0x699), Ok(IpiKind::Sipi(0x99)));
        let broadcast = xapic(0, 0xC_4687).unwrap();
        assert_eq!(
            (broadcast.kind, broadcast.destination),
            (IpiKind::Sipi(0x87), Destination::AllButSelf)
        );
    }

    #[test]
    fn vectors_below_sixteen_are_refused_where_a_vector_is_used() {
        assert_eq!(kind(0x0F), Err(Unsendable::IllegalVector));
        assert_eq!(kind(0x10F), Err(Unsendable::IllegalVector));
        assert_eq!(kind(0x10), Ok(IpiKind::Fixed(16)));
        assert_eq!(kind(0x402), Ok(IpiKind::Nmi));
        assert_eq!(kind(0x601), Ok(IpiKind::Sipi(1)));
        assert_eq!(kind(0x3FF), Err(Unsendable::ReservedMode));
    }

    #[test]
    fn the_destination_has_the_width_of_the_mode() {
        let value = 0x1234_5678_0000_0830;
        let x2apic = Ipi::decode(value, ApicId::new(0), true).unwrap();
        assert_eq!(x2apic.destination, Destination::Logical(0x1234_5678));
        let xapic = Ipi::decode(value, ApicId::new(0), false).unwrap();
        assert_eq!(xapic.destination, Destination::Logical(0x12));
    }
}
