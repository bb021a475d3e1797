//! A shared library to preload into Bochs, which mends its 64-bit IDIV instruction, virtual machines on more than
//! one processor (`smp.rs`) and interrupts that ought to end a virtual machine's run (`masks.rs`).
//!
//! `long_idiv` of Bochs 3.1 (`cpu/wide_int.cc`) reads a signed 128-bit structure through a pointer to the
//! unsigned one. The compiler of Debian's package may assume that the two do not alias, and drops the
//! store of the low half: quotients come out wrong, and Linux dies of a divide error while it calibrates
//! its clock. The function is a dynamic symbol of the program, so this library can ask it for two known
//! quotients when it is loaded, and only if one is wrong redirect it to [`long_idiv`] below. A Bochs that
//! divides correctly is left alone.

#![expect(
    unsafe_code,
    reason = "patches a function of the program it is loaded into"
)]

mod hook;
mod masks;
mod smp;

use std::ffi::{c_int, c_void};

/// `Bit128s` of Bochs: a signed 128-bit number in two halves.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Bit128s {
    /// Bits 63:0.
    pub lo: u64,
    /// Bits 127:64, with the sign.
    pub hi: i64,
}

impl From<i128> for Bit128s {
    fn from(value: i128) -> Self {
        Self {
            lo: value as u64,
            hi: (value >> 64) as i64,
        }
    }
}

impl From<Bit128s> for i128 {
    fn from(value: Bit128s) -> Self {
        (i128::from(value.hi) << 64) | i128::from(value.lo)
    }
}

type LongIdiv = unsafe extern "C" fn(*mut Bit128s, *mut i64, *const Bit128s, i64);

/// The C++ name of `long_idiv(Bit128s *, Bit64s *, Bit128s const *, Bit64s)`.
const SYMBOL: &std::ffi::CStr = c"_Z9long_idivP7Bit128sPlPKS_l";

/// Quotient and remainder as the IDIV instruction defines them: truncated towards zero.
///
/// Bochs checks the divisor for zero first, and the quotient for overflow afterwards. Both are answered
/// without a panic all the same, since this runs inside a foreign program.
pub fn divide(dividend: i128, divisor: i64) -> (i128, i64) {
    let divisor = i128::from(divisor);
    match dividend.checked_rem(divisor) {
        // A remainder is smaller than a divisor of 64 bits, so it fits.
        Some(remainder) => (dividend / divisor, remainder as i64),
        None => (dividend.wrapping_neg(), 0),
    }
}

unsafe extern "C" fn long_idiv(
    quotient: *mut Bit128s,
    remainder: *mut i64,
    dividend: *const Bit128s,
    divisor: i64,
) {
    // SAFETY: Bochs passes three valid, aligned pointers; it did so to the function this one replaces.
    let (q, r) = divide(i128::from(unsafe { dividend.read() }), divisor);
    // SAFETY: as above.
    unsafe { quotient.write(q.into()) };
    // SAFETY: as above.
    unsafe { remainder.write(r) };
}

fn is_correct(function: LongIdiv) -> bool {
    [7i128, -7].into_iter().all(|dividend| {
        let input = Bit128s::from(dividend);
        let (mut quotient, mut remainder) = (Bit128s::default(), 0i64);
        // SAFETY: the pointers are to live locals of the types that the function expects.
        unsafe { function(&mut quotient, &mut remainder, &input, 2) };
        (i128::from(quotient), remainder) == divide(dividend, 2)
    })
}

/// Bytes of the jump that [`redirect`] writes.
const JUMP: usize = 12;

/// Overwrites the first twelve bytes of `function` with a jump to `target`, which loses RAX.
fn redirect(function: *mut u8, target: u64) -> bool {
    // MOV RAX, imm64; JMP RAX
    let mut jump: [u8; JUMP] = [0x48, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xe0];
    jump[2..10].copy_from_slice(&target.to_le_bytes());

    const PAGE: usize = 4096;
    let first = function as usize & !(PAGE - 1);
    let end = (function as usize + jump.len()).next_multiple_of(PAGE);
    let protect = |protection: c_int| {
        // SAFETY: the range covers pages of the program's own code, which are mapped; only their
        // protection changes, and no other thread runs yet.
        unsafe { libc::mprotect(first as *mut c_void, end - first, protection) == 0 }
    };
    if !protect(libc::PROT_READ | libc::PROT_WRITE | libc::PROT_EXEC) {
        return false;
    }
    // SAFETY: the pages are writable now, the function is longer than twelve bytes (each caller knows why),
    // and nobody runs it while a constructor of a preloaded library does.
    unsafe { std::ptr::copy_nonoverlapping(jump.as_ptr(), function, jump.len()) };
    protect(libc::PROT_READ | libc::PROT_EXEC)
}

extern "C" fn mend() {
    mend_division();
    smp::mend();
    masks::mend();
}

fn mend_division() {
    // SAFETY: the name is a valid C string; the default handle needs nothing.
    let symbol = unsafe { libc::dlsym(libc::RTLD_DEFAULT, SYMBOL.as_ptr()) };
    if symbol.is_null() {
        return; // not Bochs, or a Bochs with another interface: nothing to mend
    }
    // SAFETY: the mangled name fixes the signature.
    let function = unsafe { std::mem::transmute::<*mut c_void, LongIdiv>(symbol) };
    if is_correct(function) {
        return;
    }
    // It divides 128 bits, which takes more than twelve bytes.
    if !redirect(symbol.cast(), long_idiv as *const () as u64) || !is_correct(function) {
        eprintln!("bochs_idiv: this Bochs divides wrongly and could not be mended");
    }
}

/// The dynamic loader calls this before `main`.
#[used]
#[unsafe(link_section = ".init_array")]
static MEND: extern "C" fn() = mend;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn division_truncates_towards_zero() {
        assert_eq!(divide(-7, 2), (-3, -1));
        assert_eq!(divide(7, -2), (-3, 1));
        assert_eq!(divide(i128::MIN, -1), (i128::MIN, 0));
        assert_eq!(divide(1 << 100, 3), ((1 << 100) / 3, 1));
    }

    #[test]
    fn halves_round_trip() {
        for value in [0, 1, -1, i128::MAX, i128::MIN, 1 << 64, -(1 << 64)] {
            assert_eq!(i128::from(Bit128s::from(value)), value);
        }
    }

    #[test]
    fn our_own_function_passes_the_check() {
        assert!(is_correct(long_idiv));
    }
}
