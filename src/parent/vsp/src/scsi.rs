//! A SCSI controller.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use disk::Pool;
use scsi::Target;
use storvsp::{Channel, Config, GpaRange, Incoming, Link, Provider};
use storvsp_proto::PACKET_LEN;
use tlfs::wire::Zero;
use vm_memory::GuestMemoryMmap;
use vmbus_proto::{Guid, Offer, OfferFlags, UserData, class};

use crate::device::{Device, Done, NotTaken, Packet};
use crate::{Events, Output};

/// What a controller is to be.
#[derive(Clone, Copy, Debug)]
pub struct ScsiConfig {
    /// Its instance, of which there is no other in the child.
    pub instance: Guid,
    /// Limits.
    pub limits: Config,
}

/// One synthetic SCSI controller.
pub struct Scsi {
    instance: Guid,
    provider: Provider,
    wire: Arc<Wire>,
}

/// The way back to the child.
struct Wire {
    outputs: Mutex<BTreeMap<u16, Arc<Output>>>,
    events: Events,
    /// A packet was left in a ring because too many are on their way.
    is_full: AtomicBool,
}

impl Wire {
    fn outputs(&self) -> MutexGuard<'_, BTreeMap<u16, Arc<Output>>> {
        self.outputs.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn output(&self, channel: Channel) -> Option<Arc<Output>> {
        self.outputs().get(&channel.0).cloned()
    }
}

impl Link for Wire {
    fn complete(&self, channel: Channel, transaction_id: u64, payload: &[u8; PACKET_LEN]) {
        if let Some(output) = self.output(channel) {
            output.complete(transaction_id, payload);
        }
    }

    fn has_room(&self) {
        if self.is_full.swap(false, Ordering::SeqCst) {
            self.events.has_room();
        }
    }

    fn notify(&self, payload: &[u8; PACKET_LEN]) {
        if let Some(output) = self.output(Channel::PRIMARY) {
            output.notify(payload);
        }
    }

    fn offer_sub_channels(&self, count: u16) {
        self.events.offer_sub_channels(count);
    }
}

impl Scsi {
    /// The controller with the units of `target`, whose commands run on `pool`, on `memory`.
    pub fn new(
        config: ScsiConfig,
        target: Arc<Target>,
        memory: Arc<GuestMemoryMmap>,
        pool: Arc<Pool>,
        events: Events,
    ) -> Self {
        let wire = Arc::new(Wire {
            outputs: Mutex::default(),
            events,
            is_full: AtomicBool::new(false),
        });
        let link = Arc::clone(&wire);
        Self {
            instance: config.instance,
            provider: Provider::new(target, memory, link, pool, config.limits),
            wire,
        }
    }
}

impl Device for Scsi {
    fn offer(&self) -> Offer {
        Offer {
            class: class::SCSI,
            instance: self.instance,
            flags: OfferFlags::ENUMERATE,
            mmio_megabytes: 0,
            sub_channel: 0,
            reserved: Zero,
            user: UserData::default(),
        }
    }

    fn open(&mut self, index: u16, output: Arc<Output>) -> bool {
        // Before: its first completion may come at once.
        self.wire.outputs().insert(index, output);
        let is_open = self.provider.open(Channel(index));
        if !is_open {
            self.wire.outputs().remove(&index);
        }
        is_open
    }

    fn receive(&mut self, index: u16, packet: &Packet<'_>) -> Result<(), NotTaken> {
        let ranges: Vec<GpaRange<'_>> = packet
            .ranges
            .iter()
            .map(|range| GpaRange {
                byte_offset: range.byte_offset,
                byte_count: range.byte_count,
                pages: &range.pages,
            })
            .collect();
        let incoming = Incoming {
            channel: Channel(index),
            transaction_id: packet.transaction,
            wants_completion: packet.wants_completion,
            payload: packet.payload,
            ranges: &ranges,
        };
        let mut taken = self.provider.receive(&incoming);
        if taken == Err(storvsp::NotTaken::Full) {
            // Once more: what ended before the mark was set did not see it.
            self.wire.is_full.store(true, Ordering::SeqCst);
            taken = self.provider.receive(&incoming);
        }
        taken.map_err(|error| match error {
            storvsp::NotTaken::Full => NotTaken::Full,
            storvsp::NotTaken::Closed => NotTaken::Closed,
        })
    }

    fn close(&mut self, index: u16, done: Done) {
        let wire = Arc::clone(&self.wire);
        self.provider.close(Channel(index), move || {
            wire.outputs().remove(&index);
            done();
        });
    }

    fn stop(&mut self, done: Done) {
        let wire = Arc::clone(&self.wire);
        self.provider.stop(move || {
            wire.outputs().clear();
            done();
        });
    }

    fn settle(&mut self, done: Done) {
        self.provider.settle(done);
    }
}
