//! Messages into slots, events into flags.

use tlfs::intercept::SintIntercept;
use tlfs::message::{
    EVENT_FLAGS, EVENT_FLAGS_BYTES, FLAG_PENDING, MESSAGE_BYTES, SINT_COUNT, offset,
};
use tlfs::msr::Sint;
use tlfs::{Message, MessageType};

use crate::timer::{FIRST_VECTOR, Timer};
use crate::{Interrupt, Interrupts, QueueFull, RefTime, SynicPage, VpSynic};

/// Why an event was not signalled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EventError {
    /// The SynIC, the page or the source is off: the event is lost.
    Lost,
    /// There is no such source or flag.
    NoSuchFlag,
}

/// An event flag that is set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Signalled {
    /// It was clear before.
    pub is_new: bool,
    /// What to raise on the VP: nothing for a flag that was set already, or a source that is polled.
    pub interrupt: Option<Interrupt>,
}

/// Messages that wait for a VP elsewhere than in its own queues: with a port, or with children that were intercepted.
/// `()` has none.
pub trait MessageSource {
    /// The SINTs for which a message waits, one bit each.
    fn waiting(&mut self) -> u16;
    /// The first message for `sint`, and whether another waits behind it.
    fn first(&mut self, sint: usize) -> Option<(Message, bool)>;
    /// What [`MessageSource::first`] gave was written: takes it away.
    fn pop(&mut self, sint: usize);
}

impl MessageSource for () {
    fn waiting(&mut self) -> u16 {
        0
    }

    fn first(&mut self, _: usize) -> Option<(Message, bool)> {
        None
    }

    fn pop(&mut self, _: usize) {}
}

/// Where the message for a slot comes from.
enum Origin {
    Queue,
    Ring,
    Source,
    Timer(usize),
}

