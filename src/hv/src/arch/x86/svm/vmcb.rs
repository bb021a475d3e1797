//! The virtual machine control block: where its fields lie, and access to them.
//!
//! Source: AMD APM vol. 2 rev. 3.42, appendix B, "Layout of VMCB".
#![expect(unsafe_code, reason = "the owner of VMCB memory")]

use addr::Spa;

use crate::mm::phys;

/// Byte offsets of the fields that are used.
pub mod field {
    #![allow(missing_docs, reason = "named as in the manuals")]
    pub const INTERCEPT_CR: usize = 0x000;
    pub const INTERCEPT_EXCEPTION: usize = 0x008;
    pub const INTERCEPT_1: usize = 0x00C;
    pub const INTERCEPT_2: usize = 0x010;
    pub const PAUSE_WINDOW: usize = 0x03E;
    pub const IOPM_BASE: usize = 0x040;
    pub const MSRPM_BASE: usize = 0x048;
    pub const TSC_OFFSET: usize = 0x050;
    pub const ASID: usize = 0x058;
    pub const TLB_CONTROL: usize = 0x05C;
    pub const VIRTUAL_INTERRUPT: usize = 0x060;
    pub const VIRTUAL_VECTOR: usize = 0x064;
    pub const INTERRUPT_SHADOW: usize = 0x068;
    pub const EXIT_CODE: usize = 0x070;
    pub const EXIT_INFO_1: usize = 0x078;
    pub const EXIT_INFO_2: usize = 0x080;
    pub const EXIT_INT_INFO: usize = 0x088;
    pub const NESTED_PAGING: usize = 0x090;
    pub const EVENT_INJECTION: usize = 0x0A8;
    pub const NESTED_CR3: usize = 0x0B0;
    pub const NEXT_RIP: usize = 0x0C8;
    pub const ES: usize = 0x400;
    pub const CS: usize = 0x410;
    pub const SS: usize = 0x420;
    pub const DS: usize = 0x430;
    pub const FS: usize = 0x440;
    pub const GS: usize = 0x450;
    pub const GDTR: usize = 0x460;
    pub const LDTR: usize = 0x470;
    pub const IDTR: usize = 0x480;
    pub const TR: usize = 0x490;
    pub const CPL: usize = 0x4CB;
    pub const EFER: usize = 0x4D0;
    pub const CR4: usize = 0x548;
    pub const CR3: usize = 0x550;
    pub const CR0: usize = 0x558;
    pub const DR7: usize = 0x560;
    pub const DR6: usize = 0x568;
    pub const RFLAGS: usize = 0x570;
    pub const RIP: usize = 0x578;
    pub const RSP: usize = 0x5D8;
    pub const RAX: usize = 0x5F8;
    pub const STAR: usize = 0x600;
    pub const LSTAR: usize = 0x608;
    pub const CSTAR: usize = 0x610;
    pub const SFMASK: usize = 0x618;
    pub const KERNEL_GS_BASE: usize = 0x620;
    pub const SYSENTER_CS: usize = 0x628;
    pub const SYSENTER_ESP: usize = 0x630;
    pub const SYSENTER_EIP: usize = 0x638;
    pub const CR2: usize = 0x640;
    pub const PAT: usize = 0x668;
    pub const DEBUG_CTL: usize = 0x670;
}

/// Intercepts of [`field::INTERCEPT_1`].
pub mod intercept_1 {
    #![allow(missing_docs, reason = "named as in the manuals")]
    pub const INTR: u32 = 1 << 0;
    pub const NMI: u32 = 1 << 1;
    pub const INIT: u32 = 1 << 3;
    pub const VINTR: u32 = 1 << 4;
    pub const CPUID: u32 = 1 << 18;
    pub const RDPMC: u32 = 1 << 15;
    pub const IRET: u32 = 1 << 20;
    pub const INVD: u32 = 1 << 22;
    pub const PAUSE: u32 = 1 << 23;
    pub const HLT: u32 = 1 << 24;
    pub const INVLPGA: u32 = 1 << 26;
    pub const IO: u32 = 1 << 27;
    pub const MSR: u32 = 1 << 28;
    pub const SHUTDOWN: u32 = 1 << 31;
}

/// Intercepts of [`field::INTERCEPT_2`]: VMRUN, VMMCALL, VMLOAD, VMSAVE, STGI, CLGI, SKINIT; then by name.
pub mod intercept_2 {
    #![allow(missing_docs, reason = "named as in the manuals")]
    pub const SVM_INSTRUCTIONS: u32 = 0x7F;
    pub const WBINVD: u32 = 1 << 9;
    pub const MONITOR: u32 = 1 << 10;
    pub const MWAIT: u32 = 1 << 11;
    pub const MWAIT_ARMED: u32 = 1 << 12;
    pub const XSETBV: u32 = 1 << 13;
}

/// One VMCB: a frame of the hypervisor that nothing else uses.
#[derive(Debug)]
pub struct Vmcb {
    spa: Spa,
    base: *mut u8,
}

// SAFETY: the frame is reached through this value alone, from whichever LP has it.
unsafe impl Send for Vmcb {}

macro_rules! access {
    ($read:ident, $write:ident, $type:ty) => {
        /// Reads a field of this width.
        #[inline(always)]
        pub fn $read(&self, offset: usize) -> $type {
            debug_assert!(offset + size_of::<$type>() <= 4096);
            // SAFETY: `base` is a whole frame that this value owns, and every field lies in it, aligned.
            unsafe { self.base.add(offset).cast::<$type>().read_volatile() }
        }

        /// Writes a field of this width.
        #[inline(always)]
        pub fn $write(&mut self, offset: usize, value: $type) {
            debug_assert!(offset + size_of::<$type>() <= 4096);
            // SAFETY: as for reading; the caller owns the VMCB and no guest runs on it.
            unsafe { self.base.add(offset).cast::<$type>().write_volatile(value) }
        }
    };
}

impl Vmcb {
    /// The VMCB in frame `spa`, zeroed and owned by the caller.
    pub fn new(spa: Spa) -> Self {
        Self {
            spa,
            base: phys::pointer(spa),
        }
    }

    /// Where the processor finds it.
    pub fn spa(&self) -> Spa {
        self.spa
    }

    access!(read_u8, write_u8, u8);
    access!(read_u16, write_u16, u16);
    access!(read_u32, write_u32, u32);
    access!(read_u64, write_u64, u64);

    /// Sets or clears bits of a 32-bit field.
    #[inline(always)]
    pub fn set_bits(&mut self, offset: usize, bits: u32, on: bool) {
        let old = self.read_u32(offset);
        self.write_u32(offset, if on { old | bits } else { old & !bits });
    }
}
