//! Many VPs that send at once.

use addr::Gpa;
use machine::insn;
use machine::verdict::{check, equal};
use tlfs::call::*;
use tlfs::register::RegisterName as N;
use tlfs::state::event_ring as ring;
use tlfs::{CallCode, HvError};

use super::doorbells::clear;
use super::{AWAY, BELLS, PARENT, SINT};
use crate::child::guest::Guest;
use crate::child::layout;
use crate::child::runtime::{self, Shared};
use crate::client::call;
use crate::client::port::{connect, create, delete, info, message, own, take};
use crate::client::synic;
use crate::group::{destroy, need};

/// Messages that each VP sends in a storm.
const STORM: u64 = 400;

extern "sysv64" fn storm(shared: &'static Shared) -> ! {
    const POST: u64 = 0x5C;
    const FULL: u64 = HvError::INSUFFICIENT_BUFFERS.0 as u64;
    let vp = shared.arg(0);
    let input = layout::CALL_INPUT + vp * 0x100;
    runtime::write(input, 3);
    runtime::write(input + 8, (0x50 + vp) | 8 << 32);
    for n in 0..STORM {
        runtime::write(input + 16, vp << 32 | n);
        loop {
            let status = runtime::call(POST, input, 0);
            if status == 0 {
                break;
            }
            if status != FULL {
                runtime::stop(1);
            }
            shared.set(1, shared.result(1) + 1);
            insn::pause();
        }
        runtime::write32(AWAY + 0x1000, n as u32);
    }
    shared.set(0, 1);
    runtime::stop(0)
}

/// Several VPs send through one connection and ring one doorbell, while the parent takes what comes.
pub fn storms(slot: u64, page: u64) {
    const VPS: u64 = 3;
    let Some(mut guest) = need("storm: a child", Guest::new(VPS as u32)) else {
        return;
    };
    let id = guest.id;
    need(
        "storm: a port",
        own(|| {
            create(
                PARENT,
                0x70,
                id,
                PortInfo {
                    vp: VP_ANY,
                    ..message(SINT)
                },
            )
        }),
    );
    need(
        "storm: a doorbell",
        own(|| create(PARENT, 0x71, id, info(PortKind::Doorbell, BELLS))),
    );
    need(
        "storm: a connection",
        guest.feed(|_| connect(id, 3, PARENT, 0x70, ConnectionKind::Message)),
    );
    let bell = Doorbell {
        gpa: Gpa::new(AWAY + 0x1000),
        value: None,
        bytes: Some(4),
    };
    need(
        "storm: one that rings",
        guest.feed(|_| connect(id, 3, PARENT, 0x71, ConnectionKind::Doorbell(bell))),
    );
    clear(page);
    for vp in 0..VPS {
        need("storm: start", guest.start_entry(vp as u32, storm, &[vp]));
        need(
            "storm: no SIPI",
            guest.set_one(vp as u32, N::INTERNAL_ACTIVITY_STATE, 0),
        );
        need("storm: go", guest.resume(vp as u32));
    }
    let (mut next, mut strange, mut rung) = ([0_u64; VPS as usize], 0, 0);
    let is_over = synic::sleep_until(20_000_000, || {
        for _ in 0..8 {
            if insn::read_phys64(slot) as u32 == 0 {
                break;
            }
            let Some(([kind, _, port, word], _)) = take(slot) else {
                break;
            };
            match next.get_mut((word >> 32) as usize) {
                Some(next)
                    if port == 0x70
                        && kind == 0x50 + (word >> 32)
                        && *next == word & 0xFFFF_FFFF =>
                {
                    *next += 1
                }
                _ => strange += 1,
            }
        }
        for n in 0..ring::ENTRY_COUNT as u64 {
            let entry = page + ring::ENTRIES as u64 + n * 4;
            if insn::read_mmio32(entry) == 0x71 {
                insn::write_mmio32(entry, 0);
                rung += 1;
            }
        }
        if insn::read_mmio32(page) >> 8 & 0xFF != 0 {
            insn::write_mmio32(page, 0);
            let _ = call::fast(CallCode::NOTIFY_PORT_RING_EMPTY, BELLS.into(), 0);
        }
        next == [STORM; VPS as usize] && (0..VPS).all(|vp| guest.shared(vp as u32).result(0) == 1)
    });
    check(format_args!("storm: all came # {next:?}"), is_over);
    equal("storm: out of order, twice, or lost", strange, 0);
    check(
        format_args!("storm: it rang # {rung}"),
        (1..=VPS * STORM).contains(&rung),
    );
    let full: u64 = (0..VPS).map(|vp| guest.shared(vp as u32).result(1)).sum();
    machine::verdict::note(format_args!(
        "{full} times the queue was full, {rung} entries in the ring"
    ));
    need("storm: the port goes", delete(PARENT, 0x70));
    need("storm: the doorbell goes", delete(PARENT, 0x71));
    destroy("storm", guest);
    synic::drain();
}
