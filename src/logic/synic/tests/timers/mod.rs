//! The timers of a VP against a model: its guest writes registers and empties slots, time goes on, it is saved and loaded.
//!
//! The model counts periods in 128 bits from where the timer was set, so that it neither overflows nor drifts.

#[allow(dead_code, reason = "a part of it is used")]
#[path = "../../src/tests/page.rs"]
mod page;

use std::collections::{BTreeMap, BTreeSet};

use addr::{Gpn, VpIndex};
use arbitrary::Arbitrary;
use page::Page;
use synic::{PartitionConfig, RefTime, SynicPage, VpSynic, WriteContext};
use tlfs::message::{MESSAGE_BYTES, offset};
use tlfs::msr::{self, StimerConfig};
use tlfs::{Features, MessageType, Privileges};

const TIMERS: usize = 4;
/// A shorter period is not honoured: 100 µs.
const MIN_PERIOD: u64 = 1_000;
/// The vector of SINT 0; the others follow.
const FIRST_SINT_VECTOR: u8 = 0xE0;

/// What happens next.
#[derive(Arbitrary, Clone, Copy, Debug)]
pub enum Step {
    /// Time goes on by so much.
    Wait(u16),
    /// By 2 to this power, and so much more.
    WaitLong(u8, u16),
    /// To the deadline, and so much more (or less, where that is not back in time).
    WaitForDeadline(i8),
    /// A configuration without reserved bits is written to a timer.
    Config(u8, u32),
    /// Any is.
    AnyConfig(u8, u64),
    /// A count.
    Count(u8, u64),
    /// A count so much ahead of the time.
    CountAhead(u8, i16),
    /// The guest empties the slot of a source.
    Take(u8),
    /// The VP is saved, and goes on elsewhere.
    Move,
}

/// A VP's beginning and what happens to it.
#[derive(Arbitrary, Debug)]
pub struct Story {
    /// Whether timers may raise vectors themselves.
    pub is_direct_offered: bool,
    /// The time at its creation.
    pub start: u64,
    /// One after the other.
    pub steps: Vec<Step>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Timer {
    config: StimerConfig,
    count: u64,
    /// The next expiry; beyond 64 bits it stands for the last moment that there is.
    due: Option<u128>,
    undelivered: Option<u64>,
}

impl Timer {
    fn due(&self) -> Option<u64> {
        self.due.map(|due| due.try_into().unwrap_or(u64::MAX))
    }

    fn period(&self) -> u128 {
        self.count.max(MIN_PERIOD).into()
    }

    fn refuses(config: StimerConfig, is_direct_offered: bool) -> bool {
        let is_bad_vector = config.is_enabled() && config.vector() < 16;
        config.0 & StimerConfig::RESERVED != 0
            || (config.is_direct() && (!is_direct_offered || is_bad_vector))
    }

    fn start(&mut self, is_enabled: bool, now: u64) {
        let has_target = if self.config.is_direct() {
            self.config.vector() >= 16
        } else {
            self.config.sint() != 0
        };
        self.config = self.config.with_enabled(is_enabled && has_target);
        self.undelivered = None;
        self.due = None;
        if self.config.is_enabled() && self.count != 0 {
            self.due = Some(if self.config.is_periodic() {
                u128::from(now) + self.period()
            } else {
                self.count.into()
            });
        }
    }

    /// Whether it expires by `now`.
    fn expire(&mut self, now: u64) -> bool {
        let Some(due) = self.due().filter(|due| *due <= now) else {
            return false;
        };
        if self.config.is_periodic() {
            let begun = self
                .due
                .map_or(0, |due| u128::from(now).saturating_sub(due));
            let periods = begun / self.period() + 1;
            self.due = self.due.map(|due| due + periods * self.period());
        } else {
            self.due = None;
            self.config = self.config.with_enabled(false);
        }
        if !self.config.is_direct() {
            self.undelivered.get_or_insert(due);
        }
        true
    }
}

/// A message in a slot: timer, expiry, delivery.
type Slot = (u32, u64, u64);

struct World<'m> {
    config: PartitionConfig,
    vp: VpSynic<'m>,
    page: Page,
    now: u64,
    timers: [Timer; TIMERS],
    slots: BTreeMap<usize, Slot>,
}

/// Runs `story` and panics where the VP does not do as the model.
pub fn run(story: &Story) {
    let features = if story.is_direct_offered {
        Features::all()
    } else {
        Features::all().difference(Features::DIRECT_TIMERS)
    };
    let config = PartitionConfig {
        privileges: Privileges::all(),
        features,
        tsc_hz: 2_400_000_000,
        apic_hz: 200_000_000,
    };
    let mut world = World {
        config,
        vp: VpSynic::new(&config, VpIndex::new(0), &mut []),
        page: Page::new(),
        now: story.start,
        timers: [Timer::default(); TIMERS],
        slots: BTreeMap::new(),
    };
    world.set_up();
    for step in story.steps.iter().take(512) {
        world.step(*step, story.is_direct_offered);
        world.service();
    }
}

