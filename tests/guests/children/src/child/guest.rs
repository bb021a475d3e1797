//! A child with memory, page tables, VPs, and a program to run.
#![expect(
    unsafe_code,
    reason = "the pages shared with a child are found by their address"
)]

use core::ops::{Deref, DerefMut};

use machine::{insn, trap};
use tlfs::HvError;
use tlfs::call::CreateFlags;
use tlfs::register::RegisterName as N;
use x86::{Segment, TableRegister};

use super::code::{self, Program};
use super::runtime::{Entry, Shared};
use super::{image, layout};
use crate::arena::{self, CHUNK, FRAME};
use crate::client::partition::{Child, Gone, RWX, RX, USUAL};
use crate::client::vp::{segment_value, table_value};

/// A child that can run programs.
#[derive(Debug)]
pub struct Guest {
    child: Child,
    /// Its first 2 MiB, as the parent sees them.
    pub room: u64,
}

impl Deref for Guest {
    type Target = Child;
    fn deref(&self) -> &Child {
        &self.child
    }
}

impl DerefMut for Guest {
    fn deref_mut(&mut self) -> &mut Child {
        &mut self.child
    }
}

/// The processor modes a program can start in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// 16 bits, no protection.
    Real,
    /// 32 bits without paging.
    Protected,
    /// 32 bits with two levels of tables.
    Paged,
    /// 32 bits with three levels.
    Pae,
    /// 64 bits.
    Long,
}

/// Frames of the pool beyond what the calls asked for.
const SLACK: usize = 24;

const PE: u128 = 1;
const CR0: u128 = 0x8000_0031;
const CR0_BASE: u128 = 0x31;

fn segment(selector: u16, base: u64, limit: u32, attributes: u16) -> u128 {
    segment_value(&Segment {
        base,
        limit,
        selector,
        attributes,
    })
}

impl Guest {
    /// The usual child with `vps` VPs.
    ///
    /// # Errors
    /// The status of the call that failed.
    pub fn new(vps: u32) -> Result<Self, HvError> {
        Self::with(USUAL, vps, |_| Ok(()))
    }

    /// A child with `flags`, on which `early` works before it is initialized.
    ///
    /// # Errors
    /// The status of the call that failed.
    pub fn with(
        flags: CreateFlags,
        vps: u32,
        early: impl FnOnce(&mut Child) -> Result<(), HvError>,
    ) -> Result<Self, HvError> {
        let mut child = Child::create(flags)?;
        early(&mut child)?;
        child.initialize()?;
        let room = arena::chunk();
        child.map_range(0, room, CHUNK / FRAME, RWX)?;
        for (start, pages) in image::sections() {
            child.map_range(start, start, pages, RX)?;
        }
        for vp in 0..vps {
            child.create_vp(vp)?;
        }
        // What the child does by itself can cost memory: an overlay page splits a large leaf.
        child.deposit(SLACK)?;
        let guest = Self { child, room };
        guest.build_tables();
        for vp in 0..vps {
            guest.shared(vp).prepare(vp);
        }
        Ok(guest)
    }

    fn build_tables(&self) {
        self.write(layout::PML4, layout::PDPT | 3);
        for n in 0..4 {
            let directory = layout::DIRECTORIES + n * FRAME;
            self.write(layout::PDPT + n * 8, directory | 3);
            self.write(layout::PAE_PDPT + n * 8, directory | 1);
            for entry in 0..512 {
                self.write(directory + entry * 8, ((n * 512 + entry) * CHUNK) | 0x83);
            }
        }
        for pair in 0..512_u64 {
            let first = (pair * 2 * 0x40_0000) | 0x83;
            let second = ((pair * 2 + 1) * 0x40_0000) | 0x83;
            self.write(
                layout::LEGACY_DIRECTORY + pair * 8,
                first & 0xFFFF_FFFF | second << 32,
            );
        }
        for (n, descriptor) in layout::DESCRIPTORS.into_iter().enumerate() {
            self.write(layout::GDT + n as u64 * 8, descriptor);
        }
        for vector in 0..256 {
            let handler = trap::stubs() + vector * trap::STUB_SIZE;
            let low = (handler & 0xFFFF)
                | u64::from(layout::CODE_64) << 16
                | 0x8E00 << 32
                | (handler >> 16 & 0xFFFF) << 48;
            self.write(layout::IDT + vector * 16, low);
            self.write(layout::IDT + vector * 16 + 8, handler >> 32);
        }
        // The operand of LGDT for `real_to_protected`.
        self.write(0xFF0, 31 | layout::GDT << 16);
    }

    /// Writes eight bytes at `gpa`, below 2 MiB.
    pub fn write(&self, gpa: u64, value: u64) {
        insn::write_phys64(self.room + gpa, value);
    }

    /// Reads eight bytes at `gpa`, below 2 MiB.
    pub fn read(&self, gpa: u64) -> u64 {
        insn::read_phys64(self.room + gpa)
    }

