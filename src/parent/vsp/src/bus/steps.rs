//! What the child does to its channels, and what devices ask for, step by step.

use slot_proto::Opening;
use vmbus_proto::{GpadlHandle, Offer, Relid};

use super::{Bus, failed, tolerate};
use crate::channel::{Channel, NotOpened, State};
use crate::events::{DeviceIndex, Event};
use crate::server::{BusError, Server, ServerError};

/// What a child is told of a channel that it does not get (`STATUS_UNSUCCESSFUL`).
const UNSUCCESSFUL: u32 = 0xC000_0001;

impl Bus {
    pub(super) fn open(
        &mut self,
        relid: Relid,
        opening: &Opening,
        server: &mut dyn Server,
    ) -> Result<(), BusError> {
        if opening.is_open_already {
            // Its requests died with the worker before us.
            return Err(BusError::LeftOpen(relid));
        }
        let opened = match self.channels.get_mut(&relid) {
            Some(channel) if matches!(channel.state, State::Closed) => {
                match self.devices.get_mut(channel.device) {
                    Some(device) => channel.open(
                        relid,
                        opening,
                        device.as_mut(),
                        &self.memory,
                        &self.child,
                        server,
                    ),
                    None => Err(NotOpened::Refused),
                }
            }
            _ => Err(NotOpened::Refused),
        };
        let status = match opened {
            Ok(()) => 0,
            Err(NotOpened::Refused) => UNSUCCESSFUL,
            Err(NotOpened::Server(error)) => return Err(failed("reading a ring's pages", error)),
        };
        server
            .open_result(relid, status)
            .map_err(|error| failed("opening a channel", error))
    }

    pub(super) fn close(&mut self, relid: Relid, server: &mut dyn Server) -> Result<(), BusError> {
        let is_open = self
            .channels
            .get(&relid)
            .is_some_and(|channel| !matches!(channel.state, State::Closed));
        if !is_open {
            // Its opening was refused while the child closed it already.
            return tolerate(server.close_done(relid), "closing a channel");
        }
        self.ask_to_close(relid);
        Ok(())
    }

    /// Has the device let go of an open channel.
    fn ask_to_close(&mut self, relid: Relid) {
        let serial = self.next_serial();
        let Some(channel) = self.channels.get_mut(&relid) else {
            return;
        };
        channel.state = match std::mem::replace(&mut channel.state, State::Closed) {
            State::Open(rings) => State::Closing(rings, serial),
            other => {
                channel.state = other;
                return;
            }
        };
        let events = self.events.clone();
        let done = Box::new(move || events.send(Event::Closed(relid, serial)));
        match self.devices.get_mut(channel.device) {
            Some(device) => device.close(channel.index, done),
            None => done(),
        }
    }

    pub(super) fn teardown(
        &mut self,
        relid: Relid,
        handle: GpadlHandle,
        server: &mut dyn Server,
    ) -> Result<(), BusError> {
        match self.channels.get_mut(&relid) {
            Some(channel) if channel.uses(handle) => {
                channel.teardowns.push(handle);
                Ok(())
            }
            // Devices copy what they need of other GPADLs, and keep none.
            _ => tolerate(server.gpadl_done(relid, handle), "giving a GPADL back"),
        }
    }

    pub(super) fn reset(&mut self) {
        let serial = self.next_serial();
        self.reset = Some(serial);
        self.ask_all(Event::Stopped(serial), |device, done| device.stop(done));
    }

    pub(super) fn on_event(
        &mut self,
        event: &Event,
        server: &mut dyn Server,
    ) -> Result<(), BusError> {
        match *event {
            Event::Closed(relid, serial) => self.closed(relid, serial, server),
            Event::Stopped(serial) if self.reset == Some(serial) => self.stopped(server),
            Event::Settled(serial) => {
                self.is_settled |= self.pause == Some(serial);
                Ok(())
            }
            Event::SubChannels(device, count) => {
                self.wanted.extend((1..=count).map(|index| (device, index)));
                self.offer_wanted(server)
            }
            Event::HasRoom(device) => {
                for channel in self.channels.values_mut() {
                    if channel.device == device
                        && let State::Open(rings) = &mut channel.state
                    {
                        rings.input.unblock();
                        rings.has_work = true;
                    }
                }
                Ok(())
            }
            Event::Stopped(_) => Ok(()),
        }
    }

