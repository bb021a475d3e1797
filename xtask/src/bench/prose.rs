//! The sentences of `docs/benchmarks.md`.

use super::figures::Group;

/// What the page is about, and how it was measured.
pub const INTRODUCTION: &str = "\
Verdigris is a hypervisor: a program that owns the processor and lets operating systems run in *partitions* of it. \
The first partition, the *parent*, is Debian with the machine's own devices. It makes the others, *children*, which have \
virtual processors (VPs), memory that the parent gave, and devices that a program in the parent, the *worker*, plays for them. \
When a partition does something that the hypervisor has to see, the processor leaves it (an *exit*), the hypervisor does its \
work, and the partition goes on. What an exit costs and how many there are decide how much slower a machine is under a \
hypervisor.

We measure on emulated machines, because there a figure means the same on every computer. Bochs runs one instruction \
at a time and, set up as here, its time-stamp counter advances by one for each. So the difference of two readings is \
the number of instructions between them, in the partition and in the hypervisor together. What the figures do not show is what \
real processors add: the switch out of a partition and back takes hundreds of cycles of its own there, and memory has caches.

*AMD* is Bochs with a Ryzen processor and AMD-V, *Intel* is Bochs with a Haswell and VT-x, each with one processor and \
2 GiB, if nothing else is said. **(!)** marks a value above its budget. A *peer* is what others take for the same; where it has \
two numbers, the first is AMD's.
";

/// What was seen when one version was measured twice.
pub const REPEATED: &str = "\
`cargo xtask bench --against FILE` compares two runs. Those of version `a9899b8` had 106 figures in instructions in common, \
of which 100 lay within 0.5 %. The others, and why they cannot:

- `child-make-64` (0.6 %) and `child-unmake-64` (3.5 %): 64 other children have timers, which fall into one measurement and \
not into the next.
- `idle-1` (1.4 %) and `idle-64` (1.0 %): so do the moments at which parent and children wake.
- `child-port` (1.5 %) and `storage-write-32` (1.2 %): two Debian kernels run as well, which place their data at random, and \
their own timers and daemons.

`boot-init-more` and its like are small differences of long times, whose 0.2 % between two runs are 2 thousandths each. On Intel \
`boot-test-more` was 27 in one run and 31 in the next, on AMD 25 and 24.
";

/// Where the peers' figures come from.
pub const PEER: &str = "\
KVM's figures come from the same two machines: Debian's cloud kernel 7.3.4 with its KVM and QEMU 10.0 was the \
hypervisor, and the `vmexit` test of kvm-unit-tests its guest, which times each operation with the time-stamp counter as we do. \
Its hypercall is one with an unknown number, and its port read one that the kernel answers by itself. A port read that QEMU had \
to answer took 5,573 on AMD and 10,081 on Intel. Code lines of other hypervisors were counted beforehand, and maybe by other rules; the devices that \
Linux runs beside KVM are not among them. Microsoft's size is a statement of theirs.

\
The boot of a child under KVM is the same kernel until its first process, with QEMU's q35 machine and a serial console, on an \
emulated AMD processor. Its 4.7 exits for each request are of direct reads of 4 KiB from virtio-blk with an I/O thread, one at \
a time.
";

/// The heading of a section.
pub fn title(group: Group) -> &'static str {
    match group {
        Group::Exits => "Exits that the hypervisor answers",
        Group::Children => "Children",
        Group::Boot => "Debian's boot in the parent",
        Group::Child => "A Debian child",
        Group::Storage => "A child's disk",
        Group::Memory => "Memory",
        Group::Code => "Code",
    }
}

