//! Putting a kernel into a child's memory and saying how its first VP begins.
//!
//! Follows "The Linux/x86 Boot Protocol" (Linux, `Documentation/arch/x86/boot.rst`): the child enters at the 64-bit
//! entry, or at the 32-bit one when its kernel has no other. There is no firmware.

mod entry;
mod image;
mod zero_page;

use std::fs::File;
use std::io::{Seek, SeekFrom};

use child_layout::GAP;
use tlfs::RegisterName;
use vm_memory::{Bytes, GuestAddress, GuestMemoryBackend, GuestMemoryRegion};

use crate::{acpi, map};
use image::{Kernel, Placed};

/// What there is to know besides kernel and initrd.
#[derive(Clone, Copy, Debug)]
pub struct Options<'a> {
    /// Number of VPs, 1 to [`map::MAX_VPS`]. Their APIC ids are their numbers.
    pub vps: u32,
    /// The kernel's command line, without a final zero.
    pub command_line: &'a str,
    /// Random bytes for the kernel's generator, if there are some.
    pub seed: Option<[u8; 32]>,
}

/// How VPs begin.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BootState {
    /// Registers of VP 0, in the order in which they can be set one by one.
    pub registers: Vec<(RegisterName, u128)>,
    /// Registers of every other VP. Each waits for its start-up IPI besides.
    pub other_vps: Vec<(RegisterName, u128)>,
}

/// Why no kernel was loaded. What the memory holds is then not defined.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// Memory without the low part that a PC has.
    #[error("memory: a child's RAM begins at 0 and goes on to 2M at least")]
    Memory,
    /// Too many VPs, or none.
    #[error("vps = {0}: give 1 to {max}", max = map::MAX_VPS)]
    Vps(u32),
    /// Neither a bzImage nor an ELF file.
    #[error(
        "kernel: no Linux kernel; give a bzImage (a distribution's vmlinuz) or a 64-bit vmlinux"
    )]
    Kernel,
    /// The kernel has the right form and cannot be read.
    #[error("kernel: {0}; give a complete file, or more memory if it does not fit")]
    KernelContent(linux_loader::loader::Error),
    /// The kernel does not fit.
    #[error(
        "kernel: it needs memory up to {needed} MiB below 3 GiB; give memory = \"{needed}M\" or more"
    )]
    KernelRoom {
        /// Where the RAM would have to end, in MiB.
        needed: u64,
    },
    /// The kernel begins where no kernel can.
    #[error(
        "kernel: it wants to begin at {0:#x}, outside of the RAM from 1 MiB on; give one built for a PC"
    )]
    KernelPlace(u64),
    /// The initrd does not fit.
    #[error("initrd: {bytes} bytes do not fit beside the kernel; give more memory")]
    InitrdRoom {
        /// Its size.
        bytes: u64,
    },
    /// The command line is too long or has a zero in it.
    #[error("command_line: {length} bytes; this kernel takes at most {max}, none of them zero")]
    CommandLine {
        /// Bytes it has.
        length: usize,
        /// Bytes it may have.
        max: usize,
    },
    /// Kernel or initrd cannot be read.
    #[error("{what}: {error}")]
    Read {
        /// Which of them.
        what: &'static str,
        /// What the system says.
        error: std::io::Error,
    },
    /// The memory refused an access inside of it.
    #[error("memory: {0}")]
    Access(#[from] vm_memory::GuestMemoryError),
}

/// Puts `kernel`, `initrd` and what they need into `memory`, which is laid out as [`child_layout::layout`] says and holds
/// zeros.
///
/// The VPs do not run yet. What of the memory is not written stays as it is.
///
/// # Errors
/// See [`LoadError`]; each says what to change.
pub fn load<M: GuestMemoryBackend>(
    memory: &M,
    kernel: &mut File,
    initrd: Option<&mut File>,
    options: &Options<'_>,
) -> Result<BootState, LoadError> {
    if !(1..=map::MAX_VPS).contains(&options.vps) {
        return Err(LoadError::Vps(options.vps));
    }
    let ram = Ram::of(memory)?;
    let kernel = Kernel::load(memory, kernel, &ram)?;
    let command_line = command_line(options.command_line, &kernel)?;
    memory.write_slice(&command_line, GuestAddress(map::COMMAND_LINE.start))?;
    let initrd = match initrd {
        Some(file) => Some(place_initrd(memory, file, &ram, &kernel)?),
        None => None,
    };
    let seed = match options.seed {
        Some(seed) => Some(zero_page::put_seed(memory, &seed)?),
        None => None,
    };
    memory.write_slice(&acpi::tables(options.vps), GuestAddress(map::TABLES.start))?;
    let zero_page = zero_page::build(&kernel, initrd, seed, &ram);
    memory.write_obj(zero_page, GuestAddress(map::ZERO_PAGE))?;
    Ok(BootState {
        registers: entry::enter(memory, kernel.entry)?,
        other_vps: entry::every_vp(),
    })
}

/// Where a child's RAM ends.
#[derive(Clone, Copy, Debug)]
struct Ram {
    /// End of the part that begins at 0.
    low_end: u64,
    /// End of the part above 4 GiB; that address if there is none.
    high_end: u64,
}

impl Ram {
    fn of<M: GuestMemoryBackend>(memory: &M) -> Result<Self, LoadError> {
        let (mut low_end, mut high_end) = (0, GAP.end);
        for region in memory.iter() {
            let (start, bytes) = (region.start_addr().0, region.len());
            let end = start.checked_add(bytes).ok_or(LoadError::Memory)?;
            if start == low_end && end <= GAP.start {
                low_end = end;
            } else if start == high_end {
                high_end = end;
            } else {
                return Err(LoadError::Memory);
            }
        }
        if low_end < child_layout::GRANULE {
            return Err(LoadError::Memory);
        }
        Ok(Self { low_end, high_end })
    }
}

/// The command line with its final zero.
fn command_line(text: &str, kernel: &Kernel) -> Result<Vec<u8>, LoadError> {
    let room = map::COMMAND_LINE.end - map::COMMAND_LINE.start - 1;
    let max = room.min(kernel.command_line_max.into()) as usize;
    let length = text.len();
    if length > max || text.contains('\0') {
        return Err(LoadError::CommandLine { length, max });
    }
    let mut bytes = text.as_bytes().to_vec();
    bytes.push(0);
    Ok(bytes)
}

/// Reads the initrd to the end of the RAM that the kernel reaches.
fn place_initrd<M: GuestMemoryBackend>(
    memory: &M,
    file: &mut File,
    ram: &Ram,
    kernel: &Kernel,
) -> Result<Placed, LoadError> {
    let read = |error| LoadError::Read {
        what: "initrd",
        error,
    };
    let bytes = file.seek(SeekFrom::End(0)).map_err(read)?;
    file.rewind().map_err(read)?;
    let end = ram.low_end.min(kernel.initrd_end);
    let start = end.checked_sub(bytes).map(|start| start & !0xFFF);
    let start = start.filter(|&start| start >= kernel.end);
    let start = start.ok_or(LoadError::InitrdRoom { bytes })?;
    memory.read_exact_volatile_from(GuestAddress(start), file, bytes as usize)?;
    Ok(Placed { start, bytes })
}

#[cfg(test)]
mod tests;
