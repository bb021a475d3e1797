//! Signals: from the client by `HvCallSignalEvent`, to it by event flags.

use addr::VpIndex;
use tlfs::HvError;
use tlfs::call::ConnectionId;
use tlfs::message::EVENT_FLAGS;
use vmbus_proto::Relid;

use crate::Bus;
use crate::channel::ChannelState;
use crate::frames::Frames;

/// Which flag to set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EventTarget {
    /// Whose.
    pub vp: VpIndex,
    /// Of which SINT.
    pub sint: u8,
    /// The flag: the channel's number.
    pub flag: u16,
}

impl<F: Frames> Bus<'_, F> {
    /// The connection through which the client signals a channel.
    pub(crate) fn event_connection(&self, relid: Relid) -> u32 {
        relid.0 | u32::from(self.server.connection.sint) << 12
    }

    /// The client signals through `connection`, with flag number 0. `None` while the channel is not open, which a client
    /// may not know: nothing is to be done.
    ///
    /// # Errors
    /// [`HvError::INVALID_CONNECTION_ID`]: not the connection of a channel that the client knows.
    pub fn signalled(&mut self, connection: ConnectionId) -> Result<Option<Relid>, HvError> {
        let relid = Relid(connection.0 & (u32::from(EVENT_FLAGS) - 1));
        let is_ours = self.event_connection(relid) == connection.0
            && self
                .channel(relid)
                .is_some_and(|(_, channel)| channel.is_told);
        if !is_ours {
            return Err(HvError::INVALID_CONNECTION_ID);
        }
        Ok(self.is_open(relid).then_some(relid))
    }

    /// Which flag tells the client that the back end signals a channel. `None` when it is not open, or the client wants
    /// no signals.
    pub fn event_target(&mut self, relid: Relid) -> Option<EventTarget> {
        if !self.is_open(relid) {
            return None;
        }
        let sint = self.server.connection.sint;
        let (flag, channel) = self.channel(relid)?;
        Some(EventTarget {
            vp: channel.open.target()?,
            sint,
            flag,
        })
    }

    fn is_open(&mut self, relid: Relid) -> bool {
        self.server.connection.is_connected()
            && self
                .channel(relid)
                .is_some_and(|(_, channel)| channel.state == ChannelState::Open)
    }
}
