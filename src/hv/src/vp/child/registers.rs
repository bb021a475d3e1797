//! Registers of a child's VP by name, for its parent and for its own MSR accesses.

use synic::{MsrEffect, Scope, WriteContext, scope};
use tlfs::HvError;
use tlfs::register::RegisterName;
use vpstate::registers::{Extended as Switch, Registers, Switched, Synthetic};
use vpstate::{Effect, register_page};
use x86::msr as n;

use super::{Child, ChildCore, layout};
use crate::arch::x86::extended::Extended;
use crate::arch::x86::insn;
use crate::arch::x86::lp::LpArea;
use crate::partition::child::ChildPartition;
use crate::partition::{Partition, Seat, VpShared};

impl Switch for Extended {
    fn register(&mut self, which: Switched) -> Option<&mut u64> {
        match which {
            Switched::Breakpoint(number) => self.breakpoints.get_mut(usize::from(number)),
            Switched::Xcr0 => Some(&mut self.xcr0),
            Switched::TscAux => self.msr(n::TSC_AUX),
            Switched::SpecCtrl => self.msr(n::IA32_SPEC_CTRL),
        }
    }

    fn area(&mut self) -> &mut [u8] {
        Self::area(self)
    }
}

/// Synthetic registers as the parent reaches them. What a write has changed in memory or timers is done afterwards.
pub struct SyntheticRegisters {
    partition: &'static ChildPartition,
    shared: &'static VpShared,
    effect: Option<synic::MsrEffect>,
}

impl Synthetic for SyntheticRegisters {
    fn read(&mut self, msr: u32) -> Result<u64, HvError> {
        let core = self.partition.core();
        if msr == tlfs::msr::VP_RUNTIME {
            let ticks = match &self.shared.seat {
                Seat::Scheduled(scheduled) => scheduled.entity.runtime(),
                Seat::Fixed(_) => 0,
            };
            let units = u128::from(ticks) * 10_000_000 / u128::from(core.tsc_hz.max(1));
            return Ok(units as u64);
        }
        let value = match scope(msr) {
            Some(Scope::Partition) => core.msrs.lock().get(msr, core.clock.now(insn::rdtsc())),
            Some(Scope::Vp) => self.shared.synic.lock().get(msr),
            None => return Err(HvError::INVALID_PARAMETER),
        };
        value.map_err(|_| HvError::INVALID_PARAMETER)
    }

    fn write(&mut self, msr: u32, value: u64) -> Result<(), HvError> {
        let partition = self.partition;
        let core = partition.core();
        let context = WriteContext {
            now: core.clock.now(insn::rdtsc()),
            is_page: &|page| partition.is_page(page),
        };
        let effect = match scope(msr) {
            Some(Scope::Partition) => core.msrs.lock().set(msr, value, &context),
            Some(Scope::Vp) => self.shared.synic.lock().set(msr, value, &context),
            None => return Err(HvError::INVALID_PARAMETER),
        };
        self.effect = Some(effect.map_err(|_| HvError::INVALID_REGISTER_VALUE)?);
        Ok(())
    }
}

/// Registers that place an overlay page.
const PLACES: [RegisterName; 5] = [
    RegisterName::HYPERCALL,
    RegisterName::REFERENCE_TSC,
    RegisterName::VP_ASSIST_PAGE,
    RegisterName::SIEFP,
    RegisterName::SIMP,
];

/// All registers of a VP of a child.
pub type ChildRegisters<'a> = Registers<'a, Extended, SyntheticRegisters>;

