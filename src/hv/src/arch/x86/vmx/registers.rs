//! Registers beside the general ones: in the VMCS, in a shadow, or in the LP itself.

use addr::Gpa;
use vpcore::seam::{Exit, Register, Role, SlatFault};
use x86::{cr0, cr4, efer, msr as index, rflags};

use super::control::{CR0_OWNED, CR4_OWNED};
use super::fields::{Field, entry, interruptibility};
use super::{VmxVp, pending};
use crate::arch::x86::{insn, msr};
use crate::mm::phys;

/// Address bits of CR3 in PAE paging: the page-directory pointers are 32-byte aligned below 4 GiB.
const PAE_POINTERS: u64 = 0xFFFF_FFE0;
/// Bits of [`Register::InterruptState`].
const SHADOW: u64 = 1 << 0;
const NMI_BLOCKED: u64 = 1 << 1;

/// MSRs of the guest that an entry does not load.
const LIVE_MSRS: [u32; 5] = [
    index::KERNEL_GS_BASE,
    index::STAR,
    index::LSTAR,
    index::CSTAR,
    index::SFMASK,
];
/// Places of CR2 and DR6 in [`Live`], behind those of [`LIVE_MSRS`].
const CR2: usize = 5;
const DR6: usize = 6;

/// Registers of the guest that the VMCS does not hold: their values while the VP is not loaded.
pub(super) type Live = [u64; 7];

/// What the LP holds in place `slot`.
#[inline]
fn read_live(slot: usize) -> u64 {
    match slot {
        CR2 => insn::read_cr2(),
        DR6 => insn::read_dr6(),
        _ => LIVE_MSRS.get(slot).map_or(0, |&number| msr::read(number)),
    }
}

impl VmxVp {
    #[inline(always)]
    pub(super) fn get_register(&self, register: Register) -> u64 {
        match register {
            Register::Rip => self.vmcs.read(Field::GUEST_RIP),
            Register::Rflags => self.vmcs.read(Field::GUEST_RFLAGS),
            Register::Cr0 => self.shadowed(Field::GUEST_CR0, Field::CR0_SHADOW, CR0_OWNED),
            Register::Cr4 => self.shadowed(Field::GUEST_CR4, Field::CR4_SHADOW, CR4_OWNED),
            Register::KernelGsBase => self.live(0),
            Register::Star => self.live(1),
            Register::Lstar => self.live(2),
            Register::Cstar => self.live(3),
            Register::Sfmask => self.live(4),
            Register::Cr2 => self.live(CR2),
            Register::Dr6 => self.live(DR6),
            Register::Cr3 => self.vmcs.read(Field::GUEST_CR3),
            Register::Efer => self.vmcs.read(Field::GUEST_EFER),
            Register::Dr7 => self.vmcs.read(Field::GUEST_DR7),
            Register::Pat if self.role == Role::Child => self.pat,
            Register::Pat => self.vmcs.read(Field::GUEST_PAT),
            Register::InterruptState => {
                let state = self.vmcs.read32(Field::INTERRUPTIBILITY);
                u64::from(state & interruptibility::SHADOW != 0)
                    | u64::from(state & interruptibility::NMI != 0) << 1
            }
            Register::SysenterCs => self.vmcs.read(Field::GUEST_SYSENTER_CS),
            Register::SysenterEsp => self.vmcs.read(Field::GUEST_SYSENTER_ESP),
            Register::SysenterEip => self.vmcs.read(Field::GUEST_SYSENTER_EIP),
            Register::DebugCtl => self.vmcs.read(Field::GUEST_DEBUGCTL),
            Register::TscOffset => self.vmcs.read(Field::TSC_OFFSET),
            Register::FsBase => self.vmcs.read(Field::GUEST_FS_BASE),
            Register::GsBase => self.vmcs.read(Field::GUEST_GS_BASE),
        }
    }

    #[inline]
    pub(super) fn set_register(&mut self, register: Register, value: u64) {
        match register {
            Register::Rip => self.vmcs.write(Field::GUEST_RIP, value),
            Register::Rflags => self
                .vmcs
                .write(Field::GUEST_RFLAGS, value | rflags::FIXED_1),
            Register::Cr0 => self.set_cr0(value),
            Register::Cr4 => self.set_cr4(value),
            Register::Cr3 => {
                self.vmcs.write(Field::GUEST_CR3, value);
                self.pending |= pending::PAGING;
            }
            Register::Efer => self.set_efer(value),
            Register::KernelGsBase => self.set_live(0, value),
            Register::Star => self.set_live(1, value),
            Register::Lstar => self.set_live(2, value),
            Register::Cstar => self.set_live(3, value),
            Register::Sfmask => self.set_live(4, value),
            Register::Cr2 => self.set_live(CR2, value),
            Register::Dr6 => self.set_live(DR6, value),
            Register::Dr7 => self.vmcs.write(Field::GUEST_DR7, value),
            Register::Pat if self.role == Role::Child => self.pat = value,
            Register::Pat => self.vmcs.write(Field::GUEST_PAT, value),
            Register::InterruptState => {
                // The shadow of MOV to SS, since that of STI demands IF.
                let shadow = if value & SHADOW != 0 {
                    interruptibility::MOV_SS
                } else {
                    0
                };
                let nmi = if value & NMI_BLOCKED != 0 {
                    interruptibility::NMI
                } else {
                    0
                };
                self.vmcs
                    .write(Field::INTERRUPTIBILITY, u64::from(shadow | nmi));
            }
            Register::SysenterCs => self.vmcs.write(Field::GUEST_SYSENTER_CS, value),
            Register::SysenterEsp => self.vmcs.write(Field::GUEST_SYSENTER_ESP, value),
            Register::SysenterEip => self.vmcs.write(Field::GUEST_SYSENTER_EIP, value),
            Register::DebugCtl => self.vmcs.write(Field::GUEST_DEBUGCTL, value),
            Register::TscOffset => self.vmcs.write(Field::TSC_OFFSET, value),
            Register::FsBase => self.vmcs.write(Field::GUEST_FS_BASE, value),
            Register::GsBase => self.vmcs.write(Field::GUEST_GS_BASE, value),
        }
    }

