//! Registers beside the general ones: in the VMCS, in a shadow, or in the LP itself.

use addr::Spa;
use vpcore::seam::Register;
use x86::{cr0, cr4, efer, msr as index, rflags};

use super::control::{CR0_OWNED, CR4_OWNED};
use super::fields::{Field, entry};
use super::{VmxVp, pending};
use crate::arch::x86::{insn, msr};
use crate::mm::phys;

/// Address bits of CR3 in PAE paging: the page-directory pointers are 32-byte aligned below 4 GiB.
const PAE_POINTERS: u64 = 0xFFFF_FFE0;

impl VmxVp {
    #[inline]
    pub(super) fn get_register(&self, register: Register) -> u64 {
        match register {
            Register::Rip => self.vmcs.read(Field::GUEST_RIP),
            Register::Rflags => self.vmcs.read(Field::GUEST_RFLAGS),
            Register::Cr0 => self.shadowed(Field::GUEST_CR0, Field::CR0_SHADOW, CR0_OWNED),
            Register::Cr4 => self.shadowed(Field::GUEST_CR4, Field::CR4_SHADOW, CR4_OWNED),
            Register::Cr2 => insn::read_cr2(),
            Register::Dr6 => insn::read_dr6(),
            Register::KernelGsBase => msr::read(index::KERNEL_GS_BASE),
            Register::Star => msr::read(index::STAR),
            Register::Lstar => msr::read(index::LSTAR),
            Register::Cstar => msr::read(index::CSTAR),
            Register::Sfmask => msr::read(index::SFMASK),
            Register::Cr3 => self.vmcs.read(Field::GUEST_CR3),
            Register::Efer => self.vmcs.read(Field::GUEST_EFER),
            Register::Dr7 => self.vmcs.read(Field::GUEST_DR7),
            Register::Pat => self.vmcs.read(Field::GUEST_PAT),
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
            Register::Cr2 => insn::write_cr2(value),
            Register::Dr6 => super::insn::write_dr6(value),
            Register::KernelGsBase => self.set_msr(index::KERNEL_GS_BASE, value),
            Register::Star => self.set_msr(index::STAR, value),
            Register::Lstar => self.set_msr(index::LSTAR, value),
            Register::Cstar => self.set_msr(index::CSTAR, value),
            Register::Sfmask => self.set_msr(index::SFMASK, value),
            Register::Dr7 => self.vmcs.write(Field::GUEST_DR7, value),
            Register::Pat => self.vmcs.write(Field::GUEST_PAT, value),
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

    /// Loads the PAE page-directory pointers, as the MOV to a control register that was emulated would have.
    ///
    /// With EPT an entry takes them from the VMCS. The guest is the parent, whose memory is mapped one to one.
    /// A pointer outside memory reads as not present.
    pub(super) fn load_pae_pointers(&mut self) {
        let is_paging = self.vmcs.read(Field::GUEST_CR0) & cr0::PG != 0;
        let is_pae = self.vmcs.read(Field::GUEST_CR4) & cr4::PAE != 0;
        let is_long = self.vmcs.read(Field::GUEST_EFER) & efer::LMA != 0;
        if !is_paging || !is_pae || is_long {
            return;
        }
        let pointers = Spa::new(self.vmcs.read(Field::GUEST_CR3) & PAE_POINTERS);
        let fields = [
            Field::GUEST_PDPTE0,
            Field::GUEST_PDPTE1,
            Field::GUEST_PDPTE2,
            Field::GUEST_PDPTE3,
        ];
        for (field, offset) in fields.into_iter().zip([0, 8, 16, 24]) {
            let pointer = pointers
                .checked_add(offset)
                .and_then(phys::read_guest_u64)
                .unwrap_or(0);
            self.vmcs.write(field, pointer);
        }
    }

    /// Writes a register of the LP that the guest's value lives in. A value that the processor does not take makes
    /// the next entry fail.
    #[expect(unsafe_code, reason = "writes an MSR")]
    fn set_msr(&mut self, msr_index: u32, value: u64) {
        // SAFETY: callers name registers of SYSCALL and SWAPGS, which the hypervisor uses neither of.
        if unsafe { msr::try_write(msr_index, value) }.is_err() {
            self.pending |= pending::REFUSED;
        }
    }
}
