//! Kernels: bzImage and ELF.

use std::fs::File;
use std::io::{self, ErrorKind, Read, Seek, SeekFrom};
use std::ops::Range;

use child_layout::GRANULE;
use linux_loader::loader::bootparam::setup_header;
use linux_loader::loader::{BzImage, Elf, KernelLoader};
use vm_memory::{GuestAddress, GuestMemoryBackend};

use super::{LoadError, Ram};
use crate::map;

/// Magic at 0x202, and what it is in a setup header that we make.
const HEADER_MAGIC: u32 = 0x5372_6448;
const BOOT_FLAG: u16 = 0xAA55;
/// Protocol versions that brought a field.
const HAS_COMMAND_LINE_SIZE: u16 = 0x206;
const HAS_PREFERRED_ADDRESS: u16 = 0x20A;
const HAS_XLOADFLAGS: u16 = 0x20C;
/// `XLF_KERNEL_64`: there is a 64-bit entry at 0x200.
const KERNEL_64: u16 = 1;
const ENTRY_64_OFFSET: u64 = 0x200;
/// What a kernel of an old protocol takes.
const OLD_COMMAND_LINE: u32 = 255;
const OLD_INITRD_END: u64 = 0x3800_0000;

/// Where something lies in memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Placed {
    pub start: u64,
    pub bytes: u64,
}

/// The address at which VP 0 begins, and how.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Entry {
    /// 64-bit mode with paging.
    Bits64(u64),
    /// Protected mode without paging.
    Bits32(u64),
}

/// A kernel in memory.
pub(super) struct Kernel {
    /// The setup header for the zero page.
    pub header: setup_header,
    pub entry: Entry,
    /// End of what the kernel uses before it knows of any other memory.
    pub end: u64,
    /// End of the memory in which the initrd may lie.
    pub initrd_end: u64,
    /// Bytes of a command line without the final zero.
    pub command_line_max: u32,
}

impl Kernel {
    /// Loads `file` into `memory`.
    pub fn load<M: GuestMemoryBackend>(
        memory: &M,
        file: &mut File,
        ram: &Ram,
    ) -> Result<Self, LoadError> {
        let read = |error| LoadError::Read {
            what: "kernel",
            error,
        };
        let magic: [u8; 4] = read_at(file, 0).map_err(read)?.ok_or(LoadError::Kernel)?;
        if magic == *b"\x7FELF" {
            return Self::load_elf(memory, file, ram);
        }
        let magic = read_at(file, 0x202).map_err(read)?;
        if magic != Some(HEADER_MAGIC.to_le_bytes()) {
            return Err(LoadError::Kernel);
        }
        Self::load_bzimage(memory, file, ram)
    }

    fn load_bzimage<M: GuestMemoryBackend>(
        memory: &M,
        file: &mut File,
        ram: &Ram,
    ) -> Result<Self, LoadError> {
        let content = LoadError::KernelContent;
        let start = bzimage_start(file)?;
        if start < map::HIGH_RAM {
            return Err(LoadError::KernelPlace(start));
        }
        let loaded = BzImage::load(memory, Some(GuestAddress(start)), file, None);
        let loaded = loaded.map_err(content)?;
        let header = loaded.setup_header.unwrap_or_default();
        let is_64 = header.version >= HAS_XLOADFLAGS && header.xloadflags & KERNEL_64 != 0;
        let init_bytes = match header.version {
            HAS_PREFERRED_ADDRESS.. => u64::from(header.init_size),
            _ => 0,
        };
        // A kernel that is loaded below the address it prefers moves there.
        let runs_at = match header.version {
            HAS_PREFERRED_ADDRESS.. => start.max(header.pref_address),
            _ => start,
        };
        let end = runs_at.saturating_add(init_bytes).max(loaded.kernel_end);
        check_room(map::HIGH_RAM..end, ram)?;
        let (command_line_max, initrd_end) = match header.version {
            HAS_COMMAND_LINE_SIZE.. => (header.cmdline_size, u64::from(header.initrd_addr_max) + 1),
            _ => (OLD_COMMAND_LINE, OLD_INITRD_END),
        };
        Ok(Self {
            header,
            entry: if is_64 {
                Entry::Bits64(start + ENTRY_64_OFFSET)
            } else {
                Entry::Bits32(start)
            },
            end,
            initrd_end,
            command_line_max,
        })
    }

    fn load_elf<M: GuestMemoryBackend>(
        memory: &M,
        file: &mut File,
        ram: &Ram,
    ) -> Result<Self, LoadError> {
        let class: Option<[u8; 1]> = read_at(file, 4).map_err(|error| LoadError::Read {
            what: "kernel",
            error,
        })?;
        if class != Some([2]) {
            return Err(LoadError::Kernel);
        }
        let loaded = Elf::load(memory, None, file, Some(GuestAddress(map::HIGH_RAM)));
        let loaded = loaded.map_err(LoadError::KernelContent)?;
        let entry = loaded.kernel_load.0;
        check_room(entry..loaded.kernel_end, ram)?;
        // The kernel reads this as the header of its own bzImage.
        let header = setup_header {
            boot_flag: BOOT_FLAG,
            header: HEADER_MAGIC,
            version: HAS_XLOADFLAGS,
            loadflags: 1,
            kernel_alignment: 0x20_0000,
            xloadflags: KERNEL_64,
            ..setup_header::default()
        };
        Ok(Self {
            header,
            entry: Entry::Bits64(entry),
            end: loaded.kernel_end,
            initrd_end: 1 << 31,
            command_line_max: 2047,
        })
    }
}

/// Where the kernel of a bzImage is to be put.
fn bzimage_start(file: &mut File) -> Result<u64, LoadError> {
    let field = |file: &mut File, at| -> Result<[u8; 8], LoadError> {
        let bytes = read_at(file, at).map_err(|error| LoadError::Read {
            what: "kernel",
            error,
        })?;
        bytes.ok_or(LoadError::Kernel)
    };
    let [_, _, _, _, low, high, ..] = field(file, 0x202)?;
    let [a, b, c, d, ..] = field(file, 0x214)?;
    let default = u64::from(u32::from_le_bytes([a, b, c, d]));
    let [is_relocatable, ..] = field(file, 0x234)?;
    let preferred = u64::from_le_bytes(field(file, 0x258)?);
    let has_preferred = u16::from_le_bytes([low, high]) >= HAS_PREFERRED_ADDRESS;
    Ok(if has_preferred && is_relocatable != 0 {
        preferred
    } else {
        default
    })
}

fn check_room(needed: Range<u64>, ram: &Ram) -> Result<(), LoadError> {
    if needed.start < map::HIGH_RAM || needed.start >= needed.end {
        return Err(LoadError::KernelPlace(needed.start));
    }
    if needed.end > ram.low_end {
        return Err(LoadError::KernelRoom {
            needed: needed.end.div_ceil(GRANULE) * (GRANULE >> 20),
        });
    }
    Ok(())
}

/// The bytes at `offset`, or `None` when the file ends before.
fn read_at<const N: usize>(file: &mut File, offset: u64) -> io::Result<Option<[u8; N]>> {
    let mut bytes = [0; N];
    file.seek(SeekFrom::Start(offset))?;
    match file.read_exact(&mut bytes) {
        Ok(()) => Ok(Some(bytes)),
        Err(error) if error.kind() == ErrorKind::UnexpectedEof => Ok(None),
        Err(error) => Err(error),
    }
}
