//! The figures that `cargo xtask bench` measures: what each is called, means and may cost.

mod child;

/// Code lines of the privileged part, at most.
pub const CODE_LINES_MAX: u64 = 15_000;
/// Bytes of the hypervisor's image, code and data, at most.
pub const IMAGE_MAX: u64 = 512 * 1024;

/// A number of a peer on each machine, or words where it has no such number.
#[derive(Clone, Copy, Debug)]
pub enum Peer {
    /// KVM on Bochs SVM, and on Bochs VMX.
    Kvm(u64, u64),
    /// As it is.
    Words(&'static str),
    /// Not measured.
    None,
}

/// What belongs together, is run together, and has a section of the page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Group {
    /// Exits that the hypervisor answers itself.
    Exits,
    /// What children cost.
    Children,
    /// Debian's boot in the parent.
    Boot,
    /// A Debian child: its boot, and what the hypervisor keeps for it.
    Child,
    /// A Debian child's requests to its disk.
    Storage,
    /// Bytes.
    Memory,
    /// Source text.
    Code,
}

impl Group {
    /// All, in the order of the page.
    pub const ALL: [Self; 7] = [
        Self::Exits,
        Self::Children,
        Self::Boot,
        Self::Child,
        Self::Storage,
        Self::Memory,
        Self::Code,
    ];

    /// The name that `--only` takes.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Exits => "exits",
            Self::Children => "children",
            Self::Boot => "boot",
            Self::Child => "child",
            Self::Storage => "storage",
            Self::Memory => "memory",
            Self::Code => "code",
        }
    }
}

/// One figure with a name that the page explains.
#[derive(Clone, Copy, Debug)]
pub struct Figure {
    /// Its name, unique.
    pub name: &'static str,
    /// Where it belongs.
    pub group: Group,
    /// Its unit.
    pub unit: &'static str,
    /// The most that it may be.
    pub budget: Option<u64>,
    /// What others take.
    pub peer: Peer,
    /// What it means to a user.
    pub meaning: &'static str,
}

const fn exit(
    name: &'static str,
    budget: Option<u64>,
    peer: Peer,
    meaning: &'static str,
) -> Figure {
    Figure {
        name,
        group: Group::Exits,
        unit: "instructions",
        budget,
        peer,
        meaning,
    }
}

const fn child(
    name: &'static str,
    unit: &'static str,
    budget: Option<u64>,
    peer: Peer,
    meaning: &'static str,
) -> Figure {
    Figure {
        name,
        group: Group::Children,
        unit,
        budget,
        peer,
        meaning,
    }
}

const fn boot(
    name: &'static str,
    unit: &'static str,
    budget: Option<u64>,
    meaning: &'static str,
) -> Figure {
    Figure {
        name,
        group: Group::Boot,
        unit,
        budget,
        peer: Peer::None,
        meaning,
    }
}

const fn code(
    name: &'static str,
    unit: &'static str,
    budget: Option<u64>,
    peer: Peer,
    meaning: &'static str,
) -> Figure {
    Figure {
        name,
        group: Group::Code,
        unit,
        budget,
        peer,
        meaning,
    }
}

/// All figures with a text of their own.
pub fn all() -> impl Iterator<Item = &'static Figure> {
    FIGURES.iter().chain(child::FIGURES)
}