impl VpSynic<'_> {
    /// When [`VpSynic::service`] must be called at the latest because of a timer; `None` for never. A time in
    /// the past means now.
    pub fn deadline(&self) -> Option<RefTime> {
        self.timers.iter().filter_map(Timer::due).min()
    }

    /// Whether a message waits for its slot, those of a [`MessageSource`] apart. The guest is then to write EOM or EOI,
    /// after which [`VpSynic::service`] tries again.
    pub fn has_undelivered(&self) -> bool {
        !self.queues.is_empty() || self.rung != 0 || self.waiting_timers().next().is_some()
    }

    /// Expires the timers that are due at `now`, and tells which interrupts to raise on this VP. Where one owes a message,
    /// [`VpSynic::has_undelivered`] says so, and [`VpSynic::service`] is due.
    pub fn expire(&mut self, now: RefTime) -> Interrupts {
        let mut interrupts = Interrupts::NONE;
        for timer in &mut self.timers {
            if timer.expire(now) && timer.config().is_direct() {
                interrupts.add(Interrupt {
                    vector: timer.config().vector(),
                    auto_eoi: false,
                });
            }
        }
        interrupts
    }

    /// Expires the timers that are due at `now`, writes what messages can be written to `messages`, the page of
    /// [`VpSynic::message_page`], and tells which interrupts to raise on this VP. `None` stands for a page that
    /// is off or cannot be reached: messages go on waiting.
    ///
    /// Takes time in proportion to the number of SINTs and timers, whatever the guest did.
    pub fn service(
        &mut self,
        now: RefTime,
        messages: Option<&impl SynicPage>,
        source: &mut impl MessageSource,
    ) -> Interrupts {
        let mut interrupts = self.expire(now);
        let in_source = source.waiting();
        let waiting = if self.has_undelivered() {
            u16::MAX
        } else {
            in_source
        };
        for sint in (0..SINT_COUNT).filter(|sint| waiting & 1 << sint != 0) {
            self.deliver(sint, now, messages, (source, in_source), &mut interrupts);
        }
        interrupts
    }

    /// Queues `message` for SINT `sint`, writes the first message of that SINT if its slot is free, and tells
    /// which interrupts to raise on this VP. A message for a source or page that is off waits until it is on.
    ///
    /// # Errors
    /// [`QueueFull`]: nothing was queued. Also for a `sint` above 15.
    pub fn post(
        &mut self,
        sint: usize,
        message: &Message,
        now: RefTime,
        messages: Option<&impl SynicPage>,
        source: &mut impl MessageSource,
    ) -> Result<Interrupts, QueueFull> {
        self.queues.push(sint, message)?;
        let mut interrupts = Interrupts::NONE;
        let in_source = source.waiting();
        self.deliver(sint, now, messages, (source, in_source), &mut interrupts);
        Ok(interrupts)
    }

    /// Sets event flag `flag` of SINT `sint` in `flags`, the page of [`VpSynic::event_flags_page`].
    ///
    /// # Errors
    /// See [`EventError`]; nothing was changed.
    pub fn signal_event(
        &mut self,
        sint: usize,
        flag: u16,
        flags: Option<&impl SynicPage>,
    ) -> Result<Signalled, EventError> {
        let source = self.sints.get(sint).ok_or(EventError::NoSuchFlag)?;
        if flag >= EVENT_FLAGS {
            return Err(EventError::NoSuchFlag);
        }
        let page = flags.filter(|_| self.event_flags.is_enabled() && self.takes(*source));
        let bit = 1u32 << (flag % 32);
        let at = sint * EVENT_FLAGS_BYTES + usize::from(flag / 32) * 4;
        let before = page.ok_or(EventError::Lost)?.or_u32(at, bit);
        let is_new = before & bit == 0;
        Ok(Signalled {
            is_new,
            interrupt: raised(*source).filter(|_| is_new),
        })
    }

    /// Whether the SynIC and `source` are on.
    pub(crate) const fn takes(&self, source: Sint) -> bool {
        self.is_on() && !source.is_masked()
    }

    /// One attempt to fill the slot of `sint`: with the head of its queue, or else a call to look into an event ring,
    /// the source, a timer.
    fn deliver(
        &mut self,
        sint: usize,
        now: RefTime,
        messages: Option<&impl SynicPage>,
        (source, in_source): (&mut impl MessageSource, u16),
        interrupts: &mut Interrupts,
    ) {
        let Some(slot_source) = self.sints.get(sint).copied() else {
            return;
        };
        let Some(page) = messages.filter(|_| self.messages.is_enabled() && self.takes(slot_source))
        else {
            return;
        };
        // Each kind waits behind the ones before it: the pending flag must tell of all.
        let rung = if sint == 0 { self.rung } else { 0 };
        let in_source = in_source & 1 << sint != 0;
        let mut timers = self.waiting_timers().filter(|(i, _)| {
            self.timers
                .get(*i)
                .is_some_and(|t| usize::from(t.config().sint()) == sint)
        });
        let timer = timers.next();
        let (message, more, origin) = if let Some((message, more)) = self.queues.first(sint) {
            let more = more || rung != 0 || in_source || timer.is_some();
            (Some(*message), more, Origin::Queue)
        } else if rung != 0 {
            let payload = SintIntercept {
                sint: rung.trailing_zeros(),
            }
            .encode();
            let message = Message::new(MessageType::SINT_INTERCEPT, 0, &payload);
            let more = !rung.is_power_of_two() || in_source || timer.is_some();
            (message, more, Origin::Ring)
        } else if let Some((message, more)) = source.first(sint).filter(|_| in_source) {
            (Some(message), more || timer.is_some(), Origin::Source)
        } else if let Some((i, expiration)) = timer {
            let message = Message::timer_expired(i as u32, expiration.0, now.0);
            (Some(message), timers.next().is_some(), Origin::Timer(i))
        } else {
            return;
        };
        drop(timers);
        if !message.is_some_and(|message| fill_slot(page, sint, &message, more)) {
            return;
        }
        match origin {
            Origin::Queue => self.queues.pop(sint),
            Origin::Ring => self.rung &= self.rung.wrapping_sub(1),
            Origin::Source => source.pop(sint),
            Origin::Timer(i) => {
                if let Some(timer) = self.timers.get_mut(i) {
                    timer.delivered();
                }
            }
        }
        if let Some(interrupt) = raised(slot_source) {
            interrupts.add(interrupt);
        }
    }

    fn waiting_timers(&self) -> impl Iterator<Item = (usize, RefTime)> {
        self.timers
            .iter()
            .enumerate()
            .filter_map(|(i, timer)| Some((i, timer.undelivered()?)))
    }
}

/// Writes `message` into the slot of `sint` if the guest has emptied it. If not, the slot's pending flag is set
/// when this returns, so the guest will write EOM after emptying it.
///
/// The guest empties a slot by exchanging the type for 0, then looks at the flag. So the flag is set first and
/// the type looked at again: one of the two sides sees the other. The type of a full slot is never written.
fn fill_slot(page: &impl SynicPage, sint: usize, message: &Message, more: bool) -> bool {
    let slot = sint * MESSAGE_BYTES;
    if page.load_u32(slot + offset::KIND) != 0 {
        page.or_u8(slot + offset::FLAGS, FLAG_PENDING);
        page.fence();
        if page.load_u32(slot + offset::KIND) != 0 {
            return false;
        }
    }
    page.write(slot + offset::PAYLOAD, message.payload());
    page.write(
        slot + offset::PAYLOAD_SIZE,
        &message.header_tail(if more { FLAG_PENDING } else { 0 }),
    );
    page.store_u32(slot + offset::KIND, message.kind().0);
    true
}

/// The interrupt of `source`: none when it is polled, or its vector is one that nobody can raise.
pub(crate) fn raised(source: Sint) -> Option<Interrupt> {
    (!source.is_polled() && source.vector() >= FIRST_VECTOR).then(|| Interrupt {
        vector: source.vector(),
        auto_eoi: source.is_auto_eoi(),
    })
}
