//! A channel's ring from the child.

use ring::{Corrupt, Reader, Signal};
use ring_proto::{GpaDirect, PacketFlags, PacketType};

use crate::device::{NotTaken, Packet, Range};
use crate::{Device, GuestRing};

/// The longest packet that is taken, descriptor included.
const PACKET_MAX: usize = 16 * 1024;
/// Ranges of one packet that are looked at.
const RANGES_MAX: u32 = 32;
/// Packets taken in one go, so that others have their turn.
const BATCH: usize = 64;

/// The consumer of a channel.
pub(crate) struct Input {
    reader: Reader<GuestRing>,
    buffer: Vec<u8>,
    /// The device said [`NotTaken::Full`] to the next packet.
    is_blocked: bool,
}

/// How far [`Input::pump`] came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Pumped {
    /// Packets taken.
    pub taken: usize,
    /// Whether the child waits for room that it has now.
    pub signal: Signal,
}

impl Input {
    pub(crate) fn new(reader: Reader<GuestRing>) -> Self {
        Self {
            reader,
            buffer: vec![0; PACKET_MAX],
            is_blocked: false,
        }
    }

    /// Whether the next packet waits for the device.
    pub(crate) const fn is_blocked(&self) -> bool {
        self.is_blocked
    }

    /// The device has room again.
    pub(crate) fn unblock(&mut self) {
        self.is_blocked = false;
    }

    /// Gives packets to the device, and the space that they had back. The child is told not to signal.
    ///
    /// # Errors
    /// The child broke the ring.
    pub(crate) fn pump(&mut self, device: &mut dyn Device, index: u16) -> Result<Pumped, Corrupt> {
        let mut taken = 0;
        self.reader.mask();
        while taken < BATCH && !self.is_blocked {
            let Some(packet) = self.reader.next(&mut self.buffer)? else {
                break;
            };
            match give(device, index, &packet) {
                Ok(()) => taken += 1,
                Err(NotTaken::Closed) => break,
                Err(NotTaken::Full) => {
                    self.reader.put_back();
                    self.is_blocked = true;
                }
            }
        }
        Ok(Pumped {
            taken,
            signal: self.reader.publish(),
        })
    }

    /// Asks for a signal with the next packet. Whether there are packets now.
    ///
    /// # Errors
    /// The child broke the ring.
    pub(crate) fn arm(&mut self) -> Result<(Signal, bool), Corrupt> {
        if self.is_blocked {
            // The device tells when to go on, not the child.
            return Ok((self.reader.publish(), false));
        }
        let armed = self.reader.arm()?;
        Ok((armed.signal, armed.has_more))
    }
}

fn give(device: &mut dyn Device, index: u16, packet: &ring::Packet<'_>) -> Result<(), NotTaken> {
    let descriptor = packet.descriptor;
    let ranges = match descriptor.kind {
        PacketType::IN_BAND => Vec::new(),
        PacketType::GPA_DIRECT => ranges(packet.header),
        // Nobody here asks a child for completions, and nothing else is for a provider.
        _ => return Ok(()),
    };
    device.receive(
        index,
        &Packet {
            transaction: descriptor.transaction,
            wants_completion: descriptor.flags.contains(PacketFlags::COMPLETION_REQUESTED),
            payload: packet.payload,
            ranges: &ranges,
        },
    )
}

/// The ranges; none where they make no sense, which the device refuses as it does a request without its data.
fn ranges(header: &[u8]) -> Vec<Range> {
    let Ok(direct) = GpaDirect::decode(header, RANGES_MAX) else {
        return Vec::new();
    };
    direct
        .ranges()
        .map(|range| Range {
            byte_offset: range.byte_offset,
            byte_count: range.byte_count,
            pages: range.pages.iter().collect(),
        })
        .collect()
}
