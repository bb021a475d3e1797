//! The synthetic MSRs of one VP, its synthetic interrupt controller and its timers.

use addr::VpIndex;
use tlfs::message::{
    EVENT_FLAGS, EVENT_FLAGS_BYTES, FLAG_PENDING, MESSAGE_BYTES, SINT_COUNT, offset,
};
use tlfs::msr::{self, OverlayPage, SCONTROL_ENABLE, STIMER_COUNT, Sint, StimerConfig};
use tlfs::{Features, Message, Privileges};

use crate::partition::check_overlay;
use crate::queue::Queues;
use crate::timer::Timer;
use crate::{
    GpFault, Interrupt, Interrupts, MsrEffect, Overlay, PartitionConfig, QueueEntry, QueueFull,
    RefTime, SynicPage, WriteContext,
};

/// Why an event was not signalled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EventError {
    /// The SynIC, the page or the source is off: the event is lost.
    Lost,
    /// There is no such source or flag.
    NoSuchFlag,
}

/// The registers of one VP and what they control.
#[derive(Debug)]
pub struct VpSynic<'m> {
    index: VpIndex,
    privileges: Privileges,
    features: Features,
    control: u64,
    event_flags: OverlayPage,
    messages: OverlayPage,
    assist: OverlayPage,
    sints: [Sint; SINT_COUNT],
    timers: [Timer; STIMER_COUNT],
    queues: Queues<'m>,
}

impl<'m> VpSynic<'m> {
    /// The state of VP `index` at its creation. As many messages as `entries` has can wait, over all SINTs; it
    /// may be empty, and of more than 65,535 the rest is not used.
    pub fn new(config: &PartitionConfig, index: VpIndex, entries: &'m mut [QueueEntry]) -> Self {
        Self {
            index,
            privileges: config.privileges,
            features: config.features,
            control: 0,
            event_flags: OverlayPage(0),
            messages: OverlayPage(0),
            assist: OverlayPage(0),
            sints: [Sint::AT_RESET; SINT_COUNT],
            timers: [Timer::default(); STIMER_COUNT],
            queues: Queues::new(entries),
        }
    }

    /// Everything back to where [`VpSynic::new`] had it; waiting messages are thrown away. For a reset of the
    /// partition, not for INIT, which leaves the SynIC alone. The caller takes the overlays away.
    pub fn reset(&mut self) {
        self.control = 0;
        self.event_flags = OverlayPage(0);
        self.messages = OverlayPage(0);
        self.assist = OverlayPage(0);
        self.sints = [Sint::AT_RESET; SINT_COUNT];
        self.timers = [Timer::default(); STIMER_COUNT];
        self.queues.clear();
    }

    /// SIMP.
    pub const fn message_page(&self) -> OverlayPage {
        self.messages
    }

    /// SIEFP.
    pub const fn event_flags_page(&self) -> OverlayPage {
        self.event_flags
    }

    /// VP_ASSIST_PAGE.
    pub const fn assist_page(&self) -> OverlayPage {
        self.assist
    }

    /// Reads MSR `number`.
    ///
    /// # Errors
    /// [`GpFault`] when the partition has no such register.
    pub fn read(&self, number: u32) -> Result<u64, GpFault> {
        self.check_offered(number)?;
        match number {
            msr::VP_INDEX => Ok(u64::from(self.index.get())),
            msr::VP_ASSIST_PAGE => Ok(self.assist.0),
            msr::SCONTROL => Ok(self.control),
            msr::SVERSION => Ok(msr::SYNIC_VERSION),
            msr::SIEFP => Ok(self.event_flags.0),
            msr::SIMP => Ok(self.messages.0),
            msr::EOM => Ok(0),
            msr::SINT0..=msr::SINT15 => index(number, msr::SINT0)
                .and_then(|i| self.sints.get(i))
                .map(|sint| sint.0)
                .ok_or(GpFault),
            msr::STIMER0_CONFIG..=msr::STIMER3_COUNT => {
                let (i, is_count) = timer_index(number)?;
                let timer = self.timers.get(i).ok_or(GpFault)?;
                Ok(if is_count {
                    timer.count()
                } else {
                    timer.config().0
                })
            }
            _ => Err(GpFault),
        }
    }

