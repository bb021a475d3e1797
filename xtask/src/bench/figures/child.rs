//! Figures of a Debian child.

use super::{Figure, Group, Peer};

const fn debian(
    name: &'static str,
    unit: &'static str,
    peer: Peer,
    meaning: &'static str,
) -> Figure {
    Figure {
        name,
        group: Group::Child,
        unit,
        budget: None,
        peer,
        meaning,
    }
}

const fn storage(
    name: &'static str,
    unit: &'static str,
    peer: Peer,
    meaning: &'static str,
) -> Figure {
    Figure {
        name,
        group: Group::Storage,
        unit,
        budget: None,
        peer,
        meaning,
    }
}

/// Its boot and what is kept for it, and its requests to its disk.
pub const FIGURES: &[Figure] = &[
    debian(
        "child-boot-init",
        "exits",
        Peer::Words("KVM 32,302"),
        "Exits of a child with one VP until Debian's cloud kernel, unmodified, starts its first process. Each is work that \
         the same boot on a bare machine has not.",
    ),
    debian(
        "child-boot-io",
        "exits",
        Peer::Words("KVM 19,035"),
        "Those of them for access to ports, the dearest: the parent's program answers them. Most is the serial console: the \
         kernel prints some 300 lines there. With `quiet` on its command line they go away.",
    ),
    debian(
        "child-boot-interrupt",
        "exits",
        Peer::Words("KVM 5,684"),
        "Those of them because an interrupt of the machine came while the child ran.",
    ),
    debian(
        "child-boot-shell",
        "exits",
        Peer::None,
        "The same until its root is mounted from the synthetic disk and the first program of its user space runs.",
    ),
    debian(
        "child-boot-ticks",
        "instructions",
        Peer::None,
        "What that takes of the processor in all: the child, the hypervisor, and the parent that makes the child and serves \
         its disk. Time asleep, waiting for the real disk under the image, is counted too.",
    ),
    debian(
        "child-boot-parent",
        "exits",
        Peer::None,
        "Exits of the parent meanwhile.",
    ),
    debian(
        "child-bytes",
        "bytes",
        Peer::None,
        "What the hypervisor keeps for a child of one VP and 128 MiB before its kernel does anything: this is taken from the \
         parent's memory besides the child's own.",
    ),
    debian(
        "child-vp-bytes",
        "bytes",
        Peer::None,
        "What each further VP adds.",
    ),
    debian(
        "child-channel-bytes",
        "bytes",
        Peer::None,
        "What it adds to have booted: the child's synthetic interrupts and its VMBus with one channel open, its disk's.",
    ),
    storage(
        "storage-read-1",
        "instructions",
        Peer::None,
        "A read of 4 KiB, one after the other: from one request of the program in the child to the next, everything \
         included that the child's kernel, the hypervisor, the parent's kernel and the worker do.",
    ),
    storage(
        "storage-read-1-child",
        "exits per 1,000",
        Peer::Words("KVM, virtio-blk: 4,700"),
        "Exits of the child for a thousand such reads. On real processors each costs a microsecond or so beside the \
         instructions above.",
    ),
    storage(
        "storage-read-1-parent",
        "exits per 1,000",
        Peer::None,
        "Exits of the parent meanwhile, which a hypervisor inside the parent's kernel has not.",
    ),
    storage(
        "storage-write-1",
        "instructions",
        Peer::None,
        "A write of 4 KiB.",
    ),
    storage(
        "storage-write-1-child",
        "exits per 1,000",
        Peer::None,
        "Exits of the child.",
    ),
    storage(
        "storage-write-1-parent",
        "exits per 1,000",
        Peer::None,
        "Exits of the parent.",
    ),
    storage(
        "storage-read-32",
        "instructions",
        Peer::None,
        "A read of 4 KiB while 32 are under way. What is done once for many requests is shared among them.",
    ),
    storage(
        "storage-read-32-child",
        "exits per 1,000",
        Peer::None,
        "Exits of the child.",
    ),
    storage(
        "storage-read-32-parent",
        "exits per 1,000",
        Peer::None,
        "Exits of the parent.",
    ),
    storage(
        "storage-write-32",
        "instructions",
        Peer::None,
        "A write of 4 KiB while 32 are under way.",
    ),
    storage(
        "storage-write-32-child",
        "exits per 1,000",
        Peer::None,
        "Exits of the child.",
    ),
    storage(
        "storage-write-32-parent",
        "exits per 1,000",
        Peer::None,
        "Exits of the parent.",
    ),
];
