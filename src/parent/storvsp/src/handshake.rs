//! The steps from an open channel to one that takes commands.

use storvsp_proto::{
    NtStatus, Operation, Packet, Properties, PropertyFlags, Version, sub_channel_count,
};

/// How far the child got.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Stage {
    /// The primary channel is closed.
    #[default]
    Closed,
    /// Open; nothing said yet.
    Opened,
    /// BEGIN was said: the version is next.
    Begun,
    /// A version was agreed on.
    Agreed,
    /// Properties were told.
    Described,
    /// Commands are taken.
    Running,
}

/// The handshake of one controller.
#[derive(Debug)]
pub(crate) struct Handshake {
    stage: Stage,
    version: Option<Version>,
    sub_channels: Option<u16>,
    properties: Properties,
}

/// What to do about a packet of the handshake.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Reply {
    pub packet: Packet,
    /// Sub-channels to offer after the answer, if not 0.
    pub offer: u16,
}

impl Handshake {
    pub(crate) fn new(max_sub_channels: u16, max_transfer_bytes: u32) -> Self {
        let flags = if max_sub_channels > 0 {
            PropertyFlags::MULTI_CHANNEL
        } else {
            PropertyFlags(0)
        };
        Self {
            stage: Stage::Closed,
            version: None,
            sub_channels: None,
            properties: Properties {
                max_sub_channels,
                flags,
                max_transfer_bytes,
            },
        }
    }

    /// The primary channel was opened: all starts anew.
    pub(crate) fn open(&mut self) {
        self.stage = Stage::Opened;
        self.version = None;
        self.sub_channels = None;
    }

    /// The primary channel is being closed.
    pub(crate) fn close(&mut self) {
        self.open();
        self.stage = Stage::Closed;
    }

    pub(crate) fn is_running(&self) -> bool {
        self.stage == Stage::Running
    }

    /// Sub-channels that the child asked for and got.
    pub(crate) fn sub_channels(&self) -> u16 {
        self.sub_channels.unwrap_or(0)
    }

    pub(crate) fn version(&self) -> Option<Version> {
        self.version
    }

    /// Answers an operation that is no command.
    pub(crate) fn step(&mut self, packet: &Packet) -> Reply {
        let mut reply = Reply {
            packet: Packet::answer(NtStatus::SUCCESS),
            offer: 0,
        };
        reply.packet.status = match (packet.operation, self.stage) {
            (Operation::BEGIN_INITIALIZATION, Stage::Opened) => {
                self.stage = Stage::Begun;
                NtStatus::SUCCESS
            }
            (Operation::QUERY_PROTOCOL_VERSION, Stage::Begun) => {
                let version = Version::decode(&packet.body);
                if version.is_known() {
                    self.version = Some(version);
                    self.stage = Stage::Agreed;
                    NtStatus::SUCCESS
                } else {
                    NtStatus::REVISION_MISMATCH
                }
            }
            (Operation::QUERY_PROPERTIES, Stage::Agreed) => {
                reply.packet.body = self.properties.encode();
                self.stage = Stage::Described;
                NtStatus::SUCCESS
            }
            (Operation::END_INITIALIZATION, Stage::Described) => {
                self.stage = Stage::Running;
                NtStatus::SUCCESS
            }
            (Operation::CREATE_SUB_CHANNELS, Stage::Running) => {
                let count = sub_channel_count(&packet.body);
                match self.sub_channels {
                    Some(_) => NtStatus::INVALID_DEVICE_STATE,
                    None if count == 0 || count > self.properties.max_sub_channels => {
                        NtStatus::INVALID_PARAMETER
                    }
                    None => {
                        self.sub_channels = Some(count);
                        reply.offer = count;
                        NtStatus::SUCCESS
                    }
                }
            }
            (
                Operation::BEGIN_INITIALIZATION
                | Operation::QUERY_PROTOCOL_VERSION
                | Operation::QUERY_PROPERTIES
                | Operation::END_INITIALIZATION
                | Operation::CREATE_SUB_CHANNELS,
                _,
            ) => NtStatus::INVALID_DEVICE_STATE,
            // FCHBA_DATA is among the rest: this is no Fibre Channel adapter.
            _ => NtStatus::INVALID_DEVICE_REQUEST,
        };
        reply
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ask(handshake: &mut Handshake, operation: Operation, word: u16) -> Reply {
        let mut packet = Packet::notice(operation);
        packet.body[..2].copy_from_slice(&word.to_le_bytes());
        handshake.step(&packet)
    }

    fn running(max_sub_channels: u16) -> Handshake {
        let mut handshake = Handshake::new(max_sub_channels, 0x40000);
        handshake.open();
        for (operation, word) in [
            (Operation::BEGIN_INITIALIZATION, 0),
            (Operation::QUERY_PROTOCOL_VERSION, 0x0602),
            (Operation::QUERY_PROPERTIES, 0),
            (Operation::END_INITIALIZATION, 0),
        ] {
            let reply = ask(&mut handshake, operation, word);
            assert_eq!(reply.packet.status, NtStatus::SUCCESS, "{operation:?}");
            assert_eq!(reply.packet.operation, Operation::COMPLETE_IO);
        }
        handshake
    }

    #[test]
    fn linux_gets_through() {
        let handshake = running(3);
        assert!(handshake.is_running());
        assert_eq!(handshake.version(), Some(Version::V6_2));
    }

    #[test]
    fn an_unknown_version_is_refused_and_another_one_taken() {
        let mut handshake = Handshake::new(0, 0x40000);
        handshake.open();
        ask(&mut handshake, Operation::BEGIN_INITIALIZATION, 0);
        let reply = ask(&mut handshake, Operation::QUERY_PROTOCOL_VERSION, 0x0700);
        assert_eq!(reply.packet.status, NtStatus::REVISION_MISMATCH);
        let reply = ask(&mut handshake, Operation::QUERY_PROTOCOL_VERSION, 0x0501);
        assert_eq!(reply.packet.status, NtStatus::SUCCESS);
    }

    #[test]
    fn steps_out_of_order_are_refused_and_change_nothing() {
        let mut handshake = Handshake::new(0, 0x40000);
        let begin = ask(&mut handshake, Operation::BEGIN_INITIALIZATION, 0);
        assert_eq!(begin.packet.status, NtStatus::INVALID_DEVICE_STATE);
        handshake.open();
        let end = ask(&mut handshake, Operation::END_INITIALIZATION, 0);
        assert_eq!(end.packet.status, NtStatus::INVALID_DEVICE_STATE);
        assert!(!handshake.is_running());
        let begin = ask(&mut handshake, Operation::BEGIN_INITIALIZATION, 0);
        assert_eq!(begin.packet.status, NtStatus::SUCCESS);
    }

    #[test]
    fn sub_channels_are_granted_once_and_within_the_limit() {
        let mut handshake = running(3);
        let mut create = |count| ask(&mut handshake, Operation::CREATE_SUB_CHANNELS, count);
        assert_eq!(create(4).packet.status, NtStatus::INVALID_PARAMETER);
        assert_eq!(create(0).packet.status, NtStatus::INVALID_PARAMETER);
        assert_eq!(create(2).offer, 2);
        let again = create(1);
        assert_eq!(again.packet.status, NtStatus::INVALID_DEVICE_STATE);
        assert_eq!(again.offer, 0);
    }

    #[test]
    fn fibre_channel_is_refused() {
        let mut handshake = running(0);
        let reply = ask(&mut handshake, Operation::FCHBA_DATA, 0);
        assert_eq!(reply.packet.status, NtStatus::INVALID_DEVICE_REQUEST);
    }
}
