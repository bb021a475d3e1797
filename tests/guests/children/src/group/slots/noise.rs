//! Noise: two VPs of a child say everything at random to their server, while the worker answers late, in any order, or
//! asks for what cannot be. Nothing is expected but that everybody goes on, and that every frame comes back.

use alloc::vec::Vec;

use machine::insn;
use machine::verdict::{check, equal, note};
use slot_proto::{AttachFlags, Notice, Request};
use tlfs::HvError;
use tlfs::call::CreateFlags;
use tlfs::msr;
use tlfs::property::PropertyCode;
use tlfs::register::RegisterName as N;
use vmbus_proto::{GpadlHandle, Relid, status};

use super::World;
use super::channels::{end_of, plain};
use super::worker::{Worker, attach};
use crate::child::guest::Guest;
use crate::child::layout;
use crate::child::runtime::{self as rt, Random, Shared};
use crate::client::line::LATE;
use crate::client::partition::USUAL;
use crate::client::synic;
use crate::group::{destroy, need};
use vmbus_client::{POST, SIGNAL, SINT};

/// Messages that each VP posts in a round.
const POSTS: u64 = 3_000;
/// Rounds at most. One is enough but where chance has it that some kind of notice does not come.
const ROUNDS: u64 = 5;
/// Frames for the server.
const QUOTA: u64 = 12;
/// The longest that all of it may take, in microseconds.
const PATIENCE: u64 = 60_000_000;
/// Relids and handles are below these.
const RELIDS: u64 = 8;
const HANDLES: u64 = 12;

/// Results of a VP.
mod out {
    pub const TAKEN: usize = 0;
    pub const FULL: usize = 1;
    pub const STRANGE: usize = 2;
    pub const MESSAGES: usize = 3;
    pub const SIGNALS: usize = 4;
}

fn add(shared: &Shared, what: usize) {
    shared.set(what, shared.result(what) + 1);
}

/// A channel message of some type that makes some sense: its length.
fn compose(random: &mut Random, words: &mut [u32; 60]) -> u64 {
    for word in words.iter_mut() {
        *word = match random.below(4) {
            0 => 0,
            1 => random.below(RELIDS) as u32,
            2 => random.below(64) as u32,
            _ => random.next() as u32,
        };
    }
    let relid = random.below(RELIDS) as u32;
    // Mostly one that fits.
    let handle = match random.below(4) {
        0 => 1 + random.below(HANDLES) as u32,
        _ => 1 + relid,
    };
    let kind = match random.below(1024) {
        0..6 => 14,
        6..8 => 16,
        8..48 => 3,
        48..300 => 5,
        300..400 => 7,
        400..650 => 8,
        650..700 => 9,
        700..880 => 11,
        880..930 => 13,
        930..950 => 21,
        950..1000 => 22,
        _ => random.next() as u32 & 31,
    };
    (words[0], words[1], words[2]) = (kind, 0, relid);
    match kind {
        14 => {
            words[2] = if random.below(8) == 0 {
                0x4_0001
            } else {
                0x5_0003
            };
            (words[3], words[4], words[5]) = (0, SINT.into(), 0);
        }
        5 => (words[4], words[5], words[6]) = (handle, 0, random.below(6) as u32 + 1),
        8 => {
            let pages = 1 + random.below(40) as u32;
            words[3] = handle;
            words[4] = (8 + 8 * pages) | 1 << 16;
            (words[5], words[6]) = (pages * 4096, 0);
            some_pages(random, &mut words[7..59]);
            return 28 + 8 * u64::from(pages.min(26));
        }
        9 => {
            words[3] = handle;
            some_pages(random, &mut words[4..60]);
            return 16 + 8 * random.below(28);
        }
        11 => words[3] = handle,
        22 => words[3] = random.below(3) as u32,
        _ => {}
    }
    240
}

