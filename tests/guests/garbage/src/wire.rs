//! The child's way to its VMBus server.

use core::sync::atomic::Ordering;

use tlfs::msr;
use vmbus_client::{POST, SIGNAL, SINT, Said, Wire, post_input};

use crate::machine::{EVENTS, INPUT, MESSAGES, call, now_100ns, word, wrmsr};

/// A fast call has its input in registers.
const FAST: u64 = 1 << 16;
/// A worker sleeps in the parent, which may be emulated.
pub const PATIENCE_100NS: u64 = 30 * 10_000_000;
/// For what is said at once, or not at all.
pub const SOON_100NS: u64 = 1_000_000;

/// Through the hypercall page, with messages looked for.
pub struct Calls {
    /// How long a message is waited for.
    pub patience_100ns: u64,
}

impl Wire for Calls {
    fn post(&mut self, connection: u32, kind: u32, payload: &[u8]) -> u64 {
        for (at, piece) in post_input(connection, kind, payload).chunks(8).enumerate() {
            let mut bytes = [0; 8];
            bytes[..piece.len()].copy_from_slice(piece);
            word(INPUT + at as u64 * 8).store(u64::from_le_bytes(bytes), Ordering::Relaxed);
        }
        call(POST.0.into(), INPUT)
    }

    fn take(&mut self) -> Option<Said> {
        let slot = MESSAGES + u64::from(SINT) * 256;
        let deadline = now_100ns() + self.patience_100ns;
        while word(slot).load(Ordering::Acquire) as u32 == 0 {
            if now_100ns() > deadline {
                return None;
            }
            core::hint::spin_loop();
        }
        let words = core::array::from_fn(|n| word(slot + n as u64 * 8).load(Ordering::Relaxed));
        word(slot).store(0, Ordering::SeqCst);
        wrmsr(msr::EOM, 0);
        Some(Said::of(&words))
    }

    fn signal(&mut self, connection: u32, flag: u16) -> u64 {
        let input = u64::from(connection) | u64::from(flag) << 32;
        call(u64::from(SIGNAL.0) | FAST, input)
    }

    fn take_flag(&mut self, number: u16) -> bool {
        let at = EVENTS + u64::from(SINT) * 256 + u64::from(number) / 64 * 8;
        let bit = 1 << (number % 64);
        word(at).fetch_and(!bit, Ordering::SeqCst) & bit != 0
    }
}
