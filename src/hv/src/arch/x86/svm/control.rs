//! One virtual processor under AMD-V: its VMCB and the registers beside it.
//!
//! A child's VP has a PAT of which every entry is write-back, whatever it wrote there: nested tables know no way to
//! overrule the guest's types. CR0.CD and NW of a child are dropped where the hypervisor sets them, as INIT does. A child
//! that sets CD itself slows its own accesses: an exit loads the host's CR0, and the caches stay coherent.
#![expect(unsafe_code, reason = "runs guests")]

use addr::Spa;
use vpcore::seam::{Event, Exit, Lp, Register, Role, SegmentName, TableName, VpBackend, Window};
use vpcore::startup;
use vpcore::tags::Tag;
use x86::{GpRegs, Segment, TableRegister, cr0, efer, rflags};

use super::caps::Capabilities;
use super::vmcb::{Vmcb, field, intercept_1, intercept_2};
use super::{entry, exit, inject};
use crate::arch::x86::insn;
use crate::virt::{Bitmaps, always_trapped};

/// Bits of [`field::VIRTUAL_INTERRUPT`].
pub(super) const V_IRQ: u32 = 1 << 8;
pub(super) const V_IGNORE_TPR: u32 = 1 << 20;
const V_INTR_MASKING: u32 = 1 << 24;
const FLUSH_ALL: u8 = 1;
const FLUSH_THIS_ASID: u8 = 3;

/// A child's PAT as the hardware has it.
const PAT_WRITE_BACK: u64 = 0x0606_0606_0606_0606;
/// A loop of so many PAUSE instructions is an exit.
const PAUSE_WINDOW: u16 = 3000;

/// One virtual processor.
#[derive(Debug)]
pub struct SvmVp {
    pub(super) vmcb: Vmcb,
    pub(super) gp: GpRegs,
    role: Role,
    tag: Tag,
    capabilities: Capabilities,
    /// Of the LP where the VP is loaded: what [`entry::save_host`] filled; 0 elsewhere.
    host: Spa,
    /// PAT as a child's VP has written it.
    pat: u64,
    /// An NMI was delivered and its IRET not seen yet.
    pub(super) nmi_blocked: bool,
    /// The IRET that ends the blocking has been reached at this RIP.
    pub(super) iret_at: Option<u64>,
    /// The interrupt that the next entry delivers, and after an exit the one that it did not.
    pub(super) interrupt: Option<u8>,
}

impl SvmVp {
    /// A VP as after reset, with its VMCB in `frame`, a zeroed frame of the caller's. `slat_root` is the
    /// root of nested tables of the host's paging depth.
    pub(super) fn new(
        capabilities: Capabilities,
        frame: Spa,
        role: Role,
        bitmaps: Bitmaps,
        slat_root: Spa,
    ) -> Self {
        let mut vmcb = Vmcb::new(frame);
        let mut first = intercept_1::INTR
            | intercept_1::NMI
            | intercept_1::INIT
            | intercept_1::CPUID
            | intercept_1::INVD
            | intercept_1::HLT
            | intercept_1::INVLPGA
            | intercept_1::IO
            | intercept_1::MSR
            | intercept_1::SHUTDOWN;
        let mut second = intercept_2::SVM_INSTRUCTIONS
            | intercept_2::MONITOR
            | intercept_2::MWAIT
            | intercept_2::MWAIT_ARMED
            | intercept_2::XSETBV;
        if role == Role::Child {
            first |= intercept_1::RDPMC;
            second |= intercept_2::WBINVD;
            if capabilities.pause_filter {
                first |= intercept_1::PAUSE;
                vmcb.write_u16(field::PAUSE_WINDOW, PAUSE_WINDOW);
            }
            vmcb.write_u64(field::PAT, PAT_WRITE_BACK);
        }
        // CR8 is the virtual APIC's. Writes exit; reads give V_TPR, see `show_cr8`.
        vmcb.write_u32(field::INTERCEPT_CR, 1 << 24);
        vmcb.write_u32(field::INTERCEPT_EXCEPTION, always_trapped(role));
        vmcb.write_u32(field::INTERCEPT_1, first);
        vmcb.write_u32(field::INTERCEPT_2, second);
        vmcb.write_u64(field::IOPM_BASE, bitmaps.io.get());
        vmcb.write_u64(field::MSRPM_BASE, bitmaps.msr.get());
        vmcb.write_u32(field::VIRTUAL_INTERRUPT, V_INTR_MASKING);
        vmcb.write_u64(field::NESTED_PAGING, 1);
        vmcb.write_u64(field::NESTED_CR3, slat_root.get());
        vmcb.write_u64(field::EFER, efer::SVME);
        let mut vp = Self {
            vmcb,
            gp: GpRegs::default(),
            role,
            tag: Tag::default(),
            capabilities,
            host: Spa::new(0),
            pat: 0,
            nmi_blocked: false,
            iret_at: None,
            interrupt: None,
        };
        startup::reset(&mut vp);
        vp
    }

