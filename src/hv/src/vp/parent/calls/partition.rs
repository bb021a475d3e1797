//! Partitions and their properties.

use core::sync::atomic::Ordering;

use hypercall::{Body, Call, Progress};
use tlfs::HvError;
use tlfs::call::{
    CreateFlags, CreatePartition, GetNextChild, GetProperty, GetPropertyEx, MapStatsPage2,
    PARTITION_NONE, PARTITION_SELF, PartitionOnly, SetProperty, StatsArea, StatsObject, StatsOf,
    StatsPage,
};
use tlfs::property::{Bank, PropertyCode as P, SyntheticFeatures, VmmCapabilities};
use vpcore::child_cpuid;

use super::super::ParentVp;
use super::{Target, frame};
use crate::arch::x86::{insn, lp};
use crate::mm::owners;
use crate::partition::child::{ChildPartition, Creation, State};
use crate::partition::directory::{self, CHILDREN};
use crate::partition::parent::PARENT;
use crate::partition::state_page::PinnedPage;
use crate::partition::statistics::Machine;
use crate::partition::vmbus::QUOTAS;
use crate::partition::{Partition, PartitionCore, statistics};
use crate::shootdown;
use crate::vp::child::layout;

/// One cap point of the property is this part of an LP.
const CAP_OF_LP: u64 = 65_536;

impl ParentVp {
    /// HvCallCreatePartition. The parent pays for it: without memory nothing is made.
    pub(super) fn create_partition(&mut self, body: &mut Body<'_>) -> Result<Progress, HvError> {
        let call = CreatePartition::decode(body.header())?;
        // What decides what the child is must be what we have.
        let needed = CreateFlags::EXO | CreateFlags::LAPIC;
        if call.flags.contains(CreateFlags::NESTED) || !call.flags.contains(needed) {
            return Err(HvError::INVALID_PARAMETER);
        }
        let [first, second] = call.disabled_features;
        let created = ChildPartition::create(&Creation {
            flags: call.flags,
            disabled: [first, second, call.disabled_xsave],
            parent: self.partition,
        })?;
        let Some(id) = created else {
            return Ok(Progress::Yield);
        };
        body.write_output(&id.get().to_le_bytes())?;
        Ok(Progress::Done)
    }

    /// HvCallInitializePartition: pays for the second-level tables from the child's pool. Without memory its state is as before.
    pub(super) fn initialize_partition(&mut self, body: &Body<'_>) -> Result<(), HvError> {
        let call = PartitionOnly::decode(body.header())?;
        self.child(call.partition)?.initialize(self.partition)
    }

    /// In pieces: the call is executed again until nothing is left.
    pub(super) fn finalize_partition(&mut self, body: &Body<'_>) -> Result<Progress, HvError> {
        let call = PartitionOnly::decode(body.header())?;
        self.child(call.partition)?.finalize(self.lp)
    }

    /// HvCallDeletePartition, of one that was finalized and has no frame any more.
    pub(super) fn delete_partition(&mut self, body: &Body<'_>) -> Result<(), HvError> {
        let call = PartitionOnly::decode(body.header())?;
        ChildPartition::delete(self.child(call.partition)?)
    }

    /// HvCallGetNextChildPartition: the children in the order of their ids; 0 after the last.
    pub(super) fn next_child(&mut self, body: &mut Body<'_>) -> Result<(), HvError> {
        let call = GetNextChild::decode(body.header())?;
        if call.parent != PARTITION_SELF && call.parent != PARENT {
            return Err(HvError::INVALID_PARTITION_ID);
        }
        // By slots: a partition that was deleted meanwhile does not break the walk.
        let first = if call.previous == PARTITION_NONE {
            0
        } else {
            directory::slot_of(call.previous) + 1
        };
        let next = (first..CHILDREN).find_map(directory::at);
        let id = next.map_or(PARTITION_NONE, |child| child.core().id);
        body.write_output(&id.get().to_le_bytes())
    }

