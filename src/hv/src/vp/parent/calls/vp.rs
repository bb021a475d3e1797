//! VPs of children, and their registers.

use core::sync::atomic::Ordering;

use hypercall::{Body, Progress};
use tlfs::HvError;
use tlfs::call::{
    CpuidLeaf, CpuidValuesFlags, CreateVp, DeleteVp, GetCpuidValues, RegisterCpuidResult,
    RegisterValue, VP_ANY, VpRegisters,
};
use tlfs::register::RegisterName;
use vpstate::Effect;

use super::super::ParentVp;
use crate::partition::child::ChildPartition;
use crate::scheduler;

/// Registers that stop and start a VP: they must do so although the VP runs.
const SUSPENDS: [RegisterName; 3] = [
    RegisterName::EXPLICIT_SUSPEND,
    RegisterName::INTERCEPT_SUSPEND,
    RegisterName::DISPATCH_SUSPEND,
];

impl ParentVp {
    /// HvCallCreateVp, from the child's pool. Without memory nothing is made.
    pub(super) fn create_vp(&mut self, body: &Body<'_>) -> Result<Progress, HvError> {
        let call = CreateVp::decode(body.header())?;
        let child = self.child(call.partition)?;
        let created = child.exclusively(|| {
            child.check_active()?;
            ChildPartition::create_vp(&child, call.vp, self.lp)
        });
        created.map_or(Ok(Progress::Yield), |done| done.map(|()| Progress::Done))
    }

    /// HvCallDeleteVp: stops it first.
    pub(super) fn delete_vp(&mut self, body: &Body<'_>) -> Result<Progress, HvError> {
        let call = DeleteVp::decode(body.header())?;
        let child = self.child(call.partition)?;
        let deleted = child.exclusively(|| {
            let (_, vp) = self.child_vp(call.partition, call.vp)?;
            child.delete_vp(self.lp, vp);
            Ok(Progress::Done)
        });
        deleted.unwrap_or(Ok(Progress::Yield))
    }

    /// HvCallGetVpRegisters, in pieces.
    pub(super) fn get_registers(&mut self, body: &mut Body<'_>) -> Result<Progress, HvError> {
        let call = VpRegisters::decode(body.header())?;
        let (_child, vp) = self.child_vp(call.partition, call.vp)?;
        let mut core = vp.core(self.lp);
        core.attached(self.lp, |core| {
            while let Some(mut element) = body.element() {
                let name = element.input.first_chunk().map(|b| u32::from_le_bytes(*b));
                let value = core.register(RegisterName(name.unwrap_or(0)))?;
                element.answer(&value.to_le_bytes());
                body.complete_element();
            }
            Ok(Progress::Done)
        })
    }

    /// HvCallSetVpRegisters, in pieces. Registers before the one that is refused are set, and are counted as done.
    pub(super) fn set_registers(&mut self, body: &mut Body<'_>) -> Result<Progress, HvError> {
        let call = VpRegisters::decode(body.header())?;
        let (_child, vp) = self.child_vp(call.partition, call.vp)?;
        let scheduled = vp.scheduled().ok_or(HvError::INVALID_VP_INDEX)?;
        // A VP that is to be stopped leaves its LP for that; what is done to one that goes on running comes to it when
        // it has left for a moment.
        let mut core = vp.core(self.lp);
        let mut is_started = false;
        let result = core.attached(self.lp, |core| {
            while let Some(element) = body.element() {
                let register = RegisterValue::decode(element.input)?;
                if register.name == RegisterName::INTERCEPT_SUSPEND
                    && register.value as u64 & 1 == 0
                {
                    core.take_register_page()?;
                }
                if SUSPENDS.contains(&register.name) {
                    scheduled.told.store(self.lp.index.get(), Ordering::SeqCst);
                }
                if let Effect::Run(change) = core.set_register(register.name, register.value)? {
                    is_started |= change.is_started();
                }
                body.complete_element();
            }
            Ok(Progress::Done)
        });
        drop(core);
        if is_started || !scheduled.is_stopped() {
            vp.shared.attention.store(true, Ordering::SeqCst);
            scheduler::wake(self.lp, &vp.shared);
        }
        result
    }

    /// HvCallRegisterInterceptResult: what a CPUID leaf says to a child.
    pub(super) fn register_cpuid(&mut self, body: &Body<'_>) -> Result<(), HvError> {
        let call = RegisterCpuidResult::decode(body.header())?;
        let child = self.child(call.partition)?;
        child.check_active()?;
        if call.vp != VP_ANY && child.vp(call.vp).is_none() {
            return Err(HvError::INVALID_VP_INDEX);
        }
        let mut overrides = child.overrides.lock();
        overrides.add(call, &mut child.pool.lock())?;
        child.change_cpuid();
        Ok(())
    }

    /// HvCallGetVpCpuidValues.
    pub(super) fn cpuid_values(&mut self, body: &mut Body<'_>) -> Result<Progress, HvError> {
        let call = GetCpuidValues::decode(body.header())?;
        let (_child, vp) = self.child_vp(call.partition, call.vp)?;
        let mut core = vp.core(self.lp);
        core.attached(self.lp, |core| {
            while let Some(mut element) = body.element() {
                let asked = CpuidLeaf::decode(element.input)?;
                let xcr0 =
                    (!call.flags.contains(CpuidValuesFlags::USE_VP_XFEM_XSS)).then_some(asked.xfem);
                let by_parent = call.flags.contains(CpuidValuesFlags::APPLY_REGISTERED);
                let r = core.cpuid_value(asked.leaf, asked.subleaf, by_parent, xcr0);
                let mut answer = [0; 16];
                let words = [r.eax, r.ebx, r.ecx, r.edx];
                for (to, from) in answer.chunks_exact_mut(4).zip(words) {
                    to.copy_from_slice(&from.to_le_bytes());
                }
                element.answer(&answer);
                body.complete_element();
            }
            Ok(Progress::Done)
        })
    }
}
