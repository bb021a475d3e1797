//! Figures of exits that the hypervisor answers by itself.

use super::{Figure, Peer};

/// In the order of the page.
pub const FIGURES: &[Figure] = &[
    Figure::new(
        "cpuid",
        "instructions",
        "CPUID of a hypervisor leaf: the shortest way out of the guest and back. Every other exit costs this and \
         its own work.",
    )
    .within(250)
    .beside(Peer::Kvm(1_522, 1_366)),
    Figure::new(
        "hypercall",
        "instructions",
        "A hypercall with nothing to do, parameters in registers (the fast form). What a guest pays to ask the \
         hypervisor for anything.",
    )
    .within(250)
    .beside(Peer::Kvm(4_331, 4_099)),
    Figure::new(
        "hypercall-slow",
        "instructions",
        "The same call with its parameters in memory (the slow form): the guest's page is found, checked and \
         copied.",
    ),
    Figure::new(
        "msr-read",
        "instructions",
        "RDMSR of the partition reference counter. Guests read it until they have set up the shared page, which \
         costs no exit.",
    ),
    Figure::new(
        "port-read",
        "instructions",
        "IN from a port. The parent owns the machine's ports, so only a few of them exit; the port read here (0x80) \
         should cost one instruction.",
    )
    .beside(Peer::Kvm(1_748, 1_577)),
    Figure::new(
        "eoi-xapic",
        "instructions",
        "End of an interrupt through the memory-mapped APIC page: the access faults and its instruction is decoded.",
    ),
    Figure::new(
        "eoi-x2apic",
        "instructions",
        "End of an interrupt in x2APIC mode, a WRMSR. Every interrupt of the parent pays it once.",
    ),
    Figure::new(
        "self-ipi-xapic",
        "instructions",
        "An interrupt to oneself through the APIC page, with its delivery, the guest's handler and its EOI.",
    ),
    Figure::new(
        "self-ipi-x2apic",
        "instructions",
        "The same in x2APIC mode.",
    ),
];
