//! Whom a message names: physical, logical and shorthand destinations.

use crate::base::Mode;

/// The destination of an IPI.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Destination {
    /// The APIC with this ID; all ones in the sender's width (8 or 32 bits) names every APIC.
    Physical(u32),
    /// The APICs that this message destination address selects by their LDR and DFR.
    Logical(u32),
    /// The sender alone.
    SelfOnly,
    /// Every APIC, the sender too.
    All,
    /// Every APIC but the sender.
    AllButSelf,
}

/// What of a target decides whether a message is for it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Addressee {
    pub(crate) id: u32,
    pub(crate) mode: Mode,
    /// Whether SVR enables the APIC.
    pub(crate) enabled: bool,
    /// DFR bits 31:28: 15 for the flat model, 0 for the cluster model.
    pub(crate) model: u8,
    /// LDR bits 31:24, of xAPIC mode.
    pub(crate) logical_id: u8,
}

/// The logical ID that x2APIC mode derives from an APIC ID: cluster in bits 31:16, one bit of 15:0
/// (SDM vol. 3A, "Deriving Logical x2APIC ID from the Local x2APIC ID").
pub(crate) const fn x2apic_logical_id(id: u32) -> u32 {
    ((id >> 4) << 16) | (1 << (id & 0xF))
}

impl Addressee {
    /// Whether `destination`, sent by the APIC `sender` in x2APIC mode or not, names this APIC.
    ///
    /// While processors are between modes (some xAPIC, some x2APIC) the manual promises nothing. Here
    /// an ID is compared in full, a broadcast in the sender's width reaches everybody, and a logical
    /// address is read in the target's mode, an xAPIC target seeing only those that fit in 8 bits.
    pub(crate) fn is_named_by(self, destination: Destination, sender: u32, x2apic: bool) -> bool {
        if self.mode == Mode::Disabled {
            return false;
        }
        let broadcast = if x2apic { u32::MAX } else { 0xFF };
        match destination {
            Destination::All => true,
            Destination::AllButSelf => self.id != sender,
            Destination::SelfOnly => self.id == sender,
            Destination::Physical(id) => id == broadcast || id == self.id,
            Destination::Logical(address) => address == broadcast || self.is_selected_by(address),
        }
    }

    /// Logical addressing (SDM vol. 3A, "Logical Destination Mode").
    fn is_selected_by(self, address: u32) -> bool {
        if self.mode == Mode::X2Apic {
            let own = x2apic_logical_id(self.id);
            return own >> 16 == address >> 16 && own & address & 0xFFFF != 0;
        }
        let Ok(address) = u8::try_from(address) else {
            return false;
        };
        match self.model {
            0xF => self.logical_id & address != 0,
            0x0 => self.logical_id >> 4 == address >> 4 && self.logical_id & address & 0xF != 0,
            _ => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn xapic(id: u32, model: u8, logical_id: u8) -> Addressee {
        Addressee {
            id,
            mode: Mode::XApic,
            enabled: true,
            model,
            logical_id,
        }
    }

    fn x2apic(id: u32) -> Addressee {
        Addressee {
            id,
            mode: Mode::X2Apic,
            enabled: true,
            model: 0xF,
            logical_id: 0,
        }
    }

    #[test]
    fn a_broadcast_has_the_width_of_the_sender() {
        let target = xapic(3, 0xF, 0);
        assert!(target.is_named_by(Destination::Physical(0xFF), 0, false));
        assert!(!target.is_named_by(Destination::Physical(0xFF), 0, true));
        assert!(target.is_named_by(Destination::Physical(u32::MAX), 0, true));
        assert!(x2apic(300).is_named_by(Destination::Physical(0xFF), 0, false));
        assert!(x2apic(255).is_named_by(Destination::Physical(0xFF), 0, true));
        assert!(target.is_named_by(Destination::Logical(0xFF), 0, false));
        assert!(x2apic(17).is_named_by(Destination::Logical(u32::MAX), 0, true));
    }

    #[test]
    fn flat_and_cluster_models_select_by_their_bits() {
        let flat =
            |address| xapic(1, 0xF, 0b0100).is_named_by(Destination::Logical(address), 0, false);
        assert!(flat(0b0110) && !flat(0b1011));
        let cluster =
            |address| xapic(1, 0x0, 0x24).is_named_by(Destination::Logical(address), 0, false);
        assert!(cluster(0x24) && cluster(0x2F) && !cluster(0x23) && !cluster(0x34));
        assert!(!xapic(1, 0x7, 0xFE).is_named_by(Destination::Logical(0xFE), 0, false));
    }

    #[test]
    fn x2apic_logical_ids_are_sixteen_to_a_cluster() {
        assert_eq!(x2apic_logical_id(0x25), 0x0002_0020);
        let target = x2apic(0x25);
        assert!(target.is_named_by(Destination::Logical(0x0002_0060), 0, true));
        assert!(!target.is_named_by(Destination::Logical(0x0002_0040), 0, true));
        assert!(!target.is_named_by(Destination::Logical(0x0003_0020), 0, true));
    }

    #[test]
    fn shorthands_tell_the_sender_from_the_others() {
        let target = xapic(4, 0xF, 0);
        for (destination, from_itself, from_another) in [
            (Destination::All, true, true),
            (Destination::AllButSelf, false, true),
            (Destination::SelfOnly, true, false),
        ] {
            assert_eq!(target.is_named_by(destination, 4, false), from_itself);
            assert_eq!(target.is_named_by(destination, 5, false), from_another);
        }
    }

    #[test]
    fn a_disabled_apic_is_never_named() {
        let target = Addressee {
            mode: Mode::Disabled,
            ..xapic(4, 0xF, 1)
        };
        assert!(!target.is_named_by(Destination::All, 0, false));
        assert!(!target.is_named_by(Destination::Physical(4), 0, true));
    }
}
