//! The address spaces of a hypervisor and the numbers of its objects, each as its own type.
//!
//! A crossing from one space to another is a question put to whoever holds the map; no conversion is
//! offered here, and no arithmetic that could wrap.
#![no_std]
#![forbid(unsafe_code)]

/// Bytes in a page of the hypervisor interface, in every address space.
pub const PAGE_SIZE: u64 = 4096;

macro_rules! address_space {
    ($(#[$address_doc:meta])* $address:ident, $(#[$page_doc:meta])* $page:ident) => {
        $(#[$address_doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
        #[repr(transparent)]
        pub struct $address(u64);

        impl $address {
            /// The address `value`, in bytes.
            pub const fn new(value: u64) -> Self {
                Self(value)
            }

            /// The address in bytes.
            pub const fn get(self) -> u64 {
                self.0
            }

            /// The page that holds this address.
            pub const fn page(self) -> $page {
                $page(self.0 / PAGE_SIZE)
            }

            /// The offset of this address in its page, 0 to 4095.
            pub const fn page_offset(self) -> usize {
                (self.0 % PAGE_SIZE) as usize
            }

            /// The address `bytes` further on, or `None` past the end of the address space.
            pub const fn checked_add(self, bytes: u64) -> Option<Self> {
                match self.0.checked_add(bytes) {
                    Some(value) => Some(Self(value)),
                    None => None,
                }
            }

            /// Whether the address is a multiple of `bytes`, which is a power of two.
            pub const fn is_aligned(self, bytes: u64) -> bool {
                self.0 & (bytes - 1) == 0
            }

            /// The largest multiple of `bytes` (a power of two) not above this address.
            pub const fn align_down(self, bytes: u64) -> Self {
                Self(self.0 & !(bytes - 1))
            }
        }

        impl core::fmt::Debug for $address {
            fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
                write!(f, concat!(stringify!($address), "({:#x})"), self.0)
            }
        }

        impl core::fmt::LowerHex for $address {
            fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
                core::fmt::LowerHex::fmt(&self.0, f)
            }
        }

        $(#[$page_doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
        #[repr(transparent)]
        pub struct $page(u64);

        impl $page {
            /// Page number `number`.
            pub const fn new(number: u64) -> Self {
                Self(number)
            }

            /// The page number.
            pub const fn get(self) -> u64 {
                self.0
            }

            /// The first address of the page, or `None` for a page number beyond the address space.
            pub const fn start(self) -> Option<$address> {
                match self.0.checked_mul(PAGE_SIZE) {
                    Some(value) => Some($address(value)),
                    None => None,
                }
            }
        }

        impl core::fmt::Debug for $page {
            fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
                write!(f, concat!(stringify!($page), "({:#x})"), self.0)
            }
        }
    };
}

address_space!(
    /// System physical address: what the memory controller sees.
    Spa,
    /// Number of a page of system physical memory.
    Spn
);
address_space!(
    /// Guest physical address: what a partition believes to be physical.
    Gpa,
    /// Number of a page of a partition's physical address space.
    Gpn
);
address_space!(
    /// Guest virtual address, before the guest's own translation.
    Gva,
    /// Number of a page of a guest's virtual address space.
    Gvn
);
address_space!(
    /// Virtual address in the hypervisor's own page tables.
    Hva,
    /// Number of a page of the hypervisor's virtual address space.
    Hvn
);

macro_rules! number {
    ($(#[$doc:meta])* $name:ident, $repr:ty) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Debug)]
        #[repr(transparent)]
        pub struct $name($repr);

        impl $name {
            /// The object numbered `value`.
            pub const fn new(value: $repr) -> Self {
                Self(value)
            }

            /// The number.
            pub const fn get(self) -> $repr {
                self.0
            }
        }
    };
}

number!(
    /// Number of a virtual processor in its partition (TLFS, "Virtual Processors"), from 0.
    VpIndex,
    u32
);
number!(
    /// Number of a logical processor, a hardware thread, from 0 in the order of the firmware's table.
    LpIndex,
    u32
);
number!(
    /// Identifier of a local APIC, physical or virtual.
    ApicId,
    u32
);
number!(
    /// Identifier of a partition (TLFS, "Partition Management"). Never reused while the machine is up.
    PartitionId,
    u64
);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_page_has_a_start_and_the_one_after_it_has_none() {
        let last = Gpa::new(u64::MAX).page();
        assert_eq!(last.start(), Some(Gpa::new(u64::MAX - 4095)));
        assert_eq!(Gpn::new(last.get() + 1).start(), None);
    }

    #[test]
    fn addition_stops_at_the_end_of_the_space() {
        assert_eq!(
            Spa::new(u64::MAX - 1).checked_add(1),
            Some(Spa::new(u64::MAX))
        );
        assert_eq!(Spa::new(u64::MAX).checked_add(1), None);
    }
}
