//! Calls about ports, connections, messages and events.

use alloc::vec::Vec;

use addr::VpIndex;
use tlfs::call::*;
use tlfs::{CallCode, HvError};

use super::PARAMETER;
use crate::child::guest::Guest;
use crate::group::calls::NOBODY;
use crate::group::calls::case::Case;

/// The cases.
pub fn cases(guest: &Guest) -> Vec<Case> {
    let id = guest.id;
    let vp = VpIndex::new(0);
    let synic = tlfs::wire::SintIndex::new(2);
    let message = tlfs::Message::new(tlfs::MessageType(1), 0, &[1; 8]).unwrap_or_default();
    let port = CreatePort {
        owner: PARTITION_SELF,
        port: PortId(0x70),
        sender: id,
        info: PortInfo {
            kind: PortKind::Message,
            sint: tlfs::wire::SintIndex::new(6),
            vp,
        },
        ..CreatePort::default()
    };
    let connect = ConnectPort {
        sender: id,
        connection: ConnectionId(0x70),
        owner: PARTITION_SELF,
        port: PortId(0x70),
        kind: ConnectionKind::Message,
        ..ConnectPort::default()
    };
    let direct = PostMessageDirect {
        partition: id,
        vp,
        sint: synic,
        message,
        ..PostMessageDirect::default()
    };
    let signal = SignalEventDirect {
        partition: id,
        vp,
        sint: synic,
        ..SignalEventDirect::default()
    };
    alloc::vec![
        Case::new("CreatePort", CallCode::CREATE_PORT, &port.encode())
            .own()
            .wrong(0, 8, NOBODY, HvError::INVALID_PARTITION_ID)
            .wrong(16, 8, NOBODY, HvError::INVALID_PARTITION_ID)
            .wrong(24, 8, 9, PARAMETER)
            .wrong(32, 4, 16, PARAMETER)
            .bad(36, 4, 77),
        Case::new("ConnectPort", CallCode::CONNECT_PORT, &connect.encode())
            .wrong(16, 8, NOBODY, HvError::INVALID_PARTITION_ID)
            // The port is not the child's.
            .wrong(16, 8, id.get(), HvError::INVALID_PORT_ID)
            .wrong(24, 4, 0x7777, HvError::INVALID_PORT_ID)
            .wrong(32, 4, 9, PARAMETER),
        Case::new(
            "DisconnectPort",
            CallCode::DISCONNECT_PORT,
            &DisconnectPort {
                sender: id,
                connection: ConnectionId(0x70),
                ..DisconnectPort::default()
            }
            .encode()
        )
        // It is not the parent's.
        .wrong(0, 8, u64::MAX, HvError::INVALID_CONNECTION_ID)
        .wrong(8, 4, 0x7777, HvError::INVALID_CONNECTION_ID)
        .wrong(12, 4, 2, PARAMETER),
        Case::new(
            "DeletePort",
            CallCode::DELETE_PORT,
            &DeletePort {
                owner: PARTITION_SELF,
                port: PortId(0x70),
                ..DeletePort::default()
            }
            .encode()
        )
        .own()
        // It is not the child's.
        .wrong(0, 8, id.get(), HvError::INVALID_PORT_ID)
        .wrong(8, 4, 0x7777, HvError::INVALID_PORT_ID)
        .wrong(12, 4, 1, PARAMETER),
        Case::new(
            "NotifyPortRingEmpty",
            CallCode::NOTIFY_PORT_RING_EMPTY,
            &RingEmpty {
                sint: tlfs::wire::SintIndex::new(5),
                ..RingEmpty::default()
            }
            .encode()
        )
        .own()
        .wrong(0, 4, 16, PARAMETER)
        .unmade(),
        Case::new(
            "SignalEventDirect",
            CallCode::SIGNAL_EVENT_DIRECT,
            &signal.encode()
        )
        .vp()
        .wrong(13, 1, 16, PARAMETER)
        .wrong(14, 2, 2048, PARAMETER)
        .unmade(),
        Case::new(
            "PostMessageDirect",
            CallCode::POST_MESSAGE_DIRECT,
            &direct.encode()
        )
        .vp()
        .wrong(16, 1, 16, PARAMETER)
        .wrong(0x14, 4, 0, PARAMETER)
        .wrong(0x18, 1, 241, PARAMETER)
        .unmade(),
    ]
}
