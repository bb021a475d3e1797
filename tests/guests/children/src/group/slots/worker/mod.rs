//! A slot: its worker's calls, intercepts, and the child's VMBus.

mod one_child;

use core::sync::atomic::AtomicU64;

use machine::verdict::check;
use slot_proto::{AttachFlags, Generation, Notice, OfferDone, OpenResult, Request};
use slots::{SignalPage, Watcher};
use tlfs::call::{PARTITION_SELF, RegisterValue, VpRegisters};
use tlfs::register::RegisterName as N;
use tlfs::{CallCode, HvError};
use vmbus_proto::{Offer, OfferFlags, Relid, class};

use super::{World, child};
use crate::child::guest::Guest;
use crate::client::intercept::Intercept;
use crate::client::line::{LATE, Line, WorkerPages};
use crate::client::synic;
use crate::group::need;
use one_child::one_child;

type Words = &'static [AtomicU64];

/// How long a child is waited for, in microseconds.
const PATIENCE: u64 = 8_000_000;

/// A worker: its slot, and the pages that it shares with the hypervisor.
pub struct Worker {
    pub line: Line,
    pub pages: WorkerPages,
    pub watcher: Watcher<Words>,
    pub signals: SignalPage<Words>,
    /// VPs with an intercept that was not answered.
    vps: u64,
}

impl Worker {
    /// The worker of a session that begins: it greets.
    pub fn begin(mut line: Line, pages: WorkerPages, generation: Generation) -> Option<Self> {
        line.attached(generation);
        let done = need("slot: HELLO", line.hello())?;
        check(
            format_args!("slot: what HELLO tells # {done:?}"),
            done.generation == generation,
        );
        let watcher = pages.watch(generation);
        check("slot: the event area is the session's", watcher.is_some());
        Some(Self {
            signals: pages.signals(generation),
            watcher: watcher?,
            line,
            pages,
            vps: 0,
        })
    }

    /// Sets registers of VP 0 of the slot's child.
    pub fn set(&mut self, registers: &[(N, u128)]) -> Result<(), HvError> {
        let mut input = VpRegisters {
            partition: PARTITION_SELF,
            ..VpRegisters::default()
        }
        .encode()
        .to_vec();
        for (name, value) in registers {
            let element = RegisterValue {
                name: *name,
                value: *value,
                ..RegisterValue::default()
            };
            input.extend_from_slice(&element.encode());
        }
        let count = registers.len() as u16;
        let (done, _) = self.line.call(CallCode::SET_VP_REGISTERS, &input, count)?;
        if done == count { Ok(()) } else { Err(LATE) }
    }

    /// Lets VP 0 go on.
    pub fn resume(&mut self) -> Result<(), HvError> {
        self.set(&[(N::INTERCEPT_SUSPEND, 0), (N::EXPLICIT_SUSPEND, 0)])
    }

    /// Whether a request is neither done nor answered in this session.
    pub fn is_forgotten(&mut self) -> bool {
        self.line.patience = 50_000;
        self.resume() == Err(LATE)
    }

    /// The next intercept of VP 0.
    pub fn stop(&mut self, guest: &Guest) -> Option<Intercept> {
        synic::sleep_until(PATIENCE, || {
            self.vps |= self.watcher.take_news().vps;
            self.vps & 1 != 0
        });
        (self.vps & 1 != 0).then(|| {
            self.vps = 0;
            guest.intercept_page(0)
        })
    }

    /// The next notice.
    pub fn notice(&mut self) -> Option<Notice> {
        let mut found = None;
        synic::sleep_until(PATIENCE, || {
            self.vps |= self.watcher.take_news().vps;
            found = self.watcher.next_notice().ok().flatten();
            found.is_some()
        });
        found
    }

    /// OFFER of a disk controller.
    pub fn offer(&mut self) -> Option<Relid> {
        let offer = Offer {
            class: class::SCSI,
            instance: class::slot_instance(77),
            flags: OfferFlags::ENUMERATE,
            ..Offer::default()
        };
        let body = need("slot: OFFER", self.line.ask(&Request::Offer(offer)))?;
        OfferDone::decode(&body).ok().map(|done| done.relid)
    }

    /// Answers [`Notice::Open`].
    pub fn opened(&mut self, relid: Relid, status: u32) -> Result<(), HvError> {
        let request = Request::OpenResult(OpenResult { relid, status });
        self.line.ask(&request).map(drop)
    }
}

/// ATTACH of slot 0 to `guest`, and its worker.
pub fn attach(
    world: &World,
    control: &mut Line,
    guest: &Guest,
    flags: AttachFlags,
) -> Option<Worker> {
    let line = world.slot(0)?;
    let pages = WorkerPages::new();
    let attached = control.attach(0, guest, &pages, flags);
    let generation = need("slot: ATTACH", attached)?;
    Worker::begin(line, pages, generation)
}

pub fn run(world: &World) {
    let Some(mut control) = world.control() else {
        return;
    };
    if let Some(guest) = child() {
        one_child(world, &mut control, guest);
    }
    check(
        "slots: the control channel closes",
        control.close(&world.bus),
    );
}
