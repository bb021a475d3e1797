//! The pool is empty: a call that needs memory says so, has changed nothing, and goes on from there when there is some.

mod links;
mod own_pool;
mod unpaid;

use addr::VpIndex;
use machine::platform::Platform;
use machine::verdict::{check, equal, note};
use tlfs::call::*;
use tlfs::register::RegisterName as N;
use tlfs::{CallCode, HvError};

use super::{destroy, need, stopped};
use crate::arena::{self, CHUNK, FRAME};
use crate::child::code;
use crate::child::guest::{Guest, Mode};
use crate::client::call;
use crate::client::partition::{Gone, RWX};
use crate::client::vp::{get_registers, set_registers};
use crate::options::Options;

const NONE: HvError = HvError::INSUFFICIENT_MEMORY;
/// A gigabyte of which nothing is mapped.
const FAR: u64 = 0x2_4000_0000;
const LEAF: u32 = 0x8000_0002;
/// Frames that one call may want at most.
const MOST: u32 = 64;

/// Runs the group.
pub fn run(_: &Options, _: &Platform) {
    let Some(mut guest) = need("starved: a child", Guest::new(1)) else {
        return;
    };
    vp(&mut guest);
    map(&mut guest);
    split(&mut guest);
    overlay(&mut guest);
    override_of_cpuid(&mut guest);
    links::run(&mut guest);
    starve(&mut guest);
    let held = guest.deposited.len();
    unpaid::run(&mut guest, "no pool");
    starve(&mut guest);
    equal(
        "starved: no frame came out of use",
        guest.deposited.len() as u64,
        held as u64,
    );
    own_pool::run(&mut guest);
    need(
        "starved: start",
        guest.start(0, Mode::Long, code::out_64, &[]),
    );
    stopped("starved: the child is well", guest.run(0));
    destroy("starved", guest);
}

/// Takes every free frame out of the pool.
fn starve(guest: &mut Guest) {
    let mut gone = Gone::default();
    guest.withdraw_all(&mut gone);
    if gone.withdraw != u64::from(HvError::NO_RESOURCES.0) || gone.foreign != 0 {
        check(format_args!("starved: all is withdrawn # {gone:x?}"), false);
    }
}

/// Makes `attempt` with an empty pool and with one frame more each time, until it succeeds. Until then `is_unchanged`.
fn fed(
    guest: &mut Guest,
    name: &str,
    attempt: impl Fn(&Guest) -> Result<(), HvError>,
    is_unchanged: impl Fn(&Guest) -> bool,
) {
    starve(guest);
    let mut refusals = 0;
    let mut changes = 0;
    let result = loop {
        match attempt(guest) {
            Err(NONE) if refusals < MOST => {
                refusals += 1;
                changes += u64::from(!is_unchanged(guest));
                if let Err(error) = guest.deposit(1) {
                    break Err(error);
                }
            }
            result => break result,
        }
    };
    check(
        format_args!("starved: {name}: there is no memory"),
        refusals != 0,
    );
    equal(
        format_args!("starved: {name}: refusals that changed something"),
        changes,
        0,
    );
    need(format_args!("starved: {name}: with memory it goes"), result);
    check(
        format_args!("starved: {name}: now it shows"),
        !is_unchanged(guest),
    );
    note(format_args!("{name}: {refusals} refusals"));
}

fn vp(guest: &mut Guest) {
    let new = CreateVp {
        partition: guest.id,
        vp: VpIndex::new(1),
        ..CreateVp::default()
    };
    fed(
        guest,
        "a VP",
        |_| call::simple(CallCode::CREATE_VP, &new.encode()),
        |guest| get_registers(guest.id, 1, &[N::RAX]) == Err(HvError::INVALID_VP_INDEX),
    );
}

