//! Interrupts, messages and events that the parent sends to children, and what it intercepts.

use hypercall::Body;
use synic::EventError;
use tlfs::HvError;
use tlfs::call::{
    AccessMask, AssertInterrupt, InstallIntercept, InterceptType, PartitionOnly, PostMessageDirect,
    SignalEventDirect,
};
use vpstate::assert::Asserted;

use super::super::ParentVp;
use crate::arch::x86::insn;
use crate::partition::Partition;
use crate::virt::Virt;

impl<V: Virt> ParentVp<V> {
    pub(super) fn assert_interrupt(&mut self, body: &Body<'_>) -> Result<(), HvError> {
        let call = AssertInterrupt::decode(body.header())?;
        let child = self.child(call.partition)?;
        child.check_active()?;
        let vps = &child.core().vps;
        Asserted::new(&call)?.deliver(vps.iter().map(|vp| &vp.inbox), |place| {
            if let Some(vp) = vps.iter().nth(place) {
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
        let is_wanted = call.access != AccessMask::empty();
        match call.kind {
            // All ports are the parent's, and the end of a level interrupt always is told.
            InterceptType::IoPort | InterceptType::IoPortRange | InterceptType::ApicEoi
                if is_wanted => {}
            InterceptType::Msr => child.properties.lock().msr_intercept = is_wanted,
            _ => return Err(HvError::OPERATION_DENIED),
        }
        Ok(())
    }

    /// Sets an event flag of a VP. The VP's own LP raises the interrupt.
    pub(super) fn signal_direct(&mut self, body: &mut Body<'_>) -> Result<(), HvError> {
        let call = SignalEventDirect::decode(body.header())?;
        let (child, vp) = self.child_vp(call.partition, call.vp)?;
        let frame = child.overlay_frame(synic::Overlay::EventFlags, vp.shared.index);
        let signalled = vp.shared.synic.lock().signal_event(
            usize::from(call.sint.get()),
            call.flag.get(),
            frame.map(crate::vp::hyperv::Page).as_ref(),
        );
        let signalled = signalled.map_err(|error| match error {
            EventError::NoSuchFlag => HvError::INVALID_PARAMETER,
            EventError::Lost => HvError::INVALID_SYNIC_STATE,
        })?;
        if let Some(interrupt) = signalled.interrupt {
            // An automatic EOI needs the VP's own LP: the next look at the SynIC raises it.
            if vp.shared.inbox.post(interrupt.vector) {
                self.call(&vp.shared);
            }
        }
        body.write_output(&u64::from(signalled.is_new).to_le_bytes())
    }

    pub(super) fn post_direct(&mut self, body: &Body<'_>) -> Result<(), HvError> {
        let call = PostMessageDirect::decode(body.header())?;
        let (child, vp) = self.child_vp(call.partition, call.vp)?;
        let now = child.core().clock.now(insn::rdtsc());
        // Delivered by the VP's own LP, which knows what else waits.
        let none: Option<&crate::vp::hyperv::Page> = None;
        let queued = vp.shared.synic.lock().post(
            usize::from(call.sint.get()),
            &call.message,
            now,
            none,
            &mut (),
        );
        // Nothing was delivered, without a page.
        let _ = queued.map_err(|_| HvError::INSUFFICIENT_BUFFERS)?;
        vp.shared
            .rescan
            .store(true, core::sync::atomic::Ordering::SeqCst);
        self.call(&vp.shared);
        Ok(())
    }
}
