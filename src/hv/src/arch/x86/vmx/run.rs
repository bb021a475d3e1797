//! One round: what was asked for into the VMCS, into the guest, and the exit into neutral words.
#![expect(unsafe_code, reason = "enters the guest")]

use vpcore::seam::Exit;
use x86::{Gp, Segment, efer, rflags};

use super::entry::{self, Outcome};
use super::fields::{Field, interruptibility};
use super::{VmxVp, exit, pending};

impl VmxVp {
    #[inline(always)]
    pub(super) fn enter_and_exit(&mut self) -> Exit {
        if self.pending != 0 {
            if self.pending & !pending::EVENT != 0
                && let Err(exit) = self.settle()
            {
                return exit;
            }
            self.pending = 0;
        }
        let rsp = self.frame.gp.get(Gp::Rsp);
        if rsp != self.rsp {
            self.vmcs.write(Field::GUEST_RSP, rsp);
        }

        // SAFETY: `load` made the VMCS current on this LP, and whoever attaches another puts it back; the host state was
        // read from the LP; the tables and bitmaps are the partition's own.
        let outcome = unsafe { entry::enter(&mut self.frame, self.is_launched) };
        if outcome != Outcome::Exit {
            return self.refused(outcome);
        }

        self.rsp = self.vmcs.read(Field::GUEST_RSP);
        self.frame.gp.set(Gp::Rsp, self.rsp);
        let reason = self.vmcs.read32(Field::EXIT_REASON);
        self.reason = reason as u16;
        if reason & exit::ENTRY_FAILED != 0 {
            return self.entry_failed();
        }
        self.is_launched = true;
        self.has_interrupted = true;
        self.decode_exit()
    }

    /// The rarer work before an entry.
    #[cold]
    fn settle(&mut self) -> Result<(), Exit> {
        if self.pending & pending::FLUSH_ALL != 0 {
            self.translations.flush_all();
        } else if self.pending & (pending::PAGING | pending::FLUSH_GUEST) != 0 {
            self.translations.flush_guest();
        }
        if self.pending & pending::PAGING != 0 {
            self.load_pae_pointers().inspect_err(|_| {
                self.reason = 0;
                self.has_interrupted = false;
            })?;
        }
        if self.pending & pending::REFUSED != 0 {
            self.pending = 0;
            self.reason = exit::INVALID_GUEST_STATE;
            self.drop_event();
            return Err(Exit::InvalidState {
                detail: exit::REFUSED_REGISTER,
            });
        }
        Ok(())
    }

    /// The instruction that would have entered the guest failed.
    #[cold]
    fn refused(&mut self, outcome: Outcome) -> Exit {
        self.reason = exit::INVALID_GUEST_STATE;
        self.has_interrupted = false;
        let detail = match outcome {
            Outcome::Refused => self.vmcs.read(Field::INSTRUCTION_ERROR),
            Outcome::NoVmcs | Outcome::Exit => 0,
        };
        self.drop_event();
        Exit::InvalidState { detail }
    }

    /// The entry failed half-way, at the guest's state.
    #[cold]
    fn entry_failed(&mut self) -> Exit {
        self.has_interrupted = false;
        self.drop_event();
        if self.reason == exit::ENTRY_MACHINE_CHECK {
            return Exit::MachineCheck;
        }
        Exit::InvalidState {
            detail: u64::from(self.reason) << 32 | self.vmcs.read(Field::EXIT_QUALIFICATION),
        }
    }

    /// RIP after the instruction that exited, for exits that an instruction caused.
    #[inline(always)]
    pub(super) fn instruction_end(&self) -> Option<u64> {
        if !exit::has_instruction_length(self.reason) {
            return None;
        }
        let rip = self.vmcs.read(Field::GUEST_RIP);
        let next = rip.wrapping_add(self.vmcs.read(Field::EXIT_INSTRUCTION_LENGTH));
        // Outside 64-bit mode the instruction pointer has 32 bits.
        if (next ^ rip) >> 32 != 0 && !self.is_64_bit() {
            Some(next & 0xFFFF_FFFF)
        } else {
            Some(next)
        }
    }

    /// Whether the guest runs 64-bit code.
    #[cold]
    pub(super) fn is_64_bit(&self) -> bool {
        self.vmcs.read(Field::GUEST_EFER) & efer::LMA != 0
            && self.vmcs.read32(Field::GUEST_CS_RIGHTS) & u32::from(Segment::LONG) != 0
    }

    /// Completes an instruction: RIP, no shadow, no RF. The caller raises the exception of a single step.
    #[inline(always)]
    pub(super) fn retire_to(&mut self, next_rip: u64) {
        self.vmcs.write(Field::GUEST_RIP, next_rip);
        let state = self.vmcs.read32(Field::INTERRUPTIBILITY);
        if state & interruptibility::SHADOW != 0 {
            self.vmcs.write(
                Field::INTERRUPTIBILITY,
                u64::from(state & !interruptibility::SHADOW),
            );
        }
        let rflags = self.vmcs.read(Field::GUEST_RFLAGS);
        if rflags & rflags::RF != 0 {
            self.vmcs.write(Field::GUEST_RFLAGS, rflags & !rflags::RF);
        }
    }
}
