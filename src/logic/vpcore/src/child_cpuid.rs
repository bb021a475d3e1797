//! What a child sees of the processor's own CPUID leaves.
//!
//! What the parent sees ([`crate::cpuid`]), less what a partition that comes and goes cannot have, less what its creator
//! switched off; with a topology of its own: one thread per core, APIC ids that are VP indexes. On top of it what
//! HvCallRegisterInterceptResult said, and last what depends on the guest's own registers.
//!
//! Sources: SDM vol. 2, "CPUID—CPU Identification"; AMD APM vol. 3, appendix "Obtaining Processor Information Via the
//! CPUID Instruction"; TLFS, "Partition Properties" (processor features).

use addr::VpIndex;
use tlfs::call::{RegisterCpuidResult, VP_ANY};
use x86::cpuid::{CpuidResult, leaf1_ecx, leaf1_edx};
use x86::cr4;

use crate::cpuid::{Missing, View, is_hypervisor_leaf, parent};

mod switches;

use switches::SWITCHES;

/// XSAVE components that a child can have: x87, SSE, AVX, AVX-512, PKRU. Together they fit into a page in either
/// format, and no content of theirs makes XRSTOR fault.
pub const STATE_COMPONENTS: u64 = 0b10_1110_0111;
const AVX: u64 = 1 << 2;
const AVX_512: u64 = 0b1110_0000;
const PKRU: u64 = 1 << 9;

/// Highest leaves that a child sees.
const LAST: u32 = 0x16;
const LAST_EXTENDED: u32 = 0x8000_0021;

/// What a VP's CPUID depends on, beside the processor.
#[derive(Clone, Copy, Debug)]
pub struct ChildView<'a> {
    /// The VP, whose APIC id is the same number.
    pub vp: VpIndex,
    /// VPs to a socket, partition property 0x50003; 0 counts as 1. Rounded up to a power of two, so that sockets are
    /// ranges of APIC ids.
    pub per_socket: u32,
    /// Processor features that are switched off: banks 0 and 1, and XSAVE features, as HvCallCreatePartition has them.
    pub disabled: [u64; 3],
    /// x2APIC mode is offered.
    pub x2apic: bool,
    /// The APIC timer has the TSC-deadline mode.
    pub tsc_deadline: bool,
    /// IA32_APIC_BASE has the APIC switched on.
    pub apic_enabled: bool,
    /// CR4 as the guest sees it.
    pub cr4: u64,
    /// XCR0.
    pub xcr0: u64,
    /// What the back end does not pass on.
    pub missing: Missing,
    /// Width of a guest physical address in bits; 0 for the processor's.
    pub physical_bits: u8,
    /// The hypervisor bit shows (synthetic feature bit 0).
    pub hypervisor_present: bool,
    /// What HvCallRegisterInterceptResult registered, the latest last.
    pub overrides: &'a [RegisterCpuidResult],
}

fn registers(r: &CpuidResult) -> [u32; 4] {
    [r.eax, r.ebx, r.ecx, r.edx]
}

fn result([eax, ebx, ecx, edx]: [u32; 4]) -> CpuidResult {
    CpuidResult { eax, ebx, ecx, edx }
}

/// The processor features that a child can have: partition properties 0x6000A (banks 0 and 1) and 0x60002. Given
/// `view` of a partition, those that it has.
pub fn features(host: impl Fn(u32, u32) -> CpuidResult, view: &ChildView<'_>) -> [u64; 3] {
    let mut banks = [0; 3];
    for row in &SWITCHES {
        let shown = registers(&before_overrides(row.leaf, row.subleaf, &host, view));
        let bits = shown.get(row.register).copied().unwrap_or(0);
        for (bit, feature) in (0_u32..).zip(row.features) {
            if bits >> bit & 1 != 0
                && let Some(bank) = banks.get_mut(usize::from(feature >> 6))
            {
                *bank |= 1 << (feature & 63);
            }
        }
    }
    banks
}

