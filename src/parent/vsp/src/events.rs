//! What devices have to say to the thread of the bus.

use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};

use vmbus_proto::Relid;

/// Wakes the thread that the bus belongs to, if it sleeps.
pub trait Wake: Send + Sync {
    /// It has something to do.
    fn wake(&self);
}

/// Number of a device on its bus.
pub(crate) type DeviceIndex = usize;

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Event {
    /// The device let go of this channel, which was closed under this number.
    Closed(Relid, u64),
    /// All devices let go of everything, for the reset of this number.
    Stopped(u64),
    /// All packets that were taken before the pause of this number are completed.
    Settled(u64),
    /// It wants so many sub-channels offered.
    SubChannels(DeviceIndex, u16),
    /// It may take packets again.
    HasRoom(DeviceIndex),
}

/// Where a device leaves what the bus has to do. Clones are the same place.
#[derive(Clone)]
pub struct Events {
    sender: Arc<Mutex<Sender<Event>>>,
    wake: Arc<dyn Wake>,
    device: DeviceIndex,
}

impl Events {
    pub(crate) fn new(wake: Arc<dyn Wake>) -> (Self, Receiver<Event>) {
        let (sender, receiver) = channel();
        let events = Self {
            sender: Arc::new(Mutex::new(sender)),
            wake,
            device: 0,
        };
        (events, receiver)
    }

    pub(crate) fn of_device(&self, device: DeviceIndex) -> Self {
        Self {
            device,
            ..self.clone()
        }
    }

    pub(crate) fn send(&self, event: Event) {
        let sender = self.sender.lock().unwrap_or_else(PoisonError::into_inner);
        // The bus may be gone: then nobody has anything to do.
        let _ = sender.send(event);
        drop(sender);
        self.wake.wake();
    }

    /// Sub-channels 1 to `count` of this device are to be offered.
    pub fn offer_sub_channels(&self, count: u16) {
        self.send(Event::SubChannels(self.device, count));
    }

    /// The device said [`NotTaken::Full`](crate::NotTaken::Full), and now has room.
    pub fn has_room(&self) {
        self.send(Event::HasRoom(self.device));
    }
}
