//! VT-x: one of the two implementors of the seam in `vpcore::seam`.
//!
//! A [`VmxVp`] is one VMCS and the general registers. The VMCS is active on the LP where the VP is loaded, and on no other.
//! What it does not switch stays in the LP's registers while the hypervisor runs, which therefore touches none of it:
//! CR2, DR6, KERNEL_GS_BASE, STAR, LSTAR, CSTAR and SFMASK, which [`VpBackend::unload`] takes to memory, and the state
//! of [`super::extended`].
//!
//! The guest owns CR0 and CR4 but for CR0.NE, CD and NW and CR4.VMXE, which it sees through a shadow. VMX needs NE
//! and VMXE; CD and NW are shared with the hypervisor by the hardware, so they never reach the register.
//! MOV to and from CR8 exits: it would reach the physical APIC.
//!
//! A child's VP has a PAT of which every entry is write-back, whatever it wrote there.
//!
//! Source: SDM vol. 3C, "Introduction to Virtual Machine Extensions" and the chapters after it.

mod bitmaps;
mod caps;
mod control;
mod enable;
mod entry;
mod exit;
mod fields;
mod host;
mod inject;
mod insn;
mod registers;
mod run;
mod segments;
mod slat;
mod vmcs;

use addr::Spa;
use bootinfo::Status;
use paging::{Format, PageSize};
use vpcore::seam::{
    Event, Exit, FrameSource, InterceptBitmaps, Lp, Register, Role, SegmentName, TableName,
    VpBackend, Window,
};
use vpcore::tags::Tag;
use x86::{GpRegs, Segment, TableRegister, cr0};

use crate::virt::{Bitmaps, Facts, SecondLevel, Virt, always_trapped};

use bitmaps::VmxBitmaps;

use caps::{Capabilities, FixedBits};
use entry::EntryFrame;
use fields::Field;
use registers::Live;
use slat::Translations;
use vmcs::Vmcs;

/// VT-x.
#[derive(Debug)]
pub enum Vmx {}

impl Virt for Vmx {
    type Vp = VmxVp;
    type On = enable::On;

    fn facts() -> Result<Facts, Status> {
        let capabilities = Capabilities::read()?;
        Ok(Facts {
            hypercall: [0x0F, 0x01, 0xC1],
            missing: capabilities.missing(),
            second_level: SecondLevel {
                format: Format::Ept,
                max_leaf: if capabilities.has_1_gib_pages() {
                    PageSize::Size1G
                } else {
                    PageSize::Size2M
                },
                has_marks: capabilities.has_marks(),
            },
        })
    }

    fn enable(frames: &mut dyn FrameSource) -> Result<(Lp, enable::On), Status> {
        enable::enable(frames)
    }

    fn bitmaps(
        frames: &mut dyn FrameSource,
        choose: &mut dyn FnMut(&mut dyn InterceptBitmaps),
    ) -> Result<Bitmaps, Status> {
        let mut bitmaps = VmxBitmaps::new(frames)?;
        choose(&mut bitmaps);
        Ok(bitmaps.0)
    }

    fn vp(
        frame: Spa,
        role: Role,
        bitmaps: Bitmaps,
        slat_root: Spa,
        slat_levels: u32,
    ) -> Result<VmxVp, Status> {
        let caps = &Capabilities::read()?;
        let mut vp = VmxVp {
            frame: EntryFrame::default(),
            translations: Translations::new(caps, role, slat_root, slat_levels)?,
            vmcs: Vmcs::new(frame, caps.revision)?,
            role,
            tag: Tag::default(),
            live: Live::default(),
            is_loaded: false,
            host_of: Spa::new(0),
            pat: 0,
            rsp: 0,
            pending: 0,
            is_launched: false,
            reason: 0,
            has_interrupted: false,
            primary: match role {
                Role::Parent => caps.primary,
                Role::Child => caps.primary | caps.child_primary,
            },
            // An unrestricted guest may run without protection and paging.
            cr0: caps.cr0.without(cr0::PE | cr0::PG),
            cr4: caps.cr4,
            load_cet: caps.load_cet,
        };
        let before = vp.attach();
        let built = control::build(&mut vp, caps, &VmxBitmaps(bitmaps));
        vp.detach(before);
        built?;
        Ok(vp)
    }
}

/// Work for the next entry, as bits of [`VmxVp::pending`].
mod pending {
    /// CR0, CR3, CR4 or EFER was set: the guest's translations go, and PAE page-directory pointers are loaded.
    pub const PAGING: u8 = 1 << 0;
    /// All translations go.
    pub const FLUSH_ALL: u8 = 1 << 1;
    /// An event was written to the VMCS.
    pub const EVENT: u8 = 1 << 2;
    /// A register refused its value.
    pub const REFUSED: u8 = 1 << 3;
    /// Translations of the guest's own tables go.
    pub const FLUSH_GUEST: u8 = 1 << 4;
}

/// One VP of VT-x.
pub struct VmxVp {
    frame: EntryFrame,
    vmcs: Vmcs,
    role: Role,
    tag: Tag,
    live: Live,
    /// The VP is loaded on the LP that uses it: `live` is in the LP's registers.
    is_loaded: bool,
    /// VMXON region of the LP whose state the VMCS has as host state; 0 before the first.
    host_of: Spa,
    /// PAT as a child's VP has written it.
    pat: u64,
    /// RSP in the VMCS; `frame.gp` may have a newer one.
    rsp: u64,
    /// Bits of [`pending`].
    pending: u8,
    is_launched: bool,
    /// Exit reason, low 16 bits.
    reason: u16,
    /// The VMCS field for the event that the last exit interrupted says something that nobody has taken yet.
    has_interrupted: bool,
    /// Primary processor-based controls as the VMCS has them.
    primary: u32,
    translations: Translations,
    /// Rules for the guest's CR0 and CR4.
    cr0: FixedBits,
    cr4: FixedBits,
    /// The entry control for shadow stacks of the supervisor, 0 where there is none.
    load_cet: u32,
}