/// Two pages with tables of their own: memory runs out between them.
fn map(guest: &mut Guest) {
    let frames = arena::frames(2);
    let at = FAR + CHUNK - FRAME;
    starve(guest);
    let mut rest: &[u64] = &frames;
    let mut done_first = 0;
    let mut refusals = 0;
    while !rest.is_empty() && refusals < MOST {
        let done = (frames.len() - rest.len()) as u64;
        let reply = guest.map_once(at + done * FRAME, rest, RWX);
        let count = usize::from(reply.done).min(rest.len());
        rest = &rest[count..];
        match reply.status {
            Ok(()) => break,
            Err(NONE) => {
                refusals += 1;
                done_first = done_first.max(frames.len() - rest.len());
                need("starved: a frame more", guest.deposit(1));
            }
            Err(error) => {
                check(format_args!("starved: map # {error:?}"), false);
                break;
            }
        }
    }
    note(format_args!("map: {refusals} refusals"));
    equal(
        "starved: map: memory ran out between the elements",
        done_first as u64,
        1,
    );
    need("starved: map: both are there", guest.unmap(at, 2));
    frames.into_iter().for_each(arena::free);
}

/// A page out of a large leaf, whose rest needs a table.
fn split(guest: &mut Guest) {
    let chunk = arena::chunk();
    let map = guest.map(FAR, &[chunk], RWX | MapFlags::LARGE);
    need("starved: a large page", map);
    // What the parent reads there: 0, or that it is not mapped.
    let code = |guest: &Guest, gpa: u64| {
        let input = ReadGpa {
            partition: guest.id,
            bytes: AccessBytes::new(8),
            gpa: addr::Gpa::new(gpa),
            ..ReadGpa::default()
        };
        call::ask::<24>(CallCode::READ_GPA, &input.encode()).map_or(u8::MAX, |out| out[0])
    };
    let at = FAR + 7 * FRAME;
    fed(
        guest,
        "a split",
        |guest| guest.unmap_once(at, 1, UnmapFlags::empty()).status,
        |guest| code(guest, at) == 0,
    );
    equal(
        "starved: a split: the pages beside it stay",
        (code(guest, at - FRAME) | code(guest, at + FRAME)).into(),
        0,
    );
    need("starved: unmap the rest", guest.unmap(FAR, 512));
    arena::free_chunk(chunk);
}

/// An overlay inside a large page, placed by the parent.
fn overlay(guest: &mut Guest) {
    let chunk = arena::chunk();
    let map = guest.map(FAR, &[chunk], RWX | MapFlags::LARGE);
    need("starved: a large page", map);
    let value = (FAR + 3 * FRAME) | 1;
    fed(
        guest,
        "an overlay",
        |guest| set_registers(guest.id, 0, &[(N::SIMP, value.into())]).status,
        |guest| guest.reg(0, N::SIMP) != value,
    );
    need("starved: no overlay", guest.set_one(0, N::SIMP, 0));
    need("starved: unmap it", guest.unmap(FAR, 512));
    arena::free_chunk(chunk);
}

fn override_of_cpuid(guest: &mut Guest) {
    let id = guest.id;
    let record = RegisterCpuidResult {
        partition: id,
        vp: VP_ANY,
        leaf: LEAF,
        registers: [[0x5EED, u32::MAX], [0; 2], [0; 2], [0; 2]],
        ..RegisterCpuidResult::default()
    };
    let answer = |_: &Guest| {
        let header = GetCpuidValues {
            partition: id,
            flags: CpuidValuesFlags::APPLY_REGISTERED,
            ..GetCpuidValues::default()
        };
        let leaf = CpuidLeaf {
            leaf: LEAF,
            ..CpuidLeaf::default()
        };
        let mut out = [0; 16];
        let code = CallCode::GET_VP_CPUID_VALUES;
        call::rep(code, &header.encode(), &leaf.encode(), 1, &mut out);
        u32::from_le_bytes([out[0], out[1], out[2], out[3]])
    };
    fed(
        guest,
        "a result of CPUID",
        |_| call::simple(CallCode::REGISTER_INTERCEPT_RESULT, &record.encode()),
        |guest| answer(guest) != 0x5EED,
    );
}