    #[inline(always)]
    fn slot(register: Register) -> usize {
        match register {
            Register::Rip => field::RIP,
            Register::Rflags => field::RFLAGS,
            Register::Cr0 => field::CR0,
            Register::Cr2 => field::CR2,
            Register::Cr3 => field::CR3,
            Register::Cr4 => field::CR4,
            Register::Efer => field::EFER,
            Register::Dr6 => field::DR6,
            Register::Dr7 => field::DR7,
            Register::Pat => field::PAT,
            Register::SysenterCs => field::SYSENTER_CS,
            Register::SysenterEsp => field::SYSENTER_ESP,
            Register::SysenterEip => field::SYSENTER_EIP,
            Register::DebugCtl => field::DEBUG_CTL,
            Register::TscOffset => field::TSC_OFFSET,
            Register::FsBase => field::FS + 8,
            Register::GsBase => field::GS + 8,
            Register::KernelGsBase => field::KERNEL_GS_BASE,
            Register::Star => field::STAR,
            Register::Lstar => field::LSTAR,
            Register::Cstar => field::CSTAR,
            Register::Sfmask => field::SFMASK,
            Register::InterruptState => field::INTERRUPT_SHADOW,
        }
    }

    fn segment_slot(name: SegmentName) -> usize {
        match name {
            SegmentName::Es => field::ES,
            SegmentName::Cs => field::CS,
            SegmentName::Ss => field::SS,
            SegmentName::Ds => field::DS,
            SegmentName::Fs => field::FS,
            SegmentName::Gs => field::GS,
            SegmentName::Ldtr => field::LDTR,
            SegmentName::Tr => field::TR,
        }
    }
}

impl VpBackend for SvmVp {
    fn load(&mut self, lp: &mut Lp) {
        self.host = lp.frame;
        // VMRUN loads CR2; Bochs' does not, and one VP would see what another left.
        insn::write_cr2(self.vmcb.read_u64(field::CR2));
        if lp.tags.renew(&mut self.tag) {
            self.vmcb.write_u32(field::ASID, self.tag.number());
            self.flush_tlb();
        }
    }

    fn unload(&mut self) {
        self.host = Spa::new(0);
    }

    fn attach(&mut self) -> Option<Spa> {
        None
    }

    fn detach(&mut self, _: Option<Spa>) {}

    fn frame(&self) -> Spa {
        self.vmcb.spa()
    }

    #[inline(always)]
    fn run(&mut self) -> Exit {
        self.vmcb.write_u64(field::RAX, self.gp.get(x86::Gp::Rax));
        self.vmcb.write_u64(field::RSP, self.gp.get(x86::Gp::Rsp));
        if let Some(vector) = self.interrupt {
            inject::place_interrupt(&mut self.vmcb, vector);
        }
        // SAFETY: `new` completed the VMCB, the LP's host frame was filled before `load`; interrupts are off between exits.
        unsafe { entry::enter(self.vmcb.spa(), &raw mut self.gp, self.host) };
        self.gp.set(x86::Gp::Rax, self.vmcb.read_u64(field::RAX));
        self.gp.set(x86::Gp::Rsp, self.vmcb.read_u64(field::RSP));
        self.vmcb.write_u8(field::TLB_CONTROL, 0);
        self.vmcb.write_u64(field::EVENT_INJECTION, 0);
        if self.interrupt.is_some() && !inject::withdraw_interrupt(&mut self.vmcb) {
            self.interrupt = None;
        }
        if self
            .iret_at
            .is_some_and(|rip| rip != self.vmcb.read_u64(field::RIP))
        {
            self.iret_at = None;
            self.nmi_blocked = false;
        }
        exit::decode(self)
    }

