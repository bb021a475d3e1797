//! Noise in place of messages.

use alloc::vec::Vec;

use vmbus_client::Wire;

use crate::start::{Child, Noise};
use crate::wire::SOON_100NS;

/// Rounds, and messages in each.
const ROUNDS: u64 = 8;
const MESSAGES: u64 = 400;

/// Messages of every type, lengths as they come, with the channel's own number in many of them.
pub fn run(child: &mut Child) {
    for round in 1..=ROUNDS {
        let mut noise = Noise(round.wrapping_mul(0xD1B5_4A32_D192_ED03));
        child.client.wire.patience_100ns = 0;
        for _ in 0..MESSAGES {
            let length = noise.next() as usize % 241;
            let mut payload: Vec<u8> = (0..length).map(|_| noise.next() as u8).collect();
            let kind = (noise.next() % 28) as u32;
            let relid = child.channel.0.0;
            for (at, value) in [(0, kind), (4, 0), (8, relid)] {
                if let Some(place) = payload.get_mut(at..at + 4)
                    && !noise.next().is_multiple_of(8)
                {
                    place.copy_from_slice(&value.to_le_bytes());
                }
            }
            let connection = if noise.next().is_multiple_of(4) { 1 } else { 4 };
            let kind = if noise.next().is_multiple_of(16) {
                2
            } else {
                1
            };
            let _ = child.client.wire.post(connection, kind, &payload);
            let _ = child
                .client
                .wire
                .signal(noise.next() as u32, noise.next() as u16);
            let _ = child.client.wire.take();
        }
        child.client.wire.patience_100ns = SOON_100NS;
        while child.client.wire.take().is_some() {}
        let is_back = child.connect() && child.is_served();
        child.report.check(
            format_args!("noise {round} in place of messages: contact, and the channel comes back"),
            is_back,
        );
    }
}