impl VpBackend for VmxVp {
    fn load(&mut self, lp: &mut Lp) {
        self.vmcs.make_current();
        if self.host_of != lp.frame {
            self.host_of = lp.frame;
            host::write(&mut self.vmcs);
        }
        if lp.tags.renew(&mut self.tag) {
            if self.translations.has_vpid {
                self.translations.vpid = self.tag.number() as u16;
                self.vmcs
                    .write(Field::VPID, u64::from(self.translations.vpid));
            }
            self.pending |= pending::FLUSH_ALL;
        }
        self.is_loaded = true;
        self.restore_live();
    }

    fn unload(&mut self) {
        self.save_live();
        self.is_loaded = false;
        // The first exit has stored what the LP had, which the parent took over from firmware.
        if self.is_launched && self.load_cet != 0 {
            let controls = self.vmcs.read32(Field::ENTRY_CONTROLS) | self.load_cet;
            self.vmcs.write(Field::ENTRY_CONTROLS, controls.into());
        }
        self.clear();
    }

    fn attach(&mut self) -> Option<Spa> {
        let before = vmcs::current();
        self.vmcs.make_current();
        before
    }

    fn detach(&mut self, before: Option<Spa>) {
        if !self.is_loaded {
            self.clear();
        }
        if let Some(before) = before {
            vmcs::make_current(before);
        }
    }

    fn frame(&self) -> Spa {
        self.vmcs.region()
    }

    #[inline(always)]
    fn run(&mut self) -> Exit {
        self.enter_and_exit()
    }

    #[inline(always)]
    fn gp(&self) -> &GpRegs {
        &self.frame.gp
    }

    #[inline(always)]
    fn gp_mut(&mut self) -> &mut GpRegs {
        &mut self.frame.gp
    }

    #[inline(always)]
    fn get(&self, register: Register) -> u64 {
        self.get_register(register)
    }

    #[inline(always)]
    fn set(&mut self, register: Register, value: u64) {
        self.set_register(register, value);
    }

    fn segment(&self, name: SegmentName) -> Segment {
        segments::read(&self.vmcs, name)
    }

    fn set_segment(&mut self, name: SegmentName, value: Segment) {
        segments::write(&mut self.vmcs, name, value);
    }

    fn table(&self, name: TableName) -> TableRegister {
        segments::read_table(&self.vmcs, name)
    }

    fn set_table(&mut self, name: TableName, value: TableRegister) {
        segments::write_table(&mut self.vmcs, name, value);
    }

    #[inline(always)]
    fn is_in_64_bit_code(&self) -> bool {
        self.vmcs.read(Field::GUEST_EFER) & x86::efer::LMA != 0
            && self.vmcs.read(Field::GUEST_CS_RIGHTS) & u64::from(Segment::LONG) != 0
    }

    #[inline(always)]
    fn cpl(&self) -> u8 {
        segments::cpl(&self.vmcs)
    }

    #[inline(always)]
    fn next_rip(&self) -> Option<u64> {
        self.instruction_end()
    }

    #[inline(always)]
    fn retire(&mut self, next_rip: u64) {
        self.retire_to(next_rip);
    }

    fn trap_exceptions(&mut self, vectors: u32) {
        let all = vectors | always_trapped(self.role);
        self.vmcs.write(Field::EXCEPTION_BITMAP, all.into());
    }

    fn fault_address(&self) -> u64 {
        self.vmcs.read(Field::EXIT_QUALIFICATION)
    }

    #[inline(always)]
    fn interrupted_event(&mut self) -> Option<Event> {
        self.take_interrupted()
    }

    /// An entry delivers what it injects before anything else, or leaves it to [`Self::interrupted_event`].
    #[inline(always)]
    fn undelivered_interrupt(&mut self) -> Option<u8> {
        None
    }

    fn inject(&mut self, event: Event) {
        self.inject_event(event);
    }

    #[inline(always)]
    fn can_take_interrupt(&self) -> bool {
        self.is_open_for_interrupts()
    }

    #[inline(always)]
    fn can_take_nmi(&self) -> bool {
        self.is_open_for_nmis()
    }

    fn reset_events(&mut self) {
        self.has_interrupted = false;
        self.pending &= !pending::EVENT;
        for field in [
            Field::INTERRUPTIBILITY,
            Field::PENDING_DEBUG,
            Field::ENTRY_EVENT,
        ] {
            self.vmcs.write(field, 0);
        }
    }

    fn request_window(&mut self, window: Window, wanted: bool) {
        self.set_window(window, wanted);
    }

    fn show_cr8(&mut self, _: u8) {
        // Reads of CR8 exit.
    }

    fn flush_tlb(&mut self) {
        self.pending |= pending::FLUSH_ALL;
    }

    fn flush_guest_tlb(&mut self) {
        self.pending |= pending::FLUSH_GUEST;
    }
}

impl VmxVp {
    /// Takes the VMCS, which is current, off this LP.
    fn clear(&mut self) {
        let cleared = self.vmcs.clear();
        debug_assert!(cleared.is_ok(), "VMCLEAR failed");
        self.is_launched = false;
    }
}
