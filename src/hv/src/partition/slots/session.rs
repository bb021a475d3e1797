//! One channel of the parent's that is open: requests are taken out of its ring, carried out and completed.

use addr::{Gpn, PartitionId};
use core::ops::Range;
use core::sync::atomic::Ordering;
use hypercall::Outcome;
use ring::Contiguous;
use slot_proto::event::Faults;
use slot_proto::{
    CallDone, Generation, MAX_CALL_BYTES, MAX_PACKET_BYTES, PartitionState, Request, SessionOver,
};
use slots::{Attachment, Identity, Ticket, Turn, collect_signals};
use tlfs::{Control, HvError};

use super::pinned::{PinnedWords, Ring, RingPages};
use super::requests::{self, Answer};
use super::{GENERATIONS, Place, area, place};
use crate::arch::x86::insn;
use crate::arch::x86::lp::LpArea;
use crate::mm::frames::{self, FrameUse};
use crate::partition::vmbus::parent::Channel;
use crate::partition::{Partition, PartitionCore, directory, vmbus};
use crate::vp::parent::ParentVp;

/// Requests in one stretch.
const PACKETS: usize = 16;
/// Parts of a second that a stretch lasts at most, but for the request that is under way then.
pub(super) const STRETCHES: u64 = 50_000;

/// Room for one channel, open or not.
pub struct Session {
    open: Option<Open>,
    input: &'static mut [u8; MAX_PACKET_BYTES],
    output: &'static mut [u8],
}

/// What is there while the channel is open.
struct Open {
    channel: slots::Channel<Ring>,
    /// A request stopped the ring, and all that follows from that was done.
    has_stopped: bool,
    under_way: Option<UnderWay>,
    attached: Option<Attached>,
    /// After the rings that lie in them.
    _pages: RingPages,
}

/// The partition of a slot.
pub struct Attached {
    /// Which.
    pub partition: PartitionId,
    /// The number of its session.
    pub generation: Generation,
    /// Where the worker leaves signals.
    pub signals: PinnedWords,
}

/// A call that is carried out in pieces.
struct UnderWay {
    ticket: Ticket,
    control: Control,
    /// Where in the packet its input lies.
    input: Range<usize>,
}

impl Session {
    /// Of a channel that is not open. `None`: the reserve is empty.
    pub fn new() -> Option<Self> {
        // Never on the stack, which is shorter than two of them.
        let bytes = MAX_PACKET_BYTES + MAX_CALL_BYTES;
        let bytes = frames::place_slice(FrameUse::Partition, bytes, |_| 0)?;
        let (input, output) = bytes.split_first_chunk_mut()?;
        Some(Self {
            open: None,
            input,
            output,
        })
    }

    /// The channel is opened. `None` where `pages` are not what its rings must lie in.
    pub fn open(
        &mut self,
        channel: Channel,
        boot_id: u64,
        pages: &[Gpn],
    ) -> Option<Contiguous<'static>> {
        self.close();
        let pages = RingPages::new(pages)?;
        let (upstream, downstream) = pages.rings();
        let identity = Identity {
            kind: channel.kind,
            slot: channel.number,
            boot_id,
            features: 0,
        };
        let bell = pages.bell();
        self.open = Some(Open {
            channel: slots::Channel::open(identity, upstream, downstream).ok()?,
            has_stopped: false,
            under_way: None,
            attached: None,
            _pages: pages,
        });
        Some(bell)
    }

    /// The channel is closed; its pages are the parent's alone again.
    pub fn close(&mut self) {
        self.open = None;
    }

    /// The partition of the slot.
    pub fn partition(&self) -> Option<PartitionId> {
        self.attached().map(|attached| attached.partition)
    }

    /// What ATTACH left.
    pub fn attached(&self) -> Option<&Attached> {
        self.open.as_ref()?.attached.as_ref()
    }

    /// ATTACH: a session begins, if the channel is open.
    pub fn attach(&mut self, attached: Attached) -> bool {
        let Some(open) = &mut self.open else {
            return false;
        };
        open.channel.attach(attached.generation);
        open.has_stopped = false;
        open.attached = Some(attached);
        true
    }

    /// Takes the partition away from the slot, `core` being its, whose VPs do not run. What the worker had asked for is
    /// dropped.
    pub fn detach(&mut self, place: &Place, core: Option<&PartitionCore>) {
        if let Some(link) = place.link.lock().as_mut() {
            link.area = None;
        }
        if let Some(core) = core {
            core.slot.store(0, Ordering::SeqCst);
        }
        if let Some(open) = &mut self.open {
            open.attached = None;
            open.channel.detach(SessionOver::Detached);
            if let Some(call) = open.under_way.take() {
                // Of a session that is over: nothing is written.
                open.channel.complete(call.ticket, &[], &[]);
            }
        }
    }

    /// Tells the worker that its session is over.
    pub fn say_goodbye(
        &mut self,
        me: &LpArea,
        parent: &dyn Partition,
        place: &Place,
        channel: Channel,
    ) {
        if let Some(open) = &mut self.open
            && open.channel.flush(&place.doorbell).interrupts
        {
            vmbus::signal_client(me, parent, channel.relid());
        }
    }

    /// Serves the channel for a stretch of time; true when there is more to do.
    fn work(&mut self, host: &mut ParentVp, place: &'static Place, channel: Channel) -> bool {
        let Self {
            open,
            input,
            output,
        } = self;
        let Some(open) = open else { return false };
        let attachment = open.look_around(host);
        if open.has_stopped {
            return false;
        }
        let tsc_hz = host.tsc_hz();
        let end = insn::rdtsc().saturating_add(tsc_hz / STRETCHES);
        for packet in 0..PACKETS {
            if packet != 0 && insn::rdtsc() >= end {
                break;
            }
            if let Some(call) = open.under_way.take() {
                open.go_on(host, call, &input[..], output);
                continue;
            }
            let base = input.as_ptr().addr();
            let turn = {
                let mut generations = GENERATIONS.lock();
                open.channel
                    .next(input, attachment.as_ref(), &mut generations)
            };
            match turn {
                // Nothing is outstanding that could be cancelled: one request at a time is carried out.
                Turn::Answered(_) | Turn::Cancel(_) => {}
                Turn::Run(ticket, Request::Call(call)) => {
                    // What lies here may be another session's, and the elements before the first one are answered too.
                    if call.control.rep_start() != 0 {
                        output.fill(0);
                    }
                    let start = call.input.as_ptr().addr().wrapping_sub(base);
                    let call = UnderWay {
                        ticket,
                        control: call.control,
                        input: start..start.saturating_add(call.input.len()),
                    };
                    open.go_on(host, call, &input[..], output);
                }
                Turn::Run(ticket, request) => {
                    let answer = match &open.attached {
                        None => requests::of_daemon(host, &request, output),
                        Some(attached) => {
                            requests::of_worker(host, attached.partition, &request, output)
                        }
                    };
                    open.complete(ticket, answer, output);
                }
                Turn::Idle | Turn::Blocked(_) => break,
                Turn::Stopped(_) => {
                    open.stop(host);
                    break;
                }
            }
        }
        let flushed = open.channel.flush(&place.doorbell);
        if flushed.interrupts {
            vmbus::signal_client(host.lp(), host.parent(), channel.relid());
        }
        open.under_way.is_some() || (flushed.has_more && !open.has_stopped)
    }
}