/// The answer to CPUID `leaf` and `subleaf` in the VP of `view`. `host` executes CPUID on an LP. Leaves of the
/// hypervisor (0x40000000 on) are those of `host`, overrides included.
pub fn child(
    leaf: u32,
    subleaf: u32,
    host: impl Fn(u32, u32) -> CpuidResult,
    view: &ChildView<'_>,
) -> CpuidResult {
    let mut shown = registers(&before_overrides(leaf, subleaf, &host, view));
    let vp = |o: &RegisterCpuidResult| o.vp == VP_ANY || o.vp == view.vp;
    for o in view.overrides.iter().filter(|o| vp(o) && o.leaf == leaf) {
        if !o.is_subleaf_specific || o.subleaf == subleaf {
            for (register, [value, mask]) in shown.iter_mut().zip(o.registers) {
                *register = *register & !mask | value & mask;
            }
        }
    }
    let mut r = result(shown);
    dynamic(leaf, subleaf, &mut r, &host, view);
    r
}

/// The same without overrides: what the hardware bears out.
pub fn before_overrides(
    leaf: u32,
    subleaf: u32,
    host: &impl Fn(u32, u32) -> CpuidResult,
    view: &ChildView<'_>,
) -> CpuidResult {
    if is_hypervisor_leaf(leaf) {
        return host(leaf, subleaf);
    }
    let last = if leaf >> 31 == 0 {
        host(0, 0).eax.min(LAST)
    } else {
        host(0x8000_0000, 0).eax.min(LAST_EXTENDED)
    };
    if leaf > last {
        return CpuidResult::default();
    }
    let parents = View {
        cr4: view.cr4,
        apic_enabled: view.apic_enabled,
        missing: view.missing,
    };
    let mut r = parent(leaf, subleaf, host(leaf, subleaf), &parents);
    hide(leaf, subleaf, &mut r, view);
    let mut shown = registers(&r);
    for row in SWITCHES
        .iter()
        .filter(|row| (row.leaf, row.subleaf) == (leaf, subleaf))
    {
        if let Some(register) = shown.get_mut(row.register) {
            for (bit, feature) in (0_u32..).zip(row.features) {
                let bank = view
                    .disabled
                    .get(usize::from(feature >> 6))
                    .copied()
                    .unwrap_or(0);
                *register &= !(((bank >> (feature & 63)) as u32 & 1) << bit);
            }
        }
    }
    let mut r = result(shown);
    match leaf {
        0 | 0x8000_0000 => r.eax = last,
        0xD => extended_state(subleaf, &mut r, host, view),
        _ => topology(leaf, subleaf, &mut r, view),
    }
    dynamic(leaf, subleaf, &mut r, host, view);
    r
}