    /// The page shared with VP `vp`.
    pub fn shared(&self, vp: u32) -> &'static Shared {
        let at = self.room + layout::SHARED + u64::from(vp) * FRAME;
        // SAFETY: the chunk is identity mapped, stays mapped for good, and holds atomics only.
        unsafe { &*(at as *const Shared) }
    }

    /// Copies `program` to `gpa`.
    pub fn load_at(&self, gpa: u64, program: Program) {
        for (n, piece) in code::bytes(program).chunks(8).enumerate() {
            let mut word = [0xF4; 8];
            word[..piece.len()].copy_from_slice(piece);
            self.write(gpa + n as u64 * 8, u64::from_le_bytes(word));
        }
    }

    /// Copies `program` to its place and lets VP `vp` begin there in `mode`, with `registers` set at the end.
    ///
    /// # Errors
    /// The status of the call that failed.
    pub fn start(
        &mut self,
        vp: u32,
        mode: Mode,
        program: Program,
        registers: &[(N, u128)],
    ) -> Result<(), HvError> {
        let at = layout::CODE + u64::from(vp) * FRAME;
        self.load_at(at, program);
        self.set_mode(vp, mode, at)?;
        self.child.set(vp, registers)
    }

    /// Lets VP `vp` begin with the function `entry`, in 64-bit mode with interrupts off.
    ///
    /// # Errors
    /// The status of the call that failed.
    pub fn start_entry(&mut self, vp: u32, entry: Entry, args: &[u64]) -> Result<(), HvError> {
        let shared = self.shared(vp);
        for (n, value) in args.iter().enumerate() {
            shared.set_arg(n, *value);
        }
        self.set_mode(vp, Mode::Long, entry as *const () as u64)
    }

    /// Registers for `mode`, with RIP at `at`.
    ///
    /// # Errors
    /// The status of the call that failed.
    pub fn set_mode(&mut self, vp: u32, mode: Mode, at: u64) -> Result<(), HvError> {
        let shared = layout::SHARED + u64::from(vp) * FRAME;
        let stack = layout::STACKS + (u64::from(vp) % layout::MAX_VPS + 1) * layout::STACK - 8;
        let (cr0, cr3, cr4, efer) = match mode {
            Mode::Real => (CR0_BASE & !PE, 0, 0, 0),
            Mode::Protected => (CR0_BASE, 0, 0, 0),
            Mode::Paged => (CR0, layout::LEGACY_DIRECTORY, 0x10, 0),
            Mode::Pae => (CR0, layout::PAE_PDPT, 0x20, 0),
            Mode::Long => (CR0, layout::PML4, 0x620, 0x500),
        };
        let data = match mode {
            Mode::Real => segment(0, 0, 0xFFFF, 0x93),
            _ => segment(layout::DATA_32, 0, u32::MAX, 0xC093),
        };
        let (code, rip) = match mode {
            Mode::Real => (segment((at >> 4) as u16, at, 0xFFFF, 0x9B), 0),
            Mode::Long => (segment(layout::CODE_64, 0, u32::MAX, 0xA09B), at),
            _ => (segment(layout::CODE_32, 0, u32::MAX, 0xC09B), at),
        };
        let table = |base, limit| table_value(&TableRegister { base, limit });
        let gs = match mode {
            Mode::Real => data,
            _ => segment(layout::DATA_32, shared, u32::MAX, 0xC093),
        };
        let registers = [
            (N::CR0, CR0_BASE & !PE),
            (N::EFER, efer),
            (N::CR4, cr4),
            (N::CR3, cr3.into()),
            (N::CR0, cr0),
            (N::CS, code),
            (N::DS, data),
            (N::ES, data),
            (N::SS, data),
            (N::FS, data),
            (N::GS, gs),
            (N::LDTR, segment(0, 0, 0xFFFF, 0x82)),
            (N::TR, segment(0, 0, 0xFFFF, 0x8B)),
            (N::GDTR, table(layout::GDT, 31)),
            (N::IDTR, table(layout::IDT, 4095)),
            (N::RIP, rip.into()),
            (
                N::RSP,
                u128::from(stack)
                    & if mode == Mode::Real {
                        0xFFF8
                    } else {
                        u128::MAX
                    },
            ),
            (N::RFLAGS, 2),
            (N(N::RAX.0 + 7), shared.into()),
            // As at a reset: what was being delivered is forgotten.
            (N::PENDING_INTERRUPTION, 0),
            (N::PENDING_EVENT_0, 0),
            (N::INTERRUPT_STATE, 0),
        ];
        self.child.set(vp, &registers)
    }

    /// Forgets a child that went without being asked: all its frames are the parent's.
    pub fn forget(self) {
        for frame in &self.child.deposited {
            arena::free(*frame);
        }
        for pages in &self.child.vps {
            arena::free(pages.registers);
            arena::free(pages.intercept);
        }
        arena::free_chunk(self.room);
    }

    /// Takes everything back.
    pub fn destroy(self) -> Gone {
        let gone = self.child.destroy();
        if gone.delete == 0 {
            arena::free_chunk(self.room);
        }
        gone
    }
}
