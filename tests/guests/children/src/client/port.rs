//! Ports and connections: their calls, and what comes by them.

use addr::{PartitionId, VpIndex};
use machine::insn;
use tlfs::call::*;
use tlfs::wire::SintIndex;
use tlfs::{CallCode, HvError, msr};

use super::{call, synic};
use crate::client::partition::with_own_pool;

/// A message port of source `sint` and VP 0.
pub fn message(sint: u8) -> PortInfo {
    info(PortKind::Message, sint)
}

/// A port of `kind`, of source `sint` and VP 0.
pub fn info(kind: PortKind, sint: u8) -> PortInfo {
    let (sint, vp) = (SintIndex::new(sint), VpIndex::new(0));
    PortInfo { kind, sint, vp }
}

/// One create call.
pub fn create(
    owner: PartitionId,
    port: u32,
    sender: PartitionId,
    info: PortInfo,
) -> Result<(), HvError> {
    let port = PortId(port);
    let input = CreatePort {
        owner,
        port,
        sender,
        info,
        ..CreatePort::default()
    };
    call::simple(CallCode::CREATE_PORT, &input.encode())
}

/// Deletes a port.
pub fn delete(owner: PartitionId, port: u32) -> Result<(), HvError> {
    call::fast(CallCode::DELETE_PORT, owner.get(), port.into())
}

/// One connect call.
pub fn connect(
    sender: PartitionId,
    connection: u32,
    owner: PartitionId,
    port: u32,
    kind: ConnectionKind,
) -> Result<(), HvError> {
    let input = ConnectPort {
        sender,
        connection: ConnectionId(connection),
        owner,
        port: PortId(port),
        kind,
        ..ConnectPort::default()
    };
    call::simple(CallCode::CONNECT_PORT, &input.encode())
}

/// Takes a connection away.
pub fn disconnect(sender: PartitionId, connection: u32, is_doorbell: bool) -> Result<(), HvError> {
    let second = u64::from(connection) | u64::from(is_doorbell) << 32;
    call::fast(CallCode::DISCONNECT_PORT, sender.get(), second)
}

/// A call for which the parent's own pool pays.
pub fn own(call: impl FnMut() -> Result<(), HvError>) -> Result<(), HvError> {
    with_own_pool(call)
}

/// Posts a message of type `kind`.
pub fn post(connection: u32, kind: u32, payload: &[u8]) -> Result<(), HvError> {
    let mut input = [0; 256];
    input[..4].copy_from_slice(&connection.to_le_bytes());
    input[8..12].copy_from_slice(&kind.to_le_bytes());
    input[12..16].copy_from_slice(&(payload.len() as u32).to_le_bytes());
    input[16..16 + payload.len()].copy_from_slice(payload);
    call::simple(CallCode::POST_MESSAGE, &input)
}

/// Signals `flag` of an event connection.
pub fn signal(connection: u32, flag: u16) -> Result<(), HvError> {
    let input = u64::from(connection) | u64::from(flag) << 32;
    call::fast(CallCode::SIGNAL_EVENT, input, 0)
}

/// Type, size, origin and first eight bytes of what comes into `slot`; empties it, and says whether more waits.
pub fn take(slot: u64) -> Option<([u64; 4], bool)> {
    let head = || insn::read_phys64(slot);
    if !synic::sleep_until(500_000, || head() as u32 != 0) {
        return None;
    }
    let first = head();
    let found = [
        first & 0xFFFF_FFFF,
        first >> 32 & 0xFF,
        insn::read_phys64(slot + 8),
        insn::read_phys64(slot + 16),
    ];
    insn::write_mmio32(slot, 0);
    let more = insn::read_mmio32(slot + 4) & 0x100 != 0;
    if more {
        insn::wrmsr(msr::EOM, 0);
    }
    Some((found, more))
}