    /// A control register as the guest sees it.
    fn shadowed(&self, actual: Field, shadow: Field, owned: u64) -> u64 {
        self.vmcs.read(actual) & !owned | self.vmcs.read(shadow) & owned
    }

    fn set_cr0(&mut self, value: u64) {
        let actual = self.cr0.apply(value & !(cr0::CD | cr0::NW) | cr0::ET);
        self.vmcs.write(Field::GUEST_CR0, actual);
        self.vmcs.write(Field::CR0_SHADOW, value);
        self.pending |= pending::PAGING;
        self.follow_long_mode();
    }

    fn set_cr4(&mut self, value: u64) {
        // Bits that the processor does not have stay, so that the entry check refuses them.
        self.vmcs.write(Field::GUEST_CR4, value | self.cr4.apply(0));
        self.vmcs.write(Field::CR4_SHADOW, value);
        self.pending |= pending::PAGING;
    }

    fn set_efer(&mut self, value: u64) {
        self.vmcs.write(Field::GUEST_EFER, value);
        self.pending |= pending::PAGING;
        self.follow_long_mode();
    }

    /// EFER.LMA and the entry control are LME and PG together. While the guest runs, the hardware keeps them so.
    fn follow_long_mode(&mut self) {
        let value = self.vmcs.read(Field::GUEST_EFER);
        let controls = self.vmcs.read32(Field::ENTRY_CONTROLS);
        let is_paging = self.vmcs.read(Field::GUEST_CR0) & cr0::PG != 0;
        let (value, controls) = if is_paging && value & efer::LME != 0 {
            (value | efer::LMA, controls | entry::LONG_MODE_GUEST)
        } else {
            (value & !efer::LMA, controls & !entry::LONG_MODE_GUEST)
        };
        self.vmcs.write(Field::GUEST_EFER, value);
        self.vmcs.write(Field::ENTRY_CONTROLS, u64::from(controls));
    }

    /// Loads the PAE page-directory pointers, as the MOV to a control register that was emulated would have: with EPT an
    /// entry takes them from the VMCS. One outside memory reads as not present.
    ///
    /// # Errors
    /// The exit that a child's access to a page it may not read is.
    pub(super) fn load_pae_pointers(&mut self) -> Result<(), Exit> {
        let is_paging = self.vmcs.read(Field::GUEST_CR0) & cr0::PG != 0;
        let is_pae = self.vmcs.read(Field::GUEST_CR4) & cr4::PAE != 0;
        let is_long = self.vmcs.read(Field::GUEST_EFER) & efer::LMA != 0;
        if !is_paging || !is_pae || is_long {
            return Ok(());
        }
        let gpa = Gpa::new(self.vmcs.read(Field::GUEST_CR3) & PAE_POINTERS);
        let pointers = self.translations.translate(gpa);
        if pointers.is_none() && self.role == Role::Child {
            return Err(Exit::Slat(SlatFault {
                gpa,
                gva: None,
                is_write: false,
                is_execute: false,
                is_protection: false,
                is_table_walk: true,
            }));
        }
        let fields = [
            Field::GUEST_PDPTE0,
            Field::GUEST_PDPTE1,
            Field::GUEST_PDPTE2,
            Field::GUEST_PDPTE3,
        ];
        for (field, offset) in fields.into_iter().zip([0, 8, 16, 24]) {
            let pointer = pointers
                .and_then(|pointers| pointers.checked_add(offset))
                .and_then(phys::read_guest_u64)
                .unwrap_or(0);
            self.vmcs.write(field, pointer);
        }
        Ok(())
    }

    #[inline]
    fn live(&self, slot: usize) -> u64 {
        if self.is_loaded {
            read_live(slot)
        } else {
            self.live.get(slot).copied().unwrap_or(0)
        }
    }

    /// A value that the processor does not take makes the next entry fail, and the register 0.
    #[expect(unsafe_code, reason = "writes MSRs that the guest's values live in")]
    fn set_live(&mut self, slot: usize, value: u64) {
        match (slot, LIVE_MSRS.get(slot)) {
            _ if !self.is_loaded => self
                .live
                .iter_mut()
                .skip(slot)
                .take(1)
                .for_each(|v| *v = value),
            (CR2, _) => insn::write_cr2(value),
            (DR6, _) => super::insn::write_dr6(value),
            // SAFETY: the registers are those of SYSCALL and SWAPGS, which the hypervisor uses neither of.
            (_, Some(&number)) if unsafe { msr::try_write(number, value) }.is_err() => {
                self.pending |= pending::REFUSED;
                // SAFETY: as above. What another VP left must not stay.
                unsafe { msr::write(number, 0) };
            }
            _ => {}
        }
    }

    /// Takes what the LP holds of the guest's registers to memory.
    pub(super) fn save_live(&mut self) {
        self.live = core::array::from_fn(read_live);
    }

    /// Puts it into the LP.
    pub(super) fn restore_live(&mut self) {
        for (slot, value) in self.live.into_iter().enumerate() {
            self.set_live(slot, value);
        }
    }
}
