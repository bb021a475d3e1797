//! State of a VP that its control structure and the back end leave in the LP's registers: vector state with XCR0 and
//! PKRU, the addresses of breakpoints, and MSRs that exits do not switch. A switch of VPs moves it.
//!
//! Of the supervisor's components only shadow stacks concern more than one VP of an LP; they are MSRs too, and moved as
//! such. So the area holds user components only, in the compacted format where XSAVEC is there.
//!
//! Source: SDM vol. 1, "Managing State Using the XSAVE Feature Set"; AMD APM vol. 4, "XSAVE" and "FXSAVE".
#![expect(
    unsafe_code,
    reason = "the owner of vector state, and of the areas for it"
)]

use core::arch::asm;

use addr::{PAGE_SIZE, Spa};
use spin::Once;
use vpcore::seam::FrameSource;
use x86::cpuid::leaf1_ecx;

use super::{insn, msr};
use crate::mm::phys;

/// The MSRs, where they exist: XFD, which makes XSAVE leave components out, and its error; XSS; speculation control;
/// TSC_AUX; CPUID faulting; protection keys of the supervisor; shadow stacks but for what VMCS and VMCB hold of them.
const MSRS: [u32; 12] = [
    XFD,
    XFD_ERR,
    0xDA0,
    0x48,
    0xC0000103,
    MISC_FEATURES_ENABLES,
    0x6E1,
    0x6A0,
    0x6A4,
    0x6A5,
    0x6A6,
    0x6A7,
];
const XFD: u32 = 0x1C4;
const XFD_SLOT: usize = 0;
const XFD_ERR: u32 = 0x1C5;
const MISC_FEATURES_ENABLES: u32 = 0x140;
const PLATFORM_INFO: u32 = 0xCE;

/// XCR0 after reset.
const XCR0_AT_RESET: u64 = 1;
/// Offsets in an area, and values after reset.
const FCW: (usize, u16) = (0, 0x37F);
const MXCSR: (usize, u32) = (24, 0x1F80);
const XCOMP_BV: usize = 520;
const IS_COMPACTED: u64 = 1 << 63;
/// End of the legacy region and the header.
const HEADER_END: usize = 576;

/// The instructions that processors have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Method {
    /// FXSAVE.
    Legacy,
    /// XSAVE.
    Standard,
    /// XSAVEC.
    Compacted,
}

/// What the processors of the machine have.
struct Processor {
    method: Method,
    /// Components that XCR0 may enable.
    components: u64,
    /// Bytes of an area for all of them.
    bytes: usize,
    /// Bit n: MSR n of [`MSRS`] exists.
    msrs: u32,
}

/// Whether the MSR `number` exists. That it can be read says little on a machine that answers zero for every number, as
/// emulators do if they are told to; then each switch would carry it along for nothing.
fn exists(number: u32) -> bool {
    const HAS_XFD: u32 = 1 << 4;
    const HAS_CPUID_FAULTING: u64 = 1 << 31;
    let is_announced = match number {
        XFD | XFD_ERR => insn::cpuid(0xD, 1).eax & HAS_XFD != 0,
        MISC_FEATURES_ENABLES => {
            msr::try_read(PLATFORM_INFO).is_ok_and(|info| info & HAS_CPUID_FAULTING != 0)
        }
        _ => true,
    };
    is_announced && msr::try_read(number).is_ok()
}

/// The places of the MSRs that `existing`, a field of [`Processor`], names: few, and every switch of VPs goes through them.
fn slots(mut existing: u32) -> impl Iterator<Item = usize> {
    core::iter::from_fn(move || {
        let slot = existing.trailing_zeros() as usize;
        existing &= existing.wrapping_sub(1);
        (slot < MSRS.len()).then_some(slot)
    })
}

