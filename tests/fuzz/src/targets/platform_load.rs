//! Files that say that they are kernels.

use std::io::Write;

use platform::{Options, load};
use vm_memory::{GuestAddress, GuestMemoryMmap};

use crate::target;

target!(|bytes: &[u8]| {
    let Some((first, content)) = bytes.split_first() else {
        return;
    };
    let mut kernel = tempfile::tempfile().unwrap();
    // What is zero in the input is as in a good file.
    let good = match first % 4 {
        0 => elf(),
        1 => Vec::new(),
        _ => bzimage(),
    };
    let mut content = content.to_vec();
    if content.len() < good.len() && first & 0x80 == 0 {
        content.resize(good.len(), 0);
    }
    for (byte, good) in content.iter_mut().zip(good) {
        *byte ^= good;
    }
    kernel.write_all(&content).unwrap();
    let memory = GuestMemoryMmap::<()>::from_ranges(&[(GuestAddress(0), 32 << 20)]).unwrap();
    let options = Options {
        vps: 2,
        command_line: "console=ttyS0",
        seed: None,
    };
    if let Ok(state) = load(&memory, &mut kernel, None, &options) {
        assert!(!state.registers.is_empty());
    }
});

/// A file with these numbers, each of so many bytes, at these places.
fn file(bytes: usize, numbers: &[(usize, u64, usize)]) -> Vec<u8> {
    let mut file = vec![0; bytes];
    for &(at, number, width) in numbers {
        file[at..at + width].copy_from_slice(&number.to_le_bytes()[..width]);
    }
    file
}

/// The setup header of a kernel of today, which runs in 4 MiB from 2 MiB on.
fn bzimage() -> Vec<u8> {
    file(
        0x800,
        &[
            (0x1F1, 3, 1),
            (0x1FE, 0xAA55, 2),
            (0x202, 0x5372_6448, 4),
            (0x206, 0x20F, 2),
            (0x211, 1, 1),
            (0x214, 0x10_0000, 4),
            (0x22C, 0x7FFF_FFFF, 4),
            (0x230, 0x20_0000, 4),
            (0x234, 1, 1),
            (0x236, 1, 2),
            (0x238, 2047, 4),
            (0x258, 0x20_0000, 8),
            (0x260, 0x40_0000, 4),
        ],
    )
}

/// An ELF file with a segment and a note.
fn elf() -> Vec<u8> {
    file(
        0x100,
        &[
            (0, 0x464C_457F, 4),
            (4, 0x0001_0102, 4),
            (16, 2, 2),
            (18, 62, 2),
            (24, 0x20_0010, 8),
            (32, 64, 8),
            (54, 56, 2),
            (56, 2, 2),
            (64, 1, 4),
            (72, 0xB0, 8),
            (88, 0x20_0000, 8),
            (96, 0x20, 8),
            (104, 0x1_0000, 8),
            (120, 4, 4),
            (128, 0xD0, 8),
            (152, 0x20, 8),
            (160, 0x20, 8),
            (168, 4, 8),
            (0xD0, 4, 4),
            (0xD4, 8, 4),
            (0xD8, 18, 4),
            (0xDC, 0x006E_6558, 4),
            (0xE0, 0x20_0000, 8),
        ],
    )
}