fn some_pages(random: &mut Random, words: &mut [u32]) {
    for pair in words.chunks_exact_mut(2) {
        let is_wild = random.below(400) == 0;
        pair[0] = (layout::DATA / 4096 + random.below(200)) as u32;
        pair[1] = u32::from(is_wild);
    }
}

/// Takes some messages.
fn listen(shared: &Shared, random: &mut Random) {
    let slot = layout::MESSAGES + u64::from(SINT) * 256;
    for _ in 0..random.below(12) {
        if insn::read_mmio32(slot) == 0 {
            break;
        }
        add(shared, out::MESSAGES);
        rt::write32(slot, 0);
        rt::wrmsr(msr::EOM, 0);
    }
}

extern "sysv64" fn noise(shared: &'static Shared) -> ! {
    let vp = shared.index.load(core::sync::atomic::Ordering::SeqCst);
    let input = layout::CALL_INPUT + vp * 4096;
    let mut random = Random(shared.arg(0));
    if vp == 0 {
        rt::write32(0xFEE0_00F0, 0x1FF);
        rt::wrmsr(msr::SIMP, layout::MESSAGES | 1);
        rt::wrmsr(msr::SIEFP, layout::EVENTS | 1);
        rt::wrmsr(msr::SINT0 + u32::from(SINT), 0x61);
        rt::wrmsr(msr::SCONTROL, 1);
    }
    let mut words = [0; 60];
    for _ in 0..shared.arg(1) {
        let whole = compose(&mut random, &mut words);
        let len = if random.below(32) == 0 {
            random.below(240)
        } else {
            whole
        };
        rt::write(input, 4);
        rt::write(input + 8, 1 | len << 32);
        for (at, pair) in (0_u64..).zip(words.chunks_exact(2)) {
            let word = u64::from(pair[0]) | u64::from(pair[1]) << 32;
            rt::write(input + 16 + at * 8, word);
        }
        match rt::call(POST.0.into(), input, 0) {
            0 => add(shared, out::TAKEN),
            0x13 => add(shared, out::FULL),
            _ => add(shared, out::STRANGE),
        }
        let connection = random.below(RELIDS) | u64::from(SINT) << 12;
        let flag = u64::from(random.below(64) == 0);
        let control = u64::from(SIGNAL.0) | 1 << 16;
        match rt::call(control, connection | flag << 32, 0) {
            0 => add(shared, out::SIGNALS),
            5 | 0x12 => {}
            _ => add(shared, out::STRANGE),
        }
        if vp == 0 {
            listen(shared, &mut random);
        }
    }
    rt::stop(0)
}

/// What the worker did.
#[derive(Debug, Default)]
struct Done {
    opened: u64,
    closed: u64,
    torn: u64,
    resets: u64,
    signals: u64,
    requests: u64,
    late: u64,
}

fn answer(worker: &mut Worker, random: &mut Random, notice: Notice, done: &mut Done) {
    let result = match notice {
        Notice::Open(relid, opening) => {
            let refuses = random.below(4) == 0;
            if random.below(2) == 0 {
                let _ = worker.hold(relid, opening.ring);
            }
            done.opened += u64::from(!refuses);
            worker.opened(relid, if refuses { status::FAILURE } else { 0 })
        }
        Notice::Close(relid) => {
            done.closed += 1;
            worker.close_done(relid)
        }
        Notice::GpadlTeardown(relid, handle) => {
            done.torn += 1;
            worker.gpadl_done(relid, handle)
        }
        Notice::Reset(_) => {
            done.resets += 1;
            worker.reset_done()
        }
        Notice::Released(_) => Ok(()),
    };
    done.late += u64::from(result == Err(LATE));
}

