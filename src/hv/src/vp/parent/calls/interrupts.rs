//! Interrupts, messages and events that the parent sends to children, and what it intercepts.

use core::sync::atomic::Ordering;

use hypercall::{Body, Progress};
use tlfs::HvError;
use tlfs::call::{
    AccessMask, AssertInterrupt, InstallIntercept, InterceptType, PartitionOnly, PostMessageDirect,
    SignalEventDirect,
};
use vpstate::assert::Asserted;

use super::super::ParentVp;
use crate::partition::child::State;
use crate::partition::{CHILD_VPS, Partition, ports};
use crate::vp::child::ChildCore;

/// Vectors of what is no exception, or belongs to the hypervisor: NMI, 15, #MC.
const NOT_INTERCEPTED: u32 = 1 << 2 | 1 << 15 | 1 << 18;

impl ParentVp {
    /// HvCallAssertVirtualInterrupt: an interrupt for the VPs of a child that the destination names. None is asserted where one is refused.
    pub(super) fn assert_interrupt(&mut self, body: &Body<'_>) -> Result<(), HvError> {
        let call = AssertInterrupt::decode(body.header())?;
        let child = self.child(call.partition)?;
        child.check_active()?;
        let vps = &child.core().vps;
        // Looked up once: VPs may come and go meanwhile.
        let mut there = [None; CHILD_VPS];
        there
            .iter_mut()
            .zip(vps.iter())
            .for_each(|(place, vp)| *place = Some(vp));
        let inboxes = there.iter().flatten().map(|vp| &vp.inbox);
        Asserted::new(&call)?.deliver(inboxes, |place| {
            if let Some(&Some(vp)) = there.get(place) {
                self.call(vp);
            }
        });
        Ok(())
    }

    /// The parent's 8259 takes its interrupt back.
    pub(super) fn clear_interrupt(&mut self, body: &Body<'_>) -> Result<(), HvError> {
        let call = PartitionOnly::decode(body.header())?;
        let child = self.child(call.partition)?;
        child.check_active()?;
        for vp in child.core().vps.iter() {
            vp.inbox.clear_extint();
            // It may have the vector already, and wait for its interrupts to be open.
            self.call(vp);
        }
        Ok(())
    }

    /// HvCallInstallIntercept. What is asked for holds from the next entry of each VP.
    pub(super) fn install_intercept(&mut self, body: &Body<'_>) -> Result<Progress, HvError> {
        let call = InstallIntercept::decode(body.header())?;
        let child = self.child(call.partition)?;
        if !matches!(
            child.properties.lock().state,
            State::Created | State::Active
        ) {
            return Err(HvError::INVALID_PARTITION_STATE);
        }
        let is_wanted = call.access != AccessMask::empty();
        match call.kind {
            // All ports are the parent's, and the end of a level interrupt always is told.
            InterceptType::IoPort | InterceptType::IoPortRange | InterceptType::ApicEoi
                if is_wanted => {}
            InterceptType::Msr => child.properties.lock().msr_intercept = is_wanted,
            InterceptType::Cpuid | InterceptType::Exception
                if is_wanted && call.access != AccessMask::EXECUTE =>
            {
                return Err(HvError::INVALID_PARAMETER);
            }
            InterceptType::Cpuid => {
                let leaf = u32::try_from(call.parameter);
                let leaf = leaf.map_err(|_| HvError::INVALID_PARAMETER)?;
                child.intercepted_leaves.lock().set(leaf, is_wanted)?;
                child.change_cpuid();
            }
            InterceptType::Exception => {
                let vector = u32::try_from(call.parameter).ok();
                let bit = vector.and_then(|vector| 1_u32.checked_shl(vector));
                let bit = bit.filter(|bit| bit & NOT_INTERCEPTED == 0);
                let bit = bit.ok_or(HvError::INVALID_PARAMETER)?;
                let done = child.exclusively(|| {
                    let old = child.exceptions.load(Ordering::Relaxed);
                    let new = if is_wanted { old | bit } else { old & !bit };
                    child.exceptions.store(new, Ordering::Relaxed);
                    for vp in child.vps() {
                        vp.core(self.lp)
                            .attached(self.lp, ChildCore::trap_exceptions);
                    }
                });
                return Ok(done.map_or(Progress::Yield, |()| Progress::Done));
            }
            _ => return Err(HvError::OPERATION_DENIED),
        }
        Ok(Progress::Done)
    }

    /// HvCallSignalEventDirect: sets a flag of a VP of a child, and says whether it was clear before.
    pub(super) fn signal_direct(&mut self, body: &mut Body<'_>) -> Result<(), HvError> {
        let call = SignalEventDirect::decode(body.header())?;
        let (child, vp) = self.child_vp(call.partition, call.vp)?;
        let (sint, flag) = (call.sint.get(), call.flag.get());
        let is_new = ports::signal(self.lp, &*child, &vp.shared, sint, flag)?;
        body.write_output(&u64::from(is_new).to_le_bytes())
    }

    /// HvCallPostMessageDirect: puts a message into a slot of a VP of a child. Refused where the slot is full.
    pub(super) fn post_direct(&mut self, body: &Body<'_>) -> Result<(), HvError> {
        let call = PostMessageDirect::decode(body.header())?;
        let (child, vp) = self.child_vp(call.partition, call.vp)?;
        ports::post(self.lp, &*child, &vp.shared, call.sint.get(), &call.message)
    }
}
