//! One virtual processor under AMD-V: its VMCB and the registers beside it.
#![expect(unsafe_code, reason = "runs guests, and owns its bitmaps' frames")]

use addr::Spa;
use bootinfo::Status;
use vpcore::seam::{
    Event, Exit, FrameSource, InterceptBitmaps, Register, SegmentName, TableName, VpBackend, Window,
};
use x86::{GpRegs, Segment, TableRegister, cr0, efer, rflags, vector};

use super::caps::Enabled;
use super::vmcb::{Vmcb, field, intercept_1, intercept_2};
use super::{entry, exit, inject};
use crate::mm::phys;

/// Frames of the I/O permission map, of which the last bits catch accesses that wrap.
const IO_FRAMES: usize = 3;
/// Frames of the MSR permission map.
const MSR_FRAMES: usize = 2;

const V_IRQ: u32 = 1 << 8;
const V_IGNORE_TPR: u32 = 1 << 20;
const V_INTR_MASKING: u32 = 1 << 24;
const FLUSH_ALL: u8 = 1;
const FLUSH_THIS_ASID: u8 = 3;

/// The I/O and MSR permission maps of a partition.
#[derive(Debug)]
pub struct SvmBitmaps {
    io: Spa,
    msr: Spa,
}

impl SvmBitmaps {
    /// Every port passes, every MSR access exits.
    pub fn new(frames: &mut dyn FrameSource) -> Result<Self, Status> {
        let io = frames.frames(IO_FRAMES).ok_or(Status::NO_MEMORY)?;
        let msr = frames.frames(MSR_FRAMES).ok_or(Status::NO_MEMORY)?;
        // SAFETY: the frames were just given to us alone.
        unsafe { phys::pointer(msr).write_bytes(0xFF, MSR_FRAMES * 4096) };
        Ok(Self { io, msr })
    }

    /// Clears bit `bit` of the MSR map: 0 for reads, 1 for writes. False where the map does not cover `msr`.
    fn pass(&mut self, msr: u32, bit: usize) -> bool {
        let base = match msr {
            0..=0x1FFF => 0,
            0xC000_0000..=0xC000_1FFF => 0x800,
            0xC001_0000..=0xC001_1FFF => 0x1000,
            _ => return false,
        };
        let index = (msr & 0x1FFF) as usize * 2 + bit;
        // SAFETY: `index / 8` is below 0x800, so the byte lies in our two frames.
        let byte = unsafe { phys::pointer(self.msr).add(base + index / 8) };
        // SAFETY: as above; the map is written before any VP uses it, or by the partition's owner alone.
        unsafe { *byte &= !(1 << (index % 8)) };
        true
    }
}

impl InterceptBitmaps for SvmBitmaps {
    fn trap_port(&mut self, port: u16) {
        // SAFETY: at most byte 8191 of three frames.
        let byte = unsafe { phys::pointer(self.io).add(usize::from(port) / 8) };
        // SAFETY: as above.
        unsafe { *byte |= 1 << (port % 8) };
    }

    fn pass_msr_read(&mut self, msr: u32) -> bool {
        self.pass(msr, 0)
    }

    fn pass_msr_write(&mut self, msr: u32) -> bool {
        self.pass(msr, 1)
    }
}

/// What all VPs of a partition share.
#[derive(Debug)]
pub struct Shared<'a> {
    /// Permission maps.
    pub bitmaps: &'a SvmBitmaps,
    /// Root of the nested tables, of the host's paging depth.
    pub slat_root: Spa,
    /// Address space identifier, not 0.
    pub tag: u16,
}

/// One virtual processor.
#[derive(Debug)]
pub struct SvmVp {
    pub(super) vmcb: Vmcb,
    pub(super) gp: GpRegs,
    pub(super) enabled: Enabled,
    /// An NMI was delivered and its IRET not seen yet.
    pub(super) nmi_blocked: bool,
    /// The IRET that ends the blocking has been reached at this RIP.
    pub(super) iret_at: Option<u64>,
}

