//! The synthetic MSRs of one VP, its synthetic interrupt controller and its timers.

use addr::VpIndex;
use tlfs::message::SINT_COUNT;
use tlfs::msr::{self, OverlayPage, SCONTROL_ENABLE, STIMER_COUNT, Sint, StimerConfig};
use tlfs::state::TimersState;
use tlfs::{Features, Privileges};

use crate::partition::check_overlay;
use crate::queue::Queues;
use crate::timer::{FIRST_VECTOR, Timer};
use crate::{GpFault, MsrEffect, Overlay, PartitionConfig, QueueEntry, RefTime, WriteContext};

/// The registers of one VP and what they control.
#[derive(Debug)]
pub struct VpSynic<'m> {
    index: VpIndex,
    privileges: Privileges,
    features: Features,
    control: u64,
    pub(crate) event_flags: OverlayPage,
    pub(crate) messages: OverlayPage,
    assist: OverlayPage,
    pub(crate) event_ring: OverlayPage,
    pub(crate) sints: [Sint; SINT_COUNT],
    pub(crate) timers: [Timer; STIMER_COUNT],
    pub(crate) queues: Queues<'m>,
    /// The next entry of each event ring.
    pub(crate) ring_cursors: [u8; SINT_COUNT],
    /// Sources whose event ring has something that the VP is to be told of by a message, one bit each.
    pub(crate) rung: u16,
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
            event_ring: OverlayPage(0),
            sints: [Sint::AT_RESET; SINT_COUNT],
            timers: [Timer::default(); STIMER_COUNT],
            queues: Queues::new(entries),
            ring_cursors: [0; SINT_COUNT],
            rung: 0,
        }
    }

    /// Everything back to where [`VpSynic::new`] had it; waiting messages are thrown away. For a reset of the
    /// partition, not for INIT, which leaves the SynIC alone. The caller takes the overlays away.
    pub fn reset(&mut self) {
        self.control = 0;
        self.event_flags = OverlayPage(0);
        self.messages = OverlayPage(0);
        self.assist = OverlayPage(0);
        self.event_ring = OverlayPage(0);
        self.ring_cursors = [0; SINT_COUNT];
        self.rung = 0;
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

    /// SIRBP.
    pub const fn event_ring_page(&self) -> OverlayPage {
        self.event_ring
    }

    /// Reads MSR `number`.
    ///
    /// # Errors
    /// [`GpFault`] when the partition has no such register.
    pub fn read(&self, number: u32) -> Result<u64, GpFault> {
        self.check_offered(number)?;
        self.get(number)
    }

    /// As [`VpSynic::read`], for the parent of the partition: also what the partition was not told of.
    ///
    /// # Errors
    /// [`GpFault`] when there is no such register.
    pub fn get(&self, number: u32) -> Result<u64, GpFault> {
        match number {
            msr::VP_INDEX => Ok(u64::from(self.index.get())),
            msr::VP_ASSIST_PAGE => Ok(self.assist.0),
            msr::SCONTROL => Ok(self.control),
            msr::SVERSION => Ok(msr::SYNIC_VERSION),
            msr::SIEFP => Ok(self.event_flags.0),
            msr::SIMP => Ok(self.messages.0),
            msr::SIRBP => Ok(self.event_ring.0),
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
        let is_sint = (msr::SINT0..=msr::SINT15).contains(&number);
        if is_sint && !Sint(value).is_masked() && Sint(value).vector() < FIRST_VECTOR {
            return Err(GpFault);
        }
        self.set(number, value, context)
    }

    /// As [`VpSynic::write`], for the parent of the partition, which restores a state: also what the partition was not
    /// told of, and a source with a vector that cannot be raised, which raises nothing.
    ///
    /// # Errors
    /// As [`VpSynic::write`].
    pub fn set(
        &mut self,
        number: u32,
        value: u64,
        context: &WriteContext<'_>,
    ) -> Result<MsrEffect, GpFault> {
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
            msr::SIRBP => {
                self.event_ring = synic_page(value, context)?;
                Ok(overlay(Overlay::EventRing, self.event_ring))
            }
            msr::EOM => Ok(MsrEffect::EndOfMessage),
            msr::SINT0..=msr::SINT15 => {
                *index(number, msr::SINT0)
                    .and_then(|i| self.sints.get_mut(i))
                    .ok_or(GpFault)? = Sint(value);
                Ok(MsrEffect::Service)
            }
            msr::STIMER0_CONFIG..=msr::STIMER3_COUNT => {
                self.set_timer(number, value, context.now)?;
                Ok(MsrEffect::Timers)
            }
            _ => Err(GpFault), // read-only or not ours
        }
    }

    /// As [`VpSynic::write`] for the registers of timers alone, which kernels write with every tick of their clocks.
    /// [`VpSynic::deadline`] is to be asked anew.
    ///
    /// # Errors
    /// As [`VpSynic::write`]; also for any other register.
    pub fn write_timer(&mut self, number: u32, value: u64, now: RefTime) -> Result<(), GpFault> {
        if !self.privileges.contains(Privileges::SYNTHETIC_TIMERS) {
            return Err(GpFault);
        }
        self.set_timer(number, value, now)
    }

    fn set_timer(&mut self, number: u32, value: u64, now: RefTime) -> Result<(), GpFault> {
        let (i, is_count) = timer_index(number)?;
        let timer = self.timers.get_mut(i).ok_or(GpFault)?;
        if is_count {
            timer.set_count(value, now);
            return Ok(());
        }
        let is_direct_offered = self.features.contains(Features::DIRECT_TIMERS);
        timer.set_config(StimerConfig(value), is_direct_offered, now)
    }

    /// The timers as the parent of the partition saves them at `now`. Of one that is periodic, `adjustment` is the time
    /// to its next expiry.
    pub fn timers(&self, now: RefTime) -> TimersState {
        TimersState {
            timers: self.timers.each_ref().map(|timer| timer.state(now)),
            ..TimersState::default()
        }
    }

    /// Takes over timers as [`VpSynic::timers`] gave them. Then [`VpSynic::service`] is due.
    ///
    /// # Errors
    /// [`GpFault`] when a configuration is not one that a timer can have; nothing was changed.
    pub fn set_timers(&mut self, state: &TimersState, now: RefTime) -> Result<(), GpFault> {
        let mut timers = [Timer::default(); STIMER_COUNT];
        for (timer, state) in timers.iter_mut().zip(&state.timers) {
            timer.load(state, now)?;
        }
        self.timers = timers;
        Ok(())
    }

    pub(crate) const fn is_on(&self) -> bool {
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

/// SIMP, SIEFP and SIRBP keep their reserved bits, because guests write back what they read.
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
