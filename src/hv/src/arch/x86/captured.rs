//! The state of an LP as firmware had it, to go on with as a guest.
#![expect(
    unsafe_code,
    reason = "loads the control registers of the hypervisor, and gives back the firmware's"
)]

use bootinfo::LaunchCall;
use vpcore::seam::{Register, SegmentName, TableName, VpBackend};
use x86::{Gp, Segment, TableRegister, cr0, cr4, efer, msr as n};

use super::{insn, msr};
use crate::mm::phys;

/// Registers of firmware. Vector state, XCR0, DR0 to DR3 and the system call registers stay in the LP.
#[derive(Clone, Copy, Debug)]
pub struct Captured {
    gdtr: TableRegister,
    idtr: TableRegister,
    segments: [(SegmentName, Segment); 8],
    registers: [(Register, u64); 18],
    rsp: u64,
}

/// Attributes of a segment that is not usable.
const UNUSABLE: u16 = 0;
/// Attributes of a present, busy 64-bit task state segment.
const BUSY_TSS: u16 = 0x8B;
const TSS_LIMIT: u32 = 0x67;

impl Captured {
    /// Reads the state of this LP; what the trampoline changed comes from `call`.
    pub fn take(call: &LaunchCall) -> Self {
        let gdtr = insn::sgdt();
        let read = |msr| msr::try_read(msr).unwrap_or(0);
        let segment = |selector| descriptor(call.guest_cr3, gdtr, selector);
        let with_base = |selector, base| Segment {
            base,
            ..segment(selector)
        };
        let registers = [
            (Register::Cr0, insn::read_cr0()),
            (Register::Cr4, insn::read_cr4()),
            (Register::Cr3, call.guest_cr3),
            (Register::Efer, msr::read(n::EFER) & !efer::SVME),
            (Register::Rip, call.guest_rip),
            (Register::Rflags, call.guest_rflags),
            (Register::Cr2, insn::read_cr2()),
            (Register::Dr6, insn::read_dr6()),
            (Register::Dr7, insn::read_dr7()),
            (Register::Pat, msr::read(n::IA32_PAT)),
            (Register::SysenterCs, read(n::IA32_SYSENTER_CS)),
            (Register::SysenterEsp, read(n::IA32_SYSENTER_ESP)),
            (Register::SysenterEip, read(n::IA32_SYSENTER_EIP)),
            (Register::KernelGsBase, read(n::KERNEL_GS_BASE)),
            (Register::Star, read(n::STAR)),
            (Register::Lstar, read(n::LSTAR)),
            (Register::Cstar, read(n::CSTAR)),
            (Register::Sfmask, read(n::SFMASK)),
        ];
        let task = insn::str();
        let tr = if task & !7 == 0 {
            // Firmware loads a task register on the boot processor only; a guest must have one.
            Segment {
                base: 0,
                limit: TSS_LIMIT,
                selector: 0,
                attributes: BUSY_TSS,
            }
        } else {
            segment(task)
        };
        Self {
            gdtr,
            idtr: insn::sidt(),
            segments: [
                (SegmentName::Es, segment(insn::read_es())),
                (SegmentName::Cs, segment(insn::read_cs())),
                (SegmentName::Ss, segment(insn::read_ss())),
                (SegmentName::Ds, segment(insn::read_ds())),
                (
                    SegmentName::Fs,
                    with_base(insn::read_fs(), msr::read(n::FS_BASE)),
                ),
                (
                    SegmentName::Gs,
                    with_base(insn::read_gs(), msr::read(n::GS_BASE)),
                ),
                (SegmentName::Ldtr, segment(insn::sldt())),
                (SegmentName::Tr, tr),
            ],
            registers,
            rsp: call.guest_rsp,
        }
    }

    fn register(&self, wanted: Register) -> u64 {
        self.registers
            .iter()
            .find(|(name, _)| *name == wanted)
            .map_or(0, |(_, value)| *value)
    }

