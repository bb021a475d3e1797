//! The ring buffer of a VMBus channel: control page, packets and their headers.
//!
//! A channel has two rings, one in each direction. Each is a control page ([`Control`]) and a data area of whole
//! pages. In the data area lie packets: a [`Descriptor`], for some types a header of its own ([`GpaDirect`],
//! [`TransferPages`]), the payload, zeros up to a multiple of 8, and a [trailer]. Every number is little endian.
//!
//! The layouts are those of Linux's `include/linux/hyperv.h`. Nothing here touches a ring: the crate `ring` does.
#![no_std]
#![forbid(unsafe_code)]

#[cfg(test)]
extern crate std;

mod control;
mod packet;
mod ranges;

pub use control::{CONTROL_BYTES, Control, Features};
pub use packet::{
    DESCRIPTOR_BYTES, Descriptor, MAX_PACKET_BYTES, PacketFlags, PacketType, TRAILER_BYTES, padded,
    trailer,
};
pub use ranges::{GpaDirect, GpaRange, Pages, TransferPages, TransferRange, page_count};

/// A packet or one of its headers breaks the format.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Malformed;
