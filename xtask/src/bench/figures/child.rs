//! Figures of a Debian child.

use super::{Figure, Peer};

/// Its boot and what is kept for it.
pub const CHILD: &[Figure] = &[
    Figure::new(
        "child-boot-init",
        "exits",
        "Exits of a child with one VP until Debian's cloud kernel, unmodified, starts its first process. Each is \
         work that the same boot on a bare machine has not.",
    )
    .beside(Peer::Words("KVM 32,302")),
    Figure::new(
        "child-boot-io",
        "exits",
        "Those of them for access to ports, the dearest: the parent's program answers them. Most is the serial \
         console, where the kernel prints some 300 lines: two for each character, for Linux asks before each whether \
         there is room, and fills the FIFO only when a program has the port open. With `quiet` on its command line they \
         go away.",
    )
    .beside(Peer::Words("KVM 19,035")),
    Figure::new(
        "child-boot-interrupt",
        "exits",
        "Those of them because an interrupt of the machine came while the child ran.",
    )
    .beside(Peer::Words("KVM 5,684")),
    Figure::new(
        "child-boot-shell",
        "exits",
        "The same until its root is mounted from the synthetic disk and the first program of its user space runs.",
    ),
    Figure::new(
        "child-boot-quiet",
        "exits",
        "As `child-boot-shell`, with `quiet` on the kernel's command line.",
    ),
    Figure::new(
        "child-boot-ticks",
        "instructions",
        "What that takes of the processor in all: the child, the hypervisor, and the parent that makes the child \
         and serves its disk. Time asleep, waiting for the real disk under the image, is counted too.",
    ),
    Figure::new(
        "child-boot-parent",
        "exits",
        "Exits of the parent meanwhile.",
    ),
    Figure::new(
        "child-port",
        "instructions",
        "An access to a port that the worker answers, a program in the parent's user space: from one to the next, \
         everything included. What an emulated device costs, here the real-time clock, and as much a character on the \
         serial console; storage and network do not go this way.",
    )
    .beside(Peer::Kvm(5_573, 10_081)),
    Figure::new(
        "child-port-parent",
        "exits per 1,000",
        "Exits of the parent for a thousand of them.",
    ),
    Figure::new(
        "child-bytes",
        "bytes",
        "What the hypervisor keeps for a child of one VP and 128 MiB before its kernel does anything: this is taken \
         from the parent's memory besides the child's own.",
    ),
    Figure::new(
        "child-vp-bytes",
        "bytes",
        "What each further VP adds.",
    ),
    Figure::new(
        "child-channel-bytes",
        "bytes",
        "What it adds to have booted: the child's synthetic interrupts and its VMBus with one channel open, its \
         disk's.",
    ),
];

/// Its requests to its disk.
pub const STORAGE: &[Figure] = &[
    Figure::new(
        "storage-read-1",
        "instructions",
        "A read of 4 KiB, one after the other: from one request of the program in the child to the next, everything \
         included that the child's kernel, the hypervisor, the parent's kernel and the worker do.",
    ),
    Figure::new(
        "storage-read-1-child",
        "exits per 1,000",
        "Exits of the child for a thousand such reads. On real processors each costs a microsecond or so beside the \
         instructions above.",
    )
    .beside(Peer::Words("KVM, virtio-blk: 4,700")),
    Figure::new(
        "storage-read-1-parent",
        "exits per 1,000",
        "Exits of the parent meanwhile, which a hypervisor inside the parent's kernel has not.",
    ),
    Figure::new(
        "storage-write-1",
        "instructions",
        "A write of 4 KiB.",
    ),
    Figure::new(
        "storage-write-1-child",
        "exits per 1,000",
        "Exits of the child.",
    ),
    Figure::new(
        "storage-write-1-parent",
        "exits per 1,000",
        "Exits of the parent.",
    ),
    Figure::new(
        "storage-read-32",
        "instructions",
        "A read of 4 KiB while 32 are under way. What is done once for many requests is shared among them.",
    ),
    Figure::new(
        "storage-read-32-child",
        "exits per 1,000",
        "Exits of the child.",
    ),
    Figure::new(
        "storage-read-32-parent",
        "exits per 1,000",
        "Exits of the parent.",
    ),
    Figure::new(
        "storage-write-32",
        "instructions",
        "A write of 4 KiB while 32 are under way.",
    ),
    Figure::new(
        "storage-write-32-child",
        "exits per 1,000",
        "Exits of the child.",
    ),
    Figure::new(
        "storage-write-32-parent",
        "exits per 1,000",
        "Exits of the parent.",
    ),
];
