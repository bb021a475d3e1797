//! Each pair of uses of one frame: what is deposited has no other use, what has one is not deposited, and the hypervisor's
//! frames have none. Other uses go together, and end one by one.

use addr::Gpn;
use machine::insn;
use machine::platform::Platform;
use machine::probe;
use machine::verdict::{check, equal, note, skip};
use slot_proto::{AttachFlags, GPADL_PAGES, Generation, RING_PAGES};
use tlfs::CallCode;
use tlfs::call::*;
use tlfs::msr::REFERENCE_TSC;
use vmbus_proto::GpadlHandle;

use super::World;
use crate::arena::{self, FRAME};
use crate::child::guest::Guest;
use crate::client::call;
use crate::client::line::{Line, WorkerPages};
use crate::client::partition::{Child, RWX, USUAL, deposit_frames, withdraw_frames};
use crate::group::{clean, destroy, need};

/// Where the frame is mapped.
const AT: u64 = 0x1_0000_0000;
/// The slot of the worker, and the channel of the ring.
const SLOT: usize = 0;
const CHANNEL: usize = 3;
const RING: GpadlHandle = GpadlHandle(0xF00D);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Use {
    Mapped,
    Deposited,
    StatePage,
    Statistics,
    Ring,
    EventArea,
    SignalPage,
    Overlay,
}

use Use::*;

const ALL: [Use; 8] = [
    Mapped, Deposited, StatePage, Statistics, Ring, EventArea, SignalPage, Overlay,
];

/// Who uses the frame.
struct Users<'a> {
    world: &'a World,
    control: &'a mut Line,
    guest: Guest,
    pool: Child,
    rest: WorkerPages,
    ring: alloc::vec::Vec<u64>,
    session: Option<Generation>,
    overlay_before: u64,
}

impl Users<'_> {
    fn ring_of(&self, frame: u64) -> alloc::vec::Vec<u64> {
        let mut pages = self.ring.clone();
        pages[5] = frame;
        pages
    }

    fn attach(&mut self, pages: [u64; 2]) -> bool {
        let [event_area, signal_page] = pages.map(addr::Gpa::new);
        let body = self
            .control
            .ask(&slot_proto::Request::Attach(slot_proto::Attach {
                slot: SLOT as u32,
                flags: AttachFlags::STAYS_SUSPENDED,
                partition: self.guest.id,
                event_area,
                signal_page,
            }));
        let done = body.and_then(|body| slot_proto::Attached::decode(&body));
        self.session = done.as_ref().ok().map(|done| done.generation);
        done.is_ok()
    }

    /// Begins a use; whether it was allowed.
    fn begin(&mut self, which: Use, frame: u64) -> bool {
        let state = self
            .guest
            .state_page(0, StatePageType::Registers, frame)
            .encode();
        let statistics = MapStatsPage2 {
            object: self.object(),
            page: Gpn::new(frame / FRAME),
        };
        match which {
            Mapped => self.guest.map(AT, &[frame], RWX).is_ok(),
            Deposited => {
                let is_done = deposit_frames(self.pool.id, &[frame]).status.is_ok();
                if is_done {
                    self.pool.deposited.insert(frame);
                }
                is_done
            }
            StatePage => call::ask::<8>(CallCode::MAP_VP_STATE_PAGE, &state).is_ok(),
            Statistics => call::simple(CallCode::MAP_STATS_PAGE_2, &statistics.encode()).is_ok(),
            Ring => {
                let pages = self.ring_of(frame);
                let (bus, relid) = (&self.world.bus, self.world.offers[CHANNEL].relid);
                match bus.gpadl(relid, RING, &pages) {
                    Some(0) if bus.open(relid, RING, RING_PAGES as u32) == Some(0) => true,
                    Some(0) => {
                        bus.teardown(relid, RING);
                        false
                    }
                    _ => false,
                }
            }
            EventArea => self.attach([frame, self.rest.signal_page()]),
            SignalPage => self.attach([self.rest.at, frame]),
            Overlay => {
                self.overlay_before = insn::rdmsr(REFERENCE_TSC);
                probe::wrmsr(REFERENCE_TSC, frame | 1).is_ok()
            }
        }
    }

    /// Ends it.
    fn end(&mut self, which: Use, frame: u64) -> bool {
        match which {
            Mapped => self.guest.unmap(AT, 1).is_ok(),
            Deposited => {
                let (reply, frames) = withdraw_frames(self.pool.id, 1);
                self.pool.deposited.remove(&frame);
                reply.status.is_ok() && frames == [frame]
            }
            StatePage => {
                // The type is 0, registers.
                let id = self.guest.id.get();
                call::fast(CallCode::UNMAP_VP_STATE_PAGE, id, 0).is_ok()
            }
            Statistics => {
                let input = StatsPage {
                    object: self.object(),
                };
                call::simple(CallCode::UNMAP_STATS_PAGE, &input.encode()).is_ok()
            }
            Ring => {
                let relid = self.world.offers[CHANNEL].relid;
                self.world.bus.close(relid, RING)
            }
            EventArea | SignalPage => self
                .session
                .take()
                .is_some_and(|generation| self.control.detach(SLOT as u32, generation).is_ok()),
            Overlay => probe::wrmsr(REFERENCE_TSC, self.overlay_before).is_ok(),
        }
    }

    fn object(&self) -> StatsObject {
        StatsObject {
            of: StatsOf::Vp(self.guest.id, addr::VpIndex::new(0)),
            area: StatsArea::Own,
        }
    }
}