impl World<'_> {
    fn write(&mut self, number: u32, value: u64) -> bool {
        let context = WriteContext {
            now: RefTime(self.now),
            is_page: &|page: Gpn| page.get() == 1,
        };
        self.vp.write(number, value, &context).is_ok()
    }

    /// All sources on, each with a vector of its own.
    fn set_up(&mut self) {
        for (number, value) in [(msr::SIMP, 0x1001), (msr::SCONTROL, 1)] {
            assert!(self.write(number, value));
        }
        for sint in 0..16 {
            assert!(self.write(
                msr::SINT0 + sint,
                u64::from(FIRST_SINT_VECTOR) + u64::from(sint)
            ));
        }
    }

    fn step(&mut self, step: Step, is_direct_offered: bool) {
        let now = self.now;
        match step {
            Step::Wait(by) => self.now = now.saturating_add(by.into()),
            Step::WaitLong(power, by) => {
                self.now = now.saturating_add((1 << (power % 64)) + u64::from(by) - 1);
            }
            Step::WaitForDeadline(by) => {
                if let Some(due) = self.vp.deadline() {
                    self.now = now.max(due.0.saturating_add_signed(by.into()));
                }
            }
            Step::Config(timer, value) => {
                let value = StimerConfig(u64::from(value) & !StimerConfig::RESERVED);
                self.configure(timer, value, is_direct_offered);
            }
            Step::AnyConfig(timer, value) => {
                self.configure(timer, StimerConfig(value), is_direct_offered);
            }
            Step::Count(timer, count) => self.count(timer, count),
            Step::CountAhead(timer, by) => self.count(timer, now.saturating_add_signed(by.into())),
            Step::Take(sint) => {
                let sint = usize::from(sint % 16);
                let slot = self.slot(sint);
                assert_eq!(slot, self.slots.remove(&sint));
                let taken = self.page.take(sint);
                assert_eq!(taken.is_some(), slot.is_some());
                let is_more = self.timers.iter().any(|timer| {
                    timer.undelivered.is_some() && usize::from(timer.config.sint()) == sint
                });
                // Asked for once too often is no harm: the timer may have been set anew.
                assert!(taken.is_none_or(|taken| taken.wants_eom || !is_more));
            }
            Step::Move => {
                let saved = self.vp.timers(RefTime(now));
                self.vp = VpSynic::new(&self.config, VpIndex::new(0), &mut []);
                self.set_up();
                self.vp.set_timers(&saved, RefTime(now)).unwrap();
            }
        }
    }

    fn configure(&mut self, timer: u8, config: StimerConfig, is_direct_offered: bool) {
        let timer = timer % TIMERS as u8;
        let is_taken = self.write(msr::STIMER0_CONFIG + 2 * u32::from(timer), config.0);
        assert_eq!(
            is_taken,
            !Timer::refuses(config, is_direct_offered),
            "{config:?}"
        );
        if is_taken {
            let model = &mut self.timers[usize::from(timer)];
            model.config = config;
            model.start(config.is_enabled(), self.now);
        }
    }

    fn count(&mut self, timer: u8, count: u64) {
        let timer = timer % TIMERS as u8;
        assert!(self.write(msr::STIMER0_COUNT + 2 * u32::from(timer), count));
        let model = &mut self.timers[usize::from(timer)];
        model.count = count;
        let can_run = model.config.is_enabled() || model.config.is_auto_enable();
        model.start(count != 0 && can_run, self.now);
    }

    fn service(&mut self) {
        let mut vectors = BTreeSet::new();
        for timer in &mut self.timers {
            if timer.expire(self.now) && timer.config.is_direct() {
                vectors.insert(timer.config.vector());
            }
        }
        for sint in 0..16 {
            let mut waiting = (0..).zip(&mut self.timers).filter(|(_, timer)| {
                timer.undelivered.is_some() && usize::from(timer.config.sint()) == sint
            });
            if let Some((index, timer)) = waiting.next()
                && !self.slots.contains_key(&sint)
            {
                let expiry = timer.undelivered.take().unwrap_or_default();
                self.slots.insert(sint, (index, expiry, self.now));
                vectors.insert(FIRST_SINT_VECTOR + sint as u8);
            }
        }
        let interrupts = self
            .vp
            .service(RefTime(self.now), Some(&self.page), &mut ());
        let raised: BTreeSet<u8> = interrupts.map(|interrupt| interrupt.vector).collect();
        assert_eq!(raised, vectors, "at {}", self.now);
        self.check();
    }

    fn check(&self) {
        let due = self.timers.iter().filter_map(Timer::due).min();
        assert_eq!(self.vp.deadline(), due.map(RefTime));
        assert!(due.is_none_or(|due| due > self.now || self.now == u64::MAX));
        let waits = self.timers.iter().any(|timer| timer.undelivered.is_some());
        assert_eq!(self.vp.has_undelivered(), waits);
        for (index, timer) in (0..).zip(&self.timers) {
            let register = |number| self.vp.read(number + 2 * index);
            assert_eq!(register(msr::STIMER0_CONFIG), Ok(timer.config.0));
            assert_eq!(register(msr::STIMER0_COUNT), Ok(timer.count));
        }
        for sint in 0..16 {
            assert_eq!(self.slot(sint), self.slots.get(&sint).copied());
        }
    }

    fn slot(&self, sint: usize) -> Option<Slot> {
        let word = |offset| self.page.load_u32(sint * MESSAGE_BYTES + offset);
        let long = |at| {
            u64::from(word(offset::PAYLOAD + at)) | u64::from(word(offset::PAYLOAD + at + 4)) << 32
        };
        match MessageType(word(offset::KIND)) {
            MessageType::NONE => None,
            kind => {
                assert_eq!(kind, MessageType::TIMER_EXPIRED);
                Some((word(offset::PAYLOAD), long(8), long(16)))
            }
        }
    }
}
