//! A shared library to preload into QEMU, which keeps one emulated processor from undoing what another has done to its
//! own state of AMD-V.
//!
//! FRSTOR, FLDENV, FXRSTOR and XRSTOR of any processor end in `cpu_clear_ignne` (`target/i386/tcg/system/svm_helper.c` and
//! `fpu_helper.c` of QEMU 11.1), which clears a bit in `hflags2` of the machine's first processor: a load and a store
//! without a lock, from another thread. What the first processor writes to the word in between is lost, and the word
//! also holds the global interrupt flag and whether nested paging is on. A lost STGI leaves it deaf to interrupts until
//! its next VMRUN, for ever if it halts. A lost end of nested paging makes it translate the hypervisor's addresses
//! by the guest's tables, and the state of the hypervisor goes into the VMCB as that of the guest. Linux uses XRSTOR at
//! every switch between programs, so both were seen, once in some minutes of load.
//!
//! The function is a dynamic symbol. Its one store becomes a locked one to the byte that has the bit: no older value of
//! another bit is written back. Where the function looks otherwise than expected, nothing is changed.

#![expect(
    unsafe_code,
    reason = "patches a function of the program it is loaded into"
)]

use std::ffi::{CStr, c_int, c_void};

/// Clears HF2_IGNNE of the first processor.
const CLEAR: &CStr = c"cpu_clear_ignne";

/// How far into the function the store may lie. The function is longer.
const SEARCHED: usize = 64;

/// Bytes of the instruction that is replaced.
const LENGTH: usize = 10;

/// AND dword \[RAX + disp32\], not 0x80, as the compiler writes it; with the mask for the whole word.
fn find_store(code: &[u8]) -> Option<(usize, [u8; 4])> {
    code.windows(LENGTH)
        .enumerate()
        .find_map(|(at, window)| match *window {
            [0x81, 0xA0, a, b, c, d, 0x7F, 0xFF, 0xFF, 0xFF] => Some((at, [a, b, c, d])),
            _ => None,
        })
}

/// LOCK AND byte \[RAX + disp32\], 0x7F; NOP of two bytes.
const fn locked_store([a, b, c, d]: [u8; 4]) -> [u8; LENGTH] {
    [0xF0, 0x80, 0xA0, a, b, c, d, 0x7F, 0x66, 0x90]
}

extern "C" fn mend() {
    // SAFETY: the name is a valid C string; the default handle needs nothing.
    let function = unsafe { libc::dlsym(libc::RTLD_DEFAULT, CLEAR.as_ptr()) };
    if function.is_null() {
        return; // not QEMU, or one that emulates no x86 processor
    }
    // SAFETY: the function is code of the program, mapped readable; what lies behind it is code too.
    let code = unsafe { std::slice::from_raw_parts(function.cast::<u8>(), SEARCHED) };
    if let Some((at, place)) = find_store(code) {
        // SAFETY: the store lies in the function.
        let store = unsafe { function.cast::<u8>().add(at) };
        if !overwrite(store, &locked_store(place)) {
            eprintln!(
                "qemu_ignne: the program's code cannot be changed; its first processor may lose interrupts"
            );
        }
    }
}

/// Replaces code of the program. False, and nothing changed, where it cannot be made writable.
fn overwrite(at: *mut u8, code: &[u8; LENGTH]) -> bool {
    const PAGE: usize = 4096;
    let first = at as usize & !(PAGE - 1);
    let end = (at as usize + LENGTH).next_multiple_of(PAGE);
    let protect = |protection: c_int| {
        // SAFETY: the range covers pages of the program's own code, which are mapped; only their protection changes,
        // and no other thread runs yet.
        unsafe { libc::mprotect(first as *mut c_void, end - first, protection) == 0 }
    };
    if !protect(libc::PROT_READ | libc::PROT_WRITE | libc::PROT_EXEC) {
        return false;
    }
    // SAFETY: the pages are writable now, and nobody runs the function while a constructor of a preloaded library does.
    unsafe { std::ptr::copy_nonoverlapping(code.as_ptr(), at, LENGTH) };
    protect(libc::PROT_READ | libc::PROT_EXEC)
}

/// The dynamic loader calls this before `main`.
#[used]
#[unsafe(link_section = ".init_array")]
static MEND: extern "C" fn() = mend;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_store_is_found_and_keeps_its_place() {
        let code = [
            0xE8, 0, 0, 0, 0, 0x81, 0xA0, 0xA4, 0x41, 0, 0, 0x7F, 0xFF, 0xFF, 0xFF, 0x48, 0x83,
        ];
        let (at, place) = find_store(&code).unwrap();
        assert_eq!((at, place), (5, [0xA4, 0x41, 0, 0]));
        assert_eq!(
            locked_store(place),
            [0xF0, 0x80, 0xA0, 0xA4, 0x41, 0, 0, 0x7F, 0x66, 0x90]
        );
    }

    #[test]
    fn a_store_of_another_bit_is_left_alone() {
        let code = [0x81, 0xA0, 0xA4, 0x41, 0, 0, 0xBF, 0xFF, 0xFF, 0xFF];
        assert_eq!(find_store(&code), None);
    }

    #[test]
    fn the_new_code_does_what_the_old_one_did_to_the_bit() {
        // Of a page of our own: the store, with RAX from the first argument, and a return.
        const PAGE: usize = 4096;
        // SAFETY: a new private mapping.
        let page = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                PAGE,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_PRIVATE | libc::MAP_ANONYMOUS,
                -1,
                0,
            )
        };
        assert_ne!(page, libc::MAP_FAILED);
        let mut code = vec![0x48, 0x89, 0xF8];
        code.extend([0x81, 0xA0, 4, 0, 0, 0, 0x7F, 0xFF, 0xFF, 0xFF]);
        code.push(0xC3);
        // SAFETY: the page is ours and long enough.
        unsafe { std::ptr::copy_nonoverlapping(code.as_ptr(), page.cast(), code.len()) };
        let (at, place) = find_store(&code).unwrap();
        // SAFETY: inside the page.
        let store = unsafe { page.cast::<u8>().add(at) };
        assert!(overwrite(store, &locked_store(place)));
        // SAFETY: the page holds a function of this signature now.
        let clear =
            unsafe { std::mem::transmute::<*mut c_void, extern "C" fn(*mut [u32; 2])>(page) };
        let mut words = [u32::MAX; 2];
        clear(&raw mut words);
        assert_eq!(words, [u32::MAX, !0x80]);
    }
}
