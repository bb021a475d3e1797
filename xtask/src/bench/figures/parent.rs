//! Figures of the parent: launch, boot, memory and code.

use super::{CODE_LINES_MAX, Figure, IMAGE_MAX, Peer};

/// Launch and boot.
pub const BOOT: &[Figure] = &[
    Figure::new(
        "launch-start-bare",
        "instructions",
        "From the machine's reset to the first instruction of an EFI program that the firmware starts from the \
         disk, without the hypervisor.",
    ),
    Figure::new(
        "launch-start",
        "instructions",
        "From reset to the first instruction of the same program as the parent's image: firmware, loader, launch of \
         the hypervisor, and the program read and started.",
    ),
    Figure::new(
        "launch-adds",
        "instructions",
        "What loader and hypervisor add to that.",
    ),
    Figure::new(
        "boot-init-bare",
        "instructions",
        "Debian's cloud kernel on the bare machine, from its first line until it starts the first process.",
    ),
    Figure::new(
        "boot-init",
        "instructions",
        "The same kernel as the parent, above the hypervisor.",
    ),
    Figure::new(
        "boot-init-more",
        "1/1000 more than bare",
        "How much longer the parent takes than the bare machine. Negative where the kernel skips work because a \
         hypervisor tells it what it would have measured.",
    )
    .within(30),
    Figure::new(
        "boot-test-bare",
        "instructions",
        "On the bare machine, until user space has loaded its drivers and runs the first test.",
    ),
    Figure::new(
        "boot-test",
        "instructions",
        "The same in the parent.",
    ),
    Figure::new(
        "boot-test-more",
        "1/1000 more than bare",
        "How much longer the parent takes.",
    )
    .within(30),
    Figure::new(
        "boot-busy-more",
        "1/1000 more than bare",
        "The same without the time in which the processor slept, waiting for devices: what the parent's boot costs \
         in work.",
    )
    .within(30),
    Figure::new(
        "boot-exits",
        "exits",
        "Exits of the parent from its start (firmware's part included) to power-off.",
    ),
    Figure::new(
        "boot-exits-2",
        "exits",
        "The same with two processors, of both VPs.",
    ),
    Figure::new("boot-exits-4", "exits", "With four."),
];

/// Bytes.
pub const MEMORY: &[Figure] = &[
    Figure::new(
        "image",
        "bytes",
        "The hypervisor's code, constants and initialised data: what has to be read, checked and trusted.",
    )
    .within(IMAGE_MAX)
    .beside(Peer::Words("Hyper-V: \"under 1 MB\"")),
];

/// Source text.
pub const CODE: &[Figure] = &[
    Figure::new(
        "code-lines",
        "lines",
        "Lines of code that run in the most privileged mode (src/hv, and the crates of src/logic and src/abi linked \
         into it), without blank lines, comments and tests. Fewer lines are fewer places for a fault that no guest \
         can contain.",
    )
    .within(CODE_LINES_MAX)
    .beside(Peer::Words("NOVA 13,993; KVM 76,811; Xen 290,291")),
    Figure::new(
        "unsafe-blocks",
        "blocks",
        "Places where the compiler cannot check memory safety and a person has to. Each states its reason.",
    ),
    Figure::new(
        "unsafe-functions",
        "functions",
        "Functions and trait implementations whose callers or authors promise something that the compiler cannot \
         check.",
    ),
    Figure::new(
        "dependencies",
        "crates",
        "Crates of other authors that are linked into the hypervisor.",
    ),
    Figure::new(
        "dependency-bytes",
        "bytes",
        "Code of these crates in the hypervisor's file, by its symbols. What the compiler copied into functions of \
         ours counts as ours.",
    ),
];