/// Takes away what the parent has and a child has not.
fn hide(leaf: u32, subleaf: u32, r: &mut CpuidResult, view: &ChildView<'_>) {
    let keep_if = |bits: &mut u32, bit: u32, keep: bool| {
        if !keep {
            *bits &= !bit;
        }
    };
    match (leaf, subleaf) {
        (1, _) => {
            const EDX_ACPI: u32 = 1 << 22;
            const EDX_TM: u32 = 1 << 29;
            const EDX_PBE: u32 = 1 << 31;
            r.ecx &= !(leaf1_ecx::EIST | leaf1_ecx::TM2);
            r.edx &= !(EDX_ACPI | EDX_TM | EDX_PBE);
            // Emulated by the virtual APIC, whatever the processor's has.
            r.ecx |= leaf1_ecx::X2APIC | leaf1_ecx::TSC_DEADLINE;
            keep_if(&mut r.ecx, leaf1_ecx::X2APIC, view.x2apic);
            keep_if(&mut r.ecx, leaf1_ecx::TSC_DEADLINE, view.tsc_deadline);
            keep_if(&mut r.ecx, leaf1_ecx::HYPERVISOR, view.hypervisor_present);
        }
        (7, 0) => {
            // SGX, MPX, cache monitoring and allocation.
            r.ebx &= !(1 << 2 | 1 << 12 | 1 << 14 | 1 << 15);
            // WAITPKG waits for as long as a guest likes; CET, PKS and the key locker have state that is not switched;
            // TME, bus locks, ENQCMD, SGX.
            r.ecx &= !(1 << 5 | 1 << 7 | 1 << 13 | 1 << 23 | 1 << 24 | 1 << 29 | 1 << 30 | 1 << 31);
            // SRBDS control, RTM aborts, hybrid parts, PCONFIG, branch records, IBT, AMX, core capabilities; the flush
            // of L1 belongs to the hypervisor.
            r.edx &= !(1 << 9 | 1 << 11 | 1 << 13 | 1 << 15 | 1 << 18 | 1 << 19 | 1 << 20);
            r.edx &= !(1 << 22 | 1 << 24 | 1 << 25 | 1 << 28 | 1 << 30);
        }
        // LASS, AMX, linear address masking; CET for supervisors, AVX10, APX.
        (7, 1) => {
            r.eax &= !(1 << 6 | 1 << 8 | 1 << 21 | 1 << 26);
            r.edx &= !(1 << 18 | 1 << 19 | 1 << 21);
        }
        (7, 2) => {}
        // More of leaf 7; waiting, thermal and power; direct cache access; performance counters; cache monitoring and
        // allocation; SGX; processor trace; clocks that are not the virtual APIC's; system on chip data.
        (5 | 6 | 7 | 9 | 0xA | 0xF..=0x17, _) => *r = CpuidResult::default(),
        (0x8000_0001, _) => {
            // OS-visible workarounds, watchdog, node MSR, trace of branches, extended breakpoints.
            r.ecx &= !(1 << 9 | 1 << 13 | 1 << 19 | 1 << 26);
        }
        (0x8000_0007, _) => {
            const INVARIANT_TSC: u32 = 1 << 8;
            *r = CpuidResult {
                edx: r.edx & INVARIANT_TSC,
                ..CpuidResult::default()
            };
        }
        // Instructions retired as a counter, memory bandwidth, RDPRU, LBR, virtual SSBD.
        (0x8000_0008, _) => {
            r.ebx &= !(1 << 1 | 1 << 4 | 1 << 6 | 1 << 25);
            if view.physical_bits != 0 {
                r.eax = r.eax & !0xFF | u32::from(view.physical_bits);
            }
        }
        (0x8000_0020, _) => *r = CpuidResult::default(),
        _ => {}
    }
}

/// The components of XCR0 that the child can switch on.
fn components(host: &impl Fn(u32, u32) -> CpuidResult, view: &ChildView<'_>) -> u64 {
    const NO_AVX: u64 = 1 << 2;
    const NO_AVX_512: u64 = 1 << 6;
    let r = host(0xD, 0);
    let mut all = (u64::from(r.eax) | u64::from(r.edx) << 32) & STATE_COMPONENTS;
    let disabled = view.disabled.get(2).copied().unwrap_or(0);
    if disabled & 1 != 0 {
        return 0;
    }
    if disabled & NO_AVX != 0 {
        all &= !(AVX | AVX_512);
    }
    if disabled & NO_AVX_512 != 0 || all & AVX == 0 {
        all &= !AVX_512;
    }
    if host(7, 0).ecx & 1 << 3 == 0 {
        all &= !PKRU;
    }
    all
}

/// Leaf 0xD: no supervisor state, and only the components that there are.
fn extended_state(
    subleaf: u32,
    r: &mut CpuidResult,
    host: &impl Fn(u32, u32) -> CpuidResult,
    view: &ChildView<'_>,
) {
    let all = components(host, view);
    match subleaf {
        0 => {
            r.eax = all as u32;
            r.ecx = standard_bytes(all, host);
            r.edx = (all >> 32) as u32;
        }
        1 => {
            const OFFERED: u32 = 0xF;
            *r = CpuidResult {
                eax: if all == 0 { 0 } else { r.eax & OFFERED },
                ..CpuidResult::default()
            };
        }
        2..64 if all >> subleaf & 1 != 0 => {}
        _ => *r = CpuidResult::default(),
    }
}

/// Bytes of an XSAVE area for `components` in the standard format.
fn standard_bytes(components: u64, host: &impl Fn(u32, u32) -> CpuidResult) -> u32 {
    (2..64).filter(|index| components >> index & 1 != 0).fold(
        if components == 0 { 0 } else { 576 },
        |end, index| {
            let leaf = host(0xD, index);
            end.max(leaf.eax.saturating_add(leaf.ebx))
        },
    )
}