    #[inline(always)]
    fn gp(&self) -> &GpRegs {
        &self.gp
    }

    #[inline(always)]
    fn gp_mut(&mut self) -> &mut GpRegs {
        &mut self.gp
    }

    #[inline(always)]
    fn get(&self, register: Register) -> u64 {
        let value = self.vmcb.read_u64(Self::slot(register));
        match register {
            Register::Efer => value & !efer::SVME,
            Register::Pat if self.role == Role::Child => self.pat,
            Register::InterruptState => value & 1 | u64::from(self.nmi_blocked) << 1,
            _ => value,
        }
    }

    fn set(&mut self, register: Register, value: u64) {
        let mut value = value;
        match (register, self.role) {
            (Register::Pat, Role::Child) => {
                self.pat = value;
                return;
            }
            (Register::Cr0, Role::Child) => value &= !(cr0::CD | cr0::NW),
            // As in `load`.
            (Register::Cr2, _) if self.host != Spa::new(0) => insn::write_cr2(value),
            (Register::InterruptState, _) => {
                self.nmi_blocked = value & 2 != 0;
                self.iret_at = None;
                self.vmcb
                    .set_bits(field::INTERCEPT_1, intercept_1::IRET, self.nmi_blocked);
                value &= 1;
            }
            _ => {}
        }
        self.vmcb.write_u64(Self::slot(register), value);
        if matches!(register, Register::Efer | Register::Cr0) {
            let mut mode = self.vmcb.read_u64(field::EFER) & !efer::LMA | efer::SVME;
            if mode & efer::LME != 0 && self.vmcb.read_u64(field::CR0) & cr0::PG != 0 {
                mode |= efer::LMA;
            }
            self.vmcb.write_u64(field::EFER, mode);
        }
        if matches!(
            register,
            Register::Cr0 | Register::Cr3 | Register::Cr4 | Register::Efer
        ) {
            self.flush_tlb();
        }
    }

    fn segment(&self, name: SegmentName) -> Segment {
        let slot = Self::segment_slot(name);
        let packed = self.vmcb.read_u16(slot + 2);
        Segment {
            selector: self.vmcb.read_u16(slot),
            attributes: (packed & 0xFF) | (packed & 0xF00) << 4,
            limit: self.vmcb.read_u32(slot + 4),
            base: self.vmcb.read_u64(slot + 8),
        }
    }

    fn set_segment(&mut self, name: SegmentName, value: Segment) {
        let slot = Self::segment_slot(name);
        self.vmcb.write_u16(slot, value.selector);
        self.vmcb.write_u16(
            slot + 2,
            (value.attributes & 0xFF) | (value.attributes >> 4 & 0xF00),
        );
        self.vmcb.write_u32(slot + 4, value.limit);
        self.vmcb.write_u64(slot + 8, value.base);
        if name == SegmentName::Ss {
            self.vmcb
                .write_u8(field::CPL, (value.attributes >> 5 & 3) as u8);
        }
    }

    fn table(&self, name: TableName) -> TableRegister {
        let slot = if name == TableName::Gdtr {
            field::GDTR
        } else {
            field::IDTR
        };
        TableRegister {
            limit: self.vmcb.read_u32(slot + 4) as u16,
            base: self.vmcb.read_u64(slot + 8),
        }
    }

    fn set_table(&mut self, name: TableName, value: TableRegister) {
        let slot = if name == TableName::Gdtr {
            field::GDTR
        } else {
            field::IDTR
        };
        self.vmcb.write_u32(slot + 4, u32::from(value.limit));
        self.vmcb.write_u64(slot + 8, value.base);
    }

    #[inline(always)]
    fn is_in_64_bit_code(&self) -> bool {
        // The attributes are packed: L is bit 9.
        self.vmcb.read_u64(field::EFER) & efer::LMA != 0
            && self.vmcb.read_u16(field::CS + 2) & 1 << 9 != 0
    }

