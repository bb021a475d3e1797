//! Marks around a measurement, where the emulator's debugger begins and ends a profile (`cargo xtask profile`).
#![expect(unsafe_code, reason = "the mark is an instruction")]

use core::fmt::{self, Write};
use core::sync::atomic::{AtomicU64, Ordering};

/// The measurement to be marked, by the hash of its name; 0 for none.
static WANTED: AtomicU64 = AtomicU64::new(0);

/// From now on the measurement `name` is marked.
pub fn want(name: &str) {
    WANTED.store(hash(&name), Ordering::SeqCst);
}

/// Stands before and behind the measurement `name`.
pub fn mark(name: impl fmt::Display) {
    if WANTED.load(Ordering::SeqCst) == hash(&name) {
        // SAFETY: exchanges a register with itself. Bochs stops there when it was told to; nothing else notices.
        unsafe { core::arch::asm!("xchg bx, bx", options(nomem, nostack, preserves_flags)) };
    }
}

/// FNV-1a, over the text as it is printed. Not 0 for any name in use.
fn hash(name: &impl fmt::Display) -> u64 {
    struct Fnv(u64);
    impl Write for Fnv {
        fn write_str(&mut self, text: &str) -> fmt::Result {
            for byte in text.bytes() {
                self.0 = (self.0 ^ u64::from(byte)).wrapping_mul(0x100_0000_01B3);
            }
            Ok(())
        }
    }
    let mut state = Fnv(0xCBF2_9CE4_8422_2325);
    let _ = write!(state, "{name}");
    state.0
}