impl Open {
    /// Takes the worker's signals, and gives it the notices that it has made room for. What its calls depend on.
    fn look_around(&mut self, host: &ParentVp) -> Option<Attachment> {
        let attached = self.attached.as_ref()?;
        let lp = host.lp();
        let child = directory::find(attached.partition)?;
        collect_signals(&attached.signals.words(), attached.generation, |relid| {
            vmbus::signal_client(lp, &*child, relid);
        });
        area::notices(lp, &*child);
        let attachment = Attachment {
            partition: attached.partition,
            has_vmbus: child.core().vmbus.is_on(),
            is_finalized: child.standing().state != PartitionState::ACTIVE,
        };
        if area::is_broken(&*child) {
            self.stop(host);
        }
        Some(attachment)
    }

    /// Carries out a piece of a call.
    fn go_on(&mut self, host: &mut ParentVp, call: UnderWay, input: &[u8], output: &mut [u8]) {
        let bytes = input.get(call.input.clone()).unwrap_or_default();
        match host.carry_out_request(call.control, bytes, output) {
            (Outcome::Continue(control), _) => {
                self.under_way = Some(UnderWay { control, ..call });
            }
            (Outcome::Complete(word), len) => {
                let done = CallDone { result: word.0 };
                let output = output.get(..len).unwrap_or_default();
                self.channel.complete(call.ticket, &done.encode(), output);
            }
            // The parameters lie in no guest's memory.
            (Outcome::NoAccess { .. }, _) => {
                self.complete(call.ticket, Err(HvError::OPERATION_FAILED), output);
            }
        }
    }

    fn complete(&mut self, ticket: Ticket, answer: Answer, output: &[u8]) {
        let (fixed, len) = requests::body(answer);
        let output = output.get(..len).unwrap_or_default();
        self.channel.complete(ticket, fixed.as_ref(), output);
    }

    /// Nothing is read any more from the ring: the worker is told, and its child stands still.
    fn stop(&mut self, host: &ParentVp) {
        if core::mem::replace(&mut self.has_stopped, true) {
            return;
        }
        let Some(attached) = &self.attached else {
            return;
        };
        // Where it is gone there is nothing to stop.
        if let Some(child) = directory::find(attached.partition) {
            child.set_frozen(host.lp(), true);
            area::fault(host.lp(), &*child, Faults::RING_STOPPED);
        }
    }
}

/// Serves `channel` for a stretch of time, for the VP that signalled it; true when there is more to do.
pub fn serve(host: &mut ParentVp, channel: Channel) -> bool {
    let Some((place, session)) =
        place(channel).and_then(|place| Some((place, place.session.get()?)))
    else {
        return false;
    };
    // Another LP is at it: what it does not see is looked at later.
    let Some(mut session) = session.try_lock() else {
        return true;
    };
    session.work(host, place, channel)
}
