//! What the synthetic MSRs have in common: whose they are, and what a write asks of the hypervisor.

use addr::Gpn;
use tlfs::msr;

use crate::RefTime;

/// The access raises #GP(0) and changed nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GpFault;

/// Whose state holds a register.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// [`PartitionMsrs`](crate::PartitionMsrs).
    Partition,
    /// [`VpSynic`](crate::VpSynic).
    Vp,
}

/// Whose register `number` is; `None` for those that no partition of ours has: any access raises #GP.
pub const fn scope(number: u32) -> Option<Scope> {
    match number {
        msr::GUEST_OS_ID
        | msr::HYPERCALL
        | msr::TIME_REF_COUNT..=msr::APIC_FREQUENCY
        | msr::CRASH_P0..=msr::CRASH_CTL
        | msr::TSC_INVARIANT_CONTROL => Some(Scope::Partition),
        msr::VP_INDEX
        | msr::VP_ASSIST_PAGE
        | msr::SCONTROL..=msr::SIRBP
        | msr::SINT0..=msr::SINT15
        | msr::STIMER0_CONFIG..=msr::STIMER3_COUNT => Some(Scope::Vp),
        _ => None,
    }
}

/// What a write needs to know of the world.
#[derive(Clone, Copy)]
pub struct WriteContext<'a> {
    /// Reference time of the partition.
    pub now: RefTime,
    /// Whether a page number lies in the partition's address space, so that a page may be placed there.
    pub is_page: &'a dyn Fn(Gpn) -> bool,
}

impl core::fmt::Debug for WriteContext<'_> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("WriteContext")
            .field("now", &self.now)
            .finish_non_exhaustive()
    }
}

/// A page that the guest places and the hypervisor fills.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Overlay {
    /// The hypercall page.
    Hypercall,
    /// The reference TSC page.
    ReferenceTsc,
    /// The VP assist page of the VP that wrote.
    VpAssist,
    /// The event flags page of the VP that wrote.
    EventFlags,
    /// The message page of the VP that wrote.
    Messages,
    /// The event ring page of the VP that wrote.
    EventRing,
}

/// A guest's last words.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CrashReport {
    /// CRASH_P0 to CRASH_P4, whose meaning is the guest's.
    pub parameters: [u64; 5],
    /// What was written to CRASH_CTL.
    pub ctl: msr::CrashCtl,
}

/// What the hypervisor has to do after a write that was accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum MsrEffect {
    /// Nothing.
    None,
    /// Show `kind` at `page`, and nowhere else any more; `None` takes it away. For a page of the SynIC, call
    /// [`VpSynic::service`](crate::VpSynic::service) afterwards.
    Overlay {
        /// Which page.
        kind: Overlay,
        /// Where.
        page: Option<Gpn>,
    },
    /// Call [`VpSynic::service`](crate::VpSynic::service) of this VP, and arm its next deadline.
    Service,
    /// Ask [`VpSynic::deadline`](crate::VpSynic::deadline) of this VP anew; nothing else has changed.
    Timers,
    /// Call [`VpSynic::service`](crate::VpSynic::service) of *every* VP of the partition: a crashing processor
    /// empties the slots of the others but writes its own EOM.
    EndOfMessage,
    /// Take down a crash report. The text, if any, must be copied before the guest goes on.
    Crash(CrashReport),
}
