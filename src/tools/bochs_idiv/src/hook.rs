//! Code in front of a function of the program.

use std::ffi::{CStr, c_void};

use super::{JUMP, redirect};

/// The first bytes of a function, whole instructions that move to make room for the jump. `None` stands for a byte of an
/// operand; none of them depends on where it lies.
pub(super) type Prologue<const MOVED: usize> = [Option<u8>; MOVED];

/// The address of a dynamic symbol of the program.
pub(super) fn symbol(name: &CStr) -> Option<*mut c_void> {
    // SAFETY: the name is a valid C string; the default handle needs nothing.
    let symbol = unsafe { libc::dlsym(libc::RTLD_DEFAULT, name.as_ptr()) };
    (!symbol.is_null()).then_some(symbol)
}

/// Lets `body` run whenever `function` is called, before it. False, and nothing changed, where the function does not
/// begin with `prologue`, or memory cannot be had.
///
/// `body` must keep all registers that carry arguments, and may use RAX.
pub(super) fn prepend<const MOVED: usize>(
    function: *mut c_void,
    prologue: &Prologue<MOVED>,
    body: &[u8],
) -> bool {
    const { assert!(MOVED >= JUMP) };
    // SAFETY: the symbol names a function, which is longer than its prologue.
    let found = unsafe { function.cast::<[u8; MOVED]>().read() };
    let is_expected = prologue
        .iter()
        .zip(found)
        .all(|(expected, byte)| expected.is_none_or(|expected| expected == byte));
    is_expected
        && place(&preamble(body, &found, function as u64 + MOVED as u64))
            .is_some_and(|code| redirect(function.cast(), code))
}

/// `body`, then the function's first bytes, then a jump to the `rest` of it.
fn preamble(body: &[u8], moved: &[u8], rest: u64) -> Vec<u8> {
    let mut code = body.to_vec();
    code.extend(moved);
    // JMP [RIP + 0]: the prologue's results, flags included, are still wanted.
    code.extend([0xFF, 0x25, 0, 0, 0, 0]);
    code.extend(rest.to_le_bytes());
    code
}

/// Copies `code` to memory that can be executed.
fn place(code: &[u8]) -> Option<u64> {
    const PAGE: usize = 4096;
    // SAFETY: a new private mapping of a page of zeros.
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
    if page == libc::MAP_FAILED || code.len() > PAGE {
        return None;
    }
    // SAFETY: the page is ours, writable, and long enough.
    unsafe { std::ptr::copy_nonoverlapping(code.as_ptr(), page.cast(), code.len()) };
    // SAFETY: the page is ours.
    let done = unsafe { libc::mprotect(page, PAGE, libc::PROT_READ | libc::PROT_EXEC) };
    (done == 0).then_some(page as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_preamble_ends_in_the_moved_bytes_and_a_jump_behind_them() {
        let code = preamble(&[0x90; 3], &[0x11; 14], 0x1234_5678_9ABC);
        assert_eq!(code[..3], [0x90; 3]);
        assert_eq!(code[3..17], [0x11; 14]);
        assert_eq!(code[17..23], [0xFF, 0x25, 0, 0, 0, 0]);
        assert_eq!(code[23..], 0x1234_5678_9ABC_u64.to_le_bytes());
    }

    #[test]
    fn another_function_is_left_alone() {
        let function = [0x90u8; 64];
        let changed = prepend(
            function.as_ptr().cast_mut().cast(),
            &[Some(0xF3); JUMP],
            &[],
        );
        assert!(!changed);
        assert_eq!(function, [0x90; 64]);
    }
}