    /// Sets CR0, CR4 and EFER as the hypervisor needs them. Paging depth and MCE stay as they are.
    pub fn prepare_host(&self) {
        let control = self.register(Register::Cr4) & (cr4::LA57 | cr4::MCE);
        let has_xsave = insn::cpuid(1, 0).ecx & ::x86::cpuid::leaf1_ecx::XSAVE != 0;
        let xsave = if has_xsave { cr4::OSXSAVE } else { 0 };
        // OSFXSR would only matter to vector code, of which the hypervisor has none.
        // SAFETY: keeps the paging mode; XSETBV on the guest's behalf needs OSXSAVE.
        unsafe { insn::write_cr4(control | cr4::PAE | cr4::PGE | xsave) };
        // SAFETY: protection, paging, write protection and numeric errors on; caches on.
        unsafe { insn::write_cr0(cr0::PE | cr0::MP | cr0::ET | cr0::NE | cr0::WP | cr0::PG) };
        let mode = msr::read(n::EFER);
        // SAFETY: adds no-execute, which the hypervisor's tables use.
        unsafe { msr::write(n::EFER, mode | efer::NXE) };
    }

    /// Makes `vp` go on where the loader called.
    pub fn load_into(&self, vp: &mut dyn VpBackend) {
        for (register, value) in self.registers {
            vp.set(register, value);
        }
        for (name, segment) in self.segments {
            vp.set_segment(name, segment);
        }
        vp.set_table(TableName::Gdtr, self.gdtr);
        vp.set_table(TableName::Idtr, self.idtr);
        vp.gp_mut().set(Gp::Rax, 0);
        vp.gp_mut().set(Gp::Rsp, self.rsp);
    }

    /// Gives firmware its state back, for a return to the loader with an error. The trampoline reloads the segment
    /// registers, once the firmware's tables are in force.
    ///
    /// # Safety
    /// The LP runs on the hypervisor's tables, and returns to the trampoline next.
    pub unsafe fn restore(&self) {
        // SAFETY: all of these are what firmware itself had; no descriptor is read before the trampoline.
        unsafe { insn::lgdt(self.gdtr) };
        // SAFETY: as above.
        unsafe { insn::lidt(self.idtr) };
        // SAFETY: as above.
        unsafe { insn::write_cr0(self.register(Register::Cr0)) };
        // SAFETY: as above.
        unsafe { insn::write_cr4(self.register(Register::Cr4)) };
        for (register, name) in [(n::FS_BASE, SegmentName::Fs), (n::GS_BASE, SegmentName::Gs)] {
            let base = self
                .segments
                .iter()
                .find(|(of, _)| *of == name)
                .map_or(0, |(_, segment)| segment.base);
            // SAFETY: the hypervisor's area is not used on this LP any more.
            unsafe { msr::write(register, base) };
        }
    }
}

/// The segment that `selector` names in the GDT of the tables at `cr3`. Null and unreadable ones are not usable.
fn descriptor(cr3: u64, gdtr: TableRegister, selector: u16) -> Segment {
    let unusable = Segment {
        selector,
        attributes: UNUSABLE,
        ..Segment::default()
    };
    let index = selector & !7;
    if index == 0 || selector & 4 != 0 || index.saturating_add(7) > gdtr.limit {
        return unusable;
    }
    let Some(low) = read_firmware(cr3, gdtr.base.wrapping_add(u64::from(index))) else {
        return unusable;
    };
    let attributes = (low >> 40 & 0xF0FF) as u16;
    let limit = (low & 0xFFFF | low >> 32 & 0xF_0000) as u32;
    let granular = attributes & 1 << 15 != 0;
    let mut base = low >> 16 & 0xFF_FFFF | low >> 32 & 0xFF00_0000;
    let is_system = attributes & 1 << 4 == 0;
    if is_system {
        let high = read_firmware(cr3, gdtr.base.wrapping_add(u64::from(index) + 8)).unwrap_or(0);
        base |= high << 32;
    }
    Segment {
        base,
        limit: if granular { limit << 12 | 0xFFF } else { limit },
        selector,
        attributes,
    }
}

/// Eight bytes at the firmware's virtual address `at`, by its own tables.
fn read_firmware(cr3: u64, at: u64) -> Option<u64> {
    let state = paging::walk::PagingState {
        cr0: insn::read_cr0(),
        cr3,
        cr4: insn::read_cr4(),
        efer: msr::read(n::EFER),
        phys_bits: 52,
        has_gib_pages: true,
        ..Default::default()
    };
    let found = paging::walk::translate(
        &state,
        &phys::Ram,
        addr::Gva::new(at),
        paging::walk::Access::Read,
    )
    .ok()?;
    phys::read_guest_u64(addr::Spa::new(found.gpa.get()))
}
