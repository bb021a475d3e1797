//! One channel.

use std::sync::Arc;
use std::time::Instant;

use ring::{Reader, Writer};
use slot_proto::Opening;
use vm_memory::GuestMemoryMmap;
use vmbus_proto::{GpadlHandle, Relid};

use crate::events::DeviceIndex;
use crate::input::Input;
use crate::server::{Server, ServerError};
use crate::{Device, GuestRing, Output, SignalChild};

/// Pages of both rings of a channel that are taken: 16 MiB.
const RING_PAGES_MAX: u32 = 4096;

/// The rings of an open channel.
pub(crate) struct Rings {
    pub handle: GpadlHandle,
    pub input: Input,
    pub output: Arc<Output>,
    /// The ring from the child may have packets.
    pub has_work: bool,
    /// When it had some last.
    pub last_packet: Instant,
}

pub(crate) enum State {
    Closed,
    Open(Rings),
    /// The device was asked to let go, under this number.
    Closing(Rings, u64),
}

/// One channel and how far it is open.
pub(crate) struct Channel {
    pub device: DeviceIndex,
    /// 0 for the primary one.
    pub index: u16,
    pub state: State,
    /// When it has closed, it is taken back.
    pub is_leaving: bool,
    /// Teardowns to be answered when the rings are unmapped.
    pub teardowns: Vec<GpadlHandle>,
}

/// Why the child does not get its channel.
#[derive(Debug)]
pub(crate) enum NotOpened {
    /// What it said makes no sense, or the device does not want it.
    Refused,
    Server(ServerError),
}

impl Channel {
    pub(crate) const fn new(device: DeviceIndex, index: u16) -> Self {
        Self {
            device,
            index,
            state: State::Closed,
            is_leaving: false,
            teardowns: Vec::new(),
        }
    }

    /// Whether a ring of it lies in this GPADL.
    pub(crate) fn uses(&self, handle: GpadlHandle) -> bool {
        match &self.state {
            State::Closed => false,
            State::Open(rings) | State::Closing(rings, _) => rings.handle == handle,
        }
    }

    /// Maps the rings and gives them to the device.
    pub(crate) fn open(
        &mut self,
        relid: Relid,
        opening: &Opening,
        device: &mut dyn Device,
        memory: &GuestMemoryMmap,
        child: &Arc<dyn SignalChild>,
        server: &mut dyn Server,
    ) -> Result<(), NotOpened> {
        let pages = ring_pages(relid, opening.ring, server)?;
        let (up, down) = usize::try_from(opening.downstream_page)
            .ok()
            .and_then(|page| pages.split_at_checked(page))
            .ok_or(NotOpened::Refused)?;
        let up = GuestRing::new(memory, up).ok_or(NotOpened::Refused)?;
        let down = GuestRing::new(memory, down).ok_or(NotOpened::Refused)?;
        let reader = Reader::new(up).map_err(|_| NotOpened::Refused)?;
        let writer = Writer::new(down).map_err(|_| NotOpened::Refused)?;
        let output = Arc::new(Output::new(relid, Arc::clone(child), writer));
        if !device.open(self.index, Arc::clone(&output)) {
            return Err(NotOpened::Refused);
        }
        self.state = State::Open(Rings {
            handle: opening.ring,
            input: Input::new(reader),
            output,
            has_work: true,
            last_packet: Instant::now(),
        });
        Ok(())
    }

    /// The rings are unmapped.
    pub(crate) fn drop_rings(&mut self) {
        if let State::Open(rings) | State::Closing(rings, _) =
            std::mem::replace(&mut self.state, State::Closed)
        {
            rings.output.close();
        }
    }
}

/// The pages of the GPADL that both rings lie in.
fn ring_pages(
    relid: Relid,
    handle: GpadlHandle,
    server: &mut dyn Server,
) -> Result<Vec<u64>, NotOpened> {
    let mut pages = Vec::new();
    loop {
        let part = match server.gpadl_pages(relid, handle, pages.len() as u32) {
            Ok(part) => part,
            Err(ServerError::Refused(_)) => return Err(NotOpened::Refused),
            Err(error) => return Err(NotOpened::Server(error)),
        };
        if part.byte_offset != 0 || part.total > RING_PAGES_MAX || part.pages.is_empty() {
            return Err(NotOpened::Refused);
        }
        pages.extend(part.pages);
        if pages.len() >= part.total as usize {
            return Ok(pages);
        }
    }
}
