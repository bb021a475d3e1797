//! Discovery: the CPUID leaves 0x40000000 to 0x4000FFFF (TLFS, "Feature and Interface Discovery").

use tlfs::cpuid::{
    FEATURES, HARDWARE_FEATURES, INTERFACE, INTERFACE_SIGNATURE, LIMITS, RECOMMENDATIONS,
    SPIN_WAIT_NEVER, VENDOR, VENDOR_AND_MAX, VERSION,
};
use tlfs::{Features, Hints, Privileges, SyntheticFeatures};
use x86::cpuid::CpuidResult;

/// Build number in leaf 0x40000002: the level of the host-side interface that we follow. Linux' `mshv` driver
/// warns of builds outside 27744 to 27751.
pub const BUILD: u32 = 27744;
/// Version in leaf 0x40000002, major in bits 31:16 and minor in 15:0: that of the interface level, 10.0.
pub const INTERFACE_VERSION: u32 = 10 << 16;
/// Service number in leaf 0x40000002, bits 23:0 of EDX: the release of Verdigris, major in bits 23:16, minor in
/// 15:8, patch in 7:0. Linux prints it at the end of the "Host Build" line.
pub const SERVICE_NUMBER: u32 = 0x00_01_00;

/// What a partition is told of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PartitionIdentity {
    /// What it may do.
    pub privileges: Privileges,
    /// What there is.
    pub features: Features,
    /// What it had better do.
    pub hints: Hints,
    /// Spins on a lock before HvCallNotifyLongSpinWait.
    pub spins: u32,
    /// VPs it can have.
    pub max_vps: u32,
    /// Logical processors of the machine.
    pub max_lps: u32,
    /// Physical address bits, 0 for no statement; at most 127.
    pub physical_address_bits: u8,
    /// Whether it sees the interface. Otherwise all leaves are zero.
    pub is_present: bool,
}

/// Spins on a lock that a child is recommended before HvCallNotifyLongSpinWait.
const CHILD_SPINS: u32 = 0xFFF;

impl PartitionIdentity {
    /// The parent partition of a machine with `lps` logical processors.
    ///
    /// `tsc_invariant` says whether the TSC of the machine runs at one rate in all states
    /// (CPUID 0x80000007, EDX bit 8).
    pub const fn parent(lps: u32, physical_address_bits: u8, tsc_invariant: bool) -> Self {
        let privileges = Privileges::REFERENCE_COUNTER
            .union(Privileges::SYNIC)
            .union(Privileges::SYNTHETIC_TIMERS)
            .union(Privileges::APIC_MSRS)
            .union(Privileges::HYPERCALL_MSRS)
            .union(Privileges::VP_INDEX)
            .union(Privileges::REFERENCE_TSC)
            .union(Privileges::FREQUENCY_MSRS)
            .union(Privileges::CREATE_PARTITIONS)
            .union(Privileges::ACCESS_MEMORY_POOL)
            .union(Privileges::POST_MESSAGES)
            .union(Privileges::SIGNAL_EVENTS)
            .union(Privileges::CREATE_PORT)
            .union(Privileges::CONNECT_PORT)
            .union(Privileges::ACCESS_STATISTICS)
            .union(Privileges::EXTENDED_HYPERCALLS);
        Self {
            privileges: tsc_control(privileges, tsc_invariant),
            features: Features::FREQUENCY_MSRS
                .union(Features::CRASH_MSRS)
                .union(Features::DIRECT_TIMERS),
            // With the synthetic EOI comes the bit that spares it, and no EOI has to be decoded where there is no x2APIC.
            hints: Hints::RELAXED_TIMING
                .union(Hints::DEPRECATE_AUTO_EOI)
                .union(Hints::APIC_MSRS),
            spins: SPIN_WAIT_NEVER,
            max_vps: lps,
            max_lps: lps,
            physical_address_bits,
            is_present: true,
        }
    }

    /// A child that was given `synthetic`, and may have `max_vps` VPs on a machine with `max_lps` logical
    /// processors. [`SyntheticFeatures::ASSIGNABLE`] is what one gets that was given nothing else.
    pub fn child(
        synthetic: SyntheticFeatures,
        max_vps: u32,
        max_lps: u32,
        physical_address_bits: u8,
        tsc_invariant: bool,
    ) -> Self {
        let is_present = synthetic.contains(SyntheticFeatures::INTERFACE);
        let (privileges, features, hints) = synthetic.meaning();
        Self {
            privileges: tsc_control(privileges, tsc_invariant && is_present),
            features,
            hints,
            spins: if synthetic.contains(SyntheticFeatures::LONG_SPIN_WAIT) {
                CHILD_SPINS
            } else {
                SPIN_WAIT_NEVER
            },
            max_vps,
            max_lps,
            physical_address_bits,
            is_present,
        }
    }
}

const fn tsc_control(privileges: Privileges, tsc_invariant: bool) -> Privileges {
    if tsc_invariant {
        privileges.union(Privileges::TSC_INVARIANT)
    } else {
        privileges
    }
}

