//! The state of a local APIC as HvCallGetVpState gives it and HvCallSetVpState takes it
//! (`hv_local_interrupt_controller_state`): 44 registers of 32 bits.
//!
//! IA32_APIC_BASE, TPR and IA32_TSC_DEADLINE are no part of it: they are registers with names. Nor are an NMI and an
//! 8259 interrupt that wait.

use crate::base::Mode;
use crate::lvt::Lvt;
use crate::registers::{self as reg, SVR_WRITABLE, esr, icr};
use crate::state::Apic;
use crate::timer::TimerMode;
use crate::vectors::VectorSet;

/// Length of a saved state.
pub const SAVED_BYTES: usize = 176;

/// LVT entries in the order of the record, from word 32 on.
const LVTS: [Lvt; 7] = [
    Lvt::Timer,
    Lvt::Thermal,
    Lvt::Perf,
    Lvt::Lint0,
    Lvt::Lint1,
    Lvt::Error,
    Lvt::Cmci,
];
/// First words of ISR, TMR, IRR and the LVT.
const ISR: usize = 5;
const TMR: usize = 13;
const IRR: usize = 21;
const LVT: usize = 32;

impl Apic {
    /// The state at host TSC `now`.
    pub fn save(&mut self, now: u64) -> [u8; SAVED_BYTES] {
        self.timer_tick(now);
        let mut words = [0_u32; SAVED_BYTES / 4];
        let mut put = |at: usize, values: &[u32]| {
            for (word, value) in words.iter_mut().skip(at).zip(values) {
                *word = *value;
            }
        };
        let id = self.id.get();
        let shown = if self.mode == Mode::X2Apic {
            id
        } else {
            id << 24
        };
        let version = self.read_shared(reg::VERSION, now).unwrap_or(0);
        put(
            0,
            &[
                shown,
                version,
                self.logical_destination(),
                self.dfr,
                self.svr,
            ],
        );
        put(ISR, &self.isr.registers());
        put(TMR, &self.tmr.registers());
        put(IRR, &self.irr.registers());
        put(29, &[self.esr, (self.icr >> 32) as u32, self.icr as u32]);
        put(LVT, &LVTS.map(|entry| self.lvt(entry)));
        let timer = &self.timer;
        put(
            39,
            &[
                self.errors,
                timer.initial(),
                timer.current(now),
                timer.divide(),
            ],
        );
        let mut bytes = [0; SAVED_BYTES];
        for (to, word) in bytes.chunks_exact_mut(4).zip(words) {
            to.copy_from_slice(&word.to_le_bytes());
        }
        bytes
    }

    /// Takes over `saved` at host TSC `now`, in the current mode. Whatever the bytes say, what comes out is a state
    /// that registers can bring about: bits that do not exist are dropped, the ID and the version stay. A timer that
    /// counts goes on from its current count. Publish, and take the timer's deadline anew.
    pub fn load(&mut self, saved: &[u8; SAVED_BYTES], now: u64) {
        let mut words = [0_u32; SAVED_BYTES / 4];
        for (word, bytes) in words.iter_mut().zip(saved.chunks_exact(4)) {
            *word = bytes
                .iter()
                .rev()
                .fold(0, |value, byte| value << 8 | u32::from(*byte));
        }
        let word = |at: usize| words.get(at).copied().unwrap_or(0);
        let set = |at: usize| {
            VectorSet::from_registers(core::array::from_fn(|index| word(at + index)))
                .without_reserved()
        };
        if self.mode != Mode::X2Apic {
            self.ldr = word(2) & 0xFF00_0000;
            self.write_dfr(word(3));
        }
        self.svr = word(4) & SVR_WRITABLE;
        self.update_enabled();
        (self.isr, self.tmr, self.irr) = (set(ISR), set(TMR), set(IRR));
        self.highest_irr = self.irr.highest().unwrap_or(0);
        self.highest_isr = self.isr.highest().unwrap_or(0);
        self.update_ppr();
        self.esr = word(29) & esr::DEFINED;
        let high = if self.mode == Mode::X2Apic {
            !0xFFFF_FFFF
        } else {
            icr::XAPIC_DESTINATION
        };
        let written = u64::from(word(30)) << 32 | u64::from(word(31));
        self.icr = written & (high | icr::WRITABLE_LOW);
        for (index, entry) in LVTS.into_iter().enumerate() {
            if entry != Lvt::Cmci || self.features.cmci {
                let _ = self.write_lvt(entry, word(LVT + index));
            }
        }
        self.errors = word(39) & esr::DEFINED;
        self.timer.set_divide(word(42));
        self.timer
            .set_mode(TimerMode::from_lvt(self.lvt(Lvt::Timer)));
        self.timer.resume(word(40), word(41), now);
    }
}