    /// Writes `value` to MSR `number`.
    ///
    /// # Errors
    /// [`GpFault`] when the partition has no such register, it is read-only, a field has a value it must not
    /// have, or a page is placed outside the address space. Nothing was changed.
    pub fn write(
        &mut self,
        number: u32,
        value: u64,
        context: &WriteContext<'_>,
    ) -> Result<MsrEffect, GpFault> {
        self.check_offered(number)?;
        match number {
            msr::VP_ASSIST_PAGE => {
                let register = OverlayPage(value);
                check_overlay(register, context)?;
                self.assist = register;
                Ok(overlay(Overlay::VpAssist, register))
            }
            msr::SCONTROL => {
                self.control = value;
                Ok(MsrEffect::Service)
            }
            msr::SIEFP => {
                self.event_flags = synic_page(value, context)?;
                Ok(overlay(Overlay::EventFlags, self.event_flags))
            }
            msr::SIMP => {
                self.messages = synic_page(value, context)?;
                Ok(overlay(Overlay::Messages, self.messages))
            }
            msr::EOM => Ok(MsrEffect::EndOfMessage),
            msr::SINT0..=msr::SINT15 => {
                let new = Sint(value);
                if !new.is_masked() && new.vector() < 16 {
                    return Err(GpFault);
                }
                *index(number, msr::SINT0)
                    .and_then(|i| self.sints.get_mut(i))
                    .ok_or(GpFault)? = new;
                Ok(MsrEffect::Service)
            }
            msr::STIMER0_CONFIG..=msr::STIMER3_COUNT => {
                let (i, is_count) = timer_index(number)?;
                let timer = self.timers.get_mut(i).ok_or(GpFault)?;
                if is_count {
                    timer.set_count(value, context.now);
                } else {
                    let is_direct_offered = self.features.contains(Features::DIRECT_TIMERS);
                    timer.set_config(StimerConfig(value), is_direct_offered, context.now)?;
                }
                Ok(MsrEffect::Service)
            }
            _ => Err(GpFault), // read-only or not ours
        }
    }

    /// When [`VpSynic::service`] must be called at the latest because of a timer; `None` for never. A time in
    /// the past means now.
    pub fn deadline(&self) -> Option<RefTime> {
        self.timers.iter().filter_map(Timer::due).min()
    }

    /// Whether a message waits for its slot. The guest is then to write EOM or EOI, after which
    /// [`VpSynic::service`] tries again.
    pub fn has_undelivered(&self) -> bool {
        !self.queues.is_empty()
            || self
                .timers
                .iter()
                .any(|timer| timer.undelivered().is_some())
    }

