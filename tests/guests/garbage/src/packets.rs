//! What lies in the ring to the provider is no packet.

use ring::RingMem;
use ring_proto::Control;

use crate::controller::{Controller, RING_PAGES, UP};
use crate::start::{Child, Noise};
use crate::wire::SOON_100NS;

const END: u32 = (RING_PAGES as u32 - 1) * 4096;
/// Rounds of noise.
const ROUNDS: u64 = 24;

/// Type, offset and length in units of 8 bytes, and how many bytes the ring holds.
const DESCRIPTORS: [(u16, u16, u16, u32); 14] = [
    (6, 2, 0, 64),
    (6, 2, 1, 64),
    (6, 0, 4, 64),
    (6, 1, 4, 64),
    (6, 5, 4, 64),
    (6, u16::MAX, 4, 64),
    (6, 2, u16::MAX, 64),
    (6, 2, 8, 64),
    (6, 2, 4, 8),
    (0, 2, 4, 40),
    (7, 2, 4, 40),
    (8, 2, 4, 40),
    (0xB, 2, 4, 40),
    (u16::MAX, 2, 4, 40),
];

/// Every wrong descriptor, then noise.
pub fn run(child: &mut Child) {
    for (kind, offset, length, held) in DESCRIPTORS {
        let first = u64::from(kind) | u64::from(offset) << 16 | u64::from(length) << 32 | 1 << 48;
        let is_closed = with(child, |at| if at == 0 { first } else { 0 }, held);
        let is_served = is_closed && child.is_served();
        child.report.check(
            format_args!("a packet of type {kind}, {offset}, {length} in {held} bytes: the channel comes back"),
            is_served,
        );
    }
    let mut is_served = true;
    for round in 1..=ROUNDS {
        let mut noise = Noise(round.wrapping_mul(0x9E37_79B9_7F4A_7C15));
        let held = (noise.next() as u32 % END) & !7;
        is_served &= with(child, |_| noise.next(), held) && child.is_served();
    }
    child.report.check(
        "noise in place of packets: the channel comes back",
        is_served,
    );
}

/// Opens the channel, puts `content` behind what the ring has, and says that there are `held` bytes more.
fn with(child: &mut Child, mut content: impl FnMut(u32) -> u64, held: u32) -> bool {
    let Some(mut controller) = Controller::open(&mut child.client, child.channel) else {
        return false;
    };
    let start = UP.control(Control::WriteIndex);
    for at in (0..held).step_by(8) {
        UP.set_word((start + at) % END, content(at));
    }
    UP.set_control(Control::WriteIndex, (start + held) % END);
    controller.signal();
    let _ = controller.receive(SOON_100NS / 10);
    controller.close()
}