impl ChildCore {
    /// Calls `access` with the VP's registers, and does what that asks for. The back end is loaded here, or attached.
    pub(super) fn with_registers<T>(
        &mut self,
        access: impl FnOnce(&mut ChildRegisters<'_>) -> T,
    ) -> T {
        let (done, effect) = self.access_registers(access);
        if let Some(effect) = effect {
            let _ = self.carry_out(effect);
        }
        done
    }

    /// Calls `access` with the VP's registers; gives what is left to do.
    fn access_registers<T>(
        &mut self,
        access: impl FnOnce(&mut ChildRegisters<'_>) -> T,
    ) -> (T, Option<MsrEffect>) {
        let suspend = self.role.suspend;
        let Child {
            extended,
            stored,
            limits,
            ..
        } = &mut self.role;
        let mut synthetic = SyntheticRegisters {
            partition: self.partition,
            shared: self.shared,
            effect: None,
        };
        let done = access(&mut Registers {
            backend: &mut self.backend,
            extended,
            synthetic: &mut synthetic,
            apic: &mut self.apic,
            inbox: &self.shared.inbox,
            suspend,
            stored,
            interrupted: &mut self.interrupted,
            raised: &mut self.raised,
            layout: layout(),
            limits,
            now: insn::rdtsc(),
        });
        (done, synthetic.effect)
    }

    /// Calls `access` with the registers of a VP that is not loaded. For the parent, on any LP.
    pub fn attached<T>(&mut self, lp: &'static LpArea, access: impl FnOnce(&mut Self) -> T) -> T {
        self.lp = lp;
        let before = self.backend.attach();
        let done = access(self);
        self.backend.detach(before);
        done
    }

    /// Register `name`, for the parent.
    ///
    /// # Errors
    /// Those of [`Registers::get`].
    pub fn register(&mut self, name: RegisterName) -> Result<u128, HvError> {
        self.with_registers(|registers| registers.get(name))
    }

    /// Sets register `name`, for the parent.
    ///
    /// # Errors
    /// Those of [`Registers::set`]. `INSUFFICIENT_MEMORY`: an overlay page wants a frame of the pool; nothing changed.
    pub fn set_register(&mut self, name: RegisterName, value: u128) -> Result<Effect, HvError> {
        let old = if PLACES.contains(&name) {
            Some(self.register(name)?)
        } else {
            None
        };
        let (effect, left) = self.access_registers(|registers| registers.set(name, value));
        let effect = effect?;
        if let Some(left) = left
            && self.carry_out(left).is_err()
            && let Some(old) = old
        {
            // The page is not shown, so the register does not say that it is. What was there before needs no memory.
            let _ = self.with_registers(|registers| registers.set(name, old));
            return Err(HvError::INSUFFICIENT_MEMORY);
        }
        self.settle(effect);
        self.shared
            .attention
            .store(true, core::sync::atomic::Ordering::SeqCst);
        Ok(effect)
    }

    /// The image of the register page.
    pub(super) fn register_page(&mut self) -> [u8; register_page::BYTES] {
        // Vector state is in the LP while the VP is loaded.
        if self.shared.is_loaded_on(self.lp) {
            self.role.extended.save();
        }
        self.with_registers(|registers| registers.page())
    }

    /// Takes over what the parent changed in the register page, before the VP goes on after an intercept.
    ///
    /// # Errors
    /// `INVALID_REGISTER_VALUE`; nothing changed.
    pub fn take_register_page(&mut self) -> Result<(), HvError> {
        let mut image = [0; register_page::BYTES];
        let vp = self.role.vp;
        match &vp.pages.lock().registers {
            Some(page) => page.read(0, &mut image),
            None => return Ok(()),
        }
        self.with_registers(|registers| registers.apply_page(&image))?;
        if let Some(page) = &vp.pages.lock().registers {
            page.write(tlfs::state::register_page::DIRTY, &[0; 4]);
        }
        Ok(())
    }

    /// The virtual APIC as `HvCallGetVpState` gives it.
    pub fn save_apic(&mut self) -> [u8; apic::SAVED_BYTES] {
        self.settle_eoi(true);
        self.apic.absorb(&self.shared.inbox);
        self.apic.save(insn::rdtsc())
    }

    /// Takes over a saved virtual APIC.
    pub fn load_apic(&mut self, saved: &[u8; apic::SAVED_BYTES]) {
        self.apic.load(saved, insn::rdtsc());
        self.apic.publish(&self.shared.inbox);
    }

    /// The image of vector state of a VP that is not loaded.
    pub fn vector_state(&mut self) -> &mut [u8] {
        self.role.extended.area()
    }
}