/// Bytes of an XSAVE area for `components` in the compacted format.
fn compacted_bytes(components: u64, host: &impl Fn(u32, u32) -> CpuidResult) -> u32 {
    (2..64)
        .filter(|index| components >> index & 1 != 0)
        .fold(576, |end: u32, index| {
            let leaf = host(0xD, index);
            let start = if leaf.ecx & 2 != 0 {
                end.saturating_add(63) & !63
            } else {
                end
            };
            start.saturating_add(leaf.eax)
        })
}

/// One thread per core, `per_socket` cores to a package.
fn topology(leaf: u32, subleaf: u32, r: &mut CpuidResult, view: &ChildView<'_>) {
    let cores = view.per_socket.clamp(1, 1 << 15).next_power_of_two();
    let (shift, id) = (cores.trailing_zeros(), view.vp.get());
    match leaf {
        1 => {
            const HTT: u32 = 1 << 28;
            r.ebx = r.ebx & 0xFFFF | cores.min(255) << 16 | (id & 0xFF) << 24;
            r.edx = if cores > 1 { r.edx | HTT } else { r.edx & !HTT };
        }
        // Caches: the third level is the package's, the others are a core's.
        4 | 0x8000_001D if r.eax & 0x1F != 0 => {
            let sharing = if r.eax >> 5 & 7 >= 3 { cores } else { 1 };
            let low = r.eax & 0x3FFF | (sharing - 1).min(0xFFF) << 14;
            r.eax = if leaf == 4 {
                low | (cores - 1).min(63) << 26
            } else {
                low
            };
        }
        0xB => {
            let (to_next, count, kind) = match subleaf {
                0 => (0, 1, 1),
                1 => (shift, cores, 2),
                _ => (0, 0, 0),
            };
            *r = CpuidResult {
                eax: to_next,
                ebx: count,
                ecx: kind << 8 | subleaf & 0xFF,
                edx: id,
            };
        }
        // CMP_LEGACY: the count of leaf 1 is one of cores.
        0x8000_0001 => r.ecx = r.ecx & !2 | u32::from(cores > 1 && r.ecx & 1 << 22 != 0) << 1,
        // AMD; Intel's is zero.
        0x8000_0008 if r.ecx != 0 => r.ecx = (cores - 1).min(0xFF) | shift << 12,
        0x8000_001E => {
            *r = CpuidResult {
                eax: id,
                ebx: id & (cores - 1) & 0xFF,
                ecx: id >> (shift & 31) & 0xFF,
                edx: 0,
            };
        }
        _ => {}
    }
}

/// What follows the guest's own registers, whatever was registered.
fn dynamic(
    leaf: u32,
    subleaf: u32,
    r: &mut CpuidResult,
    host: &impl Fn(u32, u32) -> CpuidResult,
    view: &ChildView<'_>,
) {
    let follow = |bits: &mut u32, bit: u32, is_on: bool| {
        *bits = if is_on { *bits | bit } else { *bits & !bit };
    };
    match (leaf, subleaf) {
        (1, _) => {
            let has_xsave = r.ecx & leaf1_ecx::XSAVE != 0;
            follow(
                &mut r.ecx,
                leaf1_ecx::OSXSAVE,
                has_xsave && view.cr4 & cr4::OSXSAVE != 0,
            );
            follow(&mut r.edx, leaf1_edx::APIC, view.apic_enabled);
        }
        (7, 0) => {
            let has_pku = r.ecx & 1 << 3 != 0;
            follow(&mut r.ecx, 1 << 4, has_pku && view.cr4 & cr4::PKE != 0);
        }
        (0xD, 0) => r.ebx = standard_bytes(view.xcr0 & components(host, view), host),
        (0xD, 1) if r.eax & 0b1010 != 0 => {
            r.ebx = compacted_bytes(view.xcr0 & components(host, view), host);
        }
        _ => {}
    }
}

#[cfg(test)]
#[path = "child_cpuid/tests.rs"]
mod tests;
