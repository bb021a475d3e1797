//! The storage protocol of VMBus: what `hv_storvsc` and its provider say to each other.
//!
//! Every packet in both directions carries one [`Packet`] of [`PACKET_LEN`] bytes. The guest asks by an in-band packet,
//! or by a GPA-direct packet when data belongs to the request; the answer is a completion packet of VMBus with the same
//! transaction id. All fields are little-endian. Versions 5.1, 6.0 and 6.2 share these layouts.
//!
//! | part | what for |
//! | --- | --- |
//! | [`Packet`] | the frame: operation, flags, status and 52 bytes that depend on the operation |
//! | [`Version`], [`Properties`], [`sub_channel_count`] | the handshake |
//! | [`ScsiRequest`], [`ScsiResponse`] | one SCSI command and its end |
#![no_std]
#![forbid(unsafe_code)]

mod handshake;
mod packet;
mod scsi;

pub use handshake::{Properties, PropertyFlags, Version, sub_channel_count};
pub use packet::{BODY_LEN, NtStatus, Operation, PACKET_LEN, Packet, TooShort};
pub use scsi::{
    Address, BadRequest, CDB_LEN, DataDirection, SCSI_REQUEST_LEN, SENSE_LEN, ScsiRequest,
    ScsiResponse, ScsiStatus, SrbFlags, SrbStatus,
};

/// Class of the channel: `{ba6163d9-04a1-4d29-b605-72e2ffb1dc7f}`, in the byte order of an offer.
pub const SCSI_CLASS: [u8; 16] = [
    0xd9, 0x63, 0x61, 0xba, 0xa1, 0x04, 0x29, 0x4d, 0xb6, 0x05, 0x72, 0xe2, 0xff, 0xb1, 0xdc, 0x7f,
];

/// A number of `N` bytes at `at`, zero where the bytes end before it.
fn bytes<const N: usize>(from: &[u8], at: usize) -> [u8; N] {
    from.get(at..)
        .and_then(|rest| rest.first_chunk())
        .copied()
        .unwrap_or([0; N])
}

/// Copies `value` to `at`, as far as there is room for all of it.
fn put(into: &mut [u8], at: usize, value: &[u8]) {
    if let Some(place) = at
        .checked_add(value.len())
        .and_then(|end| into.get_mut(at..end))
    {
        place.copy_from_slice(value);
    }
}
