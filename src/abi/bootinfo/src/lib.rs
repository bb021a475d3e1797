//! The record that the loader hands to the hypervisor at launch, and the calls that pass it.
//!
//! All of it lies in the hypervisor's block, is written by the loader before the first call and read by
//! the hypervisor only. Every structure is `repr(C)`; addresses are system physical unless they say otherwise.
#![no_std]
#![forbid(unsafe_code)]

use addr::Spa;

/// First field of [`BootInfo`]: "VERDIGRI" in ASCII, little-endian.
pub const MAGIC: u64 = u64::from_le_bytes(*b"VERDIGRI");

/// Changes whenever a structure of this crate does. A hypervisor refuses every other version.
pub const VERSION: u32 = 1;

/// Virtual address at which the hypervisor image is linked and mapped. `linker.ld` repeats it.
pub const IMAGE_BASE: u64 = 0xFFFF_FFFF_8000_0000;

/// Virtual address at which system physical address 0 is mapped, in both paging depths. The mapping covers
/// all memory of the firmware's memory map, is readable and writable, never executable, and leaves out the
/// hypervisor's image.
pub const PHYS_MAP_BASE: u64 = 0xFFFF_8000_0000_0000;

/// Virtual addresses from here on are the hypervisor's to map: per-LP stacks with their guard pages, devices.
pub const LP_AREA_BASE: u64 = 0xFFFF_FF00_0000_0000;

/// Alignment, in bytes, of the hypervisor's block.
pub const BLOCK_ALIGN: u64 = 2 << 20;

/// A range of system physical memory in bytes. Empty when `len` is 0.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct SpaRange {
    /// First byte.
    pub start: Spa,
    /// Length in bytes.
    pub len: u64,
}

impl SpaRange {
    /// The address after the last byte. Saturates.
    pub const fn end(&self) -> Spa {
        Spa::new(self.start.get().saturating_add(self.len))
    }

    /// Whether `spa` lies in the range.
    pub const fn contains(&self, spa: Spa) -> bool {
        spa.get() >= self.start.get() && spa.get() - self.start.get() < self.len
    }
}

/// One logical processor that the loader will launch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct LpInfo {
    /// Identifier of its local APIC.
    pub apic_id: u32,
    /// 1 on the boot processor, else 0.
    pub is_bsp: u32,
}

/// Where the hypervisor writes its log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Console {
    /// First I/O port of a 16550 that the hypervisor owns, 0 for none.
    pub port: u16,
    /// Divisor latch value, 1 for 115,200 baud.
    pub divisor: u16,
    /// Most verbose level that is written: 0 off, 1 error, 2 warn, 3 info, 4 debug, 5 trace.
    pub level: u32,
}

/// What the hypervisor does after a panic record is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(transparent)]
pub struct PanicAction(pub u32);

impl PanicAction {
    /// Stay, all LPs halted.
    pub const HALT: Self = Self(0);
    /// Reset the machine through [`AcpiPower::reset`], port 0xCF9 or a triple fault.
    pub const RESET: Self = Self(1);
}

/// A register of the ACPI fixed hardware.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct AcpiRegister {
    /// 0 none, 1 I/O port, 2 memory.
    pub space: u32,
    /// Width in bits.
    pub width: u32,
    /// Port or system physical address.
    pub address: u64,
}

impl AcpiRegister {
    /// [`AcpiRegister::space`] of an I/O port.
    pub const IO: u32 = 1;
    /// [`AcpiRegister::space`] of a memory register.
    pub const MEMORY: u32 = 2;
}

/// What the hypervisor must know of the machine's power management.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct AcpiPower {
    /// PM1a control register block.
    pub pm1a_control: AcpiRegister,
    /// PM1b control register block.
    pub pm1b_control: AcpiRegister,
    /// Processor block's P_LVL2 port, and P_LVL3 one above it; 0 when there is none.
    pub p_lvl2_port: u32,
    /// SLP_TYPa of `\_S5_` in bits 7:0, SLP_TYPb in bits 15:8; 0xFFFF when the machine has no `\_S5_`.
    pub s5_types: u32,
    /// The FADT's reset register.
    pub reset: AcpiRegister,
    /// The value that resets the machine.
    pub reset_value: u32,
    /// Padding, 0.
    pub reserved: u32,
}

/// The PCI configuration window that the hypervisor emulates where firmware offers none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct EcamShim {
    /// First address of bus 0's window, aligned to 1 MiB, backed by nothing; 0 when there is no shim.
    pub base: Spa,
    /// Last bus covered; the window is `(last_bus + 1)` MiB long.
    pub last_bus: u32,
    /// Padding, 0.
    pub reserved: u32,
}

/// Entries of [`BootInfo::memory`].
pub const MEMORY_RANGES: usize = 128;