    /// HvCallGetPartitionProperty.
    pub(super) fn get_property(&mut self, body: &mut Body<'_>) -> Result<(), HvError> {
        let call = GetProperty::decode(body.header())?;
        let value = match self.target(call.partition)? {
            Target::Own => self.own_property(call.code)?,
            Target::Child(child) => child_property(&child, call.code)?,
        };
        body.write_output(&value.to_le_bytes())
    }

    /// HvCallGetPartitionPropertyEx, for properties of more than eight bytes.
    pub(super) fn get_property_ex(&mut self, body: &mut Body<'_>) -> Result<(), HvError> {
        let call = GetPropertyEx::decode(body.header())?;
        let target = self.target(call.partition)?;
        let bank = |value| {
            Bank {
                count: 1,
                value,
                ..Bank::default()
            }
            .encode()
        };
        match call.code {
            P::VMM_CAPABILITIES => {
                let capabilities = VmmCapabilities::OVERLAYS_PLACED_BY_PARENT
                    | VmmCapabilities::ASSIGNABLE_SYNTHETIC_FEATURES;
                body.write_output(&bank(capabilities.bits()))
            }
            P::ASSIGNABLE_SYNTHETIC_FEATURES => {
                body.write_output(&bank(SyntheticFeatures::ASSIGNABLE.bits()))
            }
            code => {
                let value = match target {
                    Target::Own => self.own_property(code)?,
                    Target::Child(child) => child_property(&child, code)?,
                };
                body.write_output(&value.to_le_bytes())
            }
        }
    }

    /// What every partition could have.
    fn own_property(&self, code: P) -> Result<u64, HvError> {
        let core = self.partition.core();
        match code {
            P::PRIVILEGE_FLAGS => Ok(self.identity.privileges.bits()),
            P::GUEST_OS_ID => Ok(core.msrs.lock().guest_os_id()),
            P::REFERENCE_TIME => Ok(core.clock.now(insn::rdtsc()).0),
            code => machine_property(core, code, [0; 3]),
        }
    }

    /// HvCallSetPartitionProperty. Some can be set before the partition is initialized only.
    pub(super) fn set_property(&mut self, body: &Body<'_>) -> Result<Progress, HvError> {
        let call = SetProperty::decode(body.header())?;
        let Target::Child(child) = self.target(call.partition)? else {
            return Err(HvError::ACCESS_DENIED);
        };
        let refused = HvError::PROPERTY_VALUE_OUT_OF_RANGE;
        let mut properties = child.properties.lock();
        if !matches!(properties.state, State::Created | State::Active) {
            return Err(HvError::INVALID_PARTITION_STATE);
        }
        match call.code {
            P::SYNTHETIC_FEATURES => {
                if properties.state != State::Created {
                    return Err(HvError::INVALID_PARTITION_STATE);
                }
                properties.synthetic = SyntheticFeatures::from_bits_retain(call.value);
            }
            P::VMBUS => {
                let frames = u32::try_from(call.value).map_err(|_| refused)?;
                if frames != 0 && !QUOTAS.contains(&frames) {
                    return Err(refused);
                }
                if properties.state != State::Created {
                    return Err(HvError::INVALID_PARTITION_STATE);
                }
                properties.vmbus_frames = frames;
            }
            P::UNIMPLEMENTED_MSR_ACTION if call.value <= 1 => {
                properties.unimplemented_msr_action = call.value;
            }
            P::PROCESSORS_PER_SOCKET => {
                let count = u32::try_from(call.value).map_err(|_| refused)?;
                child.vps_per_socket.store(count, Ordering::Relaxed);
                child.change_cpuid();
            }
            P::CPU_WEIGHT if (1..=10_000).contains(&call.value) => {
                properties.share.weight = call.value as u32;
            }
            P::CPU_CAP if call.value <= CAP_OF_LP => {
                properties.share.cap_percent = (call.value * 100).div_ceil(CAP_OF_LP) as u32;
            }
            P::TIME_FREEZE if call.value <= 1 => {
                drop(properties);
                let frozen = child.exclusively(|| child.freeze(self.lp, call.value == 1));
                return Ok(frozen.map_or(Progress::Yield, |()| Progress::Done));
            }
            P::REFERENCE_TIME => {
                // Not while another LP stops the clock or lets it go on.
                let set = child.exclusively(|| {
                    child
                        .core()
                        .clock
                        .set(synic::RefTime(call.value), insn::rdtsc());
                    child.show_time();
                });
                if set.is_none() {
                    return Ok(Progress::Yield);
                }
                for vp in child.core().vps.iter() {
                    vp.rescan.store(true, Ordering::SeqCst);
                    self.call(vp);
                }
            }
            // Access states are always kept.
            P::GPA_ACCESS_TRACKING if call.value <= 1 => {}
            P::UNIMPLEMENTED_MSR_ACTION
            | P::CPU_WEIGHT
            | P::CPU_CAP
            | P::TIME_FREEZE
            | P::GPA_ACCESS_TRACKING => return Err(refused),
            P::PRIVILEGE_FLAGS | P::GUEST_OS_ID | P::VMM_CAPABILITIES => {
                return Err(HvError::ACCESS_DENIED);
            }
            _ => return Err(HvError::UNKNOWN_PROPERTY),
        }
        let share = properties.share;
        drop(properties);
        for scheduled in child.vps().filter_map(|vp| vp.scheduled()) {
            scheduled.entity.set_share(share);
        }
        Ok(Progress::Done)
    }

