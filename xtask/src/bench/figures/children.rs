//! Figures of children, measured with tiny guests.

use super::{Figure, Peer};

/// In the order of the page.
pub const FIGURES: &[Figure] = &[
    Figure::new(
        "child-cpuid",
        "instructions",
        "CPUID of a child, with the loop that counts.",
    )
    .within(250)
    .beside(Peer::Kvm(1_522, 1_366)),
    Figure::new(
        "child-msr-read",
        "instructions",
        "RDMSR of the reference counter by a child.",
    ),
    Figure::new(
        "child-hypercall",
        "instructions",
        "A hypercall of a child with nothing to do, in registers. The child's own code for it is counted too, some ten \
         instructions.",
    )
    .within(250)
    .beside(Peer::Kvm(4_331, 4_099)),
    Figure::new(
        "child-hypercall-unknown",
        "instructions",
        "A call that there is not: what a child pays to be refused.",
    ),
    Figure::new(
        "child-intercept-round-trip",
        "instructions",
        "A port access of a child until the parent has its message, the parent's answer by one call, and the child \
         goes on: two switches of VPs, a message, an interrupt, a halt of the parent. What an emulated device costs \
         at least.",
    )
    .beside(Peer::Kvm(5_573, 10_081)),
    Figure::new(
        "get-register",
        "instructions",
        "HvCallGetVpRegisters for one register of a VP that is stopped.",
    ),
    Figure::new(
        "child-ipi-round-trip",
        "instructions",
        "An interrupt from one VP of a child to another that is halted on the same processor, and one back: two \
         IPIs, two halts, four switches.",
    ),
    Figure::new(
        "child-message",
        "instructions",
        "HvCallPostMessage of a child to itself, until the message is in its slot and taken out.",
    ),
    Figure::new(
        "child-event-round-trip",
        "instructions",
        "An event signalled to a VP of a child that is halted on the same processor, and one back.",
    ),
    Figure::new(
        "frames-partition",
        "frames of 4 KiB",
        "What a child without VPs and memory takes of its pool. One frame of the hypervisor's comes on top.",
    ),
    Figure::new(
        "frames-vp",
        "frames of 4 KiB",
        "What each VP takes.",
    ),
    Figure::new(
        "frames-first-2MiB",
        "frames of 4 KiB",
        "Second-level tables for the first large page; one frame of the last of them serves a GiB.",
    ),
    Figure::new(
        "child-self-ipi",
        "instructions",
        "An interrupt of a VP to itself in x2APIC mode, with its delivery, handler and EOI: what an IPI costs \
         without a switch.",
    ),
    Figure::new(
        "child-switch",
        "instructions",
        "A halt, and the switch to another VP of the child that was just woken: half of `child-ipi-round-trip` \
         without its IPI.",
    ),
    Figure::new(
        "child-ipi-running",
        "instructions",
        "An IPI to a VP that runs on another processor, until its program sees it. Half of the way there and back, \
         on a machine of two processors.",
    ),
    Figure::new(
        "child-bus-round-trip",
        "instructions",
        "A signal of the child on a VMBus channel until the program behind it in the parent knows of it, and that \
         program's signal back. A request to a virtual device that finds its program asleep pays this at least.",
    ),
    Figure::new(
        "child-fault-4k",
        "instructions",
        "The first touch of a page that the parent gives the child only then: the intercept, the call that maps 4 \
         KiB, the call that lets the VP go on. A child whose memory is mapped beforehand, as `vmms` does it, pays \
         nothing.",
    ),
    Figure::new(
        "child-fault-2m",
        "instructions",
        "The same for a page of 2 MiB.",
    ),
    Figure::new(
        "timer-late-idle",
        "instructions",
        "How long after its time a timer of the parent is at its handler, when nothing else runs. Its clock's unit \
         of 100 ns, here 10 instructions, is uncertain.",
    ),
    Figure::new(
        "timer-late-busy",
        "instructions",
        "The same beside a child that never stops: the child is interrupted, its VP leaves the processor, the \
         parent's comes.",
    ),
    Figure::new(
        "timer-late-busy-worst",
        "instructions",
        "The latest of a hundred.",
    ),
    Figure::new(
        "child-make",
        "instructions",
        "To make a child with one VP and a page of 2 MiB, without the deposits.",
    ),
    Figure::new("child-make-2-vps", "instructions", "The same with two VPs."),
    Figure::new("child-make-4-vps", "instructions", "With four."),
    Figure::new(
        "child-make-64",
        "instructions",
        "With one, while there are 64 other children.",
    ),
    Figure::new(
        "child-unmake",
        "instructions",
        "The end of a child with one VP and 2 MiB: everything is taken back, cleared, and given to the parent.",
    ),
    Figure::new("child-unmake-2-vps", "instructions", "The same with two VPs."),
    Figure::new("child-unmake-4-vps", "instructions", "With four."),
    Figure::new(
        "child-unmake-64",
        "instructions",
        "With one, while there are 64 other children.",
    ),
    Figure::new(
        "frames-256mib",
        "frames of 4 KiB",
        "What 256 MiB in pages of 2 MiB take of a child's pool: its second-level tables.",
    ),
    Figure::new("frames-gib", "frames of 4 KiB", "The same for a GiB."),
    Figure::new("frames-4gib", "frames of 4 KiB", "For 4 GiB."),
    Figure::new(
        "child-map-256mib",
        "instructions",
        "To map 256 MiB in pages of 2 MiB.",
    ),
    Figure::new("child-map-gib", "instructions", "To map a GiB."),
    Figure::new("child-map-4gib", "instructions", "To map 4 GiB."),
    Figure::new(
        "child-unmake-256mib",
        "instructions",
        "The end of a child with 256 MiB.",
    ),
    Figure::new("child-unmake-gib", "instructions", "With a GiB."),
    Figure::new("child-unmake-4gib", "instructions", "With 4 GiB."),
    Figure::new(
        "idle-1",
        "instructions per second",
        "What a sleeping child takes of the processor in a second, its own work included: a timer wakes it ten \
         times.",
    ),
    Figure::new(
        "idle-8",
        "instructions per second",
        "The same for each of eight.",
    ),
    Figure::new(
        "idle-64",
        "instructions per second",
        "The same for each of 64.",
    ),
];