/// The record. Lies in the block, 4 KiB aligned, mapped at its place in the physical map.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct BootInfo {
    /// [`MAGIC`].
    pub magic: u64,
    /// [`VERSION`].
    pub version: u32,
    /// Size of this structure in bytes.
    pub size: u32,
    /// The hypervisor's reserved memory: image, tables, this record and everything it will ever allocate.
    pub block: SpaRange,
    /// Part of `block` that holds the image.
    pub image: SpaRange,
    /// Part of `block` that nothing uses yet. The loader sizes the block so that PREPARE can take the frame table
    /// out of it: two bytes for each 4 KiB below `phys_map_end`.
    pub free: SpaRange,
    /// Root of the page tables that the loader built: image with W^X, physical map, trampoline.
    pub root_table: Spa,
    /// Depth of paging: 4 or 5, as the firmware's CR4.LA57 has it.
    pub levels: u32,
    /// Number of valid entries at `lps`.
    pub lp_count: u32,
    /// Array of [`LpInfo`], one per LP; the index is the LP index, and 0 is the boot processor.
    pub lps: Spa,
    /// Virtual address of the trampoline page, identical in the firmware's tables and in `root_table`.
    pub trampoline: u64,
    /// End of the physical map: the first address above all memory, in bytes.
    pub phys_map_end: u64,
    /// Frequency of the time-stamp counter in Hz, measured against the ACPI PM timer or told by CPUID.
    pub tsc_hz: u64,
    /// Frequency of the local APIC timer before its divider, in Hz.
    pub apic_hz: u64,
    /// Console of the hypervisor.
    pub console: Console,
    /// What to do after a panic.
    pub panic_action: PanicAction,
    /// Number of valid entries of `memory`.
    pub memory_count: u32,
    /// Power management registers.
    pub power: AcpiPower,
    /// PCI configuration window to emulate.
    pub ecam: EcamShim,
    /// Part of `block` that the parent may read: see `docs/diagnostics.md`. The loader chooses it (2 MiB
    /// aligned when it can) and names it in the ACPI table `VDGS`.
    pub diagnostics: SpaRange,
    /// All RAM of the machine by the firmware's memory map, sorted, merged, the block included.
    pub memory: [SpaRange; MEMORY_RANGES],
}

/// Calls that the loader makes through the hypervisor's entry point.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(transparent)]
pub struct Operation(pub u32);

impl Operation {
    /// On the boot processor, once, before any launch: prepare everything that can fail.
    pub const PREPARE: Self = Self(0);
    /// On each LP: launch it. On success control comes back *as a guest* at [`LaunchCall::guest_rip`] with
    /// RSP = [`LaunchCall::guest_rsp`] and RAX = 0; on failure the entry point returns a status and the LP is as
    /// it was.
    pub const LAUNCH: Self = Self(1);
}

/// Argument of the entry point. Built by the trampoline on the stack it switched to, so it is mapped in the
/// hypervisor's tables.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct LaunchCall {
    /// What to do.
    pub operation: Operation,
    /// Index of the LP that calls.
    pub lp: u32,
    /// System physical address of [`BootInfo`].
    pub boot_info: Spa,
    /// RSP of the guest after the launch, a virtual address of the firmware's tables.
    pub guest_rsp: u64,
    /// RIP of the guest after the launch.
    pub guest_rip: u64,
    /// RFLAGS of the guest after the launch.
    pub guest_rflags: u64,
    /// CR3 of the guest: the firmware's tables.
    pub guest_cr3: u64,
}

/// What the entry point returns in RAX. The loader prints [`Status::message`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(transparent)]
pub struct Status(pub u64);

impl Status {
    /// Done.
    pub const SUCCESS: Self = Self(0);
    /// Magic, version or size of the record is not ours.
    pub const BAD_BOOT_INFO: Self = Self(1);
    /// The block is too small for this machine.
    pub const NO_MEMORY: Self = Self(2);
    /// The processor has neither VT-x nor AMD-V.
    pub const NO_VIRTUALIZATION: Self = Self(3);
    /// The processor lacks nested paging (EPT with unrestricted guest, or NPT) or another feature we need.
    pub const MISSING_FEATURE: Self = Self(4);
    /// Firmware locked the feature off.
    pub const LOCKED: Self = Self(5);
    /// The instruction that switches the extension on failed.
    pub const ENABLE_FAILED: Self = Self(6);
    /// The first entry into the guest was refused.
    pub const ENTRY_FAILED: Self = Self(7);

    /// One line for the person at the screen.
    pub const fn message(self) -> &'static str {
        match self {
            Self::SUCCESS => "done",
            Self::BAD_BOOT_INFO => "loader and hypervisor are of different versions",
            Self::NO_MEMORY => {
                "the hypervisor's memory reserve is too small for this machine; raise hypervisor.memory_reserve_mib"
            }
            Self::NO_VIRTUALIZATION => "the processor has neither Intel VT-x nor AMD-V",
            Self::MISSING_FEATURE => {
                "the processor lacks nested paging (EPT with unrestricted guest, or NPT)"
            }
            Self::LOCKED => {
                "virtualization is switched off and locked by the firmware; enable it in the firmware's set-up"
            }
            Self::ENABLE_FAILED => "the processor refused to switch virtualization on",
            Self::ENTRY_FAILED => "the processor refused the first guest entry",
            _ => "unknown status",
        }
    }
}

/// The hypervisor's entry point, the ELF entry. Called on the LP's bootstrap stack, interrupts off, on
/// [`BootInfo::root_table`], with the address of a [`LaunchCall`] in RDI.
pub type Entry = extern "sysv64" fn(*const LaunchCall) -> Status;

const _: () = assert!(core::mem::size_of::<SpaRange>() == 16);
const _: () = assert!(core::mem::size_of::<LpInfo>() == 8);
const _: () = assert!(core::mem::size_of::<LaunchCall>() == 48);
const _: () = assert!(core::mem::offset_of!(LaunchCall, guest_rsp) == 16);
const _: () = assert!(core::mem::size_of::<BootInfo>() <= 4096);