/// What stands below the meanings of a section's figures.
pub fn note(group: Group) -> &'static str {
    match group {
        Group::Exits => {
            "\nEach is the mean of 1,000 in a row, without the cost of measuring, and includes the guest's own \
             instructions: one for CPUID; a call, the hypercall and a return for hypercalls.\n"
        }
        Group::Children => {
            "\nMeans of 1,000 in a row (100 for the timer, 256 and 16 for pages), by tiny guests, on one processor that child and \
             parent share, but for `child-ipi-running`. The parent is a small program too, so that hardly anything is counted but \
             the hypervisor; with Debian in its place see `child-port`. `child-cpuid` has three instructions of its loop in it, \
             `child-hypercall` some ten.\n\nMapping a large page costs what it does because each of its 512 frames has an owner \
             and a count of uses, which are checked and changed one by one; unmaking does so again. It is done once in a child's \
             life. The tables of a child grow by a frame for each GiB that is mapped in large pages, and by one for each 2 MiB that \
             is mapped in small ones. A timer is late by the way out of the processor's sleep: the physical interrupt, the choice \
             of who runs, the synthetic timer's message or interrupt, the entry.\n"
        }
        Group::Boot => {
            "\nTimes are ticks of the time-stamp counter since the kernel's first line. The counter also runs while the \
             processor sleeps, which `boot-busy-more` takes off. The rows `boot exit.NAME` are exits by reason, from the \
             hypervisor's own counters; the rows after them tell what some of these were about. `docs/diagnostics.md` \
             explains the names.\n\nThe clock is most of the difference. `cargo xtask profile boot` shows where the instructions of such \
             an exit go: while the kernel works, its timer interrupts it 1,600 times in each second, 1,000 of them ticks and the \
             others ends of the scheduler's slices of 0.7 ms. Each is two exits, the interrupt and the write of the next deadline, \
             of 1,880 instructions together, spread over some thirty functions; its end mostly costs no exit, which the assist \
             page is for. The emulated processor runs 100 million instructions per second, so that this is 3.0 % of what it \
             does. On a processor that runs thirty times as many it is a thirtieth of that. The remainder is the kernel's own: \
             its longer way through an interrupt of a synthetic timer, and the connection to VMBus with its nine devices, which \
             the bare machine does not have. With two and four processors Bochs' time does not stand for instructions, so that \
             exits are counted there, and no time. Debian boots with `quiet` on both, or the waits for the serial port would count the \
             characters of the kernel's messages.\n"
        }
        Group::Child => {
            "\nDebian makes the child in the parent, with `vmctl`; both share the machine's one processor, or two on QEMU. The rows \
             `child-boot exit.NAME` are exits by reason until the first program, from `vgstat children`. Here *AMD* is QEMU, \
             whose clock is the host's: it counts no instructions, and the more time its host leaves it, the fewer timer \
             interrupts there are in a figure. Accesses to ports are most of a boot that prints; the kernel makes two for each \
             character on its serial console. `child-port` is the mean of all accesses while a program of the child reads its \
             real-time clock, and has the child's own instructions in it.\n"
        }
        Group::Storage => {
            "\nfio in the child, random requests with `O_DIRECT`, one processor for child and parent together, or two on QEMU. The \
             image lies in the parent's memory, so that no device has a part in the figures. Each figure is the difference of a \
             run of 2,200 requests and one of 200. At depth 1 the worker sleeps between requests; at depth 32, with a processor of \
             its own (QEMU), it mostly finds the next one by looking (it *polls*), and signals are rare. On one processor (Bochs) it \
             is done with a request before the child goes on to the next, and depth changes nothing. Its system calls for a request at depth 1: `poll`, `read` of \
             the doorbell and `futex`, and of a thread of its pool `futex`, `pread` or `pwrite` of the image and `write`, the \
             signal to the child. The \
             rows `NAME.child REASON` and `NAME.parent REASON` say what the exits were and which interrupts came; `exit.wrmsr` of \
             the parent are ends of interrupts and its timer, set anew with each sleep. Here *AMD* is QEMU, whose clock is the \
             host's: timer interrupts are as many as the host is slow.\n"
        }
        Group::Memory => {
            "- **section NAME**: the parts of the hypervisor's file that are in memory; *zeroed* ones take no room in the \
             file.\n- **memory-block**: what the hypervisor keeps from the parent for good. **memory-image** is its file in \
             memory; **memory-free** is the part of the block that nothing uses yet; the other rows say what uses the \
             rest.\n"
        }
        Group::Code => {
            "- **code PATH**: the lines of one crate.\n\nThe budget was the size of NOVA, which leaves to programs outside what \
             this interface has inside: the VMBus server, the channels to the parent's programs with their rings, ports, \
             messages and synthetic timers, the registers of VPs by name, and state that can be saved. Those crates and \
             their part of `src/hv` are nearly half of the lines. Both vendors are in every build. Text is laid out by `rustfmt`, \
             which gives a call with many arguments a line for each.\n"
        }
    }
}