fn processor() -> &'static Processor {
    static PROCESSOR: Once<Processor> = Once::new();
    PROCESSOR.call_once(|| {
        const XSAVEC: u32 = 1 << 1;
        let msrs = MSRS
            .iter()
            .enumerate()
            .map(|(slot, &number)| u32::from(exists(number)) << slot)
            .sum();
        if insn::cpuid(1, 0).ecx & leaf1_ecx::XSAVE == 0 {
            return Processor {
                method: Method::Legacy,
                components: 0b11,
                bytes: HEADER_END,
                msrs,
            };
        }
        let about = insn::cpuid(0xD, 0);
        Processor {
            method: if insn::cpuid(0xD, 1).eax & XSAVEC != 0 {
                Method::Compacted
            } else {
                Method::Standard
            },
            components: u64::from(about.edx) << 32 | u64::from(about.eax),
            // The size is that of the standard format. The compacted one has no gaps, but for alignment.
            bytes: about.ecx as usize + 64 * 64,
            msrs,
        }
    })
}

/// The state of one VP while it is not loaded. Its values mean nothing while it is.
#[derive(Debug)]
pub struct Extended {
    area: Spa,
    len: usize,
    components: u64,
    /// XCR0.
    pub xcr0: u64,
    /// DR0 to DR3.
    pub breakpoints: [u64; 4],
    msrs: [u64; MSRS.len()],
}

impl Extended {
    /// That of a parent's VP, which is loaded, with everything the processor has. `None` when there are no frames.
    pub fn parent(frames: &mut dyn FrameSource) -> Option<Self> {
        let count = processor().bytes.div_ceil(PAGE_SIZE as usize);
        Some(Self::new(frames.frames(count)?, count, u64::MAX))
    }

    /// That of a child's VP as reset leaves it, in a frame that is the caller's alone and stays as long as this value. The
    /// VP may enable the components `offered` in XCR0, where they exist; a page holds them.
    pub fn child(frame: Spa, offered: u64) -> Self {
        Self::new(frame, 1, offered)
    }

    fn new(area: Spa, frames: usize, offered: u64) -> Self {
        let mut this = Self {
            area,
            len: frames * PAGE_SIZE as usize,
            components: offered & processor().components,
            xcr0: 0,
            breakpoints: [0; 4],
            msrs: [0; MSRS.len()],
        };
        this.reset();
        this
    }

    /// The frame of a child's area.
    pub fn frame(&self) -> Spa {
        self.area
    }

    /// Whether the area has the compacted format.
    pub fn is_compacted(&self) -> bool {
        processor().method == Method::Compacted
    }

    /// The area, whose header says which components have another than their initial value.
    pub fn area(&mut self) -> &mut [u8] {
        // SAFETY: the frames are this value's alone, as its makers promise, and no instruction uses them meanwhile.
        unsafe { core::slice::from_raw_parts_mut(phys::pointer(self.area), self.len) }
    }

    /// The MSR `number`, `None` if it is not one of these or does not exist. What is written must be what the register
    /// takes; anything else becomes 0.
    pub fn msr(&mut self, number: u32) -> Option<&mut u64> {
        let slot = MSRS.iter().position(|&msr| msr == number)?;
        (processor().msrs >> slot & 1 != 0).then_some(&mut self.msrs[slot])
    }

    /// Sets everything as after reset, the x87 control word as after FNINIT.
    pub fn reset(&mut self) {
        self.xcr0 = XCR0_AT_RESET;
        self.breakpoints = [0; 4];
        self.msrs = [0; MSRS.len()];
        self.reset_vectors();
    }

    fn reset_vectors(&mut self) {
        let layout = if self.is_compacted() {
            IS_COMPACTED | self.components
        } else {
            0
        };
        let (header, _) = self.area().split_at_mut(HEADER_END);
        header.fill(0);
        header[FCW.0..][..2].copy_from_slice(&FCW.1.to_le_bytes());
        header[MXCSR.0..][..4].copy_from_slice(&MXCSR.1.to_le_bytes());
        header[XCOMP_BV..][..8].copy_from_slice(&layout.to_le_bytes());
    }