    /// HvCallMapStatsPage2: a frame of the parent's becomes a page of statistics.
    pub(super) fn map_statistics(&mut self, body: &Body<'_>) -> Result<(), HvError> {
        let call = MapStatsPage2::decode(body.header())?;
        let page = PinnedPage::new(frame(call.page.get())?).map_err(owners::status)?;
        self.change_statistics(&call.object, Some(page))?;
        self.show_machine();
        match call.object.of {
            StatsOf::Partition(id) => {
                if let Target::Child(child) = self.target(id)? {
                    child.show_statistics();
                }
            }
            // The turn that goes on there has no end.
            StatsOf::Vp(..) | StatsOf::Lp(_) => {
                for target in lp::all() {
                    target.reschedule.store(true, Ordering::SeqCst);
                    shootdown::nudge(self.lp, target);
                }
            }
            StatsOf::Hypervisor => {}
        }
        Ok(())
    }

    /// HvCallUnmapStatsPage: the frame is the parent's alone again.
    pub(super) fn unmap_statistics(&mut self, body: &Body<'_>) -> Result<(), HvError> {
        let call = StatsPage::decode(body.header())?;
        self.change_statistics(&call.object, None)
    }

    /// Shows an area of an object in `page`, or no longer in any.
    #[inline(never)]
    fn change_statistics(
        &mut self,
        object: &StatsObject,
        page: Option<PinnedPage>,
    ) -> Result<(), HvError> {
        let area = object.area;
        // Nobody stands above the hypervisor and its LPs.
        let one_area = || match area {
            StatsArea::Own => Ok(()),
            StatsArea::Parent => Err(HvError::INVALID_PARAMETER),
        };
        match object.of {
            StatsOf::Vp(id, index) => match self.target(id)? {
                Target::Own => {
                    let pages = statistics::of_parent_vp(index).ok_or(HvError::INVALID_VP_INDEX)?;
                    pages.change(area, page)
                }
                Target::Child(_) => {
                    let (_child, vp) = self.child_vp(id, index)?;
                    vp.statistics.change(area, page)
                }
            },
            StatsOf::Partition(id) => match self.target(id)? {
                Target::Own => statistics::of_parent().change(area, page),
                Target::Child(child) => child.statistics.change(area, page),
            },
            StatsOf::Hypervisor => {
                one_area()?;
                statistics::of_hypervisor().change(area, page)
            }
            StatsOf::Lp(lp) => {
                one_area()?;
                let pages = statistics::of(lp).ok_or(HvError::INVALID_LP_INDEX)?;
                pages.change(area, page)
            }
        }
    }

