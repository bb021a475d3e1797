//! The parent's calls about its children (TLFS; which pool pays for what: as Linux' mshv driver expects).

mod end;
mod interrupts;
mod memory;
mod partition;
mod ports;
mod state;
mod vp;

use addr::{PartitionId, Spa, VpIndex};
use hypercall::{Body, Call, Progress};
use tlfs::HvError;
use tlfs::call::PARTITION_SELF;

use super::ParentVp;
use crate::partition::child::ChildVp;
use crate::partition::directory::{self, ChildRef};
use crate::partition::parent::PARENT;

/// Elements of a rep call that are done before interrupts have their turn.
const BURST: usize = 64;
/// The same where each piece of work is a page of 2 MiB, whose frames are counted one by one.
const LARGE_BURST: usize = 8;

/// Whom a call is about.
enum Target {
    /// The parent itself.
    Own,
    /// One of its children.
    Child(ChildRef),
}

impl ParentVp {
    /// Apart from the calls that every guest makes often: what these keep on the stack would cost those time.
    #[inline(never)]
    pub(super) fn parent_call(
        &mut self,
        call: Call,
        body: &mut Body<'_>,
    ) -> Result<Progress, HvError> {
        let done = self.answer_call(call, body);
        self.show_changed(call, body);
        done
    }

    fn answer_call(&mut self, call: Call, body: &mut Body<'_>) -> Result<Progress, HvError> {
        match call {
            Call::CreatePartition => return self.create_partition(body),
            Call::InitializePartition => self.initialize_partition(body)?,
            Call::FinalizePartition => return self.finalize_partition(body),
            Call::DeletePartition => self.delete_partition(body)?,
            Call::GetNextChildPartition => self.next_child(body)?,
            Call::GetPartitionProperty => self.get_property(body)?,
            Call::GetPartitionPropertyEx => self.get_property_ex(body)?,
            Call::SetPartitionProperty => return self.set_property(body),
            Call::DepositMemory => return self.deposit(body),
            Call::WithdrawMemory => return self.withdraw(body),
            Call::MapGpaPages => return self.map_gpa(body),
            Call::UnmapGpaPages => return self.unmap_gpa(body),
            Call::GetGpaPagesAccessStates => return self.access_states(body),
            Call::TranslateVirtualAddress => self.translate_gva(body)?,
            Call::ReadGpa => self.read_gpa(body)?,
            Call::WriteGpa => self.write_gpa(body)?,
            Call::CreateVp => return self.create_vp(body),
            Call::DeleteVp => return self.delete_vp(body),
            Call::GetVpRegisters => return self.get_registers(body),
            Call::SetVpRegisters => return self.set_registers(body),
            Call::RegisterInterceptResult => self.register_cpuid(body)?,
            Call::GetVpCpuidValues => return self.cpuid_values(body),
            Call::InstallIntercept => return self.install_intercept(body),
            Call::AssertVirtualInterrupt => self.assert_interrupt(body)?,
            Call::ClearVirtualInterrupt => self.clear_interrupt(body)?,
            Call::SignalEventDirect => self.signal_direct(body)?,
            Call::PostMessageDirect => self.post_direct(body)?,
            Call::MapVpStatePage => self.map_state_page(body)?,
            Call::UnmapVpStatePage => self.unmap_state_page(body)?,
            Call::GetVpState => self.get_state(body)?,
            Call::SetVpState => self.set_state(body)?,
            Call::MapStatsPage2 => self.map_statistics(body)?,
            Call::UnmapStatsPage => self.unmap_statistics(body)?,
            // Statistics pages are placed by the parent, as its capabilities say.
            Call::MapStatsPage => return Err(HvError::INVALID_PARAMETER),
            Call::CreatePort => self.create_port(body)?,
            Call::DeletePort => self.delete_port(body)?,
            Call::ConnectPort => self.connect_port(body)?,
            Call::DisconnectPort => self.disconnect_port(body)?,
            Call::NotifyPortRingEmpty => self.port_ring_empty(body)?,
            _ => return Err(HvError::INVALID_HYPERCALL_CODE),
        }
        Ok(Progress::Done)
    }

    /// Whom `id` names.
    fn target(&self, id: PartitionId) -> Result<Target, HvError> {
        if id == PARTITION_SELF || id == PARENT {
            return Ok(Target::Own);
        }
        self.child(id).map(Target::Child)
    }

    /// The child that `id` names.
    fn child(&self, id: PartitionId) -> Result<ChildRef, HvError> {
        directory::find(id).ok_or(HvError::INVALID_PARTITION_ID)
    }

    /// VP `index` of a child that is initialized.
    fn child_vp(
        &self,
        id: PartitionId,
        index: VpIndex,
    ) -> Result<(ChildRef, &'static ChildVp), HvError> {
        let child = self.child(id)?;
        child.check_active()?;
        let vp = child.vp(index).ok_or(HvError::INVALID_VP_INDEX)?;
        Ok((child, vp))
    }
}

/// The frame that a page number of the parent names: its memory is mapped to itself.
fn frame(number: u64) -> Result<Spa, HvError> {
    number
        .checked_mul(addr::PAGE_SIZE)
        .map(Spa::new)
        .ok_or(HvError::INVALID_PARAMETER)
}

/// A list element of eight bytes.
fn word(input: &[u8]) -> u64 {
    input
        .first_chunk()
        .map_or(0, |bytes| u64::from_le_bytes(*bytes))
}
