//! What a worker wants of the daemon beside being heard: its log read, and memory for the hypervisor.

use super::thread::Thread;
use crate::partition::deposit_more;

/// Blocks of 2 MiB that a worker can have deposited: each is one of the holder's sets, which all children share.
const DEPOSITS_MAX: u32 = 16;

impl Thread {
    /// Gives the hypervisor some more memory for the child's tables. The supply is bounded, as the worker may ask for
    /// any reason.
    pub(super) fn deposit(&mut self) {
        let Some(existing) = &mut self.existing else {
            return;
        };
        if existing.deposits >= DEPOSITS_MAX {
            return;
        }
        existing.deposits += 1;
        let pool = &mut existing.memory.pool;
        if let Err(why) = deposit_more(&self.machine.calls, existing.partition, pool) {
            self.note(&format!(
                "no more memory for the hypervisor's tables: {why}"
            ));
        }
    }

    pub(super) fn read_log(&mut self) {
        let mut buffer = [0; 4096];
        // As with the console: bounded.
        for _ in 0..16 {
            let Some(log) = self.existing.as_mut().map(|existing| &mut existing.log) else {
                return;
            };
            let Some(file) = &*log else { return };
            match rustix::io::read(file, &mut buffer) {
                Ok(0) => *log = None,
                Ok(read) => self.log.take(buffer.get(..read).unwrap_or_default()),
                Err(_) => return,
            }
        }
    }
}
