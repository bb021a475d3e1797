//! Fields of the rings' control pages.

use ring::RingMem;
use ring_proto::Control;
use storvsp_proto::DataDirection;

use crate::controller::{Controller, DOWN, RING_PAGES, UP, range, srb};
use crate::machine::DATA;
use crate::start::{Child, Noise};
use crate::wire::SOON_100NS;

const END: u32 = (RING_PAGES as u32 - 1) * 4096;
/// No place of a ring of this size, or one at which no packet ends.
const WRONG: [u32; 7] = [u32::MAX, END, END + 8, 4, 1 << 31, 8, END - 8];

/// Each field of each ring, with each of the values.
pub fn run(child: &mut Child) {
    for (ring, name) in [(UP, "to the provider"), (DOWN, "from the provider")] {
        for field in [
            Control::WriteIndex,
            Control::ReadIndex,
            Control::PendingSendSize,
            Control::InterruptMask,
            Control::Features,
        ] {
            let mut is_open = true;
            for wrong in WRONG {
                let Some(mut controller) = Controller::open(&mut child.client, child.channel)
                else {
                    is_open = false;
                    break;
                };
                let read = srb(DataDirection::Read, &[0x28, 0, 0, 0, 0, 1, 0, 0, 1, 0]);
                ring.set_control(field, wrong);
                controller.signal();
                // Whatever becomes of it.
                let _ = controller.send(&range(512, 0, &[DATA / 4096 + 1]), &read);
                ring.set_control(field, wrong);
                controller.signal();
                let _ = controller.receive(SOON_100NS / 10);
                is_open &= controller.close();
            }
            let is_served = is_open && child.is_served();
            child.report.check(
                format_args!("{field:?} of the ring {name}: the channel comes back"),
                is_served,
            );
        }
    }
}

/// Opens the channel and fills both rings with noise, control pages and all. It stays open.
pub fn leave_broken(child: &mut Child) {
    let Some(mut controller) = Controller::open(&mut child.client, child.channel) else {
        return;
    };
    let mut noise = Noise(0xBAD);
    for half in [UP, DOWN] {
        for at in (0..END).step_by(8) {
            half.set_word(at, noise.next());
        }
        for field in [Control::ReadIndex, Control::WriteIndex] {
            half.set_control(field, (noise.next() as u32 % END) & !7);
        }
    }
    controller.signal();
}
