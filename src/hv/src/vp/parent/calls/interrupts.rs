//! Interrupts, messages and events that the parent sends to children, and what it intercepts.

use hypercall::Body;
use tlfs::HvError;
use tlfs::call::{
    AccessMask, AssertInterrupt, InstallIntercept, InterceptType, PartitionOnly, PostMessageDirect,
    SignalEventDirect,
};
use vpstate::assert::Asserted;

use super::super::ParentVp;
use crate::partition::child::State;
use crate::partition::{CHILD_VPS, Partition, ports};
use crate::virt::Virt;

impl<V: Virt> ParentVp<V> {
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
        }
        Ok(())
    }

    pub(super) fn install_intercept(&mut self, body: &Body<'_>) -> Result<(), HvError> {
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
            // Nothing to take away.
            InterceptType::Cpuid | InterceptType::Exception if !is_wanted => {}
            InterceptType::Msr => child.properties.lock().msr_intercept = is_wanted,
            _ => return Err(HvError::OPERATION_DENIED),
        }
        Ok(())
    }

    pub(super) fn signal_direct(&mut self, body: &mut Body<'_>) -> Result<(), HvError> {
        let call = SignalEventDirect::decode(body.header())?;
        let (child, vp) = self.child_vp(call.partition, call.vp)?;
        let (sint, flag) = (call.sint.get(), call.flag.get());
        let is_new = ports::signal(self.lp, &*child, &vp.shared, sint, flag)?;
        body.write_output(&u64::from(is_new).to_le_bytes())
    }

    pub(super) fn post_direct(&mut self, body: &Body<'_>) -> Result<(), HvError> {
        let call = PostMessageDirect::decode(body.header())?;
        let (child, vp) = self.child_vp(call.partition, call.vp)?;
        ports::post(self.lp, &*child, &vp.shared, call.sint.get(), &call.message)
    }
}