    /// Takes the state of the LP, which stays in its registers.
    pub fn save(&mut self) {
        let processor = processor();
        for slot in slots(processor.msrs) {
            self.msrs[slot] = msr::read(MSRS[slot]);
        }
        self.breakpoints = insn::read_breakpoints();
        if processor.method != Method::Legacy {
            self.xcr0 = msr::xgetbv();
        }
        let (low, high) = (self.components as u32, (self.components >> 32) as u32);
        let area = phys::pointer(self.area);
        self.with_all_components(|| {
            // SAFETY: the area is this value's alone, page-aligned, and as large as its components need; CR4.OSXSAVE and
            // CR0.TS are as `captured` set them.
            unsafe {
                asm!(
                    "cmp {method:e}, {standard}",
                    "jb 2f",
                    "je 3f",
                    "xsavec64 [{area}]",
                    "jmp 4f",
                    "2: fxsave64 [{area}]",
                    "jmp 4f",
                    "3: xsave64 [{area}]",
                    "4:",
                    method = in(reg) processor.method as u32,
                    standard = const Method::Standard as u32,
                    area = in(reg) area,
                    in("eax") low,
                    in("edx") high,
                    options(nostack),
                )
            }
        });
    }

    /// Puts the state into the LP. Vector state that the processor refuses becomes that of reset.
    pub fn restore(&mut self) {
        if !self.load_vectors() {
            self.reset_vectors();
            self.load_vectors();
        }
        for slot in slots(processor().msrs) {
            let number = MSRS[slot];
            // SAFETY: nothing of the hypervisor depends on these registers.
            if unsafe { msr::try_write(number, self.msrs[slot]) }.is_err() {
                // SAFETY: as above. What another VP left must not stay.
                unsafe { msr::write(number, 0) };
            }
        }
        insn::write_breakpoints(self.breakpoints);
    }

    /// XRSTOR or FXRSTOR; false if it raised #GP.
    fn load_vectors(&self) -> bool {
        let (low, high) = (self.components as u32, (self.components >> 32) as u32);
        let area = phys::pointer(self.area);
        let is_legacy = u32::from(processor().method == Method::Legacy);
        let mut failed = 0u32;
        self.with_all_components(|| {
            // FNINIT first: AMD's processors leave the x87 pointers of another VP in place where no exception is pending.
            // SAFETY: as in `save`; a #GP goes on at label 5 by the fix-up table, with all registers kept.
            unsafe {
                asm!(
                    "fninit",
                    "test {legacy:e}, {legacy:e}",
                    "jnz 3f",
                    "2: xrstor64 [{area}]",
                    "jmp 4f",
                    "3: fxrstor64 [{area}]",
                    "4:",
                    ".pushsection .text.fixup, \"ax\"",
                    "5: mov {failed:e}, 1",
                    "jmp 4b",
                    ".popsection",
                    ".pushsection .fixup, \"a\"",
                    ".quad 2b, 5b",
                    ".quad 3b, 5b",
                    ".popsection",
                    legacy = in(reg) is_legacy,
                    area = in(reg) area,
                    failed = inout(reg) failed,
                    in("eax") low,
                    in("edx") high,
                    options(nostack),
                )
            }
        });
        failed == 0
    }

    /// Calls `access` while all components of the area are enabled; then XCR0 and XFD are the VP's.
    fn with_all_components(&self, access: impl FnOnce()) {
        let processor = processor();
        if processor.method == Method::Legacy {
            access();
            return;
        }
        let set_xfd = |value| {
            if processor.msrs >> XFD_SLOT & 1 != 0 {
                // SAFETY: the hypervisor uses no vector state.
                let _ = unsafe { msr::try_write(XFD, value) };
            }
        };
        // The components are what the processor offers, or a part of them that is complete; XCR0 was accepted before,
        // or becomes that of reset.
        let _ = msr::try_xsetbv(0, self.components);
        set_xfd(0);
        access();
        if msr::try_xsetbv(0, self.xcr0).is_err() {
            let _ = msr::try_xsetbv(0, XCR0_AT_RESET);
        }
        set_xfd(self.msrs[XFD_SLOT]);
    }
}