/// Asks for something that may not be.
fn meddle(worker: &mut Worker, random: &mut Random, done: &mut Done) {
    let relid = Relid(random.below(RELIDS) as u32);
    let handle = GpadlHandle(1 + random.below(HANDLES) as u32);
    let result = match random.below(12) {
        0..5 => worker
            .offer_of(plain(random.below(5) as u32, random.below(2) as u16))
            .map(drop),
        5 => worker.rescind(relid),
        6 => worker.opened(relid, 0),
        7 => worker.close_done(relid),
        8 => worker.gpadl_done(relid, handle),
        9 => worker.reset_done(),
        10 => worker.plainly(&Request::ResetDone),
        _ => worker.hold(relid, handle),
    };
    done.requests += 1;
    done.late += u64::from(result == Err(LATE));
    worker.signals.signal(relid);
    done.late += u64::from(worker.line.signal().is_err());
}

fn child(flags: CreateFlags) -> Result<Guest, HvError> {
    Guest::with(flags, 2, |child| {
        child.set_property(PropertyCode::VMBUS, QUOTA)?;
        child.deposit(QUOTA as usize + 8)
    })
}

/// Runs this part of the group.
pub fn run(world: &World, seed: u64) {
    let Some(mut control) = world.control() else {
        return;
    };
    let Some(mut guest) = need("noise: a child", child(USUAL)) else {
        return;
    };
    let none = AttachFlags::default();
    let Some(mut worker) = attach(world, &mut control, &guest, none) else {
        destroy("noise", guest);
        return;
    };
    for number in 0..3 {
        need("noise: an offer", worker.offer_of(plain(number, 0)));
    }
    let (mut done, mut late) = (Done::default(), Vec::new());
    for n in 0..ROUNDS {
        let seed = seed.wrapping_add(n).max(1);
        round(&mut guest, &mut worker, seed, &mut late, &mut done);
        if done.opened != 0 && done.resets != 0 && done.torn != 0 {
            break;
        }
    }
    equal("noise: no request is without an answer", done.late, 0);
    note(format_args!("noise: {done:?}"));
    check(
        "noise: channels were opened and closed",
        done.opened != 0 && done.resets != 0 && done.torn != 0,
    );
    end_of(world, guest, worker);
    check(
        "noise: the control channel closes",
        control.close(&world.bus),
    );
}
/// Both VPs run to the end of their program, and the worker answers what comes, but for what is `late`.
fn round(
    guest: &mut Guest,
    worker: &mut Worker,
    seed: u64,
    late: &mut Vec<Notice>,
    done: &mut Done,
) {
    for vp in 0..2 {
        let args = [seed.wrapping_mul(77) + u64::from(vp) + 1, POSTS];
        need("noise: program", guest.start_entry(vp, noise, &args));
        need(
            "noise: no SIPI",
            guest.set_one(vp, N::INTERNAL_ACTIVITY_STATE, 0),
        );
        need("noise: go", guest.resume(vp));
    }
    let mut random = Random(seed);
    let mut stopped = 0;
    let is_over = synic::sleep_until(PATIENCE, || {
        for _ in 0..8 {
            let news = worker.watcher.take_news();
            stopped |= news.vps;
            worker.watcher.take_signals(|_| done.signals += 1);
            for _ in 0..16 {
                match worker.watcher.next_notice() {
                    Ok(Some(notice)) if random.below(8) == 0 => late.push(notice),
                    Ok(Some(notice)) => answer(worker, &mut random, notice, done),
                    _ => break,
                }
            }
            if random.below(4) == 0 && !late.is_empty() {
                let at = random.below(late.len() as u64) as usize;
                let notice = late.swap_remove(at);
                answer(worker, &mut random, notice, done);
            }
            meddle(worker, &mut random, done);
        }
        stopped == 0b11
    });
    check(
        format_args!("noise: both come to an end # {stopped:#x}"),
        is_over,
    );
    for vp in 0..2 {
        let shared = guest.shared(vp);
        let seen = |what| shared.result(what);
        equal(
            format_args!("noise: VP {vp}: no strange status"),
            seen(out::STRANGE),
            0,
        );
        note(format_args!(
            "noise: VP {vp}: {} posts, {} refused, {} messages, {} signals",
            seen(out::TAKEN),
            seen(out::FULL),
            seen(out::MESSAGES),
            seen(out::SIGNALS)
        ));
    }
}
