//! A channel of ours from user space's end: rings in this program's memory, requests and their completions.
#![expect(unsafe_code, reason = "rings lie in frames that the hypervisor shares")]

use alloc::boxed::Box;
use alloc::vec::Vec;
use core::sync::atomic::AtomicU64;

use ring::{ControlPage, DataPage, Paged};
use slot_proto::{
    Call, GPADL_PAGES, Generation, MAX_PACKET_BYTES, RING_PAGES, Request, SessionOver,
};
use slots::{Client, Incoming, SignalPage, Watcher};
use tlfs::{CallCode, Control, HvError};
use vmbus_proto::{GpadlHandle, OfferChannel, Relid};

use super::bus::{self, Bus};
use super::synic;
use crate::arena;

/// One ring.
pub type Ring = Paged<'static, [&'static DataPage; RING_PAGES - 1]>;

/// How long a completion may take, in microseconds.
const PATIENCE: u64 = 4_000_000;

/// Status of a request that has no completion in time.
pub const LATE: HvError = HvError(0xFFFF);

/// A channel that is open.
pub struct Line {
    /// Requests and completions.
    pub client: Client<Ring>,
    /// Its number.
    pub relid: Relid,
    /// The pages of both rings.
    pub pages: Vec<u64>,
    /// What the hypervisor said of the session's end.
    pub over: Option<SessionOver>,
    /// How long a completion may take, in microseconds.
    pub patience: u64,
    connection: u32,
    buffer: Box<[u8; MAX_PACKET_BYTES]>,
}

/// The handle of a channel's ring.
pub fn handle(relid: Relid) -> GpadlHandle {
    GpadlHandle(0xE1E10 + relid.0)
}

fn page<T>(at: u64) -> &'static T {
    // SAFETY: memory is identity mapped, and the frame is atomics as long as the program runs.
    unsafe { &*(at as *const T) }
}

/// `pages` pages of words.
pub fn words(at: u64, pages: usize) -> &'static [AtomicU64] {
    // SAFETY: as above; the pages lie side by side.
    unsafe { core::slice::from_raw_parts(at as *const AtomicU64, pages * 512) }
}

/// The ring in these pages.
pub fn ring_of(pages: &[u64]) -> Ring {
    let control: &ControlPage = page(pages[0]);
    Paged::new(control, core::array::from_fn(|n| page(pages[n + 1])))
}

impl Line {
    /// Opens the channel of `offer`.
    ///
    /// # Errors
    /// The status of the step that failed.
    pub fn open(bus: &Bus, offer: &OfferChannel) -> Result<Self, u32> {
        let pages = arena::frames(GPADL_PAGES);
        let relid = offer.relid;
        let opened = match bus.gpadl(relid, handle(relid), &pages) {
            Some(0) => bus
                .open(relid, handle(relid), RING_PAGES as u32)
                .unwrap_or(u32::MAX),
            status => status.unwrap_or(u32::MAX),
        };
        let (up, down) = pages.split_at(RING_PAGES);
        let client = Client::new(Generation::NONE, ring_of(up), ring_of(down));
        match (opened, client) {
            (0, Ok(client)) => Ok(Self {
                client,
                relid,
                over: None,
                patience: PATIENCE,
                connection: offer.connection,
                buffer: Box::new([0; MAX_PACKET_BYTES]),
                pages,
            }),
            (status, _) => Err(status),
        }
    }

    /// The slot was attached: its rings begin anew.
    pub fn attached(&mut self, generation: Generation) {
        let (up, down) = self.pages.split_at(RING_PAGES);
        if let Ok(client) = Client::new(generation, ring_of(up), ring_of(down)) {
            self.client = client;
            self.over = None;
            self.patience = PATIENCE;
        }
    }

    /// Closes the channel. Whether that was answered.
    pub fn close(self, bus: &Bus) -> bool {
        let is_closed = bus.close(self.relid, handle(self.relid));
        self.pages.into_iter().for_each(arena::free);
        is_closed
    }

    /// Signals the hypervisor, as `write(fd, 1)` does.
    pub fn signal(&self) -> Result<(), HvError> {
        bus::signal(self.connection)
    }

    /// What has come: the completion of `transaction`, if it is there.
    fn take(&mut self, transaction: u64) -> Option<(Result<(), HvError>, Vec<u8>)> {
        loop {
            match self.client.next(&mut self.buffer) {
                Ok(Some(Incoming::Completion(done))) if done.transaction == transaction => {
                    return Some((done.result, done.body.to_vec()));
                }
                Ok(Some(Incoming::Over(reason))) => self.over = Some(reason),
                Ok(Some(Incoming::Completion(_))) => {}
                Ok(None) | Err(_) => return None,
            }
        }
    }

    /// Takes what came unasked.
    pub fn look(&mut self) {
        let _ = self.take(0);
    }

    /// Sends a request and waits for its completion: the body.
    ///
    /// # Errors
    /// Its status; [`LATE`].
    pub fn ask(&mut self, request: &Request<'_>) -> Result<Vec<u8>, HvError> {
        self.ask_raw(request).and_then(|(result, body)| {
            result?;
            Ok(body)
        })
    }

    fn ask_raw(
        &mut self,
        request: &Request<'_>,
    ) -> Result<(Result<(), HvError>, Vec<u8>), HvError> {
        let sent = self.client.send(request).map_err(|_| LATE)?;
        let _ = self.client.flush();
        self.signal()?;
        let mut found = None;
        synic::sleep_until(self.patience, || {
            found = self.take(sent);
            found.is_some()
        });
        let _ = self.client.flush();
        found.ok_or(LATE)
    }

    /// A CALL with `count` elements (0 for a simple one): elements done, and the output.
    ///
    /// # Errors
    /// The status.
    pub fn call(
        &mut self,
        code: CallCode,
        input: &[u8],
        count: u16,
    ) -> Result<(u16, Vec<u8>), HvError> {
        self.call_from(code, input, 0, count)
    }

    /// The same, with the elements before number `start` done before.
    ///
    /// # Errors
    /// The status.
    pub fn call_from(
        &mut self,
        code: CallCode,
        input: &[u8],
        start: u16,
        count: u16,
    ) -> Result<(u16, Vec<u8>), HvError> {
        let control =
            Control(Control::simple(code).0 | u64::from(count) << 32).with_rep_start(start);
        let (result, mut body) = self.ask_raw(&Request::Call(Call { control, input }))?;
        result?;
        let done = bus::word(&body, 1) as u16 & 0xFFF;
        Ok((done, body.split_off(8.min(body.len()))))
    }
}

/// Pages between a worker and the hypervisor: the event area, then the signal page.
pub struct WorkerPages {
    /// Where they lie.
    pub at: u64,
}

impl WorkerPages {
    /// New ones.
    pub fn new() -> Self {
        Self { at: arena::chunk() }
    }

    /// Where the signal page lies.
    pub const fn signal_page(&self) -> u64 {
        self.at + slot_proto::event::AREA_PAGES as u64 * 4096
    }

    /// The event area of session `generation`.
    pub fn watch(&self, generation: Generation) -> Option<Watcher<&'static [AtomicU64]>> {
        Watcher::new(words(self.at, slot_proto::event::AREA_PAGES), generation).ok()
    }

    /// The signal page of session `generation`.
    pub fn signals(&self, generation: Generation) -> SignalPage<&'static [AtomicU64]> {
        SignalPage::new(words(self.signal_page(), 1), generation)
    }

    /// Gives them back.
    pub fn free(self) {
        arena::free_chunk(self.at);
    }
}
