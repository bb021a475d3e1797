//! Every address, port and MSR that is not the child's.

use machine::platform::Platform;

use super::answered;
use super::bystander::Bystander;
use crate::child::code::STOP;
use crate::child::layout;
use crate::child::runtime::{self, Random, Shared};

/// Reads and writes at addresses that are not the child's. Argument 0: how many; 1: seed; 2: memory of the parent
/// to look at, in bytes.
extern "sysv64" fn every_address(shared: &'static Shared) -> ! {
    let mut random = Random(shared.arg(1));
    let (count, top) = (shared.arg(0), shared.arg(2));
    let mut read = 0;
    for n in 0..count {
        // Half of them in the parent's memory, the rest anywhere below 4 GiB.
        let at = if n % 2 == 0 {
            random.below(top)
        } else {
            random.below(4 << 30)
        } & !7;
        // Its own room, its own programs, and its APIC.
        let own = at < 0x20_0000
            || at >= shared.arg(3) && at < shared.arg(4)
            || at & !0xFFF == 0xFEE0_0000;
        if own {
            continue;
        }
        if runtime::try_read(at) != Some(u64::MAX) {
            read += 1;
        }
        runtime::try_write(at, 0xBAD);
    }
    shared.set(0, read);
    runtime::stop(0)
}

/// Reads and writes from the first gibibyte to the end of the address space.
pub fn addresses(bystander: &Bystander, platform: &Platform, step: u64) {
    let sections = crate::child::image::sections();
    let first = sections.iter().map(|(start, _)| *start).min().unwrap_or(0);
    let last = sections
        .iter()
        .map(|(start, pages)| start + pages * 4096)
        .max()
        .unwrap_or(0);
    let count = 4096 / step;
    let args = [count, 77, platform.top_of_memory.min(4 << 30), first, last];
    answered(bystander, "addresses", every_address, &args, 2 * count + 10);
}

/// Reads and writes all ports.
pub extern "sysv64" fn every_port(shared: &'static Shared) -> ! {
    for port in (0..0x1_0000_u64).step_by(shared.arg(0) as usize) {
        // The end of the program has a port of its own.
        if port as u16 != STOP {
            runtime::try_ports(port as u16);
        }
    }
    runtime::stop(0)
}

/// Reads and writes all MSRs.
pub extern "sysv64" fn every_msr(shared: &'static Shared) -> ! {
    let mut random = Random(shared.arg(0));
    let (mut reads, mut writes) = (0, 0);
    for range in [
        0_u32..0x2000,
        0x4000_0000..0x4000_0200,
        0xC000_0000..0xC000_2000,
        0xC001_0000..0xC001_2000,
    ] {
        for msr in range.step_by(shared.arg(1) as usize) {
            // What would end this program by itself: idling, the APIC's place, GS, EFER, and pages on top of it.
            if matches!(
                msr,
                0x1B | 0x4000_00F0 | 0x4000_0003 | 0xC000_0080 | 0xC000_0101
            ) {
                continue;
            }
            let held = runtime::try_rdmsr(msr);
            reads += u64::from(held.is_some());
            let value = match msr {
                0x4000_0001 | 0x4000_0021 | 0x4000_0073 | 0x4000_0080..=0x4000_0085 => {
                    layout::PAGES | random.below(16) << 12 | random.below(2)
                }
                _ => random.next() >> random.below(64),
            };
            writes += u64::from(runtime::try_wrmsr(msr, value));
            if let Some(held) = held {
                runtime::try_wrmsr(msr, held);
            }
        }
    }
    shared.set(0, reads);
    shared.set(1, writes);
    runtime::stop(0)
}
