//! A crash that the child's kernel reports: told to the daemon, while the child goes on. A dump kernel may follow.

use anyhow::Result;
use tlfs::register::RegisterName;
use vm_memory::{Bytes, GuestAddress, GuestMemoryMmap};
use worker_link::{CRASH_TEXT_MAX, FromWorker};

use super::Worker;

/// Reports that are told of. A child could make them without end.
const TOLD: u32 = 20;

impl Worker {
    pub(super) fn crashed(&mut self) -> Result<()> {
        self.crashes = self.crashes.saturating_add(1);
        if self.crashes > TOLD {
            return Ok(());
        }
        let names = std::array::from_fn(|number| RegisterName::CRASH_P0.nth(number as u32));
        let parts = &mut self.parts;
        let values: [u128; 5] = parts.child.registers(&mut parts.slot, 0, names)?;
        let parameters = values.map(|value| value as u64);
        let text = last_words(&parts.memory, &parameters);
        self.tell(&FromWorker::Crashed { parameters, text });
        Ok(())
    }
}

/// The end of the kernel's log, where the report names one. That it does is said in CRASH_CTL, which reads as what the
/// hypervisor can do; but Linux leaves the first three parameters 0 then (`hyperv_report_panic_msg`), of which the second
/// is the kernel's identity otherwise.
fn last_words(memory: &GuestMemoryMmap, parameters: &[u64; 5]) -> Option<String> {
    let [0, 0, 0, gpa, bytes] = *parameters else {
        return None;
    };
    let bytes = usize::try_from(bytes).ok()?;
    let mut text = vec![0; Some(bytes).filter(|bytes| (1..=CRASH_TEXT_MAX).contains(bytes))?];
    memory.read_slice(&mut text, GuestAddress(gpa)).ok()?;
    Some(String::from_utf8_lossy(&text).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn last_words_are_read_where_they_are_said_to_be() {
        let memory = GuestMemoryMmap::<()>::from_ranges(&[(GuestAddress(0), 0x1_0000)]).unwrap();
        memory
            .write_slice(b"panic\xFF", GuestAddress(0x3000))
            .unwrap();
        let words = |parameters| last_words(&memory, &parameters);
        assert_eq!(words([0, 0, 0, 0x3000, 5]).as_deref(), Some("panic"));
        assert_eq!(
            words([0, 0, 0, 0x3000, 6]).as_deref(),
            Some("panic\u{FFFD}")
        );
        for none in [
            [0, 1, 0, 0x3000, 5],
            [0, 0, 0, 0x3000, 0],
            [0, 0, 0, 0x3000, 4097],
            [0, 0, 0, 0xFFFD, 5],
            [0, 0, 0, u64::MAX, 5],
            [0, 0, 0, 0x3000, u64::MAX],
        ] {
            assert_eq!(words(none), None, "{none:x?}");
        }
    }
}
