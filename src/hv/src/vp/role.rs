//! What the VPs of the parent and those of children do differently.

use addr::{Gpa, Gpn};
use hypercall::Access;
use synic::{CrashReport, MessageSource, Overlay};
use vpcore::seam::{Exit, VpBackend};

use super::{AnyVp, Vp};
use crate::arch::x86::lp::NEVER;
use crate::partition::{ParentPartition, Partition};

/// The access raises #GP(0) and changed nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refused;

impl From<crate::arch::x86::msr::GeneralProtection> for Refused {
    fn from(_: crate::arch::x86::msr::GeneralProtection) -> Self {
        Self
    }
}

impl From<apic::GeneralProtection> for Refused {
    fn from(_: apic::GeneralProtection) -> Self {
        Self
    }
}

impl From<synic::GpFault> for Refused {
    fn from(_: synic::GpFault) -> Self {
        Self
    }
}

/// How an MSR access ends.
pub enum MsrAnswer<T> {
    /// Carried out: the instruction is complete.
    Done(T),
    /// #GP(0); nothing changed.
    Refused,
    /// Nothing is answered now, RIP stays at the instruction: the parent is asked, or there is more to do first.
    Intercepted,
}

impl<T> From<Result<T, Refused>> for MsrAnswer<T> {
    fn from(result: Result<T, Refused>) -> Self {
        match result {
            Ok(value) => Self::Done(value),
            Err(Refused) => Self::Refused,
        }
    }
}

/// The kind of partition that a VP belongs to: [`super::parent::Parent`] or [`super::child::Child`].
pub trait Role: Sized + 'static {
    /// What its VPs do may be told on the serial line, which is slow.
    const IS_TOLD: bool;

    /// The partition.
    type Partition: Partition;
    /// Where messages come from that lie in no queue.
    type Messages: MessageSource;

    /// Whether there may be messages for the VP that lie in no queue. Takes no lock: who leaves one after this calls the VP.
    fn may_have_messages(vp: &AnyVp<Self>) -> bool;
    /// The messages for the VP that lie in no queue.
    fn messages(vp: &AnyVp<Self>) -> Self::Messages;
    /// The parent partition.
    fn parent(vp: &AnyVp<Self>) -> &'static ParentPartition;

    /// The VP leaves its LP before its next entry, whatever it could run.
    fn must_leave(vp: &AnyVp<Self>) -> bool;
    /// When the VP's LP goes on with work that is left over, in TSC ticks; [`NEVER`].
    #[inline(always)]
    fn work_due(_: &AnyVp<Self>) -> u64 {
        NEVER
    }
    /// Prepares an entry: what reached the LP meanwhile and is this VP's.
    fn before_entry(vp: &mut AnyVp<Self>);
    /// Whether the VP may have `value` in XCR0, if the processor takes it.
    fn may_enable(_: &AnyVp<Self>, _value: u64) -> bool {
        true
    }
    /// CPUID.
    fn cpuid<B: VpBackend>(vp: &mut Vp<B, Self>);
    /// RDMSR of `number`.
    fn read_msr(vp: &mut AnyVp<Self>, number: u32) -> MsrAnswer<u64>;
    /// WRMSR.
    fn write_msr(vp: &mut AnyVp<Self>, number: u32, value: u64) -> MsrAnswer<()>;
    /// An exit that is not answered for both kinds alike.
    fn exit(vp: &mut AnyVp<Self>, exit: Exit);
    /// The guest has shut down.
    fn triple_fault(vp: &mut AnyVp<Self>);
    /// Whether an exception that the guest raised goes to somebody else, who has been told.
    fn intercepts_exception(_: &mut AnyVp<Self>, _vector: u8, _error_code: Option<u32>) -> bool {
        false
    }
    /// The hardware refuses the VP's state.
    fn refused(vp: &mut AnyVp<Self>, detail: u64);
    /// The VP was reset by INIT, and waits for its start.
    fn after_reset(vp: &mut AnyVp<Self>);
    /// A start-up IPI let the VP begin.
    fn after_start(vp: &mut AnyVp<Self>);
    /// The guest ended the interrupt `vector`, or, with `None`, all that was in service is gone.
    fn after_eoi(vp: &mut AnyVp<Self>, vector: Option<u8>, is_level: bool);
    /// A register of the virtual APIC changed that steers what physically arrives.
    fn apic_changed(vp: &mut AnyVp<Self>, what: ApicChange);
    /// WRMSR to IA32_APIC_BASE; false refuses it.
    fn write_apic_base(vp: &mut AnyVp<Self>, value: u64) -> bool;
    /// A parameter block of a hypercall cannot be accessed.
    fn no_access(vp: &mut AnyVp<Self>, gpa: Gpa, access: Access);
    /// Shows an overlay at its new place and nowhere else, on all LPs.
    fn place_overlay(vp: &mut AnyVp<Self>, kind: Overlay, page: Option<Gpn>)
    -> Result<(), Refused>;
    /// The guest reports its own crash.
    fn crash(vp: &mut AnyVp<Self>, report: &CrashReport);
    /// Posts to the partition's VMBus server.
    fn post_to_server(
        vp: &mut AnyVp<Self>,
        call: &tlfs::call::PostMessage<'_>,
    ) -> Result<hypercall::Progress, tlfs::HvError>;
    /// Signals a channel, which is open, to its back end.
    fn channel_signalled(vp: &mut AnyVp<Self>, relid: vmbus_proto::Relid);
    /// Carries out a hypercall that the dispatcher has checked.
    fn call(
        vp: &mut AnyVp<Self>,
        call: hypercall::Call,
        body: &mut hypercall::Body<'_>,
    ) -> Result<hypercall::Progress, tlfs::HvError>;
}

/// What [`Role::apic_changed`] tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ApicChange {
    /// An entry of the local vector table has a new value.
    Lvt(apic::Lvt, u32),
    /// Identifier, mode or software enable.
    Addressing,
}