    /// Writes the pages of statistics that calls about children change.
    pub(super) fn show_changed(&self, call: Call, body: &Body<'_>) {
        match call {
            Call::CreatePartition | Call::DeletePartition => self.show_machine(),
            Call::CreateVp | Call::DeleteVp | Call::FinalizePartition => self.show_machine(),
            Call::DepositMemory | Call::WithdrawMemory => {
                statistics::show_frames(|| self.partition.slat.lock().leaves());
            }
            Call::MapGpaPages | Call::UnmapGpaPages => {}
            _ => return,
        }
        // All of them begin with the partition.
        if let Ok(of) = PartitionOnly::decode(body.header())
            && let Ok(child) = self.child(of.partition)
        {
            child.show_statistics();
        }
    }

    fn show_machine(&self) {
        statistics::show_machine(|| {
            let mut machine = Machine {
                lps: lp::all().len() as u64,
                children: 0,
                vps: 0,
                leaves: self.partition.slat.lock().leaves(),
            };
            for child in (0..CHILDREN).filter_map(directory::at) {
                machine.children += 1;
                machine.vps += child.core().vps.iter().count() as u64;
            }
            machine
        });
    }
}

fn child_property(child: &ChildPartition, code: P) -> Result<u64, HvError> {
    let core = child.core();
    let properties = child.properties.lock();
    Ok(match code {
        P::PRIVILEGE_FLAGS => core.identity.lock().privileges.bits(),
        P::SYNTHETIC_FEATURES => properties.synthetic.bits(),
        P::VMBUS => properties.vmbus_frames.into(),
        P::CPU_WEIGHT => properties.share.weight.into(),
        P::CPU_CAP => u64::from(properties.share.cap_percent) * CAP_OF_LP / 100,
        P::TIME_FREEZE => child.is_frozen.load(Ordering::SeqCst).into(),
        P::REFERENCE_TIME => core.clock.now(insn::rdtsc()).0,
        P::PROCESSORS_PER_SOCKET => child.vps_per_socket.load(Ordering::Relaxed).into(),
        P::GPA_ACCESS_TRACKING => 1,
        P::UNIMPLEMENTED_MSR_ACTION => properties.unimplemented_msr_action,
        P::GUEST_OS_ID => core.msrs.lock().guest_os_id(),
        code => return machine_property(core, code, child.disabled),
    })
}

/// What the processors give a child that was created with `disabled`.
fn machine_property(core: &PartitionCore, code: P, disabled: [u64; 3]) -> Result<u64, HvError> {
    let features = || {
        let view = child_cpuid::ChildView {
            disabled,
            ..crate::vp::child::view_of(core)
        };
        child_cpuid::features(insn::cpuid, &view)
    };
    let [first, second, xsave] = match code {
        P::PROCESSOR_FEATURES
        | P::PROCESSOR_FEATURES_0
        | P::PROCESSOR_FEATURES_1
        | P::XSAVE_FEATURES => features(),
        _ => [0; 3],
    };
    Ok(match code {
        P::PROCESSOR_FEATURES | P::PROCESSOR_FEATURES_0 => first,
        P::PROCESSOR_FEATURES_1 => second,
        P::XSAVE_FEATURES => xsave,
        P::PROCESSOR_VENDOR => u64::from(crate::virt::is_intel()),
        // Lines of 64 bytes.
        P::CL_FLUSH_SIZE => 6,
        P::COMPATIBILITY_VERSION => 0x609,
        P::PHYSICAL_ADDRESS_WIDTH | P::IMPLEMENTED_PHYSICAL_BITS => core.physical_bits.into(),
        P::XSAVE_STATES => layout().states(),
        P::MAX_XSAVE_DATA_SIZE => layout().compacted_bytes(layout().states()) as u64,
        P::PROCESSOR_CLOCK_FREQUENCY => core.tsc_hz,
        P::INTEGRATED_SCHEDULER => 0,
        _ => return Err(HvError::UNKNOWN_PROPERTY),
    })
}
