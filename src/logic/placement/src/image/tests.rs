extern crate std;

use std::vec::Vec;

use proptest::prelude::*;

use super::*;

/// Type, flags, offset, address, bytes in file, bytes in memory.
type Program = (u32, u32, u64, u64, u64, u64);

const RX: u32 = PF_R | PF_X;
const RW: u32 = PF_R | PF_W;
const ENTRY: u64 = IMAGE_BASE + 0x10;

fn good() -> Vec<Program> {
    std::vec![
        (PT_LOAD, RX, 0x1000, IMAGE_BASE, 0x800, 0x800),
        (PT_LOAD, PF_R, 0x2000, IMAGE_BASE + 0x1000, 0x1000, 0x1000),
        (PT_LOAD, RW, 0x3000, IMAGE_BASE + 0x3000, 0x10, 0x2010),
    ]
}

/// A file of 0x4000 bytes with the given program headers.
fn file(programs: &[Program], entry: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    bytes.extend_from_slice(&[0x7F, b'E', b'L', b'F', 2, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
    bytes.extend_from_slice(&ET_EXEC.to_le_bytes());
    bytes.extend_from_slice(&EM_X86_64.to_le_bytes());
    bytes.extend_from_slice(&1u32.to_le_bytes());
    bytes.extend_from_slice(&entry.to_le_bytes());
    bytes.extend_from_slice(&64u64.to_le_bytes());
    bytes.extend_from_slice(&0u64.to_le_bytes());
    bytes.extend_from_slice(&0u32.to_le_bytes());
    for half in [64u16, 56, programs.len() as u16, 64, 0, 0] {
        bytes.extend_from_slice(&half.to_le_bytes());
    }
    for &(kind, flags, offset, address, in_file, in_memory) in programs {
        bytes.extend_from_slice(&kind.to_le_bytes());
        bytes.extend_from_slice(&flags.to_le_bytes());
        for value in [offset, address, address, in_file, in_memory, PAGE] {
            bytes.extend_from_slice(&value.to_le_bytes());
        }
    }
    bytes.resize(0x4000, 0xA5);
    bytes
}

fn fault_with(change: impl FnOnce(&mut Vec<Program>)) -> ImageError {
    let mut programs = good();
    change(&mut programs);
    Image::parse(&file(&programs, ENTRY))
        .map(|_| ())
        .expect_err("must be refused")
}

#[test]
fn a_good_image_gives_its_segments() {
    let bytes = file(&good(), ENTRY);
    let image = Image::parse(&bytes).unwrap();
    let segments: Vec<_> = image
        .segments()
        .map(|s| (s.offset, s.len, s.bytes.len(), s.access))
        .collect();
    assert_eq!(
        segments,
        [
            (0, 0x1000, 0x800, Access::ReadExecute),
            (0x1000, 0x1000, 0x1000, Access::Read),
            (0x3000, 0x3000, 0x10, Access::ReadWrite),
        ]
    );
    assert_eq!((image.size(), image.entry()), (0x6000, ENTRY));
}

#[test]
fn foreign_files_are_told_apart_from_damaged_ones() {
    let kind = |at: usize, value: u8| {
        let mut bytes = file(&good(), ENTRY);
        bytes[at] = value;
        Image::parse(&bytes)
            .map(|_| ())
            .expect_err("must be refused")
    };
    assert_eq!(kind(0, 0), ImageError::NotElf);
    assert_eq!(kind(5, 2), ImageError::NotElf);
    assert_eq!(kind(16, 3), ImageError::WrongKind);
    assert_eq!(kind(18, 3), ImageError::WrongKind);
    assert_eq!(Image::parse(b"").map(|_| ()), Err(ImageError::NotElf));
    assert_eq!(
        Image::parse(&file(&[], ENTRY)).map(|_| ()),
        Err(ImageError::Empty)
    );
    assert_eq!(fault_with(|p| p[0].0 = PT_INTERP), ImageError::Dynamic);
}

#[test]
fn segments_stay_in_their_addresses_and_in_the_file() {
    assert_eq!(fault_with(|p| p[0].3 = 0x10_0000), ImageError::BadAddress);
    assert_eq!(fault_with(|p| p[1].3 += 8), ImageError::BadAddress);
    assert_eq!(fault_with(|p| p[1].3 = IMAGE_BASE), ImageError::BadAddress);
    assert_eq!(fault_with(|p| p[2].5 = MAX_IMAGE), ImageError::BadAddress);
    assert_eq!(fault_with(|p| p[2].5 = u64::MAX), ImageError::BadAddress);
    assert_eq!(fault_with(|p| p[2].4 = 0x3000), ImageError::BadAddress);
    assert_eq!(fault_with(|p| p[2].2 = 0x3FF8), ImageError::Truncated);
    assert_eq!(fault_with(|p| p[2].2 = u64::MAX), ImageError::Truncated);
}

#[test]
fn no_page_is_writable_and_executable() {
    assert_eq!(
        fault_with(|p| p[0].1 = PF_R | PF_W | PF_X),
        ImageError::BadAccess
    );
    assert_eq!(fault_with(|p| p[0].1 = PF_X), ImageError::BadAccess);
}

#[test]
fn the_entry_lies_in_code_that_the_file_holds() {
    for entry in [0, IMAGE_BASE + 0x800, IMAGE_BASE + 0x1000, IMAGE_BASE - 1] {
        assert_eq!(
            Image::parse(&file(&good(), entry)).map(|_| ()),
            Err(ImageError::BadEntry)
        );
    }
}

#[test]
fn too_many_segments_are_refused() {
    let many: Vec<Program> = (0..MAX_SEGMENTS as u64 + 1)
        .map(|n| (PT_LOAD, RX, 0x1000, IMAGE_BASE + n * PAGE, 0x100, 0x100))
        .collect();
    assert_eq!(
        Image::parse(&file(&many, ENTRY)).map(|_| ()),
        Err(ImageError::TooManySegments)
    );
    assert!(Image::parse(&file(&many[1..], IMAGE_BASE + PAGE)).is_ok());
}

proptest! {
    /// Whatever the damage in the headers, what passes obeys the rules.
    #[test]
    fn a_damaged_file_is_refused_or_obeys_the_rules(changes in prop::collection::vec((0usize..0x100, any::<u8>()), 1..6), cut in 0usize..0x4000) {
        let mut bytes = file(&good(), ENTRY);
        for (at, value) in changes {
            bytes[at] = value;
        }
        bytes.truncate(0x4000 - cut / 4);
        if let Ok(image) = Image::parse(&bytes) {
            let mut floor = 0;
            for segment in image.segments() {
                prop_assert!(segment.offset >= floor && segment.offset.is_multiple_of(PAGE));
                prop_assert!(segment.bytes.len() as u64 <= segment.len);
                floor = segment.offset + segment.len;
            }
            prop_assert!(floor == image.size() && floor <= MAX_IMAGE);
        }
    }
}
