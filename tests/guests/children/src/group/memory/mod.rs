//! A child's guest physical address space: mapping, splitting, merging, taking away, tracking.

mod access;
mod counts;
mod dirty;
mod half_way;
mod hole;
mod mapping;
mod revocation;
mod uses;

use machine::platform::Platform;
use machine::verdict::equal;
use tlfs::MessageType;
use tlfs::register::RegisterName as N;

use super::{destroy, need};
use crate::child::code;
use crate::child::guest::{Guest, Mode};
use crate::options::Options;
use access::{access, translate};
use dirty::dirty;
use half_way::half_way;
use mapping::{ranges, sizes, unmapping};
use revocation::revocation;
use uses::uses;

/// Where the tests map, 2 MiB aligned.
const BASE: u64 = 0x80_0000;
const RSI: N = N(N::RAX.0 + 6);
const RDI: N = N(N::RAX.0 + 7);

/// Runs the group.
pub fn run(_: &Options, platform: &Platform) {
    let Some(mut guest) = need("memory: a child", Guest::new(1)) else {
        return;
    };
    sizes(&mut guest);
    unmapping(&mut guest);
    ranges(&mut guest);
    dirty(&mut guest);
    access(&mut guest);
    translate(&mut guest);
    uses(&mut guest);
    counts::most_uses(&mut guest);
    counts::taken_back(&mut guest);
    hole::hole(&mut guest);
    revocation(&mut guest, platform);
    destroy("memory", guest);
    half_way();
}

/// What the child reads at `gpa`, or `None` when it stops elsewhere.
fn peek(guest: &mut Guest, gpa: u64) -> Option<u64> {
    guest
        .start(0, Mode::Long, code::read_rsi, &[(RSI, gpa.into())])
        .ok()?;
    let stop = guest.run(0)?;
    if stop.is_out(code::STOP) {
        Some(guest.reg(0, N::RAX))
    } else {
        None
    }
}

/// Checks that the child reads `value` at `gpa`.
fn holds(name: &str, guest: &mut Guest, gpa: u64, value: u64) {
    equal(name, peek(guest, gpa).unwrap_or(!value), value);
}

/// What the access of the child to `gpa` stops for.
fn kind_of(guest: &mut Guest, gpa: u64) -> Option<MessageType> {
    guest
        .start(0, Mode::Long, code::read_rsi, &[(RSI, gpa.into())])
        .ok()?;
    guest.run(0).map(|stop| stop.kind)
}
