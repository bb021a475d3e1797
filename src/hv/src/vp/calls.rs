//! Hypercalls that partitions of both kinds make about themselves.

use core::sync::atomic::Ordering;

use addr::VpIndex;
use hypercall::{Body, Call, FlushRequest, IpiRequest, Progress};
use tlfs::HvError;
use tlfs::call::{PARTITION_SELF, PostMessage, SignalEvent, VpIndexFromApicId};
use vmbus_proto::MESSAGE_CONNECTIONS;

use super::{AnyVp, Role};
use crate::diagnostics::Counter;
use crate::partition::Partition;
use crate::partition::ports::Sender;
use crate::partition::vmbus::{self, Signalled};
use crate::shootdown;

impl<R: Role> AnyVp<R> {
    /// `HvCallSignalEvent` with this parameter block.
    #[inline(never)]
    pub(super) fn signal_event(&mut self, input: &[u8]) -> Result<(), HvError> {
        self.counters.add(Counter::SynicCall);
        let call = SignalEvent::decode(input)?;
        self.is_settled = false;
        if self.partition.core().vmbus.is_on() {
            match vmbus::signalled(self.partition, &call)? {
                Signalled::Other => {}
                Signalled::Nobody => return Ok(()),
                Signalled::Channel(relid) => {
                    R::channel_signalled(self, relid);
                    return Ok(());
                }
            }
        }
        self.sender().signal(self.partition, &call)
    }

    /// Carries out one call. Those that only one kind of partition makes are its role's.
    #[inline(never)]
    pub(super) fn carry_out_call(
        &mut self,
        call: Call,
        body: &mut Body<'_>,
    ) -> Result<Progress, HvError> {
        if let Some(counter) = counter(call) {
            self.counters.add(counter);
        }
        match call {
            Call::NotifyLongSpinWait => {}
            Call::SignalEvent => self.signal_event(body.header())?,
            // The mask of extended calls: none. The output is zero already.
            Call::ExtQueryCapabilities => {}
            Call::GetPartitionId => {
                body.write_output(&self.partition.core().id.get().to_le_bytes())?;
            }
            // The ranges of the list forms only narrow what may be flushed.
            Call::FlushVirtualAddressSpace | Call::FlushVirtualAddressList => {
                self.flush(&FlushRequest::plain(body.header())?);
                body.complete(body.remaining());
            }
            Call::FlushVirtualAddressSpaceEx | Call::FlushVirtualAddressListEx => {
                let request = FlushRequest::extended(body.header(), body.variable_header())?;
                self.flush(&request);
                body.complete(body.remaining());
            }
            Call::SendSyntheticClusterIpi => self.cluster_ipi(&IpiRequest::plain(body.header())?),
            Call::SendSyntheticClusterIpiEx => {
                let request = IpiRequest::extended(body.header(), body.variable_header())?;
                self.cluster_ipi(&request);
            }
            Call::GetVpIndexFromApicId => return self.vp_indexes(body),
            Call::PostMessage => {
                let call = PostMessage::decode(body.header())?;
                self.is_settled = false;
                let is_on = self.partition.core().vmbus.is_on();
                if is_on && MESSAGE_CONNECTIONS.contains(&call.connection) {
                    return R::post_to_server(self, &call);
                }
                self.sender().post(self.partition, &call)?;
            }
            call => return R::call(self, call, body),
        }
        Ok(Progress::Done)
    }

    /// What sends for this VP.
    pub(super) fn sender(&self) -> Sender {
        Sender {
            lp: self.lp,
            parent: R::parent(self),
        }
    }

    /// Drops translations of the named VPs: those that run are interrupted, the others do it before they run.
    fn flush(&mut self, request: &FlushRequest<'_>) {
        let core = self.partition.core();
        let targets = || {
            request
                .vps
                .iter(core.vps.limit())
                .filter_map(|index| core.vps.get(index))
        };
        for vp in targets() {
            if vp.index == self.index {
                self.backend.flush_guest_tlb();
                continue;
            }
            vp.flush_guest.store(true, Ordering::SeqCst);
            vp.attention.store(true, Ordering::SeqCst);
            if let Some(lp) = vp.loaded_on() {
                shootdown::nudge(self.lp, lp);
            }
        }
        // The call promises that nobody uses the old translations when it returns. Who left the guest flushes before
        // it enters again.
        for vp in targets().filter(|vp| vp.index != self.index) {
            while vp.flush_guest.load(Ordering::SeqCst)
                && vp
                    .loaded_on()
                    .is_some_and(|lp| lp.in_guest.load(Ordering::SeqCst))
            {
                crate::panic::stop_if_asked();
                core::hint::spin_loop();
            }
        }
    }

    fn cluster_ipi(&mut self, request: &IpiRequest<'_>) {
        let core = self.partition.core();
        for index in request.vps.iter(core.vps.limit()) {
            if let Some(vp) = core.vps.get(index)
                && vp.inbox.post(request.vector)
            {
                self.call(vp);
            }
        }
        self.is_settled = false;
    }

    fn vp_indexes(&mut self, body: &mut Body<'_>) -> Result<Progress, HvError> {
        let call = VpIndexFromApicId::decode(body.header())?;
        let core = self.partition.core();
        if call.partition != PARTITION_SELF && call.partition != core.id {
            return Err(HvError::INVALID_PARTITION_ID);
        }
        while let Some(mut element) = body.element() {
            let id = element.input.first_chunk().map(|b| u32::from_le_bytes(*b));
            let index = VpIndex::new(id.unwrap_or(u32::MAX));
            // APIC ids of a child are its VP indexes.
            core.vps.get(index).ok_or(HvError::INVALID_PARAMETER)?;
            element.answer(&index.get().to_le_bytes());
            body.complete_element();
        }
        Ok(Progress::Done)
    }
}

/// Where a call is counted beside all others. Signals count where they are carried out.
const fn counter(call: Call) -> Option<Counter> {
    Some(match call {
        Call::NotifyLongSpinWait => Counter::SpinWait,
        Call::FlushVirtualAddressSpace
        | Call::FlushVirtualAddressList
        | Call::FlushVirtualAddressSpaceEx
        | Call::FlushVirtualAddressListEx => Counter::MmuCall,
        Call::SendSyntheticClusterIpi
        | Call::SendSyntheticClusterIpiEx
        | Call::AssertVirtualInterrupt
        | Call::ClearVirtualInterrupt => Counter::InterruptCall,
        Call::PostMessage
        | Call::SignalEventDirect
        | Call::PostMessageDirect
        | Call::CreatePort
        | Call::DeletePort
        | Call::ConnectPort
        | Call::DisconnectPort
        | Call::NotifyPortRingEmpty => Counter::SynicCall,
        Call::MapGpaPages
        | Call::UnmapGpaPages
        | Call::GetGpaPagesAccessStates
        | Call::TranslateVirtualAddress
        | Call::ReadGpa
        | Call::WriteGpa => Counter::MemoryCall,
        Call::CreateVp
        | Call::DeleteVp
        | Call::GetVpRegisters
        | Call::SetVpRegisters
        | Call::StartVirtualProcessor
        | Call::GetVpIndexFromApicId
        | Call::MapVpStatePage
        | Call::UnmapVpStatePage
        | Call::GetVpState
        | Call::SetVpState => Counter::VpCall,
        Call::DepositMemory | Call::WithdrawMemory => Counter::PoolCall,
        _ => return None,
    })
}
