//! The checks of the hypervisor's ELF file.
//!
//! The file is damaged, foreign or ours. It is ours when every loadable segment lies in the image's address
//! range, on page boundaries, in order, inside the file, and no page is both writable and executable (System V
//! ABI, "Object Files" and "Program Loading").

use bootinfo::IMAGE_BASE;
use elf::ElfBytes;
use elf::abi::{EM_X86_64, ET_EXEC, PF_R, PF_W, PF_X, PT_INTERP, PT_LOAD};
use elf::endian::LittleEndian;
use elf::file::Class;
use elf::segment::ProgramHeader;

use crate::{Access, PAGE};

/// Most loadable segments of an image.
pub const MAX_SEGMENTS: usize = 16;

/// Largest image in bytes, from its first to its last page.
pub const MAX_IMAGE: u64 = 16 << 20;

/// A loadable part of the image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Segment<'a> {
    /// Offset from [`IMAGE_BASE`] in bytes, a multiple of 4 KiB.
    pub offset: u64,
    /// Length in memory in bytes, a multiple of 4 KiB. What `bytes` does not fill is zero.
    pub len: u64,
    /// Contents.
    pub bytes: &'a [u8],
    /// How its pages are mapped.
    pub access: Access,
}

/// Why a file is not the hypervisor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ImageError {
    /// Not an ELF file, or its headers point outside of it.
    NotElf,
    /// An ELF file, but not a 64-bit little-endian x86-64 executable linked at a fixed address.
    WrongKind,
    /// It asks for a dynamic linker.
    Dynamic,
    /// No segment is loadable.
    Empty,
    /// More than [`MAX_SEGMENTS`] loadable segments.
    TooManySegments,
    /// A segment lies outside of the image's addresses, off a page boundary, or over its predecessor.
    BadAddress,
    /// A segment's contents lie outside of the file: the file was cut short.
    Truncated,
    /// A segment is writable and executable, or not readable.
    BadAccess,
    /// The entry point is in no executable segment.
    BadEntry,
}

impl ImageError {
    /// The fault in words, to follow the file's name.
    pub const fn message(self) -> &'static str {
        match self {
            Self::NotElf => "is not an ELF file or its headers are damaged",
            Self::WrongKind => "is not a 64-bit x86-64 executable linked at a fixed address",
            Self::Dynamic => "needs a dynamic linker",
            Self::Empty => "has no loadable segment",
            Self::TooManySegments => "has too many loadable segments",
            Self::BadAddress => "has a segment at a wrong address",
            Self::Truncated => "is cut short",
            Self::BadAccess => {
                "has a segment that is both writable and executable, or not readable"
            }
            Self::BadEntry => "has its entry point outside of its code",
        }
    }
}

/// A checked image.
#[derive(Clone, Copy, Debug)]
pub struct Image<'a> {
    segments: [Option<Segment<'a>>; MAX_SEGMENTS],
    len: u64,
    entry: u64,
}

impl<'a> Image<'a> {
    /// Checks `file`.
    ///
    /// # Errors
    /// [`ImageError`]: the first fault found.
    pub fn parse(file: &'a [u8]) -> Result<Self, ImageError> {
        let elf = ElfBytes::<LittleEndian>::minimal_parse(file).map_err(|_| ImageError::NotElf)?;
        let header = elf.ehdr;
        if header.class != Class::ELF64 || header.e_machine != EM_X86_64 || header.e_type != ET_EXEC
        {
            return Err(ImageError::WrongKind);
        }
        let mut image = Self {
            segments: [None; MAX_SEGMENTS],
            len: 0,
            entry: header.e_entry,
        };
        let mut slots = image.segments.iter_mut();
        for program in elf.segments().ok_or(ImageError::Empty)?.iter() {
            if program.p_type == PT_INTERP {
                return Err(ImageError::Dynamic);
            }
            if program.p_type != PT_LOAD || program.p_memsz == 0 {
                continue;
            }
            let segment = Segment::check(file, &program, image.len)?;
            image.len = segment.offset + segment.len;
            *slots.next().ok_or(ImageError::TooManySegments)? = Some(segment);
        }
        if image.len == 0 {
            return Err(ImageError::Empty);
        }
        let in_code = |segment: &Segment<'_>| {
            let start = IMAGE_BASE + segment.offset;
            segment.access == Access::ReadExecute
                && (start..start + segment.bytes.len() as u64).contains(&image.entry)
        };
        if !image.segments().any(|segment| in_code(&segment)) {
            return Err(ImageError::BadEntry);
        }
        Ok(image)
    }

    /// The loadable segments, by ascending offset, apart from each other.
    pub fn segments(&self) -> impl Iterator<Item = Segment<'a>> {
        self.segments.iter().flatten().copied()
    }

    /// Bytes from [`IMAGE_BASE`] to the end of the last segment, a multiple of 4 KiB. Pages between segments
    /// belong to the image and stay unmapped.
    pub const fn size(&self) -> u64 {
        self.len
    }

    /// Virtual address of the entry point.
    pub const fn entry(&self) -> u64 {
        self.entry
    }
}

impl<'a> Segment<'a> {
    /// Checks one program header; `floor` is the offset where the segment before it ends.
    fn check(file: &'a [u8], program: &ProgramHeader, floor: u64) -> Result<Self, ImageError> {
        let offset = program
            .p_vaddr
            .checked_sub(IMAGE_BASE)
            .ok_or(ImageError::BadAddress)?;
        if !offset.is_multiple_of(PAGE) || offset < floor {
            return Err(ImageError::BadAddress);
        }
        let end = offset
            .checked_add(program.p_memsz)
            .filter(|&end| end <= MAX_IMAGE)
            .ok_or(ImageError::BadAddress)?;
        if program.p_filesz > program.p_memsz {
            return Err(ImageError::BadAddress);
        }
        let access = match program.p_flags & (PF_R | PF_W | PF_X) {
            flags if flags == PF_R => Access::Read,
            flags if flags == PF_R | PF_W => Access::ReadWrite,
            flags if flags == PF_R | PF_X => Access::ReadExecute,
            _ => return Err(ImageError::BadAccess),
        };
        let start = usize::try_from(program.p_offset).map_err(|_| ImageError::Truncated)?;
        let filled = usize::try_from(program.p_filesz).map_err(|_| ImageError::Truncated)?;
        let bytes = start
            .checked_add(filled)
            .and_then(|end| file.get(start..end))
            .ok_or(ImageError::Truncated)?;
        Ok(Self {
            offset,
            len: end.next_multiple_of(PAGE) - offset,
            bytes,
            access,
        })
    }
}

#[cfg(test)]
mod tests;