    #[inline(always)]
    fn cpl(&self) -> u8 {
        self.vmcb.read_u8(field::CPL)
    }

    #[inline(always)]
    fn next_rip(&self) -> Option<u64> {
        self.capabilities
            .next_rip
            .then(|| self.vmcb.read_u64(field::NEXT_RIP))
            .filter(|&rip| rip != 0)
    }

    #[inline(always)]
    fn retire(&mut self, next_rip: u64) {
        self.vmcb.write_u64(field::RIP, next_rip);
        self.vmcb.write_u64(field::INTERRUPT_SHADOW, 0);
        let flags = self.vmcb.read_u64(field::RFLAGS);
        if flags & rflags::RF != 0 {
            self.vmcb.write_u64(field::RFLAGS, flags & !rflags::RF);
        }
    }

    fn trap_exceptions(&mut self, vectors: u32) {
        self.vmcb.write_u32(
            field::INTERCEPT_EXCEPTION,
            vectors | always_trapped(self.role),
        );
    }

    fn fault_address(&self) -> u64 {
        self.vmcb.read_u64(field::EXIT_INFO_2)
    }

    #[inline(always)]
    fn interrupted_event(&mut self) -> Option<Event> {
        inject::interrupted(self)
    }

    #[inline(always)]
    fn undelivered_interrupt(&mut self) -> Option<u8> {
        self.interrupt.take()
    }

    fn inject(&mut self, event: Event) {
        inject::inject(self, event);
    }

    fn can_take_interrupt(&self) -> bool {
        self.vmcb.read_u64(field::RFLAGS) & rflags::IF != 0
            && self.vmcb.read_u64(field::INTERRUPT_SHADOW) & 1 == 0
    }

    fn can_take_nmi(&self) -> bool {
        !self.nmi_blocked && self.vmcb.read_u64(field::INTERRUPT_SHADOW) & 1 == 0
    }

    fn reset_events(&mut self) {
        self.nmi_blocked = false;
        self.iret_at = None;
        self.interrupt = None;
        self.vmcb.write_u64(field::EXIT_INT_INFO, 0);
        self.vmcb
            .set_bits(field::INTERCEPT_1, intercept_1::IRET, false);
        self.vmcb.write_u64(field::INTERRUPT_SHADOW, 0);
        self.vmcb.write_u64(field::EVENT_INJECTION, 0);
    }

    fn request_window(&mut self, window: Window, wanted: bool) {
        match window {
            Window::Interrupt => {
                self.vmcb
                    .set_bits(field::VIRTUAL_INTERRUPT, V_IRQ | V_IGNORE_TPR, wanted);
                self.vmcb
                    .set_bits(field::INTERCEPT_1, intercept_1::VINTR, wanted);
            }
            // The end of a handler shows by the IRET intercept, armed with every NMI that is injected. The rest of the
            // way, behind the IRET or behind an interrupt shadow, is an interrupt window: it opens there if it is not
            // open before. Where the guest's IF stays clear the NMI waits for the next exit.
            Window::Nmi => {
                let is_close = !self.nmi_blocked || self.iret_at.is_some();
                if !wanted || (is_close && !self.can_take_interrupt()) {
                    self.vmcb
                        .set_bits(field::VIRTUAL_INTERRUPT, V_IRQ | V_IGNORE_TPR, wanted);
                    self.vmcb
                        .set_bits(field::INTERCEPT_1, intercept_1::VINTR, wanted);
                }
            }
        }
    }

    fn show_cr8(&mut self, value: u8) {
        self.vmcb.write_u8(field::VIRTUAL_INTERRUPT, value & 15);
    }

    fn flush_tlb(&mut self) {
        let how = if self.capabilities.flush_by_asid {
            FLUSH_THIS_ASID
        } else {
            FLUSH_ALL
        };
        self.vmcb.write_u8(field::TLB_CONTROL, how);
    }

    fn flush_guest_tlb(&mut self) {
        // The tag is all there is to flush by.
        self.flush_tlb();
    }
}
