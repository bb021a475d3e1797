//! Maps that lack memory half-way.

use machine::verdict::{equal, note};
use tlfs::CallCode;
use tlfs::property::PropertyCode;

use crate::arena::{self, FRAME};
use crate::client::call;
use crate::client::partition::RWX;
use crate::group::clean;
use crate::group::need;

/// Memory runs out at each point of building a child; each time nothing changed, and the retry goes on.
pub fn half_way() {
    use crate::client::partition::{Child, USUAL};
    let Some(mut child) = need("half-way: create", Child::create(USUAL)) else {
        return;
    };
    let id = child.id.get();
    let mut tries = 0;
    let mut dirty = 0;
    // `feed` deposits one frame at a time: each refusal is a point where memory ran out.
    let result = child.feed(|child| {
        tries += 1;
        let before = crate::client::partition::property_of(child.id, PropertyCode::CPU_WEIGHT);
        let result = call::fast(CallCode::INITIALIZE_PARTITION, id, 0);
        let after = crate::client::partition::property_of(child.id, PropertyCode::CPU_WEIGHT);
        dirty += u64::from(before != after);
        result
    });
    if need("half-way: initialized in the end", result).is_none() {
        return;
    }
    child.is_initialized = true;
    equal("half-way: refusals changed nothing", dirty, 0);
    note(format_args!("{tries} attempts to initialize"));
    need("half-way: VP", child.create_vp(0));
    let chunk = arena::chunk();
    // Far apart, so that every page needs tables of its own.
    for n in 0..4_u64 {
        let gpa = n * (512 << 30) / 8 + 0x1000;
        let mut refusals = 0;
        let result = child.feed(|child| {
            let reply = child.map_once(gpa, &[chunk + n * FRAME], RWX);
            refusals += u64::from(reply.status.is_err() && reply.done != 0);
            reply.status
        });
        need(format_args!("half-way: page at {gpa:#x}"), result);
        equal("half-way: a refusal did nothing", refusals, 0);
    }
    clean("half-way", child.destroy());
    arena::free_chunk(chunk);
}