/// Both would be the session of one slot.
const fn is_one_session(first: Use, second: Use) -> bool {
    matches!(
        (first, second),
        (EventArea | SignalPage, EventArea | SignalPage)
    )
}

/// Runs this part of the group.
pub fn run(world: &World, platform: &Platform) {
    let Some(mut control) = world.control() else {
        return;
    };
    let (Some(guest), Some(pool), Some(slot)) = (
        need("frames: a child", Guest::new(1)),
        need("frames: a pool", Child::create(USUAL)),
        world.slot(SLOT),
    ) else {
        return;
    };
    let registers = guest.vps[0].registers;
    let id = guest.id.get();
    need(
        "frames: no register page",
        call::fast(CallCode::UNMAP_VP_STATE_PAGE, id, 0),
    );
    let mut users = Users {
        world,
        control: &mut control,
        guest,
        pool,
        rest: WorkerPages::new(),
        ring: arena::frames(GPADL_PAGES),
        session: None,
        overlay_before: 0,
    };
    // The event area has more than one page; the others take the first of them.
    let chunk = arena::chunk();
    pairs(&mut users, chunk);
    hypervisor(&mut users, platform);
    late(&mut users, chunk);
    let Users {
        mut guest,
        pool,
        rest,
        ring,
        ..
    } = users;
    guest.vps[0].registers = registers;
    clean("frames: the pool", pool.destroy());
    destroy("frames", guest);
    check("frames: the slot closes", slot.close(&world.bus));
    check(
        "frames: the control channel closes",
        control.close(&world.bus),
    );
    rest.free();
    ring.into_iter().for_each(arena::free);
    arena::free_chunk(chunk);
}

fn pairs(users: &mut Users<'_>, frame: u64) {
    for first in ALL {
        for second in ALL {
            if first == second && first != Deposited || is_one_session(first, second) {
                continue;
            }
            if !users.begin(first, frame) {
                check(format_args!("frames: {first:?} alone"), false);
                continue;
            }
            let is_allowed = users.begin(second, frame);
            let is_wanted = first != Deposited && second != Deposited;
            // The parent's own overlays hide what is below from nobody but itself.
            if first == Overlay && is_wanted {
                note(format_args!(
                    "frames: {first:?}, then {second:?}: allowed {is_allowed}"
                ));
            } else {
                check(
                    format_args!("frames: {first:?}, then {second:?}: allowed {is_wanted}"),
                    is_allowed == is_wanted,
                );
            }
            if is_allowed && !users.end(second, frame) {
                check(format_args!("frames: {second:?} ends"), false);
            }
            // The first use is still there.
            if first != Deposited && users.begin(Deposited, frame) {
                check(
                    format_args!("frames: {first:?} was lost with {second:?}"),
                    false,
                );
            }
            if !users.end(first, frame) {
                check(format_args!("frames: {first:?} ends"), false);
            }
        }
    }
    // Exactly as many uses ended as began.
    check(
        "frames: without a use it is deposited",
        users.begin(Deposited, frame) && users.end(Deposited, frame),
    );
    equal(
        "frames: and comes back clean",
        insn::read_phys64(frame) | insn::read_phys64(frame + FRAME - 8),
        0,
    );
}

fn hypervisor(users: &mut Users<'_>, platform: &Platform) {
    let block = platform
        .reserved()
        .iter()
        .find(|range| range.start % (2 << 20) == 0 && range.len >= 2 << 20);
    let Some(block) = block else {
        skip("frames: the hypervisor's", "its block is not known");
        return;
    };
    for which in ALL {
        check(
            format_args!("frames: the hypervisor's is not {which:?}"),
            !users.begin(which, block.start + FRAME),
        );
    }
}

/// Named in a GPADL, then deposited, then opened.
fn late(users: &mut Users<'_>, frame: u64) {
    let pages = users.ring_of(frame);
    let (bus, relid) = (&users.world.bus, users.world.offers[CHANNEL].relid);
    equal(
        "frames: a GPADL alone",
        bus.gpadl(relid, RING, &pages).unwrap_or(u32::MAX).into(),
        0,
    );
    check("frames: is no use yet", users.begin(Deposited, frame));
    let (bus, relid) = (&users.world.bus, users.world.offers[CHANNEL].relid);
    check(
        "frames: but the channel does not open on what was deposited",
        bus.open(relid, RING, RING_PAGES as u32) != Some(0),
    );
    check("frames: the GPADL goes", bus.teardown(relid, RING));
    check(
        "frames: the deposit comes back",
        users.end(Deposited, frame),
    );
}