impl SvmVp {
    /// A VP whose registers are all zero, on this LP, where `enabled` switched the extension on.
    pub fn new(
        enabled: Enabled,
        frames: &mut dyn FrameSource,
        shared: &Shared<'_>,
    ) -> Result<Self, Status> {
        let mut vmcb = Vmcb::new(frames.frames(1).ok_or(Status::NO_MEMORY)?);
        // SAFETY: AMD-V is on, and the frame is ours.
        unsafe { entry::save_host(enabled.host) };
        // CR8 is the virtual APIC's. Writes exit; reads give V_TPR, see `show_cr8`.
        vmcb.write_u32(field::INTERCEPT_CR, 1 << 24);
        vmcb.write_u32(field::INTERCEPT_EXCEPTION, 1 << vector::MC);
        vmcb.write_u32(
            field::INTERCEPT_1,
            intercept_1::INTR
                | intercept_1::NMI
                | intercept_1::INIT
                | intercept_1::CPUID
                | intercept_1::INVD
                | intercept_1::HLT
                | intercept_1::INVLPGA
                | intercept_1::IO
                | intercept_1::MSR
                | intercept_1::SHUTDOWN,
        );
        vmcb.write_u32(
            field::INTERCEPT_2,
            intercept_2::SVM_INSTRUCTIONS
                | intercept_2::MONITOR
                | intercept_2::MWAIT
                | intercept_2::MWAIT_ARMED
                | intercept_2::XSETBV,
        );
        vmcb.write_u64(field::IOPM_BASE, shared.bitmaps.io.get());
        vmcb.write_u64(field::MSRPM_BASE, shared.bitmaps.msr.get());
        vmcb.write_u32(field::ASID, u32::from(shared.tag));
        vmcb.write_u32(field::VIRTUAL_INTERRUPT, V_INTR_MASKING);
        vmcb.write_u64(field::NESTED_PAGING, 1);
        vmcb.write_u64(field::NESTED_CR3, shared.slat_root.get());
        vmcb.write_u64(field::EFER, efer::SVME);
        let mut vp = Self {
            vmcb,
            gp: GpRegs::default(),
            enabled,
            nmi_blocked: false,
            iret_at: None,
        };
        vp.flush_tlb();
        Ok(vp)
    }

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
    fn run(&mut self) -> Exit {
        self.vmcb.write_u64(field::RAX, self.gp.get(x86::Gp::Rax));
        self.vmcb.write_u64(field::RSP, self.gp.get(x86::Gp::Rsp));
        // SAFETY: `new` completed the VMCB and filled the host frame; interrupts are off between exits.
        unsafe { entry::enter(self.vmcb.spa(), &raw mut self.gp, self.enabled.host) };
        self.gp.set(x86::Gp::Rax, self.vmcb.read_u64(field::RAX));
        self.gp.set(x86::Gp::Rsp, self.vmcb.read_u64(field::RSP));
        self.vmcb.write_u8(field::TLB_CONTROL, 0);
        self.vmcb.write_u64(field::EVENT_INJECTION, 0);
        if self
            .iret_at
            .is_some_and(|rip| rip != self.vmcb.read_u64(field::RIP))
        {
            self.iret_at = None;
            self.nmi_blocked = false;
        }
        exit::decode(self)
    }

    fn gp(&self) -> &GpRegs {
        &self.gp
    }

    fn gp_mut(&mut self) -> &mut GpRegs {
        &mut self.gp
    }

    fn get(&self, register: Register) -> u64 {
        let value = self.vmcb.read_u64(Self::slot(register));
        if register == Register::Efer {
            value & !efer::SVME
        } else {
            value
        }
    }

    fn set(&mut self, register: Register, value: u64) {
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

    fn cpl(&self) -> u8 {
        self.vmcb.read_u8(field::CPL)
    }

    fn next_rip(&self) -> Option<u64> {
        self.enabled
            .capabilities
            .next_rip
            .then(|| self.vmcb.read_u64(field::NEXT_RIP))
            .filter(|&rip| rip != 0)
    }

    fn retire(&mut self, next_rip: u64) {
        self.vmcb.write_u64(field::RIP, next_rip);
        self.vmcb.write_u64(field::INTERRUPT_SHADOW, 0);
        let flags = self.vmcb.read_u64(field::RFLAGS);
        if flags & rflags::RF != 0 {
            self.vmcb.write_u64(field::RFLAGS, flags & !rflags::RF);
        }
    }

    #[inline]
    fn interrupted_event(&mut self) -> Option<Event> {
        inject::interrupted(&mut self.vmcb)
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
        let how = if self.enabled.capabilities.flush_by_asid {
            FLUSH_THIS_ASID
        } else {
            FLUSH_ALL
        };
        self.vmcb.write_u8(field::TLB_CONTROL, how);
    }
}