/// The answer to CPUID `leaf`, 0x40000000 to 0x4000FFFF, whatever the subleaf. Zeros for every leaf that is not
/// defined: guests search the range for other hypervisors, and read some leaves past the highest one.
pub fn hypervisor_leaf(leaf: u32, identity: &PartitionIdentity) -> CpuidResult {
    let [vendor_b, vendor_c, vendor_d] = VENDOR;
    let (eax, ebx, ecx, edx) = match leaf {
        _ if !identity.is_present => (0, 0, 0, 0),
        VENDOR_AND_MAX => (HARDWARE_FEATURES, vendor_b, vendor_c, vendor_d),
        INTERFACE => (INTERFACE_SIGNATURE, 0, 0, 0),
        VERSION => (BUILD, INTERFACE_VERSION, 0, SERVICE_NUMBER),
        FEATURES => {
            let privileges = identity.privileges.bits();
            (
                privileges as u32,
                (privileges >> 32) as u32,
                0,
                identity.features.bits(),
            )
        }
        RECOMMENDATIONS => (
            identity.hints.bits(),
            identity.spins,
            u32::from(identity.physical_address_bits & 0x7F),
            0,
        ),
        LIMITS => (identity.max_vps, identity.max_lps, 0, 0),
        _ => (0, 0, 0, 0),
    };
    CpuidResult { eax, ebx, ecx, edx }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const PARENT: PartitionIdentity = PartitionIdentity::parent(4, 48, true);

    fn leaf(leaf: u32) -> [u32; 4] {
        let r = hypervisor_leaf(leaf, &PARENT);
        [r.eax, r.ebx, r.ecx, r.edx]
    }

    #[test]
    fn the_parent_is_told_what_works_and_no_more() {
        assert_eq!(
            leaf(0x4000_0000),
            [0x4000_0006, 0x7263_694D, 0x666F_736F, 0x7648_2074]
        );
        assert_eq!(leaf(0x4000_0001), [0x3123_7648, 0, 0, 0]);
        assert_eq!(leaf(0x4000_0003), [0x8A7E, 0x0010_01F5, 0, 0x0008_0500]);
        assert_eq!(leaf(0x4000_0004), [0x228, 0xFFFF_FFFF, 48, 0]);
        assert_eq!(leaf(0x4000_0005), [4, 4, 0, 0]);
    }

    #[test]
    fn a_machine_without_invariant_tsc_does_not_offer_its_control() {
        let identity = PartitionIdentity::parent(1, 0, false);
        assert_eq!(hypervisor_leaf(0x4000_0003, &identity).eax, 0x0A7E);
    }

    fn child(synthetic: SyntheticFeatures) -> impl Fn(u32) -> [u32; 4] {
        move |leaf| {
            let identity = PartitionIdentity::child(synthetic, 2, 4, 40, true);
            let r = hypervisor_leaf(leaf, &identity);
            [r.eax, r.ebx, r.ecx, r.edx]
        }
    }

    #[test]
    fn a_child_is_told_of_everything_that_is_built_for_children() {
        let leaf = child(SyntheticFeatures::ASSIGNABLE);
        assert_eq!(leaf(0x4000_0000)[0], 0x4000_0006);
        assert_eq!(leaf(0x4000_0002), super::tests::leaf(0x4000_0002));
        assert_eq!(leaf(0x4000_0003), [0x8A7E, 0x0020_0030, 0, 0x0008_0500]);
        assert_eq!(leaf(0x4000_0004), [0x0E2C, 0xFFF, 40, 0]);
        assert_eq!(leaf(0x4000_0005), [2, 4, 0, 0]);
    }

    #[test]
    fn a_child_gets_what_qemu_asks_for_as_far_as_it_is_built() {
        let asked = SyntheticFeatures::from_bits_retain(0x0640_0FFB);
        let leaf = child(asked);
        assert_eq!(leaf(0x4000_0003), [0x8A7E, 0, 0, 0x0008_0500]);
        assert_eq!(leaf(0x4000_0004), [0x062C, 0xFFFF_FFFF, 40, 0]);
    }

    #[test]
    fn a_child_that_is_not_to_see_the_interface_sees_nothing_of_it() {
        let all = SyntheticFeatures::ASSIGNABLE;
        for missing in [
            SyntheticFeatures::HYPERVISOR_PRESENT,
            SyntheticFeatures::HV1,
        ] {
            let leaf = child(all.difference(missing));
            for n in 0x4000_0000..0x4000_0100 {
                assert_eq!(leaf(n), [0; 4]);
            }
        }
        let hidden = all.difference(SyntheticFeatures::HYPERVISOR_PRESENT);
        let identity = PartitionIdentity::child(hidden, 2, 4, 40, true);
        assert_eq!(identity.privileges, Privileges::empty());
    }

    proptest! {
        #[test]
        fn each_feature_only_adds(bits in any::<u64>(), without in any::<u64>()) {
            let identity = |bits| {
                let synthetic = SyntheticFeatures::from_bits_retain(bits);
                PartitionIdentity::child(synthetic, 1, 1, 0, false)
            };
            let (more, less) = (identity(bits), identity(bits & !without));
            prop_assert!(more.privileges.contains(less.privileges));
            prop_assert!(more.features.contains(less.features));
            prop_assert!(more.hints.contains(less.hints));
            prop_assert!(!more.privileges.contains(Privileges::CREATE_PARTITIONS));
        }

        #[test]
        fn undefined_leaves_are_zero(n in 0x4000_0006u32..=0x4000_FFFF) {
            prop_assert_eq!(leaf(n), [0; 4]);
        }
    }

    #[test]
    fn the_leaf_that_linux_reads_past_the_highest_is_zero() {
        assert_eq!(leaf(0x4000_0082), [0; 4]);
        assert_eq!(leaf(0x4000_0100), [0; 4]);
    }
}
