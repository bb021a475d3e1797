//! Files that say that they are kernels.
#![no_main]

use std::io::Write;

use libfuzzer_sys::fuzz_target;
use platform::{Options, load};
use vm_memory::{GuestAddress, GuestMemoryMmap};

fuzz_target!(|bytes: &[u8]| {
    let Some((first, content)) = bytes.split_first() else {
        return;
    };
    let mut kernel = tempfile::tempfile().unwrap();
    // Nearly all files are neither: half of them begin as one of both does.
    let mut content = content.to_vec();
    match first % 4 {
        0 if content.len() > 0x206 => content[0x202..0x206].copy_from_slice(b"HdrS"),
        1 if content.len() > 8 => content[..8].copy_from_slice(b"\x7FELF\x02\x01\x01\x00"),
        _ => {}
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