    fn closed(
        &mut self,
        relid: Relid,
        serial: u64,
        server: &mut dyn Server,
    ) -> Result<(), BusError> {
        let Some(channel) = self.channels.get_mut(&relid) else {
            return Ok(());
        };
        if !matches!(channel.state, State::Closing(_, current) if current == serial) {
            return Ok(());
        }
        channel.drop_rings();
        if channel.is_leaving {
            self.channels.remove(&relid);
            return tolerate(server.rescind(relid), "taking a sub-channel back");
        }
        let (device, index) = (channel.device, channel.index);
        let teardowns = std::mem::take(&mut channel.teardowns);
        tolerate(server.close_done(relid), "closing a channel")?;
        for handle in teardowns {
            tolerate(server.gpadl_done(relid, handle), "giving a ring back")?;
        }
        if index == 0 {
            self.take_sub_channels_back(device, server)?;
        }
        Ok(())
    }

    /// Without their primary channel, sub-channels mean nothing.
    fn take_sub_channels_back(
        &mut self,
        device: DeviceIndex,
        server: &mut dyn Server,
    ) -> Result<(), BusError> {
        self.wanted.retain(|(of, _)| *of != device);
        let subs: Vec<Relid> = self
            .channels
            .iter()
            .filter(|(_, channel)| channel.device == device && channel.index != 0)
            .map(|(relid, _)| *relid)
            .collect();
        for relid in subs {
            let Some(channel) = self.channels.get_mut(&relid) else {
                continue;
            };
            channel.is_leaving = true;
            match channel.state {
                State::Closed => {
                    self.channels.remove(&relid);
                    tolerate(server.rescind(relid), "taking a sub-channel back")?;
                }
                State::Open(_) => self.ask_to_close(relid),
                State::Closing(..) => {}
            }
        }
        Ok(())
    }

    /// All devices let go of everything: the child's VMBus starts anew.
    fn stopped(&mut self, server: &mut dyn Server) -> Result<(), BusError> {
        self.reset = None;
        for channel in self.channels.values_mut() {
            channel.drop_rings();
            channel.teardowns.clear();
        }
        server
            .reset_done()
            .map_err(|error| failed("resetting the bus", error))?;
        for device in 0..self.devices.len() {
            self.take_sub_channels_back(device, server)?;
        }
        Ok(())
    }

    /// The child let go of a number: it was told that the channel is gone, or has no use for it. A device that it let go of
    /// is offered anew, or a kernel that starts after this one would not find it.
    pub(super) fn released(
        &mut self,
        relid: Relid,
        server: &mut dyn Server,
    ) -> Result<(), BusError> {
        let let_go = self.channels.get(&relid).filter(|channel| {
            // Sub-channels are asked for.
            channel.index == 0 && matches!(channel.state, State::Closed)
        });
        if let Some(device) = let_go.map(|channel| channel.device) {
            self.channels.remove(&relid);
            self.wanted.push((device, 0));
        }
        self.offer_wanted(server)
    }

    /// Offers channels that are due. Those that the child still has from before have to wait for its release.
    pub(super) fn offer_wanted(&mut self, server: &mut dyn Server) -> Result<(), BusError> {
        for (device, index) in std::mem::take(&mut self.wanted) {
            let Some(primary) = self.devices.get(device).map(|device| device.offer()) else {
                continue;
            };
            let offer = Offer {
                sub_channel: index,
                ..primary
            };
            match server.offer(&offer) {
                Ok(relid) => {
                    self.channels.insert(relid, Channel::new(device, index));
                }
                Err(ServerError::Refused(tlfs::HvError::INVALID_PARTITION_STATE)) => {
                    self.wanted.push((device, index));
                }
                // The child's quota is used up: it does without.
                Err(ServerError::Refused(_)) => {}
                Err(error) => return Err(failed("offering a channel", error)),
            }
        }
        Ok(())
    }
}
