//! What a VP stops for, in each mode of the processor, and how it goes on.

mod cpuid;
mod ends;
mod faults;
mod interrupts;
mod modes;
mod msrs;
mod ports;
mod registers;
mod suspend;

use machine::platform::Platform;
use tlfs::register::RegisterName as N;

use super::{destroy, need};
use crate::child::guest::Guest;
use crate::client::intercept::Intercept;
use crate::client::vp::set_registers;
use crate::options::Options;
use cpuid::cpuid;
use ends::{ends, full_messages};
use faults::{faults, unmapped_tables};
use interrupts::interrupts;
use modes::modes;
use msrs::msrs;
use ports::{ports, strings};
use registers::registers;
use suspend::suspend;

/// An address that nothing is mapped at.
const AWAY: u64 = 0x40_0000;
/// What a VP is given to halt for good, in microseconds.
const QUIET: u64 = 50_000;

/// Runs the group.
pub fn run(_: &Options, _: &Platform) {
    let Some(mut guest) = need("run: a child of one VP", Guest::new(1)) else {
        return;
    };
    let guest = {
        modes(&mut guest);
        ports(&mut guest);
        strings(&mut guest);
        faults(&mut guest);
        cpuid(&mut guest);
        msrs(&mut guest);
        registers(&mut guest);
        suspend(&mut guest);
        guest
    };
    destroy("run", guest);
    unmapped_tables();
    interrupts();
    ends();
    full_messages();
}

/// Puts the VP behind its instruction, with `more` set, and lets it go on until the next intercept.
pub fn skip(guest: &Guest, vp: u32, at: &Intercept, more: &[(N, u128)]) -> Option<Intercept> {
    let rip = at.header().rip + at.length();
    let mut list = alloc::vec![(N::RIP, u128::from(rip))];
    list.extend_from_slice(more);
    set_registers(guest.id, vp, &list).status.ok()?;
    guest.run(vp)
}
