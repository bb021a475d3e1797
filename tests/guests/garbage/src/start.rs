//! One start of the child.
#![expect(
    unsafe_code,
    reason = "the entry has a name that its linker script knows"
)]

use core::fmt::Write;
use core::sync::atomic::Ordering;

use storvsp_proto::DataDirection;
use vmbus_client::{Client, SINT};
use vmbus_proto::{Relid, Version};

use crate::controller::{Controller, find};
use crate::machine::{Com1, DATA, power_off, reset, set_up, word};
use crate::report::Report;
use crate::wire::{Calls, PATIENCE_100NS};
use crate::{gpadls, messages, packets, requests, rings};

/// Where the SINT's interrupt would go.
const VECTOR: u8 = 0x61;

/// What the first sector holds.
mod sector {
    pub const STARTS: u64 = 0;
    pub const RESULTS: u64 = 8;
    pub const NOISE: u64 = 16;
}

/// A child between its misdeeds.
pub struct Child {
    /// Its VMBus.
    pub client: Client<Calls>,
    /// The controller's channel and connection.
    pub channel: (Relid, u32),
    /// What was found.
    pub report: Report,
    starts: u64,
}

/// Numbers without an order, the same at each run.
pub struct Noise(pub u64);

impl Noise {
    /// The next one (xorshift).
    pub fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }
}

fn at(place: u64) -> u64 {
    word(DATA + place).load(Ordering::Relaxed)
}

fn put(place: u64, value: u64) {
    word(DATA + place).store(value, Ordering::Relaxed);
}

impl Child {
    /// Makes contact and finds the controller, as if it were the first time.
    pub fn connect(&mut self) -> bool {
        self.client.wire.patience_100ns = PATIENCE_100NS;
        // What was said before goes by; a new contact ends it.
        let is_there = self.client.ask_for_contact(Version::V5_3) == 0
            && (0..5000).any(|_| {
                self.client
                    .version()
                    .is_some_and(|said| said.payload[8] == 1)
            });
        let found = if is_there {
            find(&mut self.client)
        } else {
            None
        };
        if let Some(channel) = found {
            self.channel = channel;
        }
        found.is_some()
    }

    /// The disk is used as a driver does, and holds what was written.
    pub fn is_served(&mut self) -> bool {
        let Some(mut controller) = Controller::open(&mut self.client, self.channel) else {
            return false;
        };
        put(sector::STARTS, u64::MAX);
        let is_read = controller.first_sector(DataDirection::Read);
        let is_same = at(sector::STARTS) == self.starts;
        controller.close() && is_read && is_same
    }

    fn save(&mut self, starts: u64) -> bool {
        let Some(mut controller) = Controller::open(&mut self.client, self.channel) else {
            return false;
        };
        put(sector::STARTS, starts);
        put(sector::RESULTS, self.report.count);
        put(sector::NOISE, 0x0123_4567_89AB_CDEF);
        let is_written = controller.first_sector(DataDirection::Write);
        controller.close() && is_written
    }

    fn load(&mut self) -> bool {
        let Some(mut controller) = Controller::open(&mut self.client, self.channel) else {
            return false;
        };
        let is_read = controller.first_sector(DataDirection::Read);
        (self.starts, self.report.count) = (at(sector::STARTS), at(sector::RESULTS));
        controller.close() && is_read
    }
}

// SAFETY: there is one symbol of this name.
#[unsafe(no_mangle)]
extern "sysv64" fn _start() -> ! {
    set_up(SINT, VECTOR);
    let wire = Calls {
        patience_100ns: PATIENCE_100NS,
    };
    let mut child = Child {
        client: Client::new(wire),
        channel: (Relid(0), 0),
        report: Report { count: 0 },
        starts: 0,
    };
    let is_connected = child.connect();
    let is_loaded = is_connected && child.load();
    let start = child.starts;
    child.report.check(
        format_args!("start {start}: the controller is offered and serves"),
        is_loaded,
    );
    if !is_loaded {
        child.report.finish();
        power_off();
    }
    match start {
        0 => rings::run(&mut child),
        1 => packets::run(&mut child),
        2 => requests::run(&mut child),
        3 => gpadls::run(&mut child),
        4 => messages::run(&mut child),
        5 => {}
        _ => {
            child.report.finish();
            let _ = writeln!(Com1, "child: garbage ends");
            power_off();
        }
    }
    let is_saved = child.save(start + 1);
    if !is_saved {
        child.report.check(
            format_args!("start {start}: the disk takes a last word"),
            false,
        );
        child.report.finish();
        power_off();
    }
    if start == 5 {
        rings::leave_broken(&mut child);
    }
    reset()
}