/// The figures with a text of their own. Those that name sections, uses of memory and exit reasons come from what
/// was measured and are listed after them.
const FIGURES: &[Figure] = &[
    exit(
        "cpuid",
        Some(250),
        Peer::Kvm(1_522, 1_366),
        "CPUID of a hypervisor leaf: the shortest way out of the guest and back. Every other exit costs this and \
         its own work.",
    ),
    exit(
        "hypercall",
        Some(250),
        Peer::Kvm(4_331, 4_099),
        "A hypercall with nothing to do, parameters in registers (the fast form). What a guest pays to ask the \
         hypervisor for anything.",
    ),
    exit(
        "hypercall-slow",
        None,
        Peer::None,
        "The same call with its parameters in memory (the slow form): the guest's page is found, checked and copied.",
    ),
    exit(
        "msr-read",
        None,
        Peer::None,
        "RDMSR of the partition reference counter. Guests read it until they have set up the shared page, which costs no \
         exit.",
    ),
    exit(
        "port-read",
        None,
        Peer::Kvm(1_748, 1_577),
        "IN from a port. The parent owns the machine's ports, so only a few of them exit; the port read here \
         (0x80) should cost one instruction.",
    ),
    exit(
        "eoi-xapic",
        None,
        Peer::None,
        "End of an interrupt through the memory-mapped APIC page: the access faults and its instruction is decoded.",
    ),
    exit(
        "eoi-x2apic",
        None,
        Peer::None,
        "End of an interrupt in x2APIC mode, a WRMSR. Every interrupt of the parent pays it once.",
    ),
    exit(
        "self-ipi-xapic",
        None,
        Peer::None,
        "An interrupt to oneself through the APIC page, with its delivery, the guest's handler and its EOI.",
    ),
    exit(
        "self-ipi-x2apic",
        None,
        Peer::None,
        "The same in x2APIC mode.",
    ),
    child(
        "child-cpuid",
        "instructions",
        Some(250),
        Peer::Kvm(1_522, 1_366),
        "CPUID of a child, with the loop that counts.",
    ),
    child(
        "child-msr-read",
        "instructions",
        None,
        Peer::None,
        "RDMSR of the reference counter by a child.",
    ),
    child(
        "child-hypercall",
        "instructions",
        Some(250),
        Peer::Kvm(4_331, 4_099),
        "A hypercall of a child with nothing to do, in registers. The child's own code for it is counted too, some sixty \
         instructions.",
    ),
    child(
        "child-hypercall-unknown",
        "instructions",
        None,
        Peer::None,
        "A call that there is not: what a child pays to be refused.",
    ),
    child(
        "child-intercept-round-trip",
        "instructions",
        None,
        Peer::None,
        "A port access of a child until the parent has its message, the parent's answer by one call, and the child goes \
         on: two switches of VPs, a message, an interrupt, a halt of the parent. What an emulated device costs at least.",
    ),
    child(
        "get-register",
        "instructions",
        None,
        Peer::None,
        "HvCallGetVpRegisters for one register of a VP that is stopped.",
    ),
    child(
        "child-ipi-round-trip",
        "instructions",
        None,
        Peer::None,
        "An interrupt from one VP of a child to another that is halted on the same processor, and one back: two IPIs, two \
         halts, four switches.",
    ),
    child(
        "child-message",
        "instructions",
        None,
        Peer::None,
        "HvCallPostMessage of a child to itself, until the message is in its slot and taken out.",
    ),
    child(
        "child-event-round-trip",
        "instructions",
        None,
        Peer::None,
        "An event signalled to a VP of a child that is halted on the same processor, and one back.",
    ),
    child(
        "frames-partition",
        "frames of 4 KiB",
        None,
        Peer::None,
        "What a child without VPs and memory takes of its pool. One frame of the hypervisor's comes on top.",
    ),
    child(
        "frames-vp",
        "frames of 4 KiB",
        None,
        Peer::None,
        "What each VP takes.",
    ),
    child(
        "frames-first-2MiB",
        "frames of 4 KiB",
        None,
        Peer::None,
        "Second-level tables for the first large page; one frame of the last of them serves a GiB.",
    ),
    boot(
        "boot-init-bare",
        "instructions",
        None,
        "Debian's cloud kernel on the bare machine, from its first line until it starts the first process.",
    ),
    boot(
        "boot-init",
        "instructions",
        None,
        "The same kernel as the parent, above the hypervisor.",
    ),
    boot(
        "boot-init-more",
        "1/1000 more than bare",
        Some(30),
        "How much longer the parent takes than the bare machine. Negative where the kernel skips work because a \
         hypervisor tells it what it would have measured.",
    ),
    boot(
        "boot-test-bare",
        "instructions",
        None,
        "On the bare machine, until user space has loaded its drivers and runs the first test.",
    ),
    boot("boot-test", "instructions", None, "The same in the parent."),
    boot(
        "boot-test-more",
        "1/1000 more than bare",
        Some(30),
        "How much longer the parent takes.",
    ),
    boot(
        "boot-busy-more",
        "1/1000 more than bare",
        Some(30),
        "The same without the time in which the processor slept, waiting for devices: what the parent's boot costs in \
         work.",
    ),
    boot(
        "boot-exits",
        "exits",
        None,
        "Exits of the parent from its start (firmware's part included) to power-off.",
    ),
    Figure {
        name: "image",
        group: Group::Memory,
        unit: "bytes",
        budget: Some(IMAGE_MAX),
        peer: Peer::Words("Hyper-V: \"under 1 MB\""),
        meaning: "The hypervisor's code, constants and initialised data: what has to be read, checked and trusted.",
    },
    code(
        "code-lines",
        "lines",
        Some(CODE_LINES_MAX),
        Peer::Words("NOVA 13,993; KVM 76,811; Xen 290,291"),
        "Lines of code that run in the most privileged mode (src/hv, and the crates of src/logic and src/abi linked into \
         it), without blank lines, comments and tests. Fewer lines are fewer places for a fault that no guest can \
         contain.",
    ),
    code(
        "unsafe-blocks",
        "blocks",
        None,
        Peer::None,
        "Places where the compiler cannot check memory safety and a person has to. Each states its reason.",
    ),
    code(
        "unsafe-functions",
        "functions",
        None,
        Peer::None,
        "Functions and trait implementations whose callers or authors promise something that the compiler cannot check.",
    ),
    code(
        "dependencies",
        "crates",
        None,
        Peer::None,
        "Crates of other authors that are linked into the hypervisor.",
    ),
];