    /// Expires the timers that are due at `now`, writes what messages can be written to `messages`, the page of
    /// [`VpSynic::message_page`], and tells which interrupts to raise on this VP. `None` stands for a page that
    /// is off or cannot be reached: messages go on waiting.
    ///
    /// Takes time in proportion to the number of SINTs and timers, whatever the guest did.
    pub fn service(&mut self, now: RefTime, messages: Option<&impl SynicPage>) -> Interrupts {
        let mut interrupts = Interrupts::NONE;
        for timer in &mut self.timers {
            if timer.expire(now) && timer.config().is_direct() {
                interrupts.add(Interrupt {
                    vector: timer.config().vector(),
                    auto_eoi: false,
                });
            }
        }
        if self.has_undelivered() {
            for sint in 0..SINT_COUNT {
                self.deliver(sint, now, messages, &mut interrupts);
            }
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
    ) -> Result<Interrupts, QueueFull> {
        self.queues.push(sint, message)?;
        let mut interrupts = Interrupts::NONE;
        self.deliver(sint, now, messages, &mut interrupts);
        Ok(interrupts)
    }

    /// Sets event flag `flag` of SINT `sint` in `flags`, the page of [`VpSynic::event_flags_page`], and tells
    /// which interrupt to raise on this VP: none when the flag was set already, or the source is polled.
    ///
    /// # Errors
    /// See [`EventError`]; nothing was changed.
    pub fn signal_event(
        &mut self,
        sint: usize,
        flag: u16,
        flags: Option<&impl SynicPage>,
    ) -> Result<Option<Interrupt>, EventError> {
        let source = self.sints.get(sint).ok_or(EventError::NoSuchFlag)?;
        if flag >= EVENT_FLAGS {
            return Err(EventError::NoSuchFlag);
        }
        let Some(page) =
            flags.filter(|_| self.is_on() && self.event_flags.is_enabled() && !source.is_masked())
        else {
            return Err(EventError::Lost);
        };
        let bit = 1u32 << (flag % 32);
        let at = sint * EVENT_FLAGS_BYTES + usize::from(flag / 32) * 4;
        let before = page.or_u32(at, bit);
        Ok(if before & bit == 0 {
            raise(*source)
        } else {
            None
        })
    }

    /// One attempt to fill the slot of `sint`, with the head of its queue or else with the message of a timer.
    fn deliver(
        &mut self,
        sint: usize,
        now: RefTime,
        messages: Option<&impl SynicPage>,
        interrupts: &mut Interrupts,
    ) {
        let Some(source) = self.sints.get(sint).copied() else {
            return;
        };
        let Some(page) =
            messages.filter(|_| self.is_on() && self.messages.is_enabled() && !source.is_masked())
        else {
            return;
        };
        // Messages of timers wait in the timers, behind the queue: the flag must tell of them too.
        let mut waiting_timers = self
            .timers
            .iter()
            .enumerate()
            .filter(|(_, timer)| usize::from(timer.config().sint()) == sint)
            .filter_map(|(i, timer)| Some((i, timer.undelivered()?)));
        let is_written = if let Some((message, more)) = self.queues.first(sint) {
            let is_written =
                fill_slot(page, sint, message, more || waiting_timers.next().is_some());
            if is_written {
                self.queues.pop(sint);
            }
            is_written
        } else if let Some((i, expiration)) = waiting_timers.next() {
            let message = Message::timer_expired(i as u32, expiration.0, now.0);
            let is_written = fill_slot(page, sint, &message, waiting_timers.next().is_some());
            if is_written && let Some(timer) = self.timers.get_mut(i) {
                timer.delivered();
            }
            is_written
        } else {
            false
        };
        if is_written && let Some(interrupt) = raise(source) {
            interrupts.add(interrupt);
        }
    }

    const fn is_on(&self) -> bool {
        self.control & SCONTROL_ENABLE != 0
    }

    /// Whether the partition was told of the register. VP_ASSIST_PAGE is there whatever it was told, because
    /// Linux writes it without asking.
    fn check_offered(&self, number: u32) -> Result<(), GpFault> {
        let needed = match number {
            msr::VP_INDEX => Privileges::VP_INDEX,
            msr::VP_ASSIST_PAGE => Privileges::empty(),
            msr::SCONTROL..=msr::SINT15 => Privileges::SYNIC,
            msr::STIMER0_CONFIG..=msr::STIMER3_COUNT => Privileges::SYNTHETIC_TIMERS,
            _ => return Err(GpFault),
        };
        if self.privileges.contains(needed) {
            Ok(())
        } else {
            Err(GpFault)
        }
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

const fn raise(source: Sint) -> Option<Interrupt> {
    if source.is_polled() {
        None
    } else {
        Some(Interrupt {
            vector: source.vector(),
            auto_eoi: source.is_auto_eoi(),
        })
    }
}

/// SIMP and SIEFP keep their reserved bits, because guests write back what they read.
fn synic_page(value: u64, context: &WriteContext<'_>) -> Result<OverlayPage, GpFault> {
    let register = OverlayPage(value);
    if register.enabled_page().is_none_or(context.is_page) {
        Ok(register)
    } else {
        Err(GpFault)
    }
}

const fn overlay(kind: Overlay, register: OverlayPage) -> MsrEffect {
    MsrEffect::Overlay {
        kind,
        page: register.enabled_page(),
    }
}

fn index(number: u32, first: u32) -> Option<usize> {
    number.checked_sub(first).map(|i| i as usize)
}

/// Which timer a register belongs to, and whether it is its count.
fn timer_index(number: u32) -> Result<(usize, bool), GpFault> {
    let i = index(number, msr::STIMER0_CONFIG).ok_or(GpFault)?;
    Ok((i / 2, i % 2 == 1))
}
